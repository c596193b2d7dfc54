//! Writes an image to a card, and believes it only once it was read back. The only place that writes to a card.
//!
//! ```text
//! fresh ── mark in the first block ── everything else ── read back ── first block ── read back ─> whole
//! again ── is the mark there? ────────^ from where the journal says
//! ```
//!
//! At any moment the card has the mark in its first block, or is whole. Every few megabytes the kernel is waited for, so that the rate shown
//! is the card's, and the journal says what is on the card.

use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rustix::io::Errno;
use sha2::Digest;
use thiserror::Error;

use super::block_map::MappedRange;
use super::device::{Card, ReadBack};
use super::image::{CHUNK, HEAD, Image};
use super::journal::{Journal, Mark, Progressed};
use super::refusal::Bytes;
use crate::inspect::packed::{ImageStream, open_image_stream};
use crate::make::fetch::Progress;
use crate::sha256::Sha256;

/// The kernel is waited for after so many bytes: a second's worth for a slow card, and not so few that a fast one is held up.
const SYNC_EVERY: u64 = 16 << 20;

/// Chunks that are read ahead of the writing.
const AHEAD: usize = 4;

/// What to do, and what it needs from outside.
#[derive(Debug)]
pub struct Job<'a> {
    /// The image.
    pub image: &'a Image,
    /// The card.
    pub card: &'a Card,
    /// The folder of journals.
    pub journals: &'a Path,
    /// A mark that no other writing has.
    pub mark: Mark,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes written this time.
    pub bytes: u64,
    /// Bytes that an earlier run wrote.
    pub earlier: u64,
}

/// Why a card is not whole.
#[derive(Debug, Error)]
pub enum FlashError {
    /// The card was pulled, or it died.
    #[error("the card in {card} stopped answering with {} of {} on it", Bytes(*written), Bytes(*total))]
    Gone {
        /// The card.
        card: String,
        /// Bytes that are on it.
        written: u64,
        /// Bytes there are to write.
        total: u64,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// What is read is not what was written.
    #[error("{card} does not hold what was written to it: byte {at} and after differ")]
    Mismatch {
        /// The card.
        card: String,
        /// Where the range begins that differs.
        at: u64,
    },
    /// The image changed since it was looked through.
    #[error("{image} changed while it was written: byte {at} and after differ")]
    ImageChanged {
        /// The image.
        image: String,
        /// Where the range begins that differs.
        at: u64,
    },
    /// The image cannot be read any more.
    #[error("cannot read {image}")]
    Image {
        /// The image.
        image: String,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// The file that stands for a card cannot be written or read.
    #[error("cannot {what} {card}")]
    File {
        /// `write` or `read`.
        what: &'static str,
        /// The file.
        card: String,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// The journal cannot be kept.
    #[error("cannot write a journal in {folder}")]
    Journal {
        /// Where.
        folder: String,
        /// What the system said.
        #[source]
        err: io::Error,
    },
}

impl FlashError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Gone { .. } => {
                "put it in again, whatever it is called then, and run the same command with that name: it goes on where it was. \
                 If it stops there again, the card or the reader is broken"
            }
            Self::Mismatch { .. } => {
                "the card is worn out, or smaller than it claims, or the reader or its cable is bad: try another"
            }
            Self::ImageChanged { .. } | Self::Image { .. } => {
                "run the same command again once the image is there as a whole"
            }
            Self::File { .. } => "check that file, and the room where it is",
            Self::Journal { .. } => "make room there, or name another folder with FOOTBRIDGE_CACHE",
        }
        .to_owned()
    }
}

/// Writes an image to a card and reads it back.
pub fn flash(job: &Job<'_>, progress: &dyn Progress) -> Result<Written, FlashError> {
    let journal = Journal::of_card(job.journals, job.card.identity(), job.card.size());
    let resumed = resume(job, &journal)?;
    let begun = resumed.clone().map_or_else(|| begin(job, &journal), Ok)?;
    match complete(job, &journal, begun, progress) {
        // The card's owner may have put something else there meanwhile; that is no fault of the card's.
        Err(FlashError::Mismatch { at, .. })
            if resumed.as_ref().is_some_and(|resumed| at < resumed.written) =>
        {
            tracing::info!(at, "what an earlier run wrote is not there any more");
            let begun = begin(job, &journal)?;
            complete(job, &journal, begun, progress)
        }
        // Nothing that such a card is said to hold is worth going on from.
        Err(err @ FlashError::Mismatch { .. }) => {
            let _ = journal.remove();
            Err(err)
        }
        done => done,
    }
}

/// Returns how far an earlier run came, if it wrote the same image to the very same card.
fn resume(job: &Job<'_>, journal: &Journal) -> Result<Option<Progressed>, FlashError> {
    let Some(progressed) = journal.load() else {
        return Ok(None);
    };
    if progressed.image != job.image.map.digest().to_string() {
        return Ok(None);
    }
    let mut card = ReadBack::open(job.card).map_err(|err| job.failed("read", 0, err))?;
    let block = card
        .read(0, HEAD as usize)
        .map_err(|err| job.failed("read", 0, err))?;
    // It may have been ended after its last block, and before it removed the journal.
    let same = block == progressed.mark.block() || block == job.image.head;
    Ok(same.then_some(progressed))
}

/// Takes the old partition table away.
fn begin(job: &Job<'_>, journal: &Journal) -> Result<Progressed, FlashError> {
    journal.remove().map_err(|err| job.no_journal(err))?;
    let progressed = Progressed {
        image: job.image.map.digest().to_string(),
        mark: job.mark.clone(),
        written: HEAD,
    };
    put_first_block(job, &progressed.mark.block())?;
    journal
        .save(&progressed)
        .map_err(|err| job.no_journal(err))?;
    Ok(progressed)
}

fn complete(
    job: &Job<'_>,
    journal: &Journal,
    mut progressed: Progressed,
    progress: &dyn Progress,
) -> Result<Written, FlashError> {
    let bytes = job.image.map.mapped_from(progressed.written);
    let earlier = job.image.map.mapped() - HEAD - bytes;
    step(progress, "writing", bytes, || {
        write_rest(job, journal, &mut progressed, progress)
    })?;
    step(progress, "reading back", job.image.map.mapped(), || {
        check(job, progress)
    })?;
    put_first_block(job, &job.image.head)?;
    check_first_block(job)?;
    journal.remove().map_err(|err| job.no_journal(err))?;
    Ok(Written {
        bytes: bytes + HEAD,
        earlier,
    })
}

/// Bytes of the image, and where they belong.
struct Piece {
    at: u64,
    bytes: Vec<u8>,
}

/// Writes everything from where the journal says.
fn write_rest(
    job: &Job<'_>,
    journal: &Journal,
    progressed: &mut Progressed,
    progress: &dyn Progress,
) -> Result<(), FlashError> {
    let from = progressed.written;
    let (sender, pieces) = sync_channel(AHEAD);
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Err(err) = read_pieces(job, from, &sender) {
                // Who does not listen any more failed, which is told already.
                let _ = sender.send(Err(err));
            }
        });
        write_pieces(job, pieces, journal, progressed, progress)
    })
}

fn write_pieces(
    job: &Job<'_>,
    pieces: Receiver<Result<Piece, FlashError>>,
    journal: &Journal,
    progressed: &mut Progressed,
    progress: &dyn Progress,
) -> Result<(), FlashError> {
    let mut end = progressed.written;
    let mut waiting = 0;
    let mut settle = |end, waiting: &mut u64| {
        let failed = |err, written| job.failed("write", written, err);
        job.card
            .sync()
            .map_err(|err| failed(err, progressed.written))?;
        progressed.written = end;
        journal
            .save(progressed)
            .map_err(|err| job.no_journal(err))?;
        progress.advanced(std::mem::take(waiting));
        Ok(())
    };
    for piece in pieces {
        let Piece { at, bytes } = piece?;
        if let Err(err) = job.card.write_all_at(&bytes, at) {
            // What came before may be on the card, and then need not be written again.
            settle(end, &mut waiting)?;
            return Err(job.failed("write", end, err));
        }
        end = at + bytes.len() as u64;
        waiting += bytes.len() as u64;
        if waiting >= SYNC_EVERY {
            settle(end, &mut waiting)?;
        }
    }
    settle(end, &mut waiting)
}

/// Sends the mapped bytes from an offset of the image on. Each range is held against its digest again, if all of it is read.
fn read_pieces(
    job: &Job<'_>,
    from: u64,
    pieces: &SyncSender<Result<Piece, FlashError>>,
) -> Result<(), FlashError> {
    let unreadable = |err| job.unreadable(err);
    let mut stream = open_image_stream(&job.image.path).map_err(unreadable)?;
    let mut at = 0;
    let ranges = job.image.map.ranges.iter();
    for range in ranges.filter(|range| range.end() > from) {
        // The first block is not sent, but belongs to its range.
        let begin = if range.offset < HEAD && from <= HEAD {
            range.offset
        } else {
            range.offset.max(from)
        };
        stream.skip(begin - at).map_err(unreadable)?;
        at = range.end();
        if !send_range(&mut stream, range, begin, pieces).map_err(unreadable)? {
            return Err(FlashError::ImageChanged {
                image: job.image.path.display().to_string(),
                at: range.offset,
            });
        }
    }
    Ok(())
}

/// Returns whether the range is as it was; who does not listen any more needs no answer.
fn send_range(
    stream: &mut ImageStream,
    range: &MappedRange,
    begin: u64,
    pieces: &SyncSender<Result<Piece, FlashError>>,
) -> io::Result<bool> {
    let mut hash = sha2::Sha256::new();
    let mut at = begin;
    while at < range.end() {
        // The first piece ends where the first block does.
        let end = if at < HEAD { HEAD } else { at + CHUNK };
        let mut bytes = vec![0; (end.min(range.end()) - at) as usize];
        stream.read_exact(&mut bytes)?;
        hash.update(&bytes);
        let piece = Piece { at, bytes };
        let next = at + piece.bytes.len() as u64;
        if at >= HEAD && pieces.send(Ok(piece)).is_err() {
            return Ok(true);
        }
        at = next;
    }
    Ok(begin > range.offset || hash.finalize()[..] == range.digest.0)
}

/// Compares what is on the card with the map; the first block is not there yet and taken for granted.
fn check(job: &Job<'_>, progress: &dyn Progress) -> Result<(), FlashError> {
    let failed = |err| job.failed("read", job.image.map.mapped(), err);
    let mut card = ReadBack::open(job.card).map_err(failed)?;
    for range in &job.image.map.ranges {
        let digest = digest_on_card(job, range, &mut card, progress).map_err(failed)?;
        if digest != range.digest {
            return Err(job.mismatch(range.offset));
        }
    }
    Ok(())
}

fn digest_on_card(
    job: &Job<'_>,
    range: &MappedRange,
    card: &mut ReadBack,
    progress: &dyn Progress,
) -> io::Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    let mut at = range.offset;
    if at < HEAD {
        hash.update(&job.image.head[at as usize..]);
        at = HEAD;
    }
    while at < range.end() {
        let part = card.read(at, (range.end() - at).min(CHUNK) as usize)?;
        hash.update(part);
        at += part.len() as u64;
        progress.advanced(part.len() as u64);
    }
    Ok(Sha256(hash.finalize().into()))
}

fn put_first_block(job: &Job<'_>, block: &[u8]) -> Result<(), FlashError> {
    let written = job.card.write_all_at(block, 0);
    written
        .and_then(|()| job.card.sync())
        .map_err(|err| job.failed("write", 0, err))
}

fn check_first_block(job: &Job<'_>) -> Result<(), FlashError> {
    let failed = |err| job.failed("read", job.image.map.mapped(), err);
    let mut card = ReadBack::open(job.card).map_err(failed)?;
    if card.read(0, HEAD as usize).map_err(failed)? == job.image.head {
        Ok(())
    } else {
        Err(job.mismatch(0))
    }
}

impl Job<'_> {
    fn card_name(&self) -> String {
        self.card.path().display().to_string()
    }

    /// Explains an error of the card's; everything of the image before an offset is on it.
    fn failed(&self, what: &'static str, written: u64, err: io::Error) -> FlashError {
        if self.card.is_disk() && is_gone(&err) {
            let map = &self.image.map;
            return FlashError::Gone {
                card: self.card_name(),
                written: map.mapped() - map.mapped_from(written),
                total: map.mapped(),
                err,
            };
        }
        FlashError::File {
            what,
            card: self.card_name(),
            err,
        }
    }

    fn mismatch(&self, at: u64) -> FlashError {
        FlashError::Mismatch {
            card: self.card_name(),
            at,
        }
    }

    fn unreadable(&self, err: io::Error) -> FlashError {
        FlashError::Image {
            image: self.image.path.display().to_string(),
            err,
        }
    }

    fn no_journal(&self, err: io::Error) -> FlashError {
        FlashError::Journal {
            folder: self.journals.display().to_string(),
            err,
        }
    }
}

/// What the kernel answers about a card that is not there, or as good as not there: a pulled one has no size, so that no offset is on it.
fn is_gone(err: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(err),
        Some(
            Errno::IO
                | Errno::NXIO
                | Errno::NODEV
                | Errno::NOSPC
                | Errno::NOMEDIUM
                | Errno::REMOTEIO
                | Errno::SHUTDOWN
                | Errno::TIMEDOUT
        )
    ) || err.kind() == io::ErrorKind::UnexpectedEof
}

fn step<T>(
    progress: &dyn Progress,
    what: &str,
    bytes: u64,
    work: impl FnOnce() -> Result<T, FlashError>,
) -> Result<T, FlashError> {
    progress.started(what, Some(bytes));
    let result = work();
    progress.finished();
    result
}
