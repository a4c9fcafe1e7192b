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
            let target = document.parent().expect("a directory").join(link);
            assert!(target.exists(), "{}: nothing at {link}", document.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} links");
}
