//! `cargo xtask lock`: chooses the packages of all images from today's signed lists and writes them down, a file for each architecture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use imagegen::board::Board;
use imagegen::lock::changes::{Change, changes};
use imagegen::lock::{Choice, Lock, LockedRelease};
use imagegen::overlays::Overlays;
use imagegen::recipe::Feature;
use imagegen::resolve::resolve;

use crate::progress::Bars;
use crate::source::{Offer, Security, Source};
use crate::usage::{self, Failure, UsageError};
use crate::workspace::Workspace;
use crate::{boards, fixes, image, output};

/// What to lock.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail if the lock is not current
    #[arg(long)]
    check: bool,
    /// Choose an architecture's packages without security updates, where the mirror has no list of them that matches its signature; its
    /// images say so (may be repeated)
    #[arg(long, value_name = "ARCH")]
    without_security: Vec<String>,
    #[command(flatten)]
    source: Source,
}

/// Locks every architecture that boards have. One that fails keeps its lock and does not keep the others from theirs.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let overlays = image::overlays(&workspace)?;
    let mut families: BTreeMap<&str, Vec<Board>> = BTreeMap::new();
    for board in boards::all(&workspace)? {
        let family = families.entry(board.arch.debian_name()).or_default();
        family.push(board);
    }
    let named = &args.without_security;
    if let Some(unknown) = named
        .iter()
        .find(|name| !families.contains_key(name.as_str()))
    {
        return Err(UsageError::new(
            format!("no board is {unknown}"),
            format!(
                "the boards' architectures are: {}",
                families.keys().copied().collect::<Vec<_>>().join(", ")
            ),
        )
        .into());
    }
    let mut unlocked = Vec::new();
    let mut outdated = Vec::new();
    let mut printed = Ok(());
    let bars = Bars::new();
    for (name, family) in &families {
        match lock_family(&workspace, family, &overlays, args, &bars) {
            Ok(outcome) => {
                // The others are locked whether or not anybody reads this.
                printed = printed.and_then(|()| output::print(&outcome.told));
                if outcome.changed {
                    outdated.push(*name);
                }
            }
            Err(error) => {
                say!("{name}: {}", usage::report_text(&error));
                unlocked.push(*name);
            }
        }
    }
    if !unlocked.is_empty() {
        return Err(Failure::new(
            format!("nothing was locked for {}", unlocked.join(", ")),
            "the reason is above; what was locked before stays as it is",
        )
        .into());
    }
    if args.check && !outdated.is_empty() {
        return Err(Failure::new(
            format!("the lock is not current for {}", outdated.join(", ")),
            "`cargo xtask lock` writes the packages of today",
        )
        .into());
    }
    printed
}

/// Returns the lock of the board's architecture, which its images are built from.
pub fn load(workspace: &Workspace, board: &Board) -> Result<Lock> {
    let architecture = board.arch.debian_name();
    let lock = find(workspace, architecture)?;
    lock.ok_or_else(|| {
        Failure::new(
            format!(
                "there is no lock for {architecture}, which the board `{}` is",
                board.id
            ),
            "`cargo xtask lock` writes it from the signed lists of a mirror",
        )
        .into()
    })
}

/// What became of a family's lock.
struct Outcome {
    /// Whether it was not what today's lists come to.
    changed: bool,
    /// What to say of it.
    told: String,
}

fn lock_family(
    workspace: &Workspace,
    family: &[Board],
    overlays: &Overlays,
    args: &Args,
    bars: &Bars,
) -> Result<Outcome> {
    let architecture = family[0].arch.debian_name();
    // A lock that cannot be read says so here, before it is written over.
    let old = find(workspace, architecture)?;
    let fetcher = args.source.fetcher(workspace, bars)?;
    let security = match args
        .without_security
        .iter()
        .any(|name| name == architecture)
    {
        true => Security::LeftOut,
        false => Security::Wanted,
    };
    let offer = args.source.offer_for(&fetcher, family, security)?;
    let new = choose(&offer, family, overlays, old.as_ref())?;
    let changes = changes(old.as_ref(), &new);
    // Packages that are the same may have been chosen with security updates in view or not.
    let same_view = |old: &Lock| old.has_security() == new.has_security();
    if old.as_ref().is_some_and(same_view) && changes.is_empty() {
        return Ok(Outcome {
            changed: false,
            told: format!("{architecture}: nothing changed\n"),
        });
    }
    let fixes = old.map_or_else(Vec::new, |old| fixes::tell(&fetcher, &old, &new));
    if !args.check {
        write(workspace, &new)?;
    }
    let mut lines = vec![format!("{architecture}: {}", summary(&changes))];
    lines.extend(changes.iter().map(ToString::to_string));
    lines.extend(fixes);
    Ok(Outcome {
        changed: true,
        told: lines.join("\n") + "\n",
    })
}

fn choose(
    offer: &Offer,
    family: &[Board],
    overlays: &Overlays,
    old: Option<&Lock>,
) -> Result<Lock> {
    let releases = LockedRelease::of_all(&offer.releases);
    if let Some(old) = old {
        old.check_not_older(&releases)?;
    }
    let mut choices = Vec::new();
    for board in family {
        for features in variants(board) {
            let names: Vec<String> = features
                .iter()
                .map(|name| format!(" with {name}"))
                .collect();
            let image = format!("{}{}", board.id, names.concat());
            let request = overlays.recipe.request(board, &features);
            let resolution = resolve(&offer.index, &request)
                .with_context(|| format!("while choosing packages for {image}"))?;
            choices.push(Choice {
                image,
                request,
                resolution,
            });
        }
    }
    Ok(Lock::of_choices(
        family[0].arch.debian_name(),
        releases,
        &choices,
    )?)
}

/// Every set of features that an image of the board can have.
fn variants(board: &Board) -> Vec<BTreeSet<Feature>> {
    let boards = [Some(board.clone()), board.as_gadget()];
    boards
        .into_iter()
        .flatten()
        .flat_map(|board| {
            let mut with_ssh = board.features.clone();
            with_ssh.insert(Feature::Ssh);
            [board.features, with_ssh]
        })
        .collect()
}

fn summary(changes: &[Change]) -> String {
    let count = |wanted: fn(&Change) -> bool| changes.iter().filter(|c| wanted(c)).count();
    format!(
        "{} added, {} removed, {} changed",
        count(|change| matches!(change, Change::Added(_))),
        count(|change| matches!(change, Change::Removed(_))),
        count(|change| matches!(change, Change::Replaced { .. })),
    )
}

/// Returns where the lock of an architecture is.
pub fn path_of(workspace: &Workspace, architecture: &str) -> PathBuf {
    workspace.locks().join(format!("{architecture}.toml"))
}

/// Returns the lock of an architecture, where there is one.
pub fn find(workspace: &Workspace, architecture: &str) -> Result<Option<Lock>> {
    let path = path_of(workspace, architecture);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("while reading {}", path.display()))?,
    };
    let lock = Lock::parse(&text, architecture)
        .with_context(|| format!("while reading {}", path.display()))?;
    Ok(Some(lock))
}

/// Writes the file whole or not at all.
fn write(workspace: &Workspace, lock: &Lock) -> Result<()> {
    let path = path_of(workspace, lock.architecture());
    let folder = workspace.locks();
    let write = || -> Result<()> {
        fs::create_dir_all(&folder)?;
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(&folder)?;
        file.write_all(lock.to_string().as_bytes())?;
        file.persist(&path)?;
        Ok(())
    };
    write().with_context(|| format!("while writing {}", path.display()))
}
