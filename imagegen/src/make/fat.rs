//! Writes a tree as a FAT32 file system, the partition a board's firmware reads.
//!
//! ```text
//! | boot sector, FSInfo, their copies | FAT | FAT | cluster 2: root, then everything in path order |
//! ```
//!
//! One sector a cluster, every file in one piece, times given by the caller: the same tree and options give the same
//! bytes. FAT has no owners, modes or links: the first two are dropped, a link is an error. The output has to read as
//! zeros where nothing was written, as a new file does; it is never written just to be zero.

pub mod change;
mod names;

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};

use thiserror::Error;

pub use names::NameFault;

use self::names::{RECORD_SIZE, StoredName, record_count, store_names};
use crate::calendar::civil_date;
use crate::tree::{Content, Node, Tree};

const SECTOR: u64 = 512;
const RESERVED_SECTORS: u32 = 32;
const FATS: u32 = 2;
const ROOT_CLUSTER: u32 = 2;
const FS_INFO_SECTOR: u16 = 1;
const BACKUP_SECTOR: u16 = 6;
/// With fewer clusters a reader takes the file system for FAT16.
const CLUSTERS_MIN: u32 = 65_525;
const CLUSTERS_MAX: u32 = 0x0fff_fff0;
const DIRECTORY_MAX: usize = 65_536;
const MEDIUM_FIXED: u8 = 0xf8;
const END_OF_CHAIN: u32 = 0x0fff_ffff;
const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;

/// How to write a FAT32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatOptions {
    /// Bytes of the partition, at least 64 MiB.
    pub size: u64,
    /// Sectors on the disk before the partition.
    pub first_sector: u32,
    /// The number shown as the volume's UUID.
    pub volume_id: u32,
    /// The name of the volume.
    pub label: FatLabel,
    /// Time of everything, seconds since 1970; kept to two seconds, from 1980 on.
    pub time: u32,
}

/// The name of a volume: 1 to 11 upper-case ASCII letters, digits, spaces, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatLabel([u8; 11]);

/// Why a FAT32 was not written.
#[derive(Debug, Error)]
pub enum FatError {
    /// The label has a character it cannot have, or too many or none.
    #[error("`{0}` cannot name a FAT volume: it takes 1 to 11 of A-Z, 0-9, space, - and _")]
    Label(String),
    /// The size is one that FAT32 cannot have.
    #[error("a FAT32 of one sector a cluster cannot have {size} bytes")]
    Size {
        /// What was asked for.
        size: u64,
    },
    /// A name cannot be stored.
    #[error("`{name}` in /{directory} cannot be stored on a FAT file system: {fault}")]
    Name {
        /// Where it is.
        directory: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// FAT has no symbolic links.
    #[error("/{path} is a symbolic link, which a FAT file system does not have")]
    Symlink {
        /// Which one.
        path: String,
    },
    /// A file of 4 GiB or more.
    #[error("/{path} is too large for a FAT file system")]
    FileTooLarge {
        /// Which one.
        path: String,
    },
    /// A directory has more records than the format allows.
    #[error("/{path} has too many entries for a FAT directory")]
    DirectoryTooLarge {
        /// Which one.
        path: String,
    },
    /// The tree is larger than the partition.
    #[error(
        "the boot files do not fit: the FAT partition of {size} bytes is {missing} bytes too small"
    )]
    Full {
        /// The size of the partition.
        size: u64,
        /// What is missing.
        missing: u64,
    },
    /// The output could not be written.
    #[error("failed to write the FAT file system")]
    Write(#[from] io::Error),
}

impl FatLabel {
    /// Checks a label.
    pub fn new(label: &str) -> Result<Self, FatError> {
        let allowed =
            |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, b' ' | b'-' | b'_');
        let mut bytes = [b' '; 11];
        if label.trim() != label || !(1..=11).contains(&label.len()) || !label.bytes().all(allowed)
        {
            return Err(FatError::Label(label.to_owned()));
        }
        bytes[..label.len()].copy_from_slice(label.as_bytes());
        Ok(Self(bytes))
    }
}

/// Writes a tree. `out` ends up `options.size` bytes long, and has to read as zeros where nothing is written.
///
/// Returns how many bytes from the beginning are in use; what lies behind them is free, and may be anything.
pub fn write_fat32(
    tree: &Tree,
    options: &FatOptions,
    mut out: impl Write + Seek,
) -> Result<u64, FatError> {
    let geometry = Geometry::of(options.size)?;
    let allocation = allocate(tree)?;
    geometry.check_space(options, &allocation)?;
    // One byte at the end gives the file its length without writing what is between.
    write_at(&mut out, options.size - 1, &[0])?;
    write_reserved(options, &geometry, &allocation, &mut out)?;
    write_fats(&geometry, &allocation, &mut out)?;
    for (path, extent) in &allocation.extents {
        let at = geometry.offset(extent.first);
        match tree.get(path).map(|node| &node.content) {
            Some(Content::File(bytes)) if !bytes.is_empty() => write_at(&mut out, at, bytes)?,
            Some(Content::File(_) | Content::Symlink(_)) => {}
            None | Some(Content::Directory) => {
                let records = directory_records(tree, path, &allocation, options)?;
                write_at(&mut out, at, &records)?;
            }
        }
    }
    out.flush()?;
    Ok(geometry.offset(allocation.next))
}

/// How the partition is divided; follows from its size alone.
#[derive(Debug)]
struct Geometry {
    sectors: u32,
    fat_sectors: u32,
    clusters: u32,
}

impl Geometry {
    fn of(size: u64) -> Result<Self, FatError> {
        let wrong = || FatError::Size { size };
        let sectors = u32::try_from(size / SECTOR).map_err(|_| wrong())?;
        let after_reserved = sectors.checked_sub(RESERVED_SECTORS).ok_or_else(wrong)?;
        // A FAT sector describes 128 clusters of one sector; the first two numbers are not clusters.
        let fat_sectors = (u64::from(after_reserved) + 2).div_ceil(128 + u64::from(FATS));
        let fat_sectors = u32::try_from(fat_sectors).map_err(|_| wrong())?;
        let clusters = after_reserved
            .checked_sub(FATS * fat_sectors)
            .ok_or_else(wrong)?;
        if !(CLUSTERS_MIN..=CLUSTERS_MAX).contains(&clusters) {
            return Err(wrong());
        }
        Ok(Self {
            sectors,
            fat_sectors,
            clusters,
        })
    }

    fn check_space(&self, options: &FatOptions, allocation: &Allocation) -> Result<(), FatError> {
        let needed = u64::from(allocation.next - ROOT_CLUSTER);
        match needed.checked_sub(u64::from(self.clusters)) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(FatError::Full {
                size: options.size,
                missing: missing * SECTOR,
            }),
        }
    }

    fn fat_offset(&self, number: u32) -> u64 {
        u64::from(RESERVED_SECTORS + number * self.fat_sectors) * SECTOR
    }

    fn offset(&self, cluster: u32) -> u64 {
        self.fat_offset(FATS) + u64::from(cluster.saturating_sub(ROOT_CLUSTER)) * SECTOR
    }
}

/// A run of clusters; an empty file has `first` 0 and none.
#[derive(Clone, Copy, Debug)]
struct Extent {
    first: u32,
    clusters: u32,
}

/// Which clusters belong to which path; the root is `""`.
#[derive(Debug)]
struct Allocation {
    extents: BTreeMap<String, Extent>,
    /// The first free cluster.
    next: u32,
}

fn allocate(tree: &Tree) -> Result<Allocation, FatError> {
    let mut allocation = Allocation {
        extents: BTreeMap::new(),
        next: ROOT_CLUSTER,
    };
    // The root's own record is the label.
    allocation.take("", directory_size(tree, "", 1)?);
    for (path, node) in tree.iter() {
        let size = match &node.content {
            // `.` and `..`
            Content::Directory => directory_size(tree, path, 2)?,
            Content::File(bytes) if u32::try_from(bytes.len()).is_err() => {
                return Err(FatError::FileTooLarge {
                    path: path.to_owned(),
                });
            }
            Content::File(bytes) => bytes.len(),
            Content::Symlink(_) => {
                return Err(FatError::Symlink {
                    path: path.to_owned(),
                });
            }
        };
        allocation.take(path, size);
    }
    Ok(allocation)
}

impl Allocation {
    fn take(&mut self, path: &str, size: usize) {
        // Sizes are below 4 GiB each; whether all of them fit is looked at afterwards.
        let clusters = u32::try_from((size as u64).div_ceil(SECTOR)).unwrap_or(u32::MAX);
        let first = if clusters == 0 { 0 } else { self.next };
        self.extents
            .insert(path.to_owned(), Extent { first, clusters });
        self.next = self.next.saturating_add(clusters);
    }
}

fn directory_size(tree: &Tree, path: &str, own_records: usize) -> Result<usize, FatError> {
    let records = own_records
        + tree
            .entries(path)
            .map(|(name, _)| record_count(name))
            .sum::<usize>();
    if records > DIRECTORY_MAX {
        return Err(FatError::DirectoryTooLarge {
            path: path.to_owned(),
        });
    }
    Ok(records * RECORD_SIZE)
}

fn directory_records(
    tree: &Tree,
    path: &str,
    allocation: &Allocation,
    options: &FatOptions,
) -> Result<Vec<u8>, FatError> {
    let time = DosTime::at(options.time);
    let mut records = Vec::new();
    if path.is_empty() {
        records.extend(entry(options.label.0, ATTRIBUTE_LABEL, 0, 0, time));
    } else {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        // The root is called 0 here, whatever cluster it has.
        let above = if parent.is_empty() {
            0
        } else {
            allocation.extents[parent].first
        };
        records.extend(entry(
            *b".          ",
            ATTRIBUTE_DIRECTORY,
            allocation.extents[path].first,
            0,
            time,
        ));
        records.extend(entry(*b"..         ", ATTRIBUTE_DIRECTORY, above, 0, time));
    }
    let (names, nodes): (Vec<&str>, Vec<&Node>) = tree.entries(path).unzip();
    let stored = store_names(&names).map_err(|(name, fault)| FatError::Name {
        directory: path.to_owned(),
        name,
        fault,
    })?;
    for ((name, node), StoredName { short, long }) in names.iter().zip(nodes).zip(stored) {
        let own = if path.is_empty() {
            (*name).to_owned()
        } else {
            format!("{path}/{name}")
        };
        let first = allocation.extents[&own].first;
        records.extend(long.into_iter().flatten());
        records.extend(match &node.content {
            // Lengths were checked when clusters were given out.
            Content::File(bytes) => {
                entry(short.0, ATTRIBUTE_ARCHIVE, first, bytes.len() as u32, time)
            }
            Content::Directory | Content::Symlink(_) => {
                entry(short.0, ATTRIBUTE_DIRECTORY, first, 0, time)
            }
        });
    }
    Ok(records)
}

/// ```text
///  0      11          13       14        16        18       20           22        24        26          28
///  | name | attribute | 0 | 10 ms | made at | made on | read on | cluster >> 16 | changed at | on | cluster | size |
/// ```
fn entry(name: [u8; 11], attribute: u8, first: u32, size: u32, time: DosTime) -> [u8; RECORD_SIZE] {
    let [low_0, low_1, high_0, high_1] = first.to_le_bytes();
    let mut record = [0; RECORD_SIZE];
    record[..11].copy_from_slice(&name);
    record[11] = attribute;
    record[14..16].copy_from_slice(&time.time.to_le_bytes());
    record[16..18].copy_from_slice(&time.date.to_le_bytes());
    record[18..20].copy_from_slice(&time.date.to_le_bytes());
    record[20..22].copy_from_slice(&[high_0, high_1]);
    record[22..24].copy_from_slice(&time.time.to_le_bytes());
    record[24..26].copy_from_slice(&time.date.to_le_bytes());
    record[26..28].copy_from_slice(&[low_0, low_1]);
    record[28..32].copy_from_slice(&size.to_le_bytes());
    record
}

/// A time as DOS has it: local time there, UTC here, in steps of two seconds from 1980 to 2107.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DosTime {
    date: u16,
    time: u16,
}

impl DosTime {
    fn at(seconds: u32) -> Self {
        const EPOCH: u32 = 315_532_800;
        let seconds = seconds.max(EPOCH);
        let (year, month, day) = civil_date(seconds / 86_400);
        let of_day = seconds % 86_400;
        let date = ((year - 1980) << 9) | (month << 5) | day;
        let time = ((of_day / 3600) << 11) | ((of_day / 60 % 60) << 5) | (of_day % 60 / 2);
        // 32 bits of seconds end in 2106, so the year takes its 7 bits at most.
        Self {
            date: date as u16,
            time: time as u16,
        }
    }
}

fn write_reserved(
    options: &FatOptions,
    geometry: &Geometry,
    allocation: &Allocation,
    out: &mut (impl Write + Seek),
) -> io::Result<()> {
    let boot = boot_sector(options, geometry);
    let info = info_sector(geometry, allocation);
    for copy in [0, u64::from(BACKUP_SECTOR)] {
        write_at(out, copy * SECTOR, &boot)?;
        write_at(out, (copy + u64::from(FS_INFO_SECTOR)) * SECTOR, &info)?;
    }
    Ok(())
}

fn boot_sector(options: &FatOptions, geometry: &Geometry) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xeb, 0x58, 0x90]);
    put(3, b"MSWIN4.1");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[1]); // sectors per cluster
    put(14, &(RESERVED_SECTORS as u16).to_le_bytes());
    put(16, &[FATS as u8]);
    put(21, &[MEDIUM_FIXED]);
    put(24, &63u16.to_le_bytes()); // sectors per track
    put(26, &255u16.to_le_bytes()); // heads
    put(28, &options.first_sector.to_le_bytes());
    put(32, &geometry.sectors.to_le_bytes());
    put(36, &geometry.fat_sectors.to_le_bytes());
    put(44, &ROOT_CLUSTER.to_le_bytes());
    put(48, &FS_INFO_SECTOR.to_le_bytes());
    put(50, &BACKUP_SECTOR.to_le_bytes());
    put(64, &[0x80]); // first fixed disk
    put(66, &[0x29]); // the next three fields are there
    put(67, &options.volume_id.to_le_bytes());
    put(71, &options.label.0);
    put(82, b"FAT32   ");
    put(510, &[0x55, 0xaa]);
    sector
}

fn info_sector(geometry: &Geometry, allocation: &Allocation) -> [u8; SECTOR as usize] {
    let free = geometry.clusters - (allocation.next - ROOT_CLUSTER);
    let mut sector = [0; SECTOR as usize];
    sector[..4].copy_from_slice(b"RRaA");
    sector[484..488].copy_from_slice(b"rrAa");
    sector[488..492].copy_from_slice(&free.to_le_bytes());
    sector[492..496].copy_from_slice(&allocation.next.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn write_fats(
    geometry: &Geometry,
    allocation: &Allocation,
    out: &mut (impl Write + Seek),
) -> io::Result<()> {
    // Two entries that are not clusters: the medium again, and "cleanly unmounted".
    let mut fat: Vec<u32> = vec![0x0fff_ff00 | u32::from(MEDIUM_FIXED), END_OF_CHAIN];
    fat.resize(allocation.next as usize, 0);
    for extent in allocation
        .extents
        .values()
        .filter(|extent| extent.clusters > 0)
    {
        let last = extent.first + extent.clusters - 1;
        for cluster in extent.first..last {
            fat[cluster as usize] = cluster + 1;
        }
        fat[last as usize] = END_OF_CHAIN;
    }
    let bytes: Vec<u8> = fat.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    for number in 0..FATS {
        write_at(out, geometry.fat_offset(number), &bytes)?;
    }
    Ok(())
}

fn write_at(out: &mut (impl Write + Seek), at: u64, bytes: &[u8]) -> io::Result<()> {
    out.seek(SeekFrom::Start(at))?;
    out.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_times() {
        for (seconds, date, time) in [
            (0, (1980, 1, 1), (0, 0, 0)),
            (315_532_800, (1980, 1, 1), (0, 0, 0)),
            (951_782_399, (2000, 2, 28), (23, 59, 58)),
            (951_782_400, (2000, 2, 29), (0, 0, 0)),
            (1_735_689_599, (2024, 12, 31), (23, 59, 58)),
            (u32::MAX, (2106, 2, 7), (6, 28, 14)),
        ] {
            let found = DosTime::at(seconds);
            assert_eq!(
                (
                    1980 + (found.date >> 9),
                    found.date >> 5 & 15,
                    found.date & 31
                ),
                date,
                "{seconds}"
            );
            assert_eq!(
                (
                    found.time >> 11,
                    found.time >> 5 & 63,
                    (found.time & 31) * 2
                ),
                time,
                "{seconds}"
            );
        }
    }

    #[test]
    fn the_two_fats_just_suffice() {
        for size in (64 << 20..96 << 20).step_by(512 * 37) {
            let Geometry {
                sectors,
                fat_sectors,
                clusters,
            } = Geometry::of(size).expect("a size that can be");
            assert_eq!(clusters, sectors - RESERVED_SECTORS - 2 * fat_sectors);
            assert!((clusters + 2).div_ceil(128) <= fat_sectors, "{size}");
            assert!((clusters + 2).div_ceil(128) + 1 >= fat_sectors, "{size}");
        }
        for size in [0, 16 << 20, 1 << 20, 4 << 40] {
            Geometry::of(size).expect_err("a size that cannot be");
        }
    }

    #[test]
    fn labels() {
        FatLabel::new("BOOT-1_A").expect("a label");
        for label in ["", "boot", "TWELVE LETTERS", " BOOT", "Ä"] {
            FatLabel::new(label).expect_err(label);
        }
    }
}
