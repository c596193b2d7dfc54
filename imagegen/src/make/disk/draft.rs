//! The temporary file that an image grows in, beside the final one.
//!
//! It is locked for as long as somebody writes it, and a lock dies with its owner. So a later build can tell what a killed one left, and
//! removes that; it never touches a file of another user, or one that it cannot lock.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::DiskError;

const SUFFIX: &str = ".part";

/// Random characters that `tempfile` puts before the suffix.
const RANDOM: usize = 6;

/// An image that has no name yet. It is removed when it is dropped.
#[derive(Debug)]
pub struct Draft {
    file: NamedTempFile,
    destination: PathBuf,
    directory: PathBuf,
}

impl Draft {
    /// Begins an image that will have this name, and removes what killed builds of it left. Shows early whether it can be written at all.
    pub fn create(path: &Path) -> Result<Self, DiskError> {
        let destination = final_path(path)?;
        let directory = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = destination
            .file_name()
            .ok_or_else(|| DiskError::NotAFile(path.to_owned()))?;
        let prefix = prefix(name);
        let file = create_locked(&directory, &prefix).map_err(|err| DiskError::Create {
            directory: directory.clone(),
            // Without the random name, which `tempfile` adds and nobody knows.
            err: err.kind().into(),
        })?;
        if let Err(err) = sweep(&directory, &prefix, file.as_file()) {
            tracing::warn!(directory = %directory.display(), %err, "cannot look for what killed builds left");
        }
        Ok(Draft {
            file,
            destination,
            directory,
        })
    }

    /// Returns the path of the temporary file: who ends the program early removes it.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) fn destination(&self) -> &Path {
        &self.destination
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn as_file_mut(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Gives the image its name, once all of it is on the disk.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file
            .persist(&self.destination)
            .map_err(|err| err.error)?;
        File::open(&self.directory)?.sync_all()
    }
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

/// `tempfile` makes it with mode 0600. Another build may sweep it away before it is locked: then the next one is made.
fn create_locked(directory: &Path, prefix: &OsStr) -> io::Result<NamedTempFile> {
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

/// Removes temporary files of this user's for the same image that nobody has locked.
fn sweep(directory: &Path, prefix: &OsStr, own: &File) -> io::Result<()> {
    let user = own.metadata()?.uid();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Does not follow links, so that only what is here is looked at.
        let metadata = entry.metadata()?;
        if is_draft_name(&entry.file_name(), prefix)
            && metadata.is_file()
            && metadata.uid() == user
            && File::open(entry.path())?.try_lock().is_ok()
        {
            fs::remove_file(entry.path())?;
            tracing::info!(path = %entry.path().display(), "removed what an interrupted build left");
        }
    }
    Ok(())
}

fn is_draft_name(name: &OsStr, prefix: &OsStr) -> bool {
    name.as_bytes()
        .strip_prefix(prefix.as_bytes())
        .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()))
        .is_some_and(|random| random.len() == RANDOM)
}
