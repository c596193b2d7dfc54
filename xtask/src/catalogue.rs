//! `cargo xtask catalogue`: writes the list that Raspberry Pi Imager offers images from, and its icon, beside the images.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use imagegen::catalogue::{Audience, BaseUrl, CatalogueError, Published, os_list};

use crate::boards;
use crate::output;
use crate::progress::Bars;
use crate::usage::{Failure, UsageError};
use crate::workspace::Workspace;

/// The icon that Imager shows beside each image.
const ICON: &[u8] = include_bytes!("../../docs/src/pictures/footbridge.svg");
const ICON_FILE: &str = "footbridge.svg";

/// The list's name where none is given.
const LIST_FILE: &str = "os_list.json";

/// Where people read about an image.
const WEBSITE: &str = env!("CARGO_PKG_REPOSITORY");

/// What to offer, and where it will be.
#[derive(clap::Args)]
pub struct Args {
    /// Address of the folder that images and list will be downloaded from
    #[arg(long, value_name = "URL")]
    url: String,
    /// Where to write the list (default: os_list.json beside the images); the icon goes beside it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The list is for your own people: allow images with a network's key, or the key of somebody who may log in
    #[arg(long)]
    private: bool,
    /// Images to offer, compressed or not
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

/// Writes the list and prints its path.
pub fn run(args: &Args) -> Result<()> {
    let base = BaseUrl::parse(&args.url).map_err(told)?;
    let output = output(args)?;
    let boards = boards::all(&Workspace::locate()?)?;
    let audience = match args.private {
        true => Audience::OwnPeople,
        false => Audience::Everybody,
    };
    let bars = Bars::new();
    let images: Vec<Published> = args
        .images
        .iter()
        .map(|path| Published::load(path, &boards, audience, &bars).map_err(told))
        .collect::<Result<_>>()?;
    let list = os_list(&base, images, ICON_FILE, WEBSITE).map_err(told)?;
    // The list names the icon, so it comes last.
    write(&folder_of(&output).join(ICON_FILE), ICON)?;
    write(&output, list.as_bytes())?;
    output::print_line(output.display())?;
    Ok(())
}

fn told(error: CatalogueError) -> anyhow::Error {
    let hint = error.hint();
    let usage = error.is_usage();
    let message = format!("{:#}", anyhow::Error::from(error));
    if usage {
        UsageError::new(message, hint).into()
    } else {
        Failure::new(message, hint).into()
    }
}

/// Everything will be in one folder, so images of several have to be told where.
fn output(args: &Args) -> Result<PathBuf> {
    if let Some(output) = &args.output {
        return Ok(output.clone());
    }
    let mut folders = args.images.iter().map(|image| image.parent());
    let first = folders.next().flatten().unwrap_or(Path::new(""));
    if folders.all(|folder| folder == Some(first)) {
        return Ok(first.join(LIST_FILE));
    }
    Err(UsageError::new(
        "the images are in several folders, and will be in one",
        format!("say where the list goes: --output FOLDER/{LIST_FILE}"),
    )
    .into())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes a file that everybody may read, whole or not at all.
fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder_of(path))?;
        file.write_all(contents)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().with_context(|| format!("while writing {}", path.display()))
}
