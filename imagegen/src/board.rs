//! Boards: the facts about one kind of Raspberry Pi, from `boards/NAME.toml`. The file's existence is the board, its name the board's id.
//!
//! Facts only. A step that differs between boards is code elsewhere, which asks for the fact.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// One kind of board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// The id people type, such as `pi3`.
    pub id: String,
    /// The name people read.
    pub name: String,
    /// The processor, as Debian's ports divide them.
    pub arch: Arch,
    /// The serial console, as the kernel's `console=` wants it.
    pub console: String,
    /// Kernel and device trees.
    pub kernel: Kernel,
    /// Files the board's own boot loader reads.
    pub firmware: Firmware,
    /// The Wi-Fi side.
    pub radio: Radio,
    /// Name of the Ethernet interface.
    pub wired_interface: String,
    /// Kernel modules, by name; what they depend on comes by itself.
    pub modules: Modules,
    /// How QEMU stands in for the board, where it can.
    pub emulator: Option<Emulator>,
}

/// A Debian port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit Arm.
    Arm64,
    /// ARMv7.
    Armhf,
    /// ARMv6.
    Armel,
}

impl Arch {
    /// Returns Debian's name of the port.
    pub fn debian_name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::Armhf => "armhf",
            Self::Armel => "armel",
        }
    }

    /// Returns the Rust target whose static programs run on it.
    pub fn rust_target(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-unknown-linux-musl",
            Self::Armhf => "armv7-unknown-linux-musleabihf",
            Self::Armel => "arm-unknown-linux-musleabi",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.debian_name())
    }
}

/// Where the kernel comes from and what its file is called on the boot partition.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// Debian's meta-package, which depends on the kernel of the day.
    pub package: String,
    /// The name the firmware looks for.
    pub boot_file: String,
    /// Device trees, below the package's directory of them.
    pub device_trees: Vec<String>,
}

/// Files for the boot partition from a package of boot firmware.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Firmware {
    /// The package.
    pub package: String,
    /// Names within it.
    pub files: Vec<String>,
}

/// The radio and the files it is fed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Radio {
    /// Name of its interface.
    pub interface: String,
    /// The package with its firmware.
    pub package: String,
    /// Paths below the firmware directory; what links among them lead to comes too.
    pub files: Vec<String>,
    /// Whether it is known to join WPA3 networks.
    #[serde(default)]
    pub wpa3: bool,
}

/// Modules by the place they are loaded from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Modules {
    /// Loaded by the initramfs.
    pub initramfs: Vec<String>,
    /// Present in the root, beside those of the initramfs.
    pub root: Vec<String>,
}

/// A machine of QEMU's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Emulator {
    /// For `-M`.
    pub machine: String,
    /// The device tree, by its name on the boot partition.
    pub device_tree: String,
}

/// Why there is no board.
#[derive(Debug, Error)]
pub enum BoardError {
    /// The directory or a file cannot be read.
    #[error("failed to read {path}", path = path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        #[source]
        err: std::io::Error,
    },
    /// Not TOML, or not the keys of a board.
    #[error("board `{id}` is not described as a board is")]
    Syntax {
        /// The board.
        id: String,
        /// Where and why.
        #[source]
        err: Box<toml::de::Error>,
    },
    /// A value that cannot work.
    #[error("board `{id}`: {key} is `{value}`, but {rule}")]
    Value {
        /// The board.
        id: String,
        /// The key of the file.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        rule: &'static str,
    },
}

/// Loads every board of a directory, by id.
pub fn load_boards(dir: &Path) -> Result<BTreeMap<String, Board>, BoardError> {
    let mut boards = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(|err| read_error(dir, err))? {
        let path = entry.map_err(|err| read_error(dir, err))?.path();
        let Some(id) = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".toml"))
        else {
            continue;
        };
        let text = std::fs::read_to_string(&path).map_err(|err| read_error(&path, err))?;
        boards.insert(id.to_owned(), parse_board(id, &text)?);
    }
    Ok(boards)
}

/// Parses the description of one board.
pub fn parse_board(id: &str, text: &str) -> Result<Board, BoardError> {
    let raw: RawBoard = toml::from_str(text).map_err(|err| BoardError::Syntax {
        id: id.to_owned(),
        err: Box::new(err),
    })?;
    let check = |key, value: &str, holds: bool, rule| match holds {
        true => Ok(()),
        false => Err(BoardError::Value {
            id: id.to_owned(),
            key,
            value: value.to_owned(),
            rule,
        }),
    };
    for (key, name) in [
        ("radio.interface", &raw.radio.interface),
        ("wired.interface", &raw.wired.interface),
    ] {
        check(
            key,
            name,
            is_interface_name(name),
            "an interface name has 1 to 15 letters, digits, `-` or `_`",
        )?;
    }
    check(
        "console",
        &raw.console,
        is_word(&raw.console),
        "it is one word of the kernel's command line",
    )?;
    let trees = raw
        .kernel
        .device_trees
        .iter()
        .map(|path| ("kernel.device-trees", path));
    let files = raw
        .firmware
        .files
        .iter()
        .map(|path| ("firmware.files", path));
    let radio = raw.radio.files.iter().map(|path| ("radio.files", path));
    let boot_file = std::iter::once(("kernel.boot-file", &raw.kernel.boot_file));
    for (key, path) in trees.chain(files).chain(radio).chain(boot_file) {
        check(
            key,
            path,
            is_inner_path(path),
            "it is a relative path without `.` and `..`",
        )?;
    }
    Ok(Board {
        id: id.to_owned(),
        name: raw.name,
        arch: raw.arch,
        console: raw.console,
        kernel: raw.kernel,
        firmware: raw.firmware,
        radio: raw.radio,
        wired_interface: raw.wired.interface,
        modules: raw.modules,
        emulator: raw.emulator,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBoard {
    name: String,
    arch: Arch,
    console: String,
    kernel: Kernel,
    firmware: Firmware,
    radio: Radio,
    wired: RawWired,
    modules: Modules,
    emulator: Option<Emulator>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawWired {
    interface: String,
}

fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_inner_path(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn read_error(path: &Path, err: std::io::Error) -> BoardError {
    BoardError::Read {
        path: path.to_owned(),
        err,
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const PI3: &str = include_str!("../../boards/pi3.toml");

    #[test]
    fn every_board_of_the_repository_parses() {
        let boards = load_boards(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards")).unwrap();
        assert_eq!(boards["pi3"], parse_board("pi3", PI3).unwrap());
        assert_eq!(boards["pi3"].arch, Arch::Arm64);
    }

    /// Each line replaces one of a good board, and names what the message has to say.
    #[test]
    fn a_board_that_cannot_work_is_refused() {
        for (from, to, says) in [
            (
                "arch = \"arm64\"",
                "arch = \"mips\"",
                "unknown variant `mips`",
            ),
            ("name =", "nmae =", "unknown field `nmae`"),
            ("[wired]", "[wired]\nmodem = 1", "unknown field `modem`"),
            (
                "console = \"ttyS1,115200\"",
                "console = \"ttyS1 init=/bin/sh\"",
                "one word",
            ),
            (
                "interface = \"wlan0\"",
                "interface = \"wlan0/../x\"",
                "radio.interface is `wlan0/../x`",
            ),
            (
                "interface = \"eth0\"",
                "interface = \"\"",
                "1 to 15 letters",
            ),
            ("\"start.elf\"", "\"../start.elf\"", "firmware.files"),
            ("\"kernel8.img\"", "\"/kernel8.img\"", "kernel.boot-file"),
            ("machine = \"raspi3b\"", "", "missing field `machine`"),
        ] {
            assert!(PI3.contains(from), "{from}");
            let err = parse_board("pi3", &PI3.replacen(from, to, 1)).unwrap_err();
            let message = format!(
                "{err}: {}",
                err.source().map(ToString::to_string).unwrap_or_default()
            );
            assert!(message.contains(says), "{message}");
        }
    }
}
