//! Where Debian packages come from: the mirror this machine's apt uses, unless the user names another; checked and cached.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use imagegen::board::Board;
use imagegen::index::{Index, Package};
use imagegen::lock::Lock;
use imagegen::make::deb::unpack_deb;
use imagegen::make::fetch::{Fetcher, Patience, load_host_mirror};
use imagegen::make::release::{Keyring, Release};
use imagegen::mirror::{FALLBACK_MIRROR, Mirror, PastArchive};
use imagegen::resolve::{Request, Resolution, Root, resolve};
use imagegen::tree::Tree;

use crate::progress::Bars;
use crate::usage::{Failure, UsageError};
use crate::workspace::Workspace;

/// The suites of Debian 13 that images are built from.
const SUITES: &[&str] = &["trixie", "trixie-updates"];
const SECURITY_SUITE: &str = "trixie-security";
const COMPONENTS: &[&str] = &["main", "non-free-firmware"];

/// The suite with the source of the standard library, and the architecture whose list is asked for it: it is the same for all.
const RUST_SUITE: &str = "trixie-backports";
const RUST_ARCHITECTURE: &str = "arm64";

/// Where packages come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Source {
    /// Debian mirror (default: this machine's own, or FOOTBRIDGE_MIRROR)
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Archive of old versions, for those that have left the mirror (default: FOOTBRIDGE_ARCHIVE, or none)
    #[arg(long, value_name = "URL")]
    archive: Option<String>,
    /// Fetch nothing; use what earlier builds fetched
    #[arg(long)]
    pub offline: bool,
    /// Where the standard library of the board's target comes from
    #[arg(long, value_enum, default_value_t)]
    pub std: Std,
}

/// Where the standard library of the board's target comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Std {
    /// rustup's, or the distribution's source where rustup has none
    #[default]
    Auto,
    /// rustup's only
    Rustup,
    /// Built from the distribution's source
    Debian,
}

/// Whether packages are chosen with security updates in view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// They are.
    Wanted,
    /// Some mirrors carry no list of them that matches its signature for every architecture.
    LeftOut,
}

/// The packages on offer for an architecture, and the signed releases that say so.
pub struct Offer {
    /// The releases.
    pub releases: Vec<Release>,
    /// The packages.
    pub index: Index,
}

impl Security {
    /// What the lock was made with, or what the first one is made with.
    pub fn of(lock: Option<&Lock>) -> Self {
        match lock.is_none_or(Lock::has_security) {
            true => Security::Wanted,
            false => Security::LeftOut,
        }
    }

    /// Returns the suites that images are built from.
    pub fn suites<'a>(self) -> impl Iterator<Item = &'a str> {
        let security = (self == Security::Wanted).then_some(SECURITY_SUITE);
        SUITES.iter().copied().chain(security)
    }
}

impl Source {
    /// Returns the fetcher for the mirror, keeping what it fetches in the user's cache.
    pub fn fetcher<'a>(&self, workspace: &Workspace, bars: &'a Bars) -> Result<Fetcher<'a>> {
        Ok(Fetcher {
            mirror: self.mirror()?,
            past: None,
            cache: workspace.cache.join("packages"),
            offline: self.offline,
            keyring: Keyring::debian(),
            patience: Patience::default(),
            progress: bars,
        })
    }

    /// Returns the fetcher for the packages of a lock, which may have left the mirror since.
    pub fn fetcher_for<'a>(
        &self,
        workspace: &Workspace,
        lock: &Lock,
        bars: &'a Bars,
    ) -> Result<Fetcher<'a>> {
        let named = self
            .archive
            .clone()
            .or_else(|| std::env::var("FOOTBRIDGE_ARCHIVE").ok())
            .filter(|url| !url.is_empty());
        let past = named.map(|url| past_archive(&url, lock)).transpose()?;
        Ok(Fetcher {
            past,
            ..self.fetcher(workspace, bars)?
        })
    }

    /// Returns the mirror.
    pub fn mirror(&self) -> Result<Mirror> {
        let named = self
            .mirror
            .clone()
            .or_else(|| std::env::var("FOOTBRIDGE_MIRROR").ok());
        Ok(match named.filter(|url| !url.is_empty()) {
            Some(url) => Mirror::parse(&url).map_err(|error| {
                UsageError::new(
                    error.to_string(),
                    "for example: --mirror http://192.0.2.1/debian, the folder that has dists/trixie in it",
                )
            })?,
            None => load_host_mirror(Path::new("/etc/apt"))?
                .unwrap_or_else(|| Mirror::from_url(FALLBACK_MIRROR)),
        })
    }

    /// Fetches what Debian 13 offers for an architecture.
    pub fn offer(
        &self,
        fetcher: &Fetcher,
        architecture: &str,
        security: Security,
    ) -> Result<Offer> {
        let suites: Vec<&str> = security.suites().collect();
        offer(fetcher, &suites, COMPONENTS, architecture)
    }

    /// Fetches what there is for boards of one architecture: the same, and the suites that their kernels come from.
    pub fn offer_for(
        &self,
        fetcher: &Fetcher,
        boards: &[Board],
        security: Security,
    ) -> Result<Offer> {
        let kernels: BTreeSet<&str> = boards
            .iter()
            .filter_map(|board| board.kernel.suite.as_deref())
            .collect();
        let suites: Vec<&str> = security.suites().chain(kernels).collect();
        offer(fetcher, &suites, COMPONENTS, boards[0].arch.debian_name())
    }

    /// Unpacks, into the folder, what a standard library for `architecture` is built from: its source in the compiler's very
    /// version, and the C library's start files.
    pub fn unpack_standard_library(
        &self,
        workspace: &Workspace,
        architecture: &str,
        version: &str,
        security: Security,
        folder: &Path,
        bars: &Bars,
    ) -> Result<()> {
        let fetcher = self.fetcher(workspace, bars)?;
        let rust = offer(&fetcher, &[RUST_SUITE], &["main"], RUST_ARCHITECTURE)?;
        let source = rust
            .index
            .find("rust-src", |upstream| {
                upstream.split('+').next() == Some(version)
            })
            .ok_or_else(|| {
                Failure::new(
                    format!("{RUST_SUITE} has no source of Rust {version}"),
                    "let rustup fetch the standard library instead: rustup target add TARGET",
                )
            })?;
        let debian = self.offer(&fetcher, architecture, security)?;
        let musl = debian
            .index
            .latest("musl-dev")
            .context("Debian has no musl-dev for this architecture")?;
        let library = format!("usr/src/rustc-{version}/library/");
        let mut tree = Tree::new();
        unpack(&fetcher, source, &mut tree, |path| {
            path.starts_with(&library)
        })?;
        unpack(&fetcher, musl, &mut tree, |path| {
            path.starts_with("usr/lib/")
        })?;
        write_files(&tree, folder)
    }
}

fn past_archive(url: &str, lock: &Lock) -> Result<PastArchive> {
    let dates = lock.releases().iter();
    let dates = dates.map(|(suite, release)| (suite.clone(), release.date));
    // It is an address like a mirror's, of the folder that has the archives in it.
    Mirror::parse(url).map_err(|error| {
        UsageError::new(
            error.to_string(),
            "for example: --archive http://192.0.2.1/archive, the folder that has debian/20250906T120000Z in it",
        )
    })?;
    Ok(PastArchive::new(url, dates))
}

fn offer(
    fetcher: &Fetcher,
    suites: &[&str],
    components: &[&str],
    architecture: &str,
) -> Result<Offer> {
    let (releases, index) =
        fetcher.fetch_index(suites, components, architecture, SystemTime::now())?;
    Ok(Offer { releases, index })
}

/// Chooses packages that are wanted beside those already present.
pub fn choose_beside(
    offer: &Offer,
    names: &[&str],
    present: BTreeSet<String>,
) -> Result<Resolution> {
    let roots = names.iter().map(|name| Root::latest(name)).collect();
    Ok(resolve(
        &offer.index,
        &Request {
            roots,
            exclude: BTreeSet::new(),
            assume: present,
        },
    )?)
}

/// Fetches one package and unpacks the part of it that is wanted.
pub fn unpack(
    fetcher: &Fetcher,
    package: &Package,
    tree: &mut Tree,
    wanted: impl Fn(&str) -> bool,
) -> Result<()> {
    let path = fetcher.fetch_deb(package)?;
    let bytes = fs::read(&path).with_context(|| format!("while reading {}", path.display()))?;
    unpack_deb(&bytes, package.unpack_limit(), tree, wanted)
        .with_context(|| format!("while unpacking {} {}", package.name, package.version))
}

/// Writes a tree's directories, files and links below a folder.
fn write_files(tree: &Tree, folder: &Path) -> Result<()> {
    for (path, node) in tree.iter() {
        let place: PathBuf = folder.join(path);
        let parent = place.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .with_context(|| format!("while creating {}", parent.display()))?;
        if let Some(bytes) = node.bytes() {
            fs::write(&place, bytes)
                .with_context(|| format!("while writing {}", place.display()))?;
        }
    }
    Ok(())
}
