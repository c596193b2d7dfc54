//! The ledger of a fleet: which device's card was written, from what, to which card, when. A line of JSON an event, only ever added to.
//!
//! ```json
//! {"time":"2026-11-25T22:10:00Z","state":"started","device":"hall-1","serial":"10000000abcdef01","image":"<SHA-256>","bundle":"<SHA-256>","card":"USB ..."}
//! ```
//!
//! A line is on the disk before anybody goes on. A program that is ended while it writes one leaves a line without an end, which counts for
//! nothing and is cut off before the next is added; anything else that is no event is somebody's mistake, and told. Who adds has the file
//! locked, so that several may write cards at a time.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::calendar::timestamp;

/// The name of the ledger in the folder of a fleet.
pub const LEDGER_FILE: &str = "ledger.jsonl";

/// Something that happened to a device's card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, as RFC 3339 in UTC.
    pub time: String,
    /// What.
    pub state: State,
    /// The name of the device.
    pub device: String,
    /// The number of its processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The address of its radio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The digest of the image of its board.
    pub image: String,
    /// The digest of its own files.
    pub bundle: String,
    /// What is known of the card.
    pub card: String,
}

/// How far a card is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is about to be written.
    Started,
    /// It is whole, and was read back.
    Done,
}

/// Why a ledger cannot be kept.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The system has something against it.
    #[error("cannot {what} {}", path.display())]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// The ledger.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// A whole line that is no event.
    #[error("{}:{line}: this is no line of a ledger", path.display())]
    Line {
        /// The ledger.
        path: PathBuf,
        /// Which.
        line: usize,
    },
}

/// The ledger of a folder. It is made when the first event is added.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// Names the ledger of a fleet's folder.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Self {
        Self {
            path: folder.join(LEDGER_FILE),
        }
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the last event of each device, by its name.
    pub fn load(&self) -> Result<BTreeMap<String, Event>, LedgerError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(self.failed("read", err)),
        };
        let (events, _) = self.parse(&bytes)?;
        Ok(events
            .into_iter()
            .map(|event| (event.device.clone(), event))
            .collect())
    }

    /// Adds an event; returns once it is on the disk.
    pub fn append(&self, event: &Event) -> Result<(), LedgerError> {
        let write = |err| self.failed("write", err);
        let mut line = serde_json::to_vec(event).map_err(|err| write(err.into()))?;
        line.push(b'\n');
        let fresh = !self.path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)
            .map_err(write)?;
        file.lock().map_err(write)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|err| self.failed("read", err))?;
        let (_, whole) = self.parse(&bytes)?;
        let whole = whole as u64;
        let mut add = || -> io::Result<()> {
            if whole < bytes.len() as u64 {
                file.set_len(whole)?;
            }
            file.seek(io::SeekFrom::Start(whole))?;
            file.write_all(&line)?;
            file.sync_all()?;
            if fresh && let Some(folder) = self.path.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(())
        };
        add().map_err(write)
    }

    fn parse(&self, bytes: &[u8]) -> Result<(Vec<Event>, usize), LedgerError> {
        parse_ledger(bytes).map_err(|line| LedgerError::Line {
            path: self.path.clone(),
            line,
        })
    }

    fn failed(&self, what: &'static str, err: io::Error) -> LedgerError {
        LedgerError::File {
            what,
            path: self.path.clone(),
            err,
        }
    }
}

/// Returns the events, and how many bytes their lines have; what is behind is a line without its end. An error is the number of a line.
pub fn parse_ledger(bytes: &[u8]) -> Result<(Vec<Event>, usize), usize> {
    let mut events = Vec::new();
    let mut whole = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(text) = line.strip_suffix(b"\n") else {
            break;
        };
        events.push(serde_json::from_slice(text).map_err(|_| index + 1)?);
        whole += line.len();
    }
    Ok((events, whole))
}

/// Writes seconds since 1970 as RFC 3339 has them, in UTC.
#[must_use]
pub fn rfc3339(seconds: u64) -> String {
    timestamp(u32::try_from(seconds).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(device: &str, state: State) -> Event {
        Event {
            time: rfc3339(1_795_644_600),
            state,
            device: device.to_owned(),
            serial: Some("10000000abcdef01".to_owned()),
            mac: None,
            image: "11".repeat(32),
            bundle: "22".repeat(32),
            card: "USB \"odd\"\n card".to_owned(),
        }
    }

    #[test]
    fn times_are_as_in_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_644_600, "2026-11-25T22:10:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    /// Whatever byte the last writing ended at, everything before it is there, and what comes after it too.
    #[test]
    fn a_ledger_that_was_cut_off_anywhere_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of_folder(folder.path());
        let events = [
            event("a", State::Started),
            event("a", State::Done),
            event("b", State::Started),
            event("b", State::Done),
        ];
        let mut ends = vec![0];
        for event in &events {
            ledger.append(event).unwrap();
            ends.push(fs::metadata(ledger.path()).unwrap().len() as usize);
        }
        let bytes = fs::read(ledger.path()).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 4);
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            fs::write(ledger.path(), &bytes[..cut]).unwrap();
            assert_eq!(
                parse_ledger(&bytes[..cut]),
                Ok((events[..whole].to_vec(), ends[whole]))
            );
            ledger.append(&event("c", State::Started)).unwrap();
            let (found, end) = parse_ledger(&fs::read(ledger.path()).unwrap()).unwrap();
            assert_eq!(found[..whole], events[..whole]);
            assert_eq!(found[whole..], [event("c", State::Started)]);
            assert_eq!(end as u64, fs::metadata(ledger.path()).unwrap().len());
        }
    }

    #[test]
    fn a_line_that_is_no_event_is_told_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of_folder(folder.path());
        ledger.append(&event("a", State::Done)).unwrap();
        let good = fs::read(ledger.path()).unwrap();
        for bad in ["\n", "hello\n", "{}\n", "{\"time\":1}\n"] {
            let bytes = [&good, bad.as_bytes(), &good].concat();
            fs::write(ledger.path(), &bytes).unwrap();
            assert!(matches!(
                ledger.load(),
                Err(LedgerError::Line { line: 2, .. })
            ));
            let added = ledger.append(&event("b", State::Done));
            assert!(matches!(added, Err(LedgerError::Line { line: 2, .. })));
            assert_eq!(fs::read(ledger.path()).unwrap(), bytes);
        }
    }
}
