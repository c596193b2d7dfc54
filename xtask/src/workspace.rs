//! Where things are: the checkout this binary was built from, its build folder, and the user's cache.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::usage::UsageError;

/// The folders a command works in.
pub struct Workspace {
    /// The checkout.
    pub root: PathBuf,
    /// Cargo's build folder.
    pub target: PathBuf,
    /// Downloads and standard libraries, shared by all checkouts of this user.
    pub cache: PathBuf,
}

impl Workspace {
    /// Finds the folders from this binary's manifest and the environment.
    pub fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask's manifest has no folder above it")?
            .to_path_buf();
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(dir));
        let cache = cache_folder().unwrap_or_else(|| target.join("footbridge-cache"));
        check_private(&cache)?;
        Ok(Workspace {
            root,
            target,
            cache,
        })
    }

    /// Returns the folder of board files.
    pub fn boards(&self) -> PathBuf {
        self.root.join("boards")
    }

    /// Returns the folder of locks.
    pub fn locks(&self) -> PathBuf {
        self.root.join("packages.lock")
    }

    /// Returns the folder of overlays.
    pub fn overlays(&self) -> PathBuf {
        self.root.join("overlays")
    }
}

/// `FOOTBRIDGE_CACHE`, or `footbridge` in the user's cache folder (XDG base directory specification).
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let named = std::env::var_os("FOOTBRIDGE_CACHE").filter(|path| !path.is_empty());
    named
        .and_then(|path| std::path::absolute(path).ok())
        .or_else(|| absolute("XDG_CACHE_HOME").map(|dir| dir.join("footbridge")))
        .or_else(|| absolute("HOME").map(|dir| dir.join(".cache/footbridge")))
}

/// What is in the cache becomes part of images, so it belongs to this user or root, and not everybody may write there.
fn check_private(cache: &Path) -> Result<()> {
    check_folder(cache)?;
    check_folder(&cache.join("systems"))?;
    check_folder(&cache.join("results"))
}

fn check_folder(folder: &Path) -> Result<()> {
    let Ok(found) = fs::metadata(folder) else {
        return Ok(());
    };
    let user = fs::metadata("/proc/self")
        .context("while asking who runs this")?
        .uid();
    let trusted = found.uid() == user || found.uid() == 0;
    if trusted && found.mode() & 0o002 == 0 {
        return Ok(());
    }
    Err(UsageError::new(
        format!("others may write to the cache {}", folder.display()),
        "name a folder of your own with FOOTBRIDGE_CACHE, or take the permission away",
    )
    .into())
}
