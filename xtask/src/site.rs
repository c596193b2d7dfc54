//! `cargo xtask site`: shows or changes the settings of an image or a card that exists, without building anything.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use imagegen::card::device::{Card, Destination};
use imagegen::card::devices::load_inventory;
use imagegen::card::refusal::Wish;
use imagegen::card::site::{SiteEditError, edit_card, edit_image, load_settings};
use imagegen::site::SiteChange;
use imagegen::site::edit::{EditError, show_settings};

use crate::progress::Bars;
use crate::site_args::SiteArgs;
use crate::usage::{Failure, UsageError, without_controls};
use crate::workspace::Workspace;
use crate::{flash, image, output};

/// What to change, and where.
#[derive(clap::Args)]
#[command(
    mut_arg("hostname", |arg| arg.help("What the device calls itself; what is not named stays as it is")),
    mut_arg("security", |arg| arg.help("How the network named by --ssid is secured, WPA2 without it")),
    mut_arg("ssh_key", |arg| arg.help("File with the SSH public keys that may log in as root, in place of those there are")),
    mut_arg("address", |arg| arg.help("The address of the Wi-Fi side with the length of its network, such as 192.168.1.5/24")),
)]
pub struct Args {
    /// Image, compressed or not, or card, such as /dev/sdX
    image: PathBuf,
    #[command(flatten)]
    site: SiteArgs,
    /// Print the settings, after the change if one is named, with secrets hidden
    #[arg(long)]
    show: bool,
    /// Allow disks that are built into this machine
    #[arg(long)]
    fixed_disk: bool,
}

/// Changes what is named, and shows the settings if that is asked for.
pub fn run(args: &Args) -> Result<()> {
    let change = args.site.parse_change()?;
    if change.is_empty() && !args.show {
        return Err(UsageError::new(
            "nothing is named that is to be changed",
            "for example --hostname NAME; --show prints the settings there are",
        )
        .into());
    }
    if !change.is_empty() {
        let changed = edit(args, &change)?;
        match changed.is_empty() {
            true => say!("{}: it is so already", args.image.display()),
            false => say!(
                "{}: changed {}",
                args.image.display(),
                without_controls(&changed.join(", "))
            ),
        }
    }
    if args.show {
        let settings = load_settings(&args.image).map_err(|error| failed(&args.image, error))?;
        output::print(without_controls(&show_settings(&settings)))?;
    }
    Ok(())
}

fn edit(args: &Args, change: &SiteChange) -> Result<Vec<String>> {
    let overlays = image::overlays(&Workspace::locate()?)?;
    let explain = |error| failed(&args.image, error);
    let metadata = fs::metadata(&args.image).map_err(|error| {
        let message = format!("cannot open {}: {error}", args.image.display());
        UsageError::new(
            message,
            "check the path; `cargo xtask image` makes an image",
        )
    })?;
    let time = seconds_since_1970();
    if !metadata.file_type().is_block_device() {
        return edit_image(&args.image, change, &overlays, time, &Bars::new()).map_err(explain);
    }
    let look = || load_inventory(Path::new("/"));
    let wish = Wish {
        image: None,
        fixed_disks: args.fixed_disk,
    };
    let destination =
        Destination::choose(&args.image, &flash::inventory()?, &wish).map_err(flash::refused)?;
    let mut card = Card::open(&destination, look)
        .map_err(|error| flash::not_opened(error, "run the same command as root"))?;
    let changed = edit_card(&mut card, change, &overlays, time).map_err(explain)?;
    Ok(changed)
}

fn failed(path: &Path, error: SiteEditError) -> anyhow::Error {
    let hint = error.hint();
    let usage = matches!(
        error,
        SiteEditError::Open { .. }
            | SiteEditError::NoImage(_)
            | SiteEditError::NoSshServer
            | SiteEditError::Edit(EditError::Missing(_))
    );
    let message = match &error {
        SiteEditError::Open { .. } => format!("{:#}", anyhow::Error::from(error)),
        _ => format!("{}: {:#}", path.display(), anyhow::Error::from(error)),
    };
    match usage {
        true => UsageError::new(message, hint).into(),
        false => Failure::new(message, hint).into(),
    }
}

/// The time that the changed files bear; FAT's own ends in 2107.
fn seconds_since_1970() -> u32 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
