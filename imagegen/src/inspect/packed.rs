//! Opens an image, compressed or not: as a file that can be read anywhere, or as a stream.
//!
//! Compressed ones are told by their first bytes (RFC 8878, section 3.1.1; the .xz file format, section 2.1.1.1). For a file they are
//! unpacked into a temporary one without a name.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use liblzma::read::XzDecoder;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const XZ_MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];

/// No image comes near this size; what pretends to is not unpacked to the end.
pub(crate) const UNPACKED_MAX: u64 = 16 << 30;

/// The bytes of an image in order, unpacked as they are read.
pub(crate) enum ImageStream {
    /// It is not compressed.
    Plain(File),
    /// Compressed with zstd.
    Zst(zstd::Decoder<'static, BufReader<File>>),
    /// Compressed with xz.
    Xz(Box<XzDecoder<BufReader<File>>>),
}

/// Opens an image; one that is compressed is unpacked first.
pub fn open_image_file(path: &Path) -> io::Result<File> {
    match open_image_stream(path)? {
        ImageStream::Plain(file) => Ok(file),
        packed => unpack(packed),
    }
}

/// Opens an image to be read from its beginning.
pub(crate) fn open_image_stream(path: &Path) -> io::Result<ImageStream> {
    let mut file = File::open(path)?;
    let mut magic = Vec::new();
    file.by_ref().take(6).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(if magic.starts_with(&ZSTD_MAGIC) {
        ImageStream::Zst(zstd::Decoder::new(file)?)
    } else if magic.starts_with(&XZ_MAGIC) {
        let decoder = XzDecoder::new_multi_decoder(BufReader::new(file));
        ImageStream::Xz(Box::new(decoder))
    } else {
        ImageStream::Plain(file)
    })
}

impl ImageStream {
    /// Goes on after that many bytes; an error if there are not as many.
    pub(crate) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if let ImageStream::Plain(file) = self {
            let at = file.stream_position()?;
            if at.saturating_add(bytes) > file.metadata()?.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.seek(SeekFrom::Start(at + bytes))?;
            return Ok(());
        }
        match io::copy(&mut self.take(bytes), &mut io::sink())? {
            skipped if skipped == bytes => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for ImageStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            ImageStream::Plain(file) => file.read(buffer),
            ImageStream::Zst(decoder) => decoder.read(buffer),
            ImageStream::Xz(decoder) => decoder.read(buffer),
        }
    }
}

fn unpack(packed: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    if io::copy(&mut packed.take(UNPACKED_MAX), &mut file)? == UNPACKED_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("unpacked it is larger than {} GiB", UNPACKED_MAX >> 30),
        ));
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
