//! Puts the finished parts together into a disk image; the only place that writes the final file.
//!
//! The image grows in a temporary file beside the final one and gets its name when it is complete and on the disk, and so do its block map
//! (`.bmap`) and its checksum (`.sha256`). An interrupted or failed build therefore never leaves half an image under that name. The files
//! are readable by their owner alone, because the site settings in the image hold the network's key. Holes stay holes.

mod block_map;
mod draft;
mod format;
pub(crate) mod packed;
mod pieces;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use sha2::Digest;
use thiserror::Error;

pub(crate) use self::block_map::{KnownRange, block_map};
pub(crate) use self::draft::{BLOCK_MAP, CHECKSUM, create_locked, sweep};
pub use self::draft::{CYCLONEDX, Draft, LICENCES, PROVENANCE, Papers, SPDX};
pub use self::format::{ImageFormat, ParseFormatError};
pub use self::packed::{XZ_PRESET, ZSTD_LEVEL};
use crate::make::fat::change::Storage;
use crate::make::fat::{FatError, FatLabel, FatOptions, write_fat32};
use crate::make::parallel::processors;
use crate::mbr::{PartitionTable, SECTOR_SIZE};
use crate::plan::boot::COMMAND_LINE_FILE;
use crate::plan::disk::{BOOT_PARTITION, DiskLayout, Extent};
use crate::sha256::Sha256;
use crate::tree::Tree;

/// Each thread that packs takes about 100 MB.
const THREADS_MAX: usize = 4;

/// The directory on the boot partition that people change.
pub(crate) const SITE_DIRECTORY: &str = "site";

/// What goes into an image.
#[derive(Clone, Debug)]
pub struct DiskParts<'a> {
    /// The files of the boot partition.
    pub boot: &'a Tree,
    /// The name of the boot partition.
    pub boot_label: FatLabel,
    /// Time of everything on the boot partition, seconds since 1970.
    pub time: u32,
    /// The root file system, as it goes into its partition.
    pub root: &'a [u8],
}

/// Why an image was not written. Nothing is left behind.
#[derive(Debug, Error)]
pub enum DiskError {
    /// Something that is not a file has the name.
    #[error("{} is not a regular file, so no image is written there", .0.display())]
    NotAFile(PathBuf),
    /// There is no such directory, or no permission.
    #[error("failed to create a temporary file in {}", directory.display())]
    Create {
        /// Where.
        directory: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// No space is left.
    #[error("no space left in {}: the image takes up to {needed} bytes", directory.display())]
    NoSpace {
        /// Where.
        directory: PathBuf,
        /// Size of the image.
        needed: u64,
    },
    /// Writing failed otherwise.
    #[error("failed to write {}", path.display())]
    Write {
        /// The image.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// The boot partition could not be made.
    #[error("failed to make the boot partition")]
    Boot(#[source] FatError),
    /// The layout was made for a smaller root.
    #[error("the root file system of {size} bytes does not fit its partition of {partition} bytes")]
    RootTooLarge {
        /// Bytes of the root.
        size: u64,
        /// Bytes of its partition.
        partition: u64,
    },
}

impl DiskError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotAFile(_) => Some("name a file to be made: --output FILE"),
            Self::Create { .. } | Self::Write { .. } => {
                Some("check the permissions there, or write elsewhere with --output FILE")
            }
            Self::NoSpace { .. } => Some("make room there, or write elsewhere with --output FILE"),
            Self::Boot(_) | Self::RootTooLarge { .. } => None,
        }
    }
}

/// Writes an image; an older one of that name is replaced in one step. `papers` is told the name and the digest of the file, and says what is
/// to lie beside it.
pub fn write_disk(
    draft: Draft,
    layout: &DiskLayout,
    parts: &DiskParts<'_>,
    papers: impl FnOnce(&str, Sha256) -> Papers,
) -> Result<(), DiskError> {
    let path = draft.destination().to_owned();
    let directory = draft.directory().to_owned();
    let explain = |err| explain_write(err, &path, &directory, layout.total);
    let used = write_parts(draft.image(), layout, parts).map_err(|err| match err {
        PartError::Io(err) | PartError::Boot(FatError::Write(err)) => explain(err),
        PartError::Boot(err) => DiskError::Boot(err),
        PartError::RootTooLarge { size, partition } => DiskError::RootTooLarge { size, partition },
    })?;
    finish_disk(draft, layout.total, &used, papers)
}

/// Describes an image of `size` bytes that has all its bytes, of which the `used` ones matter, and gives it its name.
pub(crate) fn finish_disk(
    draft: Draft,
    size: u64,
    used: &[Extent],
    papers: impl FnOnce(&str, Sha256) -> Papers,
) -> Result<(), DiskError> {
    let path = draft.destination().to_owned();
    let directory = draft.directory().to_owned();
    let explain = |err| explain_write(err, &path, &directory, size);
    let (block_map, digest) = describe(&draft, size, used).map_err(explain)?;
    let name = path.file_name().unwrap_or_default();
    let papers = papers(&name.to_string_lossy(), digest);
    finish_described(draft, size, papers, block_map, digest)
}

/// Gives its name to an image, compressed if that is its format, of which this is the block map and the digest of the file.
pub(crate) fn finish_described(
    draft: Draft,
    size: u64,
    mut papers: Papers,
    block_map: String,
    digest: Sha256,
) -> Result<(), DiskError> {
    let path = draft.destination().to_owned();
    let directory = draft.directory().to_owned();
    let name = path.file_name().unwrap_or_default();
    papers.insert(BLOCK_MAP, block_map);
    papers.insert(CHECKSUM, checksum_line(digest, name));
    draft
        .finish(&papers)
        .map_err(|err| explain_write(err, &path, &directory, size))
}

/// Makes the block map, and meanwhile the compressed image if there is to be one; returns the map and the digest of what gets the name. An
/// image that is not compressed is on its way to the disk at the same time, which takes as long as all the rest.
fn describe(draft: &Draft, size: u64, used: &[Extent]) -> io::Result<(String, Sha256)> {
    let image = draft.image();
    let pieces = cut(image, size);
    thread::scope(|scope| {
        let map = scope.spawn(|| {
            let cuts: Vec<u64> = pieces.iter().map(|piece| piece.offset).collect();
            let read_at = |part: &mut [u8], at| image.read_exact_at(part, at);
            block_map(size, used, &cuts, &[], read_at)
        });
        let sync = scope.spawn(|| draft.sync_named());
        let mut hash = Hashed::new(draft.packed());
        match draft.format().packing() {
            Some(packing) => packed::pack(
                packing,
                processors().min(THREADS_MAX),
                &pieces,
                |part, at| image.read_exact_at(part, at),
                &mut hash,
            )?,
            None => {
                let bytes = Bytes { file: image, at: 0 };
                io::copy(&mut BufReader::with_capacity(1 << 20, bytes), &mut hash)?;
            }
        }
        join(sync)?;
        Ok((join(map)?, hash.finish()))
    })
}

/// Where ranges of an image's block map begin, whether they are packed or not.
pub(crate) fn cuts(image: &File, size: u64) -> Vec<u64> {
    let pieces = cut(image, size).into_iter();
    pieces.map(|piece| piece.offset).collect()
}

fn cut(image: &File, size: u64) -> Vec<Extent> {
    let files = [COMMAND_LINE_FILE];
    pieces::cut(
        &ReadOnly(image),
        size,
        boot_offset(image),
        SITE_DIRECTORY,
        &files,
    )
}

/// Where the boot partition begins, if the image has one.
fn boot_offset(image: &File) -> Option<u64> {
    let mut sector = [0; SECTOR_SIZE as usize];
    image.read_exact_at(&mut sector, 0).ok()?;
    let table = PartitionTable::decode(&sector).ok()?;
    let partition = table.partitions[usize::from(BOOT_PARTITION) - 1]?;
    Some(partition.offset())
}

/// A file that is only looked at.
struct ReadOnly<'a>(&'a File);

impl Storage for ReadOnly<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, at)
    }

    fn write_all_at(&mut self, _bytes: &[u8], _at: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A line as `sha256sum --check` reads it. GNU coreutils marks a name with a backslash or a line feed by a backslash before the digest.
pub(crate) fn checksum_line(digest: Sha256, name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let escaped = name.replace('\\', "\\\\").replace('\n', "\\n");
    let mark = if escaped == name { "" } else { "\\" };
    format!("{mark}{digest}  {escaped}\n")
}

/// A file read from its beginning, whatever position it has for others.
struct Bytes<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Takes the digest of what passes, which may go on to a file.
pub(crate) struct Hashed<'a> {
    out: Option<&'a File>,
    hash: sha2::Sha256,
}

impl<'a> Hashed<'a> {
    pub(crate) fn new(out: Option<&'a File>) -> Self {
        Self::with_prefix(out, b"")
    }

    /// The prefix is in the digest, and does not go on.
    pub(crate) fn with_prefix(out: Option<&'a File>, prefix: &[u8]) -> Self {
        let hash = sha2::Sha256::new_with_prefix(prefix);
        Self { out, hash }
    }

    pub(crate) fn finish(self) -> Sha256 {
        Sha256(self.hash.finalize().into())
    }
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.out {
            Some(file) => file.write(bytes)?,
            None => bytes.len(),
        };
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn explain_write(err: io::Error, path: &Path, directory: &Path, size: u64) -> DiskError {
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::NoSpace {
            directory: directory.to_owned(),
            needed: size,
        },
        _ => DiskError::Write {
            path: path.to_owned(),
            err,
        },
    }
}

/// What can go wrong before it is known which file it was.
enum PartError {
    Io(io::Error),
    Boot(FatError),
    RootTooLarge { size: u64, partition: u64 },
}

impl From<io::Error> for PartError {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

/// Returns what of the image is in use, in order.
fn write_parts(
    mut file: &File,
    layout: &DiskLayout,
    parts: &DiskParts<'_>,
) -> Result<Vec<Extent>, PartError> {
    let root_size = parts.root.len() as u64;
    if root_size > layout.root.size {
        return Err(PartError::RootTooLarge {
            size: root_size,
            partition: layout.root.size,
        });
    }
    file.set_len(layout.total)?;
    file.write_all(&layout.partition_table().encode())?;

    let options = FatOptions {
        size: layout.boot.size,
        first_sector: layout.boot.first_sector(),
        volume_id: layout.signature.number(),
        label: parts.boot_label.clone(),
        time: parts.time,
    };
    let boot = Section::of(file, layout.boot)?;
    let boot_used = write_fat32(parts.boot, &options, boot).map_err(PartError::Boot)?;

    file.seek(SeekFrom::Start(layout.root.offset))?;
    file.write_all(parts.root)?;
    let used = [
        (0, SECTOR_SIZE),
        (layout.boot.offset, boot_used),
        (layout.root.offset, root_size),
    ];
    Ok(used.map(|(offset, size)| Extent { offset, size }).into())
}

/// A partition that looks like a file of its own; it cannot be left.
struct Section<'a> {
    file: BufWriter<&'a File>,
    extent: Extent,
    /// Kept here, because asking the buffer for it would empty the buffer.
    position: u64,
}

impl<'a> Section<'a> {
    fn of(mut file: &'a File, extent: Extent) -> io::Result<Self> {
        file.seek(SeekFrom::Start(extent.offset))?;
        Ok(Self {
            file: BufWriter::new(file),
            extent,
            position: 0,
        })
    }
}

impl Write for Section<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.extent.size - self.position).unwrap_or(usize::MAX);
        let written = self.file.write(&bytes[..room.min(bytes.len())])?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Section<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.extent.size.checked_add_signed(by),
        };
        let target = target.filter(|at| *at <= self.extent.size).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "seek out of the partition")
        })?;
        self.file
            .seek(SeekFrom::Start(self.extent.offset + target))?;
        self.position = target;
        Ok(target)
    }
}
