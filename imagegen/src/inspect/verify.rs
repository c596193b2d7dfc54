//! Looks through a finished image for what keeps a board from starting, or what should never be on a card.
//!
//! A check is a row of a table: an id that does not change, why it matters, what to do next, and a function from what was read to what is
//! wrong. Nothing is repaired, and nothing outside of the image and its board's description is looked at.

mod boot;
mod disk;
mod initramfs;
mod programs;
mod root;
mod units;

use std::collections::BTreeSet;

use crate::board::Board;
use crate::inspect::config_txt::{BootChoice, Machine, choose_boot};
use crate::inspect::cpio::read_initramfs;
use crate::inspect::image::{BootPartition, Image, Unreadable};
use crate::inspect::model::{Model, model_named};
use crate::inspect::squashfs::Found;

/// Something that is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check that found it.
    pub id: &'static str,
    /// Where: `partition 1`, or a path that begins with `boot/`, `root/` or `initramfs/`.
    pub place: String,
    /// What is there.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do about it.
    pub next: &'static str,
}

/// A check.
struct Check {
    id: &'static str,
    why: &'static str,
    next: &'static str,
    look: fn(&Subject<'_>) -> Vec<Seen>,
}

/// What a check saw, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    place: String,
    what: String,
}

/// What checks look at.
struct Subject<'a> {
    image: &'a Image,
    board: &'a Board,
    /// What each model that the board is for would load.
    choices: Vec<Choice>,
    /// The first initramfs of the first model, which all models share.
    initramfs: Option<Result<Found, Unreadable>>,
}

/// What a model would load.
struct Choice {
    model: Option<&'static Model>,
    name: String,
    boot: BootChoice,
}

/// Returns the ids of all checks, in the order they are made.
pub fn check_ids() -> impl Iterator<Item = &'static str> {
    checks().map(|check| check.id)
}

/// Whether a boot partition is a board's: it does not say so, but no two boards have the same device trees.
#[must_use]
pub fn is_for(boot: &BootPartition, board: &Board) -> bool {
    let wanted: BTreeSet<&str> = board
        .kernel
        .device_trees
        .iter()
        .filter_map(|path| path.rsplit('/').next())
        .collect();
    let there: BTreeSet<&str> = boot
        .tree
        .entries("")
        .map(|(name, _)| name)
        .filter(|name| name.ends_with(".dtb"))
        .collect();
    wanted == there
}

/// Looks through an image built for a board.
#[must_use]
pub fn verify(image: &Image, board: &Board) -> Vec<Finding> {
    let subject = Subject::of(image, board);
    checks()
        .flat_map(|check| {
            (check.look)(&subject).into_iter().map(|seen| Finding {
                id: check.id,
                place: seen.place,
                what: seen.what,
                why: check.why,
                next: check.next,
            })
        })
        .collect()
}

fn checks() -> impl Iterator<Item = &'static Check> {
    [
        disk::CHECKS,
        boot::CHECKS,
        initramfs::CHECKS,
        root::CHECKS,
        programs::CHECKS,
    ]
    .into_iter()
    .flatten()
}

impl<'a> Subject<'a> {
    fn of(image: &'a Image, board: &'a Board) -> Self {
        let choices = match &image.boot {
            Ok(boot) => choices(boot, board),
            Err(_) => Vec::new(),
        };
        let mut subject = Subject {
            image,
            board,
            choices,
            initramfs: None,
        };
        let path = subject.initramfs_path();
        let bytes = path.and_then(|path| subject.boot()?.bytes(path));
        subject.initramfs =
            bytes.map(|bytes| read_initramfs(bytes).map_err(|err| Unreadable::of_error(&err)));
        subject
    }

    /// The boot partition, if it can be read; that it cannot is a check's business.
    fn boot(&self) -> Option<&'a BootPartition> {
        self.image.boot.as_ref().ok()
    }

    fn root(&self) -> Option<&'a Found> {
        self.image.root.as_ref().ok()
    }

    /// Where the initramfs should be on the boot partition, if there is to be one.
    fn initramfs_path(&self) -> Option<&str> {
        let first = self.choices.first()?.boot.initramfs.first();
        first.map(String::as_str)
    }

    fn initramfs(&self) -> Option<&Found> {
        self.initramfs.as_ref()?.as_ref().ok()
    }

    /// The names of models, where what they load is the matter.
    fn models_that(&self, matter: impl Fn(&Choice) -> bool) -> Vec<&str> {
        self.choices
            .iter()
            .filter(|choice| matter(choice))
            .map(|choice| choice.name.as_str())
            .collect()
    }

    /// Files that models would load and that are not there.
    fn missing(&self, paths: impl Fn(&BootChoice) -> Vec<String>) -> Vec<Seen> {
        let Some(boot) = self.boot() else {
            return Vec::new();
        };
        let mut wanted: Vec<String> = self
            .choices
            .iter()
            .flat_map(|choice| paths(&choice.boot))
            .filter(|path| boot.bytes(path).is_none())
            .collect();
        wanted.sort();
        wanted.dedup();
        let models = |path: &String| {
            self.models_that(|choice| paths(&choice.boot).contains(path))
                .join(", ")
        };
        wanted
            .iter()
            .map(|path| Seen {
                place: format!("boot/{path}"),
                what: format!("is not there; loaded by: {}", models(path)),
            })
            .collect()
    }
}

fn choices(boot: &BootPartition, board: &Board) -> Vec<Choice> {
    let read = |path: &str| boot.text(path);
    board
        .models
        .iter()
        .map(|name| {
            let model = model_named(name);
            Choice {
                model,
                name: name.clone(),
                boot: choose_boot(&read, &Machine::of(model)),
            }
        })
        .collect()
}

fn seen(place: impl Into<String>, what: impl Into<String>) -> Seen {
    Seen {
        place: place.into(),
        what: what.into(),
    }
}
