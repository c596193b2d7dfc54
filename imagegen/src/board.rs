//! Boards: the facts about one kind of Raspberry Pi, from `boards/NAME.toml`. The file's existence is the board, its name the board's id.
//!
//! Facts only. A step that differs between boards is code elsewhere, which asks for the fact. What several boards have in common is a
//! part (see `part`), which a board names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::part::{Part, load_parts};
use crate::recipe::Feature;

/// One kind of board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// The id people type, such as `pi3`.
    pub id: String,
    /// The name people read.
    pub name: String,
    /// The models it is for, as they are sold.
    pub models: Vec<String>,
    /// What is known to work, and how that was found out.
    pub tested: String,
    /// What Raspberry Pi Imager calls the devices it is for; none where it has no such device.
    pub imager_tags: Vec<String>,
    /// The processor, as Debian's ports divide them.
    pub arch: Arch,
    /// The serial console, as the kernel's `console=` wants it.
    pub console: String,
    /// Kernel and device trees.
    pub kernel: Kernel,
    /// Files the board's own boot loader reads, where they are not in the board itself.
    pub firmware: Option<Firmware>,
    /// The Wi-Fi side.
    pub radio: Radio,
    /// The other side.
    pub wired: Wired,
    /// What its images have whatever the site asks for.
    pub features: BTreeSet<Feature>,
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

    /// Returns the name of the directories of its libraries (Debian Policy 9.1.1).
    pub fn multiarch(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-linux-gnu",
            Self::Armhf => "arm-linux-gnueabihf",
            Self::Armel => "arm-linux-gnueabi",
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
    /// The suite it is taken from where that is not the release itself, such as backports.
    pub suite: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Radio {
    /// Name of its interface.
    pub interface: String,
    /// What it is, for people.
    pub about: String,
    /// Firmware by package: paths below the firmware directory; what links among them lead to comes too.
    pub firmware: FirmwareFiles,
    /// Whether it is known to join WPA3 networks.
    pub wpa3: bool,
}

/// Files by the package that has them.
pub type FirmwareFiles = BTreeMap<String, Vec<String>>;

/// The wired side.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wired {
    /// Name of its interface.
    pub interface: String,
    /// What it is, for people.
    pub about: String,
    /// Whether the board can be a network card of the computer that its USB port is plugged into.
    #[serde(default)]
    pub gadget: bool,
}

/// Modules by the place they are loaded from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
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
    /// Further arguments that make the machine what it should be.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The device tree of the model that the machine stands for, by its name in Linux's source; a machine without one makes its own.
    pub device_tree: Option<String>,
    /// What of the device tree the machine cannot bear.
    #[serde(default)]
    pub device_tree_edits: Vec<DeviceTreeEdit>,
    /// Which of the machine's serial ports is the console.
    #[serde(default)]
    pub serial: u8,
    /// How disk and wired port are connected.
    #[serde(default)]
    pub bus: Bus,
}

/// How a machine of QEMU's is given its disk and its wired port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// An SD card, and an adapter on USB.
    #[default]
    Board,
    /// Both by virtio.
    Virtio,
}

/// Another value for properties of one node of a device tree.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceTreeEdit {
    /// Path of the node.
    pub node: String,
    /// Properties of 32-bit numbers.
    #[serde(default)]
    pub cells: BTreeMap<String, Vec<u32>>,
    /// Properties of strings.
    #[serde(default)]
    pub strings: BTreeMap<String, Vec<String>>,
}

/// The network card, and the protocols that it asks modprobe for by name.
const GADGET_MODULES: [&str; 4] = ["g_ether", "usb_f_ecm", "usb_f_ecm_subset", "usb_f_rndis"];

impl Board {
    /// Returns the board as a network card of the computer that its USB port is plugged into, if it can be one.
    pub fn as_gadget(&self) -> Option<Self> {
        let mut board = self.clone();
        board.wired.interface = "usb0".to_owned();
        board.modules.root.extend(GADGET_MODULES.map(str::to_owned));
        board.features.insert(Feature::Gadget);
        Some(board).filter(|board| board.wired.gadget)
    }

    /// Returns the board as it starts on another's machine of QEMU's: its own kernel and root, with drivers for the other's devices.
    pub fn on_machine_of(&self, other: &Self) -> Self {
        let mut board = self.clone();
        let Modules { initramfs, root } = other.modules.clone();
        board.modules.initramfs.extend(initramfs);
        board.modules.root.extend(root);
        board.console = other.console.clone();
        board.emulator = other.emulator.clone();
        board
    }
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
    /// A part that is not there.
    #[error("board `{id}` names the part `{part}`, but the parts are: {known}")]
    UnknownPart {
        /// The board.
        id: String,
        /// The part.
        part: String,
        /// Those there are.
        known: String,
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

/// Loads every board of a directory, by id; the parts are in the directory `parts` below it.
pub fn load_boards(dir: &Path) -> Result<BTreeMap<String, Board>, BoardError> {
    let parts = load_parts(&dir.join("parts"))?;
    load_descriptions(dir, |id, text| parse_board(id, text, &parts))
}

/// Loads every description of a directory, by the name of its file.
pub(crate) fn load_descriptions<T>(
    dir: &Path,
    parse: impl Fn(&str, &str) -> Result<T, BoardError>,
) -> Result<BTreeMap<String, T>, BoardError> {
    let mut descriptions = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(|err| read_error(dir, err))? {
        let path = entry.map_err(|err| read_error(dir, err))?.path();
        let Some(id) = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".toml"))
        else {
            continue;
        };
        let text = std::fs::read_to_string(&path).map_err(|err| read_error(&path, err))?;
        descriptions.insert(id.to_owned(), parse(id, &text)?);
    }
    Ok(descriptions)
}

/// Parses the description of one board.
pub fn parse_board(
    id: &str,
    text: &str,
    parts: &BTreeMap<String, Part>,
) -> Result<Board, BoardError> {
    let raw: RawBoard = toml::from_str(text).map_err(|err| BoardError::Syntax {
        id: id.to_owned(),
        err: Box::new(err),
    })?;
    let mut board = Board {
        id: id.to_owned(),
        name: raw.name,
        models: raw.models,
        tested: raw.tested,
        imager_tags: raw.imager_tags,
        arch: raw.arch,
        console: raw.console,
        kernel: raw.kernel,
        firmware: raw.firmware,
        radio: Radio {
            interface: raw.radio.interface,
            about: raw.radio.about,
            firmware: FirmwareFiles::new(),
            wpa3: raw.radio.wpa3,
        },
        wired: raw.wired,
        features: BTreeSet::new(),
        modules: Modules::default(),
        emulator: raw.emulator,
    };
    for name in &raw.parts {
        let part = parts.get(name).ok_or_else(|| BoardError::UnknownPart {
            id: id.to_owned(),
            part: name.clone(),
            known: parts.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        add(&mut board, part);
    }
    add(
        &mut board,
        &Part {
            modules: raw.modules,
            radio_firmware: raw.radio.firmware,
        },
    );
    check(&board)?;
    Ok(board)
}

fn add(board: &mut Board, part: &Part) {
    let Modules { initramfs, root } = part.modules.clone();
    board.modules.initramfs.extend(initramfs);
    board.modules.root.extend(root);
    for (package, files) in part.radio_firmware.clone() {
        board
            .radio
            .firmware
            .entry(package)
            .or_default()
            .extend(files);
    }
}

/// Refuses what would do harm where it is used.
fn check(board: &Board) -> Result<(), BoardError> {
    const INTERFACE: &str = "an interface name has 1 to 15 letters, digits, `-` or `_`";
    const WORD: &str = "it is one word of the kernel's command line";
    const PATH: &str = "it is a relative path without `.` and `..`";
    const TAG: &str = "a tag of Imager's is a model and the processor's width: `pi3-64bit`, or `pi2-32bit` for armhf and armel";
    let refuse = |key, value: &str, rule| {
        Err(BoardError::Value {
            id: board.id.clone(),
            key,
            value: value.to_owned(),
            rule,
        })
    };
    for (key, name) in [
        ("radio.interface", &board.radio.interface),
        ("wired.interface", &board.wired.interface),
    ] {
        if !is_interface_name(name) {
            return refuse(key, name, INTERFACE);
        }
    }
    if !is_word(&board.console) {
        return refuse("console", &board.console, WORD);
    }
    if let Some(tag) = board
        .imager_tags
        .iter()
        .find(|tag| !is_imager_tag(tag, board.arch))
    {
        return refuse("imager-tags", tag, TAG);
    }
    let boot_file = std::iter::once(("kernel.boot-file", &board.kernel.boot_file));
    let trees = &board.kernel.device_trees;
    let trees = trees.iter().map(|path| ("kernel.device-trees", path));
    let files = board.firmware.iter().flat_map(|firmware| &firmware.files);
    let files = files.map(|path| ("firmware.files", path));
    let radio = board.radio.firmware.values().flatten();
    let radio = radio.map(|path| ("radio.firmware", path));
    for (key, path) in boot_file.chain(trees).chain(files).chain(radio) {
        if !is_inner_path(path) {
            return refuse(key, path, PATH);
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBoard {
    name: String,
    models: Vec<String>,
    tested: String,
    #[serde(default)]
    imager_tags: Vec<String>,
    arch: Arch,
    console: String,
    #[serde(default)]
    parts: Vec<String>,
    kernel: Kernel,
    firmware: Option<Firmware>,
    radio: RawRadio,
    wired: Wired,
    #[serde(default)]
    modules: Modules,
    emulator: Option<Emulator>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRadio {
    interface: String,
    about: String,
    #[serde(default)]
    wpa3: bool,
    #[serde(default)]
    firmware: FirmwareFiles,
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

fn is_imager_tag(tag: &str, arch: Arch) -> bool {
    let width = match arch {
        Arch::Arm64 => "-64bit",
        Arch::Armhf | Arch::Armel => "-32bit",
    };
    tag.strip_suffix(width)
        .and_then(|model| model.strip_prefix("pi"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
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

    fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards")
    }

    #[test]
    fn every_board_of_the_repository_parses() {
        let boards = load_boards(&directory()).unwrap();
        let parts = load_parts(&directory().join("parts")).unwrap();
        assert_eq!(boards["pi3"], parse_board("pi3", PI3, &parts).unwrap());
        assert_eq!(boards["pi3"].arch, Arch::Arm64);
        for part in parts.values() {
            let users = |board: &&Board| {
                part.modules
                    .root
                    .iter()
                    .all(|module| board.modules.root.contains(module))
            };
            assert!(boards.values().filter(users).count() >= 2, "{part:?}");
        }
    }

    /// Each line replaces one of a good board, and names what the message has to say.
    #[test]
    fn a_board_that_cannot_work_is_refused() {
        let parts = load_parts(&directory().join("parts")).unwrap();
        for (from, to, says) in [
            (
                "arch = \"arm64\"",
                "arch = \"mips\"",
                "unknown variant `mips`",
            ),
            ("name =", "nmae =", "unknown field `nmae`"),
            (
                "imager-tags = [\"pi3-64bit\"]",
                "imager-tags = [\"pi3-32bit\"]",
                "imager-tags is `pi3-32bit`",
            ),
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
            (
                "\"brcm/brcmfmac43430-sdio.bin\"",
                "\"../shadow\"",
                "radio.firmware",
            ),
            ("machine = \"raspi3b\"", "", "missing field `machine`"),
            (
                "\"usb-ethernet\"",
                "\"usb-modem\"",
                "names the part `usb-modem`, but the parts are: raspberry-pi, usb-ethernet",
            ),
        ] {
            assert!(PI3.contains(from), "{from}");
            let err = parse_board("pi3", &PI3.replacen(from, to, 1), &parts).unwrap_err();
            let message = format!(
                "{err}: {}",
                err.source().map(ToString::to_string).unwrap_or_default()
            );
            assert!(message.contains(says), "{message}");
        }
    }
}
