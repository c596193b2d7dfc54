//! `cargo xtask fleet`: many devices from one list. What a list means, what a bundle is and how a ledger is kept are imagegen's.

mod build;
mod flash;
mod images;
mod list;
mod manifest;
pub mod status;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::workspace::Workspace;

/// What to do with a list of devices
#[derive(clap::Subcommand)]
pub enum Fleet {
    /// Check the list, and make an image for each board and a bundle of settings for each device
    Build(build::Args),
    /// Write the card of the next device, and of the one after it
    Flash(flash::Args),
    /// Make a whole image for each device
    Images(images::Args),
    /// Ask the devices how they are
    Status(status::Args),
}

/// A list, and the folder of what is made from it.
#[derive(clap::Args)]
struct Place {
    /// List of the devices, a .toml or a .csv (the book shows both)
    fleet: PathBuf,
    /// Folder of what is made for them (default: target/fleet/NAME of the list)
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Place {
    fn folder(&self, workspace: &Workspace) -> PathBuf {
        self.output.clone().unwrap_or_else(|| {
            let stem = self.fleet.file_stem().unwrap_or_default();
            workspace.target.join("fleet").join(stem)
        })
    }
}

/// Does what was asked for.
pub fn run(fleet: &Fleet) -> Result<()> {
    match fleet {
        Fleet::Build(args) => build::run(args),
        Fleet::Flash(args) => flash::run(args),
        Fleet::Images(args) => images::run(args),
        Fleet::Status(args) => status::run(args),
    }
}

/// The name of a device's bundle.
fn bundle_file(device: &str) -> String {
    format!("{device}.site")
}

/// The name of a device's image.
fn whole_file(device: &str) -> String {
    format!("{device}.img")
}

/// The name of a board's image.
fn base_file(target: &str) -> String {
    format!("base-{target}.img")
}

/// The folder of what is made for a time.
fn scratch(folder: &Path) -> PathBuf {
    folder.join("work")
}
