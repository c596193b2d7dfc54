//! Writes a tree as the archive the kernel unpacks before anything else: cpio "newc", compressed as one zstd frame.
//!
//! The kernel takes several archives in a row, so anybody may append another one. Hard links and devices are not
//! written; the kernel's own built-in archive already makes `/dev/console`. Format: the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Write};

use thiserror::Error;

use crate::make::kept::{Kept, KeptKey, NothingKept};
use crate::sha256::Sha256;
use crate::tree::{Content, Node, Tree};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_SYMLINK: u32 = 0o120_000;

/// How to write an initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitramfsOptions {
    /// Modification time of everything, seconds since 1970.
    pub time: u32,
    /// Compression level of zstd. The window of levels up to 19 is 8 MiB, which a small board can spare.
    pub zstd_level: i32,
}

impl InitramfsOptions {
    /// The way an initramfs is written.
    #[must_use]
    pub fn at(time: u32) -> Self {
        Self {
            time,
            zstd_level: 19,
        }
    }
}

/// Why an initramfs was not written.
#[derive(Debug, Error)]
pub enum InitramfsError {
    /// A file is larger than the format can say.
    #[error("/{path} has 4 GiB or more, which a cpio archive cannot hold")]
    TooLarge {
        /// Which one.
        path: String,
    },
    /// The output could not be written.
    #[error("failed to write the initramfs")]
    Write(#[from] io::Error),
}

/// Writes a tree as a compressed initramfs.
pub fn write_initramfs(
    tree: &Tree,
    options: &InitramfsOptions,
    mut out: impl Write,
) -> Result<(), InitramfsError> {
    out.write_all(&pack_initramfs(tree, options, &NothingKept)?)?;
    Ok(out.flush()?)
}

/// Returns a tree as a compressed initramfs, which may be there from an earlier build.
pub(crate) fn pack_initramfs(
    tree: &Tree,
    options: &InitramfsOptions,
    kept: &dyn Kept,
) -> Result<Vec<u8>, InitramfsError> {
    let InitramfsOptions { time, zstd_level } = *options;
    let mut archive = Vec::new();
    write_cpio(tree, time, &mut archive)?;
    let key = KeptKey::of(
        "initramfs",
        &[zstd_level.unsigned_abs().into()],
        Sha256::of(&archive),
    );
    kept.load_or_make(key, || {
        let mut encoder = zstd::Encoder::new(Vec::new(), zstd_level)?;
        encoder.include_checksum(true)?;
        encoder.write_all(&archive)?;
        Ok(encoder.finish()?)
    })
}

/// Writes a tree as a plain cpio archive.
pub fn write_cpio(tree: &Tree, time: u32, mut out: impl Write) -> Result<(), InitramfsError> {
    // Numbered from 1; the kernel looks at inode numbers only to find hard links.
    for (number, (path, node)) in (1u32..).zip(tree.iter()) {
        let data = match &node.content {
            Content::Directory => &[],
            Content::File(bytes) => bytes.as_ref(),
            Content::Symlink(target) => target.as_bytes(),
        };
        let size = u32::try_from(data.len()).map_err(|_| InitramfsError::TooLarge {
            path: path.to_owned(),
        })?;
        let header = Header {
            number,
            mode: file_type(node) | u32::from(node.mode),
            node: Some(node),
            time,
            size,
        };
        write_header(&header, path, &mut out)?;
        write_padded(data, &mut out)?;
    }
    let trailer = Header {
        number: 0,
        mode: 0,
        node: None,
        time: 0,
        size: 0,
    };
    write_header(&trailer, TRAILER, &mut out)?;
    out.flush()?;
    Ok(())
}

struct Header<'a> {
    number: u32,
    mode: u32,
    node: Option<&'a Node>,
    time: u32,
    size: u32,
}

fn file_type(node: &Node) -> u32 {
    match node.content {
        Content::Directory => TYPE_DIRECTORY,
        Content::File(_) => TYPE_FILE,
        Content::Symlink(_) => TYPE_SYMLINK,
    }
}

/// Thirteen numbers of eight hexadecimal digits after the magic, then the name with a NUL, filled up to four bytes.
fn write_header(header: &Header<'_>, name: &str, out: &mut impl Write) -> io::Result<()> {
    let (uid, gid, links) = header.node.map_or((0, 0, 1), |node| {
        (node.uid, node.gid, 1 + u32::from(node.is_directory()))
    });
    let name_size = name.len() + 1;
    let numbers = [
        header.number,
        header.mode,
        uid,
        gid,
        links,
        header.time,
        header.size,
        0,
        0,
        0,
        0,
    ];
    let mut bytes = String::from(MAGIC);
    for number in numbers {
        bytes.push_str(&format!("{number:08x}"));
    }
    bytes.push_str(&format!("{name_size:08x}{:08x}", 0));
    bytes.push_str(name);
    bytes.push('\0');
    write_padded(bytes.as_bytes(), out)
}

fn write_padded(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    out.write_all(bytes)?;
    out.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])
}
