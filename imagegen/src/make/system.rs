//! What of an image does not depend on the site: the root file system and most files of the boot partition. It is the same for all cards of
//! a fleet, and nearly all the work is in it.
//!
//! As bytes, numbers little-endian:
//!
//! ```text
//! | files: u32 | for each: length of name: u32, name, size: u64 | contents of each |
//! ```
//!
//! The names begin with what a file is: `root`, `boot/…`, `identity` (id and version, a line each), `licence/…` (of a package), `common/…`
//! (a licence that those refer to).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use sha2::Digest;

use crate::board::{Modules, Radio};
use crate::make::identity::Identity;
use crate::make::image::ImageInputs;
use crate::make::kept::BUILDER;
use crate::make::licences::Licences;
use crate::plan::boot::BootPlan;
use crate::plan::overlay::PlannedNode;
use crate::plan::{Plan, RootPlan};
use crate::sha256::Sha256;

// The names of what is in a system.
const ROOT: &str = "root";
const IDENTITY: &str = "identity";
const BOOT: &str = "boot/";
const LICENCE: &str = "licence/";
const COMMON: &str = "common/";

/// What of an image does not depend on the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The root file system, as it goes into its partition.
    pub root: Arc<[u8]>,
    /// Files of the boot partition by path.
    pub boot: BTreeMap<String, Arc<[u8]>>,
    /// What it says of itself.
    pub identity: Identity,
    /// What its packages say of their licences; not in the image.
    pub licences: Licences,
}

/// The digest of everything that a system is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SystemKey(Sha256);

impl SystemKey {
    /// Takes the digest of what the system of a plan is made from, this builder included. The site is not in it.
    #[must_use]
    pub fn of(plan: &Plan, inputs: &ImageInputs<'_>) -> Self {
        // Named one by one, so that nobody adds to them without a thought for this.
        let Plan {
            board,
            features,
            packages,
            kernel_release,
            signature,
            modules,
            radio,
            root,
            initramfs,
            boot,
        } = plan;
        let ImageInputs {
            resolution,
            agent,
            time,
        } = inputs;
        let RootPlan {
            removals,
            rules,
            nodes,
        } = root;
        let Modules {
            initramfs: modules_of_initramfs,
            root: modules_of_root,
        } = modules;
        let Radio { firmware, .. } = radio;
        let BootPlan {
            firmware: boot_firmware,
            kernel_file,
            device_trees,
            texts: _,
            site: _,
        } = boot;
        let mut key = KeyHash(sha2::Sha256::new());
        key.add(BUILDER.as_bytes());
        key.add_debug(&(board, features, packages, kernel_release, signature));
        key.add_debug(&(modules_of_initramfs, modules_of_root, firmware));
        key.add_debug(&(removals, rules));
        key.add_nodes(nodes);
        key.add_nodes(initramfs);
        key.add_debug(&(boot_firmware, kernel_file, device_trees));
        for (name, package) in &resolution.packages {
            key.add(name.as_bytes());
            key.add(&package.sha256.0);
            // What a system says of its packages is more than what their files say.
            key.add_debug(&(package.architecture.as_str(), &package.source));
        }
        key.add(agent);
        key.add(&time.to_le_bytes());
        Self(Sha256(key.0.finalize().into()))
    }
}

impl std::fmt::Display for SystemKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Every piece goes in after its length, so that no two lists of pieces are the same bytes.
struct KeyHash(sha2::Sha256);

impl KeyHash {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn add_debug(&mut self, value: &impl std::fmt::Debug) {
        self.add(format!("{value:?}").as_bytes());
    }

    fn add_nodes(&mut self, nodes: &BTreeMap<String, PlannedNode>) {
        self.add(&(nodes.len() as u64).to_le_bytes());
        for (path, PlannedNode { node, .. }) in nodes {
            self.add(path.as_bytes());
            self.add(node.to_string().as_bytes());
            self.add(node.bytes().map_or(&[][..], |bytes| bytes));
        }
    }
}

impl System {
    /// Writes the bytes of a system.
    pub(crate) fn encode(&self, mut out: impl Write) -> io::Result<()> {
        let files = self.files();
        let mut head = (files.len() as u32).to_le_bytes().to_vec();
        for (name, bytes) in &files {
            head.extend((name.len() as u32).to_le_bytes());
            head.extend(name.as_bytes());
            head.extend((bytes.len() as u64).to_le_bytes());
        }
        out.write_all(&head)?;
        files.values().try_for_each(|bytes| out.write_all(bytes))
    }

    /// Reads a system back, if all of it is there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let count = rest.number()?;
        let mut heads = Vec::new();
        for _ in 0..count {
            let length = rest.number()?;
            let name = std::str::from_utf8(rest.take(length.into())?).ok()?;
            heads.push((name, rest.size()?));
        }
        let mut files = BTreeMap::new();
        for (name, size) in heads {
            files.insert(name.to_owned(), Arc::from(rest.take(size)?));
        }
        Self::of_files(&files)
    }

    fn files(&self) -> BTreeMap<String, Arc<[u8]>> {
        let Identity { id, version } = &self.identity;
        let identity = format!("{id}\n{version}");
        let mut files = BTreeMap::from([
            (ROOT.to_owned(), self.root.clone()),
            (IDENTITY.to_owned(), Arc::from(identity.into_bytes())),
        ]);
        for (folder, of_folder) in [
            (BOOT, &self.boot),
            (LICENCE, &self.licences.of_packages),
            (COMMON, &self.licences.common),
        ] {
            let named = of_folder.iter();
            files.extend(named.map(|(name, bytes)| (format!("{folder}{name}"), bytes.clone())));
        }
        files
    }

    fn of_files(files: &BTreeMap<String, Arc<[u8]>>) -> Option<Self> {
        let of_folder = |folder: &str| {
            let files = files.iter();
            files
                .filter_map(|(path, bytes)| {
                    Some((path.strip_prefix(folder)?.to_owned(), bytes.clone()))
                })
                .collect()
        };
        let identity = std::str::from_utf8(files.get(IDENTITY)?).ok()?;
        let (id, version) = identity.split_once('\n')?;
        Some(Self {
            root: files.get(ROOT)?.clone(),
            boot: of_folder(BOOT),
            identity: Identity {
                id: id.to_owned(),
                version: version.to_owned(),
            },
            licences: Licences {
                of_packages: of_folder(LICENCE),
                common: of_folder(COMMON),
            },
        })
    }
}

/// Bytes that are read from their beginning.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, size: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(size).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    fn size(&mut self) -> Option<u64> {
        let bytes = self.take(8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> System {
        let file = |name: &str, bytes: &[u8]| (name.to_owned(), Arc::from(bytes));
        System {
            root: Arc::from(*b"squashfs"),
            boot: BTreeMap::from([file("empty", b""), file("kernel8.img", b"kernel")]),
            identity: Identity {
                id: "footbridge-pi3".to_owned(),
                version: "20231114.0".to_owned(),
            },
            licences: Licences {
                of_packages: BTreeMap::from([file("kmod", b"as you like")]),
                common: BTreeMap::from([file("GPL", b"freedom")]),
            },
        }
    }

    fn encoded() -> Vec<u8> {
        let mut bytes = Vec::new();
        system().encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_system_is_read_back_as_it_was_written() {
        assert_eq!(System::decode(&encoded()), Some(system()));
    }

    #[test]
    fn whatever_is_missing_shows() {
        let whole = encoded();
        for at in 0..whole.len() {
            assert_eq!(System::decode(&whole[..at]), None, "{at} bytes of it");
        }
    }

    #[test]
    fn nonsense_is_no_system() {
        for body in [
            &b""[..],
            &[0; 4],
            &[255; 40],
            &[
                1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255,
            ],
        ] {
            assert_eq!(System::decode(body), None, "{body:?}");
        }
    }
}
