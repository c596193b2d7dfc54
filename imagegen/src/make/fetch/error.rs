//! What can go wrong between a mirror and the cache, and what a user can do about it.

use std::io;
use std::path::PathBuf;

use super::http::Fault;
use super::store::StoreError;
use crate::index::IndexError;
use crate::make::release::ReleaseError;
use crate::sha256::Sha256;

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not in the cache, and nothing may be fetched.
    #[error("{what} is not in the cache {cache}, and nothing may be fetched offline")]
    Offline {
        /// What is missing.
        what: String,
        /// The cache directory.
        cache: PathBuf,
    },
    /// The mirror could not be reached, or refused.
    #[error("failed to fetch {what} from {url} (attempt {attempts})")]
    Network {
        /// What was to be fetched.
        what: String,
        /// From where.
        url: String,
        /// The number of the last attempt.
        attempts: u32,
        /// Whether an earlier build left enough in the cache to try without the network.
        cached: bool,
        /// Why the last attempt failed.
        #[source]
        source: Fault,
    },
    /// The mirror has the package no more, and neither has the archive of old versions, if one was named.
    #[error("{what} is not at {url} any more")]
    Gone {
        /// The package.
        what: String,
        /// Where it was looked for last.
        url: String,
    },
    /// The mirror has another size for it than was announced: by the lock for packages of images, by signed lists for all else.
    #[error("{url} has {found} bytes, but {size} are announced for {what}")]
    Size {
        /// What was to be fetched.
        what: String,
        /// From where.
        url: String,
        /// The size as announced.
        size: u64,
        /// What the mirror says or sends.
        found: String,
    },
    /// The bytes are not the announced ones.
    #[error("{what} from {url} has the SHA-256 digest {found}, but {sha256} is announced")]
    Digest {
        /// What was fetched.
        what: String,
        /// From where.
        url: String,
        /// The digest as announced.
        sha256: Sha256,
        /// The digest of what came.
        found: Sha256,
    },
    /// The release is not to be believed.
    #[error("refusing the release of {suite} from {place}")]
    Release {
        /// The suite.
        suite: String,
        /// From where: an address, or the cache.
        place: String,
        /// Whether it is the cached one, because nothing may be fetched.
        offline: bool,
        /// Why.
        #[source]
        source: ReleaseError,
    },
    /// The mirror went back in time.
    #[error("{url} is dated {served}, but a release dated {known} was seen before")]
    RolledBack {
        /// From where.
        url: String,
        /// The date of what the mirror sent.
        served: String,
        /// The date of what the cache has.
        known: String,
    },
    /// The release knows no such list.
    #[error("the release of {suite} lists no {path}")]
    Unlisted {
        /// The suite.
        suite: String,
        /// The list wanted.
        path: String,
    },
    /// A list has another size when unpacked than was announced.
    #[error("{what} unpacks to {found} bytes, but {size} are announced")]
    Unpacked {
        /// The list.
        what: String,
        /// The size as announced.
        size: u64,
        /// What it unpacks to, as far as it was.
        found: String,
    },
    /// A list cannot be decompressed.
    #[error("failed to decompress {what}")]
    Decompress {
        /// The list.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A list cannot be read.
    #[error("failed to read the package lists")]
    Index(#[from] IndexError),
    /// The cache failed.
    #[error("the cache cannot be used")]
    Store(#[from] StoreError),
    /// The host's source lists cannot be read.
    #[error("failed to read {path}")]
    Sources {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FetchError {
    /// Tells whether the mirror can be reached, but has no such file.
    pub(super) fn is_absent(&self) -> bool {
        matches!(
            self,
            FetchError::Network {
                source: Fault::Status(404),
                ..
            }
        )
    }

    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            FetchError::Offline { .. } | FetchError::Release { offline: true, .. } => {
                "run the same command once without --offline"
            }
            FetchError::Network { cached: true, .. } => {
                "an earlier build's packages are in the cache: try --offline, or another --mirror"
            }
            FetchError::Gone { .. } => {
                "`cargo xtask lock` takes the versions of today; --archive URL names an archive of old versions"
            }
            FetchError::Network { .. } => "check the network, or name another mirror with --mirror",
            FetchError::Size { .. } | FetchError::Digest { .. } => {
                "the mirror may be in the middle of an update: try again later, or name another one with --mirror"
            }
            FetchError::Release { source, .. } => source.hint(),
            FetchError::RolledBack { .. } => {
                "the mirror lags behind the one used before: wait, or name another one with --mirror"
            }
            FetchError::Store(_) => {
                "check the permissions and the free space of the cache directory"
            }
            FetchError::Unpacked { .. } | FetchError::Decompress { .. } => {
                "whoever signed the release signed a list that cannot be read: name another mirror with --mirror"
            }
            FetchError::Unlisted { .. } | FetchError::Index(_) | FetchError::Sources { .. } => {
                return None;
            }
        })
    }
}
