//! The block map: which blocks of an image have to reach the card, each range with its digest, so that a card is written in a fraction of
//! the time and checked while it is.
//!
//! Format: version 2.0 of the XML files of bmaptool. What is mapped is what is in use, zeros too: a file allocation table of zeros over an
//! old card's would otherwise be the old card's.

use std::fmt::Write as _;
use std::io;

use sha2::{Digest, Sha256};

use crate::plan::disk::Extent;
use crate::sha256;

/// What block maps count in; the size of a page.
pub(super) const BLOCK: u64 = 4096;

/// The digest of the file itself is taken with this in its place.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Blocks in a row, all of them mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

/// A range whose digest is known already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownRange {
    /// Where it is; made of whole blocks, but for one at the end.
    pub(crate) extent: Extent,
    /// The digest of its bytes.
    pub(crate) digest: sha256::Sha256,
}

/// Describes an image of `size` bytes of which the `used` ones matter, in order; `read_at` fills the buffer from an offset of it.
///
/// Ranges end at the `cuts`, in order and multiples of a block, so that who changes little of an image has little of it to read for its new
/// map: what is `known`, in order, is not read where it is a whole range.
pub(crate) fn block_map(
    size: u64,
    used: &[Extent],
    cuts: &[u64],
    known: &[KnownRange],
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<String> {
    let mut lines = String::new();
    let mut mapped = 0;
    for range in cut(ranges(size, used), cuts) {
        let extent = range.extent(size);
        let same = known.binary_search_by_key(&extent.offset, |known| known.extent.offset);
        let same = same
            .ok()
            .map(|at| &known[at])
            .filter(|known| known.extent == extent);
        let digest = match same {
            Some(known) => known.digest,
            None => digest(extent, &mut read_at)?,
        };
        mapped += range.last - range.first + 1;
        let blocks = if range.first == range.last {
            range.first.to_string()
        } else {
            format!("{}-{}", range.first, range.last)
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            lines,
            "        <Range chksum=\"{digest}\"> {blocks} </Range>"
        );
    }
    let blocks = size.div_ceil(BLOCK);
    let text = |own: &str| {
        format!(
            "<?xml version=\"1.0\" ?>\n\
             <bmap version=\"2.0\">\n\
             \x20   <ImageSize> {size} </ImageSize>\n\
             \x20   <BlockSize> {BLOCK} </BlockSize>\n\
             \x20   <BlocksCount> {blocks} </BlocksCount>\n\
             \x20   <MappedBlocksCount> {mapped} </MappedBlocksCount>\n\
             \x20   <ChecksumType> sha256 </ChecksumType>\n\
             \x20   <BmapFileChecksum> {own} </BmapFileChecksum>\n\
             \x20   <BlockMap>\n\
             {lines}\
             \x20   </BlockMap>\n\
             </bmap>\n"
        )
    };
    let own = sha256::Sha256::of(text(NO_DIGEST).as_bytes()).to_string();
    Ok(text(&own))
}

/// The blocks that extents touch; those that touch or meet become one.
fn ranges(size: u64, used: &[Extent]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for extent in used {
        let end = (extent.offset + extent.size).min(size);
        if extent.offset >= end {
            continue;
        }
        let (first, last) = (extent.offset / BLOCK, (end - 1) / BLOCK);
        match ranges.last_mut() {
            Some(before) if first <= before.last + 1 => before.last = before.last.max(last),
            _ => ranges.push(Range { first, last }),
        }
    }
    ranges
}

impl Range {
    fn extent(self, size: u64) -> Extent {
        let offset = self.first * BLOCK;
        let end = ((self.last + 1) * BLOCK).min(size);
        Extent {
            offset,
            size: end - offset,
        }
    }
}

/// Ends ranges where one of the cuts is.
fn cut(ranges: Vec<Range>, cuts: &[u64]) -> Vec<Range> {
    let mut parts = Vec::new();
    for mut range in ranges {
        let next = cuts.partition_point(|cut| cut / BLOCK <= range.first);
        for cut in &cuts[next..] {
            let first = cut / BLOCK;
            if first > range.last {
                break;
            }
            if first > range.first {
                parts.push(Range {
                    first: range.first,
                    last: first - 1,
                });
                range.first = first;
            }
        }
        parts.push(range);
    }
    parts
}

fn digest(
    extent: Extent,
    read_at: &mut impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<sha256::Sha256> {
    const CHUNK: u64 = 256 * BLOCK;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK as usize];
    let (mut at, end) = (extent.offset, extent.offset + extent.size);
    while at < end {
        let part = &mut buffer[..(end - at).min(CHUNK) as usize];
        read_at(part, at)?;
        hash.update(&*part);
        at += part.len() as u64;
    }
    Ok(sha256::Sha256(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn extent(offset: u64, size: u64) -> Extent {
        Extent { offset, size }
    }

    #[test]
    fn extents_become_ranges_of_blocks() {
        for (used, expected) in [
            (vec![], vec![]),
            (vec![extent(0, 0)], vec![]),
            (vec![extent(0, 1)], vec![(0, 0)]),
            (vec![extent(0, 512), extent(4096, 1)], vec![(0, 1)]),
            (vec![extent(0, 512), extent(8191, 2)], vec![(0, 2)]),
            (
                vec![extent(0, 512), extent(8192, 4097)],
                vec![(0, 0), (2, 3)],
            ),
            (vec![extent(0, 1 << 40)], vec![(0, 9)]),
            (vec![extent(1 << 40, 1)], vec![]),
        ] {
            let found: Vec<_> = ranges(10 * BLOCK - 5, &used)
                .iter()
                .map(|range| (range.first, range.last))
                .collect();
            assert_eq!(found, expected, "{used:?}");
        }
    }

    #[test]
    fn ranges_end_at_cuts() {
        let range = |(first, last)| Range { first, last };
        for (ranges, cuts, expected) in [
            (vec![(0, 9)], vec![], vec![(0, 9)]),
            (vec![(0, 9)], vec![0, 10, 11], vec![(0, 9)]),
            (vec![(0, 9)], vec![0, 1, 9], vec![(0, 0), (1, 8), (9, 9)]),
            (
                vec![(0, 3), (5, 9)],
                vec![2, 4, 5, 6, 6],
                vec![(0, 1), (2, 3), (5, 5), (6, 9)],
            ),
        ] {
            let cuts: Vec<u64> = cuts.iter().map(|cut| cut * BLOCK).collect();
            let found = cut(ranges.into_iter().map(range).collect(), &cuts);
            assert_eq!(found, expected.into_iter().map(range).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_known_is_not_read() {
        let digest = sha256::Sha256::of(b"known");
        let known = [KnownRange {
            extent: extent(BLOCK, BLOCK),
            digest,
        }];
        let mut read = Vec::new();
        let map = block_map(
            4 * BLOCK,
            &[extent(0, 4 * BLOCK)],
            &[BLOCK, 2 * BLOCK],
            &known,
            |part, at| {
                read.push((at, part.len() as u64));
                Ok(())
            },
        );
        assert!(
            map.unwrap()
                .contains(&format!("<Range chksum=\"{digest}\"> 1 </Range>"))
        );
        assert_eq!(read, [(0, BLOCK), (2 * BLOCK, 2 * BLOCK)]);
    }

    #[test]
    fn a_block_map() {
        let image = vec![7; 3 * BLOCK as usize - 100];
        let map = block_map(
            image.len() as u64,
            &[extent(0, 1), extent(2 * BLOCK, BLOCK)],
            &[],
            &[],
            |part, at| {
                part.copy_from_slice(&image[at as usize..][..part.len()]);
                Ok(())
            },
        );
        expect![[r#"
            <?xml version="1.0" ?>
            <bmap version="2.0">
                <ImageSize> 12188 </ImageSize>
                <BlockSize> 4096 </BlockSize>
                <BlocksCount> 3 </BlocksCount>
                <MappedBlocksCount> 2 </MappedBlocksCount>
                <ChecksumType> sha256 </ChecksumType>
                <BmapFileChecksum> 503e77b6ca4ea082fa3dc1141ad28aaf2db3d163ffd01fb1a811de6e8472244b </BmapFileChecksum>
                <BlockMap>
                    <Range chksum="c9ac7b0624824f844f6c7f3d50fab9741a8914e878467e8daaedca143a34d90b"> 0 </Range>
                    <Range chksum="abb8fecc1c137f7f298247c012f99dab02c972cd570a689876eea9d517fa394d"> 2 </Range>
                </BlockMap>
            </bmap>
        "#]].assert_eq(&map.unwrap());
    }
}
