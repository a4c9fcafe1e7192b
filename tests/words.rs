//! What people read, in the manual and in log lines, is in the field's words.

use std::path::{Path, PathBuf};

/// Words that were here instead of the field's, and those.
const WORDS: [(&str, &str); 8] = [
    ("doubled", "duplicated"),
    ("doubles", "duplicates"),
    ("on the way", "in flight"),
    ("on its way", "in flight"),
    ("on their way", "in flight"),
    ("given up", "expired, or failed"),
    ("give or take", "with a jitter of"),
    ("rests", "is not tried"),
];

/// Documents for people who run lkfk. docs/testing.md names tests, which have names of their own.
const DOCUMENTS: [&str; 11] = [
    "README.md",
    "docs/configuration.md",
    "docs/statistics.md",
    "docs/migration.md",
    "CHANGELOG.md",
    "DESIGN.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/operations.md",
    "docs/backup.md",
    "docs/exactly-once.md",
];

fn text_of(file: &Path) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file")
}

/// The first of [`WORDS`] that a text has, as a word of its own.
fn found_in(text: &str) -> Option<(&'static str, &'static str)> {
    let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    WORDS.into_iter().find(|(word, _)| {
        text.match_indices(word).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + word.len()..]);
            !is_letter(before.chars().next_back()) && !is_letter(after.chars().next())
        })
    })
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs" || end == "lua") {
            found.push(path);
        }
    }
}

/// The string literals of a line of code, which begin and end in it.
fn literals(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2)
}

#[test]
fn documents_use_the_words_of_the_field() {
    for document in DOCUMENTS {
        for (number, line) in text_of(Path::new(document)).lines().enumerate() {
            if let Some((word, instead)) = found_in(line) {
                panic!("{document}:{}: \"{word}\" stands for \"{instead}\": {line}", number + 1);
            }
        }
    }
}

#[test]
fn texts_in_the_code_use_the_words_of_the_field() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "lua"] {
        sources(&root.join(directory), &mut files);
    }
    let mut seen = 0;
    for file in files {
        let text = text_of(&file);
        // Tests stand at the end.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            if line.trim_start().starts_with("//") && !line.trim_start().starts_with("///") {
                continue;
            }
            for literal in literals(line).filter(|literal| literal.contains(' ')) {
                seen += 1;
                if let Some((word, instead)) = found_in(literal) {
                    let file = file.display();
                    panic!("{file}:{}: \"{word}\" stands for \"{instead}\"", number + 1);
                }
            }
        }
    }
    assert!(seen > 200, "{seen} texts were looked at");
}

#[test]
fn a_word_that_came_back_is_found() {
    assert!(found_in("12 messages were doubled").is_some());
    assert!(found_in("the broker rests for 60 s").is_some());
    assert!(found_in("it doubles_nothing, and wrests").is_none());
}
