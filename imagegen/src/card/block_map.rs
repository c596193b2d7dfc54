//! Reads block maps: which bytes of an image have to reach a card, with a digest for each range.
//!
//! Format: version 2.0 of the XML files of bmaptool, which `make::disk` writes. A map may come from anywhere; what it says of itself has
//! to hold, and its ranges are in order and inside the image.

use std::io;

use sha2::Digest;
use thiserror::Error;

use crate::sha256::Sha256;

/// What is to be written of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMap {
    /// Bytes of the image.
    pub image_size: u64,
    /// The ranges, in order; none is empty and none touches a later one's bytes.
    pub ranges: Vec<MappedRange>,
}

/// Bytes in a row that are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedRange {
    /// The first.
    pub offset: u64,
    /// How many.
    pub size: u64,
    /// Their digest.
    pub digest: Sha256,
}

/// Why a text is not a block map.
#[derive(Debug, Error)]
pub enum BlockMapError {
    /// It is no XML.
    #[error("it is no XML")]
    Xml(#[from] roxmltree::Error),
    /// Something that every map has is not there, or is no number where one should be.
    #[error("it has no usable {0}")]
    Missing(&'static str),
    /// Version 1 has other digests, and version 3 is not known.
    #[error("its version is {0}, where 2.0 is known")]
    Version(String),
    /// Digests of another kind.
    #[error("its digests are {0}, where sha256 is known")]
    DigestKind(String),
    /// It was changed after it was written.
    #[error("its own digest does not fit it")]
    OwnDigest,
    /// Ranges out of order, or outside of the image.
    #[error("its ranges are not in order, not within the image, or not as many as it says")]
    Ranges,
}

impl BlockMap {
    /// How many bytes are to be written.
    #[must_use]
    pub fn mapped(&self) -> u64 {
        self.ranges.iter().map(|range| range.size).sum()
    }

    /// How many of them are at an offset of the image or after it.
    #[must_use]
    pub fn mapped_from(&self, offset: u64) -> u64 {
        let parts = self.ranges.iter().map(|range| {
            let begin = range.offset.max(offset);
            range.end().saturating_sub(begin)
        });
        parts.sum()
    }

    /// Whether the map is of an image of so many bytes: what it says of its ranges holds, at least of the first ones with `most` bytes.
    pub fn fits(
        &self,
        image_size: u64,
        most: u64,
        mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<bool> {
        if self.image_size != image_size {
            return Ok(false);
        }
        let mut buffer = vec![0; 1 << 20];
        let mut looked_at = 0;
        for range in self.ranges.iter().take_while(|range| {
            let more = looked_at < most;
            looked_at += range.size;
            more
        }) {
            let mut hash = sha2::Sha256::new();
            let mut at = range.offset;
            while at < range.end() {
                let size = (range.end() - at).min(buffer.len() as u64);
                let part = &mut buffer[..size as usize];
                read_at(part, at)?;
                hash.update(part);
                at += size;
            }
            if Sha256(hash.finalize().into()) != range.digest {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns a digest of all that is to be written, and where.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        let mut hash = sha2::Sha256::new();
        hash.update(self.image_size.to_le_bytes());
        for range in &self.ranges {
            hash.update(range.offset.to_le_bytes());
            hash.update(range.size.to_le_bytes());
            hash.update(range.digest.0);
        }
        Sha256(hash.finalize().into())
    }
}

impl MappedRange {
    /// Where the next byte is.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// Reads a block map.
pub fn parse_block_map(text: &str) -> Result<BlockMap, BlockMapError> {
    let document = roxmltree::Document::parse(text)?;
    let map = document.root_element();
    if map.tag_name().name() != "bmap" {
        return Err(BlockMapError::Missing("bmap"));
    }
    let version = map.attribute("version").unwrap_or("not given");
    if !version.starts_with("2.") {
        return Err(BlockMapError::Version(version.to_owned()));
    }
    let kind = child(map, "ChecksumType")?;
    if kind != "sha256" {
        return Err(BlockMapError::DigestKind(kind.to_owned()));
    }
    check_own_digest(text, child(map, "BmapFileChecksum")?)?;

    let image_size = number(map, "ImageSize")?;
    let block = number(map, "BlockSize")?;
    let blocks = number(map, "BlocksCount")?;
    if block == 0 || image_size.div_ceil(block) != blocks {
        return Err(BlockMapError::Missing("BlocksCount"));
    }
    let list = element(map, "BlockMap")?;
    let mut ranges: Vec<MappedRange> = Vec::new();
    let mut mapped = 0;
    let mut next = 0;
    for node in list.children().filter(|node| node.has_tag_name("Range")) {
        let (first, last) = parse_range(node.text().unwrap_or_default().trim())?;
        if first < next || last < first || last >= blocks {
            return Err(BlockMapError::Ranges);
        }
        next = last + 1;
        mapped += next - first;
        // No product is larger than the image and one block, and that many blocks fit in 64 bits.
        let end = next.saturating_mul(block).min(image_size);
        let digest = node.attribute("chksum").unwrap_or_default();
        ranges.push(MappedRange {
            offset: first * block,
            size: end - first * block,
            digest: digest
                .parse()
                .map_err(|_| BlockMapError::Missing("chksum"))?,
        });
    }
    if ranges.is_empty() || mapped != number(map, "MappedBlocksCount")? {
        return Err(BlockMapError::Ranges);
    }
    Ok(BlockMap { image_size, ranges })
}

/// `7` or `7-9`.
fn parse_range(text: &str) -> Result<(u64, u64), BlockMapError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse().map_err(|_| BlockMapError::Ranges);
    Ok((number(first)?, number(last)?))
}

/// The digest was taken with zeros in its place.
fn check_own_digest(text: &str, own: &str) -> Result<(), BlockMapError> {
    let expected: Sha256 = own.parse().map_err(|_| BlockMapError::OwnDigest)?;
    let blank = text.replacen(own, &"0".repeat(own.len()), 1);
    if Sha256::of(blank.as_bytes()) == expected {
        Ok(())
    } else {
        Err(BlockMapError::OwnDigest)
    }
}

fn element<'a, 'i>(
    parent: roxmltree::Node<'a, 'i>,
    name: &'static str,
) -> Result<roxmltree::Node<'a, 'i>, BlockMapError> {
    parent
        .children()
        .find(|node| node.has_tag_name(name))
        .ok_or(BlockMapError::Missing(name))
}

fn child<'a>(
    parent: roxmltree::Node<'a, '_>,
    name: &'static str,
) -> Result<&'a str, BlockMapError> {
    let text = element(parent, name)?.text();
    text.map(str::trim).ok_or(BlockMapError::Missing(name))
}

fn number(parent: roxmltree::Node<'_, '_>, name: &'static str) -> Result<u64, BlockMapError> {
    child(parent, name)?
        .parse()
        .map_err(|_| BlockMapError::Missing(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "c9ac7b0624824f844f6c7f3d50fab9741a8914e878467e8daaedca143a34d90b";

    /// A map of an image of 12188 bytes with the ranges given, and a digest of its own that fits.
    fn map(version: &str, size: &str, mapped: u64, ranges: &[&str]) -> String {
        let ranges: String = ranges
            .iter()
            .map(|range| format!("<Range chksum=\"{DIGEST}\"> {range} </Range>"))
            .collect();
        let text = |own: &str| {
            format!(
                "<?xml version=\"1.0\" ?><!-- told --><bmap version=\"{version}\"><ImageSize> {size} </ImageSize>\
                 <BlockSize> 4096 </BlockSize><BlocksCount> 3 </BlocksCount>\
                 <MappedBlocksCount> {mapped} </MappedBlocksCount><ChecksumType> sha256 </ChecksumType>\
                 <BmapFileChecksum> {own} </BmapFileChecksum><BlockMap>{ranges}</BlockMap></bmap>"
            )
        };
        let own = Sha256::of(text(&"0".repeat(64)).as_bytes()).to_string();
        text(&own)
    }

    #[test]
    fn ranges_are_cut_at_the_images_end() {
        let parsed = parse_block_map(&map("2.0", "12188", 2, &["0", "2"])).unwrap();
        let found: Vec<_> = parsed
            .ranges
            .iter()
            .map(|range| (range.offset, range.size))
            .collect();
        assert_eq!(found, [(0, 4096), (8192, 12188 - 8192)]);
        assert_eq!((parsed.mapped(), parsed.mapped_from(4000)), (8092, 4092));
        let one = parse_block_map(&map("2.0", "12188", 3, &["0-2"])).unwrap();
        assert_eq!((one.ranges[0].size, one.mapped_from(12188)), (12188, 0));
        assert_ne!(one.digest(), parsed.digest());
    }

    #[test]
    fn what_is_no_map() {
        let good = map("2.0", "12188", 2, &["0", "2"]);
        for (text, expected) in [
            (String::new(), "it is no XML"),
            ("<x/>".to_owned(), "it has no usable bmap"),
            (
                map("1.4", "12188", 1, &["0"]),
                "its version is 1.4, where 2.0 is known",
            ),
            (map("2.0", "x", 1, &["0"]), "it has no usable ImageSize"),
            (
                map("2.0", "99999", 1, &["0"]),
                "it has no usable BlocksCount",
            ),
            (
                good.replace("sha256", "sha1"),
                "its digests are sha1, where sha256 is known",
            ),
            (
                good.replace("told", "lied"),
                "its own digest does not fit it",
            ),
            (
                good.replace("<BlockSize> 4096 </BlockSize>", ""),
                "its own digest does not fit it",
            ),
        ] {
            assert_eq!(
                parse_block_map(&text).unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
        for (mapped, ranges) in [
            (1, &[][..]),
            (2, &["0"]),
            (1, &["3"]),
            (1, &["0-"]),
            (1, &["-1"]),
            (1, &["x"]),
            (2, &["1", "0"]),
            (2, &["1", "1"]),
            (2, &["2-1"]),
            (1, &["18446744073709551615"]),
        ] {
            let error = parse_block_map(&map("2.0", "12188", mapped, ranges)).unwrap_err();
            assert!(
                matches!(error, BlockMapError::Ranges),
                "{ranges:?}: {error}"
            );
        }
    }

    proptest! {
        #[test]
        fn garbage_is_an_error(at in 0usize..500, bytes in prop::collection::vec(any::<char>(), 0..4)) {
            let good = map("2.0", "12188", 2, &["0", "2"]);
            let at = at.min(good.len());
            let mut text = good[..at].to_owned();
            text.extend(bytes);
            text.push_str(&good[at..]);
            if text != good {
                prop_assert!(parse_block_map(&text).is_err());
            }
        }
    }
}
