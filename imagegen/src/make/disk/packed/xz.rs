//! Pieces as blocks of one stream of the .xz file format, version 1.2.1, and its index, which every such file has.
//!
//! ```text
//! | header, 12 bytes | block | 0-3 zeros | block | ... | 00 | records | two sizes a block | zeros | CRC32 | footer, 12 bytes |
//! ```
//!
//! The library packs whole streams; a stream of one block is taken apart and put together around it. Only blocks are known that say
//! themselves how long they are packed and unpacked, and that have no filter but LZMA2: the builder's own, and those of `xz -T0`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use flate2::Crc;
use liblzma::read::XzDecoder;
use liblzma::stream::{Check, Filters, LzmaOptions, MtStreamBuilder, Stream};
use liblzma::write::XzEncoder;

use super::{NoPieces, PACKED_MAX, PIECES_MAX, Piece, Sizes, in_a_row, is_worthwhile, read_end};

/// Higher presets only have larger windows, for larger pieces than there are.
pub const XZ_PRESET: u32 = 6;

/// For what is compressed already.
const PRESET_OF_COMPRESSED: u32 = 0;

/// Magic, flags of a stream whose blocks have a CRC64, and their CRC32 (section 2.1.1).
pub(super) const HEAD: [u8; 12] = [
    0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46,
];

/// CRC32, size of the index, flags and magic (section 2.1.2).
const FOOTER: u64 = 12;
const FLAGS: [u8; 2] = [0, 4];
const FOOTER_MAGIC: [u8; 2] = [b'Y', b'Z'];

/// Everything is filled up to so many bytes; a block's packed bytes are, before its check.
const UNIT: u64 = 4;

/// The check behind what is packed.
const CRC64: u64 = 8;

/// A block's header: one filter, and both sizes are there (section 3.1.2).
const ONE_FILTER_AND_SIZES: u8 = 0xc0;
const LZMA2: u64 = 0x21;

/// Windows up to 64 MiB; the largest preset has one.
const WINDOW_MAX: u8 = 28;

/// The smallest window there is, and the preset's.
const WINDOWS: std::ops::RangeInclusive<u64> = 4096..=8 << 20;

pub(super) fn encode(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let packed = encode_with(PRESET_OF_COMPRESSED, bytes)?;
    match is_worthwhile(bytes, &packed) {
        true => encode_with(XZ_PRESET, bytes),
        false => Ok(packed),
    }
}

fn encode_with(preset: u32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let size = bytes.len() as u64;
    let mut options = LzmaOptions::new_preset(preset)?;
    // A window larger than the piece is of no use, and takes memory.
    options.dict_size(size.clamp(*WINDOWS.start(), *WINDOWS.end()) as u32);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    // Of the library's encoders this one has blocks say how long they are.
    let stream = MtStreamBuilder::new()
        .filters(filters)
        .block_size(size)
        .check(Check::Crc64)
        .threads(1)
        .encoder()?;
    let mut encoder = XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes)?;
    let stream = encoder.finish()?;
    let strange = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it was packed in several blocks",
        )
    };
    let blocks = parse_stream_end(&stream).map_err(|_| strange())?;
    match blocks[..] {
        [block] if block.image == size => {
            let end = HEAD.len() + block.packed.next_multiple_of(UNIT) as usize;
            Ok(stream[HEAD.len()..end].to_vec())
        }
        _ => Err(strange()),
    }
}

pub(super) fn decode(packed: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let block = Sizes {
        packed: unpadded(packed).ok_or(io::ErrorKind::InvalidData)?,
        image: size,
    };
    let end = index_and_footer(&[block]);
    let stream = HEAD.chain(packed).chain(&end[..]);
    // The window is bounded by what is looked at in check_block().
    let decoder = Stream::new_stream_decoder(u64::MAX, 0)?;
    let mut bytes = Vec::with_capacity(size as usize);
    XzDecoder::new_stream(io::BufReader::new(stream), decoder)
        .take(size + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks that the bytes are a block that says to be that long, and to become `size` bytes.
pub(super) fn check_block(packed: &[u8], size: u64) -> Result<(), NoPieces> {
    let said = block_sizes(packed).ok_or(NoPieces::Whole)?;
    let length = said.packed.next_multiple_of(UNIT);
    match said.image == size && length == packed.len() as u64 {
        true => Ok(()),
        false => Err(NoPieces::Misfit),
    }
}

/// The size of a block as an index has it: without what fills it up.
pub(super) fn unpadded(packed: &[u8]) -> Option<u64> {
    block_sizes(packed).map(|said| said.packed)
}

/// What a block's header says (section 3.1).
fn block_sizes(packed: &[u8]) -> Option<Sizes> {
    let length = (usize::from(*packed.first()?) + 1) * 4;
    let (header, crc) = packed.get(..length)?.split_last_chunk::<4>()?;
    if crc32(header) != *crc {
        return None;
    }
    let (flags, mut rest) = header.get(1..)?.split_first()?;
    if *flags != ONE_FILTER_AND_SIZES {
        return None;
    }
    let compressed = number(&mut rest)?;
    let image = number(&mut rest)?;
    let filter = (number(&mut rest)?, number(&mut rest)?);
    let (window, zeros) = rest.split_first()?;
    if filter != (LZMA2, 1) || *window > WINDOW_MAX || zeros.iter().any(|byte| *byte != 0) {
        return None;
    }
    let packed = compressed.checked_add(length as u64 + CRC64)?;
    (packed <= PACKED_MAX).then_some(Sizes { packed, image })
}

pub(super) fn index_and_footer(blocks: &[Sizes]) -> Vec<u8> {
    let mut end = vec![0];
    put_number(&mut end, blocks.len() as u64);
    for block in blocks {
        put_number(&mut end, block.packed);
        put_number(&mut end, block.image);
    }
    end.resize(end.len().next_multiple_of(UNIT as usize), 0);
    end.extend(crc32(&end));
    // The index is below 8 bytes a block and a few more, so its size is no problem.
    let backward = (end.len() / 4 - 1) as u32;
    let mut said = backward.to_le_bytes().to_vec();
    said.extend(FLAGS);
    end.extend(crc32(&said));
    end.extend(said);
    end.extend(FOOTER_MAGIC);
    end
}

pub(super) fn load_table(file: &File, length: u64) -> Result<Vec<Piece>, NoPieces> {
    let mut head = HEAD;
    file.read_exact_at(&mut head, 0)?;
    let footer = read_end(file, length, FOOTER)?;
    if head != HEAD || footer[8..10] != FLAGS || footer[10..] != FOOTER_MAGIC {
        return Err(NoPieces::Whole);
    }
    let index = (u64::from(le32(&footer, 4)) + 1) * 4;
    // No number of a piece that is small enough has more than four bytes.
    if index > 16 + PIECES_MAX * 8 {
        return Err(NoPieces::Misfit);
    }
    let end = read_end(file, length, index + FOOTER).map_err(|_| NoPieces::Misfit)?;
    let blocks = parse_stream_end(&end)?;
    let (pieces, begin) = in_a_row(HEAD.len() as u64, blocks.into_iter(), UNIT)?;
    match begin == length - end.len() as u64 {
        true => Ok(pieces),
        false => Err(NoPieces::Misfit),
    }
}

/// Reads index and footer, which the bytes end with.
fn parse_stream_end(bytes: &[u8]) -> Result<Vec<Sizes>, NoPieces> {
    let (rest, footer) = bytes
        .split_last_chunk::<{ FOOTER as usize }>()
        .ok_or(NoPieces::Misfit)?;
    if crc32(&footer[4..10]) != footer[..4] {
        return Err(NoPieces::Misfit);
    }
    let size = (le32(footer, 4) as usize)
        .checked_add(1)
        .and_then(|size| size.checked_mul(4));
    let begin = size.and_then(|size| rest.len().checked_sub(size));
    let index = &rest[begin.ok_or(NoPieces::Misfit)?..];
    parse_index(index).ok_or(NoPieces::Misfit)
}

/// Reads an index (section 4).
fn parse_index(index: &[u8]) -> Option<Vec<Sizes>> {
    let (records, crc) = index.split_last_chunk::<4>()?;
    if crc32(records) != *crc {
        return None;
    }
    let (0, mut rest) = records.split_first().map(|(mark, rest)| (*mark, rest))? else {
        return None;
    };
    let count = number(&mut rest)?;
    // A record has two bytes at least.
    if count > rest.len() as u64 / 2 {
        return None;
    }
    let mut blocks = Vec::new();
    for _ in 0..count {
        blocks.push(Sizes {
            packed: number(&mut rest)?,
            image: number(&mut rest)?,
        });
    }
    (rest.len() < 4 && rest.iter().all(|byte| *byte == 0)).then_some(blocks)
}

/// Takes a number of variable length off the front (section 1.2).
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            // The shortest form is the only one.
            return (*byte != 0 || place == 0).then_some(value);
        }
    }
    None
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
