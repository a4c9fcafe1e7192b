//! The control port: a line is an order, "LINE ORDER" or "all ORDER" or "status", and has an answer of one line,
//! "ok" or what is wrong. Lines are numbered from 1, as they stand in the command.

use super::Line;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Takes orders, for ever.
pub async fn serve(address: SocketAddr, lines: Vec<Arc<Line>>) -> io::Result<ExitCode> {
    let listener = TcpListener::bind(address).await?;
    let lines: Arc<[Arc<Line>]> = lines.into();
    loop {
        let (stream, _) = listener.accept().await?;
        let lines = lines.clone();
        tokio::spawn(async move {
            // Who hangs up has had his answers.
            let _ = follow_all(stream, &lines).await;
        });
    }
}

async fn follow_all(stream: TcpStream, lines: &[Arc<Line>]) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut order = String::new();
    while stream.read_line(&mut order).await? > 0 {
        let answer = follow(order.trim(), lines).unwrap_or_else(|wrong| wrong);
        stream.write_all(format!("{answer}\n").as_bytes()).await?;
        order.clear();
    }
    Ok(())
}

/// Follows one order.
pub fn follow(order: &str, lines: &[Arc<Line>]) -> Result<String, String> {
    if order == "status" {
        let all = lines.iter().enumerate().map(|(index, line)| {
            let counts = line.counts.lock().expect("nobody panics with it");
            let counts = counts.iter().map(|(what, count)| format!(" {what}={count}"));
            format!("{}:{}", index + 1, counts.collect::<String>())
        });
        return Ok(all.collect::<Vec<_>>().join("; "));
    }
    let (name, order) = order.split_once(' ').ok_or_else(|| format!("no such order: {order}"))?;
    let chosen: &[Arc<Line>] = match name.parse::<usize>() {
        _ if name == "all" => lines,
        Ok(number) if (1..=lines.len()).contains(&number) => &lines[number - 1..number],
        _ => return Err(format!("no line {name}")),
    };
    for line in chosen {
        let mut followed = Ok(());
        line.faults.send_modify(|faults| followed = faults.follow(order));
        followed?;
    }
    Ok("ok".to_owned())
}
