//! The blocks of a squashfs, compressed by all processors before the library that writes it asks for them one after another.
//!
//! Which blocks that will be is foreseen from the tree. Nothing depends on foreseeing it well: what is asked for and is not there is
//! compressed then, to the same bytes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;
use std::path::Path;

use backhand::compression::{CompressionAction, Compressor, DefaultCompressor};
use backhand::kind::Kind;
use backhand::{BackhandError, FilesystemCompressor, SuperBlock};

use super::{SquashfsOptions, compressor};
use crate::make::kept::{Kept, KeptKey};
use crate::make::parallel;
use crate::sha256::Sha256;
use crate::tree::Tree;

thread_local! {
    /// What [`Lent`] has. The library takes only a compressor that lives as long as the program, so this cannot be in the compressor itself.
    static BLOCKS: RefCell<Blocks> = const { RefCell::new(Blocks(BTreeMap::new())) };
}

/// Compressed blocks by the digest of what is in them.
#[derive(Debug)]
pub(super) struct Blocks(BTreeMap<Sha256, Vec<u8>>);

/// Has the blocks that were lent to it by [`Blocks::lend`], and compresses others as the library does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lent;

/// Compresses the blocks that a tree will be written in.
pub(super) fn compress_blocks(
    tree: &Tree,
    options: &SquashfsOptions,
    kept: &dyn Kept,
) -> Result<Blocks, BackhandError> {
    let SquashfsOptions {
        time: _,
        zstd_level,
        block_size,
    } = *options;
    let compressor = compressor(zstd_level)?;
    let compress = |block: Cow<'_, [u8]>| {
        let digest = Sha256::of(&block);
        let key = KeptKey::of(
            "squashfs block",
            &[zstd_level.into(), block_size.into()],
            digest,
        );
        let compressed = kept.load_or_make(key, || {
            DefaultCompressor.compress(&block, compressor, block_size)
        })?;
        Ok::<_, BackhandError>((digest, compressed))
    };
    let blocks = parallel::map(foresee(tree, block_size as usize), compress)?;
    Ok(Blocks(blocks.into_iter().collect()))
}

impl Blocks {
    /// Does some work on this thread during which [`Lent`] has these blocks.
    pub(super) fn lend<T>(self, work: impl FnOnce() -> T) -> T {
        /// Takes them back, also when the work panics.
        struct Lending;
        impl Drop for Lending {
            fn drop(&mut self) {
                BLOCKS.with_borrow_mut(|blocks| blocks.0.clear());
            }
        }
        BLOCKS.with_borrow_mut(|blocks| *blocks = self);
        let _lending = Lending;
        work()
    }
}

impl CompressionAction for Lent {
    type Error = BackhandError;
    type Compressor = Compressor;
    type FilesystemCompressor = FilesystemCompressor;
    type SuperBlock = SuperBlock;

    fn decompress(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        compressor: Compressor,
    ) -> Result<(), BackhandError> {
        DefaultCompressor.decompress(bytes, out, compressor)
    }

    fn compress(
        &self,
        bytes: &[u8],
        compressor: FilesystemCompressor,
        block_size: u32,
    ) -> Result<Vec<u8>, BackhandError> {
        let foreseen = BLOCKS.with_borrow(|blocks| blocks.0.get(&Sha256::of(bytes)).cloned());
        match foreseen {
            Some(block) => Ok(block),
            None => DefaultCompressor.compress(bytes, compressor, block_size),
        }
    }

    fn compression_options(
        &self,
        superblock: &mut SuperBlock,
        kind: &Kind,
        compressor: FilesystemCompressor,
    ) -> Result<Option<Vec<u8>>, BackhandError> {
        DefaultCompressor.compression_options(superblock, kind, compressor)
    }
}

/// Cuts files into blocks. Those smaller than one are put together in the order of paths, by component, for as long as they fit into one.
fn foresee(tree: &Tree, block_size: usize) -> Vec<Cow<'_, [u8]>> {
    let mut files: Vec<(&Path, &[u8])> = tree
        .iter()
        .filter_map(|(path, node)| Some((Path::new(path), node.bytes()?.as_ref())))
        .collect();
    files.sort_by_key(|(path, _)| *path);
    let mut blocks = Vec::new();
    let mut fragments = Vec::new();
    for (_, bytes) in files {
        if bytes.len() >= block_size {
            blocks.extend(bytes.chunks(block_size).map(Cow::Borrowed));
        } else {
            if fragments.len() + bytes.len() > block_size {
                blocks.push(Cow::Owned(mem::take(&mut fragments)));
            }
            fragments.extend_from_slice(bytes);
        }
    }
    blocks.push(Cow::Owned(fragments));
    blocks
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::make::kept::NothingKept;
    use crate::make::squashfs::fill_writer;
    use crate::tree::Node;

    const OPTIONS: SquashfsOptions = SquashfsOptions {
        time: 1_700_000_000,
        zstd_level: 3,
        block_size: 4096,
    };

    /// Files of all sizes around a block's, two of them equal, and names that sort otherwise as strings than as paths.
    fn tree() -> Tree {
        let mut tree = Tree::new();
        for (number, size) in (0_u8..).zip([0, 1, 100, 4095, 4096, 4105, 9000, 9000, 2000, 3000]) {
            let bytes: Vec<u8> = (0..size)
                .map(|at| (at % 251) as u8 ^ (number / 8))
                .collect();
            let directory = ["a", "a-b", "a.b"][usize::from(number) % 3];
            tree.insert(format!("{directory}/{number}"), Node::file(0o644, bytes))
                .unwrap();
        }
        tree
    }

    fn written(tree: &Tree, blocks: Blocks) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = fill_writer(tree, &OPTIONS).unwrap();
        blocks.lend(|| writer.write(&mut bytes)).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn blocks_compressed_before_give_the_same_bytes() {
        let tree = tree();
        let before = compress_blocks(&tree, &OPTIONS, &NothingKept).unwrap();
        assert!(written(&tree, before) == written(&tree, Blocks(BTreeMap::new())));
    }

    #[test]
    fn every_block_is_foreseen() {
        let mut tree = tree();
        // The second of two equal files is written and then written over, so that it would count or not as it happens.
        tree.remove("a-b/7").unwrap();
        let blocks = foresee(&tree, 4096);
        // A block that is wrong on purpose shows in what is written, if it is what was asked for.
        let wrong = blocks
            .iter()
            .map(|block| (Sha256::of(block), b"foreseen".to_vec()));
        let image = written(&tree, Blocks(wrong.collect()));
        let asked_for = image
            .windows(8)
            .filter(|bytes| bytes == b"foreseen")
            .count();
        assert_eq!(asked_for, blocks.len());
    }
}
