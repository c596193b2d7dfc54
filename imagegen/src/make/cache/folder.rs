//! A folder of files that are named after what they were made from. There is room for some; those that were not used for longest go.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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

    /// Returns what `decode` makes of a file's bytes, and removes the file if that is nothing. A folder that cannot be read is one that does
    /// not have it.
    pub(super) fn load<T>(
        &self,
        name: &str,
        decode: impl FnOnce(Vec<u8>) -> Option<T>,
    ) -> Option<T> {
        let path = self.path.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return None,
            Err(err) => {
                tracing::warn!(path = %path.display(), %err, "cannot read what an earlier build kept");
                return None;
            }
        };
        let decoded = decode(bytes);
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

    /// Writes a file, which gets its name when it is complete.
    pub(super) fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(&self.path)?);
        write(&mut file)?;
        file.flush()?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(self.path.join(name))
            .map_err(|err| err.error)?;
        Ok(())
    }

    /// Makes room. Also removes what killed builds left, when its time has come.
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

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // Another build may have removed it meanwhile.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file() {
                entries.push(Entry {
                    path: entry.path(),
                    size: metadata.len(),
                    used: metadata.modified()?,
                });
            }
        }
        Ok(entries)
    }
}

/// Another build may have been quicker.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}
