//! Pieces as frames of zstd (RFC 8878), and the table that the zstd project calls a seek table: a skippable frame at the end of the file.
//!
//! ```text
//! | frame | frame | ... | 5e 2a 4d 18 | size | 8 bytes a frame | frames | descriptor | b1 ea 92 8f |
//! ```
//!
//! Format: version 0.1.0 of the zstd seekable format, without the checksums in the table, for every frame has one of its own. All numbers
//! are of 32 bits, the least byte first; a frame's are its packed size and its size.

use std::fs::File;
use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{self, CParameter};

use super::{NoPieces, PIECES_MAX, Piece, Sizes, in_a_row, is_worthwhile, read_end};

/// What is left to gain in an image is in kernel and firmware; the root is compressed already.
pub const ZSTD_LEVEL: i32 = 19;

/// For what is compressed already: it takes a hundredth of the time, and 0.3 % more.
const LEVEL_OF_COMPRESSED: i32 = 3;

const SKIPPABLE_MAGIC: u32 = 0x184d_2a5e;
const SEEKABLE_MAGIC: u32 = 0x8f92_eab1;
const SKIPPABLE_HEADER: u64 = 8;
const FOOTER: u64 = 9;
const ENTRY: u64 = 8;
const ENTRY_WITH_CHECKSUM: u64 = 12;
const CHECKSUM_FLAG: u8 = 0x80;
const RESERVED_FLAGS: u8 = 0x7c;

/// How every frame begins that holds something.
const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

pub(super) fn encode(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let packed = encode_at(LEVEL_OF_COMPRESSED, bytes)?;
    match is_worthwhile(bytes, &packed) {
        true => encode_at(ZSTD_LEVEL, bytes),
        false => Ok(packed),
    }
}

fn encode_at(level: i32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.compress(bytes)
}

pub(super) fn decode(packed: &[u8], size: u64) -> io::Result<Vec<u8>> {
    zstd::bulk::decompress(packed, size as usize)
}

/// Checks that the bytes are one frame, no more and no less, that says to become `size` bytes. Its blocks' headers are looked at.
pub(super) fn check_frame(packed: &[u8], size: u64) -> Result<(), NoPieces> {
    let fits = packed.starts_with(&FRAME_MAGIC)
        && matches!(zstd_safe::get_frame_content_size(packed), Ok(Some(said)) if said == size)
        && zstd_safe::find_frame_compressed_size(packed) == Ok(packed.len());
    fits.then_some(()).ok_or(NoPieces::Misfit)
}

pub(super) fn seek_table(frames: &[Sizes]) -> io::Result<Vec<u8>> {
    let number = |number: u64| {
        u32::try_from(number)
            .map(u32::to_le_bytes)
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
    };
    let count = frames.len() as u64;
    let mut table = Vec::new();
    table.extend(SKIPPABLE_MAGIC.to_le_bytes());
    table.extend(number(count * ENTRY + FOOTER)?);
    for frame in frames {
        table.extend(number(frame.packed)?);
        table.extend(number(frame.image)?);
    }
    table.extend(number(count)?);
    table.push(0);
    table.extend(SEEKABLE_MAGIC.to_le_bytes());
    Ok(table)
}

pub(super) fn load_table(file: &File, length: u64) -> Result<Vec<Piece>, NoPieces> {
    let footer = read_end(file, length, FOOTER)?;
    let (count, descriptor) = (u64::from(le32(&footer, 0)), footer[4]);
    if le32(&footer, 5) != SEEKABLE_MAGIC || descriptor & RESERVED_FLAGS != 0 {
        return Err(NoPieces::Whole);
    }
    if count > PIECES_MAX {
        return Err(NoPieces::Misfit);
    }
    let entry = match descriptor & CHECKSUM_FLAG {
        0 => ENTRY,
        _ => ENTRY_WITH_CHECKSUM,
    };
    let size = count * entry + FOOTER;
    let table = read_end(file, length, SKIPPABLE_HEADER + size).map_err(|_| NoPieces::Misfit)?;
    if le32(&table, 0) != SKIPPABLE_MAGIC || u64::from(le32(&table, 4)) != size {
        return Err(NoPieces::Misfit);
    }
    let entries = &table[SKIPPABLE_HEADER as usize..table.len() - FOOTER as usize];
    let sizes = entries.chunks_exact(entry as usize).map(|entry| Sizes {
        packed: le32(entry, 0).into(),
        image: le32(entry, 4).into(),
    });
    let (pieces, end) = in_a_row(0, sizes, 1)?;
    match end == length - table.len() as u64 {
        true => Ok(pieces),
        false => Err(NoPieces::Misfit),
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
