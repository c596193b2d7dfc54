//! Reads files out of a FAT32 file system, as a board's firmware does with its boot partition.
//!
//! FAT32 only; names are compared without regard to case. Nothing in it is believed: chains are followed no further
//! than there are clusters, and everything has to lie inside the file.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

use thiserror::Error;

use crate::mbr::{MbrError, PartitionKind, PartitionTable, SECTOR_SIZE};
use crate::tree::{Node, Tree, TreeError};

const RECORD_SIZE: usize = 32;
const DIRECTORY_BYTES_MAX: usize = 65_536 * RECORD_SIZE;
const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
pub(crate) const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
const FIRST_CLUSTER: u32 = 2;
const CLUSTER_MASK: u32 = 0x0fff_ffff;
const END_OF_CHAIN: u32 = 0x0fff_fff8;

/// A FAT32 that can be read from.
#[derive(Debug)]
pub struct Fat<R> {
    source: R,
    data_offset: u64,
    cluster_size: usize,
    root: u32,
    /// The allocation table: the next cluster of each cluster.
    next: Vec<u32>,
    /// Bytes from the beginning of the file system to the end of the image; no file is larger.
    available: u64,
    /// Bytes that the boot sector says there are.
    size: u64,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatEntry {
    /// The long name, or the 8.3 one where there is no other.
    pub name: String,
    /// The 8.3 name.
    pub short_name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Bytes of a file.
    pub size: u32,
    first: u32,
}

/// Why something could not be read from a FAT32.
#[derive(Debug, Error)]
pub enum FatReadError {
    /// The image could not be read, or ends too early.
    #[error("failed to read the image")]
    Read(#[from] io::Error),
    /// The disk has no partition table that can be read.
    #[error("failed to read the partition table")]
    PartitionTable(#[source] MbrError),
    /// The disk has no boot partition.
    #[error("the image has no FAT32 partition")]
    NoPartition,
    /// The partition is something else.
    #[error("the boot partition is no FAT32: {0}")]
    NotFat32(&'static str),
    /// There is no such file.
    #[error("the boot partition has no /{0}")]
    Missing(String),
    /// The path leads to a directory, or through a file.
    #[error(
        "/{0} on the boot partition is not what it should be, a file where a directory is or the other way"
    )]
    WrongKind(String),
    /// The structure is broken.
    #[error("the FAT file system is damaged: {0}")]
    Damaged(&'static str),
    /// A name that cannot be a path.
    #[error("the boot partition has a name that cannot be")]
    Name(#[from] TreeError),
}

impl<R: Read + Seek> Fat<R> {
    /// Opens the first FAT32 partition of a disk image.
    pub fn open_image(mut image: R) -> Result<Self, FatReadError> {
        let mut sector = [0; SECTOR_SIZE as usize];
        image.seek(SeekFrom::Start(0))?;
        image.read_exact(&mut sector)?;
        let table = PartitionTable::decode(&sector).map_err(FatReadError::PartitionTable)?;
        let partition = table
            .first(PartitionKind::FAT32_LBA)
            .ok_or(FatReadError::NoPartition)?;
        Self::open(image, partition.offset())
    }

    /// Opens the file system that begins at an offset.
    pub fn open(mut source: R, offset: u64) -> Result<Self, FatReadError> {
        let mut sector = [0; SECTOR_SIZE as usize];
        source.seek(SeekFrom::Start(offset))?;
        source.read_exact(&mut sector)?;
        let boot = BootSector::decode(&sector)?;
        let available = source.seek(SeekFrom::End(0))?.saturating_sub(offset);
        // The table has to be inside the image, so that its memory is bounded by the image's size.
        let table_bytes = (u64::from(boot.clusters) + 2) * 4;
        if boot.fat_offset + table_bytes > available {
            return Err(FatReadError::Damaged(
                "its allocation table lies outside of the image",
            ));
        }
        source.seek(SeekFrom::Start(offset + boot.fat_offset))?;
        let mut table = Vec::new();
        source.by_ref().take(table_bytes).read_to_end(&mut table)?;
        let next = table
            .chunks_exact(4)
            .map(|entry| le32(entry, 0) & CLUSTER_MASK)
            .collect();
        let data_offset = offset + boot.data_offset;
        Ok(Self {
            source,
            data_offset,
            cluster_size: boot.cluster_size,
            root: boot.root,
            next,
            available,
            size: boot.size,
        })
    }

    /// How many clusters the file system has, used or not; the count is what makes it a FAT32.
    pub fn cluster_count(&self) -> u32 {
        // The table begins with two entries of no cluster, and has fewer than 2^28.
        (self.next.len() - 2) as u32
    }

    /// How many bytes the file system says it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The entries of a directory, in the order they are stored.
    pub fn list(&mut self, path: &str) -> Result<Vec<FatEntry>, FatReadError> {
        let first = match self.find(path)? {
            None => self.root,
            Some(entry) if entry.is_directory => entry.first,
            Some(_) => return Err(FatReadError::WrongKind(path.to_owned())),
        };
        self.directory(first)
    }

    /// The content of a file.
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>, FatReadError> {
        match self.find(path)? {
            Some(entry) if !entry.is_directory => self.content(&entry),
            _ => Err(FatReadError::WrongKind(path.to_owned())),
        }
    }

    /// Everything in the file system.
    pub fn tree(&mut self) -> Result<Tree, FatReadError> {
        let mut tree = Tree::new();
        let mut seen = BTreeSet::new();
        let mut room = self.available;
        let mut todo = vec![(String::new(), self.root)];
        while let Some((directory, first)) = todo.pop() {
            if !seen.insert(first) {
                return Err(FatReadError::Damaged("a directory is in it twice"));
            }
            for entry in self.directory(first)? {
                let path = if directory.is_empty() {
                    entry.name.clone()
                } else {
                    format!("{directory}/{}", entry.name)
                };
                if entry.is_directory {
                    tree.insert(path.clone(), Node::directory(0o755))?;
                    todo.push((path, entry.first));
                } else {
                    room = room
                        .checked_sub(entry.size.into())
                        .ok_or(FatReadError::Damaged("its files are larger than the image"))?;
                    tree.insert(path, Node::file(0o644, self.content(&entry)?))?;
                }
            }
        }
        Ok(tree)
    }

    /// Walks a path; `None` is the root.
    fn find(&mut self, path: &str) -> Result<Option<FatEntry>, FatReadError> {
        let mut found: Option<FatEntry> = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let directory = match &found {
                None => self.root,
                Some(entry) if entry.is_directory => entry.first,
                Some(_) => return Err(FatReadError::WrongKind(path.to_owned())),
            };
            let wanted = name.to_uppercase();
            let entry = self
                .directory(directory)?
                .into_iter()
                .find(|entry| entry.name.to_uppercase() == wanted || entry.short_name == wanted);
            found = Some(entry.ok_or_else(|| FatReadError::Missing(path.to_owned()))?);
        }
        Ok(found)
    }

    fn directory(&mut self, first: u32) -> Result<Vec<FatEntry>, FatReadError> {
        let chain = self.chain(first, DIRECTORY_BYTES_MAX)?;
        let bytes = self.clusters(&chain)?;
        Ok(decode_directory(&bytes))
    }

    fn content(&mut self, entry: &FatEntry) -> Result<Vec<u8>, FatReadError> {
        let size = entry.size as usize;
        if size == 0 {
            return Ok(Vec::new());
        }
        if u64::from(entry.size) > self.available {
            return Err(FatReadError::Damaged("a file is larger than the image"));
        }
        let chain = self.chain(entry.first, size)?;
        let mut bytes = self.clusters(&chain)?;
        if bytes.len() < size {
            return Err(FatReadError::Damaged("a file is longer than its clusters"));
        }
        bytes.truncate(size);
        Ok(bytes)
    }

    /// The clusters of a chain, no more than `size` bytes take.
    fn chain(&self, first: u32, size: usize) -> Result<Vec<u32>, FatReadError> {
        let limit = size.div_ceil(self.cluster_size).min(self.next.len());
        let mut chain = Vec::new();
        let mut cluster = first;
        while chain.len() < limit && cluster < END_OF_CHAIN {
            if cluster < FIRST_CLUSTER {
                return Err(FatReadError::Damaged(
                    "a chain leads to a cluster that is none",
                ));
            }
            chain.push(cluster);
            let next = self.next.get(cluster as usize).copied();
            cluster = next.ok_or(FatReadError::Damaged(
                "a chain leads out of the file system",
            ))?;
        }
        Ok(chain)
    }

    fn clusters(&mut self, chain: &[u32]) -> Result<Vec<u8>, FatReadError> {
        let mut bytes = Vec::new();
        for cluster in chain {
            let at = u64::from(cluster - FIRST_CLUSTER) * self.cluster_size as u64;
            self.source.seek(SeekFrom::Start(self.data_offset + at))?;
            let got = self
                .source
                .by_ref()
                .take(self.cluster_size as u64)
                .read_to_end(&mut bytes)?;
            if got < self.cluster_size {
                return Err(FatReadError::Damaged("a cluster lies outside of the image"));
            }
        }
        Ok(bytes)
    }
}

/// What the first sector says about the rest.
struct BootSector {
    size: u64,
    cluster_size: usize,
    fat_offset: u64,
    data_offset: u64,
    clusters: u32,
    root: u32,
}

impl BootSector {
    fn decode(sector: &[u8; SECTOR_SIZE as usize]) -> Result<Self, FatReadError> {
        let not = |why| Err(FatReadError::NotFat32(why));
        let (per_cluster, reserved, fats) = (sector[13], le16(sector, 14), sector[16]);
        let (sectors, fat_sectors) = (le32(sector, 32), le32(sector, 36));
        if sector[510..] != [0x55, 0xaa] {
            return not("it has no boot signature");
        }
        if le16(sector, 11) != SECTOR_SIZE as u16 {
            return not("its sectors have no 512 bytes");
        }
        if le16(sector, 17) != 0 || le16(sector, 22) != 0 || fat_sectors == 0 {
            return not("it has the fields of FAT12 or FAT16");
        }
        if !per_cluster.is_power_of_two() || reserved == 0 || fats == 0 {
            return not("its boot sector has a zero where none can be");
        }
        let data_sector = u64::from(reserved) + u64::from(fats) * u64::from(fat_sectors);
        let data_sectors = u64::from(sectors).saturating_sub(data_sector);
        // Both bounds fit: the first is below 2^32, the second is a table of 2^32 sectors at most, cut to what FAT32 has.
        let clusters = (data_sectors / u64::from(per_cluster))
            .min(u64::from(fat_sectors) * 128 - 2)
            .min(0x0fff_fff5);
        Ok(Self {
            size: u64::from(sectors) * SECTOR_SIZE,
            cluster_size: usize::from(per_cluster) * SECTOR_SIZE as usize,
            fat_offset: u64::from(reserved) * SECTOR_SIZE,
            data_offset: data_sector * SECTOR_SIZE,
            clusters: clusters as u32,
            root: le32(sector, 44) & CLUSTER_MASK,
        })
    }
}

/// Entries without `.`, `..`, labels and deleted ones. A long name is taken when it is complete.
fn decode_directory(bytes: &[u8]) -> Vec<FatEntry> {
    let mut entries = Vec::new();
    let mut long = LongName::default();
    for record in bytes.chunks_exact(RECORD_SIZE) {
        let attribute = record[11];
        match record[0] {
            0 => break,
            0xe5 => long = LongName::default(),
            _ if attribute & 0x3f == ATTRIBUTE_LONG_NAME => long.add(record),
            b'.' => long = LongName::default(),
            _ => {
                let name = std::mem::take(&mut long).finish(&record[..11]);
                if attribute & ATTRIBUTE_LABEL == 0 {
                    entries.push(decode_entry(record, name));
                }
            }
        }
    }
    entries
}

fn decode_entry(record: &[u8], long_name: Option<String>) -> FatEntry {
    let short_name = short_name(record);
    FatEntry {
        name: long_name.unwrap_or_else(|| short_name.clone()),
        short_name,
        is_directory: record[11] & ATTRIBUTE_DIRECTORY != 0,
        size: le32(record, 28),
        first: (u32::from(le16(record, 20)) << 16 | u32::from(le16(record, 26))) & CLUSTER_MASK,
    }
}

pub(crate) fn short_name(record: &[u8]) -> String {
    let part = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .trim_end_matches(' ')
            .to_owned()
    };
    let (base, extension) = (part(&record[..8]), part(&record[8..11]));
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

/// The records of a long name as they come in: the last part first, numbered down to 1.
#[derive(Default)]
pub(crate) struct LongName {
    units: Vec<u16>,
    number: u8,
    checksum: u8,
}

impl LongName {
    pub(crate) fn add(&mut self, record: &[u8]) {
        const LAST: u8 = 0x40;
        let number = record[0] & 0x3f;
        if record[0] & LAST != 0 {
            *self = Self {
                units: Vec::new(),
                number: number + 1,
                checksum: record[13],
            };
        }
        if number == 0 || number + 1 != self.number || record[13] != self.checksum {
            *self = Self::default();
            return;
        }
        let places = (1..11)
            .step_by(2)
            .chain((14..26).step_by(2))
            .chain((28..32).step_by(2));
        let mut units: Vec<u16> = places.map(|at| le16(record, at)).collect();
        units.append(&mut self.units);
        self.units = units;
        self.number = number;
    }

    pub(crate) fn finish(mut self, short: &[u8]) -> Option<String> {
        let checksum = short
            .iter()
            .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.number != 1 || checksum != self.checksum {
            return None;
        }
        if let Some(end) = self.units.iter().position(|unit| *unit == 0) {
            self.units.truncate(end);
        }
        String::from_utf16(&self.units).ok()
    }
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
