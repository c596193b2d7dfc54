//! Checks of the root: nothing of one site or one card in it, nobody's rights too wide, and kernel, modules and radio together.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::GzDecoder;
use liblzma::read::XzDecoder;

use super::{Check, Seen, Subject, seen};
use crate::credentials::decode_hex;
use crate::make::modules::ModuleIndex;
use crate::make::rootfs::FIRMWARE_DIRECTORY;
use crate::tree::{Content, Node, Tree};

const MODULES_DIRECTORY: &str = "usr/lib/modules";

/// File systems that the running system mounts, and what is made in them.
pub(super) const MOUNTED: [&str; 4] = ["run", "proc", "sys", "dev"];

/// Written by the initramfs on each board, whatever the site has.
const WRITTEN_BY_INIT: &str = "etc/machine-id";

/// Secrets that are found in unrelated files by chance if they are shorter.
const SECRET_MIN: usize = 6;

/// No kernel is larger.
const KERNEL_MAX: u64 = 256 << 20;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "dangling-link",
        why: "a program or setting that is a link to nothing is missing when it is needed",
        next: "name the link under [remove] in overlay.toml, or add what it leads to",
        look: dangling_links,
    },
    Check {
        id: "secret-in-root",
        why: "one root is for every site: whoever has an image has its root, and its hash may be public",
        next: "keep what belongs to a site in site/ on the boot partition",
        look: secrets,
    },
    Check {
        id: "password-in-root",
        why: "a password in the image is the same on every card, and an empty one lets anybody in",
        next: "put `*` or `!` into the second field of etc/shadow",
        look: passwords,
    },
    Check {
        id: "ssh-host-key",
        why: "a host key in the image is shared by all boards, so that each can pose as any other",
        next: "let the board make its own key when it starts",
        look: ssh_host_keys,
    },
    Check {
        id: "machine-id",
        why: "boards with one machine id are one machine to DHCP servers and logs",
        next: "leave etc/machine-id empty; the initramfs writes it",
        look: machine_id,
    },
    Check {
        id: "set-id",
        why: "such a program lends its owner's rights to whoever starts it",
        next: "take the bit away; nobody but root logs in",
        look: set_id,
    },
    Check {
        id: "world-writable",
        why: "what anybody may write anybody may replace",
        next: "give it a mode under [modes] in overlay.toml",
        look: world_writable,
    },
    Check {
        id: "device-node",
        why: "devices are the kernel's to make; one in an image gives access behind its back",
        next: "take it out of the root; /dev is a file system of the kernel's",
        look: oddities,
    },
    Check {
        id: "kernel-release",
        why: "a kernel loads the modules of its own release alone",
        next: "take kernel and modules from the same packages",
        look: kernel_release,
    },
    Check {
        id: "module-index",
        why: "udev finds drivers by the index; a module that is not in it is never loaded",
        next: "build the image anew; the index is made from the modules in it",
        look: module_index,
    },
    Check {
        id: "radio-firmware",
        why: "the radio does not start without its firmware, and stays on few channels without the list of countries",
        next: "compare [radio.firmware] in the board's description with the firmware's package",
        look: radio_firmware,
    },
];

pub(super) fn tree<'a>(subject: &'a Subject<'_>) -> Option<&'a Tree> {
    subject.root().map(|found| &found.tree)
}

/// What is wrong with nodes of the root, each looked at by itself.
fn each(subject: &Subject<'_>, look: impl Fn(&str, &Node) -> Option<String>) -> Vec<Seen> {
    let nodes = tree(subject).into_iter().flat_map(Tree::iter);
    nodes
        .filter_map(|(path, node)| Some(seen(format!("root/{path}"), look(path, node)?)))
        .collect()
}

fn file(subject: &Subject<'_>, path: &str) -> Option<String> {
    let bytes = tree(subject)?.bytes(path)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn dangling_links(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(tree) = tree(subject) else {
        return Vec::new();
    };
    let Some(site) = site_destinations(subject) else {
        return Vec::new();
    };
    let is_made_later = |path: &str| {
        let top = path.split('/').next().unwrap_or_default();
        MOUNTED.contains(&top) || path == WRITTEN_BY_INIT || site.contains(path)
    };
    each(subject, |path, node| {
        let Content::Symlink(target) = &node.content else {
            return None;
        };
        match tree.resolve(path) {
            Ok(end) if end.is_empty() || tree.contains(&end) || is_made_later(&end) => None,
            Ok(_) => Some(format!("leads to {target}, which is not there")),
            Err(_) => Some(format!("leads to {target}, and round in circles")),
        }
    })
}

/// What the initramfs lays over the root: lines of name, mode and destination. Nobody knows where there should be an initramfs and none
/// can be read.
fn site_destinations(subject: &Subject<'_>) -> Option<BTreeSet<String>> {
    let found = subject.initramfs();
    if found.is_none() && (subject.boot().is_none() || subject.initramfs_path().is_some()) {
        return None;
    }
    let table = found.and_then(|found| found.tree.bytes("etc/site-files"));
    let table = table.map_or_else(String::new, |bytes| {
        String::from_utf8_lossy(bytes).into_owned()
    });
    let destinations = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    Some(destinations.map(str::to_owned).collect())
}

fn secrets(subject: &Subject<'_>) -> Vec<Seen> {
    let site = SiteValues::of(subject);
    each(subject, |_, node| {
        let bytes = node.bytes()?;
        let is_private_key = contains(bytes, b"-----BEGIN ")
            && [b"PRIVATE KEY-----\n".as_slice(), b"PRIVATE KEY-----\r"]
                .iter()
                .any(|end| contains(bytes, end));
        if is_private_key {
            return Some("holds a private key".to_owned());
        }
        // The value itself is nobody's business.
        site.found_in(bytes)
            .map(|name| format!("holds the {name} of site/"))
    })
}

/// What of the site's files is a key, or names a network or a person.
#[derive(Default)]
struct SiteValues {
    /// What they are called, and values that are looked for anywhere.
    secrets: Vec<(&'static str, String)>,
    /// Part of a setting's name, and values that are looked for in such settings alone: a network may be called as anything is.
    names: Vec<(&'static str, Vec<u8>)>,
}

impl SiteValues {
    fn of(subject: &Subject<'_>) -> Self {
        const SECRETS: [(&str, &str); 4] = [
            ("psk", "key"),
            ("sae_password", "password"),
            ("password", "password"),
            ("private_key_passwd", "password"),
        ];
        let text = |name: &str| {
            subject
                .boot()
                .and_then(|boot| boot.text(&format!("site/{name}")))
                .unwrap_or_default()
        };
        let mut values = Self::default();
        for line in text("wpa_supplicant.conf").lines() {
            let Some((key, value)) = line.trim().split_once('=') else {
                continue;
            };
            for (_, name) in SECRETS.iter().filter(|(wanted, _)| *wanted == key) {
                values
                    .secrets
                    .push((name, value.trim_matches('"').to_owned()));
            }
            match key {
                "ssid" => values.names.push(("ssid", setting_bytes(value))),
                "identity" | "anonymous_identity" => {
                    values.names.push(("identity", setting_bytes(value)));
                }
                _ => {}
            }
        }
        for line in text("authorized_keys").lines() {
            // Kind, key, comment.
            if let Some(key) = line
                .split_whitespace()
                .nth(1)
                .filter(|_| !line.starts_with('#'))
            {
                values.secrets.push(("SSH key", key.to_owned()));
            }
        }
        values
            .secrets
            .retain(|(_, value)| value.len() >= SECRET_MIN);
        values
    }

    /// What of it is in a file of the root.
    fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        let secret = self
            .secrets
            .iter()
            .find(|(_, value)| contains(bytes, value.as_bytes()));
        if let Some((name, _)) = secret {
            return Some(name);
        }
        let text = str::from_utf8(bytes).ok().filter(|text| {
            // Most files have no such setting at all.
            !self.names.is_empty() && text.contains('=')
        })?;
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find_map(|(key, value)| {
                let key = key.to_ascii_lowercase();
                let (part, _) = self
                    .names
                    .iter()
                    .find(|(part, name)| key.contains(part) && setting_bytes(value) == *name)?;
                Some(match *part {
                    "ssid" => "network name",
                    _ => "identity",
                })
            })
    }
}

/// What a setting stands for: text in quotes, hexadecimal digits, or itself.
fn setting_bytes(value: &str) -> Vec<u8> {
    let value = value.trim();
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match quoted {
        Some(text) => text.as_bytes().to_vec(),
        None => decode_hex(value).unwrap_or_else(|| value.as_bytes().to_vec()),
    }
}

fn passwords(subject: &Subject<'_>) -> Vec<Seen> {
    let text = file(subject, "etc/shadow").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let (user, password) = (fields.next()?, fields.next()?);
            let what = match password {
                "" => format!("lets {user} in without a password"),
                locked if locked.starts_with(['*', '!']) => return None,
                _ => format!("has a password of {user}"),
            };
            Some(seen("root/etc/shadow", what))
        })
        .collect()
}

fn ssh_host_keys(subject: &Subject<'_>) -> Vec<Seen> {
    each(subject, |path, node| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_key = name.starts_with("ssh_host_") && name.contains("_key");
        (is_key && node.bytes().is_some()).then(|| "is a host key".to_owned())
    })
}

fn machine_id(subject: &Subject<'_>) -> Vec<Seen> {
    file(subject, WRITTEN_BY_INIT)
        .filter(|text| !matches!(text.trim(), "" | "uninitialized"))
        .map(|_| seen("root/etc/machine-id", "holds an id"))
        .into_iter()
        .collect()
}

fn set_id(subject: &Subject<'_>) -> Vec<Seen> {
    each(subject, |_, node| {
        let lends = node.bytes().is_some() && node.mode & 0o6000 != 0;
        lends.then(|| format!("has mode {:04o}", node.mode))
    })
}

fn world_writable(subject: &Subject<'_>) -> Vec<Seen> {
    each(subject, |_, node| {
        let wide = match &node.content {
            Content::Symlink(_) => false,
            Content::File(_) => node.mode & 0o002 != 0,
            // In a sticky directory only owners remove what is theirs.
            Content::Directory => node.mode & 0o1002 == 0o002,
        };
        wide.then(|| format!("has mode {:04o}", node.mode))
    })
}

fn oddities(subject: &Subject<'_>) -> Vec<Seen> {
    let found = subject.root().into_iter().flat_map(|root| &root.oddities);
    found
        .map(|(path, what)| seen(format!("root/{path}"), format!("is {what}")))
        .collect()
}

/// The releases that a tree has modules of.
fn module_releases(tree: &Tree, directory: &str) -> Vec<String> {
    tree.entries(directory)
        .filter(|(_, node)| node.is_directory())
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn kernel_release(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(root) = tree(subject) else {
        return Vec::new();
    };
    let initramfs = subject
        .initramfs()
        .map(|found| module_releases(&found.tree, "lib/modules"));
    let places = [
        (
            "root/usr/lib/modules",
            Some(module_releases(root, MODULES_DIRECTORY)),
        ),
        ("initramfs/lib/modules", initramfs),
    ];
    let Some((kernel, release)) = kernel_of(subject) else {
        return Vec::new();
    };
    places
        .into_iter()
        .filter_map(|(place, releases)| Some((place, releases?)))
        .filter(|(_, releases)| *releases != [release.clone()])
        .map(|(place, releases)| {
            let found = match releases.is_empty() {
                true => "no modules".to_owned(),
                false => format!("modules of {}", releases.join(", ")),
            };
            seen(
                place,
                format!("has {found}, and boot/{kernel} is {release}"),
            )
        })
        .collect()
}

/// The kernel's file and release, where the release can be read out of it: from its banner, which is in the clear in an Image of arm64, and
/// packed in one of gzip and in other kernels, behind an xz header.
fn kernel_of(subject: &Subject<'_>) -> Option<(String, String)> {
    let path = &subject.choices.first()?.boot.kernel;
    let bytes = subject.boot()?.bytes(path)?;
    let packed = || match bytes.starts_with(&[0x1f, 0x8b]) {
        true => release_in(&unpacked(GzDecoder::new(bytes))),
        false => {
            let at = position(bytes, b"\xfd7zXZ\0")?;
            release_in(&unpacked(XzDecoder::new(&bytes[at..])))
        }
    };
    let release = release_in(bytes).or_else(packed)?;
    Some((path.clone(), release))
}

/// What a decoder gives before its end. What follows the stream is none, so that there is an error after all of the kernel.
fn unpacked(decoder: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = decoder.take(KERNEL_MAX).read_to_end(&mut bytes);
    bytes
}

fn release_in(kernel: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = kernel;
    loop {
        rest = &rest[position(rest, BANNER)? + BANNER.len()..];
        let end = rest.iter().position(|byte| *byte == b' ')?;
        // The text is there once more as a format.
        match str::from_utf8(&rest[..end]) {
            Ok(release) if release.starts_with(|first: char| first.is_ascii_digit()) => {
                return Some(release.to_owned());
            }
            _ => {}
        }
    }
}

fn module_index(subject: &Subject<'_>) -> Vec<Seen> {
    let root = tree(subject).map(|tree| ("root", tree, MODULES_DIRECTORY));
    let initramfs = subject
        .initramfs()
        .map(|found| ("initramfs", &found.tree, "lib/modules"));
    let mut findings = Vec::new();
    for (name, tree, directory) in root.into_iter().chain(initramfs) {
        for release in module_releases(tree, directory) {
            let directory = format!("{directory}/{release}");
            findings.extend(compare_index(name, tree, &directory));
        }
    }
    findings
}

/// Makes the index anew, and compares.
fn compare_index(name: &str, tree: &Tree, directory: &str) -> Vec<Seen> {
    let mut fresh = Tree::new();
    let made = ModuleIndex::of_tree(tree, directory)
        .and_then(|index| index.write_into(&mut fresh, directory));
    if let Err(err) = made {
        let why = super::Unreadable::of_error(&err);
        return vec![seen(format!("{name}/{directory}"), why.to_string())];
    }
    fresh
        .iter()
        .filter(|(_, node)| !node.is_directory())
        .filter(|(path, node)| tree.bytes(path) != node.bytes())
        .map(|(path, _)| {
            let what = if tree.contains(path) {
                "does not agree with the modules"
            } else {
                "is not there"
            };
            seen(format!("{name}/{path}"), what)
        })
        .collect()
}

fn radio_firmware(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(tree) = tree(subject) else {
        return Vec::new();
    };
    let files = subject.board.radio.firmware.values().flatten();
    files
        .map(String::as_str)
        .chain(["regulatory.db", "regulatory.db.p7s"])
        .map(|file| format!("{FIRMWARE_DIRECTORY}/{file}"))
        // A link to nothing is another check's.
        .filter(|path| !tree.contains(path))
        .map(|path| seen(format!("root/{path}"), "is not there"))
        .collect()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    position(bytes, wanted).is_some()
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|byte| *byte == first)?;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
}
