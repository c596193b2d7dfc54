//! Puts the finished parts together into a disk image; the only place that writes the final file.
//!
//! The image grows in a temporary file beside the final one and gets its name when it is complete and on the disk, and so do its block map
//! (`.bmap`) and its checksum (`.sha256`). An interrupted or failed build therefore never leaves half an image under that name. The files
//! are readable by their owner alone, because the site settings in the image hold the network's key. Holes stay holes.

mod block_map;
mod draft;
mod format;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use sha2::Digest;
use thiserror::Error;

pub(crate) use self::block_map::block_map;
pub(crate) use self::draft::{BLOCK_MAP, CHECKSUM};
pub use self::draft::{CYCLONEDX, Draft, LICENCES, PROVENANCE, Papers, SPDX};
pub use self::format::{ImageFormat, ParseFormatError, XZ_PRESET, ZSTD_LEVEL};
use self::format::{pack, packing_threads};
use crate::make::fat::{FatError, FatLabel, FatOptions, write_fat32};
use crate::mbr::SECTOR_SIZE;
use crate::plan::disk::{DiskLayout, Extent};
use crate::sha256::Sha256;
use crate::tree::Tree;

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
    let mut papers = papers(&name.to_string_lossy(), digest);
    papers.insert(BLOCK_MAP, block_map);
    papers.insert(CHECKSUM, checksum_line(digest, name));
    draft.finish(&papers).map_err(explain)
}

/// Makes the block map, and meanwhile the compressed image if there is to be one; returns the map and the digest of what gets the name. An
/// image that is not compressed is on its way to the disk at the same time, which takes as long as all the rest.
fn describe(draft: &Draft, size: u64, used: &[Extent]) -> io::Result<(String, Sha256)> {
    let image = draft.image();
    thread::scope(|scope| {
        let map = scope.spawn(|| block_map(size, used, |part, at| image.read_exact_at(part, at)));
        let sync = scope.spawn(|| draft.sync_named());
        let mut hash = Hashed {
            out: draft.packed(),
            hash: sha2::Sha256::new(),
        };
        let bytes = BufReader::with_capacity(1 << 20, Bytes { file: image, at: 0 });
        pack(draft.format(), packing_threads(), size, bytes, &mut hash)?;
        join(sync)?;
        Ok((join(map)?, Sha256(hash.hash.finalize().into())))
    })
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
struct Hashed<'a> {
    out: Option<&'a File>,
    hash: sha2::Sha256,
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
