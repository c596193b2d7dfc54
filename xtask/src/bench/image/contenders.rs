//! The two that make an image of the same content: Footbridge's command, and the recipe's script.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use imagegen::board::Board;
use imagegen::credentials::{Psk, Security, Ssid};
use imagegen::inspect::diff::diff;
use imagegen::inspect::image::{BootPartition, Image};
use imagegen::make::disk::{ImageFormat, XZ_PRESET, ZSTD_LEVEL};
use imagegen::plan::boot::INITRAMFS_FILE;
use imagegen::site::{CountryCode, Network, SiteOptions, SshKeys};
use imagegen::tree::Tree;
use tempfile::TempDir;

use super::ingredients::Ingredients;
use super::watched;
use crate::image::{self, Prepared};
use crate::progress::Bars;
use crate::source::Source;
use crate::usage::Failure;
use crate::workspace::Workspace;
use crate::{diff as differences, interrupt, verify};

/// A site like any other.
const SSID: &str = "bench";
const PASSPHRASE: &str = "correct horse battery staple";
const COUNTRY: &str = "DE";
/// Nobody has the other half.
const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f bench";

/// Both, ready to be measured.
pub struct Contenders<'a> {
    workspace: &'a Workspace,
    board: &'a Board,
    scratch: &'a Path,
}

/// One who builds with a cache of its own.
pub struct Footbridge<'a> {
    /// The network's name.
    pub ssid: String,
    /// What the image's file is.
    pub format: ImageFormat,
    /// Whether people can log in.
    pub with_ssh: bool,
    contenders: &'a Contenders<'a>,
    packages: Packages,
    folder: Scratch,
}

/// Whether packages are there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packages {
    Fetched,
    Missing,
}

/// A folder that goes with its value.
struct Scratch {
    folder: TempDir,
    _unfinished: interrupt::Unfinished,
}

impl<'a> Contenders<'a> {
    /// Fetches the packages, has both build once, which leaves nothing to be compiled, and makes sure that they built the same.
    pub fn prepare(
        workspace: &'a Workspace,
        board: &'a Board,
        source: &Source,
        scratch: &'a Path,
    ) -> Result<Self> {
        let bars = Bars::new();
        let prepared = image::prepare(workspace, board, &site()?)?;
        let debs = fetch(workspace, source, &prepared, &bars)?;
        let with_ssh = SiteOptions {
            ssh_keys: Some(SshKeys::parse(SSH_KEY)?),
            ..site()?
        };
        fetch(
            workspace,
            source,
            &image::prepare(workspace, board, &with_ssh)?,
            &bars,
        )?;
        crate::agent::build(workspace, board, source, &bars)?;
        fs::write(scratch.join("passphrase"), PASSPHRASE)?;
        fs::write(scratch.join("key.pub"), SSH_KEY)?;
        let contenders = Contenders {
            workspace,
            board,
            scratch,
        };
        let step = bars.step("building with both, to compare");
        let footbridge = contenders.fresh()?;
        footbridge.build(watched::time)?;
        let ours = verify::open(&footbridge.output())?;
        let ingredients = Ingredients {
            board,
            prepared: &prepared,
            debs: &debs,
            ours: &ours,
        };
        ingredients.lay_out(&scratch.join("ingredients"))?;
        contenders.recipe(watched::time)?;
        let theirs = verify::open(&contenders.recipe_output())?;
        drop(step);
        check_same_content(ours, theirs)?;
        Ok(contenders)
    }

    /// Has the recipe build an image.
    pub fn recipe<T>(&self, run: impl FnOnce(&mut Command) -> Result<T>) -> Result<T> {
        let work = Scratch::below(self.scratch)?;
        let output = self.recipe_output();
        remove(&output)?;
        let mut command = Command::new(self.workspace.root.join("xtask/recipe/image"));
        command
            .arg(self.scratch.join("ingredients"))
            .args([work.folder.path(), &output]);
        run(&mut command).context("while making the recipe's image")
    }

    /// Returns the recipe's image, in a format.
    pub fn recipe_packed(&self, format: ImageFormat) -> Result<PathBuf> {
        let plain = self.recipe_output();
        let (program, level) = match format {
            ImageFormat::Img => return Ok(plain),
            ImageFormat::ImgZst => ("zstd", format!("-{ZSTD_LEVEL}")),
            ImageFormat::ImgXz => ("xz", format!("-{XZ_PRESET}")),
        };
        let mut command = Command::new(program);
        command.args(["--quiet", "--keep", "--force", "--threads=0", &level]);
        watched::time(command.arg(&plain)).context("while compressing the recipe's image")?;
        Ok(plain.with_extension(format.extension()))
    }

    /// Returns a builder who has the packages and nothing else.
    pub fn fresh(&self) -> Result<Footbridge<'_>> {
        self.footbridge(Packages::Fetched)
    }

    /// Returns a builder who does not even have the packages.
    pub fn without_packages(&self) -> Result<Footbridge<'_>> {
        self.footbridge(Packages::Missing)
    }

    fn footbridge(&self, packages: Packages) -> Result<Footbridge<'_>> {
        let scratch = Scratch::below(self.scratch)?;
        let folder = scratch.folder.path();
        let cache = folder.join("cache");
        fs::create_dir(&cache)?;
        let mut kept = vec!["std"];
        kept.extend((packages == Packages::Fetched).then_some("packages"));
        for name in kept {
            let kept = self.workspace.cache.join(name);
            if kept.is_dir() {
                symlink(kept, cache.join(name))?;
            }
        }
        Ok(Footbridge {
            ssid: SSID.to_owned(),
            format: ImageFormat::Img,
            with_ssh: false,
            contenders: self,
            packages,
            folder: scratch,
        })
    }

    fn recipe_output(&self) -> PathBuf {
        self.scratch.join("recipe.img")
    }
}

impl Footbridge<'_> {
    /// Builds an image, with what an earlier build of this value left in the cache.
    pub fn build<T>(&self, run: impl FnOnce(&mut Command) -> Result<T>) -> Result<T> {
        let Contenders {
            workspace,
            board,
            scratch,
        } = self.contenders;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["image", "--board", &board.id, "--ssid", &self.ssid])
            .arg("--psk-file")
            .arg(scratch.join("passphrase"))
            .args(["--country", COUNTRY, "--output"])
            .arg(self.output())
            .current_dir(&workspace.root)
            .env("FOOTBRIDGE_CACHE", self.cache());
        if self.packages == Packages::Fetched {
            command.arg("--offline");
        }
        if self.with_ssh {
            command.arg("--ssh-key").arg(scratch.join("key.pub"));
        }
        run(&mut command).context("while making our image")
    }

    /// The image.
    pub fn output(&self) -> PathBuf {
        let name = format!("ours.{}", self.format);
        self.folder.folder.path().join(name)
    }

    /// The bytes of the packages in the cache.
    pub fn packages_size(&self) -> Result<u64> {
        let mut size = 0;
        for entry in fs::read_dir(self.cache().join("packages/objects"))? {
            size += entry?.metadata()?.len();
        }
        Ok(size)
    }

    fn cache(&self) -> PathBuf {
        self.folder.folder.path().join("cache")
    }
}

impl Scratch {
    fn below(folder: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(folder)?;
        Ok(Scratch {
            _unfinished: interrupt::Unfinished::scratch(folder.path()),
            folder,
        })
    }
}

/// The indices of the modules are made by two programs, which order and pad them differently, and they are in the initramfs. All else is
/// to be the same.
fn check_same_content(ours: Image, theirs: Image) -> Result<()> {
    let difference = diff(&with_folded_names(ours)?, &with_folded_names(theirs)?);
    let mut others = difference.context("while comparing the images")?;
    let is_made_otherwise = |name: &str| {
        name.contains("/modules/") && name.contains("/modules.")
            || name.strip_prefix("boot/") == Some(INITRAMFS_FILE)
    };
    others
        .files
        .retain(|change| !is_made_otherwise(&change.name));
    if others.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        format!(
            "the recipe's image does not hold what ours does:\n{}",
            differences::as_text(&others)
        ),
        "`-` is in ours alone, `+` in the recipe's alone; mend xtask/recipe/image",
    )
    .into())
}

/// FAT does not tell names apart by their case, and mtools writes short ones in capitals.
fn with_folded_names(image: Image) -> Result<Image> {
    let boot = match image.boot {
        Ok(boot) => {
            let mut tree = Tree::new();
            for (path, node) in boot.tree.iter() {
                tree.insert(path.to_ascii_lowercase(), node.clone())?;
            }
            Ok(BootPartition { tree, ..boot })
        }
        unreadable => unreadable,
    };
    Ok(Image { boot, ..image })
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("while removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The site that the command line of [`Footbridge::build`] says.
fn site() -> Result<SiteOptions> {
    let security = Security::Wpa2(Psk::parse(PASSPHRASE.as_bytes())?);
    Ok(SiteOptions {
        country: Some(CountryCode::parse(COUNTRY)?),
        ..SiteOptions::joining(Network::new(Ssid::new(SSID)?, security))
    })
}

fn fetch(
    workspace: &Workspace,
    source: &Source,
    prepared: &Prepared,
    bars: &Bars,
) -> Result<BTreeMap<String, PathBuf>> {
    let chosen = &prepared.resolution.packages;
    let packages: Vec<_> = chosen.values().collect();
    let fetcher = source.fetcher_for(workspace, &prepared.lock, bars)?;
    let paths = fetcher.fetch_debs(&packages)?;
    Ok(chosen.keys().cloned().zip(paths).collect())
}
