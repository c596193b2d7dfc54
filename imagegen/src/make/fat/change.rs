//! Changes files in one directory of a FAT32 that exists, in place.
//!
//! ```text
//! contents in free clusters -> their chains in every FAT -> sync -> directory entries, a sector each -> sync
//!     -> clusters of before zeroed and freed, FSInfo -> sync
//! ```
//!
//! Whoever looks at any moment, after a cut of the power too, finds every file as it was or as it is to be. The worst that a cut leaves is
//! clusters that belong to nobody. What is freed is overwritten, for it may have been a key.
//!
//! Nothing in the file system is believed: before anything is written, every chain is followed, and a file system in which two of them meet
//! is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use thiserror::Error;

use super::names::{NameFault, RECORD_SIZE, StoredName, store_names};
use super::{ATTRIBUTE_ARCHIVE, ATTRIBUTE_DIRECTORY, ATTRIBUTE_LABEL, DosTime, entry};
use crate::inspect::fat::{ATTRIBUTE_LONG_NAME, LongName, short_name};
use crate::plan::disk::Extent;

const SECTOR: usize = 512;
const FIRST_CLUSTER: u32 = 2;
const CLUSTER_MASK: u32 = 0x0fff_ffff;
const END_OF_CHAIN: u32 = 0x0fff_fff8;
const DELETED: u8 = 0xe5;
const DIRECTORY_MAX: usize = 65_536 * RECORD_SIZE;

/// Bytes that can be changed in place: a file, a card, or what stands for one in a test.
pub trait Storage {
    /// Fills the buffer from an offset.
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
    /// Writes at an offset.
    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Returns once everything written is where it stays.
    fn sync(&mut self) -> io::Result<()>;
}

/// What becomes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Its name in the directory.
    pub name: String,
    /// What it is to hold; nothing if it is to go.
    pub contents: Option<Vec<u8>>,
}

/// Why files were not changed, or not all of them.
#[derive(Debug, Error)]
pub enum FatChangeError {
    /// Reading or writing failed.
    #[error("failed to change the boot partition")]
    Io(#[from] io::Error),
    /// Another file system, or one with peculiarities.
    #[error("the boot partition is no FAT32 that can be changed: {0}")]
    Unknown(&'static str),
    /// Something in it contradicts something else.
    #[error("the file system of the boot partition is damaged: {0}")]
    Damaged(&'static str),
    /// No such directory, or a file of its name.
    #[error("the boot partition has no directory /{0}")]
    NoDirectory(String),
    /// A directory has the name of a file.
    #[error("/{0} on the boot partition is a directory")]
    IsDirectory(String),
    /// No room is left.
    #[error("the boot partition is full: {missing} bytes are missing")]
    Full {
        /// How many.
        missing: u64,
    },
    /// A name cannot be stored.
    #[error("`{name}` cannot be stored on a FAT file system: {fault}")]
    Name {
        /// Which.
        name: String,
        /// Why not.
        fault: NameFault,
    },
}

/// Returns what a file of the root holds, if there is one of that name.
pub(crate) fn read_file(
    storage: &impl Storage,
    offset: u64,
    name: &str,
) -> Result<Option<Vec<u8>>, FatChangeError> {
    let volume = Volume::open(storage, offset)?;
    let root = volume.find(storage, "")?;
    let Some(found) = root.position(name)? else {
        return Ok(None);
    };
    let chain = volume.chain_of_file(&found)?;
    volume.load_file(storage, &found, &chain).map(Some)
}

/// Returns the files of a directory of the root, by name, and what they hold. `offset` is where the file system begins.
pub fn read_files(
    storage: &impl Storage,
    offset: u64,
    directory: &str,
) -> Result<BTreeMap<String, Vec<u8>>, FatChangeError> {
    let volume = Volume::open(storage, offset)?;
    let directory = volume.find(storage, directory)?;
    let mut files = BTreeMap::new();
    // What is followed and read is no more than there is, whichever clusters several files pretend to have.
    let mut room = volume.clusters() as usize;
    for found in directory.entries() {
        if !found.is_directory {
            let chain = volume.chain_of_file(&found)?;
            room = room
                .checked_sub(chain.len())
                .ok_or(FatChangeError::Damaged("its files are larger than it is"))?;
            files.insert(
                found.name.clone(),
                volume.load_file(storage, &found, &chain)?,
            );
        }
    }
    Ok(files)
}

/// Changes files of a directory of the root, each in the order given. `time` is that of the changes, seconds since 1970.
pub fn change_files(
    storage: &mut impl Storage,
    offset: u64,
    directory: &str,
    changes: &[FileChange],
    time: u32,
) -> Result<(), FatChangeError> {
    change_directories(storage, offset, &[(directory, changes)], time)
}

/// The same in several directories, each named once; the root is `""`. Nothing is written if one of them cannot be changed.
pub(crate) fn change_directories(
    storage: &mut impl Storage,
    offset: u64,
    changes: &[(&str, &[FileChange])],
    time: u32,
) -> Result<(), FatChangeError> {
    let mut volume = Volume::open(storage, offset)?;
    volume.check_chains(storage)?;
    let mut directories = changes
        .iter()
        .map(|(name, changes)| Ok((volume.find(storage, name)?, *changes)))
        .collect::<Result<Vec<_>, FatChangeError>>()?;
    let time = DosTime::at(time);
    // By the directory that they are of.
    let mut steps: Vec<(usize, Records)> = Vec::new();
    let mut freed = Vec::new();
    for (number, (directory, changes)) in directories.iter_mut().enumerate() {
        for change in *changes {
            let old = directory.position(&change.name)?;
            if let Some(old) = &old {
                freed.extend(volume.chain_of_file(old)?);
            }
            match (&change.contents, old) {
                (None, None) => {}
                (None, Some(old)) => steps.push((number, directory.remove(&old))),
                (Some(contents), old) => {
                    let chain = volume.allocate(contents.len())?;
                    volume.store(storage, &chain, contents)?;
                    let first = chain.first().copied().unwrap_or(0);
                    // Below the size of the partition, or there would be no chain.
                    let size = contents.len() as u32;
                    let records = match old {
                        Some(old) => directory.replace(&old, first, size, time),
                        None => directory.add(&mut volume, &change.name, first, size, time)?,
                    };
                    steps.push((number, records));
                }
            }
        }
    }
    for (directory, _) in &directories {
        directory.store_new_clusters(&volume, storage)?;
    }
    storage.sync()?;
    volume.write_fats(storage)?;
    storage.sync()?;
    for (number, records) in steps {
        directories[number]
            .0
            .store_records(&volume, storage, &records)?;
        storage.sync()?;
    }
    for cluster in &freed {
        let zeros = vec![0; volume.cluster_size];
        storage.write_all_at(&zeros, volume.offset_of(*cluster))?;
        volume.set(*cluster, 0);
    }
    volume.write_fats(storage)?;
    volume.write_info(storage)?;
    storage.sync()?;
    Ok(())
}

/// Returns where changes of a directory of the root, and of these files in the root, may write to: the tables, the directories, what the
/// files hold, and all that is free.
pub(crate) fn places_of_change(
    storage: &impl Storage,
    offset: u64,
    directory: &str,
    files: &[&str],
) -> Result<Vec<Extent>, FatChangeError> {
    let volume = Volume::open(storage, offset)?;
    let root = Directory::load(&volume, storage, volume.root)?;
    let mut clusters = root.chain.clone();
    for found in root.entries() {
        if !found.is_directory && files.iter().any(|name| found.is_called(name)) {
            clusters.extend(volume.chain_of_file(&found)?);
        }
    }
    let directory = volume.find(storage, directory)?;
    clusters.extend(&directory.chain);
    for found in directory.entries() {
        if !found.is_directory {
            clusters.extend(volume.chain_of_file(&found)?);
        }
    }
    let free = |cluster: &u32| volume.table[*cluster as usize] & CLUSTER_MASK == 0;
    clusters.extend((FIRST_CLUSTER..volume.table.len() as u32).filter(free));
    clusters.sort_unstable();
    let mut places = vec![Extent {
        offset,
        size: volume.data_offset - offset,
    }];
    for run in clusters.chunk_by(|a, b| a + 1 >= *b) {
        let (first, last) = (run[0], run[run.len() - 1]);
        places.push(Extent {
            offset: volume.offset_of(first),
            size: u64::from(last - first + 1) * volume.cluster_size as u64,
        });
    }
    Ok(places)
}

/// A FAT32, its table in memory.
struct Volume {
    offset: u64,
    cluster_size: usize,
    fat_offsets: Vec<u64>,
    data_offset: u64,
    info_sector: u64,
    root: u32,
    /// The table as it is to be, the uppermost four bits of each entry included.
    table: Vec<u32>,
    /// Sectors of it that are not so in the storage yet.
    dirty: BTreeSet<usize>,
    /// Where to look for free clusters.
    next_free: u32,
}

impl Volume {
    fn open(storage: &impl Storage, offset: u64) -> Result<Self, FatChangeError> {
        let unknown = |why| Err(FatChangeError::Unknown(why));
        let mut boot = [0; SECTOR];
        storage.read_exact_at(&mut boot, offset)?;
        let (per_cluster, reserved, fats) = (boot[13], le16(&boot, 14), boot[16]);
        let (sectors, fat_sectors) = (le32(&boot, 32), le32(&boot, 36));
        if boot[510..] != [0x55, 0xaa] || usize::from(le16(&boot, 11)) != SECTOR {
            return unknown("it has no boot sector of 512 bytes");
        }
        if le16(&boot, 17) != 0 || le16(&boot, 22) != 0 || fat_sectors == 0 {
            return unknown("it has the fields of FAT12 or FAT16");
        }
        if !per_cluster.is_power_of_two() || reserved == 0 || fats == 0 {
            return unknown("its boot sector has a zero where none can be");
        }
        const ONE_FAT_ONLY: u16 = 0x80;
        if le16(&boot, 40) & ONE_FAT_ONLY != 0 {
            return unknown("its tables are not copies of each other");
        }
        let sector = |number: u64| offset + number * SECTOR as u64;
        let fat_offsets: Vec<u64> = (0..u64::from(fats))
            .map(|fat| sector(u64::from(reserved) + fat * u64::from(fat_sectors)))
            .collect();
        let data_sector = u64::from(reserved) + u64::from(fats) * u64::from(fat_sectors);
        let clusters = u64::from(sectors).saturating_sub(data_sector) / u64::from(per_cluster);
        let clusters = clusters
            .min(u64::from(fat_sectors) * 128 - 2)
            .min(0x0fff_fff5);
        // A table that is not there fails to be read; one that is there is bounded by the image.
        let mut bytes = Vec::new();
        let mut left = (clusters as usize + 2).div_ceil(128) * SECTOR;
        while left > 0 {
            let part = left.min(1 << 20);
            let at = bytes.len();
            bytes.resize(at + part, 0);
            storage.read_exact_at(&mut bytes[at..], fat_offsets[0] + at as u64)?;
            left -= part;
        }
        let table = bytes
            .chunks_exact(4)
            .take(clusters as usize + 2)
            .map(|entry| le32(entry, 0))
            .collect();
        Ok(Self {
            offset,
            cluster_size: usize::from(per_cluster) * SECTOR,
            fat_offsets,
            data_offset: sector(data_sector),
            info_sector: u64::from(le16(&boot, 48)),
            root: le32(&boot, 44) & CLUSTER_MASK,
            table,
            dirty: BTreeSet::new(),
            next_free: FIRST_CLUSTER,
        })
    }

    fn clusters(&self) -> u32 {
        // Fewer than 2^28, and two entries of no cluster.
        (self.table.len() - 2) as u32
    }

    fn offset_of(&self, cluster: u32) -> u64 {
        self.data_offset + u64::from(cluster - FIRST_CLUSTER) * self.cluster_size as u64
    }

    /// Every file and directory has its clusters for itself, or a change of one would be a change of another.
    fn check_chains(&self, storage: &impl Storage) -> Result<(), FatChangeError> {
        let mut owned = vec![false; self.table.len()];
        let mut own = |chain: &[u32]| {
            let twice = chain
                .iter()
                .any(|cluster| std::mem::replace(&mut owned[*cluster as usize], true));
            match twice {
                true => Err(FatChangeError::Damaged(
                    "two of its files have a cluster in common",
                )),
                false => Ok(()),
            }
        };
        let mut todo = vec![self.root];
        while let Some(first) = todo.pop() {
            let directory = Directory::load(self, storage, first)?;
            own(&directory.chain)?;
            for found in directory.entries() {
                if found.is_directory {
                    todo.push(found.first);
                } else {
                    own(&self.chain_of_file(&found)?)?;
                }
            }
        }
        Ok(())
    }

    fn find(&self, storage: &impl Storage, name: &str) -> Result<Directory, FatChangeError> {
        let root = Directory::load(self, storage, self.root)?;
        if name.is_empty() {
            return Ok(root);
        }
        let found = root
            .entries()
            .into_iter()
            .find(|found| found.is_called(name) && found.is_directory)
            .ok_or_else(|| FatChangeError::NoDirectory(name.to_owned()))?;
        Directory::load(self, storage, found.first)
    }

    fn chain_of_file(&self, found: &Found) -> Result<Vec<u32>, FatChangeError> {
        if found.first == 0 && found.size == 0 {
            return Ok(Vec::new());
        }
        let chain = self.chain(found.first)?;
        if (chain.len() * self.cluster_size) < found.size as usize {
            return Err(FatChangeError::Damaged(
                "a file is longer than its clusters",
            ));
        }
        Ok(chain)
    }

    /// Follows a chain to its end; one in a circle is longer than there are clusters.
    fn chain(&self, first: u32) -> Result<Vec<u32>, FatChangeError> {
        let mut chain = Vec::new();
        let mut cluster = first;
        while cluster < END_OF_CHAIN {
            let next = self.table.get(cluster as usize);
            let next = next.filter(|_| cluster >= FIRST_CLUSTER && chain.len() < self.table.len());
            chain.push(cluster);
            cluster = CLUSTER_MASK
                & next.ok_or(FatChangeError::Damaged("a chain of clusters has no end"))?;
        }
        Ok(chain)
    }

    /// Loads what a file holds, and none of the clusters that it has beyond that.
    fn load_file(
        &self,
        storage: &impl Storage,
        found: &Found,
        chain: &[u32],
    ) -> Result<Vec<u8>, FatChangeError> {
        let size = found.size as usize;
        let mut bytes = self.load(storage, &chain[..size.div_ceil(self.cluster_size)])?;
        bytes.truncate(size);
        Ok(bytes)
    }

    fn load(&self, storage: &impl Storage, chain: &[u32]) -> Result<Vec<u8>, FatChangeError> {
        let mut bytes = Vec::new();
        for cluster in chain {
            let at = bytes.len();
            bytes.resize(at + self.cluster_size, 0);
            storage.read_exact_at(&mut bytes[at..], self.offset_of(*cluster))?;
        }
        Ok(bytes)
    }

    /// Takes free clusters and chains them, in memory.
    fn allocate(&mut self, size: usize) -> Result<Vec<u32>, FatChangeError> {
        let wanted = size.div_ceil(self.cluster_size);
        let mut chain = Vec::new();
        let end = self.table.len() as u32;
        while chain.len() < wanted && self.next_free < end {
            if self.table[self.next_free as usize] & CLUSTER_MASK == 0 {
                chain.push(self.next_free);
            }
            self.next_free += 1;
        }
        if chain.len() < wanted {
            let missing = (wanted - chain.len()) as u64 * self.cluster_size as u64;
            return Err(FatChangeError::Full { missing });
        }
        for (at, cluster) in chain.iter().enumerate() {
            self.set(*cluster, chain.get(at + 1).copied().unwrap_or(CLUSTER_MASK));
        }
        Ok(chain)
    }

    /// Writes a file into its clusters, the last one filled up with zeros.
    fn store(
        &self,
        storage: &mut impl Storage,
        chain: &[u32],
        contents: &[u8],
    ) -> Result<(), FatChangeError> {
        for (cluster, part) in chain.iter().zip(contents.chunks(self.cluster_size)) {
            let mut whole = part.to_vec();
            whole.resize(self.cluster_size, 0);
            storage.write_all_at(&whole, self.offset_of(*cluster))?;
        }
        Ok(())
    }

    fn set(&mut self, cluster: u32, next: u32) {
        let entry = &mut self.table[cluster as usize];
        *entry = *entry & !CLUSTER_MASK | next;
        self.dirty.insert(cluster as usize / 128);
    }

    /// Writes the sectors of the table that have changed, to every copy of it.
    fn write_fats(&mut self, storage: &mut impl Storage) -> io::Result<()> {
        for number in std::mem::take(&mut self.dirty) {
            // What is behind the last cluster's entry stays as it is.
            let entries = self.table.iter().skip(number * 128).take(128);
            let bytes: Vec<u8> = entries.flat_map(|entry| entry.to_le_bytes()).collect();
            for offset in &self.fat_offsets {
                storage.write_all_at(&bytes, offset + (number * SECTOR) as u64)?;
            }
        }
        Ok(())
    }

    /// Tells how much is free, where the file system tells it at all.
    fn write_info(&self, storage: &mut impl Storage) -> io::Result<()> {
        if matches!(self.info_sector, 0 | 0xffff) {
            return Ok(());
        }
        let at = self.offset + self.info_sector * SECTOR as u64;
        let mut info = [0; SECTOR];
        storage.read_exact_at(&mut info, at)?;
        if info[..4] != *b"RRaA" || info[484..488] != *b"rrAa" {
            return Ok(());
        }
        let free = self.table[2..]
            .iter()
            .filter(|entry| **entry & CLUSTER_MASK == 0);
        info[488..492].copy_from_slice(&(free.count() as u32).to_le_bytes());
        storage.write_all_at(&info, at)
    }
}

/// An entry of a directory.
#[derive(Clone, Debug)]
struct Found {
    name: String,
    short: String,
    is_directory: bool,
    size: u32,
    first: u32,
    /// Its records, those of the long name included.
    records: std::ops::Range<usize>,
}

impl Found {
    fn is_called(&self, name: &str) -> bool {
        let wanted = name.to_uppercase();
        self.name.to_uppercase() == wanted || self.short == wanted
    }
}

/// Records of a directory by number, in the order in which they are to be stored.
type Records = Vec<(usize, [u8; RECORD_SIZE])>;

/// A directory, its records in memory as they are to be.
struct Directory {
    chain: Vec<u32>,
    bytes: Vec<u8>,
    /// How many clusters of the chain are in the storage.
    stored: usize,
}

impl Directory {
    fn load(volume: &Volume, storage: &impl Storage, first: u32) -> Result<Self, FatChangeError> {
        let chain = volume.chain(first)?;
        if chain.len() * volume.cluster_size > DIRECTORY_MAX.max(volume.cluster_size) {
            return Err(FatChangeError::Damaged(
                "a directory is longer than one can be",
            ));
        }
        Ok(Self {
            bytes: volume.load(storage, &chain)?,
            stored: chain.len(),
            chain,
        })
    }

    /// The entries without `.`, `..` and labels.
    fn entries(&self) -> Vec<Found> {
        let mut entries = Vec::new();
        let mut long = LongName::default();
        let mut begin = None;
        for (number, record) in self.bytes.chunks_exact(RECORD_SIZE).enumerate() {
            let attribute = record[11];
            match record[0] {
                0 => break,
                DELETED => (long, begin) = (LongName::default(), None),
                _ if attribute & 0x3f == ATTRIBUTE_LONG_NAME => {
                    // The last part of a name comes first, and says so.
                    if record[0] & 0x40 != 0 {
                        begin = Some(number);
                    }
                    long.add(record);
                }
                first => {
                    let name = std::mem::take(&mut long).finish(&record[..11]);
                    let begin = begin.take().filter(|_| name.is_some()).unwrap_or(number);
                    if first != b'.' && attribute & ATTRIBUTE_LABEL == 0 {
                        let short = short_name(record);
                        entries.push(Found {
                            name: name.unwrap_or_else(|| short.clone()),
                            short,
                            is_directory: attribute & ATTRIBUTE_DIRECTORY != 0,
                            size: le32(record, 28),
                            first: (u32::from(le16(record, 20)) << 16
                                | u32::from(le16(record, 26)))
                                & CLUSTER_MASK,
                            records: begin..number + 1,
                        });
                    }
                }
            }
        }
        entries
    }

    fn position(&self, name: &str) -> Result<Option<Found>, FatChangeError> {
        match self
            .entries()
            .into_iter()
            .find(|found| found.is_called(name))
        {
            Some(found) if found.is_directory => Err(FatChangeError::IsDirectory(found.name)),
            found => Ok(found),
        }
    }

    /// Points an entry at other contents; returns the records to be stored.
    fn replace(&mut self, old: &Found, first: u32, size: u32, time: DosTime) -> Records {
        let number = old.records.end - 1;
        let record = &mut self.bytes[number * RECORD_SIZE..][..RECORD_SIZE];
        let mut name = [0; 11];
        name.copy_from_slice(&record[..11]);
        let fresh = entry(name, ATTRIBUTE_ARCHIVE, first, size, time);
        record[20..32].copy_from_slice(&fresh[20..]);
        self.records([number])
    }

    /// Deletes an entry, the record that counts first.
    fn remove(&mut self, old: &Found) -> Records {
        for number in old.records.clone() {
            self.bytes[number * RECORD_SIZE] = DELETED;
        }
        self.records(old.records.clone().rev())
    }

    /// Adds an entry, in records that were deleted or are new; the one that counts comes last.
    fn add(
        &mut self,
        volume: &mut Volume,
        name: &str,
        first: u32,
        size: u32,
        time: DosTime,
    ) -> Result<Records, FatChangeError> {
        let StoredName { short, long } = self.stored_name(name)?;
        let wanted = long.len() + 1;
        let begin = loop {
            match self.free_records(wanted) {
                Some(begin) => break begin,
                None => self.grow(volume)?,
            }
        };
        let own = entry(short.0, ATTRIBUTE_ARCHIVE, first, size, time);
        for (number, record) in (begin..).zip(long.into_iter().chain([own])) {
            self.bytes[number * RECORD_SIZE..][..RECORD_SIZE].copy_from_slice(&record);
        }
        Ok(self.records(begin..begin + wanted))
    }

    fn records(&self, numbers: impl IntoIterator<Item = usize>) -> Records {
        let record = |number| {
            let mut record = [0; RECORD_SIZE];
            record.copy_from_slice(&self.bytes[number * RECORD_SIZE..][..RECORD_SIZE]);
            (number, record)
        };
        numbers.into_iter().map(record).collect()
    }

    /// Finds an 8.3 name that no other entry has.
    fn stored_name(&self, name: &str) -> Result<StoredName, FatChangeError> {
        let entries = self.entries();
        let mut names: Vec<&str> = entries.iter().map(|found| &*found.short).collect();
        names.push(name);
        let refused = |(name, fault)| FatChangeError::Name { name, fault };
        let stored = store_names(&names).map_err(refused)?.pop();
        stored.ok_or(FatChangeError::Damaged("a name was lost"))
    }

    /// The first of that many free records in a row.
    fn free_records(&self, wanted: usize) -> Option<usize> {
        let mut run = 0;
        let mut ended = false;
        for (number, record) in self.bytes.chunks_exact(RECORD_SIZE).enumerate() {
            ended |= record[0] == 0;
            run = if ended || record[0] == DELETED {
                run + 1
            } else {
                0
            };
            if run == wanted {
                return Some(number + 1 - wanted);
            }
        }
        None
    }

    fn grow(&mut self, volume: &mut Volume) -> Result<(), FatChangeError> {
        if self.bytes.len() + volume.cluster_size > DIRECTORY_MAX {
            return Err(FatChangeError::Damaged(
                "a directory is as long as one can be",
            ));
        }
        let more = volume.allocate(1)?;
        if let (Some(last), Some(first)) = (self.chain.last(), more.first()) {
            volume.set(*last, *first);
        }
        self.chain.extend(more);
        let end = self.bytes.len();
        self.bytes.resize(end + volume.cluster_size, 0);
        Ok(())
    }

    /// New clusters hold zeros, the end of the directory, before the chain leads to them.
    fn store_new_clusters(&self, volume: &Volume, storage: &mut impl Storage) -> io::Result<()> {
        for cluster in &self.chain[self.stored..] {
            storage.write_all_at(&vec![0; volume.cluster_size], volume.offset_of(*cluster))?;
        }
        Ok(())
    }

    /// Stores records in that order, each run of one sector at once; the rest of the sector stays as it is there.
    fn store_records(
        &self,
        volume: &Volume,
        storage: &mut impl Storage,
        records: &Records,
    ) -> io::Result<()> {
        const IN_A_SECTOR: usize = SECTOR / RECORD_SIZE;
        for run in records.chunk_by(|(a, _), (b, _)| a / IN_A_SECTOR == b / IN_A_SECTOR) {
            let at = run[0].0 / IN_A_SECTOR * SECTOR;
            let cluster = self.chain[at / volume.cluster_size];
            let offset = volume.offset_of(cluster) + (at % volume.cluster_size) as u64;
            let mut sector = [0; SECTOR];
            storage.read_exact_at(&mut sector, offset)?;
            for (number, record) in run {
                sector[number * RECORD_SIZE - at..][..RECORD_SIZE].copy_from_slice(record);
            }
            storage.write_all_at(&sector, offset)?;
        }
        Ok(())
    }
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
