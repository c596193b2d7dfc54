//! Per-interface IPv4 settings, held for a while and given back.
//!
//! Before a setting is changed, its value is written to a ledger in the run directory, so that a start after a kill knows what
//! was there before the *first* start and gives that back at its end. The ledger belongs to one boot and one network namespace;
//! any other is void. Interfaces are remembered by index, and found by the name they have at the time: they may be renamed
//! while a setting is held.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::addr::IfIndex;
use crate::engine::Sysctl;

/// The settings held.
#[derive(Debug)]
pub(crate) struct Sysctls {
    /// `/proc/sys/net/ipv4/conf`.
    root: PathBuf,
    ledger_path: PathBuf,
    ledger: Ledger,
}

/// What was there before: by interface (`None` is `all`) and setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// The boot this belongs to.
    boot: String,
    /// The network namespace this belongs to.
    namespace: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    index: Option<u32>,
    setting: String,
    previous: String,
}

impl Sysctls {
    /// Takes over the ledger an earlier process of this boot and namespace left, or starts an empty one.
    pub(crate) fn load(ledger_path: &Path) -> io::Result<Sysctls> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned();
        let namespace = fs::read_link("/proc/self/ns/net")?
            .to_string_lossy()
            .into_owned();
        Sysctls::load_from(
            PathBuf::from("/proc/sys/net/ipv4/conf"),
            ledger_path.to_owned(),
            boot,
            namespace,
        )
    }

    fn load_from(
        root: PathBuf,
        ledger_path: PathBuf,
        boot: String,
        namespace: String,
    ) -> io::Result<Sysctls> {
        let ledger = match fs::read(&ledger_path) {
            Ok(bytes) => parse_ledger(&bytes, &boot, &namespace),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger {
                boot,
                namespace,
                entries: Vec::new(),
            },
            Err(error) => return Err(error),
        };
        Ok(Sysctls {
            root,
            ledger_path,
            ledger,
        })
    }

    /// Sets `sysctl` to `value`, remembering what it was unless that is known. `name` is the interface's present one.
    pub(crate) fn hold(&mut self, sysctl: Sysctl, name: &str, value: u8) -> io::Result<()> {
        let path = self.path(name, sysctl.setting);
        if self.position(sysctl.index, sysctl.setting).is_none() {
            let previous = fs::read_to_string(&path)?.trim().to_owned();
            self.ledger.entries.push(Entry {
                index: sysctl.index.map(|index| index.0),
                setting: sysctl.setting.to_owned(),
                previous,
            });
            self.save()?;
        }
        fs::write(&path, value.to_string())?;
        debug!(
            interface = name,
            setting = sysctl.setting,
            value,
            "sysctl held"
        );
        Ok(())
    }

    /// Gives a held setting its earlier value back; `name` is `None` if the interface is gone, and the setting with it.
    pub(crate) fn release(&mut self, sysctl: Sysctl, name: Option<&str>) -> io::Result<()> {
        let Some(position) = self.position(sysctl.index, sysctl.setting) else {
            return Ok(());
        };
        let entry = self.ledger.entries[position].clone();
        self.restore(&entry, name)?;
        self.ledger.entries.remove(position);
        self.save()
    }

    /// Gives back whatever is still held, and removes the ledger. All are tried; the first failure is returned.
    pub(crate) fn release_all(&mut self, names: &BTreeMap<IfIndex, String>) -> io::Result<()> {
        let mut failure = None;
        let mut kept = Vec::new();
        for entry in std::mem::take(&mut self.ledger.entries) {
            let name = match entry.index {
                Some(index) => names.get(&IfIndex(index)).map(String::as_str),
                None => Some(ALL),
            };
            if let Err(error) = self.restore(&entry, name) {
                failure.get_or_insert(error);
                kept.push(entry);
            }
        }
        self.ledger.entries = kept;
        self.save()?;
        failure.map_or(Ok(()), Err)
    }

    fn restore(&self, entry: &Entry, name: Option<&str>) -> io::Result<()> {
        let Some(name) = name else {
            return Ok(());
        };
        match fs::write(self.path(name, &entry.setting), &entry.previous) {
            Ok(()) => {
                debug!(
                    interface = name,
                    setting = entry.setting,
                    value = entry.previous,
                    "sysctl given back"
                );
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn position(&self, index: Option<IfIndex>, setting: &str) -> Option<usize> {
        let index = index.map(|index| index.0);
        self.ledger
            .entries
            .iter()
            .position(|entry| entry.index == index && entry.setting == setting)
    }

    fn path(&self, name: &str, setting: &str) -> PathBuf {
        self.root.join(name).join(setting)
    }

    /// Writes a new file and renames it over the old one: a kill leaves one or the other, whole.
    fn save(&self) -> io::Result<()> {
        if self.ledger.entries.is_empty() {
            return match fs::remove_file(&self.ledger_path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let temporary = self.ledger_path.with_extension("json.new");
        write_whole(&temporary, &serde_json::to_vec_pretty(&self.ledger)?)?;
        fs::rename(&temporary, &self.ledger_path)
    }
}

/// Parses a ledger; what belongs to another boot or namespace, or cannot be one, is an empty one of these.
pub(crate) fn parse_ledger(bytes: &[u8], boot: &str, namespace: &str) -> Ledger {
    let left = serde_json::from_slice::<Ledger>(bytes)
        .inspect_err(|error| warn!(%error, "ledger of sysctls is unreadable"))
        .ok()
        .filter(|ledger| ledger.boot == boot && ledger.namespace == namespace);
    let mut entries = left.map_or_else(Vec::new, |ledger| ledger.entries);
    entries.retain(Entry::is_a_settings);
    Ledger {
        boot: boot.to_owned(),
        namespace: namespace.to_owned(),
        entries,
    }
}

impl Entry {
    /// The name becomes part of a path, and the value is written there: a damaged ledger must not reach another file.
    fn is_a_settings(&self) -> bool {
        let name = |c: char| c.is_ascii_lowercase() || c == '_';
        !self.setting.is_empty()
            && self.setting.chars().all(name)
            && self.previous.parse::<i64>().is_ok()
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Ledger {
    /// Returns the settings and the values to give back.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.entries.iter();
        entries.map(|entry| (entry.setting.as_str(), entry.previous.as_str()))
    }
}

/// The name of the settings that are for all interfaces.
pub(crate) const ALL: &str = "all";

/// Makes the file anew: a link that somebody put at its name is removed, not followed.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::File::create_new(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Proc(tempfile::TempDir);

    impl Proc {
        fn new(values: &[(&str, &str)]) -> Proc {
            let proc = Proc(tempfile::tempdir().unwrap());
            for (path, value) in values {
                let path = proc.0.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{value}\n")).unwrap();
            }
            proc
        }

        fn start(&self, boot: &str) -> Sysctls {
            let ledger = self.0.path().join("sysctl.json");
            Sysctls::load_from(
                self.0.path().to_owned(),
                ledger,
                boot.to_owned(),
                "net:[1]".to_owned(),
            )
            .unwrap()
        }

        fn value(&self, path: &str) -> String {
            fs::read_to_string(self.0.path().join(path))
                .unwrap()
                .trim()
                .to_owned()
        }
    }

    const ETH0: Sysctl = Sysctl {
        index: Some(IfIndex(3)),
        setting: "arp_ignore",
    };
    const EVERY: Sysctl = Sysctl {
        index: None,
        setting: "arp_ignore",
    };

    #[test]
    fn a_value_held_twice_is_given_back_as_it_was_first() {
        let proc = Proc::new(&[("eth0/arp_ignore", "2")]);
        let mut sysctls = proc.start("boot");
        sysctls.hold(ETH0, "eth0", 8).unwrap();
        sysctls.hold(ETH0, "eth0", 1).unwrap();
        assert_eq!(proc.value("eth0/arp_ignore"), "1");
        sysctls.release(ETH0, Some("eth0")).unwrap();
        assert_eq!(proc.value("eth0/arp_ignore"), "2");
        assert!(!proc.0.path().join("sysctl.json").exists());
    }

    #[test]
    fn after_a_kill_the_next_end_gives_back_the_first_values() {
        let proc = Proc::new(&[("eth0/arp_ignore", "2"), ("all/arp_ignore", "0")]);
        let mut killed = proc.start("boot");
        killed.hold(ETH0, "eth0", 8).unwrap();
        killed.hold(EVERY, ALL, 8).unwrap();
        drop(killed);
        let mut next = proc.start("boot");
        next.hold(ETH0, "eth0", 8).unwrap();
        next.release_all(&BTreeMap::from([(IfIndex(3), "eth0".to_owned())]))
            .unwrap();
        assert_eq!(proc.value("eth0/arp_ignore"), "2");
        assert_eq!(proc.value("all/arp_ignore"), "0");
    }

    #[test]
    fn a_ledger_of_another_boot_is_void() {
        let proc = Proc::new(&[("eth0/arp_ignore", "2")]);
        proc.start("yesterday").hold(ETH0, "eth0", 8).unwrap();
        fs::write(proc.0.path().join("eth0/arp_ignore"), "0").unwrap();
        let mut today = proc.start("today");
        today
            .release_all(&BTreeMap::from([(IfIndex(3), "eth0".to_owned())]))
            .unwrap();
        assert_eq!(proc.value("eth0/arp_ignore"), "0");
    }

    #[test]
    fn a_renamed_interface_is_followed_and_a_vanished_one_forgotten() {
        let proc = Proc::new(&[("eth0/arp_ignore", "2"), ("lan/arp_ignore", "8")]);
        let mut sysctls = proc.start("boot");
        sysctls.hold(ETH0, "eth0", 8).unwrap();
        sysctls.release(ETH0, Some("lan")).unwrap();
        assert_eq!(proc.value("lan/arp_ignore"), "2");
        sysctls.hold(ETH0, "eth0", 1).unwrap();
        sysctls.release(ETH0, None).unwrap();
        assert_eq!(proc.value("eth0/arp_ignore"), "1");
        assert!(sysctls.ledger.entries.is_empty());
    }

    #[test]
    fn a_link_at_the_ledgers_temporary_name_is_not_followed() {
        let proc = Proc::new(&[("eth0/arp_ignore", "2"), ("precious", "mine")]);
        let link = proc.0.path().join("sysctl.json.new");
        std::os::unix::fs::symlink(proc.0.path().join("precious"), link).unwrap();
        proc.start("boot").hold(ETH0, "eth0", 1).unwrap();
        assert_eq!(proc.value("precious"), "mine");
        assert_eq!(proc.start("boot").ledger.entries.len(), 1);
    }

    #[test]
    fn a_torn_ledger_is_an_empty_one() {
        let proc = Proc::new(&[]);
        fs::write(proc.0.path().join("sysctl.json"), "{\"boot\":").unwrap();
        assert!(proc.start("boot").ledger.entries.is_empty());
    }
}
