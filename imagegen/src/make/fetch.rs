//! Fetches from a Debian mirror into the cache: signed releases, package lists, packages. The only module with a network.
//!
//! Nothing is believed before it was checked: releases by their signature, lists by the release, packages by the lists. Interrupted
//! downloads are resumed. With `offline` no socket is opened: the cache has it, or the error says what is missing.

mod http;
mod store;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use liblzma::read::XzDecoder;

use self::http::Http;
pub use self::http::{Fault, Patience};
pub use self::store::StoreError;
use self::store::{Partial, Store};
use super::release::{
    Keyring, ListedFile, Release, ReleaseError, verify_release, verify_release_of_any_age,
};
use crate::index::{Index, IndexError, Origin, Package};
use crate::mirror::{Archive, Mirror};
use crate::sha256::Sha256;

/// Downloads that run at the same time.
const PARALLEL: usize = 4;

/// No `InRelease` file of Debian comes near this size.
const IN_RELEASE_MAX: u64 = 4 << 20;

/// Is told how a fetch goes; the library itself prints nothing.
pub trait Progress: Sync {
    /// Something begins; `total` is its size in bytes, if that is known.
    fn started(&self, what: &str, total: Option<u64>);
    /// That many more bytes are there.
    fn advanced(&self, bytes: u64);
    /// What was started last has ended, well or not.
    fn finished(&self);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _what: &str, _total: Option<u64>) {}
    fn advanced(&self, _bytes: u64) {}
    fn finished(&self) {}
}

/// Where to fetch from, where to keep it, and whom to believe.
pub struct Fetcher<'a> {
    /// The mirror.
    pub mirror: Mirror,
    /// The cache directory; it is made when needed and may be shared by concurrent builds.
    pub cache: PathBuf,
    /// Fetch nothing: the cache must have everything.
    pub offline: bool,
    /// The keys that a release must be signed with.
    pub keyring: Keyring,
    /// How long to wait for the mirror.
    pub patience: Patience,
    /// Who is told of the progress.
    pub progress: &'a dyn Progress,
}

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
    /// The mirror has another size for it than was announced.
    #[error("{url} has {found} bytes, but the signed lists say {size} for {what}")]
    Size {
        /// What was to be fetched.
        what: String,
        /// From where.
        url: String,
        /// The size as announced by the lists.
        size: u64,
        /// What the mirror says or sends.
        found: String,
    },
    /// The bytes are not the announced ones.
    #[error("{what} from {url} has the SHA-256 digest {found}, but the signed lists say {sha256}")]
    Digest {
        /// What was fetched.
        what: String,
        /// From where.
        url: String,
        /// The digest in the lists.
        sha256: Sha256,
        /// The digest of what came.
        found: Sha256,
    },
    /// The release is not to be believed.
    #[error("refusing the release of {suite} from {url}")]
    Release {
        /// The suite.
        suite: String,
        /// From where.
        url: String,
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
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            FetchError::Offline { .. } => "run the same command once without --offline",
            FetchError::Network { cached: true, .. } => {
                "an earlier build's packages are in the cache: try --offline, or another --mirror"
            }
            FetchError::Network { .. } => "check the network, or name another mirror with --mirror",
            FetchError::Size { .. } | FetchError::Digest { .. } => {
                "the mirror may be in the middle of an update: try again later, or name another one with --mirror"
            }
            FetchError::Release { source, .. } => match source {
                ReleaseError::Expired { .. } | ReleaseError::Future { .. } => {
                    "set the clock, or name another mirror with --mirror"
                }
                _ => "name another mirror with --mirror",
            },
            FetchError::RolledBack { .. } => {
                "the mirror lags behind the one used before: wait, or name another one with --mirror"
            }
            FetchError::Store(_) => {
                "check the permissions and the free space of the cache directory"
            }
            FetchError::Unlisted { .. }
            | FetchError::Decompress { .. }
            | FetchError::Index(_)
            | FetchError::Sources { .. } => return None,
        })
    }
}

/// A file that a signed list vouches for.
struct Wanted {
    what: String,
    url: String,
    listed: ListedFile,
}

impl Fetcher<'_> {
    /// Fetches the releases of some suites and lays the lists of their components together: the packages on offer for an architecture.
    pub fn fetch_index(
        &self,
        suites: &[&str],
        components: &[&str],
        architecture: &str,
        now: SystemTime,
    ) -> Result<(Vec<Release>, Index), FetchError> {
        let mut releases = Vec::new();
        let mut index = Index::default();
        for suite in suites {
            let release = self.fetch_release(suite, now)?;
            let origin = Origin {
                suite: release.suite.clone(),
                automatic: release.automatic,
            };
            for component in components {
                let text = self.fetch_packages_list(&release, component, architecture)?;
                index.add(&text, &origin)?;
            }
            releases.push(release);
        }
        Ok((releases, index))
    }

    /// Fetches a suite's release and checks it; offline, takes the cached one. A release older than one seen before is refused.
    pub fn fetch_release(&self, suite: &str, now: SystemTime) -> Result<Release, FetchError> {
        let base = self.mirror.base(Archive::of_suite(suite));
        let url = format!("{base}/dists/{suite}/InRelease");
        let verify = |bytes: &[u8]| {
            verify_release(bytes, suite, &self.keyring, now).map_err(|source| FetchError::Release {
                suite: suite.to_owned(),
                url: url.clone(),
                source,
            })
        };
        let store = Store::new(&self.cache);
        let cached = store.load_release(suite)?;
        if self.offline {
            return verify(&cached.ok_or_else(|| self.missing(&release_name(suite)))?);
        }
        let bytes = self.fetch_release_file(suite, &url, cached.is_some())?;
        let release = verify(&bytes)?;
        // A cached file that cannot be believed (any more) says nothing about time.
        let known = cached
            .and_then(|bytes| verify_release_of_any_age(&bytes, suite, &self.keyring, now).ok());
        if let Some(known) = known.filter(|known| known.date > release.date) {
            return Err(FetchError::RolledBack {
                url,
                served: release.date_text,
                known: known.date_text,
            });
        }
        store.keep_release(suite, &bytes)?;
        Ok(release)
    }

    /// Fetches a component's list of packages for an architecture and returns its text.
    pub fn fetch_packages_list(
        &self,
        release: &Release,
        component: &str,
        architecture: &str,
    ) -> Result<String, FetchError> {
        let suite = &release.suite;
        let directory = format!("{component}/binary-{architecture}");
        let path = format!("{directory}/Packages.xz");
        let unlisted = || FetchError::Unlisted {
            suite: suite.clone(),
            path: path.clone(),
        };
        let listed = release.file(&path).ok_or_else(unlisted)?;
        let unpacked = release
            .file(&format!("{directory}/Packages"))
            .ok_or_else(unlisted)?;
        let base = self.mirror.base(Archive::of_suite(suite));
        let url = if release.by_hash {
            let digest = listed.sha256;
            format!("{base}/dists/{suite}/{directory}/by-hash/SHA256/{digest}")
        } else {
            format!("{base}/dists/{suite}/{path}")
        };
        let what = format!("the package list {suite}/{path}");
        self.progress.started(&what, Some(listed.size));
        let wanted = Wanted { what, url, listed };
        let fetched = self.fetch_listed(&wanted);
        self.progress.finished();
        decompress(&fetched?, unpacked.size).map_err(|source| FetchError::Decompress {
            what: wanted.what,
            source,
        })
    }

    /// Fetches one package and returns its path in the cache.
    pub fn fetch_deb(&self, package: &Package) -> Result<PathBuf, FetchError> {
        let mut paths = self.fetch_debs(&[package])?;
        Ok(paths.pop().expect("one package has one path"))
    }

    /// Fetches packages, several at a time, and returns their paths in the cache in the order given.
    pub fn fetch_debs(&self, packages: &[&Package]) -> Result<Vec<PathBuf>, FetchError> {
        let total = packages.iter().map(|package| package.size).sum();
        let what = match packages {
            [package] => format!("package {}", package.name),
            _ => format!("{} packages", packages.len()),
        };
        self.progress.started(&what, Some(total));
        let paths = self.fetch_in_parallel(packages);
        self.progress.finished();
        paths
    }

    /// Each worker takes the next package until none is left; after a failure nothing new is begun.
    fn fetch_in_parallel(&self, packages: &[&Package]) -> Result<Vec<PathBuf>, FetchError> {
        let wanted: Vec<Wanted> = packages
            .iter()
            .map(|package| self.wanted(package))
            .collect();
        let next = Mutex::new(wanted.iter().enumerate());
        let results = Mutex::new(vec![None; wanted.len()]);
        let work = || -> Result<(), FetchError> {
            let take = || next.lock().map_or(None, |mut next| next.next());
            while let Some((place, wanted)) = take() {
                let fetched = self.fetch_listed(wanted);
                if fetched.is_err()
                    && let Ok(mut next) = next.lock()
                {
                    next.by_ref().for_each(drop);
                }
                let path = fetched?;
                if let Ok(mut results) = results.lock() {
                    results[place] = Some(path);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(work)).collect();
            let outcomes: Vec<_> = workers
                .into_iter()
                .map(|worker| worker.join().expect("a worker does not panic"))
                .collect();
            outcomes.into_iter().collect::<Result<Vec<()>, _>>()
        })?;
        let results = results.into_inner().expect("no worker panicked");
        Ok(results.into_iter().flatten().collect())
    }

    fn wanted(&self, package: &Package) -> Wanted {
        let base = self.mirror.base(package.archive);
        Wanted {
            what: format!("package {} {}", package.name, package.version),
            url: format!(
                "{base}/{}",
                package.filename.replace('~', "%7e").replace('+', "%2b")
            ),
            listed: ListedFile {
                size: package.size,
                sha256: package.sha256,
            },
        }
    }

    /// Returns the path of a file that a list vouches for, from the cache if it is there, and else from the mirror.
    fn fetch_listed(&self, wanted: &Wanted) -> Result<PathBuf, FetchError> {
        let store = Store::new(&self.cache);
        loop {
            if let Some(path) = store.lookup(wanted.listed)? {
                self.progress.advanced(wanted.listed.size);
                return Ok(path);
            }
            if self.offline {
                return Err(self.missing(&wanted.what));
            }
            let Some(mut partial) = store.begin(wanted.listed)? else {
                continue;
            };
            return match self.download(wanted, &mut partial) {
                Ok(()) => Ok(partial.commit()?),
                Err(error @ (FetchError::Size { .. } | FetchError::Digest { .. })) => {
                    partial.discard()?;
                    Err(error)
                }
                Err(error) => Err(error),
            };
        }
    }

    /// Receives a file to its end, in as many attempts as progress is made.
    fn download(&self, wanted: &Wanted, partial: &mut Partial) -> Result<(), FetchError> {
        let http = Http::new(&self.patience);
        let mut told = 0;
        let mut failures = 0;
        loop {
            let before = partial.length();
            let fault = match self.receive(&http, wanted, partial, &mut told)? {
                Ok(()) => {
                    if partial.sha256() == wanted.listed.sha256 {
                        return Ok(());
                    }
                    if before == 0 {
                        return Err(wrong_digest(wanted, partial));
                    }
                    // What an earlier attempt left may be at fault: once more from the start.
                    partial.restart()?;
                    continue;
                }
                Err(fault) => fault,
            };
            // A mirror that can resume gets as many attempts as it needs, so long as each brings the file forward.
            failures = if partial.length() > before.saturating_add(1 << 20) {
                1
            } else {
                failures + 1
            };
            if !fault.may_pass() || failures >= self.patience.attempts {
                return Err(network(&wanted.what, &wanted.url, failures, false, fault));
            }
            self.pause(&wanted.what, failures, &fault);
        }
    }

    /// One attempt; the outer error is final, the inner one may pass.
    fn receive(
        &self,
        http: &Http,
        wanted: &Wanted,
        partial: &mut Partial,
        told: &mut u64,
    ) -> Result<Result<(), Fault>, FetchError> {
        let size = wanted.listed.size;
        let mut answer = match http.open(&wanted.url, partial.length()) {
            Ok(answer) => answer,
            Err(fault) => {
                if matches!(fault, Fault::Resume) {
                    partial.restart()?;
                }
                return Ok(Err(fault));
            }
        };
        if answer.start != partial.length() {
            partial.restart()?;
        }
        if let Some(length) = answer
            .length
            .filter(|length| answer.start.saturating_add(*length) != size)
        {
            return Err(wrong_size(wanted, (answer.start + length).to_string()));
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match answer.body.read(&mut buffer) {
                Ok(0) if partial.length() == size => return Ok(Ok(())),
                Ok(0) => {
                    let received = partial.length();
                    return Ok(Err(Fault::Ended { received, size }));
                }
                Ok(count) => count,
                Err(error) => return Ok(Err(Fault::Receive(error))),
            };
            if partial.length() + count as u64 > size {
                return Err(wrong_size(wanted, format!("more than {size}")));
            }
            partial.write(&buffer[..count])?;
            let length = partial.length();
            self.progress.advanced(length.saturating_sub(*told));
            *told = length.max(*told);
        }
    }

    fn fetch_release_file(
        &self,
        suite: &str,
        url: &str,
        cached: bool,
    ) -> Result<Vec<u8>, FetchError> {
        let what = release_name(suite);
        self.progress.started(&what, None);
        let http = Http::new(&self.patience);
        let mut failures = 0;
        let bytes = loop {
            let fault = match read_bounded(&http, url) {
                Ok(bytes) => break Ok(bytes),
                Err(fault) => fault,
            };
            failures += 1;
            if !fault.may_pass() || failures >= self.patience.attempts {
                break Err(network(&what, url, failures, cached, fault));
            }
            self.pause(&what, failures, &fault);
        };
        self.progress
            .advanced(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
        self.progress.finished();
        bytes
    }

    fn pause(&self, what: &str, failures: u32, fault: &Fault) {
        tracing::warn!(what, failures, %fault, "fetching again");
        std::thread::sleep(self.patience.pause * 2_u32.saturating_pow(failures - 1));
    }

    fn missing(&self, what: &str) -> FetchError {
        FetchError::Offline {
            what: what.to_owned(),
            cache: self.cache.clone(),
        }
    }
}

/// Reads the host's own source lists below `/etc/apt` and returns the Debian mirror that they name, if any.
pub fn load_host_mirror(etc_apt: &Path) -> Result<Option<Mirror>, FetchError> {
    let mut paths = vec![etc_apt.join("sources.list")];
    let directory = etc_apt.join("sources.list.d");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Sources { path, source }
    };
    if directory.is_dir() {
        let mut parts = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(failed(&directory))? {
            parts.push(entry.map_err(failed(&directory))?.path());
        }
        parts.retain(|path| {
            path.extension()
                .is_some_and(|end| end == "list" || end == "sources")
        });
        parts.sort();
        paths.extend(parts);
    }
    let mut contents = Vec::new();
    for path in paths.iter().filter(|path| path.exists()) {
        contents.push(std::fs::read_to_string(path).map_err(failed(path))?);
    }
    Ok(Mirror::from_apt_sources(&contents))
}

fn release_name(suite: &str) -> String {
    format!("the release of {suite}")
}

fn read_bounded(http: &Http, url: &str) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let body = http.open(url, 0)?.body;
    body.take(IN_RELEASE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(Fault::Receive)?;
    if bytes.len() as u64 > IN_RELEASE_MAX {
        return Err(Fault::TooLong(IN_RELEASE_MAX));
    }
    Ok(bytes)
}

fn decompress(path: &Path, size: u64) -> io::Result<String> {
    let mut text = String::new();
    let decoder = XzDecoder::new_multi_decoder(io::BufReader::new(std::fs::File::open(path)?));
    decoder
        .take(size.saturating_add(1))
        .read_to_string(&mut text)?;
    if text.len() as u64 != size {
        return Err(io::Error::other(format!(
            "it does not have the {size} bytes announced"
        )));
    }
    Ok(text)
}

fn network(what: &str, url: &str, attempts: u32, cached: bool, source: Fault) -> FetchError {
    FetchError::Network {
        what: what.to_owned(),
        url: url.to_owned(),
        attempts,
        cached,
        source,
    }
}

fn wrong_size(wanted: &Wanted, found: String) -> FetchError {
    FetchError::Size {
        what: wanted.what.clone(),
        url: wanted.url.clone(),
        size: wanted.listed.size,
        found,
    }
}

fn wrong_digest(wanted: &Wanted, partial: &Partial) -> FetchError {
    FetchError::Digest {
        what: wanted.what.clone(),
        url: wanted.url.clone(),
        sha256: wanted.listed.sha256,
        found: partial.sha256(),
    }
}
