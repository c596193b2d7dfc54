//! Where things are: the checkout this binary was built from, its build folder, and the user's cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

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
    absolute("FOOTBRIDGE_CACHE")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|dir| dir.join("footbridge")))
        .or_else(|| absolute("HOME").map(|dir| dir.join(".cache/footbridge")))
}
