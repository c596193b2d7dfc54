//! `cargo xtask fleet build`: an image for each board, with nothing of any site in it, and a bundle for each device.
//!
//! Bundles are made by all processors and written as they are made, so that a thousand devices take no more memory than ten.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use imagegen::board::Board;
use imagegen::fleet::bundle::{SiteFiles, encode_bundle};
use imagegen::fleet::keys::derive_keys;
use imagegen::fleet::{Device, Fleet, Target};
use imagegen::make::disk::ImageFormat;
use imagegen::overlays::Overlays;
use imagegen::plan::site::plan_site;
use imagegen::recipe::Feature;
use imagegen::sha256::Sha256;
use imagegen::site::address::UplinkAddress;
use imagegen::site::agent::AgentOptions;
use imagegen::site::{CountryCode, Hostname, SiteOptions};

use super::list::{Checked, checked, load};
use super::manifest::{self, Manifest, write_private};
use super::{Place, base_file, bundle_file, whole_file};
use crate::progress::Bars;
use crate::source::Source;
use crate::usage::Failure;
use crate::workspace::Workspace;
use crate::{boards, image, output};

/// What to build.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Make the bundles only; the boards' images are made when they are asked for
    #[arg(long)]
    bundles_only: bool,
    /// The agent's program, where it was built before
    #[arg(long, value_name = "FILE", hide = true)]
    agent: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

/// Builds everything and prints the folder.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let sources = load(&args.place.fleet)?;
    let Checked { mut fleet, boards } = checked(&workspace, &sources)?;
    let folder = args.place.folder(&workspace);
    fs::create_dir_all(&folder).map_err(|error| {
        Failure::new(
            format!("cannot create {}: {error}", folder.display()),
            "check the path, or write elsewhere with --output DIR",
        )
    })?;
    let overlays = image::overlays(&workspace)?;
    let targets = targets(&fleet, &boards)?;
    let bars = Bars::new();

    let begin = Instant::now();
    let step = bars.step("making bundles");
    derive_keys(&mut fleet);
    let devices = write_bundles(&fleet, &targets, &overlays, &folder)?;
    drop(step);
    say!(
        "{} bundle{} ({:.1} s)",
        devices.len(),
        if devices.len() == 1 { "" } else { "s" },
        begin.elapsed().as_secs_f64()
    );
    let images = if args.bundles_only {
        BTreeMap::new()
    } else {
        build_images(&workspace, args, &targets, &folder, &bars)?
    };
    let manifest = Manifest {
        list: sources.digest().to_string(),
        images,
        devices,
    };
    let earlier = Manifest::load_earlier(&folder);
    manifest.save(&folder)?;
    for note in earlier
        .iter()
        .flat_map(|earlier| outdated(&folder, earlier, &manifest))
    {
        say!("note: {note}");
    }
    output::print_line(folder.display())?;
    Ok(())
}

/// Tells which files of an earlier build are in the folder and are of no use any more: whoever puts one on a card gets old settings.
fn outdated(folder: &Path, earlier: &Manifest, manifest: &Manifest) -> Vec<String> {
    let there = |name: String| folder.join(&name).exists().then_some(name);
    let (mut unlisted, mut older) = (Vec::new(), Vec::new());
    for device in &earlier.devices {
        let image = there(whole_file(&device.name));
        match manifest.device(&device.name) {
            None => unlisted.extend(there(bundle_file(&device.name)).into_iter().chain(image)),
            Some(current) if current.bundle != device.bundle => older.extend(image),
            Some(_) => {}
        }
    }
    [
        (
            unlisted,
            "of devices that are no longer in the list, with their keys; remove them",
        ),
        (
            older,
            "with earlier settings; `cargo xtask fleet images` makes them anew",
        ),
    ]
    .into_iter()
    .filter(|(files, _)| !files.is_empty())
    .map(|(files, what)| {
        format!(
            "in {} are files {what}: {}",
            folder.display(),
            files.join(", ")
        )
    })
    .collect()
}

/// What the images of a target are built from.
struct Base {
    board: Board,
    site: SiteOptions,
}

/// Finds out which images are wanted. Whether there is an SSH server is the image's matter, who may log in the device's.
fn targets(fleet: &Fleet, boards: &BTreeMap<String, Board>) -> Result<BTreeMap<Target, Base>> {
    let mut targets: BTreeMap<Target, Vec<&Device>> = BTreeMap::new();
    for device in &fleet.devices {
        targets
            .entry(device.target.clone())
            .or_default()
            .push(device);
    }
    targets
        .into_iter()
        .map(|(target, devices)| {
            let board = boards
                .get(&target.board)
                .context("a board of the list is not there")?;
            let mut board = match target.gadget {
                true => boards::as_gadget(board)?,
                false => board.clone(),
            };
            if devices.iter().any(|device| device.site.ssh_keys.is_some()) {
                board.features.insert(Feature::Ssh);
            }
            let site = neutral(common_country(&devices));
            Ok((target, Base { board, site }))
        })
        .collect()
}

/// The kernel is told the country before there is a site, if it is the same for all.
fn common_country(devices: &[&Device]) -> Option<CountryCode> {
    let mut countries = devices.iter().map(|device| device.site.country.as_ref());
    let first = countries.next().flatten();
    first
        .filter(|first| countries.all(|country| country == Some(first)))
        .cloned()
}

/// A site that says nothing.
fn neutral(country: Option<CountryCode>) -> SiteOptions {
    SiteOptions {
        networks: Vec::new(),
        country,
        hostname: Hostname::default(),
        ssh_keys: None,
        address: UplinkAddress::Dhcp,
        agent: AgentOptions::default(),
    }
}

fn write_bundles(
    fleet: &Fleet,
    targets: &BTreeMap<Target, Base>,
    overlays: &Overlays,
    folder: &Path,
) -> Result<Vec<manifest::Device>> {
    let write = |device: &Device| -> Result<manifest::Device> {
        let base = targets
            .get(&device.target)
            .context("a device has no image")?;
        let planned = plan_site(&base.board, overlays, &device.site)?;
        let files: SiteFiles = planned
            .into_iter()
            .filter_map(|(name, planned)| Some((name, planned.node.bytes()?.clone())))
            .collect();
        let bundle = encode_bundle(&files)?;
        write_private(&folder.join(bundle_file(device.name.as_str())), &bundle)?;
        Ok(manifest::Device {
            name: device.name.to_string(),
            image: device.target.to_string(),
            serial: device.serial.as_ref().map(ToString::to_string),
            mac: device.mac.as_ref().map(ToString::to_string),
            bundle: Sha256::of(&bundle).to_string(),
        })
    };
    imagegen::make::parallel::map(fleet.devices.iter().collect(), write)
}

fn build_images(
    workspace: &Workspace,
    args: &Args,
    targets: &BTreeMap<Target, Base>,
    folder: &Path,
    bars: &Bars,
) -> Result<BTreeMap<String, manifest::Image>> {
    let mut images = BTreeMap::new();
    for (target, base) in targets {
        let name = target.to_string();
        let path = folder.join(base_file(&name));
        let outcome = image::build(
            workspace,
            &image::Job {
                board: &base.board,
                site: &base.site,
                source: &args.source,
                output: &path,
                format: ImageFormat::Img,
                agent: args.agent.as_deref(),
            },
            bars,
        )?;
        let image = manifest::Image {
            sha256: image_digest(&path)?,
            time: outcome.prepared.lock.time()?,
        };
        say!("{}", path.display());
        images.insert(name, image);
    }
    Ok(images)
}

/// The digest that is beside an image.
pub(super) fn image_digest(path: &Path) -> Result<String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".sha256");
    let beside = PathBuf::from(beside);
    let text = fs::read_to_string(&beside)
        .with_context(|| format!("while reading {}", beside.display()))?;
    let word = text.split_ascii_whitespace().next().unwrap_or_default();
    let digest: Sha256 = word
        .parse()
        .with_context(|| format!("while reading {}", beside.display()))?;
    Ok(digest.to_string())
}
