//! What is known of the disks of this machine: sysfs (Documentation/ABI/stable/sysfs-block), the tables of mounts and of swap
//! (proc_pid_mountinfo(5), proc_swaps(5)), and what udev found on them.
//!
//! Everything is read below a root, which is `/` but in tests. Nothing is opened but text files, so that no right is needed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Sysfs counts in these whatever the disk's own sectors are.
const SECTOR: u64 = 512;

/// What a SCSI optical drive says it is (SCSI Primary Commands, peripheral device type).
const SCSI_OPTICAL: &str = "5";

/// All disks there were at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The disks, by name.
    pub disks: Vec<Disk>,
}

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What the kernel calls it, such as `sdb`.
    pub name: String,
    /// Its number.
    pub number: DeviceNumber,
    /// Bytes; zero where a reader has no card in it.
    pub size: u64,
    /// Maker and model, as far as it says.
    pub model: Option<String>,
    /// Serial number: a card's own in an SD slot, the reader's where a USB reader is between.
    pub serial: Option<String>,
    /// How it is connected.
    pub transport: Transport,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Whether the kernel refuses to write to it; a card's switch does that.
    pub read_only: bool,
    /// What is on the disk itself, outside of partitions.
    pub contents: Contents,
    /// Its partitions, by number.
    pub partitions: Vec<DiskPartition>,
    /// What of it is in use, and for what.
    pub uses: Vec<Use>,
    /// The file that a loop device shows.
    pub backing_file: Option<PathBuf>,
}

/// A partition of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPartition {
    /// What the kernel calls it, such as `sdb1`.
    pub name: String,
    /// Its number as a device.
    pub number: DeviceNumber,
    /// Which of the disk's it is.
    pub index: u32,
    /// Bytes.
    pub size: u64,
    /// What is on it.
    pub contents: Contents,
}

/// What udev found on a device; nothing where there is no udev.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The kind of file system.
    pub kind: Option<String>,
    /// Its label.
    pub label: Option<String>,
}

/// Something that a disk, or a part of it, is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The disk or the partition.
    pub device: String,
    /// What for.
    pub purpose: Purpose,
}

/// What a device can be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Mounted there.
    Mount(PathBuf),
    /// Memory is swapped out to it.
    Swap,
    /// Part of another device: a RAID, an encrypted or a logical volume, or a loop device.
    Held(String),
}

/// Major and minor number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// The kind of device.
    pub major: u32,
    /// Which of its kind.
    pub minor: u32,
}

/// How a disk is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// USB: sticks, disks and card readers.
    Usb,
    /// A card in a slot of the machine's own.
    Sd,
    /// A soldered chip that speaks as cards do.
    Emmc,
    /// NVMe.
    Nvme,
    /// SATA, or an older ATA.
    Sata,
    /// A file shown as a disk.
    Loop,
    /// Made by the kernel of others, or of memory.
    Virtual,
    /// A drive for optical discs.
    Optical,
    /// Any other.
    Other,
}

/// A device, found by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Located<'a> {
    /// A whole disk.
    Disk(&'a Disk),
    /// A partition, and the disk it is on.
    Partition(&'a DiskPartition, &'a Disk),
}

/// Reads all about the disks below a root.
pub fn load_inventory(root: &Path) -> io::Result<Inventory> {
    let tables = Tables {
        // Who cannot tell what is mounted has to write to nothing.
        mounts: parse_mounts(&fs::read_to_string(root.join("proc/self/mountinfo"))?),
        swaps: parse_swaps(&fs::read_to_string(root.join("proc/swaps")).unwrap_or_default()),
    };
    let mut names: Vec<String> = fs::read_dir(root.join("sys/block"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let disks = names
        .iter()
        .filter_map(|name| load_disk(root, name, &tables));
    let mut disks: Vec<Disk> = disks.collect();
    add_loops(&mut disks);
    Ok(Inventory { disks })
}

/// A loop device can show a disk or a partition, whole or from a byte on. The kernel does not call that holding it.
fn add_loops(disks: &mut [Disk]) {
    let shown: Vec<(PathBuf, String)> = disks
        .iter()
        .filter_map(|disk| Some((disk.backing_file.clone()?, disk.name.clone())))
        .collect();
    for disk in disks {
        let parts = disk.partitions.iter().map(|part| (part.node(), &part.name));
        let own: Vec<_> = [(disk.node(), &disk.name)]
            .into_iter()
            .chain(parts)
            .collect();
        let uses = shown.iter().filter_map(|(file, holder)| {
            let (_, device) = own.iter().find(|(node, _)| node == file)?;
            Some(Use {
                device: (*device).clone(),
                purpose: Purpose::Held(holder.clone()),
            })
        });
        let uses: Vec<Use> = uses.collect();
        disk.uses.extend(uses);
    }
}

impl Inventory {
    /// Finds the disk or the partition with a number.
    #[must_use]
    pub fn locate(&self, number: DeviceNumber) -> Option<Located<'_>> {
        self.disks.iter().find_map(|disk| {
            if disk.number == number {
                return Some(Located::Disk(disk));
            }
            let mut partitions = disk.partitions.iter();
            partitions
                .find(|partition| partition.number == number)
                .map(|partition| Located::Partition(partition, disk))
        })
    }
}

impl Disk {
    /// The path of its device node.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        node(&self.name)
    }

    /// Everything that tells it from another disk, as far as it says: the same after it was taken out and put in again.
    #[must_use]
    pub fn identity(&self) -> String {
        let model = self.model.as_deref().unwrap_or_default();
        let serial = self.serial.as_deref().unwrap_or_default();
        match &self.backing_file {
            Some(file) => format!("{} {}", self.transport, file.display()),
            None => format!("{} {model} {serial}", self.transport),
        }
    }
}

impl DiskPartition {
    /// The path of its device node.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        node(&self.name)
    }
}

impl DeviceNumber {
    /// Takes a `dev_t` apart (makedev(3)).
    #[must_use]
    pub fn of(device: u64) -> Self {
        DeviceNumber {
            major: rustix::fs::major(device),
            minor: rustix::fs::minor(device),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        Some(DeviceNumber {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usb => "USB",
            Self::Sd => "SD slot",
            Self::Emmc => "eMMC",
            Self::Nvme => "NVMe",
            Self::Sata => "SATA",
            Self::Loop => "loop",
            Self::Virtual => "virtual",
            Self::Optical => "optical",
            Self::Other => "other",
        })
    }
}

/// The kernel writes `!` where a device's name has a slash.
fn node(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// What is in use on this machine, whatever it is on.
struct Tables {
    mounts: Vec<Mount>,
    /// Paths of devices and files.
    swaps: Vec<PathBuf>,
}

struct Mount {
    number: DeviceNumber,
    /// What was mounted; some file systems have a number that is no device's.
    source: PathBuf,
    at: PathBuf,
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [OPTIONAL...] - TYPE SOURCE OPTIONS`
fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ').skip(2);
            Some(Mount {
                number: DeviceNumber::parse(fields.next()?)?,
                at: unescape(fields.nth(1)?),
                source: unescape(after.split(' ').nth(1)?),
            })
        })
        .collect()
}

/// A line of headings, then `PATH TYPE SIZE USED PRIORITY`.
fn parse_swaps(text: &str) -> Vec<PathBuf> {
    text.lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(unescape)
        .collect()
}

/// The kernel writes space, tab, line feed and backslash as three octal digits after a backslash.
fn unescape(text: &str) -> PathBuf {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            _ => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain.into()
}

/// `None` for a disk that went while it was looked at.
fn load_disk(root: &Path, name: &str, tables: &Tables) -> Option<Disk> {
    let folder = root.join("sys/block").join(name);
    let number = DeviceNumber::parse(&text(&folder.join("dev"))?)?;
    let path = fs::canonicalize(&folder).ok()?;
    let transport = transport(name, &folder, &path);
    let partitions = load_partitions(root, &folder);
    let mut uses = uses_of(root, &folder, name, number, tables);
    for partition in &partitions {
        let folder = folder.join(&partition.name);
        uses.extend(uses_of(
            root,
            &folder,
            &partition.name,
            partition.number,
            tables,
        ));
    }
    Some(Disk {
        name: name.to_owned(),
        number,
        size: size(&folder)?,
        model: model(&folder),
        serial: serial(&folder, &path, transport),
        transport,
        removable: flag(&folder, "removable"),
        read_only: flag(&folder, "ro"),
        contents: contents(root, number),
        partitions,
        uses,
        backing_file: text(&folder.join("loop/backing_file")).map(PathBuf::from),
    })
}

fn load_partitions(root: &Path, folder: &Path) -> Vec<DiskPartition> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut partitions: Vec<DiskPartition> = entries
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let number = DeviceNumber::parse(&text(&folder.join("dev"))?)?;
            Some(DiskPartition {
                name: folder.file_name()?.to_str()?.to_owned(),
                number,
                index: text(&folder.join("partition"))?.parse().ok()?,
                size: size(&folder)?,
                contents: contents(root, number),
            })
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    partitions
}

fn uses_of(
    root: &Path,
    folder: &Path,
    name: &str,
    number: DeviceNumber,
    tables: &Tables,
) -> Vec<Use> {
    let own = node(name);
    // `/dev/mapper/x` and `/dev/disk/by-uuid/y` are links to the node.
    let is_own = |path: &Path| {
        let below = path.strip_prefix("/").unwrap_or(path);
        path == own || fs::canonicalize(root.join(below)).is_ok_and(|path| path == own)
    };
    let mounts = tables
        .mounts
        .iter()
        .filter(|mount| mount.number == number || is_own(&mount.source))
        .map(|mount| Purpose::Mount(mount.at.clone()));
    let swaps = tables.swaps.iter().filter(|path| is_own(path));
    let mut holders: Vec<String> = fs::read_dir(folder.join("holders"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .map(|holder| friendly_name(root, holder))
        .collect();
    holders.sort();
    mounts
        .chain(swaps.map(|_| Purpose::Swap))
        .chain(holders.into_iter().map(Purpose::Held))
        .map(|purpose| Use {
            device: name.to_owned(),
            purpose,
        })
        .collect()
}

/// The device mapper gives its devices names besides numbers.
fn friendly_name(root: &Path, holder: String) -> String {
    let name = root.join("sys/block").join(&holder).join("dm/name");
    text(&name).unwrap_or(holder)
}

fn transport(name: &str, folder: &Path, path: &Path) -> Transport {
    let bus = |word: &str| {
        path.iter().any(|part| {
            let number = part.to_str().and_then(|part| part.strip_prefix(word));
            number.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })
    };
    let kind = text(&folder.join("device/type"));
    if name.starts_with("loop") {
        Transport::Loop
    } else if name.starts_with("sr") || kind.as_deref() == Some(SCSI_OPTICAL) {
        Transport::Optical
    } else if name.starts_with("mmcblk") {
        match kind.as_deref() {
            Some("SD") => Transport::Sd,
            _ => Transport::Emmc,
        }
    } else if name.starts_with("nvme") {
        Transport::Nvme
    } else if bus("usb") {
        Transport::Usb
    } else if bus("ata") {
        Transport::Sata
    } else if path.iter().any(|part| part == "virtual") {
        Transport::Virtual
    } else {
        Transport::Other
    }
}

/// SCSI has `vendor` and `model`, NVMe `model`, cards `name`. The vendor of a virtual disk is a number, which says nothing.
fn model(folder: &Path) -> Option<String> {
    let device = folder.join("device");
    let vendor = text(&device.join("vendor")).filter(|vendor| !vendor.starts_with("0x"));
    let model = text(&device.join("model")).or_else(|| text(&device.join("name")));
    let words: Vec<String> = vendor.into_iter().chain(model).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// A card's identification register has its serial number in it; a USB device's is in a folder above the disk's.
fn serial(folder: &Path, path: &Path, transport: Transport) -> Option<String> {
    match transport {
        Transport::Sd | Transport::Emmc => text(&folder.join("device/cid")),
        Transport::Usb => path
            .ancestors()
            .find(|above| above.join("idVendor").exists())
            .and_then(|above| text(&above.join("serial"))),
        _ => ["device/serial", "serial", "device/wwid"]
            .iter()
            .find_map(|name| text(&folder.join(name))),
    }
}

/// The properties of udev's database are lines `E:NAME=VALUE`.
fn contents(root: &Path, number: DeviceNumber) -> Contents {
    let path = root.join(format!("run/udev/data/b{number}"));
    let database = fs::read_to_string(path).unwrap_or_default();
    let property = |name: &str| {
        database
            .lines()
            .filter_map(|line| line.strip_prefix("E:")?.split_once('='))
            .find(|(key, value)| *key == name && !value.is_empty())
            .map(|(_, value)| value.to_owned())
    };
    Contents {
        kind: property("ID_FS_TYPE"),
        label: property("ID_FS_LABEL"),
    }
}

fn size(folder: &Path) -> Option<u64> {
    let sectors: u64 = text(&folder.join("size"))?.parse().ok()?;
    sectors.checked_mul(SECTOR)
}

fn flag(folder: &Path, name: &str) -> bool {
    text(&folder.join(name)).is_some_and(|value| value != "0")
}

/// A file's text without the spaces around it, if there is any.
fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|character: char| character.is_whitespace() || character == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_paths() {
        for (escaped, plain) in [
            ("/media/My\\040Card", "/media/My Card"),
            ("/a\\134b", "/a\\b"),
            ("/a\\011b\\012", "/a\tb\n"),
            ("/odd\\9", "/odd\\9"),
            ("/odd\\777", "/odd\\777"),
            ("/end\\", "/end\\"),
            ("/é\\04é", "/é\\04é"),
        ] {
            assert_eq!(unescape(escaped), Path::new(plain), "{escaped}");
        }
    }

    #[test]
    fn device_numbers() {
        let number = DeviceNumber::of(0x0811);
        assert_eq!((number.major, number.minor), (8, 17));
        assert_eq!(DeviceNumber::parse("8:17"), Some(number));
        assert_eq!(DeviceNumber::parse("8:x"), None);
        assert_eq!(DeviceNumber::parse("8"), None);
    }

    #[test]
    fn mounts_and_swaps() {
        let mounts = parse_mounts(
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
             42 1 0:40 / /home\\040x rw shared:1 master:2 - btrfs /dev/sda2 rw\n\
             no such line\n",
        );
        let found: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.number.major, mount.at.to_str(), mount.source.to_str()))
            .collect();
        assert_eq!(
            found,
            [
                (98, Some("/mnt2"), Some("/dev/root")),
                (0, Some("/home x"), Some("/dev/sda2"))
            ]
        );
        let swaps = parse_swaps("Filename Type Size Used Priority\n/dev/sda3 partition 1 0 -2\n");
        assert_eq!(swaps, [Path::new("/dev/sda3")]);
    }
}
