//! The cache on disk: files named by their digest, and signed releases by suite.
//!
//! A file gets its final name only after its size and digest were checked, and both are checked again whenever it is used. A download in
//! progress is locked, so that of two builds that want the same file one waits and then finds it done, and a lock dies with its owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::Digest;

use crate::make::release::ListedFile;
use crate::sha256::Sha256;

/// A cache directory.
pub(super) struct Store {
    root: PathBuf,
}

/// A file on its way into the cache.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    destination: PathBuf,
    hasher: sha2::Sha256,
    length: u64,
}

/// An operation on the cache that failed, and where.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing} {path}")]
pub struct StoreError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError {
        doing,
        path: path.to_owned(),
        source,
    }
}

impl Store {
    pub(super) fn new(root: &Path) -> Self {
        Store {
            root: root.to_owned(),
        }
    }

    /// Returns the path of a file if it is there as it should be. One that is not is removed.
    pub(super) fn lookup(&self, wanted: ListedFile) -> Result<Option<PathBuf>, StoreError> {
        let path = self.object(wanted.sha256);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let (hasher, length) = digest(&mut file, wanted.size).map_err(failed("read", &path))?;
        if length == wanted.size && Sha256(hasher.finalize().into()) == wanted.sha256 {
            return Ok(Some(path));
        }
        tracing::warn!(path = %path.display(), "removing a damaged file from the cache");
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        Ok(None)
    }

    /// Begins or takes up a download, once nobody else is at it; `None` if the file was completed meanwhile.
    pub(super) fn begin(&self, wanted: ListedFile) -> Result<Option<Partial>, StoreError> {
        let path = self.root.join("partial").join(wanted.sha256.to_string());
        let destination = self.object(wanted.sha256);
        create_parents(&path)?;
        create_parents(&destination)?;
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(failed("open", &path))?;
            file.lock().map_err(failed("lock", &path))?;
            if self.lookup(wanted)?.is_some() {
                if is_same_file(&file, &path) {
                    fs::remove_file(&path).map_err(failed("remove", &path))?;
                }
                return Ok(None);
            }
            if !is_same_file(&file, &path) {
                // Who held the lock has given up and removed it, or moved it away: this is nobody's file any more.
                continue;
            }
            let (hasher, length) = digest(&mut file, wanted.size).map_err(failed("read", &path))?;
            let mut partial = Partial {
                file,
                path,
                destination,
                hasher,
                length,
            };
            if length >= wanted.size {
                partial.restart()?;
            }
            return Ok(Some(partial));
        }
    }

    /// Returns the last `InRelease` of a suite.
    pub(super) fn load_release(&self, suite: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.release(suite);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Keeps an `InRelease` that was checked.
    pub(super) fn keep_release(&self, suite: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.release(suite);
        let directory = create_parents(&path)?;
        let keep = || {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(bytes)?;
            file.persist(&path)?;
            Ok(())
        };
        keep().map_err(failed("write", &path))
    }

    fn object(&self, sha256: Sha256) -> PathBuf {
        self.root.join("objects").join(sha256.to_string())
    }

    fn release(&self, suite: &str) -> PathBuf {
        let name = suite.replace('/', "_");
        self.root.join("releases").join(format!("{name}.InRelease"))
    }
}

impl Partial {
    /// Bytes received so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Throws away what was received.
    pub(super) fn restart(&mut self) -> Result<(), StoreError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(failed("empty", &self.path))?;
        self.hasher = sha2::Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all(bytes)
            .map_err(failed("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Returns the digest of what was received.
    pub(super) fn sha256(&self) -> Sha256 {
        Sha256(self.hasher.clone().finalize().into())
    }

    /// Gives the file, which the caller has checked, its final name.
    pub(super) fn commit(self) -> Result<PathBuf, StoreError> {
        fs::rename(&self.path, &self.destination).map_err(failed("rename", &self.path))?;
        Ok(self.destination)
    }

    /// Removes the file: its content is wrong, so nobody should go on with it.
    pub(super) fn discard(self) -> Result<(), StoreError> {
        fs::remove_file(&self.path).map_err(failed("remove", &self.path))
    }
}

fn create_parents(path: &Path) -> Result<&Path, StoreError> {
    let directory = path.parent().expect("every path of the cache has a parent");
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    Ok(directory)
}

/// Reads a file from its start, up to one byte more than it should have; leaves the position behind what was read.
fn digest(file: &mut File, size: u64) -> io::Result<(sha2::Sha256, u64)> {
    let mut hasher = sha2::Sha256::new();
    let mut bounded = file.take(size.saturating_add(1));
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        match bounded.read(&mut buffer)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
    Ok((hasher, length))
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => identity(open) == identity(named),
        _ => false,
    }
}
