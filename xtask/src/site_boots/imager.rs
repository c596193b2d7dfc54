//! A card as Raspberry Pi Imager leaves it: an image that was made for another network, and beside its boot files `rpi-preseed.toml` with what
//! somebody filled in.
//!
//! What becomes of that file is looked at on the card itself, after the guest's end: its settings are in `site/`, and of its secrets nothing
//! is left anywhere else, free clusters included.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use imagegen::credentials::{Psk, Ssid};
use imagegen::make::fat::change::{FileChange, Storage, change_files, read_files};
use imagegen::mbr::{PartitionTable, SECTOR_SIZE};
use imagegen::plan::boot::COMMAND_LINE_FILE;
use imagegen::plan::disk::BOOT_PARTITION;
use imagegen::plan::site::SUPPLICANT_FILE;

use super::Made;
use super::cards::Desk;
use crate::networks::{COUNTRY, PASSPHRASE, SSID};

/// The name that is filled in.
pub const HOSTNAME: &str = "filled-in";
/// The SSH key that is filled in.
pub const SSH_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f owner@example";

/// The file that Imager writes.
const PRESEED: &str = "rpi-preseed.toml";
/// Where its settings end up.
const SITE: &str = "site";

/// What is looked at together, in bytes.
const BLOCK: usize = 512;

/// What the image was made with, and nothing of which counts once the form is filled in.
const MAKERS_SSID: &str = "Workbench";
const MAKERS_PASSPHRASE: &str = "only for whoever makes images";
const MAKERS_SSH_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g maker@example";

/// The hash of a password for a user whom there is not here; Imager asks for both.
const PASSWORD_HASH: &str =
    "$y$j9T$vJmDxXZ3rSCkLr8gZCVRD/$N0bodyHasThisPasswordHereNorEverWillHave0ne";

/// What connects a device to Raspberry Pi Connect, once.
const CONNECT_TOKEN: &str = "rpuak_N0DeviceOfOursAsksForThis";

/// What a card must not have left, and what it must have, once Imager's file was taken over.
pub struct TakenOver {
    /// The network's key. One file of `site/` holds it, and nothing else.
    key: String,
    /// What nothing holds any more, with what it is.
    secrets: Vec<(&'static str, String)>,
    /// The time of what is changed on a card.
    time: u32,
}

/// Has an image made for another network, and leaves on it what Imager does.
pub fn make(desk: &Desk) -> Result<Made> {
    desk.put("makers-passphrase", MAKERS_PASSPHRASE)?;
    desk.put("maker.pub", MAKERS_SSH_KEY)?;
    let image = desk.folder.join("imager.img");
    let (output, agent) = (image.to_string_lossy(), desk.agent.to_string_lossy());
    desk.run(&[
        "image",
        "--board",
        desk.board,
        "--ssid",
        MAKERS_SSID,
        "--psk-file",
        "makers-passphrase",
        "--ssh-key",
        "maker.pub",
        "--agent",
        &agent,
        "--output",
        &output,
    ])?;
    let taken_over = TakenOver {
        key: key_of(SSID, PASSPHRASE)?,
        secrets: vec![
            ("the hash of the password", PASSWORD_HASH.to_owned()),
            ("the token", CONNECT_TOKEN.to_owned()),
            (
                "the key of the network before",
                key_of(MAKERS_SSID, MAKERS_PASSPHRASE)?,
            ),
        ],
        time: desk.time,
    };
    taken_over.fill_in(&image)?;
    Ok(Made {
        notes: vec![format!(
            "{PRESEED}: taken over into site/: authorized_keys, hostname, wpa_supplicant.conf; without a meaning here: [connect], [locale], [user]"
        )],
        taken_over: Some(taken_over),
        ..Made::of(image)
    })
}

/// What wpa_supplicant takes for the key; Imager makes it of the passphrase, and so does `cargo xtask image`.
fn key_of(ssid: &str, passphrase: &str) -> Result<String> {
    let psk = Psk::parse(passphrase.as_bytes())?;
    Ok(psk.to_pmk(&Ssid::new(ssid)?).reveal_hex())
}

impl TakenOver {
    fn fill_in(&self, image: &Path) -> Result<()> {
        let mut boot = BootPartition::open(image)?;
        // The country goes to the kernel, too; the line has no end then.
        let files = read_files(&boot.disk, boot.offset, "")?;
        let line = files
            .get(COMMAND_LINE_FILE)
            .context("there is no command line")?;
        let line = format!(
            "{} cfg80211.ieee80211_regdom={COUNTRY}",
            String::from_utf8_lossy(line).trim()
        );
        let changes =
            [(PRESEED, self.form()), (COMMAND_LINE_FILE, line)].map(|(name, text)| FileChange {
                name: name.to_owned(),
                contents: Some(text.into_bytes()),
            });
        change_files(&mut boot.disk, boot.offset, "", &changes, self.time)?;
        // What is looked for later is there to be found.
        let bytes = boot.bytes()?;
        for (what, secret) in self.every_secret() {
            ensure!(holds(&bytes, secret), "{what} is not on the image");
        }
        Ok(())
    }

    /// Imager's file, as version 2.0.11 of Imager writes it.
    fn form(&self) -> String {
        let text = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        format!(
            "config_version = \"1.0\"\n\n\
             [system]\nhostname = {}\n\n\
             [user]\nname = \"owner\"\npassword = {}\npassword_encrypted = true\n\n\
             [ssh]\nenabled = true\npassword_authentication = false\nauthorized_keys = [\n  {},\n]\n\n\
             [wlan]\nssid = {}\npassword = {}\npassword_encrypted = true\nhidden = false\ncountry = {}\n\n\
             [locale]\nkeymap = \"de\"\ntimezone = \"Europe/Berlin\"\n\n\
             [connect]\nenabled = true\nmode = \"token\"\ntoken = {}\n",
            text(HOSTNAME),
            text(PASSWORD_HASH),
            text(SSH_KEY),
            text(SSID),
            text(&self.key),
            text(COUNTRY),
            text(CONNECT_TOKEN),
        )
    }

    /// Returns what is wrong with a card whose guest has ended, a line each. The card stays as it is.
    pub fn look_at(&self, card: &Path) -> Result<Vec<String>> {
        let copy = card.with_extension("looked-at");
        fs::copy(card, &copy).context("while copying the card")?;
        let mut boot = BootPartition::open(&copy)?;
        let mut wrong = Vec::new();
        let beside = read_files(&boot.disk, boot.offset, "")?;
        if beside.keys().any(|name| name.eq_ignore_ascii_case(PRESEED)) {
            wrong.push(format!("the card: {PRESEED} is still there"));
        }
        let site = read_files(&boot.disk, boot.offset, SITE)?;
        for (name, wanted) in [
            ("hostname", HOSTNAME),
            ("authorized_keys", SSH_KEY),
            (SUPPLICANT_FILE, &self.key),
        ] {
            if !site.get(name).is_some_and(|bytes| holds(bytes, wanted)) {
                wrong.push(format!("the card: site/{name} is not what was filled in"));
            }
        }
        // What is removed leaves zeros, so that whatever of a key is found after that lies elsewhere.
        let change = FileChange {
            name: SUPPLICANT_FILE.to_owned(),
            contents: None,
        };
        change_files(&mut boot.disk, boot.offset, SITE, &[change], self.time)?;
        let bytes = boot.bytes()?;
        for (what, secret) in self.every_secret() {
            if holds(&bytes, secret) {
                wrong.push(format!("the card: {what} can still be read on it"));
            }
        }
        fs::remove_file(&copy)?;
        Ok(wrong)
    }

    fn every_secret(&self) -> impl Iterator<Item = (&str, &str)> {
        let secrets = self.secrets.iter();
        let secrets = secrets.map(|(what, secret)| (*what, secret.as_str()));
        secrets.chain([("the network's key", self.key.as_str())])
    }
}

/// The boot partition of an image that is not compressed.
struct BootPartition {
    disk: Disk,
    offset: u64,
    size: u64,
}

impl BootPartition {
    fn open(image: &Path) -> Result<Self> {
        let opened = || -> Result<Self> {
            let file = OpenOptions::new().read(true).write(true).open(image)?;
            let mut sector = [0; SECTOR_SIZE as usize];
            file.read_exact_at(&mut sector, 0)?;
            let table = PartitionTable::decode(&sector)?;
            let partition = table.partitions[usize::from(BOOT_PARTITION) - 1];
            let partition = partition.context("there is no boot partition")?;
            Ok(BootPartition {
                disk: Disk(file),
                offset: partition.offset(),
                size: partition.size(),
            })
        };
        opened().with_context(|| format!("while opening {}", image.display()))
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.size)?];
        self.disk.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// An image, changed in place.
struct Disk(File);

impl Storage for Disk {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, at)
    }

    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    let text = text.as_bytes();
    let blocks = bytes.chunks(BLOCK).enumerate();
    // Most of a card is empty, and that is seen faster.
    let mut candidates = blocks.filter(|(_, block)| block.contains(&text[0]));
    candidates.any(|(number, _)| {
        let at = number * BLOCK;
        let end = bytes.len().min(at + BLOCK + text.len() - 1);
        bytes[at..end]
            .windows(text.len())
            .any(|window| window == text)
    })
}

#[cfg(test)]
mod tests {
    use imagegen::make::fat::{FatLabel, FatOptions, write_fat32};
    use imagegen::mbr::{Partition, PartitionKind};
    use imagegen::tree::{Node, Tree};
    use tempfile::NamedTempFile;

    use super::*;

    const FIRST_SECTOR: u32 = 8192;
    const SIZE: u64 = 64 << 20;

    fn taken_over() -> TakenOver {
        TakenOver {
            key: "ab".repeat(32),
            secrets: vec![("the hash of the password", PASSWORD_HASH.to_owned())],
            time: 1_700_000_000,
        }
    }

    /// A card with a boot partition and nothing else, before anybody filled a form in.
    fn card() -> NamedTempFile {
        let mut tree = Tree::new();
        for (path, text) in [
            (COMMAND_LINE_FILE, "quiet\n"),
            ("site/hostname", "footbridge\n"),
            ("site/wpa_supplicant.conf", "network={\n}\n"),
        ] {
            tree.ensure_parents(path).unwrap();
            tree.insert(path, Node::file(0o644, text.as_bytes()))
                .unwrap();
        }
        let options = FatOptions {
            size: SIZE,
            first_sector: FIRST_SECTOR,
            volume_id: 1,
            label: FatLabel::new("BOOT").unwrap(),
            time: 1_700_000_000,
        };
        let mut fat = tempfile::tempfile().unwrap();
        write_fat32(&tree, &options, &mut fat).unwrap();
        let mut bytes = vec![0; SIZE as usize];
        let written = fat.metadata().unwrap().len().min(SIZE) as usize;
        fat.read_exact_at(&mut bytes[..written], 0).unwrap();
        let mut table = PartitionTable::default();
        table.partitions[usize::from(BOOT_PARTITION) - 1] = Some(Partition {
            kind: PartitionKind::FAT32_LBA,
            first_sector: FIRST_SECTOR,
            sectors: (SIZE / SECTOR_SIZE) as u32,
        });
        let card = NamedTempFile::new().unwrap();
        let file = card.as_file();
        file.write_all_at(&table.encode(), 0).unwrap();
        file.write_all_at(&bytes, u64::from(FIRST_SECTOR) * SECTOR_SIZE)
            .unwrap();
        card
    }

    /// Changes a card as the device does; with nothing in it, a file goes.
    fn change(card: &Path, directory: &str, files: &[(&str, Option<&str>)]) {
        let mut boot = BootPartition::open(card).unwrap();
        let changes: Vec<FileChange> = files
            .iter()
            .map(|(name, text)| FileChange {
                name: (*name).to_owned(),
                contents: text.map(|text| text.as_bytes().to_vec()),
            })
            .collect();
        change_files(&mut boot.disk, boot.offset, directory, &changes, 0).unwrap();
    }

    #[test]
    fn what_is_left_on_a_card_is_found() {
        let taken_over = taken_over();
        let card = card();
        let path = card.path();
        taken_over.fill_in(path).unwrap();
        // Nobody took anything over.
        assert_eq!(
            taken_over.look_at(path).unwrap(),
            [
                "the card: rpi-preseed.toml is still there",
                "the card: site/hostname is not what was filled in",
                "the card: site/authorized_keys is not what was filled in",
                "the card: site/wpa_supplicant.conf is not what was filled in",
                "the card: the hash of the password can still be read on it",
                "the card: the network's key can still be read on it",
            ]
        );
        let networks = format!("network={{\n\tpsk={}\n}}\n", taken_over.key);
        change(path, "", &[(PRESEED, None)]);
        change(
            path,
            SITE,
            &[
                ("hostname", Some(HOSTNAME)),
                ("authorized_keys", Some(SSH_KEY)),
                (SUPPLICANT_FILE, Some(&networks)),
            ],
        );
        assert!(taken_over.look_at(path).unwrap().is_empty());
        // A copy of the key in clusters that belong to nobody.
        let boot = BootPartition::open(path).unwrap();
        let end = boot.offset + boot.size - SECTOR_SIZE;
        card.as_file()
            .write_all_at(taken_over.key.as_bytes(), end)
            .unwrap();
        assert_eq!(
            taken_over.look_at(path).unwrap(),
            ["the card: the network's key can still be read on it"]
        );
    }

    #[test]
    fn bytes_are_found_wherever_they_lie() {
        for (bytes, found) in [
            ("key", true),
            ("a key", true),
            ("kkey!", true),
            ("ke y", false),
            ("ke", false),
            ("", false),
        ] {
            assert_eq!(holds(bytes.as_bytes(), "key"), found, "{bytes}");
        }
        for at in BLOCK - 3..BLOCK + 1 {
            let mut bytes = [0; 2 * BLOCK];
            bytes[at..at + 3].copy_from_slice(b"key");
            assert!(holds(&bytes, "key"), "at {at}");
        }
    }

    #[test]
    fn the_form_is_toml_whatever_the_network_is_called() {
        let form: toml::Table = taken_over().form().parse().unwrap();
        assert_eq!(form["wlan"]["ssid"].as_str(), Some(SSID));
        assert_eq!(form["wlan"]["password"].as_str(), Some(&*"ab".repeat(32)));
        assert_eq!(form["ssh"]["authorized_keys"][0].as_str(), Some(SSH_KEY));
    }
}
