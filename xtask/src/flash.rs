//! `cargo xtask flash`: puts an image on a card. What may be written to, and the writing, are imagegen's; this asks and tells.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use imagegen::card::device::{Card, Destination, OpenError};
use imagegen::card::devices::{Contents, Disk, Inventory, Transport, load_inventory};
use imagegen::card::image::{Image, ImageFault, examine};
use imagegen::card::journal::Mark;
use imagegen::card::refusal::{Bytes, Refusal, Wanted, Wish, is_card_like, judge};
use imagegen::card::write::{Job, Written, flash};
use imagegen::shell;

use crate::interrupt::Unfinished;
use crate::output;
use crate::progress::Bars;
use crate::usage::{Failure, UsageError, without_controls};
use crate::workspace::Workspace;

/// What to write, and where.
#[derive(clap::Args)]
pub struct Args {
    /// Image to write, compressed or not; its .bmap and .sha256 are used where they are beside it
    image: PathBuf,
    #[command(flatten)]
    card: CardArgs,
}

/// The card, and how it is dealt with.
#[derive(clap::Args)]
pub struct CardArgs {
    /// Disk to erase for it, such as /dev/sdX, or a file that stands for one; without it, the disks there are are listed
    device: Option<PathBuf>,
    /// Do not ask; needed where nobody is at a terminal
    #[arg(long)]
    yes: bool,
    /// Allow disks that are built into this machine
    #[arg(long)]
    fixed_disk: bool,
    /// Leave the card in its reader when it is whole
    #[arg(long)]
    no_eject: bool,
}

/// Writes an image to a card and reads it back.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let command = format!("flash {}", shell::word(&args.image));
    write_card(
        &args.image,
        &args.card,
        &command,
        &workspace,
        &Bars::new(),
        |_| Ok(()),
    )
}

/// Writes an image to a card and reads it back. `begun` is told of the card when nothing more is asked, and before anything is erased;
/// `command` is what was typed for this, without the card.
pub fn write_card(
    image: &Path,
    args: &CardArgs,
    command: &str,
    workspace: &Workspace,
    bars: &Bars,
    begun: impl FnOnce(&Card) -> Result<()>,
) -> Result<()> {
    let inventory = inventory()?;
    // A wrong disk is said at once, a small one when it is known how large the image is.
    if args.device.is_some() {
        choose(&inventory, args, image, 0, command)?;
    }
    let image = examine(image, bars).map_err(faulty)?;
    let destination = choose(&inventory, args, &image.path, image.map.image_size, command)?;
    let card = open(&destination, args, command)?;
    say!("{}", without_controls(&account(&destination, &image)));
    confirm(&destination, args)?;
    begun(&card)?;

    let begin = Instant::now();
    let job = Job {
        image: &image,
        card: &card,
        journals: &workspace.cache.join("flash"),
        mark: Mark::new(&seed()),
    };
    let resumable = Unfinished::resumable(format!(
        "{} is not whole; the same command goes on where it was",
        card.path().display()
    ));
    let written = flash(&job, bars).map_err(|error| {
        let hint = error.hint();
        Failure::new(format!("{:#}", anyhow::Error::from(error)), hint)
    })?;
    drop(resumable);
    finish(&card, args, &written, begin.elapsed());
    Ok(())
}

/// Refuses what an image of that size must not be written to; lists the disks there are if none is named.
pub fn check_destination(args: &CardArgs, image: &Path, size: u64, command: &str) -> Result<()> {
    choose(&inventory()?, args, image, size, command).map(drop)
}

fn choose(
    inventory: &Inventory,
    args: &CardArgs,
    image: &Path,
    size: u64,
    command: &str,
) -> Result<Destination> {
    let path = std::fs::canonicalize(image).unwrap_or_else(|_| image.to_owned());
    let wish = Wish {
        image: Some(Wanted { path: &path, size }),
        fixed_disks: args.fixed_disk,
    };
    match args.device.as_deref() {
        Some(device) => Ok(Destination::choose(device, inventory, &wish).map_err(refused)?),
        None => Err(unnamed(inventory, &wish, command)?.into()),
    }
}

/// Describes the disks of this machine.
pub fn inventory() -> Result<Inventory> {
    load_inventory(Path::new("/")).context("while looking for disks in /sys and /proc")
}

/// Lists the disks, and says what to type next.
fn unnamed(inventory: &Inventory, wish: &Wish<'_>, command: &str) -> Result<UsageError> {
    let disks = list(inventory, wish);
    output::print_with_failure(&disks)?;
    let hint = if disks.is_empty() {
        "no card and no stick is in this machine: put one in, and run the same command again"
            .to_owned()
    } else {
        format!("name one of these: cargo xtask {command} /dev/NAME")
    };
    Ok(UsageError::new("no disk is named", hint))
}

/// Says why a disk is not written to.
pub fn refused(refusal: Refusal) -> UsageError {
    UsageError::new(refusal.to_string(), refusal.hint())
}

/// What was named by mistake, and what is broken.
fn faulty(fault: ImageFault) -> anyhow::Error {
    let hint = fault.hint();
    let usage = matches!(
        fault,
        ImageFault::NotOurs { .. } | ImageFault::NoFile(_) | ImageFault::Read { .. }
    );
    let message = format!("{:#}", anyhow::Error::from(fault));
    if usage {
        UsageError::new(message, hint).into()
    } else {
        Failure::new(message, hint).into()
    }
}

fn open(destination: &Destination, args: &CardArgs, command: &str) -> Result<Card> {
    let look = || load_inventory(Path::new("/"));
    let as_root = || format!("as root: {}", as_root(args, command));
    Card::open(destination, look).map_err(|error| not_opened(error, &as_root()))
}

/// Says why a card could not be opened; `as_root` tells how to do it as root.
pub fn not_opened(error: OpenError, as_root: &str) -> anyhow::Error {
    match error {
        OpenError::Refused(refusal) => refused(refusal).into(),
        OpenError::Permission(path) => {
            Failure::new(format!("you may not write to {}", path.display()), as_root).into()
        }
        OpenError::Busy(_) => Failure::new(
            error.to_string(),
            "close what uses it; `lsblk` and `fuser` say what that is",
        )
        .into(),
        OpenError::Changed(_) => {
            Failure::new(error.to_string(), "run the same command again").into()
        }
        OpenError::Open { .. } => anyhow::Error::from(error),
    }
}

/// Root has no cargo of ours, but this program is all that is needed.
fn as_root(args: &CardArgs, command: &str) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "cargo xtask".into());
    let mut command = format!("sudo {} {command}", shell::word(&program));
    if let Some(path) = &args.device {
        command.push_str(&format!(" {}", shell::word(path)));
    }
    command
}

/// The disks that images can go on, with the reasons against some of them.
fn list(inventory: &Inventory, wish: &Wish<'_>) -> String {
    let shown = |disk: &&Disk| match disk.transport {
        // Some systems have dozens of them for programs that are files.
        Transport::Loop => judge(disk, wish).is_ok(),
        _ => wish.fixed_disks || is_card_like(disk),
    };
    let mut text = String::new();
    for disk in inventory.disks.iter().filter(shown) {
        text.push_str(&format!("{}\n", describe(disk)));
        text.extend(parts(disk));
        if let Err(refusal) = judge(disk, wish) {
            text.push_str(&format!("    refused: {refusal}\n"));
        }
    }
    without_controls(&text)
}

fn describe(disk: &Disk) -> String {
    let mut words = vec![
        disk.node().display().to_string(),
        Bytes(disk.size).to_string(),
        disk.transport.to_string(),
    ];
    words.extend(disk.model.clone());
    words.extend(
        disk.serial
            .as_ref()
            .map(|serial| format!("serial {serial}")),
    );
    words.extend(
        disk.backing_file
            .as_ref()
            .map(|file| file.display().to_string()),
    );
    words.join(", ")
}

fn parts(disk: &Disk) -> Vec<String> {
    let whole = Some(&disk.contents)
        .filter(|contents| contents.kind.is_some() || contents.label.is_some())
        .map(|contents| format!("    without partitions{}\n", contents_text(contents)));
    let partitions = disk.partitions.iter().map(|partition| {
        format!(
            "    {}, {}{}\n",
            partition.name,
            Bytes(partition.size),
            contents_text(&partition.contents)
        )
    });
    whole.into_iter().chain(partitions).collect()
}

fn contents_text(contents: &Contents) -> String {
    let kind = contents.kind.iter().map(|kind| format!(", {kind}"));
    let label = contents.label.iter().map(|label| format!(" \"{label}\""));
    kind.chain(label).collect()
}

/// What would be lost, and for what.
fn account(destination: &Destination, image: &Image) -> String {
    let erased = match destination {
        Destination::Disk(disk) => {
            format!("To be erased: {}\n{}", describe(disk), parts(disk).concat())
        }
        Destination::File { path, size } => format!(
            "To be overwritten: {}, a file of {}\n",
            path.display(),
            Bytes(*size)
        ),
    };
    let mut text = format!(
        "{erased}To be written: {}, {} of {}",
        image.path.display(),
        Bytes(image.map.mapped()),
        Bytes(image.map.image_size)
    );
    for path in &image.missing {
        let consequence = match path.extension() {
            Some(extension) if extension == "sha256" => "nobody knows whether the image is whole",
            _ => "all of the image is written, empty blocks too",
        };
        text.push_str(&format!("\nThere is no {}: {consequence}", path.display()));
    }
    text
}

/// Has the user type the name of what is erased; nobody does that by habit.
fn confirm(destination: &Destination, args: &CardArgs) -> Result<()> {
    if args.yes {
        return Ok(());
    }
    let name = destination.name();
    if !io::stdin().is_terminal() {
        return Err(UsageError::new(
            "nobody is here to be asked whether it may be erased",
            "if you are sure: --yes",
        )
        .into());
    }
    say_on!("Type {} to go on: ", without_controls(&name));
    io::stderr().flush()?;
    let mut typed = String::new();
    io::stdin()
        .lock()
        .read_line(&mut typed)
        .context("while asking")?;
    let typed = typed.trim();
    if typed == name || typed.strip_prefix("/dev/") == Some(&name) {
        return Ok(());
    }
    Err(Failure::new("nothing was written", format!("only typing {name} goes on")).into())
}

/// No other run of this program has the same, nor has one on another machine with the same card.
fn seed() -> Vec<u8> {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let machine = std::fs::read("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let times = format!("{} {}\n", since_1970.as_nanos(), std::process::id());
    [times.into_bytes(), machine].concat()
}

fn finish(card: &Card, args: &CardArgs, written: &Written, took: Duration) {
    card.reread_partitions();
    let ejected = !args.no_eject && card.eject();
    let earlier = match written.earlier {
        0 => String::new(),
        bytes => format!(" after {} of an earlier run", Bytes(bytes)),
    };
    say!(
        "{}: {} written{earlier}, all of it read back ({:.1} s)",
        card.path().display(),
        Bytes(written.bytes),
        took.as_secs_f64()
    );
    if ejected {
        say!("It is ejected: take it out.");
    } else if card.transport().is_some_and(|by| by != Transport::Loop) {
        say!("It is whole: take it out before anything mounts it.");
    }
}
