//! A finished image, read back whole: partition table, boot partition, root and initramfs.
//!
//! Partitions are told by their numbers, not by their types, so that an image with a wrong type can still be looked into.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use thiserror::Error;

use crate::inspect::fat::{Fat, FatReadError};
use crate::inspect::squashfs::{Found, SquashfsReadError, read_squashfs};
use crate::inspect::window::Window;
use crate::mbr::{MbrError, Partition, PartitionTable, SECTOR_SIZE};
use crate::plan::disk::{BOOT_PARTITION, ROOT_PARTITION};
use crate::tree::Tree;

/// An image.
#[derive(Debug)]
pub struct Image {
    /// Bytes of all of it.
    pub size: u64,
    /// Its partitions.
    pub table: PartitionTable,
    /// The boot partition, or why it cannot be read.
    pub boot: Result<BootPartition, Unreadable>,
    /// The root, or why it cannot be read.
    pub root: Result<Found, Unreadable>,
}

/// What is on the boot partition.
#[derive(Clone, Debug)]
pub struct BootPartition {
    /// Clusters of the FAT32.
    pub clusters: u32,
    /// Bytes that the FAT32 says it has.
    pub size: u64,
    /// The files.
    pub tree: Tree,
}

/// Why a part cannot be read, with all the causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

/// Why something is no image at all.
#[derive(Debug, Error)]
pub enum ImageReadError {
    /// The file cannot be read.
    #[error("failed to read the image")]
    Read(#[from] io::Error),
    /// The file has less than a sector.
    #[error("it is too short for a partition table")]
    TooShort,
    /// It has no partition table.
    #[error("failed to read the partition table")]
    PartitionTable(#[from] MbrError),
}

/// Reads an image that is not compressed.
pub fn read_image(mut file: File) -> Result<Image, ImageReadError> {
    let size = file.seek(SeekFrom::End(0))?;
    let table = read_table(&mut file)?;
    Ok(Image {
        size,
        boot: read_boot(&file, partition(&table, BOOT_PARTITION)),
        root: read_root(&file, partition(&table, ROOT_PARTITION)),
        table,
    })
}

/// Reads the boot partition alone of an image that is not compressed.
pub fn read_boot_partition(mut file: File) -> Result<BootPartition, Unreadable> {
    let table = read_table(&mut file).map_err(|err| Unreadable::of_error(&err))?;
    read_boot(&file, partition(&table, BOOT_PARTITION))
}

impl BootPartition {
    /// The bytes of a file, whatever case its name is written in.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<&[u8]> {
        self.tree
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(path))
            .and_then(|(_, node)| node.bytes())
            .map(AsRef::as_ref)
    }

    /// The text of a file; what is no UTF-8 in it is replaced.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        self.bytes(path)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

impl Unreadable {
    /// Tells an error with all its causes.
    pub fn of_error(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let words = error.to_string();
            // Some libraries' errors have nothing to say.
            if !words.is_empty() {
                text.push_str(&format!(": {words}"));
            }
            cause = error.source();
        }
        Self(text)
    }

    fn no_partition(number: u8) -> Self {
        Self(format!("there is no partition {number}"))
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn read_table(file: &mut File) -> Result<PartitionTable, ImageReadError> {
    let mut sector = [0; SECTOR_SIZE as usize];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut sector)
        .map_err(|err| match err.kind() {
            io::ErrorKind::UnexpectedEof => ImageReadError::TooShort,
            _ => ImageReadError::Read(err),
        })?;
    Ok(PartitionTable::decode(&sector)?)
}

fn partition(table: &PartitionTable, number: u8) -> Option<Partition> {
    table.partitions[usize::from(number) - 1]
}

fn window(file: &File, partition: Partition) -> Window<&File> {
    Window::new(file, partition.offset(), partition.size())
}

fn read_boot(file: &File, partition: Option<Partition>) -> Result<BootPartition, Unreadable> {
    let partition = partition.ok_or_else(|| Unreadable::no_partition(BOOT_PARTITION))?;
    let read = || -> Result<BootPartition, FatReadError> {
        let mut fat = Fat::open(BufReader::new(window(file, partition)), 0)?;
        Ok(BootPartition {
            clusters: fat.cluster_count(),
            size: fat.size(),
            tree: fat.tree()?,
        })
    };
    read().map_err(|err| Unreadable::of_error(&err))
}

fn read_root(file: &File, partition: Option<Partition>) -> Result<Found, Unreadable> {
    let partition = partition.ok_or_else(|| Unreadable::no_partition(ROOT_PARTITION))?;
    read_squashfs(BufReader::new(window(file, partition)))
        .map_err(|err: SquashfsReadError| Unreadable::of_error(&err))
}
