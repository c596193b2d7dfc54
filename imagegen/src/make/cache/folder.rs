//! A folder of files that are named after what they were made from. There is room for some; those that were not used for longest go. Files
//! with other names are left alone.
//!
//! A file:
//!
//! ```text
//! | magic | SHA-256 of its name and contents | contents |
//! ```
//!
//! So one that is damaged shows, and one that came under another's name, too.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::make::disk::{Hashed, create_locked, sweep};

const MAGIC: &[u8] = b"footbridge kept 1\n";
/// What is before the contents.
const HEAD: usize = MAGIC.len() + 32;
/// The names of files end so.
const SUFFIX: &str = ".kept";
/// Those of files that are being written begin so.
const UNFINISHED: &str = ".unfinished-";

/// The folder. It is made when needed and may be shared by concurrent builds.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    size_max: u64,
    /// Whether something was wrong with it: what is wrong once is wrong for every file.
    told: AtomicBool,
}

/// A file of the folder.
struct Entry {
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

impl Folder {
    /// Names the folder, and how many bytes its files may take.
    pub(super) fn new(path: &Path, size_max: u64) -> Self {
        Self {
            path: path.to_owned(),
            size_max,
            told: AtomicBool::new(false),
        }
    }

    /// Returns what `decode` makes of the contents that were kept under a name, and removes the file if that is nothing. A folder that cannot
    /// be read is one that does not have it.
    pub(super) fn load<T>(
        &self,
        name: &str,
        decode: impl FnOnce(Vec<u8>) -> Option<T>,
    ) -> Option<T> {
        let path = self.path_of(name);
        let bytes = match self.read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return None,
            Err(err) => {
                self.tell(&path, &err);
                return None;
            }
        };
        let decoded = contents(name, bytes).and_then(decode);
        // When it was used last matters only for which one goes first.
        let _ = match decoded {
            Some(_) => File::open(&path).and_then(|file| file.set_modified(SystemTime::now())),
            None => {
                tracing::warn!(path = %path.display(), "removing a damaged file from the cache");
                remove(&path)
            }
        };
        decoded
    }

    /// Reads what may be a file of the folder's: a pipe would never end, nor would what is larger than all of them may be.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.is_file() || metadata.len() > self.size_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no build made it",
            ));
        }
        fs::read(path)
    }

    /// Keeps what `write` writes, if that can be: a file gets its name when it is complete.
    pub(super) fn keep(&self, name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        let path = self.path_of(name);
        if let Err(err) = self.write(name, &path, write) {
            self.tell(&path, &err);
        }
    }

    fn write(
        &self,
        name: &str,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        let file = create_locked(&self.path, OsStr::new(UNFINISHED))?;
        let mut out = file.as_file();
        out.seek(SeekFrom::Start(HEAD as u64))?;
        let mut contents = Hashed::with_prefix(Some(out), name.as_bytes());
        write(&mut contents)?;
        let digest = contents.finish();
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&[MAGIC, &digest.0].concat())?;
        file.persist(path).map_err(|err| err.error)?;
        Ok(())
    }

    /// Makes room, and removes what killed builds left.
    pub(super) fn shrink(&self) {
        match self.remove_surplus() {
            Err(err) if err.kind() != io::ErrorKind::NotFound => self.tell(&self.path, &err),
            _ => {}
        }
    }

    /// Removes what can be removed; returns the first error.
    fn remove_surplus(&self) -> io::Result<()> {
        let mut outcome = File::open(&self.path)
            .and_then(|folder| sweep(&self.path, OsStr::new(UNFINISHED), &folder));
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        let mut size = 0;
        for entry in entries {
            size += entry.size;
            if size > self.size_max {
                outcome = outcome.and(remove(&entry.path));
            }
        }
        outcome
    }

    /// Returns the files that builds kept.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // Another build may have removed it meanwhile.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file() && is_kept(&entry.file_name()) {
                entries.push(Entry {
                    path: entry.path(),
                    size: metadata.len(),
                    used: metadata.modified()?,
                });
            }
        }
        Ok(entries)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{SUFFIX}"))
    }

    /// Says why nothing is kept here, once.
    fn tell(&self, path: &Path, err: &io::Error) {
        let path = path.display();
        if self.told.swap(true, Ordering::Relaxed) {
            tracing::debug!(%path, %err, "what a build made is not kept");
        } else {
            tracing::warn!(%path, %err, "what a build made is not kept, so that the next one makes it again");
        }
    }
}

/// Returns the contents of a file, if they are those that were written under this name.
fn contents(name: &str, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let (digest, contents) = bytes.strip_prefix(MAGIC)?.split_at_checked(32)?;
    let hash = Sha256::new_with_prefix(name).chain_update(contents);
    (hash.finalize()[..] == *digest).then_some(())?;
    bytes.drain(..HEAD);
    Some(bytes)
}

/// The names are digests.
fn is_kept(name: &OsStr) -> bool {
    let digest = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digest.is_some_and(|digest| digest.len() == 64 && digest.bytes().all(is_digit))
}

/// Another build may have been quicker.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_is_damaged_or_missing_shows() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), 1 << 20);
        let keep = || folder.keep("name", |out| out.write_all(b"contents"));
        let load = |name: &str| folder.load(name, Some);
        keep();
        assert_eq!(load("name").as_deref(), Some(&b"contents"[..]));
        let path = folder.path_of("name");
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len(), HEAD + 8);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            for (what, bytes) in [("cut", &whole[..at]), ("damaged", &damaged)] {
                fs::write(&path, bytes).unwrap();
                assert_eq!(load("name"), None, "{what} at byte {at}");
                assert!(!path.exists(), "{what} at byte {at}");
            }
        }
        keep();
        fs::rename(&path, folder.path_of("other")).unwrap();
        assert_eq!(load("other"), None);
    }
}
