//! The documents: every relative link leads to a file and a heading that are there, the book leaves nothing out, and its pictures are
//! whole. Addresses elsewhere are not visited.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How the book leads out of itself: mdBook takes along only what is below `docs/src`.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");

/// Folders with documents in them, besides the top.
const FOLDERS: [&str; 4] = ["agent", "agent/fuzz", "imagegen", "docs/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names in a folder that end in so.
fn names(folder: &str, end: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(end))
        .collect();
    names.sort();
    names
}

/// All documents by their paths from the top, without blocks of code.
fn documents() -> BTreeMap<String, String> {
    let mut documents = BTreeMap::new();
    for folder in FOLDERS.into_iter().chain([""]) {
        for name in names(folder, ".md") {
            let path = Path::new(folder).join(name);
            let text = fs::read_to_string(root().join(&path)).unwrap();
            documents.insert(path.to_str().unwrap().to_owned(), without_code(&text));
        }
    }
    documents
}

fn without_code(text: &str) -> String {
    let mut plain = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            plain.push_str(line);
        }
        plain.push('\n');
    }
    assert!(!fenced, "a block of code has no end");
    plain
}

/// The targets of `[text](target)` and `![text](target)`.
fn links(text: &str) -> Vec<&str> {
    let after = text.split("](").skip(1);
    after.filter_map(|rest| rest.split(')').next()).collect()
}

/// The anchors of a document's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let anchor: String = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        assert!(
            anchors.insert(anchor),
            "two headings are one anchor: {line}"
        );
    }
    anchors
}

/// A path without `.` and `..`; nothing if it leads out of the repository.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// What is wrong with a link of a document.
fn fault(documents: &BTreeMap<String, String>, from: &str, link: &str) -> Option<String> {
    let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = match target.strip_prefix(REPOSITORY) {
        Some(path) => path.to_owned(),
        None if target.contains("://") => return None,
        None if target.is_empty() => from.to_owned(),
        None => {
            let folder = Path::new(from).parent().unwrap_or(Path::new(""));
            let Some(path) = normal(&folder.join(target)) else {
                return Some("leads out of the repository".to_owned());
            };
            if from.starts_with("docs/src/") && !path.starts_with("docs/src/") {
                return Some(
                    "leads out of the book, which takes nothing along from there".to_owned(),
                );
            }
            path
        }
    };
    if !root().join(&path).exists() {
        return Some(format!("{path} is not there"));
    }
    if anchor.is_empty() {
        return None;
    }
    match documents.get(&path) {
        Some(text) if anchors(text).contains(anchor) => None,
        _ => Some(format!("{path} has no heading #{anchor}")),
    }
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    let mut faults = String::new();
    let mut checked = 0;
    for (from, text) in &documents {
        for link in links(text) {
            checked += 1;
            if let Some(fault) = fault(&documents, from, link) {
                faults.push_str(&format!("{from}: {link}: {fault}\n"));
            }
        }
    }
    assert_eq!(faults, "");
    assert!(checked > 50, "only {checked} links were found");
}

#[test]
fn faults_of_links_are_found() {
    let documents = documents();
    for (from, link, expected) in [
        (
            "README.md",
            "docs/src/nowhere.md",
            Some("docs/src/nowhere.md is not there"),
        ),
        ("README.md", "../x", Some("leads out of the repository")),
        (
            "README.md",
            "#nothing",
            Some("README.md has no heading #nothing"),
        ),
        (
            "docs/src/boards.md",
            "../../README.md",
            Some("leads out of the book, which takes nothing along from there"),
        ),
        ("docs/src/boards.md", "security.md", None),
        ("README.md", "https://example.org/nowhere", None),
    ] {
        assert_eq!(fault(&documents, from, link).as_deref(), expected, "{link}");
    }
    let gone = format!("{REPOSITORY}gone.md");
    assert_eq!(
        fault(&documents, "README.md", &gone).as_deref(),
        Some("gone.md is not there")
    );
}

#[test]
fn the_book_leaves_nothing_out() {
    let summary = fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    let mut listed: Vec<&str> = links(&summary);
    listed.sort_unstable();
    let chapters: Vec<String> = names("docs/src", ".md")
        .into_iter()
        .filter(|name| name != "SUMMARY.md")
        .collect();
    assert_eq!(listed, chapters);
}

/// Each is shown somewhere, says in words what it shows, and has its own ground: it is seen on pages that are light or dark.
#[test]
fn pictures_are_used_and_can_be_read_anywhere() {
    let documents = documents();
    for name in names("docs/src/pictures", ".svg") {
        let picture = fs::read_to_string(root().join("docs/src/pictures").join(&name)).unwrap();
        assert!(picture.contains("<title"), "{name} has no title");
        assert!(picture.contains("<rect width="), "{name} has no ground");
        // The icon is for Imager.
        let shown = documents
            .values()
            .any(|text| text.contains(&format!("pictures/{name})")));
        assert!(shown || name == "footbridge.svg", "{name} is shown nowhere");
    }
}
