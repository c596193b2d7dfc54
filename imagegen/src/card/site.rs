//! Changes the `site/` of an image or a card that exists.
//!
//! A card and an image that is not compressed are changed in place, in the order of [`crate::make::fat::change`]: cut short at any moment,
//! each file of `site/` is as it was or as it is to be. A compressed image is made anew beside the old one, which it then replaces. What
//! describes an image, its block map and its checksum, goes before the change and comes anew after it, so that nothing beside an image ever
//! speaks of another one. Its provenance goes for good; its bills and licences hold for every site.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use sha2::Digest;
use thiserror::Error;

use super::block_map::parse_block_map;
use super::device::Card;
use crate::inspect::packed::open_image_file;
use crate::make::disk::{
    BLOCK_MAP, CHECKSUM, CYCLONEDX, DiskError, Draft, ImageFormat, LICENCES, PROVENANCE, Papers,
    SPDX, block_map, checksum_line, finish_disk,
};
use crate::make::fat::change::{FatChangeError, FileChange, Storage, change_files, read_files};
use crate::mbr::{MbrError, PartitionTable, SECTOR_SIZE};
use crate::overlays::Overlays;
use crate::plan::disk::{BOOT_PARTITION, Extent};
use crate::sha256::Sha256;
use crate::site::SiteChange;
use crate::site::edit::{EditError, SiteFiles, edit_site};

/// The directory on the boot partition.
const DIRECTORY: &str = "site";

/// No block map is longer.
const BLOCK_MAP_MAX: u64 = 16 << 20;

/// Why a `site/` was not changed, or not shown.
#[derive(Debug, Error)]
pub enum SiteEditError {
    /// The image or card cannot be read, or written to.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// There is no partition table, or no boot partition in it.
    #[error("it is no image of this program's: {0}")]
    NoImage(String),
    /// The boot partition.
    #[error(transparent)]
    Fat(#[from] FatChangeError),
    /// The files.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The image could not be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Something beside the image could not be written.
    #[error("the image is changed, but what describes it is gone: failed to write {}", path.display())]
    Beside {
        /// What.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
}

impl SiteEditError {
    /// Returns what can be done about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Open { .. } => "check the path, and whether you may write there".to_owned(),
            Self::NoImage(_) | Self::Fat(FatChangeError::NoDirectory(_)) => {
                "`cargo xtask image` makes images, `cargo xtask flash` cards".to_owned()
            }
            Self::Fat(FatChangeError::Damaged(_)) => {
                "`fsck.fat` puts the boot partition of a card right; make an image anew".to_owned()
            }
            Self::Fat(FatChangeError::Full { .. }) => {
                "delete what is not needed from the boot partition".to_owned()
            }
            Self::Fat(_) => "make the image or the card anew".to_owned(),
            Self::Edit(error) => error.hint(),
            Self::Disk(error) => error.hint().unwrap_or("make the image anew").to_owned(),
            Self::Beside { .. } => "the same command makes it anew once there is room".to_owned(),
        }
    }
}

/// Returns the files of `site/` of an image, compressed or not, or a card.
pub fn load_site(path: &Path) -> Result<SiteFiles, SiteEditError> {
    let file = open_image_file(path).map_err(|err| open_error(path, err))?;
    read_site(&InPlace::of(&file))
}

/// Changes the `site/` of a card; returns the names of the files that have changed.
pub fn edit_card(
    card: &mut Card,
    change: &SiteChange,
    overlays: &Overlays,
    time: u32,
) -> Result<Vec<String>, SiteEditError> {
    let changes = edit_site(&read_site(card)?, change, overlays)?;
    let offset = boot_offset(card)?;
    if !changes.is_empty() {
        change_files(card, offset, DIRECTORY, &changes, time)?;
    }
    Ok(names(changes))
}

/// Changes the `site/` of an image, compressed or not; returns the names of the files that have changed.
pub fn edit_image(
    path: &Path,
    change: &SiteChange,
    overlays: &Overlays,
    time: u32,
) -> Result<Vec<String>, SiteEditError> {
    // A link stays a link.
    let path = fs::canonicalize(path).map_err(|err| open_error(path, err))?;
    let edit = Edit {
        path: &path,
        time,
        used: mapped(&path),
    };
    match format_of(&path).map_err(|err| open_error(&path, err))? {
        ImageFormat::Img => edit.in_place(change, overlays),
        format => edit.anew(format, change, overlays),
    }
}

struct Edit<'a> {
    path: &'a Path,
    time: u32,
    /// What of the image matters, as the block map beside it says; nothing if there is none.
    used: Option<Vec<Extent>>,
}

impl Edit<'_> {
    fn in_place(
        &self,
        change: &SiteChange,
        overlays: &Overlays,
    ) -> Result<Vec<String>, SiteEditError> {
        let opened = OpenOptions::new().read(true).write(true).open(self.path);
        // Another edit of the same image takes its turn.
        let file = opened
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|err| open_error(self.path, err))?;
        let mut image = InPlace::of(&file);
        let changes = edit_site(&read_site(&image)?, change, overlays)?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let offset = boot_offset(&image)?;
        self.prepare(&file)
            .map_err(|err| open_error(self.path, err))?;
        let beside = [BLOCK_MAP, CHECKSUM, PROVENANCE].map(|end| Beside::take(self.path, end));
        // Nothing of what an image was built from made what it is from now on.
        let [map, checksum, _provenance] = beside;
        let (map, checksum) = (map?, checksum?);
        let changed = change_files(&mut image, offset, DIRECTORY, &changes, self.time);
        let touched = image.touched.into_inner();
        let size = file
            .metadata()
            .map_err(|err| open_error(self.path, err))?
            .len();
        // Each of them reads all of the image, so they go at the same time.
        let (made, digest) = thread::scope(|scope| {
            let made = scope.spawn(|| {
                let used = self.used.as_ref().filter(|_| map.existed)?;
                let used = in_order(used.iter().chain(&touched));
                Some(block_map(size, &used, |part, at| {
                    file.read_exact_at(part, at)
                }))
            });
            let digest = checksum.existed.then(|| digest_of(&file));
            let made = made
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (made, digest)
        });
        if let Some(text) = made {
            map.put(text)?;
        }
        if let Some(digest) = digest {
            let name = self.path.file_name().unwrap_or_default();
            checksum.put(digest.map(|digest| checksum_line(digest, name)))?;
        }
        // What describes the image holds for what it is now, changed or not.
        changed?;
        Ok(names(changes))
    }

    fn anew(
        &self,
        format: ImageFormat,
        change: &SiteChange,
        overlays: &Overlays,
    ) -> Result<Vec<String>, SiteEditError> {
        let failed = |err| open_error(self.path, err);
        let mut unpacked = open_image_file(self.path).map_err(failed)?;
        let size = unpacked.metadata().map_err(failed)?.len();
        let changes = edit_site(&read_site(&InPlace::of(&unpacked))?, change, overlays)?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let draft = Draft::create(self.path, format)?;
        let write = |err| DiskError::Write {
            path: self.path.to_owned(),
            err,
        };
        io::copy(&mut unpacked, &mut draft.image()).map_err(write)?;
        let mut image = InPlace::of(draft.image());
        let offset = boot_offset(&image)?;
        change_files(&mut image, offset, DIRECTORY, &changes, self.time)?;
        let touched = image.touched.into_inner();
        let whole = vec![Extent { offset: 0, size }];
        let used = self.used.as_ref().unwrap_or(&whole);
        let used = in_order(used.iter().chain(&touched));
        let kept = self.papers().map_err(write)?;
        finish_disk(draft, size, &used, |_, _| kept)?;
        Ok(names(changes))
    }

    /// What lies beside the image and has nothing of the site in it.
    fn papers(&self) -> io::Result<Papers> {
        let mut papers = Papers::new();
        for end in [CYCLONEDX, SPDX, LICENCES] {
            match fs::read_to_string(beside(self.path, end)) {
                Ok(text) => drop(papers.insert(end, text)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
        }
        Ok(papers)
    }

    /// What goes into the image is nobody else's business, whatever the file's mode was.
    fn prepare(&self, file: &File) -> io::Result<()> {
        let mode = file.metadata()?.permissions().mode();
        file.set_permissions(Permissions::from_mode(mode & 0o700))
    }
}

/// Something that describes an image and has its name with something after it.
struct Beside {
    path: PathBuf,
    existed: bool,
}

impl Beside {
    /// Removes it, because it is about to be wrong.
    fn take(image: &Path, end: &str) -> Result<Self, SiteEditError> {
        let path = beside(image, end);
        match fs::remove_file(&path) {
            Ok(()) => Ok(Self {
                path,
                existed: true,
            }),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Self {
                path,
                existed: false,
            }),
            Err(err) => Err(open_error(&path, err)),
        }
    }

    fn put(self, text: io::Result<String>) -> Result<(), SiteEditError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(text?.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|err| err.error)?;
            Ok(())
        };
        write().map_err(|err| SiteEditError::Beside {
            path: self.path.clone(),
            err,
        })
    }
}

/// A file changed in place, and what of it was written to.
struct InPlace<'a> {
    file: &'a File,
    touched: RefCell<Vec<Extent>>,
}

impl<'a> InPlace<'a> {
    fn of(file: &'a File) -> Self {
        Self {
            file,
            touched: RefCell::new(Vec::new()),
        }
    }
}

impl Storage for InPlace<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.touched.get_mut().push(Extent {
            offset: at,
            size: bytes.len() as u64,
        });
        self.file.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn read_site(storage: &impl Storage) -> Result<SiteFiles, SiteEditError> {
    Ok(read_files(storage, boot_offset(storage)?, DIRECTORY)?)
}

fn boot_offset(storage: &impl Storage) -> Result<u64, SiteEditError> {
    let mut sector = [0; SECTOR_SIZE as usize];
    let no_image = |why: String| SiteEditError::NoImage(why);
    storage
        .read_exact_at(&mut sector, 0)
        .map_err(|err| no_image(err.to_string()))?;
    let table =
        PartitionTable::decode(&sector).map_err(|err: MbrError| no_image(err.to_string()))?;
    let partition = table.partitions[usize::from(BOOT_PARTITION) - 1];
    let partition = partition.ok_or_else(|| no_image("there is no boot partition".to_owned()))?;
    Ok(partition.offset())
}

/// What a file's first bytes say it is.
fn format_of(path: &Path) -> io::Result<ImageFormat> {
    let mut magic = Vec::new();
    File::open(path)?.take(6).read_to_end(&mut magic)?;
    Ok(match *magic {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ImageFormat::ImgZst,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => ImageFormat::ImgXz,
        _ => ImageFormat::Img,
    })
}

fn beside(image: &Path, end: &str) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn mapped(image: &Path) -> Option<Vec<Extent>> {
    let mut text = String::new();
    let file = File::open(beside(image, BLOCK_MAP)).ok()?;
    file.take(BLOCK_MAP_MAX).read_to_string(&mut text).ok()?;
    let map = parse_block_map(&text).ok()?;
    let extents = map.ranges.iter().map(|range| Extent {
        offset: range.offset,
        size: range.size,
    });
    Some(extents.collect())
}

fn in_order<'a>(extents: impl Iterator<Item = &'a Extent>) -> Vec<Extent> {
    let mut extents: Vec<Extent> = extents.copied().collect();
    extents.sort_by_key(|extent| extent.offset);
    extents
}

fn digest_of(file: &File) -> io::Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(Sha256(hash.finalize().into())),
            read => {
                hash.update(&buffer[..read]);
                at += read as u64;
            }
        }
    }
}

fn names(changes: Vec<FileChange>) -> Vec<String> {
    changes.into_iter().map(|change| change.name).collect()
}

fn open_error(path: &Path, err: io::Error) -> SiteEditError {
    SiteEditError::Open {
        path: path.to_owned(),
        err,
    }
}
