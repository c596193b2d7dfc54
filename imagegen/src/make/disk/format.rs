//! What the file of an image is: the image itself, or packed.

use std::fmt;
use std::str::FromStr;

use super::packed::Packing;

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

    /// How it is packed, if it is.
    pub(crate) fn packing(self) -> Option<Packing> {
        match self {
            Self::Img => None,
            Self::ImgZst => Some(Packing::Zst),
            Self::ImgXz => Some(Packing::Xz),
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
}
