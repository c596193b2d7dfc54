//! Lays `site/` over the root: reads the boot partition, takes over what Imager left, writes the layer and says what is wrong.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;

use super::boot_partition::{Mounted, take_over};
use super::fault::Finding;
use super::preseed::PRESEED;
use super::{Checked, FAULTS, LaidFile, Rule, SiteFiles, check_site};
use crate::hint::{Hinted, without_controls};
use crate::plain_file::read_plain_file;

/// Where the root has its SSH server, if it has one.
const SSH_SERVER: &str = "usr/sbin/dropbear";
/// What Raspberry Pi Imager leaves before its version 2, which knows one way to customise for all systems.
const OLD_IMAGER: &str = "firstrun.sh";
/// Longest file of `site/` that is read, in bytes.
const LONGEST_FILE: usize = 64 << 10;
/// The same of certificates, which come in bundles.
const LONGEST_CERTIFICATE: usize = 1 << 20;

/// The folders that [`lay_site`] works with.
#[derive(Clone, Copy, Debug)]
pub struct Folders<'a> {
    /// Where the boot partition is mounted.
    pub boot: &'a Path,
    /// Where the root is.
    pub root: &'a Path,
    /// What is laid over the root, with the directories of all destinations.
    pub layer: &'a Path,
}

/// Takes over what Imager left, checks `site/`, writes what is good and the list of faults into the layer, and says what is wrong, a line
/// each. An error is what keeps a file or the list from being written; the others are written all the same.
pub fn lay_site(
    folders: Folders<'_>,
    rules: &[Rule],
    out: &mut impl io::Write,
) -> anyhow::Result<()> {
    let ssh_server = folders.root.join(SSH_SERVER).exists();
    let (mut site, no_folder) = load_site(folders.boot, rules);
    let mut partition = Mounted::at(folders.boot);
    let taken = take_over(&mut partition, &mut site, ssh_server);
    let mut checked = Checked::default();
    checked.tell("site", no_folder.into_iter().collect());
    checked.tell(PRESEED, taken.findings);
    if folders.boot.join(OLD_IMAGER).exists() {
        let finding = Finding::of_file(
            "it is what Raspberry Pi Imager leaves before version 2, for another system",
            "nothing of it is used",
            "delete it, for it holds passwords; fill site/ in with a text editor, or write the card anew with version 2",
        );
        checked.tell(OLD_IMAGER, vec![finding]);
    }
    checked.notes.extend(taken.note);
    let Checked {
        files,
        faults,
        notes,
    } = check_site(rules, &site, ssh_server);
    checked.faults.extend(faults);
    checked.notes.extend(notes);
    checked.shorten();
    for note in &checked.notes {
        let _ = writeln!(out, "footbridge: {}", without_controls(note));
    }
    for fault in &checked.faults {
        // A console that takes nothing is no reason to stop.
        let _ = writeln!(out, "footbridge: {fault}");
    }
    let mut written = Ok(());
    for file in &files {
        written = written.and(write(folders.layer, file));
    }
    if !checked.faults.is_empty() {
        let list = LaidFile {
            destination: FAULTS.to_owned(),
            mode: 0o644,
            bytes: serde_json::to_vec(&checked.faults).context("while rendering the faults")?,
        };
        written = written.and(write(folders.layer, &list));
    }
    written
}

/// Reads what of `site/` has a rule. Without the folder there is nothing, and something to be told.
fn load_site(boot: &Path, rules: &[Rule]) -> (SiteFiles, Option<Finding>) {
    let folder = boot.join("site");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            let finding = Finding::of_file(
                format!("the folder cannot be read: {error}"),
                "everything is at its default",
                "make the folder `site` on the boot partition, or write the card anew",
            );
            return (SiteFiles::new(), Some(finding));
        }
    };
    let mut files = SiteFiles::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let limit = match rules.iter().find(|rule| rule.is_for(&name)) {
            Some(rule) if rule.is_certificate() => LONGEST_CERTIFICATE,
            Some(_) => LONGEST_FILE,
            None => {
                files.insert(name, Ok(Vec::new()));
                continue;
            }
        };
        let bytes = read_plain_file(&entry.path(), limit).map_err(|error| error.to_string());
        files.insert(name, bytes);
    }
    (files, None)
}

fn write(layer: &Path, file: &LaidFile) -> anyhow::Result<()> {
    let path = layer.join(&file.destination);
    let write = || {
        let mut opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(file.mode)
            .open(&path)?;
        // Whatever the mask is that new files get.
        opened.set_permissions(Permissions::from_mode(file.mode))?;
        opened.write_all(&file.bytes)
    };
    write().with_context(|| {
        Hinted::new(
            format!("while writing {}", path.display()),
            "the layer is a file system in memory, with the directories of all destinations",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::load_faults;
    use super::super::tests::{NETWORK, UPLINK_FILE, rules};
    use super::*;

    /// The whole way, from a boot partition to a layer.
    #[test]
    fn a_partition_becomes_a_layer() {
        let dir = tempfile::tempdir().unwrap();
        let [boot, root, layer] = ["boot", "root", "layer"].map(|name| dir.path().join(name));
        for folder in [
            "boot/site",
            "root",
            "layer/etc/footbridge",
            "layer/etc/wpa_supplicant",
            "layer/etc/systemd/network",
        ] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let folders = Folders {
            boot: &boot,
            root: &root,
            layer: &layer,
        };
        fs::write(boot.join("site/wpa_supplicant.conf"), NETWORK).unwrap();
        fs::write(boot.join("site/uplink.network"), UPLINK_FILE).unwrap();
        fs::write(boot.join("site/hostname"), "my attic\n").unwrap();
        let mut said = Vec::new();
        lay_site(folders, &rules(), &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(
            said,
            "footbridge: site/hostname, line 1: this is no host name; the device is called footbridge; next: write 1 to 63 letters, \
             digits and hyphens, none of those at an end\n"
        );
        let faults = load_faults(&layer.join(FAULTS)).unwrap();
        assert_eq!(said, format!("footbridge: {}\n", faults[0]));
        assert!(!layer.join("etc/hostname").exists());
        let networks = layer.join("etc/wpa_supplicant/wpa_supplicant-wlan0.conf");
        let mode = fs::metadata(&networks).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);

        // Imager was there.
        fs::remove_file(layer.join(FAULTS)).unwrap();
        fs::write(
            boot.join(PRESEED),
            "[system]\nhostname = \"attic\"\n[locale]\n",
        )
        .unwrap();
        let mut said = Vec::new();
        lay_site(folders, &rules(), &mut said).unwrap();
        assert_eq!(
            String::from_utf8(said).unwrap(),
            "footbridge: rpi-preseed.toml: taken over into site/: hostname; without a meaning here: [locale]\n"
        );
        assert!(!boot.join(PRESEED).exists());
        assert!(!layer.join(FAULTS).exists());
        for path in [boot.join("site/hostname"), layer.join("etc/hostname")] {
            assert_eq!(fs::read_to_string(path).unwrap(), "attic\n");
        }

        // One of the past.
        fs::write(boot.join(OLD_IMAGER), "#!/bin/bash\n").unwrap();
        lay_site(folders, &rules(), &mut Vec::new()).unwrap();
        assert_eq!(
            load_faults(&layer.join(FAULTS)).unwrap()[0].file,
            OLD_IMAGER
        );
    }

    #[test]
    fn without_a_folder_or_a_place_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders {
            boot: dir.path(),
            root: dir.path(),
            layer: dir.path(),
        };
        let mut said = Vec::new();
        // The layer has no directory for the list.
        lay_site(folders, &rules(), &mut said).unwrap_err();
        let said = String::from_utf8(said).unwrap();
        assert!(
            said.starts_with("footbridge: site: the folder cannot be read: "),
            "{said}"
        );
        assert!(
            said.contains("site/wpa_supplicant.conf: it is not there"),
            "{said}"
        );
    }
}
