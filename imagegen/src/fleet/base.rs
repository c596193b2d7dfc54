//! The image of a board, from which each device's own is made: the same but for the files of `site/`.
//!
//! The copy shares the board's blocks on the disk where the file system can do that, and holes stay holes. Of the boot partition only what
//! differs is written, so that the shared blocks stay shared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::ioctl_ficlone;
use thiserror::Error;

use super::bundle::SiteFiles;
use crate::inspect::image::{Unreadable, read_boot_partition};
use crate::make::disk::{DiskError, Draft, Papers, finish_disk};
use crate::make::fat::{FatError, FatLabel, FatOptions, write_fat32};
use crate::make::image::BOOT_LABEL;
use crate::mbr::{MbrError, Partition, PartitionTable, SECTOR_SIZE};
use crate::plan::disk::{BOOT_PARTITION, Extent, ROOT_PARTITION};
use crate::tree::{Node, Tree, TreeError};

/// What file systems give out.
const BLOCK: usize = 4096;

/// What is copied at a time where blocks cannot be shared.
const CHUNK: usize = 1 << 20;

/// Where a squashfs says how many bytes it has (its superblock, `bytes_used`).
const SQUASHFS_SIZE_AT: u64 = 40;

/// The image of a board.
#[derive(Debug)]
pub struct Base {
    path: PathBuf,
    file: File,
    size: u64,
    signature: u32,
    boot: Partition,
    root: Extent,
    /// What is on the boot partition, without `site/`.
    tree: Tree,
    time: u32,
}

/// Why there is no image for a device.
#[derive(Debug, Error)]
pub enum BaseError {
    /// The board's image cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// The board's image is none.
    #[error("{} is no image of ours: {reason}", path.display())]
    NotOurs {
        /// The image.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The site's files cannot be on a card.
    #[error("the device's files do not fit the boot partition")]
    Site(#[from] TreeError),
    /// Nor can these.
    #[error("failed to make the boot partition")]
    Fat(#[from] FatError),
    /// The image cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Nor copied.
    #[error("failed to write {}", path.display())]
    Write {
        /// The image.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
}

impl Base {
    /// Opens the image of a board, not compressed; `time` is that of everything on it, in seconds since 1970.
    pub fn open(path: &Path, time: u32) -> Result<Self, BaseError> {
        let read = |err| BaseError::Read {
            path: path.to_owned(),
            err,
        };
        let not_ours = |reason: String| BaseError::NotOurs {
            path: path.to_owned(),
            reason,
        };
        let mut file = File::open(path).map_err(read)?;
        let mut sector = [0; SECTOR_SIZE as usize];
        file.read_exact(&mut sector).map_err(read)?;
        let table =
            PartitionTable::decode(&sector).map_err(|err: MbrError| not_ours(err.to_string()))?;
        let partition = |number: u8| table.partitions[usize::from(number) - 1];
        let (Some(boot), Some(root)) = (partition(BOOT_PARTITION), partition(ROOT_PARTITION))
        else {
            return Err(not_ours("it has not both partitions".to_owned()));
        };
        let mut used = [0; 8];
        file.read_exact_at(&mut used, root.offset() + SQUASHFS_SIZE_AT)
            .map_err(read)?;
        let size = file.seek(SeekFrom::End(0)).map_err(read)?;
        let contents = read_boot_partition(file.try_clone().map_err(read)?);
        let mut tree = contents
            .map_err(|Unreadable(reason)| not_ours(reason))?
            .tree;
        tree.remove_subtree("site");
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            signature: table.signature,
            boot,
            root: Extent {
                offset: root.offset(),
                size: u64::from_le_bytes(used).min(root.size()),
            },
            tree,
            time,
        })
    }

    /// Bytes of the image, which are those of each device's.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes the image of a device, with its block map and its checksum; an older one of that name is replaced in one step.
    pub fn write(&self, draft: Draft, site: &SiteFiles) -> Result<(), BaseError> {
        let path = draft.destination().to_owned();
        let failed = |err| BaseError::Write {
            path: path.clone(),
            err,
        };
        self.copy(draft.image()).map_err(failed)?;
        let mut tree = self.tree.clone();
        for (name, bytes) in site {
            tree.insert(format!("site/{name}"), Node::file(0o644, bytes.clone()))?;
        }
        let options = FatOptions {
            size: self.boot.size(),
            first_sector: self.boot.first_sector,
            volume_id: self.signature,
            label: FatLabel::new(BOOT_LABEL)?,
            time: self.time,
        };
        let mut section = Changes::of(draft.image(), &self.boot);
        let boot_used = write_fat32(&tree, &options, &mut section)?;
        section.clear_rest().map_err(failed)?;
        let used = [
            Extent {
                offset: 0,
                size: SECTOR_SIZE,
            },
            Extent {
                offset: self.boot.offset(),
                size: boot_used,
            },
            self.root,
        ];
        Ok(finish_disk(draft, self.size, &used, |_, _| Papers::new())?)
    }

    /// Copies all of it, by sharing its blocks if that can be.
    fn copy(&self, to: &File) -> io::Result<()> {
        if ioctl_ficlone(to, &self.file).is_ok() {
            return Ok(());
        }
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < self.size {
            let part = &mut buffer[..CHUNK.min((self.size - at) as usize)];
            self.file.read_exact_at(part, at)?;
            let mut place = at;
            for block in part.chunks(BLOCK) {
                if block.iter().any(|byte| *byte != 0) {
                    to.write_all_at(block, place)?;
                }
                place += block.len() as u64;
            }
            at = place;
        }
        to.set_len(self.size)
    }

    /// Returns the path of the board's image.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A partition that has something on it, written so that it ends up as if it had been empty; only what differs is written.
struct Changes<'a> {
    file: &'a File,
    offset: u64,
    size: u64,
    position: u64,
    /// What has been written: the end of each stretch by its beginning.
    written: BTreeMap<u64, u64>,
}

impl<'a> Changes<'a> {
    fn of(file: &'a File, partition: &Partition) -> Self {
        Self {
            file,
            offset: partition.offset(),
            size: partition.size(),
            position: 0,
            written: BTreeMap::new(),
        }
    }

    /// Makes zeros of everything that was not written. Holes are read, and stay.
    fn clear_rest(&mut self) -> io::Result<()> {
        let mut at = 0;
        for (begin, end) in std::mem::take(&mut self.written) {
            self.clear(at, begin)?;
            at = at.max(end);
        }
        self.clear(at, self.size)
    }

    fn clear(&mut self, mut at: u64, end: u64) -> io::Result<()> {
        let zeros = vec![0; CHUNK];
        while at < end {
            let part = CHUNK.min((end - at) as usize);
            self.put(at, &zeros[..part])?;
            at += part as u64;
        }
        Ok(())
    }

    /// Writes those blocks that are not so already.
    fn put(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut old = vec![0; bytes.len()];
        let place = self.offset + at;
        self.file.read_exact_at(&mut old, place)?;
        let mut done = 0;
        while done < bytes.len() {
            // To the next block of the file, so that whole ones are compared.
            let block = BLOCK - (place as usize + done) % BLOCK;
            let end = (done + block).min(bytes.len());
            if old[done..end] != bytes[done..end] {
                self.file
                    .write_all_at(&bytes[done..end], place + done as u64)?;
            }
            done = end;
        }
        Ok(())
    }
}

impl Write for Changes<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let part = &bytes[..bytes.len().min(room).min(CHUNK)];
        self.put(self.position, part)?;
        let end = self.position + part.len() as u64;
        match self.written.range_mut(..=self.position).next_back() {
            Some((_, last)) if *last >= self.position => *last = end.max(*last),
            _ => {
                self.written.insert(self.position, end);
            }
        }
        self.position = end;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Changes<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.position = target.filter(|at| *at <= self.size).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "seek out of the partition")
        })?;
        Ok(self.position)
    }
}
