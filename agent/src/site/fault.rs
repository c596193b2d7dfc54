//! What is wrong with a file that a person edited, told so that the person can put it right.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::Problem;
use crate::hint::without_controls;
use crate::plain_file::read_plain_file;

/// Longest list of faults that is read, in bytes: far more than as many as are told can have.
const LONGEST_LIST: usize = 1 << 20;
/// Longest part of a fault, in characters: a name may be as long as its file.
const LONGEST_PART: usize = 200;

/// Something that is wrong with a file. Never a word of the file itself, which may hold a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The file, as a person finds it on the boot partition: `site/hostname`.
    pub file: String,
    /// The line, counted from 1, where there is one to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What comes of it.
    pub effect: String,
    /// What to do about it.
    pub next: String,
}

impl Fault {
    /// Returns the fault as a problem of the bridge's.
    pub fn to_problem(&self) -> Problem {
        Problem {
            what: without_controls(&self.place_and_effect()),
            next: without_controls(&self.next),
        }
    }

    fn place_and_effect(&self) -> String {
        let Fault {
            file, what, effect, ..
        } = self;
        match self.line {
            Some(line) => format!("{file}, line {line}: {what}; {effect}"),
            None => format!("{file}: {what}; {effect}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}; next: {}", self.place_and_effect(), self.next);
        f.write_str(&without_controls(&text))
    }
}

/// Reads the list that the start of the system left. Without one nothing was wrong.
pub fn load_faults(path: &Path) -> std::io::Result<Vec<Fault>> {
    match read_plain_file(path, LONGEST_LIST) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What most mistakes cost.
pub(super) const LINE_LEFT_OUT: &str = "this line is left out";

/// A fault of a file whose name goes without saying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) line: Option<usize>,
    pub(super) what: String,
    pub(super) effect: &'static str,
    pub(super) next: String,
}

impl Finding {
    /// Returns what is wrong with a line.
    pub(super) fn at(
        line: usize,
        what: impl Into<String>,
        effect: &'static str,
        next: impl Into<String>,
    ) -> Finding {
        Finding {
            line: Some(line),
            ..Finding::of_file(what, effect, next)
        }
    }

    /// Returns what is wrong with a file as a whole.
    pub(super) fn of_file(
        what: impl Into<String>,
        effect: &'static str,
        next: impl Into<String>,
    ) -> Finding {
        Finding {
            line: None,
            what: what.into(),
            effect,
            next: next.into(),
        }
    }

    pub(super) fn in_file(self, file: &str) -> Fault {
        Fault {
            file: shortened(file.to_owned()),
            line: self.line,
            what: shortened(self.what),
            effect: self.effect.to_owned(),
            next: shortened(self.next),
        }
    }
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_PART) {
        text.truncate(end);
        text += " ...";
    }
    text
}

/// Returns findings as the tests show them, a line each.
#[cfg(test)]
pub(super) fn listed(findings: &[Finding]) -> String {
    let line_of = |finding: &Finding| {
        let Finding {
            line,
            what,
            effect,
            next,
        } = finding;
        let line = line.map_or("-".to_owned(), |line| line.to_string());
        format!("{line}: {what}; {effect}; {next}\n")
    };
    findings.iter().map(line_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_back_and_a_missing_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("faults.json");
        assert_eq!(load_faults(&path).unwrap(), []);
        let fault =
            Finding::at(3, "it is too long", "it is left out", "shorten it").in_file("site/x\u{7}");
        std::fs::write(
            &path,
            serde_json::to_vec(std::slice::from_ref(&fault)).unwrap(),
        )
        .unwrap();
        assert_eq!(load_faults(&path).unwrap(), std::slice::from_ref(&fault));
        assert_eq!(
            fault.to_string(),
            "site/x\\u{7}, line 3: it is too long; it is left out; next: shorten it"
        );
        let long = Finding::of_file("\u{e9}".repeat(1000), "x", "y").in_file("site/x");
        assert_eq!(long.what, format!("{} ...", "\u{e9}".repeat(200)));
        std::fs::write(&path, "[{}]").unwrap();
        load_faults(&path).unwrap_err();
    }
}
