//! The parts of the manual that are facts of the code: options and statistics. `make docs` prints them into
//! the files; a test holds the files against them.

use crate::config::KEYS;
use crate::report_kind::ReportKind;
use crate::stats::{Kind, ROWS};
use std::fmt::Write;

/// docs/configuration.md.
pub fn configuration() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Printed from the table in `src/config/keys.rs` by `make docs`.\n\n\
         Keys are given to `init()` or stand in `lkfk/conf.lua` as `default_conf`. Names with dots \
         (`linger.ms`) count as names with underscores. An unknown key, a wrong type or a value out of \
         range is refused by `init()`, which says what was expected.\n\n",
    );
    let mut group = "";
    for key in KEYS {
        if key.group != std::mem::replace(&mut group, key.group) {
            writeln!(out, "## {group}\n").expect("writing to a string");
        }
        let unit = if key.unit.is_empty() { String::new() } else { format!(" ({})", key.unit) };
        writeln!(out, "### {}\n", key.name).expect("writing to a string");
        writeln!(out, "{}\n", key.text.trim_start()).expect("writing to a string");
        writeln!(out, "- takes: {}{unit}", (key.takes)()).expect("writing to a string");
        writeln!(out, "- default: `{}`", (key.default)()).expect("writing to a string");
        if !key.aliases.is_empty() {
            let aliases: Vec<String> = key.aliases.iter().map(|a| format!("`{a}`")).collect();
            writeln!(out, "- also: {}", aliases.join(", ")).expect("writing to a string");
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// docs/statistics.md.
pub fn statistics() -> String {
    let mut out = String::from(
        "# Statistics\n\n\
         Printed from the tables in `src/stats.rs` and `src/report_kind.rs` by `make docs`.\n\n\
         `kfk.stats()` returns a table with these keys, for the worker that calls it. At any time \
         `accepted_cnt + adopted_cnt = succ_msg_cnt + fail_msg_cnt + dropped_cnt + queue_messages`, but for what the driver \
         does at that moment and what is left of adopted queues.\n\n\
         | name | kind | unit | meaning |\n| --- | --- | --- | --- |\n",
    );
    for row in ROWS {
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        writeln!(out, "| `{}` | {kind} | {} | {} |", row.name, row.unit, row.text)
            .expect("writing to a string");
    }
    out.push_str(
        "\n## Log lines\n\n\
         Each line that the driver thread leaves for nginx's error log is counted by its kind, also where the line itself \
         is left out: lines of one kind about one subject are told once in 30 seconds. What nginx's own thread says (of \
         `init()`, of callbacks that throw) is not among them.\n\n\
         | name | level | what the line says |\n| --- | --- | --- |\n",
    );
    for kind in ReportKind::ALL {
        let level = kind.level().name();
        writeln!(out, "| `{}` | {level} | {} |", kind.counter(), kind.text())
            .expect("writing to a string");
    }
    out
}
