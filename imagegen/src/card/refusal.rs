//! Which disks may be written to: a pure judgement on what is known of a disk, with a reason and a next step for each that may not.
//!
//! The kernel has the last word: it refuses to open exclusively what is in use (see `device`).

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::devices::{Disk, Purpose, Transport};
use crate::shell;

/// Folders that a running system is in.
const SYSTEM_FOLDERS: [&str; 8] = [
    "/", "/usr", "/var", "/etc", "/home", "/nix", "/efi", "/boot",
];

/// What the user wants to do with a disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// The image.
    pub image: Option<Wanted<'a>>,
    /// Whether disks that are built in may be written to.
    pub fixed_disks: bool,
}

/// An image that is to be on a disk.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its file, with no link in the path.
    pub path: &'a Path,
    /// Bytes it has on the card.
    pub size: u64,
}

/// Why a disk, or what was named as one, is not written to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is nothing of that name.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// A folder, a terminal, ...
    #[error("{} is neither a disk nor a file", .0.display())]
    NoDisk(PathBuf),
    /// A partition.
    #[error("{} is a partition; an image goes on the whole disk", partition.display())]
    Partition {
        /// What was named.
        partition: PathBuf,
        /// The disk it is on.
        whole: PathBuf,
    },
    /// The running system is on it.
    #[error("{disk} is a disk of this system: {device} is mounted at {}", at.display())]
    System {
        /// The disk.
        disk: String,
        /// What of it.
        device: String,
        /// Where.
        at: PathBuf,
    },
    /// Swap.
    #[error("{disk} is a disk of this system: memory is swapped out to {device}")]
    Swap {
        /// The disk.
        disk: String,
        /// What of it.
        device: String,
    },
    /// Part of another device, or shown by it.
    #[error("{disk} is in use: {device} is part of {holder}")]
    Held {
        /// The disk.
        disk: String,
        /// What of it.
        device: String,
        /// The device that it is part of.
        holder: String,
    },
    /// Mounted.
    #[error("{disk} is in use: {device} is mounted at {}", at.display())]
    Mounted {
        /// The disk.
        disk: String,
        /// What of it.
        device: String,
        /// Where.
        at: PathBuf,
    },
    /// A drive for discs.
    #[error("{0} is a drive for optical discs")]
    Optical(String),
    /// No card in a reader, no file behind a loop device.
    #[error("there is nothing in {0}")]
    Empty(String),
    /// Write-protected.
    #[error("{0} is write-protected")]
    ReadOnly(String),
    /// Built in.
    #[error("{disk} is built into this machine ({transport}), not a card or a stick")]
    Fixed {
        /// The disk.
        disk: String,
        /// How it is connected.
        transport: Transport,
    },
    /// Too small.
    #[error("{name} is too small by {}: it has {}, the image {}", Bytes(needed - size), Bytes(*size), Bytes(*needed))]
    TooSmall {
        /// The disk or the file.
        name: String,
        /// Bytes it has.
        size: u64,
        /// Bytes of the image.
        needed: u64,
        /// Whether it is a file, which can be made larger.
        file: bool,
    },
    /// The image itself.
    #[error("{} is the image itself", .0.display())]
    Image(PathBuf),
    /// Another image, which the builder's files beside it give away.
    #[error("{} is an image, with its block map beside it, and not a card", .0.display())]
    AnotherImage(PathBuf),
    /// A file that is shown as a disk.
    #[error("{} is what {} shows", file.display(), device.display())]
    Shown {
        /// The file.
        file: PathBuf,
        /// The loop device.
        device: PathBuf,
    },
}

/// A number of bytes for people, in the unit that cards are sold in where it is large.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

/// Says why a disk may not be written to, worst first.
pub fn judge(disk: &Disk, wish: &Wish<'_>) -> Result<(), Refusal> {
    judge_uses(disk)?;
    let name = disk.name.clone();
    if disk.transport == Transport::Optical {
        return Err(Refusal::Optical(name));
    }
    if disk.size == 0 {
        return Err(Refusal::Empty(name));
    }
    if disk.read_only {
        return Err(Refusal::ReadOnly(name));
    }
    if !wish.fixed_disks && !is_card_like(disk) {
        return Err(Refusal::Fixed {
            disk: name,
            transport: disk.transport,
        });
    }
    let Some(image) = wish.image else {
        return Ok(());
    };
    if disk.backing_file.as_deref() == Some(image.path) {
        return Err(Refusal::Image(disk.node()));
    }
    if disk.size < image.size {
        return Err(Refusal::TooSmall {
            name,
            size: disk.size,
            needed: image.size,
            file: false,
        });
    }
    Ok(())
}

/// Whether people put images on such disks. Slots say that their cards are not removable, and so do USB disks.
#[must_use]
pub fn is_card_like(disk: &Disk) -> bool {
    match disk.transport {
        Transport::Usb | Transport::Sd | Transport::Loop => true,
        Transport::Emmc
        | Transport::Nvme
        | Transport::Sata
        | Transport::Virtual
        | Transport::Other => disk.removable,
        Transport::Optical => false,
    }
}

fn judge_uses(disk: &Disk) -> Result<(), Refusal> {
    let found = disk.uses.iter().map(|found| {
        let (disk, device) = (disk.name.clone(), found.device.clone());
        match &found.purpose {
            Purpose::Mount(at) if is_system(at) => Refusal::System {
                disk,
                device,
                at: at.clone(),
            },
            Purpose::Swap => Refusal::Swap { disk, device },
            Purpose::Held(holder) => Refusal::Held {
                disk,
                device,
                holder: holder.clone(),
            },
            Purpose::Mount(at) => Refusal::Mounted {
                disk,
                device,
                at: at.clone(),
            },
        }
    });
    match found.min_by_key(gravity) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

/// A disk with the system on it is not to be called one that only has to be unmounted.
fn gravity(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::System { .. } => 0,
        Refusal::Swap { .. } => 1,
        Refusal::Held { .. } => 2,
        _ => 3,
    }
}

fn is_system(at: &Path) -> bool {
    at.starts_with("/boot") || SYSTEM_FOLDERS.iter().any(|folder| at == Path::new(folder))
}

impl Refusal {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let another = "`cargo xtask flash IMAGE` lists the disks that images can go on".to_owned();
        match self {
            Self::Missing(path) if path.starts_with("/dev") => {
                format!("is the card in? {another}")
            }
            Self::Missing(path) => format!(
                "a file that stands for a card has to be there: `truncate -s 4G {}` makes one",
                shell::word(path)
            ),
            Self::NoDisk(_) | Self::System { .. } | Self::Swap { .. } | Self::Optical(_) => another,
            Self::Partition { whole, .. } => {
                format!("if you mean all of that disk: {}", whole.display())
            }
            Self::Held { holder, .. } if holder.starts_with("loop") => {
                format!("if it is the right disk, detach {holder} first: losetup -d /dev/{holder}")
            }
            Self::Held { holder, .. } => {
                format!(
                    "if it is the right disk, stop {holder} first (cryptsetup, vgchange, mdadm)"
                )
            }
            Self::Mounted { at, .. } => format!(
                "look at what is there; if it may go: umount {}",
                shell::word(at)
            ),
            Self::Empty(_) => "put a card in".to_owned(),
            Self::ReadOnly(_) => {
                "the small switch on the card's side locks it; a worn-out card locks itself"
                    .to_owned()
            }
            Self::Fixed { .. } => {
                format!("{another}; if you do mean a built-in disk, --fixed-disk allows it")
            }
            Self::TooSmall {
                name, file: true, ..
            } => format!(
                "make it as large as a card: truncate -s 4G {}",
                shell::word(Path::new(name))
            ),
            Self::TooSmall { .. } => "take a larger card".to_owned(),
            Self::Image(_) => "name the disk that the image is to go on".to_owned(),
            Self::AnotherImage(_) => {
                "the image comes first and the card second; `cp` copies an image".to_owned()
            }
            Self::Shown { device, .. } => {
                format!(
                    "write to {0}, or detach it: losetup -d {0}",
                    device.display()
                )
            }
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (1_000_000_000_000, "TB"),
            (1_000_000_000, "GB"),
            (1_000_000, "MB"),
            (1_000, "kB"),
        ];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}
