//! Writes a tree as a squashfs 4.0 image, the read-only root of the board.
//!
//! Compressed with zstd, which every kernel here has built in. No extended attributes, no device nodes. The same tree
//! and options give the same bytes, with any number of processors.

mod blocks;

use std::io::{self, Seek, Write};

use backhand::compression::{CompressionOptions, Compressor, Zstd};
use backhand::kind::Kind;
use backhand::{BackhandError, FilesystemCompressor, FilesystemWriter, NodeHeader};
use thiserror::Error;

use self::blocks::{Lent, compress_blocks};
use crate::make::kept::{Kept, NothingKept};
use crate::tree::{Content, Node, Tree};

/// Loop devices and card readers deal in pages, so the image is filled up to one.
const PAD_KIB: u32 = 4;

/// How to write a squashfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SquashfsOptions {
    /// Modification time of everything, seconds since 1970.
    pub time: u32,
    /// Compression level of zstd, 1 to 22.
    pub zstd_level: u32,
    /// Bytes compressed together, a power of two from 4 KiB to 1 MiB. Smaller is quicker to read at random, larger
    /// makes a smaller image.
    pub block_size: u32,
}

impl SquashfsOptions {
    /// The way a root is written: 128 KiB a block, because a Pi 3 has little memory to unpack a megabyte for every page.
    #[must_use]
    pub fn at(time: u32) -> Self {
        Self {
            time,
            zstd_level: 15,
            block_size: 128 << 10,
        }
    }
}

/// Why a squashfs was not written.
#[derive(Debug, Error)]
pub enum SquashfsError {
    /// The block size is not one the format has.
    #[error("a squashfs block is a power of two from 4 KiB to 1 MiB, not {size} bytes")]
    BlockSize {
        /// What was asked for.
        size: u32,
    },
    /// The level is not one that zstd has.
    #[error("a zstd level is 1 to 22, not {level}")]
    Level {
        /// What was asked for.
        level: u32,
    },
    /// A node was refused.
    #[error("failed to put /{path} into the squashfs")]
    Node {
        /// Which one.
        path: String,
        /// What the library said.
        #[source]
        err: BackhandError,
    },
    /// The output could not be written.
    #[error("failed to write the squashfs")]
    Write(#[source] io::Error),
    /// The image could not be made.
    #[error("failed to make the squashfs")]
    Make(#[source] BackhandError),
}

/// Writes a tree and returns how many bytes that were, always whole pages.
pub fn write_squashfs(
    tree: &Tree,
    options: &SquashfsOptions,
    out: impl Write + Seek,
) -> Result<u64, SquashfsError> {
    write_squashfs_with(tree, options, &NothingKept, out)
}

/// Writes a tree of which blocks may be there from an earlier build.
pub(crate) fn write_squashfs_with(
    tree: &Tree,
    options: &SquashfsOptions,
    kept: &dyn Kept,
    out: impl Write + Seek,
) -> Result<u64, SquashfsError> {
    let mut writer = fill_writer(tree, options)?;
    let blocks = compress_blocks(tree, options, kept).map_err(SquashfsError::Make)?;
    let written = blocks.lend(|| writer.write(out));
    let (_, written) = written.map_err(|err| match err {
        BackhandError::StdIo(err) => SquashfsError::Write(err),
        err => SquashfsError::Make(err),
    })?;
    Ok(written)
}

fn fill_writer<'a>(
    tree: &'a Tree,
    options: &SquashfsOptions,
) -> Result<FilesystemWriter<'a, 'a, 'a>, SquashfsError> {
    let mut writer = empty_filesystem(options)?;
    for (path, node) in tree.iter() {
        push_node(&mut writer, path, node, options.time).map_err(|err| SquashfsError::Node {
            path: path.to_owned(),
            err,
        })?;
    }
    Ok(writer)
}

fn empty_filesystem<'a>(
    options: &SquashfsOptions,
) -> Result<FilesystemWriter<'a, 'a, 'a>, SquashfsError> {
    let SquashfsOptions {
        time,
        zstd_level,
        block_size,
    } = *options;
    if !block_size.is_power_of_two() || !(4 << 10..=1 << 20).contains(&block_size) {
        return Err(SquashfsError::BlockSize { size: block_size });
    }
    if !(1..=22).contains(&zstd_level) {
        return Err(SquashfsError::Level { level: zstd_level });
    }
    let mut writer = FilesystemWriter::default();
    writer.set_kind(Kind::new_v4(&Lent));
    writer.set_compressor(compressor(zstd_level).map_err(SquashfsError::Make)?);
    writer.set_block_size(block_size);
    writer.set_time(time);
    writer.set_only_root_id();
    writer.set_root_mode(0o755);
    writer.set_root_uid(0);
    writer.set_root_gid(0);
    writer.set_kib_padding(PAD_KIB);
    Ok(writer)
}

fn compressor(zstd_level: u32) -> Result<FilesystemCompressor, BackhandError> {
    let options = CompressionOptions::Zstd(Zstd {
        compression_level: zstd_level,
    });
    FilesystemCompressor::new(Compressor::Zstd, Some(options))
}

fn push_node<'a>(
    writer: &mut FilesystemWriter<'a, 'a, 'a>,
    path: &str,
    node: &'a Node,
    time: u32,
) -> Result<(), BackhandError> {
    let header = NodeHeader::new(node.mode, node.uid, node.gid, time);
    match &node.content {
        Content::Directory => writer.push_dir(path, header),
        Content::File(bytes) => writer.push_file(bytes.as_ref(), path, header),
        Content::Symlink(target) => writer.push_symlink(target, path, header),
    }
}
