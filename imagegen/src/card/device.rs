//! A card, or a file that stands for one, opened so that nobody else writes to it.
//!
//! A block device is opened with `O_EXCL`, which the kernel refuses while any of it is mounted, swapped to or part of another device
//! (open(2)), and locked, which keeps udev from looking at it half-written. Reading back goes past the page cache: what was written a moment
//! ago would otherwise come from memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, ioctl};
use thiserror::Error;

use super::devices::{DeviceNumber, Disk, Inventory, Located, Transport};
use super::image::beside;
use super::refusal::{Refusal, Wish, judge};
use crate::make::disk::BLOCK_MAP;
use crate::make::fat::change::Storage;

/// `BLKRRPART` of linux/fs.h: read the partition table again.
const REREAD_PARTITIONS: Opcode = 0x125f;

/// `CDROMEJECT` of linux/cdrom.h; disks pass it on as SCSI's START STOP UNIT.
const EJECT: Opcode = 0x5309;

/// What direct input and output is aligned to, on every disk there is.
const ALIGNMENT: usize = 4096;

/// What a name that the user gave stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A disk.
    Disk(Box<Disk>),
    /// A file that stands for one.
    File {
        /// Its path, with no link in it.
        path: PathBuf,
        /// Bytes it has.
        size: u64,
    },
}

/// Why a card was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It must not be written to.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel or another program has it.
    #[error("{} is in use by another program", .0.display())]
    Busy(PathBuf),
    /// Disks belong to root and to a group.
    #[error("you may not write to {}", .0.display())]
    Permission(PathBuf),
    /// It is another one than a moment ago.
    #[error("{} changed while it was looked at", .0.display())]
    Changed(PathBuf),
    /// Anything else.
    #[error("cannot open {}", path.display())]
    Open {
        /// The card.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
}

/// A card that is open and nobody else's.
#[derive(Debug)]
pub struct Card {
    file: File,
    path: PathBuf,
    size: u64,
    identity: String,
    /// `None` for a file.
    transport: Option<Transport>,
}

impl Destination {
    /// Finds out what a name stands for, and refuses what must not be written to.
    pub fn choose(
        path: &Path,
        inventory: &Inventory,
        wish: &Wish<'_>,
    ) -> Result<Destination, Refusal> {
        let metadata = fs::metadata(path).map_err(|_| Refusal::Missing(path.to_owned()))?;
        if let Some(image) = wish.image
            && fs::metadata(image.path)
                .is_ok_and(|image| (image.dev(), image.ino()) == (metadata.dev(), metadata.ino()))
        {
            return Err(Refusal::Image(path.to_owned()));
        }
        if metadata.is_file() {
            choose_file(path, metadata.len(), inventory, wish)
        } else if metadata.file_type().is_block_device() {
            choose_disk(path, DeviceNumber::of(metadata.rdev()), inventory, wish)
        } else {
            Err(Refusal::NoDisk(path.to_owned()))
        }
    }

    /// What it is called when the user is asked, and has to be typed.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Disk(disk) => disk.name.clone(),
            Self::File { path, .. } => {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            }
        }
    }
}

/// Finds the disk with a number, and refuses what must not be written to.
pub fn choose_disk(
    path: &Path,
    number: DeviceNumber,
    inventory: &Inventory,
    wish: &Wish<'_>,
) -> Result<Destination, Refusal> {
    match inventory.locate(number) {
        None => Err(Refusal::NoDisk(path.to_owned())),
        Some(Located::Partition(partition, disk)) => Err(Refusal::Partition {
            partition: partition.node(),
            whole: disk.node(),
        }),
        Some(Located::Disk(disk)) => {
            judge(disk, wish)?;
            Ok(Destination::Disk(Box::new(disk.clone())))
        }
    }
}

fn choose_file(
    path: &Path,
    size: u64,
    inventory: &Inventory,
    wish: &Wish<'_>,
) -> Result<Destination, Refusal> {
    let path = fs::canonicalize(path).map_err(|_| Refusal::Missing(path.to_owned()))?;
    let shown = inventory
        .disks
        .iter()
        .find(|disk| disk.backing_file.as_deref() == Some(&path));
    if let Some(disk) = shown {
        return Err(Refusal::Shown {
            file: path,
            device: disk.node(),
        });
    }
    if beside(&path, BLOCK_MAP).exists() {
        return Err(Refusal::AnotherImage(path));
    }
    match wish.image {
        Some(image) if size < image.size => Err(Refusal::TooSmall {
            name: path.display().to_string(),
            size,
            needed: image.size,
            file: true,
        }),
        _ => Ok(Destination::File { path, size }),
    }
}

impl Card {
    /// Opens what was chosen for writing. `look` describes the disks there are once it is open: a card that was swapped since it was chosen is
    /// not the one that the user is asked about.
    pub fn open(
        destination: &Destination,
        look: impl FnOnce() -> io::Result<Inventory>,
    ) -> Result<Card, OpenError> {
        let (path, identity, transport) = match destination {
            Destination::Disk(disk) => (disk.node(), disk.identity(), Some(disk.transport)),
            Destination::File { path, .. } => (path.clone(), path.display().to_string(), None),
        };
        let exclusively = match transport {
            Some(_) => OFlags::EXCL,
            None => OFlags::empty(),
        };
        let open = || -> io::Result<(File, u64)> {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(flags(exclusively | OFlags::CLOEXEC))
                .open(&path)?;
            file.try_lock().map_err(io::Error::from)?;
            let size = file.seek(SeekFrom::End(0))?;
            Ok((file, size))
        };
        let explain = |err: io::Error| match Errno::from_io_error(&err) {
            Some(Errno::BUSY) => OpenError::Busy(path.clone()),
            // Somebody else has the lock.
            None if err.kind() == io::ErrorKind::WouldBlock => OpenError::Busy(path.clone()),
            Some(Errno::ACCESS | Errno::PERM) => OpenError::Permission(path.clone()),
            Some(Errno::ROFS) => Refusal::ReadOnly(destination.name()).into(),
            Some(Errno::NOMEDIUM) => Refusal::Empty(destination.name()).into(),
            _ => OpenError::Open {
                path: path.clone(),
                err,
            },
        };
        let (file, size) = open().map_err(explain)?;
        let same = match destination {
            Destination::File { size: expected, .. } => size == *expected,
            Destination::Disk(disk) => {
                let number = DeviceNumber::of(file.metadata().map_err(explain)?.rdev());
                let inventory = look().map_err(explain)?;
                size == disk.size && inventory.locate(number) == Some(Located::Disk(disk))
            }
        };
        if !same {
            return Err(OpenError::Changed(path));
        }
        Ok(Card {
            file,
            path,
            size,
            identity,
            transport,
        })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What tells it from another card, as far as is known.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// How it is connected; a file is not.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.transport
    }

    /// Whether it is a disk, not a file.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        self.transport.is_some()
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Returns once everything written is on the card.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Has the kernel read the partition table that is on it by now. Files have none to the kernel, nor have some loop devices.
    pub fn reread_partitions(&self) {
        if self.is_disk()
            && let Err(err) = self.reread()
        {
            tracing::debug!(path = %self.path.display(), %err, "the kernel did not read the partition table again");
        }
    }

    /// Ejects the card where that is customary: from USB readers and sticks, so that nothing mounts and changes it. A slot of the machine's own
    /// needs none. Returns whether it did.
    pub fn eject(&self) -> bool {
        if self.transport != Some(Transport::Usb) {
            return false;
        }
        match self.stop() {
            Ok(()) => true,
            Err(err) => {
                tracing::debug!(path = %self.path.display(), %err, "the reader does not eject");
                false
            }
        }
    }

    #[expect(unsafe_code, reason = "no safe wrapper for this request")]
    fn reread(&self) -> io::Result<()> {
        // SAFETY: linux/fs.h defines this number, and it takes no argument.
        unsafe { ioctl(&self.file, NoArg::<REREAD_PARTITIONS>::new()) }?;
        Ok(())
    }

    #[expect(unsafe_code, reason = "no safe wrapper for this request")]
    fn stop(&self) -> io::Result<()> {
        // SAFETY: linux/cdrom.h defines this number, and it takes no argument.
        unsafe { ioctl(&self.file, NoArg::<EJECT>::new()) }?;
        Ok(())
    }
}

impl Storage for Card {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Reads a card past the page cache.
pub(super) struct ReadBack {
    file: File,
    buffer: Vec<u8>,
    /// Whether the file is open for direct input; some file systems have none.
    direct: bool,
}

impl ReadBack {
    /// Opens a card a second time; everything written to it has to be on it already.
    pub(super) fn open(card: &Card) -> io::Result<Self> {
        // By the descriptor, because by now the name may be another card's.
        let path = format!("/proc/self/fd/{}", card.file.as_raw_fd());
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(flags(OFlags::DIRECT))
            .open(&path);
        let (file, direct) = match direct {
            Ok(file) => (file, true),
            Err(err) if is_invalid(&err) => (File::open(&path)?, false),
            Err(err) => return Err(err),
        };
        Ok(ReadBack {
            file,
            buffer: Vec::new(),
            direct,
        })
    }

    /// Returns `size` bytes from an offset.
    pub(super) fn read(&mut self, at: u64, size: usize) -> io::Result<&[u8]> {
        let before = (at % ALIGNMENT as u64) as usize;
        let whole = (before + size).next_multiple_of(ALIGNMENT);
        if self.buffer.len() < whole + ALIGNMENT {
            self.buffer.resize(whole + ALIGNMENT, 0);
        }
        // At most one less than the alignment, which there is room for.
        let begin = self.buffer.as_ptr().align_offset(ALIGNMENT);
        let part = &mut self.buffer[begin..begin + whole];
        if self.direct
            && let Err(err) = fill(&self.file, part, at - before as u64, before + size)
        {
            if !is_invalid(&err) {
                return Err(err);
            }
            // Some file systems take the flag and then do not read.
            self.direct = false;
            let flags = rustix::fs::fcntl_getfl(&self.file)?;
            rustix::fs::fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
        }
        if !self.direct {
            fadvise(
                &self.file,
                at,
                std::num::NonZero::new(size as u64),
                Advice::DontNeed,
            )?;
            fill(&self.file, part, at - before as u64, before + size)?;
        }
        Ok(&part[before..before + size])
    }
}

/// Reads at least `needed` bytes; what is beyond the end of a file cannot be read.
fn fill(file: &File, buffer: &mut [u8], at: u64, needed: usize) -> io::Result<()> {
    let mut filled = 0;
    while filled < needed {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

fn is_invalid(err: &io::Error) -> bool {
    Errno::from_io_error(err) == Some(Errno::INVAL)
}

fn flags(flags: OFlags) -> i32 {
    // The kernel's flags are an `int`.
    flags.bits().cast_signed()
}
