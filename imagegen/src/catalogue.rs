//! The list of images that Raspberry Pi Imager offers (`os_list`; rpi-imager, `doc/json-schema/os-list-schema.json`).
//!
//! [`Published::load`] reads an image, compressed or not, and refuses what is none of ours, what could not start, and what names a network
//! or a person; [`os_list`] is pure. What differs between boards, Imager's tags of its devices, is in their descriptions.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::Digest;
use thiserror::Error;

use crate::board::{Arch, Board};
use crate::calendar::civil_date;
use crate::card::image::{ImageFault, examine};
use crate::inspect::cpio::read_initramfs;
use crate::inspect::image::{BootPartition, Image, Unreadable, read_image};
use crate::inspect::packed::{ImageStream, open_image_file, open_image_stream};
use crate::inspect::squashfs::read_time;
use crate::inspect::verify::{is_for, verify};
use crate::make::disk::ImageFormat;
use crate::make::fetch::Progress;
use crate::plan::boot::INITRAMFS_FILE;
use crate::plan::disk::ROOT_PARTITION;
use crate::sha256::Sha256;
use crate::shell;

/// Imager's file for the settings that a person makes in it.
const PRESEED: &str = "rpi-preseed.toml";

/// The address of the folder that images are downloaded from, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

/// An image as it will be downloaded.
#[derive(Clone, Debug)]
pub struct Published {
    /// The name of its file.
    pub file: String,
    /// The board it is for.
    pub board: Board,
    /// The file.
    pub download: Extent,
    /// The image in it: the same where the file is not compressed.
    pub extract: Extent,
    /// Time of everything in it, in seconds since 1970: the date of the newest release in the lock it was built from.
    pub time: u32,
    /// Whether a block map is beside it, which fits.
    pub block_map: bool,
    /// Whether it takes the settings that a person makes in Imager.
    pub preseed: bool,
}

/// Size in bytes and digest of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub size: u64,
    /// Of all of them.
    pub sha256: Sha256,
}

/// Whom a list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever finds it.
    Everybody,
    /// People who may have the network's key.
    OwnPeople,
}

/// Why there is no list.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// The address cannot be one that files are downloaded from.
    #[error("`{0}` is no address of a folder")]
    Base(String),
    /// The image is none, or is damaged.
    #[error(transparent)]
    Image(#[from] ImageFault),
    /// The image cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        err: io::Error,
    },
    /// It has no file system that an image has.
    #[error("{} is no image: {why}", path.display())]
    Unreadable {
        /// The image.
        path: PathBuf,
        /// Why.
        why: Unreadable,
    },
    /// The name of its file says something else than its bytes, or nothing at all.
    #[error("{} is {format}, and its name does not end like that", path.display())]
    Name {
        /// The image.
        path: PathBuf,
        /// What it is.
        format: ImageFormat,
    },
    /// It is for no board that is known.
    #[error("the device trees in {} are those of no board", .0.display())]
    NoBoard(PathBuf),
    /// Imager has no such device.
    #[error("{} is for the board `{board}`, which is none of Raspberry Pi Imager's devices", path.display())]
    NoDevice {
        /// The image.
        path: PathBuf,
        /// Its board.
        board: String,
    },
    /// `verify` finds something.
    #[error("`verify` finds something wrong with {}", .0.display())]
    Faulty(PathBuf),
    /// Everybody who downloads it would have what is one network's or one person's.
    #[error("{} holds {what}, which everybody who downloads it would have", path.display())]
    Secret {
        /// The image.
        path: PathBuf,
        /// What, without its value.
        what: &'static str,
    },
    /// Two images whose address would be the same.
    #[error("two of the images are called {0}")]
    Twice(String),
}

impl CatalogueError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Base(_) => {
                "for example: --url https://example.org/footbridge, the folder that the images will be in; without a password, `?` and `#`"
                    .to_owned()
            }
            Self::Image(fault) => fault.hint(),
            Self::Read { .. } | Self::Unreadable { .. } => {
                "`cargo xtask image` makes an image and prints its path".to_owned()
            }
            Self::Name { format, .. } => format!(
                "Imager unpacks by the name: call it something.{format}, and the files beside it too"
            ),
            Self::NoBoard(_) => {
                "was it built by another version? `cargo xtask image` builds it anew".to_owned()
            }
            Self::NoDevice { .. } => {
                "leave it out; `imager-tags` in the board's description names its devices".to_owned()
            }
            Self::Faulty(path) => {
                format!("`cargo xtask verify {}` says what, and what to do", shell::word(path))
            }
            Self::Secret { .. } => {
                "build it with --open and a network name that nobody has, and without --ssh-key; or, if nobody else can download it, add --private"
                    .to_owned()
            }
            Self::Twice(_) => "rename one of them: each has an address of its own".to_owned(),
        }
    }

    /// Whether the user named something that cannot be meant, and not something that is broken.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Image(fault) => matches!(
                fault,
                ImageFault::NotOurs { .. } | ImageFault::NoFile(_) | ImageFault::Read { .. }
            ),
            Self::Faulty(_) | Self::Read { .. } | Self::Unreadable { .. } => false,
            Self::Base(_)
            | Self::Name { .. }
            | Self::NoBoard(_)
            | Self::NoDevice { .. }
            | Self::Secret { .. }
            | Self::Twice(_) => true,
        }
    }
}

impl BaseUrl {
    /// Parses an address by http or https, without a user, a question or a fragment: file names are put behind it (RFC 3986, section 3).
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let refuse = || CatalogueError::Base(crate::mirror::without_password(text));
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .ok_or_else(refuse)?;
        let host = rest.split('/').next().unwrap_or_default();
        let fits = rest
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
        if host.is_empty() || host.contains('@') || !fits {
            return Err(refuse());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    /// The address of a file in the folder.
    fn join(&self, file: &str) -> String {
        let mut url = format!("{}/", self.0);
        for byte in file.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    url.push(char::from(byte));
                }
                _ => url.push_str(&format!("%{byte:02X}")),
            }
        }
        url
    }
}

impl Published {
    /// Reads an image that is to be downloaded, and refuses what should not be.
    pub fn load(
        path: &Path,
        boards: &[Board],
        audience: Audience,
        progress: &dyn Progress,
    ) -> Result<Self, CatalogueError> {
        let read = |err| CatalogueError::Read {
            path: path.to_owned(),
            err,
        };
        examine(path, progress)?;
        let file = name_of(path)?;
        let mut unpacked = open_image_file(path).map_err(read)?;
        let image = read_image(unpacked.try_clone().map_err(read)?).map_err(|err| {
            CatalogueError::Unreadable {
                path: path.to_owned(),
                why: Unreadable::of_error(&err),
            }
        })?;
        let board = board_of(path, &image, boards)?;
        check(path, &image, board, audience)?;
        let root = image.table.partitions[usize::from(ROOT_PARTITION) - 1]
            .map_or(0, |partition| partition.offset());
        Ok(Self {
            file,
            board: board.clone(),
            download: Extent::of(&mut File::open(path).map_err(read)?).map_err(read)?,
            extract: Extent::of(&mut unpacked).map_err(read)?,
            time: read_time(&unpacked, root).map_err(read)?,
            block_map: block_map_of(path).exists(),
            preseed: takes_preseed(&image),
        })
    }
}

impl Extent {
    /// Reads a file from its beginning to its end.
    fn of(file: &mut File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let mut hash = sha2::Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut size = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => {
                    hash.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
        Ok(Self {
            size,
            sha256: Sha256(hash.finalize().into()),
        })
    }
}

/// Writes the list as JSON: the same for the same images, in whatever order they are given. `icon` is a file's name in the same folder,
/// `website` where people read more.
pub fn os_list(
    base: &BaseUrl,
    mut images: Vec<Published>,
    icon: &str,
    website: &str,
) -> Result<String, CatalogueError> {
    images.sort_by(|a, b| (&a.board.id, &a.file).cmp(&(&b.board.id, &b.file)));
    let mut names = BTreeSet::new();
    if let Some(image) = images.iter().find(|image| !names.insert(&image.file)) {
        return Err(CatalogueError::Twice(image.file.clone()));
    }
    let list = OsList {
        os_list: images
            .iter()
            .map(|image| entry(base, image, icon, website))
            .collect(),
    };
    let mut text = serde_json::to_string_pretty(&list).expect("texts and numbers are JSON");
    text.push('\n');
    Ok(text)
}

/// The keys of the published schema, and `image_download_sha256` of its example.
#[derive(Serialize)]
struct OsList<'a> {
    os_list: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: String,
    description: String,
    icon: String,
    website: &'a str,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bmap_url: Option<String>,
    release_date: String,
    extract_size: u64,
    extract_sha256: String,
    image_download_size: u64,
    image_download_sha256: String,
    devices: &'a [String],
    architecture: &'static str,
    init_format: &'static str,
}

fn entry<'a>(base: &BaseUrl, image: &'a Published, icon: &str, website: &'a str) -> Entry<'a> {
    let board = &image.board;
    let block_map = format!("{}.bmap", image.file);
    Entry {
        name: format!("Footbridge ({})", board.name),
        description: format!(
            "Joins what is plugged into the Ethernet port to the Wi-Fi network. For {}. So far: {}.",
            board.models.join(", "),
            board.tested
        ),
        icon: base.join(icon),
        website,
        url: base.join(&image.file),
        bmap_url: image.block_map.then(|| base.join(&block_map)),
        release_date: date(image.time),
        extract_size: image.extract.size,
        extract_sha256: image.extract.sha256.to_string(),
        image_download_size: image.download.size,
        image_download_sha256: image.download.sha256.to_string(),
        devices: &board.imager_tags,
        architecture: match board.arch {
            Arch::Arm64 => "armv8",
            Arch::Armhf => "armhf",
            Arch::Armel => "armel",
        },
        // Without the key older Imagers take an image for one that runs their script.
        init_format: match image.preseed {
            true => "rpi-preseed",
            false => "none",
        },
    }
}

/// A day as `2026-11-13`.
fn date(seconds: u32) -> String {
    let (year, month, day) = civil_date(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Imager unpacks by what the name ends in, so it has to say what the file is.
fn name_of(path: &Path) -> Result<String, CatalogueError> {
    let stream = open_image_stream(path).map_err(|err| CatalogueError::Read {
        path: path.to_owned(),
        err,
    })?;
    let format = match stream {
        ImageStream::Plain(_) => ImageFormat::Img,
        ImageStream::Zst(_) => ImageFormat::ImgZst,
        ImageStream::Xz(_) => ImageFormat::ImgXz,
    };
    path.file_name()
        .and_then(|name| name.to_str())
        .filter(|name| ImageFormat::of_name(name) == Some(format))
        .map(str::to_owned)
        .ok_or_else(|| CatalogueError::Name {
            path: path.to_owned(),
            format,
        })
}

fn board_of<'a>(
    path: &Path,
    image: &Image,
    boards: &'a [Board],
) -> Result<&'a Board, CatalogueError> {
    image
        .boot
        .as_ref()
        .ok()
        .and_then(|boot| boards.iter().find(|board| is_for(boot, board)))
        .ok_or_else(|| CatalogueError::NoBoard(path.to_owned()))
}

fn check(
    path: &Path,
    image: &Image,
    board: &Board,
    audience: Audience,
) -> Result<(), CatalogueError> {
    let path = || path.to_owned();
    if board.imager_tags.is_empty() {
        return Err(CatalogueError::NoDevice {
            path: path(),
            board: board.id.clone(),
        });
    }
    if !verify(image, board).is_empty() {
        return Err(CatalogueError::Faulty(path()));
    }
    let secret = image.boot.as_ref().ok().and_then(secret_of);
    match secret.filter(|_| audience == Audience::Everybody) {
        Some(what) => Err(CatalogueError::Secret { path: path(), what }),
        None => Ok(()),
    }
}

/// What on the boot partition only those should have whose network it is.
fn secret_of(boot: &BootPartition) -> Option<&'static str> {
    const KEYS: [&str; 9] = [
        "psk",
        "sae_password",
        "password",
        "private_key_passwd",
        "pin",
        "wep_key0",
        "wep_key1",
        "wep_key2",
        "wep_key3",
    ];
    let text = |path: &str| boot.text(path).unwrap_or_default();
    let has_key = text("site/wpa_supplicant.conf").lines().any(|line| {
        let setting = line.trim().split_once('=');
        setting.is_some_and(|(key, value)| KEYS.contains(&key.trim()) && !value.trim().is_empty())
    });
    let names_somebody = text("site/authorized_keys").lines().any(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let has_private_key = boot.tree.iter().any(|(_, node)| {
        let bytes = node.bytes().map_or(&[][..], AsRef::as_ref);
        bytes.len() < 1 << 16 && String::from_utf8_lossy(bytes).contains("PRIVATE KEY-----")
    });
    if has_key || boot.bytes(PRESEED).is_some() {
        Some("a network's key")
    } else if has_private_key {
        Some("a private key")
    } else if names_somebody {
        Some("the key of somebody who may log in")
    } else {
        None
    }
}

/// Whether the image's start looks for Imager's file.
fn takes_preseed(image: &Image) -> bool {
    let init = image
        .boot
        .as_ref()
        .ok()
        .and_then(|boot| boot.bytes(INITRAMFS_FILE))
        .and_then(|bytes| read_initramfs(bytes).ok())
        .and_then(|found| found.tree.bytes("init").cloned());
    init.is_some_and(|bytes| String::from_utf8_lossy(&bytes).contains(PRESEED))
}

fn block_map_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bmap");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::{BaseUrl, date};

    #[test]
    fn addresses() {
        for text in [
            "",
            "example.org/x",
            "ftp://example.org/",
            "https://",
            "https:///x",
            "https://me:secret@example.org/",
            "https://example.org/x?y",
            "https://example.org/x#y",
            "https://example.org/a b",
            "https://example.org/\u{e9}",
        ] {
            let told = BaseUrl::parse(text).unwrap_err().to_string();
            assert!(!told.contains("secret"), "{told}");
        }
        for (base, url) in [
            ("https://example.org", "https://example.org/a%20b%2B.img"),
            (
                "http://192.0.2.1:8000/x//",
                "http://192.0.2.1:8000/x/a%20b%2B.img",
            ),
        ] {
            assert_eq!(BaseUrl::parse(base).unwrap().join("a b+.img"), url);
        }
    }

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_794_573_296, "2026-11-13"),
            (u32::MAX, "2106-02-07"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }
}
