//! The cache of systems: what was made once is not made again for the next site.
//!
//! A file is named after the digest of everything it was made from, and holds the digest of its own contents, which is checked whenever it
//! is read: what is damaged or half written is removed, and made again. There is room for some; those that were not used for longest go.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::make::system::{System, SystemKey};

/// Bytes that the kept systems may take: some eight of them.
pub const CACHE_SIZE_MAX: u64 = 512 << 20;

/// A folder of systems. It is made when needed and may be shared by concurrent builds.
#[derive(Clone, Debug)]
pub struct SystemCache {
    folder: PathBuf,
    size_max: u64,
}

/// A file of the folder.
struct Entry {
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

impl SystemCache {
    /// Names the folder, and how many bytes its files may take.
    #[must_use]
    pub fn new(folder: &Path, size_max: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            size_max,
        }
    }

    /// Returns a system if it is there as it was kept. A cache that cannot be read is one that does not have it.
    pub fn load(&self, key: SystemKey) -> Option<System> {
        let path = self.path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return None,
            Err(err) => {
                tracing::warn!(path = %path.display(), %err, "cannot read a kept system");
                return None;
            }
        };
        let system = System::decode(&bytes);
        // When it was used last matters only for which one goes first.
        let _ = match system {
            Some(_) => File::open(&path).and_then(|file| file.set_modified(SystemTime::now())),
            None => {
                tracing::warn!(path = %path.display(), "removing a damaged system from the cache");
                remove(&path)
            }
        };
        system
    }

    /// Keeps a system, and removes others to make room. That it cannot be kept is no reason not to use it: the log says why.
    pub fn keep(&self, key: SystemKey, system: &System) {
        let kept = self.write(key, system).and_then(|()| self.shrink());
        if let Err(err) = kept {
            tracing::warn!(folder = %self.folder.display(), %err, "cannot keep a system for the next build");
        }
    }

    /// It gets its name when it is complete.
    fn write(&self, key: SystemKey, system: &System) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(&self.folder)?);
        system.encode(&mut file)?;
        file.flush()?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(self.path(key)).map_err(|err| err.error)?;
        Ok(())
    }

    /// Also removes what killed builds left, when its time has come.
    fn shrink(&self) -> io::Result<()> {
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
        for entry in fs::read_dir(&self.folder)? {
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

    fn path(&self, key: SystemKey) -> PathBuf {
        self.folder.join(key.to_string())
    }
}

/// Another build may have been quicker.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}
