//! Reads an initramfs into a tree, as the kernel unpacks it: cpio "newc" archives, plain or compressed with zstd, with zeros between them. What
//! a later one has again takes the place of what an earlier one has.
//!
//! Format: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`. Hard links are not followed: each is what its own
//! entry says.

use std::io::{self, Read};

use thiserror::Error;

use crate::inspect::squashfs::Found;
use crate::tree::{Content, Node, TreeError};

const HEADER_SIZE: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// The kernel ignores longer names.
const PATH_MAX: usize = 4096;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The smallest board has this much memory.
const UNPACKED_MAX: u64 = 512 << 20;

/// Why an initramfs could not be read.
#[derive(Debug, Error)]
pub enum CpioReadError {
    /// It does not decompress.
    #[error("failed to decompress the initramfs")]
    Decompress(#[source] io::Error),
    /// It does not fit into a small board's memory.
    #[error("the initramfs is larger than {} MiB when unpacked", UNPACKED_MAX >> 20)]
    TooLarge,
    /// It is no archive, or it is cut off.
    #[error("the initramfs is no cpio archive at byte {at}: {why}")]
    Malformed {
        /// Where.
        at: usize,
        /// What is wrong there.
        why: &'static str,
    },
    /// A name that cannot be a path.
    #[error("the initramfs has a name that cannot be")]
    Path(#[from] TreeError),
}

/// Reads an initramfs.
pub fn read_initramfs(bytes: &[u8]) -> Result<Found, CpioReadError> {
    let mut found = Found::default();
    let mut room = UNPACKED_MAX;
    let mut begin = begin_of_next(bytes, 0).unwrap_or_default();
    loop {
        let part = &bytes[begin..];
        let end = if part.starts_with(&ZSTD_MAGIC) {
            let (unpacked, size) = unpack_frame(part, &mut room)?;
            read_archives(&unpacked, &mut found)?;
            begin + size
        } else {
            read_archive(bytes, begin, &mut found)?
        };
        match begin_of_next(bytes, end) {
            Some(next) => begin = next,
            None => return Ok(found),
        }
    }
}

/// Unpacks the frame that bytes begin with; the second number is how many of them it has.
fn unpack_frame(bytes: &[u8], room: &mut u64) -> Result<(Vec<u8>, usize), CpioReadError> {
    let mut unpacked = Vec::new();
    let mut decoder = zstd::Decoder::with_buffer(bytes)
        .map_err(CpioReadError::Decompress)?
        .single_frame();
    decoder
        .by_ref()
        .take(*room)
        .read_to_end(&mut unpacked)
        .map_err(CpioReadError::Decompress)?;
    *room -= unpacked.len() as u64;
    match *room {
        0 => Err(CpioReadError::TooLarge),
        _ => Ok((unpacked, bytes.len() - decoder.finish().len())),
    }
}

/// Where the first byte is that is not zero.
fn begin_of_next(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    Some(from + rest.iter().position(|byte| *byte != 0)?)
}

fn read_archives(bytes: &[u8], found: &mut Found) -> Result<(), CpioReadError> {
    let mut end = 0;
    while let Some(begin) = begin_of_next(bytes, end) {
        end = read_archive(bytes, begin, found)?;
    }
    Ok(())
}

/// Reads the archive that begins at a byte, and returns where it ends.
fn read_archive(bytes: &[u8], begin: usize, found: &mut Found) -> Result<usize, CpioReadError> {
    let mut at = begin;
    loop {
        let cut = |why| CpioReadError::Malformed { at, why };
        if !at.is_multiple_of(4) {
            return Err(cut("an archive begins at a multiple of four"));
        }
        let header = bytes
            .get(at..at + HEADER_SIZE)
            .ok_or(cut("it ends before its trailer"))?;
        if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
            return Err(cut("there is no header"));
        }
        let field = |number: usize| {
            let digits = str::from_utf8(&header[6 + number * 8..][..8]).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let field = |number| field(number).ok_or(cut("a number is none"));
        let (mode, uid, gid) = (field(1)?, field(2)?, field(3)?);
        let (size, name_size) = (field(6)? as usize, field(11)? as usize);
        if name_size > PATH_MAX {
            return Err(cut("a name is longer than a path can be"));
        }
        let name_at = at + HEADER_SIZE;
        let data_at = (name_at + name_size).next_multiple_of(4);
        let name = bytes
            .get(name_at..name_at + name_size)
            .and_then(|name| str::from_utf8(name).ok())
            .ok_or(cut("a name is cut off or no text"))?
            .trim_end_matches('\0');
        let data = bytes
            .get(data_at..data_at + size)
            .ok_or(cut("a file is cut off"))?;
        at = (data_at + size).next_multiple_of(4);
        if name == TRAILER {
            return Ok(at);
        }
        let name = name.trim_start_matches('/');
        if matches!(name, "" | ".") {
            continue;
        }
        let content = match mode & 0o170_000 {
            0o040_000 => Content::Directory,
            0o100_000 => Content::File(data.into()),
            0o120_000 => Content::Symlink(String::from_utf8_lossy(data).into_owned()),
            _ => {
                found.oddities.push((name.to_owned(), "a device or a pipe"));
                continue;
            }
        };
        let node = Node {
            // Twelve bits, so the cast cuts nothing.
            mode: (mode & 0o7777) as u16,
            uid,
            gid,
            content,
        };
        found.tree.replace(name, node)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::make::initramfs::{InitramfsOptions, write_cpio, write_initramfs};
    use crate::tree::Tree;

    fn sample() -> Tree {
        let mut tree = Tree::new();
        for (path, node) in [
            ("bin/busybox", Node::file(0o755, *b"box")),
            ("bin/sh", Node::symlink("busybox")),
            ("empty", Node::file(0o600, *b"").owned_by(1, 2)),
            ("tmp", Node::directory(0o1777)),
        ] {
            tree.insert(path, node).unwrap();
        }
        tree
    }

    #[test]
    fn what_is_written_is_read() {
        let (mut plain, mut packed) = (Vec::new(), Vec::new());
        write_cpio(&sample(), 7, &mut plain).unwrap();
        write_initramfs(&sample(), &InitramfsOptions::at(7), &mut packed).unwrap();
        packed.extend([0; 3]);
        let mut both = [plain.as_slice(), &[0; 8], &packed, &packed].concat();
        both.resize(both.len().next_multiple_of(4), 0);
        both.extend(&plain);
        for bytes in [&plain, &packed, &both] {
            let found = read_initramfs(bytes).unwrap();
            assert_eq!(
                found,
                Found {
                    tree: sample(),
                    oddities: vec![]
                }
            );
        }
        for end in 0..plain.len() - 1 {
            // The last word of the trailer is filling.
            let _ = read_initramfs(&plain[..end]);
        }
        assert_eq!(
            read_initramfs(&plain[..200]).unwrap_err().to_string(),
            "the initramfs is no cpio archive at byte 116: it ends before its trailer"
        );
    }

    /// Whoever appends an archive changes what the kernel unpacks.
    #[test]
    fn a_later_archive_takes_the_place_of_an_earlier() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        write_initramfs(&sample(), &InitramfsOptions::at(7), &mut first).unwrap();
        let mut tree = Tree::new();
        tree.insert("bin/busybox", Node::file(0o755, *b"another"))
            .unwrap();
        write_cpio(&tree, 7, &mut second).unwrap();
        let mut both = first.clone();
        both.resize(first.len().next_multiple_of(4), 0);
        both.extend(&second);
        let found = read_initramfs(&both).unwrap();
        assert_eq!(
            found.tree.bytes("bin/busybox").map(AsRef::as_ref),
            Some(b"another".as_slice())
        );
        assert!(found.tree.contains("empty"));
        // The kernel stops at what is neither an archive nor zeros, and at an archive between two words.
        let unaligned = [vec![0; both.len() % 4 + 1], second].concat();
        for garbage in [b"garbage".as_slice(), &unaligned] {
            let bytes = [both.as_slice(), garbage].concat();
            assert!(read_initramfs(&bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), place in 0usize..400) {
            let _ = read_initramfs(&bytes);
            let mut archive = Vec::new();
            write_cpio(&sample(), 7, &mut archive).unwrap();
            for (index, byte) in bytes.iter().take(8).enumerate() {
                let at = (place + index) % archive.len();
                archive[at] = *byte;
            }
            let _ = read_initramfs(&archive);
        }
    }
}
