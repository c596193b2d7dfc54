//! Fetches from a Debian mirror into the cache: signed releases, package lists, packages. The only module with a network.
//!
//! Nothing is believed before it was checked: releases by their signature, lists by the release, packages by the lists. Interrupted
//! downloads are resumed. With `offline` no socket is opened: the cache has it, or the error says what is missing.

mod download;
mod error;
mod http;
mod store;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use liblzma::read::XzDecoder;

use self::download::{Downloader, Wanted};
pub use self::error::FetchError;
pub use self::http::{Fault, Patience};
use self::store::Store;
pub use self::store::StoreError;
use super::release::{Keyring, ListedFile, Release, verify_release, verify_release_of_any_age};
use crate::index::{Index, Origin, Package};
use crate::mirror::{Archive, Mirror, PastArchive, without_password};

/// Downloads that run at the same time.
const PARALLEL: usize = 4;

/// Is told how a fetch goes; the library itself prints nothing.
pub trait Progress: Sync {
    /// Something begins; `total` is its size in bytes, if that is known.
    fn started(&self, what: &str, total: Option<u64>);
    /// That many more bytes are there.
    fn advanced(&self, bytes: u64);
    /// What was started last has ended, well or not.
    fn finished(&self);
    /// Something that people should know, and that takes no time.
    fn noted(&self, what: &str) {
        self.started(what, None);
        self.finished();
    }
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
    /// Where versions are that have left the mirror.
    pub past: Option<PastArchive>,
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

impl Fetcher<'_> {
    /// Fetches the releases of some suites and lays the lists of their components together: the packages on offer for an architecture.
    pub fn fetch_index(
        &self,
        suites: &[&str],
        components: &[&str],
        architecture: &str,
        now: SystemTime,
    ) -> Result<(Vec<Release>, Index), FetchError> {
        let releases = self.fetch_releases(suites, now)?;
        let index = self.fetch_lists(&releases, components, architecture)?;
        Ok((releases, index))
    }

    /// Fetches the releases of some suites.
    fn fetch_releases(&self, suites: &[&str], now: SystemTime) -> Result<Vec<Release>, FetchError> {
        let suites = suites.iter();
        suites.map(|suite| self.fetch_release(suite, now)).collect()
    }

    /// Lays the lists of the releases' components together.
    fn fetch_lists(
        &self,
        releases: &[Release],
        components: &[&str],
        architecture: &str,
    ) -> Result<Index, FetchError> {
        let mut index = Index::default();
        for release in releases {
            let origin = Origin {
                suite: release.suite.clone(),
                automatic: release.automatic,
            };
            for component in components {
                let text = self.fetch_packages_list(release, component, architecture)?;
                index.add(&text, &origin)?;
            }
        }
        Ok(index)
    }

    /// Fetches a suite's release and checks it; offline, takes the cached one. A release older than one seen before is refused.
    pub fn fetch_release(&self, suite: &str, now: SystemTime) -> Result<Release, FetchError> {
        let store = Store::new(&self.cache);
        let cached = store.load_release(suite)?;
        let what = format!("the release of {suite}");
        if self.offline {
            let bytes = cached.ok_or_else(|| self.downloader().missing(&what))?;
            let place = format!("the cache {}", self.cache.display());
            return self.verify(&bytes, suite, &place, now);
        }
        let base = self.mirror.base(Archive::of_suite(suite));
        let url = format!("{base}/dists/{suite}/InRelease");
        self.progress.started(&format!("fetching {what}"), None);
        let downloader = self.downloader();
        let fetched = downloader.read_release(&what, &url, cached.is_some());
        self.progress.finished();
        let bytes = fetched?;
        let release = self.verify(&bytes, suite, &without_password(&url), now)?;
        // A cached file that cannot be believed (any more) says nothing about time.
        let known = cached
            .and_then(|known| verify_release_of_any_age(&known, suite, &self.keyring, now).ok());
        if let Some(known) = known.filter(|known| known.date > release.date) {
            return Err(FetchError::RolledBack {
                url: without_password(&url),
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
        let by_name = format!("{base}/dists/{suite}/{path}");
        let by_hash = format!(
            "{base}/dists/{suite}/{directory}/by-hash/SHA256/{}",
            listed.sha256
        );
        let mut wanted = Wanted {
            what: format!("the package list {suite}/{path}"),
            url: if release.by_hash {
                by_hash
            } else {
                by_name.clone()
            },
            listed,
        };
        self.progress
            .started(&format!("fetching {}", wanted.what), Some(listed.size));
        let downloader = self.downloader();
        let mut fetched = downloader.obtain(&wanted);
        if release.by_hash && fetched.as_ref().is_err_and(FetchError::is_absent) {
            // Some mirrors leave out the directories by digest. The name does as well, unless the mirror was updated meanwhile.
            wanted.url = by_name;
            fetched = downloader.obtain(&wanted);
        }
        self.progress.finished();
        let path = fetched?;
        decompress(&path, unpacked.size, &wanted.what).inspect_err(|_| {
            // It is what the release announces, and yet of no use to anyone.
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a bad list stays in the cache");
            }
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
            [package] => format!("fetching package {}", package.name),
            _ => format!("fetching {} packages", packages.len()),
        };
        self.progress.started(&what, Some(total));
        let paths = self.fetch_in_parallel(packages);
        self.progress.finished();
        paths
    }

    /// Each worker takes the next package until none is left; after a failure nothing new is begun.
    fn fetch_in_parallel(&self, packages: &[&Package]) -> Result<Vec<PathBuf>, FetchError> {
        let downloader = self.downloader();
        let next = Mutex::new(packages.iter().enumerate());
        let results = Mutex::new(vec![None; packages.len()]);
        let work = || -> Result<(), FetchError> {
            let take = || next.lock().map_or(None, |mut next| next.next());
            while let Some((place, package)) = take() {
                let fetched = self.obtain(&downloader, package);
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

    fn downloader(&self) -> Downloader<'_> {
        Downloader::new(&self.cache, self.offline, self.patience, self.progress)
    }

    fn verify(
        &self,
        bytes: &[u8],
        suite: &str,
        place: &str,
        now: SystemTime,
    ) -> Result<Release, FetchError> {
        verify_release(bytes, suite, &self.keyring, now).map_err(|source| FetchError::Release {
            suite: suite.to_owned(),
            place: place.to_owned(),
            offline: self.offline,
            source,
        })
    }

    /// From the cache, the mirror, or, where its version has left the mirror, the archive of old versions.
    fn obtain(
        &self,
        downloader: &Downloader<'_>,
        package: &Package,
    ) -> Result<PathBuf, FetchError> {
        let wanted = wanted(self.mirror.base(package.archive), package);
        let fetched = downloader.obtain(&wanted);
        if !fetched.as_ref().is_err_and(FetchError::is_absent) {
            return fetched;
        }
        let past = self.past.as_ref();
        let Some(base) = past.and_then(|past| past.base_of(&package.suite)) else {
            return Err(gone(&wanted));
        };
        let wanted = self::wanted(&base, package);
        downloader.obtain(&wanted).map_err(|error| {
            if error.is_absent() {
                gone(&wanted)
            } else {
                error
            }
        })
    }
}

fn gone(wanted: &Wanted) -> FetchError {
    FetchError::Gone {
        what: wanted.what.clone(),
        url: without_password(&wanted.url),
    }
}

fn wanted(base: &str, package: &Package) -> Wanted {
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

/// Unpacks no more than one byte beyond the announced size.
fn decompress(path: &Path, size: u64, what: &str) -> Result<String, FetchError> {
    let mut text = String::new();
    let mut read = || {
        let file = io::BufReader::new(std::fs::File::open(path)?);
        let decoder = XzDecoder::new_multi_decoder(file);
        decoder
            .take(size.saturating_add(1))
            .read_to_string(&mut text)
    };
    let length = read().map_err(|source| FetchError::Decompress {
        what: what.to_owned(),
        source,
    })? as u64;
    if length == size {
        return Ok(text);
    }
    Err(FetchError::Unpacked {
        what: what.to_owned(),
        size,
        found: if length > size {
            format!("more than {size}")
        } else {
            length.to_string()
        },
    })
}
