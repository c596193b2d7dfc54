//! An image that is to go on a card, looked through from end to end before anything is erased for it.
//!
//! The file's checksum (`.sha256`) and every range of its block map (`.bmap`) have to fit, where there are such files beside it. Without a
//! map one is made of all of its bytes: that a block has only zeros does not mean that an old card's may stay.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use sha2::Digest;
use thiserror::Error;

use super::block_map::{BlockMap, BlockMapError, MappedRange, parse_block_map};
use crate::inspect::packed::{ImageStream, UNPACKED_MAX, open_image_stream};
use crate::make::disk::{BLOCK_MAP, CHECKSUM};
use crate::make::fetch::Progress;
use crate::make::image::BOOT_LABEL;
use crate::mbr::{Partition, PartitionKind, PartitionTable, SECTOR_SIZE};
use crate::plan::disk::{BOOT_PARTITION, ROOT_PARTITION};
use crate::sha256::Sha256;

/// What is read, compared and written at a time.
pub(super) const CHUNK: u64 = 1 << 20;

/// The first block, which is written last: the partition table, and what an older one of another kind would have after it.
pub(super) const HEAD: u64 = 4096;

/// A range of a map that is made here.
const MADE_RANGE: u64 = 4 << 20;

/// Maps and checksums are text of a few kilobytes.
const BESIDE_MAX: u64 = 16 << 20;

/// Where a FAT32 has its label and its kind (FAT specification, section 3.3).
const FAT_LABEL: std::ops::Range<usize> = 71..82;
const FAT_KIND: std::ops::Range<usize> = 82..90;

const SQUASHFS_MAGIC: &[u8] = b"hsqs";

/// An image whose bytes were all read once, and fitted what is said of them.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its file, compressed or not.
    pub path: PathBuf,
    /// What of it goes on a card.
    pub map: BlockMap,
    /// Which of the files that say something of it are not beside it.
    pub missing: Vec<PathBuf>,
    /// The first block.
    pub(super) head: Vec<u8>,
}

/// Why a file is not written to a card.
#[derive(Debug, Error)]
pub enum ImageFault {
    /// It cannot be read, or is damaged so that it cannot be unpacked.
    #[error("cannot read {}", path.display())]
    Read {
        /// The image, or a file beside it.
        path: PathBuf,
        /// What the system or the decoder said.
        #[source]
        err: io::Error,
    },
    /// A folder or a device.
    #[error("{} is not a file", .0.display())]
    NoFile(PathBuf),
    /// The checksum beside it is of another file.
    #[error("{} is damaged, or is not the file that {} was written for", path.display(), checksum.display())]
    Checksum {
        /// The image.
        path: PathBuf,
        /// The checksum's file.
        checksum: PathBuf,
    },
    /// The file beside it has no checksum.
    #[error("{} has no SHA-256 checksum in it", .0.display())]
    ChecksumSyntax(PathBuf),
    /// The map beside it is none.
    #[error("{} is no block map", path.display())]
    BlockMap {
        /// The map's file.
        path: PathBuf,
        /// Why.
        #[source]
        err: BlockMapError,
    },
    /// The map is of another image.
    #[error("{} is damaged, or is not the image that {} was written for: byte {at} and after differ", path.display(), map.display())]
    Misfit {
        /// The image.
        path: PathBuf,
        /// The map's file.
        map: PathBuf,
        /// Where the range begins that does not fit.
        at: u64,
    },
    /// Another kind of file.
    #[error("{} is no Footbridge image: {why}", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What gives it away.
        why: &'static str,
    },
}

impl ImageFault {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Read { .. } | Self::NoFile(_) | Self::NotOurs { .. } => {
                "`cargo xtask image` makes an image and prints its path".to_owned()
            }
            Self::Checksum { .. } | Self::ChecksumSyntax(_) => {
                "build or copy the image again, and the files beside it with it".to_owned()
            }
            Self::BlockMap { path, .. } | Self::Misfit { map: path, .. } => format!(
                "build or copy the image again, and the files beside it with it; without {} all of the image is written",
                path.display()
            ),
        }
    }
}

/// Reads all of an image and compares it with what is said of it.
pub fn examine(path: &Path, progress: &dyn Progress) -> Result<Image, ImageFault> {
    let read = |err| ImageFault::Read {
        path: path.to_owned(),
        err,
    };
    let metadata = fs::metadata(path).map_err(read)?;
    if !metadata.is_file() {
        return Err(ImageFault::NoFile(path.to_owned()));
    }
    let checksum = load_checksum(path)?;
    let map = load_block_map(path)?;
    let missing = [(CHECKSUM, checksum.is_none()), (BLOCK_MAP, map.is_none())];
    let missing: Vec<PathBuf> = missing
        .iter()
        .filter(|(_, is_missing)| *is_missing)
        .map(|(suffix, _)| beside(path, suffix))
        .collect();
    progress.started("checking the image", None);
    let examined = thread::scope(|scope| {
        let contents = scope.spawn(|| examine_contents(path, map.as_ref(), missing));
        let checked = checksum
            .as_ref()
            .map_or(Ok(()), |checksum| check_file(path, checksum));
        let contents = contents
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A file that its checksum does not fit is damaged, whatever else that leads to.
        checked.and(contents)
    });
    progress.finished();
    examined
}

/// Compares a file with the checksum beside it; whether there is one.
pub fn compare_checksum(path: &Path) -> Result<bool, ImageFault> {
    match load_checksum(path)? {
        Some(checksum) => check_file(path, &checksum).map(|()| true),
        None => Ok(false),
    }
}

/// A file of which something is said beside it.
pub(super) struct Beside<T> {
    path: PathBuf,
    pub(super) says: T,
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The text of a file beside the image, if there is one.
fn load_beside(image: &Path, suffix: &str) -> Result<Option<Beside<String>>, ImageFault> {
    let path = beside(image, suffix);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(BESIDE_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(Beside {
            path,
            says: String::from_utf8_lossy(&bytes).into_owned(),
        })),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(ImageFault::Read { path, err }),
    }
}

/// The checksum beside an image, if there is one.
pub(super) fn load_checksum(image: &Path) -> Result<Option<Beside<Sha256>>, ImageFault> {
    let Some(Beside { path, says }) = load_beside(image, CHECKSUM)? else {
        return Ok(None);
    };
    // A backslash marks a line whose name has one.
    let word = says.split_ascii_whitespace().next().unwrap_or_default();
    match word.trim_start_matches('\\').parse() {
        Ok(says) => Ok(Some(Beside { path, says })),
        Err(_) => Err(ImageFault::ChecksumSyntax(path)),
    }
}

fn load_block_map(image: &Path) -> Result<Option<Beside<BlockMap>>, ImageFault> {
    let Some(Beside { path, says }) = load_beside(image, BLOCK_MAP)? else {
        return Ok(None);
    };
    match parse_block_map(&says) {
        Ok(says) => Ok(Some(Beside { path, says })),
        Err(err) => Err(ImageFault::BlockMap { path, err }),
    }
}

fn check_file(path: &Path, checksum: &Beside<Sha256>) -> Result<(), ImageFault> {
    let digest = digest_file(path).map_err(|err| ImageFault::Read {
        path: path.to_owned(),
        err,
    })?;
    if digest == checksum.says {
        return Ok(());
    }
    Err(ImageFault::Checksum {
        path: path.to_owned(),
        checksum: checksum.path.clone(),
    })
}

fn digest_file(path: &Path) -> io::Result<Sha256> {
    let mut file = File::open(path)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; CHUNK as usize];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Sha256(hash.finalize().into())),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn examine_contents(
    path: &Path,
    map: Option<&Beside<BlockMap>>,
    missing: Vec<PathBuf>,
) -> Result<Image, ImageFault> {
    let read = |err| ImageFault::Read {
        path: path.to_owned(),
        err,
    };
    let mut stream = open_image_stream(path).map_err(read)?;
    let mut probes = Probes::default();
    let map = match map {
        Some(map) => {
            compare(path, map, &mut stream, &mut probes)?;
            map.says.clone()
        }
        None => make_map(&mut stream, &mut probes).map_err(read)?,
    };
    probes.judge().map_err(|why| ImageFault::NotOurs {
        path: path.to_owned(),
        why,
    })?;
    Ok(Image {
        path: path.to_owned(),
        map,
        missing,
        head: probes.head,
    })
}

fn compare(
    path: &Path,
    map: &Beside<BlockMap>,
    stream: &mut ImageStream,
    probes: &mut Probes,
) -> Result<(), ImageFault> {
    let misfit = |at| ImageFault::Misfit {
        path: path.to_owned(),
        map: map.path.clone(),
        at,
    };
    // An image that ends early does not fit its map; anything else is the file's or the decoder's trouble.
    let explain = |err: io::Error, at| match err.kind() {
        io::ErrorKind::UnexpectedEof => misfit(at),
        _ => ImageFault::Read {
            path: path.to_owned(),
            err,
        },
    };
    let mut at = 0;
    for range in &map.says.ranges {
        stream
            .skip(range.offset - at)
            .map_err(|err| explain(err, range.offset))?;
        let digest =
            digest_range(stream, range, probes).map_err(|err| explain(err, range.offset))?;
        if digest != range.digest {
            return Err(misfit(range.offset));
        }
        at = range.end();
    }
    let end = map.says.image_size;
    stream.skip(end - at).map_err(|err| explain(err, at))?;
    match stream.read(&mut [0]).map_err(|err| explain(err, end))? {
        0 => Ok(()),
        _ => Err(misfit(end)),
    }
}

fn digest_range(
    stream: &mut ImageStream,
    range: &MappedRange,
    probes: &mut Probes,
) -> io::Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; CHUNK as usize];
    let mut at = range.offset;
    while at < range.end() {
        let part = &mut buffer[..(range.end() - at).min(CHUNK) as usize];
        stream.read_exact(part)?;
        hash.update(&*part);
        probes.see(at, part);
        at += part.len() as u64;
    }
    Ok(Sha256(hash.finalize().into()))
}

fn make_map(stream: &mut ImageStream, probes: &mut Probes) -> io::Result<BlockMap> {
    let mut ranges = Vec::new();
    let mut at = 0;
    let mut part = Vec::new();
    loop {
        part.clear();
        stream.by_ref().take(MADE_RANGE).read_to_end(&mut part)?;
        if part.is_empty() {
            return Ok(BlockMap {
                image_size: at,
                ranges,
            });
        }
        if at >= UNPACKED_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        probes.see(at, &part);
        ranges.push(MappedRange {
            offset: at,
            size: part.len() as u64,
            digest: Sha256::of(&part),
        });
        at += part.len() as u64;
    }
}

/// What is remembered of the bytes that pass, to see whose image they are.
#[derive(Default)]
struct Probes {
    /// The first block.
    head: Vec<u8>,
    /// The first bytes of the partitions.
    boot: Option<Vec<u8>>,
    root: Option<Vec<u8>>,
}

impl Probes {
    /// Looks at bytes that begin at an offset of the image. Partitions begin at multiples of a sector, and so does what passes.
    fn see(&mut self, at: u64, bytes: &[u8]) {
        if at == 0 {
            self.head = bytes[..bytes.len().min(HEAD as usize)].to_vec();
        }
        let sector_at = |partition: Option<Partition>| {
            let begin = usize::try_from(partition?.offset().checked_sub(at)?).ok()?;
            let end = begin.checked_add(SECTOR_SIZE as usize)?;
            Some(bytes.get(begin..end)?.to_vec())
        };
        if self.boot.is_none() {
            self.boot = sector_at(self.partition(BOOT_PARTITION));
        }
        if self.root.is_none() {
            self.root = sector_at(self.partition(ROOT_PARTITION));
        }
    }

    fn table(&self) -> Option<PartitionTable> {
        let sector = self.head.first_chunk()?;
        PartitionTable::decode(sector).ok()
    }

    fn partition(&self, number: u8) -> Option<Partition> {
        self.table()?.partitions[usize::from(number) - 1]
    }

    /// Says what is not as in our images.
    fn judge(&self) -> Result<(), &'static str> {
        if self.head.len() < HEAD as usize || self.table().is_none() {
            return Err("it does not begin with a partition table");
        }
        let is = |number, kind| {
            self.partition(number)
                .is_some_and(|partition| partition.kind == kind)
        };
        if !is(BOOT_PARTITION, PartitionKind::FAT32_LBA)
            || !is(ROOT_PARTITION, PartitionKind::LINUX)
        {
            return Err("its partitions are not a boot partition and a root");
        }
        let boot = self.boot.as_deref().unwrap_or_default();
        let label = boot.get(FAT_LABEL).unwrap_or_default();
        if boot.get(FAT_KIND) != Some(b"FAT32   ")
            || label.trim_ascii_end() != BOOT_LABEL.as_bytes()
        {
            return Err("its first partition is not our boot partition");
        }
        let root = self.root.as_deref().unwrap_or_default();
        if !root.starts_with(SQUASHFS_MAGIC) {
            return Err("its second partition is no squashfs");
        }
        Ok(())
    }
}
