//! Results that take long and are the same for many images: the files of a package, unpacked; the blocks of a root and an initramfs, compressed.
//! Whoever has kept those of earlier builds hands them to the next, which makes the rest.
//!
//! A result is named after all that it comes from, this builder included, so one that is there is the one that would be made.

use sha2::Digest;

use crate::sha256::Sha256;

/// Digest of this builder's source; build.rs takes it.
pub(crate) const BUILDER: &str = env!("IMAGEGEN_VERSION");

/// The digest of everything that a result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptKey(Sha256);

/// The results that earlier builds kept.
pub trait Kept: Sync {
    /// Returns a result as it was kept.
    fn load(&self, key: KeptKey) -> Option<Vec<u8>>;

    /// Keeps a result, if that can be.
    fn keep(&self, key: KeptKey, result: &[u8]);
}

/// Has nothing and keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct NothingKept;

impl KeptKey {
    /// Names a result: what is done, how, and the digest of what it is done to.
    pub(crate) fn of(work: &str, how: &[u64], digest: Sha256) -> Self {
        let mut hash = sha2::Sha256::new_with_prefix(BUILDER);
        hash.update(format!("\n{work} {how:?}\n"));
        hash.update(digest.0);
        Self(Sha256(hash.finalize().into()))
    }
}

impl std::fmt::Display for KeptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl dyn Kept + '_ {
    /// Returns a result that is there, or makes and keeps it.
    pub(crate) fn load_or_make<E>(
        &self,
        key: KeptKey,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        if let Some(result) = self.load(key) {
            return Ok(result);
        }
        let result = make()?;
        self.keep(key, &result);
        Ok(result)
    }
}

impl Kept for NothingKept {
    fn load(&self, _: KeptKey) -> Option<Vec<u8>> {
        None
    }

    fn keep(&self, _: KeptKey, _: &[u8]) {}
}
