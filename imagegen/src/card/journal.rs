//! How far a card was written, kept so that a card that was pulled, or a program that was ended, need not begin anew.
//!
//! A journal is a hint: which card it is about is decided by a mark on the card itself, and what it says was written is read back at the end
//! like everything else. It is replaced in one step, so that it is whole whenever anybody looks.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::image::HEAD;
use crate::sha256::Sha256;

/// A number that no other writing of a card has; it stands in the first block of a card that is not whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark(String);

/// How far one card was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progressed {
    /// Digest of the block map.
    pub image: String,
    /// What the card has as its first block until it is whole.
    pub mark: Mark,
    /// Everything of the map before this offset of the image is on the card, but for the first block.
    pub written: u64,
}

/// The file of a card's journal.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Mark {
    /// Makes a mark of something that does not come again, such as the time and a process.
    #[must_use]
    pub fn new(seed: &[u8]) -> Self {
        Mark(Sha256::of(seed).to_string())
    }

    /// The first block of a card that is not whole: no partition table, but words for who looks.
    pub(super) fn block(&self) -> Vec<u8> {
        let words = format!(
            "This card is being written by Footbridge and is not whole.\n{}\n",
            self.0
        );
        let mut block = words.into_bytes();
        block.resize(HEAD as usize, 0);
        block
    }
}

impl Journal {
    /// Names the journal of a card in a folder; the card is told by what does not change when it is taken out.
    #[must_use]
    pub fn of_card(folder: &Path, identity: &str, size: u64) -> Self {
        let digest = Sha256::of(format!("{identity}\n{size}").as_bytes()).to_string();
        Journal {
            path: folder.join(format!("{}.toml", &digest[..16])),
        }
    }

    /// Reads it, if there is one; what cannot be read is as good as none.
    #[must_use]
    pub fn load(&self) -> Option<Progressed> {
        let text = fs::read_to_string(&self.path).ok()?;
        match toml::from_str(&text) {
            Ok(progressed) => Some(progressed),
            Err(err) => {
                tracing::warn!(path = %self.path.display(), %err, "a journal cannot be read");
                None
            }
        }
    }

    /// Replaces it. Its temporary file has one name, so that killed programs leave one file at most.
    pub(super) fn save(&self, progressed: &Progressed) -> io::Result<()> {
        let text = toml::to_string(progressed).map_err(io::Error::other)?;
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let partial = self.path.with_extension("part");
        let mut file = fs::File::create(&partial)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&partial, &self.path)
    }

    /// Removes it: the card is whole, or has to be begun anew.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_found_again_by_its_card_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("flash");
        let journal = Journal::of_card(&folder, "USB x 1", 4000);
        assert_eq!(journal.load(), None);
        let progressed = Progressed {
            image: Sha256::of(b"image").to_string(),
            mark: Mark::new(b"seed"),
            written: 7,
        };
        journal.save(&progressed).unwrap();
        let again = Journal::of_card(&folder, "USB x 1", 4000);
        assert_eq!(again.load(), Some(progressed));
        for (identity, size) in [("USB x 2", 4000), ("USB x 1", 4001)] {
            assert_eq!(Journal::of_card(&folder, identity, size).load(), None);
        }
        let names: Vec<_> = fs::read_dir(&folder).unwrap().collect();
        assert_eq!(names.len(), 1);
        fs::write(&again.path, "written = -1").unwrap();
        assert_eq!(again.load(), None);
        again.remove().unwrap();
        again.remove().unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_mark_is_a_block_without_a_partition_table() {
        let block = Mark::new(b"seed").block();
        assert_eq!(block.len(), 4096);
        assert_eq!(block[510..512], [0, 0]);
        assert_ne!(block, Mark::new(b"other").block());
    }
}
