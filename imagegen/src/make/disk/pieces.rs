//! Where an image is cut for packing, so that a change of its `site/` unpacks and packs little of it.
//!
//! ```text
//! | table | FATs, root | ... | cmdline.txt | kernel ...... | site/ | ... | free ............ | root ...... |
//! |   1   |1|1|1|1|1|1 |  1  |      1      |   1   |   1   |   1   |  1  |1|1|1|1|1|1|1|1|1|1|   1   |  1  |
//! ```
//!
//! What a change writes to, and what is free, is cut small and apart from all the rest, which is cut as large as is good for its size. The
//! cuts follow from the image alone.

use crate::make::fat::change::{Storage, places_of_change};
use crate::plan::disk::Extent;

/// What cuts are multiples of; that of block maps, which are cut in the same places.
const BLOCK: u64 = 4096;

/// The largest piece of what does not change. A pi3's kernel loses 0.8 % by it, and can be packed by five processors.
pub(super) const COLD_PIECE: u64 = 8 << 20;

/// The largest piece of what a change may write to: packed in a hundredth of a second, and a hundred of them take less than 10 kB.
pub(super) const HOT_PIECE: u64 = 128 << 10;

/// Cuts an image of `size` bytes: returns all of it, in order. `boot` is where its boot partition begins, and `directory` and `files` are what
/// may be changed on it.
pub(super) fn cut(
    image: &impl Storage,
    size: u64,
    boot: Option<u64>,
    directory: &str,
    files: &[&str],
) -> Vec<Extent> {
    let places = boot.map(|offset| places_of_change(image, offset, directory, files));
    // What cannot be changed in pieces can still be packed in pieces.
    let hot = blocks(places.and_then(Result::ok).unwrap_or_default(), size);
    let mut pieces = Vec::new();
    let mut at = 0;
    for Extent {
        offset,
        size: length,
    } in hot
    {
        split(&mut pieces, at, offset, COLD_PIECE);
        split(&mut pieces, offset, offset + length, HOT_PIECE);
        at = offset + length;
    }
    split(&mut pieces, at, size, COLD_PIECE);
    pieces
}

/// The blocks that extents touch, in order; those that meet become one.
fn blocks(mut extents: Vec<Extent>, size: u64) -> Vec<Extent> {
    extents.sort_by_key(|extent| extent.offset);
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents {
        let begin = extent.offset / BLOCK * BLOCK;
        let end = (extent.offset.saturating_add(extent.size)).min(size);
        let end = end.next_multiple_of(BLOCK).min(size);
        if begin >= end {
            continue;
        }
        match joined.last_mut() {
            Some(last) if begin <= last.offset + last.size => {
                last.size = last.size.max(end - last.offset);
            }
            _ => joined.push(Extent {
                offset: begin,
                size: end - begin,
            }),
        }
    }
    joined
}

/// Cuts a stretch into equal pieces, as few as can be.
fn split(pieces: &mut Vec<Extent>, begin: u64, end: u64, largest: u64) {
    if begin == end {
        return;
    }
    let count = (end - begin).div_ceil(largest);
    let each = (end - begin).div_ceil(count).next_multiple_of(BLOCK);
    let mut at = begin;
    while at < end {
        let size = each.min(end - at);
        pieces.push(Extent { offset: at, size });
        at += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[Extent]) -> Vec<(u64, u64)> {
        pieces
            .iter()
            .map(|piece| (piece.offset, piece.size))
            .collect()
    }

    #[test]
    fn stretches_are_cut_evenly() {
        for (begin, end, expected) in [
            (0, 0, vec![]),
            (0, 100, vec![(0, 100)]),
            (BLOCK, 9 * BLOCK, vec![(BLOCK, 8 * BLOCK)]),
            (
                0,
                9 * BLOCK + 1,
                vec![(0, 5 * BLOCK), (5 * BLOCK, 4 * BLOCK + 1)],
            ),
        ] {
            let mut pieces = Vec::new();
            split(&mut pieces, begin, end, 8 * BLOCK);
            assert_eq!(shown(&pieces), expected, "{begin} {end}");
        }
    }

    #[test]
    fn blocks_hold_what_is_asked_for() {
        let extent = |offset, size| Extent { offset, size };
        for (extents, expected) in [
            (vec![], vec![]),
            (vec![extent(7, 0)], vec![(0, BLOCK)]),
            (
                vec![extent(5 * BLOCK, 1), extent(0, 1), extent(4095, 2)],
                vec![(0, 2 * BLOCK), (5 * BLOCK, BLOCK)],
            ),
            (
                vec![extent(9 * BLOCK, u64::MAX)],
                vec![(9 * BLOCK, BLOCK + 9)],
            ),
            (vec![extent(u64::MAX, u64::MAX)], vec![]),
        ] {
            assert_eq!(shown(&blocks(extents, 10 * BLOCK + 9)), expected);
        }
    }
}
