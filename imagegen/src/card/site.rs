//! Changes the `site/` of an image or a card that exists.
//!
//! A card and an image that is not compressed are changed in place, in the order of [`crate::make::fat::change`]: cut short at any moment,
//! each file of `site/` is as it was or as it is to be. A compressed image is made anew beside the old one, which it then replaces; only the
//! pieces of it are packed anew that change, where it has pieces. What describes an image, its block map and its checksum, goes before the
//! change and comes anew after it, so that nothing beside an image ever speaks of another one. A block map that was of another one already
//! says nothing of what matters in this one: the new one has all of it. The provenance goes for good; bills and licences hold for every site.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use sha2::Digest;
use thiserror::Error;

use super::block_map::{BlockMap, parse_block_map};
use super::device::Card;
use super::image::load_checksum;
use super::pieces::PackedImage;
use super::root::has_ssh_server;
use crate::inspect::packed::open_image_file;
use crate::make::disk::packed::{NoPieces, Packing, Piece, load_pieces};
use crate::make::disk::{
    BLOCK_MAP, CHECKSUM, CYCLONEDX, DiskError, Draft, Hashed, ImageFormat, KnownRange, LICENCES,
    PROVENANCE, Papers, SITE_DIRECTORY, SPDX, block_map, checksum_line, cuts, finish_described,
    finish_disk,
};
use crate::make::fat::change::{
    FatChangeError, Storage, change_directories, read_file, read_files,
};
use crate::make::fetch::Progress;
use crate::mbr::{MbrError, Partition, PartitionTable, SECTOR_SIZE};
use crate::overlays::Overlays;
use crate::plan::boot::COMMAND_LINE_FILE;
use crate::plan::disk::{BOOT_PARTITION, Extent, ROOT_PARTITION};
use crate::sha256::Sha256;
use crate::site::SiteChange;
use crate::site::edit::{EditError, Settings, SettingsEdit, edit_settings};

/// Packing a piece of this size takes about a second. Of an image in larger ones all is packed anew, and cut smaller.
const CHANGED_PIECE_MAX: u64 = 1 << 20;

/// As much of a compressed image, in bytes, is compared with its block map before that is believed: it has the disk's signature.
const COMPARED: u64 = 1 << 20;

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
    /// Part of it is missing.
    #[error("it is cut off: partition {number} ends at byte {end}, and the image at {size}")]
    CutOff {
        /// The partition, counted from one.
        number: usize,
        /// Where it ends.
        end: u64,
        /// Where the image does.
        size: u64,
    },
    /// The boot partition.
    #[error(transparent)]
    Fat(#[from] FatChangeError),
    /// The files.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// It was made without a server for the keys.
    #[error("its root has no SSH server, so no SSH key lets anybody in")]
    NoSshServer,
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
            Self::Open { err, .. } => match err.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run the same command as whoever the image belongs to; for a card that is root"
                }
                io::ErrorKind::UnexpectedEof => "it is cut off: copy or make it again",
                _ => "check the path, and whether you may write there",
            }
            .to_owned(),
            Self::NoImage(_) | Self::Fat(FatChangeError::NoDirectory(_)) => {
                "`cargo xtask image` makes images, `cargo xtask flash` cards".to_owned()
            }
            Self::CutOff { .. } => "copy or make it again".to_owned(),
            Self::Fat(FatChangeError::Damaged(_)) => {
                "`fsck.fat` puts the boot partition of a card right; make an image anew".to_owned()
            }
            Self::Fat(FatChangeError::Full { .. }) => {
                "delete what is not needed from the boot partition".to_owned()
            }
            Self::Fat(_) => "make the image or the card anew".to_owned(),
            Self::Edit(error) => error.hint(),
            Self::NoSshServer => {
                "nothing was changed; `cargo xtask image --ssh-key FILE` makes an image with a server, or leave the SSH keys out"
                    .to_owned()
            }
            Self::Disk(error) => error.hint().unwrap_or("make the image anew").to_owned(),
            Self::Beside { .. } => "the same command makes it anew once there is room".to_owned(),
        }
    }
}

/// Returns the settings of an image, compressed or not, or a card.
pub fn load_settings(path: &Path) -> Result<Settings, SiteEditError> {
    let failed = |err| open_error(path, err);
    if let Some(packing) = format_of(path).map_err(failed)?.packing() {
        let file = File::open(path).map_err(failed)?;
        if let Ok(pieces) = load_pieces(packing, &file) {
            return read_settings(&PackedImage::new(&file, packing, &pieces));
        }
    }
    let file = open_image_file(path).map_err(failed)?;
    read_settings(&InPlace::of(&file))
}

/// Changes the settings of a card; returns the names of the files that have changed.
pub fn edit_card(
    card: &mut Card,
    change: &SiteChange,
    overlays: &Overlays,
    time: u32,
) -> Result<Vec<String>, SiteEditError> {
    let edit = plan_edit(card, change, overlays)?;
    apply(card, &edit, time)?;
    Ok(edit.names())
}

/// Changes the settings of an image, compressed or not; returns the names of the files that have changed. `progress` is told if all of a
/// compressed one has to be packed anew, and why.
pub fn edit_image(
    path: &Path,
    change: &SiteChange,
    overlays: &Overlays,
    time: u32,
    progress: &dyn Progress,
) -> Result<Vec<String>, SiteEditError> {
    // A link stays a link.
    let path = fs::canonicalize(path).map_err(|err| open_error(path, err))?;
    let mut edit = Edit {
        path: &path,
        time,
        map: load_map(&path),
        change,
        overlays,
    };
    let format = format_of(&path).map_err(|err| open_error(&path, err))?;
    let Some(packing) = format.packing() else {
        return edit.in_place(progress);
    };
    let file = File::open(&path).map_err(|err| open_error(&path, err))?;
    let why = match edit.find_pieces(packing, &file)? {
        Ok(pieces) => match edit.in_pieces(format, packing, &file, &pieces)? {
            Some(names) => return Ok(names),
            None => NoPieces::Whole.to_string(),
        },
        Err(why) => why,
    };
    edit.anew(format, &why, progress)
}

struct Edit<'a> {
    path: &'a Path,
    time: u32,
    /// The block map beside the image, if there is one.
    map: Option<BlockMap>,
    change: &'a SiteChange,
    overlays: &'a Overlays,
}

impl Edit<'_> {
    fn in_place(&mut self, progress: &dyn Progress) -> Result<Vec<String>, SiteEditError> {
        let opened = OpenOptions::new().read(true).write(true).open(self.path);
        // Another edit of the same image takes its turn.
        let file = opened
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|err| open_error(self.path, err))?;
        let mut image = InPlace::of(&file);
        let size = file
            .metadata()
            .map_err(|err| open_error(self.path, err))?
            .len();
        check_size(&image, size)?;
        let edit = plan_edit(&image, self.change, self.overlays)?;
        if edit.is_empty() {
            return Ok(Vec::new());
        }
        let trusted = self
            .compare_with_what_lies_beside(&file, size, progress)
            .map_err(|err| open_error(self.path, err))?;
        self.prepare(&file)
            .map_err(|err| open_error(self.path, err))?;
        let beside = [BLOCK_MAP, CHECKSUM, PROVENANCE].map(|end| Beside::take(self.path, end));
        // Nothing of what an image was built from made what it is from now on.
        let [map, checksum, _provenance] = beside;
        let (map, checksum) = (map?, checksum?);
        let changed = apply(&mut image, &edit, self.time);
        let touched = image.touched;
        // Each of them reads all of the image, so they go at the same time.
        let (made, digest) = thread::scope(|scope| {
            let made = scope.spawn(|| {
                if !map.existed {
                    return None;
                }
                let used = in_order(self.used(size).iter().chain(&touched));
                // None is taken over: people change such images by other means too.
                let known = [];
                Some(block_map(
                    size,
                    &used,
                    &cuts(&file, size),
                    &known,
                    |part, at| file.read_exact_at(part, at),
                ))
            });
            let digest = (checksum.existed && trusted).then(|| digest_of(&file));
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
        Ok(edit.names())
    }

    /// Returns whether the image is what its checksum was written for, if it has one, and forgets a block map that is not its. People change
    /// images by other means too, so neither is a reason not to; but nobody has looked at an image that does not fit, and a new checksum
    /// would call a damaged one whole.
    fn compare_with_what_lies_beside(
        &mut self,
        file: &File,
        size: u64,
        progress: &dyn Progress,
    ) -> io::Result<bool> {
        let read_at = |part: &mut [u8], at| file.read_exact_at(part, at);
        let (stale, fits) = thread::scope(|scope| {
            let fits = scope.spawn(|| self.fits_checksum(file));
            let stale = match &self.map {
                Some(map) => map.fits(size, u64::MAX, read_at).map(|fits| !fits),
                None => Ok(false),
            };
            let fits: io::Result<bool> = fits
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (stale, fits)
        });
        let (stale, fits) = (stale?, fits?);
        if stale {
            self.map = None;
        }
        if !fits {
            progress.noted(
                "warning: the image is not what its checksum was written for: changed by other means, or damaged; it gets no new checksum",
            );
        } else if stale {
            progress.noted("the block map is not this image's; the new one has all of the image");
        }
        Ok(fits)
    }

    /// Whether the image is what the checksum beside it says, if there is one. One that cannot be read says nothing good.
    fn fits_checksum(&self, file: &File) -> io::Result<bool> {
        match load_checksum(self.path) {
            Ok(Some(checksum)) => Ok(digest_of(file)? == checksum.says),
            Ok(None) => Ok(true),
            Err(_) => Ok(false),
        }
    }

    /// Finds the pieces of a packed image, or why it has to be unpacked as a whole. The block map beside an image that its checksum does
    /// not fit is of another one, too.
    fn find_pieces(
        &mut self,
        packing: Packing,
        file: &File,
    ) -> Result<Result<Vec<Piece>, String>, SiteEditError> {
        let failed = |err| open_error(self.path, err);
        let (pieces, digest) = thread::scope(|scope| {
            let pieces = scope.spawn(|| load_pieces(packing, file));
            let fits = self.fits_checksum(file);
            let pieces = pieces
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (pieces, fits)
        });
        // A new checksum of pieces that nobody has looked at would call a damaged image whole.
        if !digest.map_err(failed)? {
            self.map = None;
            return Ok(Err("it is not what its checksum was written for".to_owned()));
        }
        match pieces {
            Ok(pieces) => Ok(Ok(pieces)),
            Err(NoPieces::Io(err)) => Err(failed(err)),
            Err(why @ (NoPieces::Whole | NoPieces::Misfit)) => Ok(Err(why.to_string())),
        }
    }

    /// Packs those pieces anew that change; nothing comes of it if they are too large for that.
    fn in_pieces(
        &mut self,
        format: ImageFormat,
        packing: Packing,
        file: &File,
        pieces: &[Piece],
    ) -> Result<Option<Vec<String>>, SiteEditError> {
        let mut image = PackedImage::new(file, packing, pieces);
        check_size(&image, image.size())?;
        let edit = plan_edit(&image, self.change, self.overlays)?;
        if edit.is_empty() {
            return Ok(Some(Vec::new()));
        }
        self.forget_map_of_another(image.size(), COMPARED, image.reader())
            .map_err(|err| open_error(self.path, err))?;
        apply(&mut image, &edit, self.time)?;
        if image.largest_changed() > CHANGED_PIECE_MAX {
            return Ok(None);
        }
        let draft = Draft::create(self.path, format)?;
        let (map, digest) = thread::scope(|scope| {
            let map = scope.spawn(|| {
                let (size, cuts) = (image.size(), image.cuts());
                self.map_of_changed(size, image.touched(), &cuts, image.reader())
            });
            let mut hash = Hashed::new(draft.packed());
            image.write(&mut hash)?;
            let map = map
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok((map?, hash.finish()))
        })
        .map_err(|err| self.write_error(err))?;
        let kept = self.papers().map_err(|err| self.write_error(err))?;
        finish_described(draft, image.size(), kept, map, digest)?;
        Ok(Some(edit.names()))
    }

    fn anew(
        &mut self,
        format: ImageFormat,
        why: &str,
        progress: &dyn Progress,
    ) -> Result<Vec<String>, SiteEditError> {
        let failed = |err| open_error(self.path, err);
        let mut unpacked = open_image_file(self.path).map_err(failed)?;
        let size = unpacked.metadata().map_err(failed)?.len();
        check_size(&InPlace::of(&unpacked), size)?;
        let edit = plan_edit(&InPlace::of(&unpacked), self.change, self.overlays)?;
        if edit.is_empty() {
            return Ok(Vec::new());
        }
        let read_at = |part: &mut [u8], at| unpacked.read_exact_at(part, at);
        self.forget_map_of_another(size, u64::MAX, read_at)
            .map_err(|err| open_error(self.path, err))?;
        progress.started(&format!("packing all of the image anew: {why}"), None);
        let packed = self.pack_whole(format, &mut unpacked, size, &edit);
        progress.finished();
        packed?;
        Ok(edit.names())
    }

    fn pack_whole(
        &self,
        format: ImageFormat,
        unpacked: &mut File,
        size: u64,
        edit: &SettingsEdit,
    ) -> Result<(), SiteEditError> {
        let draft = Draft::create(self.path, format)?;
        io::copy(unpacked, &mut draft.image()).map_err(|err| self.write_error(err))?;
        let mut image = InPlace::of(draft.image());
        apply(&mut image, edit, self.time)?;
        let used = in_order(self.used(size).iter().chain(&image.touched));
        let kept = self.papers().map_err(|err| self.write_error(err))?;
        finish_disk(draft, size, &used, |_, _| kept)?;
        Ok(())
    }

    /// Returns whether the block map beside the image is of another one, as far as so many bytes of it tell; nobody believes it then.
    fn forget_map_of_another(
        &mut self,
        size: u64,
        most: u64,
        read_at: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<bool> {
        let stale = match &self.map {
            Some(map) => !map.fits(size, most, read_at)?,
            None => false,
        };
        if stale {
            self.map = None;
        }
        Ok(stale)
    }

    /// The block map beside the image, if it can be of one of this size.
    fn map_of(&self, size: u64) -> Option<&BlockMap> {
        self.map.as_ref().filter(|map| map.image_size == size)
    }

    /// What of the image matters, as its block map says; all of it if there is none.
    fn used(&self, size: u64) -> Vec<Extent> {
        let Some(map) = self.map_of(size) else {
            return vec![Extent { offset: 0, size }];
        };
        let extents = map.ranges.iter().map(|range| Extent {
            offset: range.offset,
            size: range.size,
        });
        extents.collect()
    }

    /// Makes the block map of an image of which this has been written to. What has not been, and is in the map there is, is not read.
    fn map_of_changed(
        &self,
        size: u64,
        touched: &[Extent],
        cuts: &[u64],
        read_at: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<String> {
        let used = in_order(self.used(size).iter().chain(touched));
        let old = self.map_of(size).into_iter().flat_map(|map| &map.ranges);
        let known = old.map(|range| KnownRange {
            extent: Extent {
                offset: range.offset,
                size: range.size,
            },
            digest: range.digest,
        });
        let same = |known: &KnownRange| !touched.iter().any(|part| meet(part, &known.extent));
        let known: Vec<KnownRange> = known.filter(same).collect();
        block_map(size, &used, cuts, &known, read_at)
    }

    fn write_error(&self, err: io::Error) -> DiskError {
        DiskError::Write {
            path: self.path.to_owned(),
            err,
        }
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
    touched: Vec<Extent>,
}

impl<'a> InPlace<'a> {
    fn of(file: &'a File) -> Self {
        Self {
            file,
            touched: Vec::new(),
        }
    }
}

impl Storage for InPlace<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.touched.push(Extent {
            offset: at,
            size: bytes.len() as u64,
        });
        self.file.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Returns what has to happen, if it can do what it is for.
fn plan_edit(
    storage: &impl Storage,
    change: &SiteChange,
    overlays: &Overlays,
) -> Result<SettingsEdit, SiteEditError> {
    let edit = edit_settings(&read_settings(storage)?, change, overlays)?;
    if change.ssh_keys.is_some() {
        let root = partitions(storage)?[usize::from(ROOT_PARTITION) - 1];
        if root.and_then(|root| has_ssh_server(storage, &root)) == Some(false) {
            return Err(SiteEditError::NoSshServer);
        }
    }
    Ok(edit)
}

/// Fails if a partition is not whole.
fn check_size(storage: &impl Storage, size: u64) -> Result<(), SiteEditError> {
    for (number, partition) in (1..).zip(partitions(storage)?) {
        let end = partition.map_or(0, |partition| partition.offset() + partition.size());
        if end > size {
            return Err(SiteEditError::CutOff { number, end, size });
        }
    }
    Ok(())
}

fn apply(storage: &mut impl Storage, edit: &SettingsEdit, time: u32) -> Result<(), SiteEditError> {
    let offset = boot_offset(storage)?;
    let changes = [(SITE_DIRECTORY, &*edit.site), ("", &*edit.boot)];
    let changes: Vec<_> = changes
        .into_iter()
        .filter(|(_, changes)| !changes.is_empty())
        .collect();
    if !changes.is_empty() {
        change_directories(storage, offset, &changes, time)?;
    }
    Ok(())
}

fn read_settings(storage: &impl Storage) -> Result<Settings, SiteEditError> {
    let offset = boot_offset(storage)?;
    Ok(Settings {
        site: read_files(storage, offset, SITE_DIRECTORY)?,
        command_line: read_file(storage, offset, COMMAND_LINE_FILE)?,
    })
}

fn boot_offset(storage: &impl Storage) -> Result<u64, SiteEditError> {
    let partition = partitions(storage)?[usize::from(BOOT_PARTITION) - 1];
    let none = || SiteEditError::NoImage("there is no boot partition".to_owned());
    Ok(partition.ok_or_else(none)?.offset())
}

fn partitions(storage: &impl Storage) -> Result<[Option<Partition>; 4], SiteEditError> {
    let mut sector = [0; SECTOR_SIZE as usize];
    let no_image = |why: String| SiteEditError::NoImage(why);
    storage
        .read_exact_at(&mut sector, 0)
        .map_err(|err| no_image(err.to_string()))?;
    let table =
        PartitionTable::decode(&sector).map_err(|err: MbrError| no_image(err.to_string()))?;
    Ok(table.partitions)
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

fn load_map(image: &Path) -> Option<BlockMap> {
    let mut text = String::new();
    let file = File::open(beside(image, BLOCK_MAP)).ok()?;
    file.take(BLOCK_MAP_MAX).read_to_string(&mut text).ok()?;
    parse_block_map(&text).ok()
}

fn meet(a: &Extent, b: &Extent) -> bool {
    a.offset < b.offset + b.size && b.offset < a.offset + a.size
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

fn open_error(path: &Path, err: io::Error) -> SiteEditError {
    SiteEditError::Open {
        path: path.to_owned(),
        err,
    }
}
