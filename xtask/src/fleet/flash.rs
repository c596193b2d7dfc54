//! `cargo xtask fleet flash`: card after card, each for the next device that the ledger has no whole card of.
//!
//! ```text
//! a device begun and not done, else the first never begun -- its image -- "started" -- write, read back -- "done" -- the next
//! ```
//!
//! Whoever writes a device's card has its bundle locked, so that several readers can be at work. The image of a device always has the
//! same bytes, so a card that was begun and is put in again is gone on with.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use imagegen::card::device::Card;
use imagegen::fleet::base::Base;
use imagegen::fleet::ledger::{Event, Ledger, LedgerError, State, rfc3339};
use imagegen::shell;

use super::images::{device_named, has_image, make, open_base};
use super::list::load;
use super::manifest::{Device, Manifest};
use super::{Place, bundle_file, scratch};
use crate::flash::{self, CardArgs};
use crate::interrupt::Unfinished;
use crate::progress::Bars;
use crate::usage::{Failure, UsageError, without_controls};
use crate::workspace::Workspace;

/// What to write, and where.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Write the card of this device, whether it has one already or not, and no other
    #[arg(long = "device", value_name = "NAME")]
    only: Option<String>,
    #[command(flatten)]
    card: CardArgs,
}

/// A device whose card nobody else writes.
struct Claim<'a> {
    device: &'a Device,
    /// Locked for as long as it is open.
    _bundle: File,
}

/// Writes cards until every device has one, or nobody is there to change them.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let folder = args.place.folder(&workspace);
    let manifest = Manifest::load(&folder, &load(&args.place.fleet)?)?;
    let ledger = Ledger::of_folder(&folder);
    let bars = Bars::new();
    let mut bases: BTreeMap<String, Base> = BTreeMap::new();
    loop {
        let events = ledger.load().map_err(told)?;
        let claim = match &args.only {
            Some(name) => Some(claim_named(&folder, &manifest, name)?),
            None => claim_next(&folder, &manifest, &events)?,
        };
        let Some(claim) = claim else {
            say!("{}", finished(&manifest, &events));
            return Ok(());
        };
        let target = &claim.device.image;
        if !bases.contains_key(target) {
            has_image(&manifest, claim.device)?;
            // One board's boot partition in memory is enough.
            bases.clear();
            bases.insert(target.clone(), open_base(&folder, &manifest, target)?);
        }
        let station = Station {
            args,
            workspace: &workspace,
            folder: &folder,
            manifest: &manifest,
            ledger: &ledger,
            bars: &bars,
        };
        station.write(&claim, &bases[target], &events)?;
        if args.only.is_some() || !io::stdin().is_terminal() {
            return Ok(());
        }
        if !another()? {
            return Ok(());
        }
    }
}

/// Where cards are written.
struct Station<'a> {
    args: &'a Args,
    workspace: &'a Workspace,
    folder: &'a Path,
    manifest: &'a Manifest,
    ledger: &'a Ledger,
    bars: &'a Bars,
}

impl Station<'_> {
    fn write(
        &self,
        claim: &Claim<'_>,
        base: &Base,
        events: &BTreeMap<String, Event>,
    ) -> Result<()> {
        let device = claim.device;
        let command = format!("fleet flash {}", shell::word(&self.args.place.fleet));
        // A wrong disk is said before an image is made for it.
        flash::check_destination(&self.args.card, base.path(), base.size(), &command)?;
        say!("{}", without_controls(&self.account(device, events)));
        let work = scratch(self.folder);
        fs::create_dir_all(&work).with_context(|| format!("while creating {}", work.display()))?;
        let image = Made::new(&work, device);
        make(base, self.folder, device, &image.path)?;
        let mut card_identity = String::new();
        flash::write_card(
            &image.path,
            &self.args.card,
            &command,
            self.workspace,
            self.bars,
            |card: &Card| {
                card_identity = card.identity().trim().to_owned();
                self.note(device, State::Started, &card_identity)
            },
        )?;
        self.note(device, State::Done, &card_identity)?;
        say!("{} is done", device.name);
        Ok(())
    }

    fn note(&self, device: &Device, state: State, card: &str) -> Result<()> {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let image = self.manifest.images.get(&device.image);
        self.ledger
            .append(&Event {
                time: rfc3339(since_1970.as_secs()),
                state,
                device: device.name.clone(),
                serial: device.serial.clone(),
                mac: device.mac.clone(),
                image: image.map(|image| image.sha256.clone()).unwrap_or_default(),
                bundle: device.bundle.clone(),
                card: card.to_owned(),
            })
            .map_err(told)
    }

    /// Says whose card this will be.
    fn account(&self, device: &Device, events: &BTreeMap<String, Event>) -> String {
        let total = self.manifest.devices.len();
        let done = self
            .manifest
            .devices
            .iter()
            .filter(|device| is_done(device, events))
            .count();
        let mut words = vec![device.image.clone()];
        words.extend(
            device
                .serial
                .iter()
                .map(|serial| format!("serial number {serial}")),
        );
        words.extend(
            device
                .mac
                .iter()
                .map(|mac| format!("hardware address {mac}")),
        );
        if events
            .get(&device.name)
            .is_some_and(|event| event.state == State::Started)
        {
            words.push("begun before".to_owned());
        }
        format!(
            "Device: {} ({}); {done} of {total} are done",
            device.name,
            words.join(", ")
        )
    }
}

fn is_done(device: &Device, events: &BTreeMap<String, Event>) -> bool {
    events
        .get(&device.name)
        .is_some_and(|event| event.state == State::Done)
}

/// Takes the device that was begun and not done, or else the first that was never begun; passes over those that others are at.
fn claim_next<'a>(
    folder: &Path,
    manifest: &'a Manifest,
    events: &BTreeMap<String, Event>,
) -> Result<Option<Claim<'a>>> {
    let begun = |device: &&Device| {
        events
            .get(&device.name)
            .is_some_and(|event| event.state == State::Started)
    };
    let never = |device: &&Device| !events.contains_key(&device.name);
    let devices = &manifest.devices;
    for device in devices
        .iter()
        .filter(begun)
        .chain(devices.iter().filter(never))
    {
        if let Some(claim) = claim(folder, device)? {
            // Another may have written its card since the ledger was read.
            let now = Ledger::of_folder(folder).load().map_err(told)?;
            if now.get(&device.name) == events.get(&device.name) {
                return Ok(Some(claim));
            }
        }
    }
    Ok(None)
}

fn claim_named<'a>(folder: &Path, manifest: &'a Manifest, name: &str) -> Result<Claim<'a>> {
    let device = device_named(manifest, name)?;
    claim(folder, device)?.ok_or_else(|| {
        let what = format!("the card of {name} is being written by another run of this command");
        Failure::new(what, "wait for it, or name another device").into()
    })
}

/// Returns nothing if somebody else has the device.
fn claim<'a>(folder: &Path, device: &'a Device) -> Result<Option<Claim<'a>>> {
    let path = folder.join(bundle_file(&device.name));
    let bundle = File::open(&path).map_err(|error| {
        Failure::new(
            format!("cannot read {}: {error}", path.display()),
            "make it again with `cargo xtask fleet build`",
        )
    })?;
    match bundle.try_lock() {
        Ok(()) => Ok(Some(Claim {
            device,
            _bundle: bundle,
        })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("while locking {}", path.display()))
        }
    }
}

fn finished(manifest: &Manifest, events: &BTreeMap<String, Event>) -> String {
    let total = manifest.devices.len();
    let done: Vec<&Device> = manifest
        .devices
        .iter()
        .filter(|device| is_done(device, events))
        .collect();
    let old = |device: &&&Device| {
        let image = manifest
            .images
            .get(&device.image)
            .map(|image| &image.sha256);
        events
            .get(&device.name)
            .is_some_and(|event| event.bundle != device.bundle || Some(&event.image) != image)
    };
    let others = match total - done.len() {
        0 => String::new(),
        others => format!("; {others} are being written by other runs of this command"),
    };
    let stale = match done.iter().filter(old).count() {
        0 => String::new(),
        old => format!(
            "; {old} from an older image or older settings (--device NAME writes one again)"
        ),
    };
    format!(
        "{} of {total} devices have their cards{others}{stale}",
        done.len()
    )
}

/// The image of a device for the time that its card is written: it holds keys, and is removed however this ends.
struct Made {
    path: PathBuf,
    _unfinished: Vec<Unfinished>,
}

impl Made {
    fn new(work: &Path, device: &Device) -> Self {
        let path = work.join(format!("{}.img", device.name));
        let unfinished = Self::files(&path)
            .iter()
            .map(|path| Unfinished::scratch(path))
            .collect();
        Self {
            path,
            _unfinished: unfinished,
        }
    }

    fn files(path: &Path) -> [PathBuf; 3] {
        ["", ".bmap", ".sha256"].map(|suffix| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            name.into()
        })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in Self::files(&self.path) {
            // What is not there was never made.
            let _ = fs::remove_file(path);
        }
    }
}

/// Waits for the next card.
fn another() -> Result<bool> {
    say_on!("Put the next card in, and press Enter; q ends: ");
    io::stderr().flush()?;
    let mut typed = String::new();
    let read = io::stdin()
        .lock()
        .read_line(&mut typed)
        .context("while asking")?;
    Ok(read > 0 && !typed.trim().eq_ignore_ascii_case("q"))
}

fn told(error: LedgerError) -> anyhow::Error {
    let hint = match &error {
        LedgerError::Line { line, .. } => format!(
            "somebody changed it: put line {line} right or take it out, and keep the others"
        ),
        LedgerError::File { path, .. } => format!(
            "check the permissions of {}, and the room there",
            path.display()
        ),
    };
    let line = matches!(error, LedgerError::Line { .. });
    let message = format!("{:#}", anyhow::Error::from(error));
    match line {
        true => UsageError::new(message, hint).into(),
        false => Failure::new(message, hint).into(),
    }
}
