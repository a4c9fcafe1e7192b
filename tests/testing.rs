//! docs/testing.md names tests that exist, and its rows are what they say.

use std::collections::BTreeSet;
use std::path::Path;

struct Row {
    id: String,
    /// File and name, which may be empty.
    tests: Vec<(String, String)>,
    open: String,
}

fn rows() -> Vec<Row> {
    let is_id = |text: &str| {
        text.split_once('-').is_some_and(|(kind, number)| {
            kind.len() == 3 && number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let rows = include_str!("../docs/testing.md").lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", id, _, tests, open, ""] = cells[..] else { return None };
        let tests = tests.split(';').map(str::trim).filter(|test| !test.is_empty()).map(|test| {
            let (file, name) = test
                .strip_prefix('`')
                .and_then(|test| test.split_once('`'))
                .unwrap_or_else(|| panic!("{id}: no file in {test:?}"));
            (file.to_owned(), name.trim().to_owned())
        });
        is_id(id).then(|| Row { id: id.to_owned(), tests: tests.collect(), open: open.to_owned() })
    });
    rows.collect()
}

fn text_of(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A line without the word that keeps a spec from running until its fault is mended.
fn without_pending(line: &str) -> String {
    line.trim_start().replacen("#pending ", "", 1)
}

/// Whether the file has a test of that name, or with that part in its name if it ends in `*`.
fn has(file: &str, name: &str) -> bool {
    let text = text_of(file);
    let part = name.strip_suffix('*');
    match Path::new(file).extension().and_then(|extension| extension.to_str()) {
        // Scripts and fuzz targets are one test each.
        _ if name.is_empty() => true,
        Some("rs") => match part {
            Some(part) => text.contains(&format!("fn {part}")),
            None => text.contains(&format!("fn {name}(")),
        },
        Some("lua") => text.lines().map(without_pending).any(|line| {
            line.starts_with("it(")
                && match part {
                    Some(part) => line.contains(part),
                    None => line.starts_with(&format!("it(\"{name}\"")),
                }
        }),
        _ => false,
    }
}

#[test]
fn each_test_that_is_named_exists() {
    let rows = rows();
    assert!(rows.len() > 130, "{} rows", rows.len());
    for row in rows {
        for (file, name) in &row.tests {
            assert!(has(file, name), "{}: {file} has no test {name:?}", row.id);
        }
    }
}

#[test]
fn each_row_has_a_test_or_is_open_and_none_is_there_twice() {
    let mut seen = BTreeSet::new();
    for row in rows() {
        assert!(seen.insert(row.id.clone()), "{} is there twice", row.id);
        let all_open = row.open == "all";
        assert_eq!(row.tests.is_empty(), all_open, "{}", row.id);
    }
}

/// The names of a file's tests that begin with an ID, and that ID.
fn named_by_id(file: &str) -> Vec<(String, String)> {
    let text = text_of(file);
    let names = text.lines().filter_map(|line| {
        let line = without_pending(line);
        let (name, between) = match line.strip_prefix("fn ") {
            Some(rest) => (rest.split_once('(')?.0, '_'),
            None => (line.strip_prefix("it(\"")?.split_once("\", function")?.0, ':'),
        };
        let id = match between {
            '_' => name.splitn(3, '_').take(2).collect::<Vec<_>>().join("-").to_uppercase(),
            _ => name.split_once(between)?.0.to_owned(),
        };
        Some((name.to_owned(), id))
    });
    names.collect()
}

/// Sources and specs.
fn files(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let named = |extension| path.extension().is_some_and(|is| is == extension);
        if path.is_dir() {
            files(&path, found);
        } else if named("rs") || named("lua") {
            let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below the package");
            found.push(path.to_str().expect("a name in UTF-8").to_owned());
        }
    }
}

#[test]
fn each_test_that_has_an_id_in_its_name_stands_in_the_row_of_that_id() {
    let rows = rows();
    let mut found = Vec::new();
    for directory in ["src", "tests", "spec"] {
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut found);
    }
    let mut seen = 0;
    for file in &found {
        for (name, id) in named_by_id(file) {
            let Some(row) = rows.iter().find(|row| row.id == id) else { continue };
            let names_it = |(other, test): &(String, String)| {
                let part = test.strip_suffix('*');
                other == file && part.map_or(*test == name, |part| name.starts_with(part))
            };
            assert!(row.tests.iter().any(names_it), "{id} does not name {name} in {file}");
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} tests with an ID");
}

#[test]
fn each_script_that_is_named_is_a_target_of_make() {
    let makefile = text_of("Makefile");
    for row in rows() {
        for (file, _) in row.tests.iter().filter(|(file, _)| file.starts_with("dev/")) {
            assert!(makefile.contains(&format!("\t{file}\n")), "{}: make has no {file}", row.id);
        }
    }
}
