//! The temporary files that an image and what describes it grow in, beside the final ones.
//!
//! They are locked for as long as somebody writes them, and a lock dies with its owner. So a later build can tell what a killed one left, and
//! removes that; it never touches a file of another user, or one that it cannot lock.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::DiskError;
use super::format::ImageFormat;

const SUFFIX: &str = ".part";

/// What is added to an image's name for its block map.
pub(crate) const BLOCK_MAP: &str = ".bmap";
/// For its bill of materials as CycloneDX.
pub const CYCLONEDX: &str = ".cdx.json";
/// For the licences of what is in it.
pub const LICENCES: &str = ".licences.txt";
/// For its provenance.
pub const PROVENANCE: &str = ".provenance.json";
/// For its checksum.
pub(crate) const CHECKSUM: &str = ".sha256";
/// For its bill of materials as SPDX.
pub const SPDX: &str = ".spdx.json";

/// Everything that may lie beside an image.
const BESIDE: [&str; 6] = [BLOCK_MAP, CYCLONEDX, SPDX, LICENCES, PROVENANCE, CHECKSUM];

/// Texts that lie beside an image, by what is added to its name.
pub type Papers = BTreeMap<&'static str, String>;

/// Random characters that `tempfile` puts before the suffix.
const RANDOM: usize = 6;

/// An image that has no name yet, with what is to lie beside it. All of it is removed when it is dropped.
#[derive(Debug)]
pub struct Draft {
    format: ImageFormat,
    /// The image as it will be on the card.
    image: Partial,
    /// The same compressed, where the format asks for it.
    packed: Option<Partial>,
    /// In the order of [`BESIDE`].
    beside: Vec<(&'static str, Partial)>,
}

/// A file on its way to its name.
#[derive(Debug)]
struct Partial {
    file: NamedTempFile,
    destination: PathBuf,
}

impl Draft {
    /// Begins an image that will have this name, and removes what killed builds of it left. Shows early whether it can be written at all.
    pub fn create(path: &Path, format: ImageFormat) -> Result<Self, DiskError> {
        let destination = final_path(path)?;
        // All of them before any is begun: nothing is made if one of them cannot be.
        let beside = BESIDE
            .into_iter()
            .map(|suffix| Ok((suffix, final_path(&beside(&destination, suffix))?)))
            .collect::<Result<Vec<_>, DiskError>>()?;
        let packed = match format {
            ImageFormat::Img => None,
            ImageFormat::ImgZst | ImageFormat::ImgXz => Some(Partial::create(&destination)?),
        };
        Ok(Draft {
            format,
            image: Partial::create(&destination)?,
            packed,
            beside: beside
                .into_iter()
                .map(|(suffix, path)| Ok((suffix, Partial::create(&path)?)))
                .collect::<Result<_, DiskError>>()?,
        })
    }

    /// Returns the paths of the temporary files, the one first that becomes the image: who ends the program early removes them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let unpacked = self.packed.iter().map(|_| &self.image);
        let beside = self.beside.iter().map(|(_, partial)| partial);
        [self.named()]
            .into_iter()
            .chain(beside)
            .chain(unpacked)
            .map(|partial| partial.file.path())
    }

    pub(in crate::make) fn format(&self) -> ImageFormat {
        self.format
    }

    pub(crate) fn destination(&self) -> &Path {
        &self.image.destination
    }

    pub(super) fn directory(&self) -> &Path {
        directory_of(&self.image.destination)
    }

    /// The image as it will be on the card.
    pub(crate) fn image(&self) -> &File {
        self.image.file.as_file()
    }

    /// Where the compressed image goes, if there is one.
    pub(crate) fn packed(&self) -> Option<&File> {
        self.packed.as_ref().map(|partial| partial.file.as_file())
    }

    /// Brings to the disk what has been written of the file that becomes the image.
    pub(super) fn sync_named(&self) -> io::Result<()> {
        self.named().file.as_file().sync_all()
    }

    /// Gives everything its name, once all of it is on the disk.
    ///
    /// What describes an older image goes first and what describes this one comes last, so that whoever looks in between finds a whole
    /// image, and beside it nothing that speaks of another one.
    pub(super) fn finish(mut self, papers: &Papers) -> io::Result<()> {
        let directory = self.directory().to_owned();
        for (suffix, partial) in &mut self.beside {
            if let Some(text) = papers.get(suffix) {
                partial.file.write_all(text.as_bytes())?;
                partial.file.as_file().sync_all()?;
            }
        }
        self.named().file.as_file().sync_all()?;
        for (_, Partial { destination, .. }) in &self.beside {
            match fs::remove_file(destination) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        let image = self.packed.unwrap_or(self.image);
        let beside = self.beside.into_iter();
        let beside = beside.filter(|(suffix, _)| papers.contains_key(suffix));
        for partial in [image]
            .into_iter()
            .chain(beside.map(|(_, partial)| partial))
        {
            partial
                .file
                .persist(&partial.destination)
                .map_err(|err| err.error)?;
        }
        File::open(directory)?.sync_all()
    }

    /// The file that becomes the image.
    fn named(&self) -> &Partial {
        self.packed.as_ref().unwrap_or(&self.image)
    }
}

impl Partial {
    fn create(destination: &Path) -> Result<Self, DiskError> {
        let directory = directory_of(destination);
        let name = destination
            .file_name()
            .ok_or_else(|| DiskError::NotAFile(destination.to_owned()))?;
        let prefix = prefix(name);
        let file = create_locked(directory, &prefix).map_err(|err| DiskError::Create {
            directory: directory.to_owned(),
            // Without the random name, which `tempfile` adds and nobody knows.
            err: err.kind().into(),
        })?;
        if let Err(err) = sweep(directory, &prefix, file.as_file()) {
            tracing::warn!(directory = %directory.display(), %err, "cannot look for what killed builds left");
        }
        Ok(Partial {
            file,
            destination: destination.to_owned(),
        })
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A device or directory is not to be replaced by a file; a link is followed, so that the link stays.
fn final_path(path: &Path) -> Result<PathBuf, DiskError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(DiskError::NotAFile(path.to_owned())),
        Ok(_) => fs::canonicalize(path).map_err(|err| DiskError::Write {
            path: path.to_owned(),
            err,
        }),
        // Whatever else is wrong with it shows when the temporary file is made.
        Err(_) => Ok(path.to_owned()),
    }
}

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

/// Makes a temporary file for the user alone, with mode 0600. Another build may sweep it away before it is locked: then the next one is made.
pub(crate) fn create_locked(directory: &Path, prefix: &OsStr) -> io::Result<NamedTempFile> {
    loop {
        let file = tempfile::Builder::new()
            .prefix(prefix)
            .suffix(SUFFIX)
            .rand_bytes(RANDOM)
            .tempfile_in(directory)?;
        // Where files cannot be locked nobody can sweep either.
        let locked = file.as_file().lock().is_ok();
        if !locked || file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes temporary files with this prefix, of the same user as a file, that nobody has locked.
pub(crate) fn sweep(directory: &Path, prefix: &OsStr, own: &File) -> io::Result<()> {
    let user = own.metadata()?.uid();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !is_draft_name(&entry.file_name(), prefix) {
            continue;
        }
        let path = entry.path();
        match remove_unlocked(&entry, user) {
            Ok(true) => {
                tracing::info!(path = %path.display(), "removed what an interrupted build left");
            }
            Ok(false) => {}
            // Its build gave it its name, or another one swept it away.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Removes a user's file that nobody has locked. The lock is held until the file is gone, so that nobody takes it for a new one.
fn remove_unlocked(entry: &DirEntry, user: u32) -> io::Result<bool> {
    // Does not follow links, so that only what is here is looked at.
    let metadata = entry.metadata()?;
    if !metadata.is_file() || metadata.uid() != user {
        return Ok(false);
    }
    let file = File::open(entry.path())?;
    if file.try_lock().is_err() {
        return Ok(false);
    }
    fs::remove_file(entry.path())?;
    Ok(true)
}

fn is_draft_name(name: &OsStr, prefix: &OsStr) -> bool {
    name.as_bytes()
        .strip_prefix(prefix.as_bytes())
        .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()))
        .is_some_and(|random| random.len() == RANDOM)
}
