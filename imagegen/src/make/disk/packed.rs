//! Packed images: pieces that can be unpacked each by itself, and a table at the end that says where they are. Whoever knows nothing of
//! pieces unpacks the file as any other.
//!
//! A table may come from anywhere. It has to fit what the pieces say of themselves, which every decoder holds them to: so pieces that are
//! found by it are those that any other program finds.

mod xz;
mod zst;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use thiserror::Error;

pub use self::xz::XZ_PRESET;
pub use self::zst::ZSTD_LEVEL;
use crate::inspect::packed::UNPACKED_MAX;
use crate::make::parallel;
use crate::plan::disk::Extent;

/// The largest piece that is unpacked in memory.
const PIECE_MAX: u64 = 32 << 20;

/// More than this bytes that do not get smaller are not packed into: what the formats add to them.
const PACKED_MAX: u64 = PIECE_MAX + (1 << 20);

/// The most pieces, which is what the largest image has if all of it is cut small.
const PIECES_MAX: u64 = 1 << 17;

/// Pieces that a thread packs before what it has made is written.
const PIECES_OF_A_THREAD: usize = 16;

/// Of so many bytes at most so many eighths are left of what is worth the time to pack well.
const WORTHWHILE_EIGHTHS: usize = 7;

/// How an image is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Frames of zstd (RFC 8878) and a seek table.
    Zst,
    /// Blocks in a stream of the .xz file format, whose index is the table.
    Xz,
}

/// A part of an image that can be unpacked by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it is in the file.
    pub(crate) packed: Extent,
    /// What of the image it holds.
    pub(crate) image: Extent,
}

/// Why a packed image cannot be unpacked in pieces.
#[derive(Debug, Error)]
pub(crate) enum NoPieces {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was packed as a whole, or in large pieces, or by other means.
    #[error("it was not packed in small pieces")]
    Whole,
    /// What it says of its pieces is not so.
    #[error("the table of its pieces does not fit them")]
    Misfit,
}

impl Packing {
    /// What comes before the pieces.
    fn head(self) -> &'static [u8] {
        match self {
            Self::Zst => &[],
            Self::Xz => &xz::HEAD,
        }
    }

    /// Packs a piece.
    pub(crate) fn encode(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zst => zst::encode(bytes),
            Self::Xz => xz::encode(bytes),
        }
    }

    /// Unpacks a piece that becomes `size` bytes.
    pub(crate) fn decode(self, packed: &[u8], size: u64) -> io::Result<Vec<u8>> {
        let bytes = match self {
            Self::Zst => zst::decode(packed, size),
            Self::Xz => xz::decode(packed, size),
        };
        let damaged = |err: io::Error| {
            let text = format!("a piece of it is damaged: {err}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let bytes = bytes.map_err(damaged)?;
        match bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(damaged(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The table of pieces, and what else comes after them.
    fn tail(self, pieces: &[Sizes]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zst => zst::seek_table(pieces),
            Self::Xz => Ok(xz::index_and_footer(pieces)),
        }
    }
}

/// What a table says of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    /// Bytes in the file; with xz, those that fill it up to four are not counted.
    packed: u64,
    /// Bytes of the image.
    image: u64,
}

/// Writes a packed image.
pub(crate) struct PiecesWriter<W> {
    packing: Packing,
    out: W,
    pieces: Vec<Sizes>,
}

impl<W: Write> PiecesWriter<W> {
    /// Begins one.
    pub(crate) fn new(packing: Packing, mut out: W) -> io::Result<Self> {
        out.write_all(packing.head())?;
        Ok(Self {
            packing,
            out,
            pieces: Vec::new(),
        })
    }

    /// Adds a packed piece of `size` bytes of the image.
    pub(crate) fn put(&mut self, packed: &[u8], size: u64) -> io::Result<()> {
        let listed = match self.packing {
            Packing::Zst => Some(packed.len() as u64),
            Packing::Xz => xz::unpadded(packed),
        };
        self.pieces.push(Sizes {
            packed: listed.ok_or(io::ErrorKind::InvalidData)?,
            image: size,
        });
        self.out.write_all(packed)
    }

    /// Ends it.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&self.packing.tail(&self.pieces)?)?;
        self.out.flush()
    }
}

/// Packs an image that is cut into pieces, by so many threads, which read it and have their memory each.
pub(crate) fn pack(
    packing: Packing,
    threads: usize,
    pieces: &[Extent],
    read_at: impl Fn(&mut [u8], u64) -> io::Result<()> + Sync,
    out: impl Write,
) -> io::Result<()> {
    let mut writer = PiecesWriter::new(packing, out)?;
    // How much is held in memory does not depend on the image.
    for batch in pieces.chunks(threads.max(1) * PIECES_OF_A_THREAD) {
        let packed = parallel::map_on(threads, batch.to_vec(), |piece| {
            let mut bytes = vec![0; piece.size as usize];
            read_at(&mut bytes, piece.offset)?;
            packing.encode(&bytes)
        })?;
        for (packed, piece) in packed.iter().zip(batch) {
            writer.put(packed, piece.size)?;
        }
    }
    writer.finish()
}

/// Finds the pieces of a packed image without unpacking any, in the order in which they are in the file and in the image.
pub(crate) fn load_pieces(packing: Packing, file: &File) -> Result<Vec<Piece>, NoPieces> {
    let length = file.metadata()?.len();
    let pieces = match packing {
        Packing::Zst => zst::load_table(file, length),
        Packing::Xz => xz::load_table(file, length),
    }?;
    for piece in &pieces {
        let bytes = load_packed(file, piece)?;
        match packing {
            Packing::Zst => zst::check_frame(&bytes, piece.image.size),
            Packing::Xz => xz::check_block(&bytes, piece.image.size),
        }?;
    }
    Ok(pieces)
}

/// The packed bytes of a piece.
pub(crate) fn load_packed(file: &File, piece: &Piece) -> io::Result<Vec<u8>> {
    // Every piece has been found to be at most PACKED_MAX long.
    let mut bytes = vec![0; piece.packed.size as usize];
    file.read_exact_at(&mut bytes, piece.packed.offset)?;
    Ok(bytes)
}

/// Puts pieces one after another, as a table has them, each filled up to a multiple of `unit` bytes; returns where they end in the file.
fn in_a_row(
    head: u64,
    sizes: impl Iterator<Item = Sizes>,
    unit: u64,
) -> Result<(Vec<Piece>, u64), NoPieces> {
    let (mut packed_at, mut image_at) = (head, 0);
    let mut pieces = Vec::new();
    for Sizes { packed, image } in sizes {
        if packed == 0 || image == 0 {
            return Err(NoPieces::Misfit);
        }
        if packed > PACKED_MAX || image > PIECE_MAX {
            return Err(NoPieces::Whole);
        }
        let packed = packed.next_multiple_of(unit);
        pieces.push(Piece {
            packed: Extent {
                offset: packed_at,
                size: packed,
            },
            image: Extent {
                offset: image_at,
                size: image,
            },
        });
        packed_at += packed;
        image_at += image;
    }
    match image_at {
        0 => Err(NoPieces::Misfit),
        _ if image_at >= UNPACKED_MAX => Err(NoPieces::Whole),
        _ => Ok((pieces, packed_at)),
    }
}

/// Reads what is at the end of a file, if the file is so long.
fn read_end(file: &File, end: u64, size: u64) -> Result<Vec<u8>, NoPieces> {
    let begin = end.checked_sub(size).ok_or(NoPieces::Whole)?;
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, begin)?;
    Ok(bytes)
}

/// Whether packing has made enough of a difference to be worth more time.
fn is_worthwhile(bytes: &[u8], packed: &[u8]) -> bool {
    packed.len() < bytes.len() / 8 * WORTHWHILE_EIGHTHS
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use proptest::prelude::*;

    use super::*;

    const PACKINGS: [Packing; 2] = [Packing::Zst, Packing::Xz];

    /// Some of it packs well, some badly, some of it is nothing.
    fn image(size: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..size)
            .map(|at| match at / 50_000 % 3 {
                0 => noise(),
                1 => (at >> 5) as u8,
                _ => 0,
            })
            .collect()
    }

    fn cuts(size: usize, each: usize) -> Vec<Extent> {
        (0..size)
            .step_by(each)
            .map(|at| Extent {
                offset: at as u64,
                size: each.min(size - at) as u64,
            })
            .collect()
    }

    fn packed(packing: Packing, threads: usize, image: &[u8], each: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let read_at = |part: &mut [u8], at: u64| {
            part.copy_from_slice(&image[at as usize..][..part.len()]);
            Ok(())
        };
        let pieces = cuts(image.len(), each);
        pack(packing, threads, &pieces, read_at, &mut out).unwrap();
        out
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// As a program does that knows nothing of pieces.
    fn unpacked(packing: Packing, mut file: &File) -> io::Result<Vec<u8>> {
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        match packing {
            Packing::Zst => zstd::stream::copy_decode(file, &mut bytes)?,
            Packing::Xz => {
                liblzma::read::XzDecoder::new_multi_decoder(file)
                    .read_to_end(&mut bytes)
                    .map(drop)?;
            }
        }
        Ok(bytes)
    }

    fn in_pieces(packing: Packing, file: &File) -> Result<Vec<u8>, NoPieces> {
        let mut bytes = Vec::new();
        for piece in load_pieces(packing, file)? {
            assert_eq!(piece.image.offset, bytes.len() as u64);
            let packed = load_packed(file, &piece)?;
            bytes.extend(packing.decode(&packed, piece.image.size)?);
        }
        Ok(bytes)
    }

    #[test]
    fn pieces_make_the_image() {
        let image = image(700_001);
        for packing in PACKINGS {
            for each in [700_001, 65_536, 4096] {
                let file = file(&packed(packing, 2, &image, each));
                assert!(unpacked(packing, &file).unwrap() == image);
                assert!(in_pieces(packing, &file).unwrap() == image);
            }
        }
    }

    #[test]
    fn packed_bytes_do_not_depend_on_the_number_of_threads() {
        let image = image(700_001);
        for packing in PACKINGS {
            let one = packed(packing, 1, &image, 65_536);
            assert!(one == packed(packing, 3, &image, 65_536), "{packing:?}");
        }
    }

    #[test]
    fn what_was_packed_otherwise_has_no_pieces() {
        let image = image(300_000);
        let frame = zstd::encode_all(&image[..], 3).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(&image).unwrap();
        let single = encoder.finish().unwrap();
        for (packing, bytes, why) in [
            (
                Packing::Zst,
                &frame[..],
                "it was not packed in small pieces",
            ),
            (
                Packing::Zst,
                &frame[..4],
                "it was not packed in small pieces",
            ),
            // A block that does not say how long it is.
            (Packing::Xz, &single, "it was not packed in small pieces"),
            (
                Packing::Xz,
                &single[..20],
                "it was not packed in small pieces",
            ),
        ] {
            let error = load_pieces(packing, &file(bytes)).unwrap_err();
            assert_eq!(error.to_string(), why, "{packing:?}");
        }
    }

    /// Each size in the table of zst, one more and one less.
    #[test]
    fn a_table_that_lies_is_found_out() {
        let image = image(300_000);
        let whole = packed(Packing::Zst, 2, &image, 65_536);
        let entries = whole.len() - 9 - 5 * 8;
        for at in (entries..entries + 40).step_by(4) {
            for by in [1, u32::MAX] {
                let mut bytes = whole.clone();
                let field: &mut [u8; 4] = bytes[at..].first_chunk_mut().unwrap();
                *field = u32::from_le_bytes(*field).wrapping_add(by).to_le_bytes();
                let error = load_pieces(Packing::Zst, &file(&bytes)).unwrap_err();
                assert!(matches!(error, NoPieces::Misfit), "{at}: {error}");
            }
        }
        // Two frames that trade a byte: together they are as long as they should be.
        let mut bytes = whole;
        bytes[entries] = bytes[entries].wrapping_add(1);
        bytes[entries + 8] = bytes[entries + 8].wrapping_sub(1);
        let error = load_pieces(Packing::Zst, &file(&bytes)).unwrap_err();
        assert!(matches!(error, NoPieces::Misfit), "{error}");
    }

    #[test]
    fn tables_of_the_impossible_take_no_memory() {
        let mut table = Vec::new();
        table.extend(u32::MAX.to_le_bytes());
        table.push(0);
        table.extend(0x8f92_eab1_u32.to_le_bytes());
        let error = load_pieces(Packing::Zst, &file(&table)).unwrap_err();
        assert!(matches!(error, NoPieces::Misfit), "{error}");

        let image = image(10_000);
        let mut bytes = packed(Packing::Xz, 1, &image, 4096);
        let backward = bytes.len() - 8;
        bytes[backward..backward + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = load_pieces(Packing::Xz, &file(&bytes)).unwrap_err();
        assert!(matches!(error, NoPieces::Misfit), "{error}");

        let huge = Sizes {
            packed: 100,
            image: u64::MAX / 2,
        };
        let listed = xz::index_and_footer(&[huge; 3]);
        let bytes = [&xz::HEAD[..], &[0; 300], &listed].concat();
        let error = load_pieces(Packing::Xz, &file(&bytes)).unwrap_err();
        assert!(matches!(error, NoPieces::Whole), "{error}");
    }

    #[test]
    fn a_damaged_piece_is_not_unpacked() {
        let image = image(300_000);
        for packing in PACKINGS {
            let mut bytes = packed(packing, 2, &image, 65_536);
            let pieces = load_pieces(packing, &file(&bytes)).unwrap();
            let middle = pieces[1].packed.offset + pieces[1].packed.size / 2;
            bytes[middle as usize] ^= 1;
            let file = file(&bytes);
            let Ok(pieces) = load_pieces(packing, &file) else {
                continue;
            };
            let packed = load_packed(&file, &pieces[1]).unwrap();
            let error = packing.decode(&packed, pieces[1].image.size).unwrap_err();
            assert!(error.to_string().starts_with("a piece of it is damaged"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Cut short and changed somewhere: what is found in pieces, if anything, is what everybody else unpacks.
        #[test]
        fn pieces_are_what_others_unpack(
            xz in any::<bool>(),
            cut in 0..600usize,
            flips in prop::collection::vec((0..600usize, any::<u8>()), 0..3),
        ) {
            let packing = PACKINGS[usize::from(xz)];
            let image = image(20_000);
            let mut bytes = packed(packing, 1, &image, 4096);
            for (from_end, with) in flips {
                let at = bytes.len() - 1 - from_end.min(bytes.len() - 1);
                bytes[at] ^= with;
            }
            bytes.truncate(bytes.len() - cut.saturating_sub(300).min(bytes.len()));
            let file = file(&bytes);
            if let (Ok(pieces), Ok(whole)) = (in_pieces(packing, &file), unpacked(packing, &file)) {
                prop_assert!(pieces == whole);
            }
        }
    }
}
