//! A bundle: the files of one device's `site/`, in a ustar archive (POSIX.1-2017, pax, ustar interchange format) named `NAME.site`.
//!
//! ```text
//! site/authorized_keys   site/footbridge.toml   site/hostname   ...   in the order of their names
//! ```
//!
//! Mode 0600, owner 0, time 0: the same files give the same bytes. `tar xf NAME.site -C CARD` puts them on a card that has the image of the
//! board. It holds the keys of networks.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use thiserror::Error;

use crate::tree::check_path;

/// The folder that all of it is in.
const FOLDER: &str = "site/";

/// More than any site has.
const FILES_MAX: usize = 256;

/// More than any of its files has.
const FILE_MAX: u64 = 4 << 20;

/// The files of a site by their names.
pub type SiteFiles = BTreeMap<String, Arc<[u8]>>;

/// Why bytes are no bundle.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Not an archive, or a damaged one.
    #[error("it is no archive of a site's files")]
    Archive(#[from] io::Error),
    /// Something that a bundle does not have.
    #[error("`{}` does not belong into it", .0.escape_debug())]
    Stranger(String),
    /// Too much of it.
    #[error("it holds more than a site can have")]
    TooLarge,
    /// A name that comes twice.
    #[error("`{0}` comes twice in it")]
    Twice(String),
}

/// Writes the files of a site as a bundle.
pub fn encode_bundle(files: &SiteFiles) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_path(format!("{FOLDER}{name}"))?;
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, &bytes[..])?;
    }
    builder.into_inner()
}

/// Reads a bundle; takes nothing else for one.
pub fn decode_bundle(bytes: &[u8]) -> Result<SiteFiles, BundleError> {
    let mut files = SiteFiles::new();
    for entry in tar::Archive::new(bytes).entries()? {
        let entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = path
            .strip_prefix(FOLDER)
            .filter(|name| !name.contains('/') && check_path(name).is_ok())
            .filter(|_| entry.header().entry_type().is_file())
            .map(str::to_owned);
        let name = name.ok_or_else(|| BundleError::Stranger(path.clone()))?;
        let size = entry.header().size()?;
        if size > FILE_MAX || files.len() == FILES_MAX {
            return Err(BundleError::TooLarge);
        }
        let mut bytes = Vec::new();
        entry.take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if files.insert(name.clone(), bytes.into()).is_some() {
            return Err(BundleError::Twice(name));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> SiteFiles {
        let text = |text: &str| Arc::from(text.as_bytes());
        SiteFiles::from([
            ("hostname".to_owned(), text("hall-1\n")),
            ("wpa_supplicant.conf".to_owned(), text("network={\n}\n")),
            ("empty".to_owned(), text("")),
        ])
    }

    #[test]
    fn what_is_written_is_read_and_always_the_same() {
        let bytes = encode_bundle(&files()).unwrap();
        assert_eq!(bytes, encode_bundle(&files()).unwrap());
        assert_eq!(bytes.len() % 512, 0);
        assert_eq!(&bytes[257..263], b"ustar\0");
        assert_eq!(decode_bundle(&bytes).unwrap(), files());
    }

    #[test]
    fn no_other_archive_is_a_bundle() {
        let whole = encode_bundle(&files()).unwrap();
        // A cut in front of the two blocks that end it all.
        let end = whole.len() - 1024;
        for cut in 1..end {
            let cut_off = decode_bundle(&whole[..cut]);
            assert!(cut_off.is_err() || cut_off.unwrap() != files(), "{cut}");
        }
        let archive = |path: &str, kind: tar::EntryType| {
            let mut header = tar::Header::new_ustar();
            let bytes = path.as_bytes();
            header.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_cksum();
            let mut builder = tar::Builder::new(Vec::new());
            builder.append(&header, io::empty()).unwrap();
            builder.into_inner().unwrap()
        };
        for (path, kind) in [
            ("hostname", tar::EntryType::Regular),
            ("site/../cmdline.txt", tar::EntryType::Regular),
            ("site/a/b", tar::EntryType::Regular),
            ("site/", tar::EntryType::Regular),
            ("/site/a", tar::EntryType::Regular),
            ("site/a", tar::EntryType::Symlink),
            ("site/a", tar::EntryType::Directory),
        ] {
            let found = decode_bundle(&archive(path, kind));
            assert!(
                matches!(found, Err(BundleError::Stranger(_))),
                "{path} {found:?}"
            );
        }
        let once = archive("site/a", tar::EntryType::Regular);
        let twice = [&once[..512], &once[..]].concat();
        assert!(matches!(decode_bundle(&twice), Err(BundleError::Twice(_))));
    }
}
