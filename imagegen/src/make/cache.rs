//! What builds keep for later ones: whole systems, so that what was made once is not made again for the next site, and results on the way
//! to them, so that of a system that differs in part only that part is made.
//!
//! A file is named after the digest of everything it was made from, and holds that of its own name and contents, which is checked whenever it
//! is read: what is damaged, half written or under another's name is made again. Whoever may write there could forge both, and images with
//! them: it is a folder of the user who builds, as the compiler's is.

mod folder;

use std::path::Path;

use self::folder::Folder;
use crate::make::kept::{Kept, KeptKey};
use crate::make::system::{System, SystemKey};

/// Bytes that the kept systems may take: some eight of them.
pub const CACHE_SIZE_MAX: u64 = 512 << 20;

/// Bytes that the kept results may take: those for the boards of three kernels or so.
pub const KEPT_SIZE_MAX: u64 = 1 << 30;

/// A folder of systems. It is made when needed and may be shared by concurrent builds.
#[derive(Debug)]
pub struct SystemCache(Folder);

/// A folder of results, likewise. What became too much for it goes when this is dropped.
#[derive(Debug)]
pub struct KeptCache(Folder);

impl SystemCache {
    /// Names the folder, and how many bytes its files may take.
    #[must_use]
    pub fn new(folder: &Path, size_max: u64) -> Self {
        Self(Folder::new(folder, size_max))
    }

    /// Returns a system if it is there as it was kept. A cache that cannot be read is one that does not have it.
    pub fn load(&self, key: SystemKey) -> Option<System> {
        self.0
            .load(&key.to_string(), |bytes| System::decode(&bytes))
    }

    /// Keeps a system, and removes others to make room. That it cannot be kept is no reason not to use it: the log says why.
    pub fn keep(&self, key: SystemKey, system: &System) {
        self.0.keep(&key.to_string(), |out| system.encode(out));
        self.0.shrink();
    }
}

impl KeptCache {
    /// Names the folder, and how many bytes its files may take.
    #[must_use]
    pub fn new(folder: &Path, size_max: u64) -> Self {
        Self(Folder::new(folder, size_max))
    }
}

impl Kept for KeptCache {
    fn load(&self, key: KeptKey) -> Option<Vec<u8>> {
        self.0.load(&key.to_string(), Some)
    }

    fn keep(&self, key: KeptKey, result: &[u8]) {
        self.0.keep(&key.to_string(), |out| out.write_all(result));
    }
}

impl Drop for KeptCache {
    fn drop(&mut self) {
        self.0.shrink();
    }
}
