//! Looks one path up in a squashfs that may come from anywhere, and reads no more than that takes.
//!
//! A path of n parts costs n inodes and n directories, each of bounded size, whatever the superblock says. Version 4.0, compressed with
//! zstd as `make::squashfs` does; the format is that of the kernel's `fs/squashfs/squashfs_fs.h`.
//!
//! ```text
//! superblock --root--> inode --start, offset, size--> directory: header, entries, header ... --start, offset--> inode --> ...
//! ```
//!
//! Inodes and directories are in tables of blocks of 8 KiB, each compressed by itself behind its length, and all full but a table's last.

use std::io;

use thiserror::Error;

const SUPERBLOCK: usize = 96;
const MAGIC: &[u8] = b"hsqs";
const ZSTD: u16 = 6;
/// Bytes of a block of a table, unpacked.
const BLOCK: usize = 8 << 10;
/// What is not compressed is told by this bit of its length.
const PLAIN: u16 = 1 << 15;
/// No directory of a root is longer; one of this length has tens of thousands of entries.
const DIRECTORY_MAX: usize = 1 << 20;

/// Why a path was not looked up.
#[derive(Debug, Error)]
pub(crate) enum LookupError {
    /// The squashfs cannot be read where it should go on.
    #[error("failed to read the squashfs")]
    Read(#[from] io::Error),
    /// It is none, or it is damaged.
    #[error("this is no squashfs, or it is damaged: {0}")]
    Damaged(&'static str),
    /// It is compressed with something else than zstd.
    #[error("it is compressed by method {0}, where zstd is known")]
    Compression(u16),
    /// A directory that is larger than any of a root.
    #[error("a directory of it has more than {} KiB", DIRECTORY_MAX >> 10)]
    LongDirectory,
}

/// Whether there is something of that path, written without a slash in front, in the squashfs that has `size` bytes of what `read_at` reads
/// from `begin` on.
pub(crate) fn has_path(
    read_at: impl Fn(&mut [u8], u64) -> io::Result<()>,
    begin: u64,
    size: u64,
    path: &str,
) -> Result<bool, LookupError> {
    let filesystem = Filesystem::open(Bounded {
        read_at,
        begin,
        size,
    })?;
    let mut at = filesystem.root;
    for name in path.split('/') {
        let Some(directory) = filesystem.directory(at)? else {
            return Ok(false);
        };
        match find_entry(&directory, name.as_bytes())? {
            Some(found) => at = found,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Where an inode is: a block of the table, counted in bytes from its beginning, and a byte of what is unpacked.
#[derive(Clone, Copy)]
struct Reference {
    block: u64,
    offset: usize,
}

/// A part of something that is read.
struct Bounded<F> {
    read_at: F,
    begin: u64,
    size: u64,
}

impl<F: Fn(&mut [u8], u64) -> io::Result<()>> Bounded<F> {
    fn read<const N: usize>(&self, at: u64) -> Result<[u8; N], LookupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, at)?;
        Ok(bytes)
    }

    fn fill(&self, bytes: &mut [u8], at: u64) -> Result<(), LookupError> {
        let end = at.checked_add(bytes.len() as u64);
        let place = self.begin.checked_add(at);
        match (end, place) {
            (Some(end), Some(place)) if end <= self.size => Ok((self.read_at)(bytes, place)?),
            _ => Err(LookupError::Damaged("it goes on behind its end")),
        }
    }
}

struct Filesystem<F> {
    source: Bounded<F>,
    root: Reference,
    inodes: u64,
    directories: u64,
}

impl<F: Fn(&mut [u8], u64) -> io::Result<()>> Filesystem<F> {
    fn open(source: Bounded<F>) -> Result<Self, LookupError> {
        let superblock: [u8; SUPERBLOCK] = source.read(0)?;
        if !superblock.starts_with(MAGIC) || u16_at(&superblock, 28) != 4 {
            return Err(LookupError::Damaged(
                "it does not begin as one of version 4",
            ));
        }
        let compression = u16_at(&superblock, 20);
        if compression != ZSTD {
            return Err(LookupError::Compression(compression));
        }
        let root = u64_at(&superblock, 32);
        Ok(Filesystem {
            source,
            root: Reference {
                block: root >> 16,
                offset: (root & 0xffff) as usize,
            },
            inodes: u64_at(&superblock, 64),
            directories: u64_at(&superblock, 72),
        })
    }

    /// Returns the list of a directory, if it is one that is there.
    fn directory(&self, at: Reference) -> Result<Option<Vec<u8>>, LookupError> {
        const DIRECTORY: u16 = 1;
        const LONG_DIRECTORY: u16 = 8;
        let kind = u16_at(&self.unpack(self.inodes, at, 2)?, 0);
        let (size, block, offset) = match kind {
            DIRECTORY => {
                let inode = self.unpack(self.inodes, at, 32)?;
                let size = u16_at(&inode, 24).into();
                (size, u32_at(&inode, 16), u16_at(&inode, 26))
            }
            LONG_DIRECTORY => {
                let inode = self.unpack(self.inodes, at, 40)?;
                let size = u32_at(&inode, 20);
                (size, u32_at(&inode, 24), u16_at(&inode, 34))
            }
            _ => return Ok(None),
        };
        // Three bytes stand for the entries that every directory has.
        let size = size.saturating_sub(3) as usize;
        if size > DIRECTORY_MAX {
            return Err(LookupError::LongDirectory);
        }
        let at = Reference {
            block: block.into(),
            offset: offset.into(),
        };
        self.unpack(self.directories, at, size).map(Some)
    }

    /// Returns so many bytes of a table.
    fn unpack(&self, table: u64, at: Reference, size: usize) -> Result<Vec<u8>, LookupError> {
        let mut bytes = Vec::new();
        let mut skip = at.offset;
        let mut next = table.checked_add(at.block);
        while bytes.len() < size {
            let begin = next.ok_or(LookupError::Damaged("it goes on behind its end"))?;
            let length = u16::from_le_bytes(self.source.read(begin)?);
            let packed_size = usize::from(length & !PLAIN);
            if packed_size == 0 || packed_size > BLOCK {
                return Err(LookupError::Damaged(
                    "a block of a table has an impossible size",
                ));
            }
            let mut packed = vec![0; packed_size];
            self.source.fill(&mut packed, begin + 2)?;
            let block = match length & PLAIN {
                0 => zstd::bulk::decompress(&packed, BLOCK)
                    .map_err(|_| LookupError::Damaged("a block of a table cannot be unpacked"))?,
                _ => packed,
            };
            let part = block
                .get(skip..)
                .ok_or(LookupError::Damaged("something begins behind its block"))?;
            let part = &part[..part.len().min(size - bytes.len())];
            bytes.extend_from_slice(part);
            // What goes on does so in the next block, and then this one is full.
            if bytes.len() < size && block.len() != BLOCK {
                return Err(LookupError::Damaged("a block of a table is cut off"));
            }
            skip = 0;
            next = begin.checked_add(2 + packed_size as u64);
        }
        Ok(bytes)
    }
}

/// Looks a name up in the list of a directory: headers with a number of entries each.
fn find_entry(list: &[u8], name: &[u8]) -> Result<Option<Reference>, LookupError> {
    const HEADER: usize = 12;
    const ENTRY: usize = 8;
    let cut_off = LookupError::Damaged("a directory is cut off");
    let mut rest = list;
    while !rest.is_empty() {
        let Some((header, behind)) = rest.split_at_checked(HEADER) else {
            return Err(cut_off);
        };
        rest = behind;
        // Each entry takes bytes of the list, so that their number need not be believed.
        for _ in 0..=u32_at(header, 0) {
            let Some((entry, behind)) = rest.split_at_checked(ENTRY) else {
                return Err(cut_off);
            };
            let length = usize::from(u16_at(entry, 6)) + 1;
            let Some((found, behind)) = behind.split_at_checked(length) else {
                return Err(cut_off);
            };
            rest = behind;
            if found == name {
                return Ok(Some(Reference {
                    block: u32_at(header, 4).into(),
                    offset: u16_at(entry, 0).into(),
                }));
            }
        }
    }
    Ok(None)
}

/// Returns a number that is inside of `bytes`.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Cursor;

    use super::*;
    use crate::make::squashfs::{SquashfsOptions, write_squashfs};
    use crate::tree::{Node, Tree};

    /// More than looking up a path of four parts in a root takes; far less than reading one does.
    const READ_MAX: usize = 4 * (DIRECTORY_MAX + 4 * (BLOCK + 2)) + SUPERBLOCK;
    const UNIT: &str = "etc/systemd/system/ssh.service";

    /// Looks up, and counts what is read.
    fn look_up(image: &[u8], path: &str) -> (Result<bool, LookupError>, usize) {
        let read = Cell::new(0);
        let read_at = |buffer: &mut [u8], at: u64| {
            read.set(read.get() + buffer.len());
            let from = image.get(at as usize..).unwrap_or_default();
            let from = from.get(..buffer.len());
            buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        };
        (has_path(read_at, 0, image.len() as u64, path), read.get())
    }

    /// A root whose tables have several blocks.
    fn root() -> Vec<u8> {
        let mut tree = Tree::new();
        let mut put = |path: &str, node: Node| tree.insert(path, node).unwrap();
        for folder in [
            "etc",
            "etc/systemd",
            "etc/systemd/system",
            "usr",
            "usr/share",
        ] {
            put(folder, Node::directory(0o755));
        }
        put(UNIT, Node::file(0o644, *b"[Service]\n"));
        put("etc/link", Node::symlink("systemd"));
        for number in 0..2000 {
            let name = format!("usr/share/a-file-with-a-long-name-{number}");
            put(&name, Node::file(0o644, number.to_string().into_bytes()));
        }
        let mut image = Cursor::new(Vec::new());
        write_squashfs(&tree, &SquashfsOptions::at(0), &mut image).unwrap();
        image.into_inner()
    }

    #[test]
    fn what_is_there_is_found() {
        let image = root();
        for (path, there) in [
            (UNIT, true),
            ("etc", true),
            ("usr/share/a-file-with-a-long-name-1999", true),
            ("usr/share/a-file-with-a-long-name-2000", false),
            ("etc/systemd/system/ssh.servic", false),
            ("etc/link/system", false),
            ("etc/systemd/system/ssh.service/x", false),
            ("lib", false),
            ("", false),
        ] {
            let (found, read) = look_up(&image, path);
            assert_eq!(found.unwrap(), there, "{path}");
            assert!(read < READ_MAX, "{path}: {read}");
        }
    }

    /// Every bit of the superblock, and some of all that is behind it.
    #[test]
    fn whatever_is_damaged_costs_little() {
        let mut image = root();
        let all = image.len() * 8;
        let bits = (0..SUPERBLOCK * 8).chain((SUPERBLOCK * 8..all).step_by(61));
        for bit in bits.take(20_000) {
            image[bit / 8] ^= 1 << (bit % 8);
            for path in [UNIT, "usr/share/a-file-with-a-long-name-7"] {
                let (_, read) = look_up(&image, path);
                assert!(read < READ_MAX, "bit {bit}: {read}");
            }
            image[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(look_up(&image, UNIT).0.unwrap());
        for length in [0, 1, 95, 96, 200, image.len() / 2] {
            assert!(look_up(&image[..length], UNIT).0.is_err(), "{length}");
        }
    }

    /// A squashfs of one inode, with tables as they are given.
    fn crafted(inodes: &[u8], directories: &[u8]) -> Vec<u8> {
        let mut image = vec![0; SUPERBLOCK];
        image[..4].copy_from_slice(MAGIC);
        image[20] = ZSTD as u8;
        image[28] = 4;
        let table = SUPERBLOCK as u64;
        image[64..72].copy_from_slice(&table.to_le_bytes());
        image[72..80].copy_from_slice(&(table + inodes.len() as u64).to_le_bytes());
        [&image, inodes, directories].concat()
    }

    fn block(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16 | PLAIN).to_le_bytes(), bytes].concat()
    }

    /// The inode of a long directory.
    fn long_directory(size: u32) -> Vec<u8> {
        let mut inode = vec![0; 40];
        inode[0] = 8;
        inode[20..24].copy_from_slice(&size.to_le_bytes());
        block(&inode)
    }

    #[test]
    fn what_pretends_to_be_large_is_not_believed() {
        let full = block(&[0xff; BLOCK]);
        let huge = crafted(&long_directory(u32::MAX), &full.repeat(200));
        let (found, read) = look_up(&huge, "etc");
        assert!(matches!(found, Err(LookupError::LongDirectory)));
        assert!(read < 3 * BLOCK);
        let large = crafted(&long_directory(DIRECTORY_MAX as u32), &full.repeat(200));
        let (found, read) = look_up(&large, "etc");
        assert!(matches!(found, Err(LookupError::Damaged(_))));
        assert!(read < READ_MAX);
        let short = crafted(&long_directory(100), &block(&[0; 7]).repeat(200));
        let (found, _) = look_up(&short, "etc");
        assert!(matches!(
            found,
            Err(LookupError::Damaged("a block of a table is cut off"))
        ));
    }

    #[test]
    fn what_unpacks_to_more_than_a_block_is_refused() {
        let packed = zstd::bulk::compress(&vec![0; 16 << 20], 19).unwrap();
        assert!(packed.len() < BLOCK);
        let bomb = [&(packed.len() as u16).to_le_bytes(), &packed[..]].concat();
        let (found, _) = look_up(&crafted(&bomb, &[]), "etc");
        assert!(matches!(
            found,
            Err(LookupError::Damaged(
                "a block of a table cannot be unpacked"
            ))
        ));
    }

    #[test]
    fn other_compressions_are_not_guessed_at() {
        let mut image = root();
        image[20] = 4;
        assert!(matches!(
            look_up(&image, UNIT).0,
            Err(LookupError::Compression(4))
        ));
    }
}
