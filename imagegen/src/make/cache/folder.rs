//! A folder of files that are named after what they were made from. There is room for some; those that were not used for longest go. Whatever
//! else is in it is left alone.
//!
//! A file:
//!
//! ```text
//! | magic | SHA-256 of its name and contents | contents |
//! ```
//!
//! So one that is damaged shows, and one that came under another's name, too.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::make::disk::Hashed;

const MAGIC: &[u8] = b"footbridge kept 1\n";
/// What is before the contents.
const HEAD: usize = MAGIC.len() + 32;
/// The names of files that are being written begin so.
const UNFINISHED: &str = ".unfinished-";
/// Nobody writes a file for so long.
const UNFINISHED_MAX: Duration = Duration::from_secs(3600);

/// The folder. It is made when needed and may be shared by concurrent builds.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    size_max: u64,
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
        }
    }

    /// Returns what `decode` makes of a file's contents, and removes the file if that is nothing. A folder that cannot be read is one that
    /// does not have it.
    pub(super) fn load<T>(
        &self,
        name: &str,
        decode: impl FnOnce(Vec<u8>) -> Option<T>,
    ) -> Option<T> {
        let path = self.path.join(name);
        let bytes = match self.read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return None,
            Err(err) => {
                tracing::warn!(path = %path.display(), %err, "cannot read what an earlier build kept");
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

    /// Reads a file that may be one of the folder's: a pipe would never end, nor would what is larger than all of them may be.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() || metadata.len() > self.size_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is no file that a build would keep; please remove it",
            ));
        }
        fs::read(path)
    }

    /// Writes a file, which gets its name when it is complete.
    pub(super) fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        let file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.path)?;
        let mut out = file.as_file();
        out.seek(SeekFrom::Start(HEAD as u64))?;
        let mut contents = Hashed::with_prefix(Some(out), name.as_bytes());
        write(&mut contents)?;
        let digest = contents.finish();
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&[MAGIC, &digest.0].concat())?;
        file.persist(self.path.join(name))
            .map_err(|err| err.error)?;
        Ok(())
    }

    /// Makes room, and removes what builds left that were killed long ago.
    pub(super) fn shrink(&self) -> io::Result<()> {
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        let mut size = 0;
        for entry in entries {
            size += entry.size;
            if size > self.size_max {
                remove(&entry.path)?;
            }
        }
        Ok(())
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
            if !metadata.is_file() {
                continue;
            }
            let used = metadata.modified()?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(UNFINISHED) && used.elapsed().is_ok_and(|age| age > UNFINISHED_MAX)
            {
                remove(&entry.path())?;
            } else if is_digest(&name) {
                entries.push(Entry {
                    path: entry.path(),
                    size: metadata.len(),
                    used,
                });
            }
        }
        Ok(entries)
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

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Another build may have been quicker.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}
