//! The layers of `src/lib.rs`, kept: which module may use which, and no circle between the files of `src/`.
//!
//! Read from the text of the files: `use` declarations, paths that begin with `crate::`, and what a module re-exports.
//! Tests may use what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// For each module below the crate's root, the others that it may use. What all may use stands in [`GROUND`].
const LAYERS: &[(&str, &[&str])] = &[
    ("varint", &[]),
    ("record", &[]),
    ("sys", &[]),
    ("nginx", &[]),
    ("local_time", &[]),
    ("rename", &[]),
    ("topic_name", &[]),
    ("producer_name", &[]),
    ("stats", &[]),
    ("report_kind", &[]),
    ("crash_points", &[]),
    ("seeded_bug", &[]),
    ("protocol", &[]),
    ("config", &["protocol"]),
    ("queue", &["protocol", "rename", "sys"]),
    ("backup", &["local_time", "rename", "sys"]),
    ("producer", &["config", "protocol"]),
    ("net", &["config", "protocol"]),
    (
        "driver",
        &[
            "backup",
            "config",
            "net",
            "nginx",
            "producer",
            "protocol",
            "queue",
            "report_kind",
            "stats",
        ],
    ),
    ("worker", &["config", "driver", "local_time", "nginx", "queue", "report_kind", "stats"]),
    ("ffi", &["driver", "queue", "report_kind", "worker"]),
    (
        "internals",
        &[
            "backup",
            "config",
            "driver",
            "ffi",
            "manual",
            "net",
            "producer",
            "protocol",
            "queue",
            "report_kind",
            "stats",
            "worker",
        ],
    ),
    ("manual", &["config", "report_kind", "stats"]),
    ("module", &["backup", "config", "driver", "ffi", "producer", "worker"]),
];

/// What every module may use.
const GROUND: &[&str] =
    &["crash_points", "producer_name", "record", "seeded_bug", "topic_name", "varint"];

/// The files of `src/`, by the paths of their modules.
struct Tree {
    texts: BTreeMap<Vec<String>, String>,
    /// What a module re-exports: the name there, and the module that it comes from.
    reexports: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl Tree {
    fn read() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut texts = BTreeMap::new();
        for file in rust_files(&root) {
            let text = without_tests(&std::fs::read_to_string(&file).unwrap());
            texts.insert(module_path(file.strip_prefix(&root).unwrap()), text);
        }
        let mut tree = Tree { texts, reexports: BTreeMap::new() };
        let mut reexports = BTreeMap::new();
        for (module, text) in &tree.texts {
            for path in used(text, true) {
                let Some((name, from)) = path.split_last() else { continue };
                if let Some(from) = tree.module_of(&tree.resolve(module, from)) {
                    reexports.insert((module.clone(), name.clone()), from);
                }
            }
        }
        tree.reexports = reexports;
        tree
    }

    /// A path in `module`, counted from the root of the crate.
    fn resolve(&self, module: &[String], path: &[String]) -> Vec<String> {
        let mut at = module.to_vec();
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => (at, rest) = (Vec::new(), &path[1..]),
            Some("self") => rest = &path[1..],
            Some("super") => {
                while rest.first().is_some_and(|part| part == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            _ => {}
        }
        at.extend_from_slice(rest);
        at
    }

    /// The module that a path lies in: the longest beginning of it that is a file.
    fn module_of(&self, path: &[String]) -> Option<Vec<String>> {
        let found = (1..=path.len()).rev().map(|len| &path[..len]);
        found.filter(|path| self.texts.contains_key(*path)).map(<[String]>::to_vec).next()
    }

    /// The file that defines what a path names.
    fn definer(&self, path: &[String]) -> Option<Vec<String>> {
        let module = self.module_of(path)?;
        match path.get(module.len()) {
            Some(name) => match self.reexports.get(&(module.clone(), name.clone())) {
                Some(from) => Some(from.clone()),
                None => Some(module),
            },
            None => Some(module),
        }
    }

    /// The files that each file uses.
    fn edges(&self) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
        let mut edges = BTreeMap::new();
        for (module, text) in &self.texts {
            let paths = used(text, false).into_iter().map(|path| self.resolve(module, &path));
            let named = paths.chain(named(text));
            let mut uses: BTreeSet<_> = named.filter_map(|path| self.definer(&path)).collect();
            uses.remove(module);
            edges.insert(module.clone(), uses);
        }
        edges
    }
}

fn rust_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let is_tests = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !is_tests {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") && !is_tests {
            files.push(path);
        }
    }
    files
}

fn module_path(file: &Path) -> Vec<String> {
    let parts = file.with_extension("");
    let parts = parts.iter().map(|part| part.to_str().unwrap().to_owned());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

/// The text without comments and without the tests at its end.
fn without_tests(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths of all `use` declarations, or of those that re-export.
fn used(text: &str, reexports: bool) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for declaration in text.split(';') {
        let Some(at) = declaration.rfind("use ") else { continue };
        let (before, tree) = declaration.split_at(at);
        let last = before.rsplit('\n').next().unwrap_or_default().trim();
        if (last.is_empty() || last.starts_with("pub")) && (last == "pub") == reexports {
            expand(&[], tree["use ".len()..].trim(), &mut paths);
        }
    }
    paths
}

/// Expands `a::{b, c::d}` into its paths.
fn expand(before: &[String], tree: &str, paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    match tree.split_once("::") {
        Some((first, rest)) if !first.contains('{') && !first.contains(',') => {
            let before = [before, &[first.trim().to_owned()]].concat();
            expand(&before, rest, paths);
        }
        _ if tree.starts_with('{') => {
            let inside = tree.trim_start_matches('{').strip_suffix('}').unwrap_or(tree);
            split_at_commas(inside).into_iter().for_each(|part| expand(before, part, paths));
        }
        _ if tree.is_empty() => {}
        _ => {
            let name = tree.split_whitespace().next().unwrap_or_default();
            let name = if name == "self" { None } else { Some(name.to_owned()) };
            paths.push(before.iter().cloned().chain(name).collect());
        }
    }
}

/// Splits at the commas that stand in no braces.
fn split_at_commas(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts
}

/// Paths that begin with `crate::`, outside of declarations too.
fn named(text: &str) -> Vec<Vec<String>> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    text.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c| !is_path(c)).next().unwrap_or_default())
        .map(|path| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect())
        .collect()
}

#[test]
fn each_module_uses_only_those_below_it() {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, uses) in Tree::read().edges() {
        let Some(own) = file.first() else { continue };
        let allowed = layers.get(own.as_str()).unwrap_or_else(|| panic!("{own} is in no layer"));
        for used in uses {
            let other = used[0].as_str();
            if other != own && !GROUND.contains(&other) && !allowed.contains(&other) {
                wrong.push(format!("{} uses {}", file.join("::"), used.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "not allowed by LAYERS:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_uses_itself_by_way_of_others() {
    let edges = Tree::read().edges();
    let circles = edges.keys().filter_map(|file| {
        let reached = reached_from(file, &edges);
        let around = edges[file].iter().filter(|used| reached_from(used, &edges).contains(file));
        let around: Vec<String> = around.map(|used| used.join("::")).collect();
        reached.contains(file).then(|| format!("{} uses {}", file.join("::"), around.join(", ")))
    });
    let circles: Vec<String> = circles.collect();
    assert!(circles.is_empty(), "in circles:\n{}", circles.join("\n"));
}

/// Everything that a file uses, directly or by way of others.
fn reached_from<'a>(
    file: &Vec<String>,
    edges: &'a BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
) -> BTreeSet<&'a Vec<String>> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<_> = edges[file].iter().collect();
    while let Some(used) = next.pop() {
        if reached.insert(used) {
            next.extend(&edges[used]);
        }
    }
    reached
}
