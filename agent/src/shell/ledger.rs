//! What was there before this machine's settings were changed, written down beforehand: a start after a kill thus knows what was
//! there before the *first* start, and gives that back at its end.
//!
//! A file in the run directory, on a file system that a reboot empties. It belongs to one boot and one network namespace; any
//! other is void. Interfaces are remembered by index: they may be renamed while a setting is held.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::addr::IfIndex;
use crate::engine::Sysctl;
use crate::plain_file::read_plain_file;

/// Longest ledger, in bytes: thousands of entries, of which a bridge has a score.
const LONGEST_FILE: usize = 1 << 20;

/// What is held, with the values that were there before.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    document: Document,
}

/// Something that is set for a while and given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Held {
    /// A setting below `/proc/sys/net/ipv4/conf`; no interface means `all`.
    Sysctl { index: Option<u32>, setting: String },
    /// Whether the interface is administratively up.
    Up { index: u32 },
    /// Whether the interface's radio may doze.
    PowerSave { index: u32 },
}

impl Held {
    /// Returns the interface, if it is about one.
    pub(crate) fn index(&self) -> Option<IfIndex> {
        match *self {
            Held::Sysctl { index, .. } => index.map(IfIndex),
            Held::Up { index } | Held::PowerSave { index } => Some(IfIndex(index)),
        }
    }

    /// The name of a setting becomes part of a path: a damaged ledger must not lead to another file.
    fn is_sound(&self) -> bool {
        let letter = |c: char| c.is_ascii_lowercase() || c == '_';
        match self {
            Held::Sysctl { setting, .. } => !setting.is_empty() && setting.chars().all(letter),
            Held::Up { .. } | Held::PowerSave { .. } => true,
        }
    }
}

impl From<Sysctl> for Held {
    fn from(sysctl: Sysctl) -> Held {
        Held::Sysctl {
            index: sysctl.index.map(|index| index.0),
            setting: sysctl.setting.to_owned(),
        }
    }
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    /// The boot this belongs to.
    boot: String,
    /// The network namespace this belongs to.
    namespace: String,
    entries: Vec<Entry>,
}

/// What was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) held: Held,
    pub(crate) previous: i64,
}

impl Ledger {
    /// Takes over what an earlier process of this boot and namespace left, or starts an empty one.
    pub(crate) fn load(path: &Path) -> io::Result<Ledger> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let namespace = fs::read_link("/proc/self/ns/net")?;
        Ledger::load_for(path, boot.trim(), &namespace.to_string_lossy())
    }

    pub(super) fn load_for(path: &Path, boot: &str, namespace: &str) -> io::Result<Ledger> {
        let bytes = match read_plain_file(path, LONGEST_FILE) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Ledger {
            path: path.to_owned(),
            document: Document {
                entries: bytes.map_or_else(Vec::new, |bytes| parse(&bytes, boot, namespace)),
                boot: boot.to_owned(),
                namespace: namespace.to_owned(),
            },
        })
    }

    /// Returns what is held.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.document.entries
    }

    /// Returns what was there before, if that is remembered.
    pub(crate) fn previous(&self, held: &Held) -> Option<i64> {
        let mut entries = self.entries().iter();
        entries
            .find(|entry| entry.held == *held)
            .map(|entry| entry.previous)
    }

    /// Remembers what is there before it is changed, unless it is held already.
    pub(crate) fn remember(&mut self, held: Held, previous: i64) -> io::Result<()> {
        if self.previous(&held).is_some() {
            return Ok(());
        }
        let mut entries = self.document.entries.clone();
        entries.push(Entry { held, previous });
        self.replace(entries)
    }

    /// Forgets something that has been set to what was there before; anything else set is still held.
    pub(crate) fn note(&mut self, held: &Held, value: i64) -> io::Result<()> {
        if self.previous(held) == Some(value) {
            return self.forget(held);
        }
        Ok(())
    }

    /// Forgets something that was given back.
    pub(crate) fn forget(&mut self, held: &Held) -> io::Result<()> {
        let mut entries = self.document.entries.clone();
        entries.retain(|entry| entry.held != *held);
        self.replace(entries)
    }

    /// Has other entries from here on, unless they cannot be written down.
    fn replace(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let before = std::mem::replace(&mut self.document.entries, entries);
        let saved = self.save();
        if saved.is_err() {
            self.document.entries = before;
        }
        saved
    }

    /// Writes a new file and renames it over the old one: a kill leaves one or the other, whole.
    fn save(&self) -> io::Result<()> {
        if self.document.entries.is_empty() {
            return remove(&self.path);
        }
        let temporary = self.path.with_extension("json.new");
        write_whole(&temporary, &serde_json::to_vec_pretty(&self.document)?)?;
        fs::rename(&temporary, &self.path)
    }
}

/// Parses a ledger; in what belongs to another boot or namespace, or cannot be one, there is nothing.
pub(crate) fn parse(bytes: &[u8], boot: &str, namespace: &str) -> Vec<Entry> {
    let left = serde_json::from_slice::<Document>(bytes)
        .inspect_err(|error| warn!(%error, "the ledger is unreadable"))
        .ok()
        .filter(|left| left.boot == boot && left.namespace == namespace);
    let mut entries = left.map_or_else(Vec::new, |left| left.entries);
    entries.retain(|entry| entry.held.is_sound());
    entries
}

/// Makes the file anew: a link that somebody put at its name is removed, not followed.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove(path)?;
    fs::File::create_new(path)?.write_all(bytes)
}

/// Removes the file, if there is one.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Held = Held::Up { index: 3 };
    const POWER_SAVE: Held = Held::PowerSave { index: 2 };

    fn load(dir: &tempfile::TempDir, boot: &str) -> Ledger {
        Ledger::load_for(&dir.path().join("ledger.json"), boot, "net:[1]").unwrap()
    }

    #[test]
    fn what_was_first_is_remembered_across_a_kill_until_it_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut killed = load(&dir, "boot");
        killed.remember(UP, 1).unwrap();
        killed.note(&UP, 0).unwrap();
        killed.remember(POWER_SAVE, 1).unwrap();
        let mut next = load(&dir, "boot");
        next.remember(UP, 0).unwrap();
        assert_eq!(next.previous(&UP), Some(1));
        next.note(&UP, 1).unwrap();
        assert_eq!(next.previous(&UP), None);
        assert_eq!(load(&dir, "boot").previous(&POWER_SAVE), Some(1));
        next.note(&POWER_SAVE, 1).unwrap();
        assert!(!dir.path().join("ledger.json").exists());
    }

    #[test]
    fn a_ledger_of_another_boot_is_void() {
        let dir = tempfile::tempdir().unwrap();
        load(&dir, "yesterday").remember(UP, 1).unwrap();
        assert_eq!(load(&dir, "today").entries(), []);
    }

    #[test]
    fn a_link_at_the_ledgers_temporary_name_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::write(&precious, "mine").unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join("ledger.json.new")).unwrap();
        load(&dir, "boot").remember(UP, 1).unwrap();
        assert_eq!(fs::read_to_string(precious).unwrap(), "mine");
        assert_eq!(load(&dir, "boot").entries().len(), 1);
    }

    #[test]
    fn a_torn_ledger_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ledger.json"), "{\"boot\":").unwrap();
        assert_eq!(load(&dir, "boot").entries(), []);
    }

    #[test]
    fn what_is_no_file_is_no_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.json");
        fs::create_dir(&path).unwrap();
        let error = Ledger::load_for(&path, "boot", "net:[1]").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_cannot_be_written_down_did_not_happen() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = load(&dir, "boot");
        ledger.remember(UP, 1).unwrap();
        ledger.remember(POWER_SAVE, 1).unwrap();
        // In place of a full file system: no file can be made there.
        let obstacle = dir.path().join("ledger.json.new");
        fs::create_dir(&obstacle).unwrap();
        let sysctl = Held::Sysctl {
            index: None,
            setting: "arp_ignore".to_owned(),
        };
        assert!(ledger.remember(sysctl.clone(), 0).is_err());
        assert_eq!(ledger.previous(&sysctl), None);
        assert!(ledger.note(&UP, 1).is_err());
        assert_eq!(ledger.previous(&UP), Some(1));
        fs::remove_dir(obstacle).unwrap();
        ledger.note(&UP, 1).unwrap();
        assert_eq!(load(&dir, "boot").entries().len(), 1);
    }
}
