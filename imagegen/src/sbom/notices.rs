//! The licence bundle: what is not free software, then the copyright notices and licences of everything in an image, as its authors wrote them.
//!
//! Plain text, so that whoever holds it can read it. A text that several have is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Bill, Component, Kind};

/// Between two texts.
const RULE: &str =
    "================================================================================";

/// Where copyright files refer to licences that Debian keeps.
const COMMON: &str = "/usr/share/common-licenses/";

/// A text of one component or more.
struct Notice<'a> {
    text: &'a str,
    /// Who has it.
    names: BTreeSet<&'a str>,
    /// What its file is called there.
    files: BTreeSet<&'a str>,
}

impl Notice<'_> {
    fn heading(&self) -> String {
        let list = |words: &BTreeSet<&str>| words.iter().copied().collect::<Vec<_>>().join(", ");
        format!("{}: {}", list(&self.names), list(&self.files))
    }
}

/// Writes the licence bundle.
#[must_use]
pub(super) fn notices(bill: &Bill) -> String {
    let mut text = format!("Licences of {} {}\n\n", bill.name, bill.version);
    write_non_free(bill, &mut text);
    write_contents(bill, &mut text);
    let mut common = BTreeSet::new();
    for notice in by_text(bill) {
        section(&notice.heading(), notice.text, &mut text);
        common.extend(referred(notice.text));
    }
    for (name, licence) in &bill.common_licences {
        if common.contains(name.as_str()) {
            section(
                &format!("{COMMON}{name}"),
                &String::from_utf8_lossy(licence),
                &mut text,
            );
        }
    }
    text
}

fn write_non_free(bill: &Bill, text: &mut String) {
    let mut components = bill
        .components
        .values()
        .filter(|component| component.non_free().is_some())
        .peekable();
    text.push_str("Not free software\n-----------------\n\n");
    if components.peek().is_none() {
        text.push_str("Nothing.\n");
    }
    for component in components {
        let part = component.non_free().unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} ({part})", title(component));
        let files = component.debian.iter().flat_map(|debian| &debian.files);
        for file in files {
            let _ = writeln!(text, "    {file}");
        }
    }
}

fn write_contents(bill: &Bill, text: &mut String) {
    for (heading, kinds) in [
        (
            "Debian packages",
            &[Kind::Package, Kind::Kernel, Kind::Firmware][..],
        ),
        (
            "The agent, and what is linked into it",
            &[Kind::Agent, Kind::Crate, Kind::Library],
        ),
    ] {
        let _ = writeln!(text, "\n{heading}\n{}\n", "-".repeat(heading.len()));
        let components = bill.components.values();
        for component in components.filter(|component| kinds.contains(&component.kind)) {
            let licence = match (&component.licence, component.notices.is_empty()) {
                (Some(licence), _) => licence.as_str(),
                (None, false) => "see its notice below",
                (None, true) => "no notice lies with it",
            };
            let _ = writeln!(text, "{}: {licence}", title(component));
        }
    }
}

fn title(component: &Component) -> String {
    match &component.version {
        None => component.name.clone(),
        Some(version) => format!("{} {version}", component.name),
    }
}

/// The notices in the order of the first that has each.
fn by_text(bill: &Bill) -> Vec<Notice<'_>> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut notices: Vec<Notice<'_>> = Vec::new();
    for component in bill.components.values() {
        for (file, text) in &component.notices {
            let text = text.trim();
            let place = *places.entry(text).or_insert_with(|| {
                notices.push(Notice {
                    text,
                    names: BTreeSet::new(),
                    files: BTreeSet::new(),
                });
                notices.len() - 1
            });
            notices[place].names.insert(&component.name);
            notices[place].files.insert(file);
        }
    }
    notices
}

fn section(heading: &str, body: &str, text: &mut String) {
    let _ = write!(text, "\n{RULE}\n{heading}\n{RULE}\n\n{}\n", body.trim_end());
}

/// The common licences that a text names by their path.
fn referred(notice: &str) -> impl Iterator<Item = &str> {
    notice.split(COMMON).skip(1).map(|rest| {
        let end =
            rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || "-.".contains(letter)));
        rest[..end.unwrap_or(rest.len())].trim_end_matches('.')
    })
}
