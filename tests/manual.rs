//! The manual says what the code says.

#[test]
fn configuration_is_what_the_table_says() {
    assert!(
        include_str!("../CONFIGURATION.md") == lkfk::manual::configuration(),
        "CONFIGURATION.md is out of date: run make docs"
    );
}

#[test]
fn statistics_are_what_the_table_says() {
    assert!(
        include_str!("../STATISTICS.md") == lkfk::manual::statistics(),
        "STATISTICS.md is out of date: run make docs"
    );
}

/// The public functions of the Lua module and those that README.md describes are the same.
#[test]
fn readme_describes_every_function_of_the_lua_module() {
    // The module's own, then those that every producer has.
    let files = [
        (include_str!("../lua/lkfk/kfk.lua"), "function _M."),
        (include_str!("../lua/lkfk/producer.lua"), "function functions."),
    ];
    let functions: Vec<String> = files
        .iter()
        .flat_map(|(text, before)| text.lines().filter_map(|line| line.trim().strip_prefix(before)))
        .filter_map(|name| Some(name.split('(').next()?.to_owned()))
        .collect();
    let described: Vec<String> = include_str!("../README.md")
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_owned)
        .collect();
    assert!(functions.len() >= 4);
    assert_eq!(functions, described);
}
