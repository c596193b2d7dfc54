//! What an image is packed in, and the packing.
//!
//! The same image gives the same bytes with any number of threads: both encoders cut it into pieces whose size does not depend on how many
//! threads there are.

use std::fmt;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::str::FromStr;

use liblzma::stream::{Check, MtStreamBuilder};
use liblzma::write::XzEncoder;

/// Most of an image is a root that is compressed already; what is left to gain is in kernel and firmware. A pi3 image of 92 MB becomes 33.4
/// MB at level 12, 33.0 MB at 16 and 31.7 MB at 19, which takes 25 s on two processors.
pub const ZSTD_LEVEL: i32 = 19;

/// The same image becomes 30.0 MB in 29 s. Higher presets only have larger windows.
pub const XZ_PRESET: u32 = 6;

/// Two of the preset's windows: pieces as small as they can be for little loss, so that there is one for each processor.
const XZ_PIECE: u64 = 16 << 20;

/// Each thread takes about 100 MB.
const THREADS_MAX: usize = 4;

/// What the file of an image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFormat {
    /// The image as it will be on the card.
    #[default]
    Img,
    /// Compressed with zstd (RFC 8878).
    ImgZst,
    /// Compressed with xz.
    ImgXz,
}

/// The text names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no format of an image; they are img, img.zst and img.xz")]
pub struct ParseFormatError(String);

impl ImageFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Img, Self::ImgZst, Self::ImgXz];

    /// How names of such files end, without the leading dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Img => "img",
            Self::ImgZst => "img.zst",
            Self::ImgXz => "img.xz",
        }
    }

    /// The format that a file's name speaks of, if it speaks of one.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [
            (".img", Self::Img),
            (".zst", Self::ImgZst),
            (".xz", Self::ImgXz),
        ]
        .into_iter()
        .find(|(end, _)| name.ends_with(end))
        .map(|(_, format)| format)
    }
}

impl FromStr for ImageFormat {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.extension() == text)
            .ok_or_else(|| ParseFormatError(text.to_owned()))
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

/// Threads to pack with on this machine.
pub(super) fn packing_threads() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    // At most THREADS_MAX, so no cast cuts.
    processors.min(THREADS_MAX) as u32
}

/// Packs an image of `size` bytes.
pub(super) fn pack(
    format: ImageFormat,
    threads: u32,
    size: u64,
    mut image: impl Read,
    mut out: impl Write,
) -> io::Result<()> {
    match format {
        ImageFormat::Img => {
            io::copy(&mut image, &mut out)?;
        }
        ImageFormat::ImgZst => {
            let mut encoder = zstd::Encoder::new(&mut out, ZSTD_LEVEL)?;
            encoder.multithread(threads)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(size))?;
            io::copy(&mut image, &mut encoder)?;
            encoder.finish()?;
        }
        ImageFormat::ImgXz => {
            let stream = MtStreamBuilder::new()
                .preset(XZ_PRESET)
                .block_size(XZ_PIECE)
                .check(Check::Crc64)
                .threads(threads)
                .encoder()?;
            let mut encoder = XzEncoder::new_stream(&mut out, stream);
            io::copy(&mut image, &mut encoder)?;
            encoder.finish()?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_speak_of_formats() {
        for (name, expected) in [
            ("card.img", Some(ImageFormat::Img)),
            ("card.img.zst", Some(ImageFormat::ImgZst)),
            ("card.zst", Some(ImageFormat::ImgZst)),
            ("card.img.xz", Some(ImageFormat::ImgXz)),
            ("card.img.gz", None),
            ("card", None),
        ] {
            assert_eq!(ImageFormat::of_name(name), expected, "{name}");
        }
        for format in ImageFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!(
            "zip".parse::<ImageFormat>().unwrap_err().to_string(),
            "`zip` is no format of an image; they are img, img.zst and img.xz"
        );
    }

    #[test]
    fn packed_bytes_do_not_depend_on_the_number_of_threads() {
        // Larger than a piece of either encoder, and quick to pack.
        let mut image = vec![0; 40 << 20];
        for (at, byte) in image.iter_mut().enumerate().step_by(4099) {
            *byte = (at >> 5) as u8;
        }
        let packed = |format, threads| {
            let mut bytes = Vec::new();
            pack(format, threads, image.len() as u64, &image[..], &mut bytes).unwrap();
            bytes
        };
        for format in ImageFormat::ALL {
            assert!(packed(format, 1) == packed(format, 3), "{format}");
        }
    }
}
