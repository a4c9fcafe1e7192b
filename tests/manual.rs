//! The manual says what the code says.

use lkfk::internals::report_kind::ReportKind;

#[test]
fn configuration_is_what_the_table_says() {
    assert!(
        include_str!("../docs/configuration.md") == lkfk::internals::manual::configuration(),
        "docs/configuration.md is out of date: run make docs"
    );
}

#[test]
fn statistics_are_what_the_table_says() {
    assert!(
        include_str!("../docs/statistics.md") == lkfk::internals::manual::statistics(),
        "docs/statistics.md is out of date: run make docs"
    );
}

#[test]
fn each_kind_of_log_line_has_a_line_with_its_level_in_the_statistics() {
    let lines: Vec<&str> = include_str!("../docs/statistics.md").lines().collect();
    for kind in ReportKind::ALL {
        let beginning = format!("| `{}` | {} | ", kind.counter(), kind.level().name());
        let line = lines.iter().find(|line| line.starts_with(&beginning));
        let line = line.unwrap_or_else(|| panic!("{beginning}: run make docs"));
        assert!(line.ends_with(". |"), "{line}");
    }
}

/// The public functions of the Lua module and those that README.md describes are the same.
#[test]
fn readme_describes_every_function_of_the_lua_module() {
    let public = |line: &str| {
        let line = line.trim_start();
        let name = line.strip_prefix("function functions.").or(line.strip_prefix("function _M."))?;
        Some(name.split('(').next()?.to_owned())
    };
    // Its own, and those of a producer, which it has as well.
    let of_a_producer = include_str!("../lua/lkfk/producer.lua").lines();
    let of_a_producer = of_a_producer.filter(|line| !line.starts_with("function _M."));
    let own = include_str!("../lua/lkfk/kfk.lua").lines();
    let functions: Vec<String> = own.chain(of_a_producer).filter_map(public).collect();
    let described: Vec<String> = include_str!("../README.md")
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_owned)
        .collect();
    assert!(functions.len() >= 4);
    assert_eq!(functions, described);
}
