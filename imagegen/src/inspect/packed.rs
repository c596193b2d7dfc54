//! Opens an image, compressed or not, as a file that can be read anywhere.
//!
//! Compressed ones are told by their first bytes (RFC 8878, section 3.1.1; the .xz file format, section 2.1.1.1) and unpacked into a
//! temporary file without a name.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use liblzma::read::XzDecoder;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const XZ_MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];

/// No image comes near this size; what pretends to is not unpacked to the end.
const UNPACKED_MAX: u64 = 16 << 30;

/// Opens an image; one that is compressed is unpacked first.
pub fn open_image_file(path: &Path) -> io::Result<File> {
    let mut file = File::open(path)?;
    let mut magic = Vec::new();
    file.by_ref().take(6).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    if magic.starts_with(&ZSTD_MAGIC) {
        unpack(zstd::Decoder::new(file)?)
    } else if magic.starts_with(&XZ_MAGIC) {
        unpack(XzDecoder::new_multi_decoder(BufReader::new(file)))
    } else {
        Ok(file)
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
