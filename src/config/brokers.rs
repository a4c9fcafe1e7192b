//! The forms in which users write broker lists.

use super::value::{FromValue, Value, shown};
use std::fmt;

/// Port of a broker that names none.
const DEFAULT_PORT: u16 = 9092;

/// A broker's address, unresolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// TCP port, not 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromValue for Vec<HostPort> {
    type Bounds = ();
    fn takes(_: &()) -> String {
        "a list like {\"host1:9092\", \"host2:9092\"} or {{host = \"host1\", port = 9092}}".into()
    }
    fn from_value(value: &Value, _: &()) -> Result<Self, String> {
        parse(value)
    }
}

/// Reads a list of brokers; duplicates are left out, the order is kept.
fn parse(value: &Value) -> Result<Vec<HostPort>, String> {
    let mut brokers = Vec::new();
    match value {
        Value::Text(_) | Value::Map(_) => read(value, &mut brokers)?,
        Value::List(items) => {
            for item in items {
                read(item, &mut brokers)?;
            }
        }
        other => return Err(other.to_string()),
    }
    let mut seen = std::collections::HashSet::new();
    brokers.retain(|broker| seen.insert(broker.clone()));
    Ok(brokers)
}

fn read(value: &Value, brokers: &mut Vec<HostPort>) -> Result<(), String> {
    match value {
        Value::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| value.to_string())?;
            for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                let broker = host_port(part);
                brokers.push(broker.ok_or_else(|| format!("\"{}\"", shown(part.as_bytes())))?);
            }
            Ok(())
        }
        Value::Map(entries) => {
            let field = |name| entries.iter().find(|(key, _)| key == name).map(|(_, value)| value);
            let port = match field("port") {
                None => i64::from(DEFAULT_PORT),
                Some(Value::Int(port)) => *port,
                Some(Value::Text(port)) => std::str::from_utf8(port)
                    .ok()
                    .and_then(|port| port.parse().ok())
                    .ok_or("a table with a bad port")?,
                Some(other) => return Err(format!("a table with port = {other}")),
            };
            let port = u16::try_from(port).ok().filter(|port| *port != 0);
            let port = port.ok_or("a table with a port that is not from 1 to 65535")?;
            let Some(Value::Text(host)) = field("host") else {
                return Err("a table without host".into());
            };
            let host = std::str::from_utf8(host).map_err(|_| "a table with a bad host")?;
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            if !is_host(host) {
                return Err("a table with a bad host".into());
            }
            brokers.push(HostPort { host: host.to_owned(), port });
            Ok(())
        }
        other => Err(other.to_string()),
    }
}

fn host_port(text: &str) -> Option<HostPort> {
    // librdkafka and Java users sometimes write the listener's scheme.
    let schemes = ["PLAINTEXT://", "SSL://", "SASL_PLAINTEXT://", "SASL_SSL://"];
    let text = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else {
        match text.split_once(':') {
            // More than one colon without brackets: a bare IPv6 address.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
    };
    is_host(host).then(|| HostPort { host: host.to_owned(), port })
}

fn is_host(host: &str) -> bool {
    (1..=255).contains(&host.len())
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }

    fn shown(value: Value) -> Result<String, String> {
        parse(&value).map(|list| list.iter().map(HostPort::to_string).collect::<Vec<_>>().join(" "))
    }

    fn table(host: &str, port: i64) -> Value {
        Value::Map(vec![("host".into(), text(host)), ("port".into(), Value::Int(port))])
    }

    #[test]
    fn all_forms_of_the_list_are_read() {
        assert_eq!(shown(Value::List(vec![text("a:1,b:2")])).unwrap(), "a:1 b:2");
        assert_eq!(shown(Value::List(vec![text("a:1"), text("b:2")])).unwrap(), "a:1 b:2");
        assert_eq!(
            shown(Value::List(vec![table("a", 1), table("::1", 2)])).unwrap(),
            "a:1 [::1]:2"
        );
        assert_eq!(shown(table("a", 1)).unwrap(), "a:1");
        assert_eq!(shown(text("a, b:2 ,")).unwrap(), "a:9092 b:2");
        assert_eq!(shown(text("SSL://a:1,SASL_SSL://b")).unwrap(), "a:1 b:9092");
    }

    #[test]
    fn ipv6_stands_in_brackets_or_alone() {
        assert_eq!(
            shown(text("[::1]:9093,[fe80::1%eth0],::1")).unwrap(),
            "[::1]:9093 [fe80::1%eth0]:9092 [::1]:9092"
        );
    }

    #[test]
    fn duplicates_are_left_out() {
        assert_eq!(shown(text("a:1,b:1,a:1")).unwrap(), "a:1 b:1");
    }

    #[test]
    fn bad_entries_are_named() {
        assert_eq!(shown(text("a:0")).unwrap_err(), "\"a:0\"");
        assert_eq!(shown(text("a:65536")).unwrap_err(), "\"a:65536\"");
        assert_eq!(shown(text("http://a:1")).unwrap_err(), "\"http://a:1\"");
        assert!(shown(table("a", 0)).is_err());
        assert!(shown(table("a b", 1)).is_err());
        assert!(shown(Value::List(vec![Value::Bool(true)])).is_err());
    }
}
