//! A list of devices as it is written: a `fleet.toml`, a CSV, or a `fleet.toml` that names a CSV and says what all of its devices have.
//!
//! Both become rows with the keys of a `site.toml`, each value with its place in the file, so that one check serves both.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{list_csv, list_toml};
use crate::sha256::Sha256;

/// A list of 100,000 devices takes some 20 MB.
const LIST_MAX: u64 = 64 << 20;

/// A file of a list.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is called in messages.
    pub name: String,
    /// Where the files that it names are looked for.
    pub folder: PathBuf,
    /// All of it, without a byte order mark. It may hold secrets.
    pub text: String,
    /// Whether everybody on this machine can read it.
    pub open_to_all: bool,
}

/// The files of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The file that was named.
    pub list: Source,
    /// The CSV that it names.
    pub devices: Option<Source>,
}

/// Why a list cannot be read.
#[derive(Debug, Error)]
pub enum LoadError {
    /// No such file, or no permission.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// Not text.
    #[error("{}:{line}: this is not text in UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first line that is not.
        line: usize,
    },
    /// More than any list has.
    #[error("{} is too large for a list of devices", .0.display())]
    TooLarge(PathBuf),
    /// Neither of the two kinds.
    #[error("{} is neither a .toml nor a .csv", .0.display())]
    Kind(PathBuf),
}

/// A mistake in a list. Says nothing of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("{file}:{line}: {what}")]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// A list that can be read as one; what its values are worth is another question.
#[derive(Clone, Debug)]
pub struct List<'a> {
    pub(super) defaults: Option<Row<'a>>,
    pub(super) devices: Vec<Row<'a>>,
    /// Mistakes that do not keep the rest from being checked.
    pub(super) problems: Vec<Problem>,
}

/// What a list says of one device, or of all of them.
#[derive(Clone, Debug)]
pub(super) struct Row<'a> {
    pub(super) source: &'a Source,
    pub(super) span: Span,
    pub(super) fields: DeTable<'a>,
}

/// A place in a text.
pub(super) type Span = Range<usize>;

/// Loads a list and the CSV that it names, if it does.
pub fn load_sources(path: &Path) -> Result<Sources, LoadError> {
    let list = load_source(path, &path.display().to_string())?;
    let devices = match kind_of(path) {
        Some(Kind::Csv) => None,
        Some(Kind::Toml) => match list_toml::devices_file(&list) {
            Some(name) => {
                let path = list.folder.join(name);
                Some(load_source(&path, &path.display().to_string())?)
            }
            None => None,
        },
        None => return Err(LoadError::Kind(path.to_owned())),
    };
    Ok(Sources { list, devices })
}

/// Takes a list apart. An error is what keeps it from being understood at all; other mistakes are told by the check, with its own.
pub fn parse_list(sources: &Sources) -> Result<List<'_>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut list = List {
        defaults: None,
        devices: Vec::new(),
        problems: Vec::new(),
    };
    if kind_of(Path::new(&sources.list.name)) == Some(Kind::Csv) {
        list_csv::parse(&sources.list, &mut list, &mut problems);
    } else {
        list_toml::parse(&sources.list, &mut list, &mut problems);
    }
    if let Some(devices) = &sources.devices {
        list_csv::parse(devices, &mut list, &mut problems);
    }
    if list.devices.is_empty() && list.problems.is_empty() && problems.is_empty() {
        problems.push(sources.list.problem(
            &(0..0),
            "there is no device in the list",
            "a CSV has a line of headings and a line a device, a fleet.toml a [[device]] each",
        ));
    }
    if problems.is_empty() {
        Ok(list)
    } else {
        Err(problems)
    }
}

impl Sources {
    /// Returns the digest of all that the files say.
    pub fn digest(&self) -> Sha256 {
        let texts = [Some(&self.list), self.devices.as_ref()];
        let digests: Vec<String> = texts
            .into_iter()
            .flatten()
            .map(|source| Sha256::of(source.text.as_bytes()).to_string())
            .collect();
        Sha256::of(digests.join("\n").as_bytes())
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("text", &"<redacted>")
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Tells a mistake at a place.
    pub(super) fn problem(
        &self,
        span: &Span,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        Problem {
            file: self.name.clone(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            what: what.into(),
            hint: hint.into(),
        }
    }
}

/// A value at a place.
pub(super) fn text_value(span: &Span, text: impl Into<String>) -> Spanned<DeValue<'static>> {
    Spanned::new(span.clone(), DeValue::String(text.into().into()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Toml,
    Csv,
}

fn kind_of(path: &Path) -> Option<Kind> {
    let extension = path.extension()?;
    if extension.eq_ignore_ascii_case("csv") {
        Some(Kind::Csv)
    } else if extension.eq_ignore_ascii_case("toml") {
        Some(Kind::Toml)
    } else {
        None
    }
}

fn load_source(path: &Path, name: &str) -> Result<Source, LoadError> {
    let read = |err| LoadError::Read {
        path: path.to_owned(),
        err,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(read)?;
    let mode = file.metadata().map_err(read)?.permissions().mode();
    file.take(LIST_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    if bytes.len() as u64 > LIST_MAX {
        return Err(LoadError::TooLarge(path.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|err| {
        let good = &err.as_bytes()[..err.utf8_error().valid_up_to()];
        LoadError::NotText {
            path: path.to_owned(),
            line: 1 + good.iter().filter(|byte| **byte == b'\n').count(),
        }
    })?;
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    let absolute = fs::canonicalize(path).map_err(read)?;
    Ok(Source {
        name: name.to_owned(),
        folder: absolute.parent().unwrap_or(Path::new("/")).to_owned(),
        text,
        open_to_all: mode & 0o004 != 0,
    })
}
