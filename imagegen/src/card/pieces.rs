//! A packed image of which only the pieces are unpacked that are looked at, and only those packed again that change.
//!
//! ```text
//! old file: | piece | piece | piece | ... | table |
//!               |       |  unpacked, changed, packed
//! new file: | piece | piece'| piece | ... | table'|
//! ```

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::make::disk::packed::{Packing, Piece, PiecesWriter, load_packed};
use crate::make::fat::change::Storage;
use crate::make::parallel;
use crate::plan::disk::Extent;

/// As much is unpacked at a time. Whoever reads more of an image unpacks all of it.
const LOADED_MAX: u64 = 256 << 20;

/// A packed image, and what has been changed of it in memory.
pub(super) struct PackedImage<'a> {
    file: &'a File,
    packing: Packing,
    pieces: &'a [Piece],
    /// What has been unpacked, by number of its piece.
    loaded: Mutex<BTreeMap<usize, Vec<u8>>>,
    changed: BTreeSet<usize>,
    touched: Vec<Extent>,
}

impl<'a> PackedImage<'a> {
    /// An image whose pieces were found in the file.
    pub(super) fn new(file: &'a File, packing: Packing, pieces: &'a [Piece]) -> Self {
        Self {
            file,
            packing,
            pieces,
            loaded: Mutex::default(),
            changed: BTreeSet::new(),
            touched: Vec::new(),
        }
    }

    /// Bytes of the image.
    pub(super) fn size(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| end(piece.image))
    }

    /// Where its pieces begin.
    pub(super) fn cuts(&self) -> Vec<u64> {
        self.pieces.iter().map(|piece| piece.image.offset).collect()
    }

    /// What has been written to.
    pub(super) fn touched(&self) -> &[Extent] {
        &self.touched
    }

    /// The size of the largest piece that has changed.
    pub(super) fn largest_changed(&self) -> u64 {
        let sizes = self.changed.iter();
        let sizes = sizes.map(|number| self.pieces[*number].image.size);
        sizes.max().unwrap_or(0)
    }

    /// Writes the packed image as it has become.
    pub(super) fn write(&self, out: impl Write) -> io::Result<()> {
        // Copies, few and small, so that others may look at the image meanwhile.
        let changed: Vec<(usize, Vec<u8>)> = {
            let loaded = self.loaded();
            let numbers = self.changed.iter();
            numbers
                .map(|number| (*number, loaded[number].clone()))
                .collect()
        };
        let packed = parallel::map(changed, |(number, bytes)| {
            Ok::<_, io::Error>((number, self.packing.encode(&bytes)?))
        })?;
        let packed: BTreeMap<usize, Vec<u8>> = packed.into_iter().collect();
        let mut writer = PiecesWriter::new(self.packing, out)?;
        for (number, piece) in self.pieces.iter().enumerate() {
            match packed.get(&number) {
                Some(packed) => writer.put(packed, piece.image.size)?,
                None => writer.put(&load_packed(self.file, piece)?, piece.image.size)?,
            }
        }
        writer.finish()
    }

    /// Reads all over the image, with no more than one piece in memory that had not been looked at before.
    pub(super) fn reader(&self) -> impl FnMut(&mut [u8], u64) -> io::Result<()> {
        let mut last: Option<(usize, Vec<u8>)> = None;
        move |buffer, at| {
            self.each_part(at, buffer.len(), |number, part, from| {
                if let Some(bytes) = self.loaded().get(&number) {
                    buffer[from..][..part.len()].copy_from_slice(&bytes[part]);
                    return Ok(());
                }
                if last.as_ref().is_none_or(|(kept, _)| *kept != number) {
                    last = Some((number, self.unpack(number)?));
                }
                if let Some((_, bytes)) = &last {
                    buffer[from..][..part.len()].copy_from_slice(&bytes[part]);
                }
                Ok(())
            })
        }
    }

    fn loaded(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<u8>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpack(&self, number: usize) -> io::Result<Vec<u8>> {
        let piece = &self.pieces[number];
        let packed = load_packed(self.file, piece)?;
        self.packing.decode(&packed, piece.image.size)
    }

    /// Does something with a piece's bytes, which stay in memory.
    fn with_loaded<R>(&self, number: usize, work: impl FnOnce(&mut Vec<u8>) -> R) -> io::Result<R> {
        let mut loaded = self.loaded();
        let there: u64 = loaded.values().map(|bytes| bytes.len() as u64).sum();
        let bytes = match loaded.entry(number) {
            Entry::Occupied(bytes) => bytes.into_mut(),
            Entry::Vacant(_) if there + self.pieces[number].image.size > LOADED_MAX => {
                let text = "what is to be read of it is all over it";
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
            }
            Entry::Vacant(place) => place.insert(self.unpack(number)?),
        };
        Ok(work(bytes))
    }

    /// Goes through the pieces that so many bytes from `at` on lie in: calls with a piece's number, the bytes of it, and where in the whole
    /// they begin.
    fn each_part(
        &self,
        at: u64,
        length: usize,
        mut work: impl FnMut(usize, std::ops::Range<usize>, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut number = self.pieces.partition_point(|piece| end(piece.image) <= at);
        let mut done = 0;
        while done < length {
            let piece = self.pieces.get(number);
            let piece = piece.ok_or(io::ErrorKind::UnexpectedEof)?.image;
            // Within a piece, which is in memory.
            let begin = (at + done as u64 - piece.offset) as usize;
            let part = (length - done).min(piece.size as usize - begin);
            work(number, begin..begin + part, done)?;
            done += part;
            number += 1;
        }
        Ok(())
    }
}

impl Storage for PackedImage<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.each_part(at, buffer.len(), |number, part, from| {
            self.with_loaded(number, |bytes| {
                buffer[from..][..part.len()].copy_from_slice(&bytes[part]);
            })
        })
    }

    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut changed = BTreeSet::new();
        self.each_part(at, bytes.len(), |number, part, from| {
            changed.insert(number);
            self.with_loaded(number, |piece| {
                let length = part.len();
                piece[part].copy_from_slice(&bytes[from..][..length]);
            })
        })?;
        self.changed.append(&mut changed);
        self.touched.push(Extent {
            offset: at,
            size: bytes.len() as u64,
        });
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn end(extent: Extent) -> u64 {
    extent.offset + extent.size
}
