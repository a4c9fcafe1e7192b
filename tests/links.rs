//! Links between the documents lead somewhere.

use std::path::{Path, PathBuf};

fn documents(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
}

/// Whether a document has a heading of that name in links: in small letters, with hyphens for spaces, without punctuation.
fn has_heading(text: &str, name: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| line.trim_start_matches('#').trim().to_lowercase()).any(|heading| {
        let kept = heading.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        kept.map(|char| if char == ' ' { '-' } else { char }).eq(name.chars())
    })
}

#[test]
fn each_link_to_a_file_leads_to_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    documents(root, &mut found);
    documents(&root.join("docs"), &mut found);
    documents(&root.join("examples"), &mut found);
    let mut seen = 0;
    for document in found {
        let text = std::fs::read_to_string(&document).expect("a file");
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.contains("://") || link.starts_with('#') {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = document.parent().expect("a directory").join(file);
            let text = std::fs::read_to_string(&target).unwrap_or_default();
            let is_there = target.exists() && (heading.is_empty() || has_heading(&text, heading));
            assert!(is_there, "{}: nothing at {link}", document.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} links");
}
