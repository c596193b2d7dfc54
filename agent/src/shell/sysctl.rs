//! Per-interface IPv4 settings, held for a while and given back; the ledger has what was there before.
//!
//! Interfaces are found by the name they have at the time.

use std::fs;
use std::io;
use std::path::PathBuf;

use tracing::debug;

use super::ledger::Ledger;
use crate::engine::Sysctl;

/// The name of the settings that are for all interfaces.
pub(crate) const ALL: &str = "all";

/// The settings.
#[derive(Debug)]
pub(crate) struct Sysctls {
    /// `/proc/sys/net/ipv4/conf`.
    root: PathBuf,
}

impl Sysctls {
    /// Returns those of this network namespace.
    pub(crate) fn new() -> Sysctls {
        Sysctls {
            root: PathBuf::from("/proc/sys/net/ipv4/conf"),
        }
    }

    /// Sets `sysctl` to `value`, remembering what it was unless that is known. `name` is the interface's present one.
    pub(crate) fn hold(
        &self,
        ledger: &mut Ledger,
        sysctl: Sysctl,
        name: &str,
        value: u8,
    ) -> io::Result<()> {
        let path = self.path(name, sysctl.setting);
        let previous = fs::read_to_string(&path)?.trim().parse();
        ledger.remember(sysctl.into(), previous.map_err(io::Error::other)?)?;
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
    pub(crate) fn release(
        &self,
        ledger: &mut Ledger,
        sysctl: Sysctl,
        name: Option<&str>,
    ) -> io::Result<()> {
        let held = sysctl.into();
        let Some(previous) = ledger.previous(&held) else {
            return Ok(());
        };
        if let Some(name) = name {
            self.restore(name, sysctl.setting, previous)?;
        }
        ledger.forget(&held)
    }

    /// Sets a setting to an earlier value; where it is gone there is nothing to do.
    pub(crate) fn restore(&self, name: &str, setting: &str, value: i64) -> io::Result<()> {
        match fs::write(self.path(name, setting), value.to_string()) {
            Ok(()) => {
                debug!(interface = name, setting, value, "sysctl given back");
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn path(&self, name: &str, setting: &str) -> PathBuf {
        self.root.join(name).join(setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::IfIndex;

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

        fn start(&self) -> (Sysctls, Ledger) {
            let path = self.0.path().join("ledger.json");
            let root = self.0.path().to_owned();
            let ledger = Ledger::load_for(&path, "boot", "net:[1]").unwrap();
            (Sysctls { root }, ledger)
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

    #[test]
    fn a_value_held_twice_is_given_back_as_it_was_first() {
        let proc = Proc::new(&[("eth0/arp_ignore", "2")]);
        let (sysctls, mut ledger) = proc.start();
        sysctls.hold(&mut ledger, ETH0, "eth0", 8).unwrap();
        sysctls.hold(&mut ledger, ETH0, "eth0", 1).unwrap();
        assert_eq!(proc.value("eth0/arp_ignore"), "1");
        sysctls.release(&mut ledger, ETH0, Some("eth0")).unwrap();
        assert_eq!(proc.value("eth0/arp_ignore"), "2");
        assert!(ledger.entries().is_empty());
    }

    #[test]
    fn after_a_kill_the_next_release_gives_back_the_first_value() {
        let proc = Proc::new(&[("eth0/arp_ignore", "2")]);
        let (killed, mut ledger) = proc.start();
        killed.hold(&mut ledger, ETH0, "eth0", 8).unwrap();
        let (next, mut ledger) = proc.start();
        next.hold(&mut ledger, ETH0, "eth0", 8).unwrap();
        next.release(&mut ledger, ETH0, Some("eth0")).unwrap();
        assert_eq!(proc.value("eth0/arp_ignore"), "2");
    }

    #[test]
    fn a_renamed_interface_is_followed_and_a_vanished_one_forgotten() {
        let proc = Proc::new(&[("eth0/arp_ignore", "2"), ("lan/arp_ignore", "8")]);
        let (sysctls, mut ledger) = proc.start();
        sysctls.hold(&mut ledger, ETH0, "eth0", 8).unwrap();
        sysctls.release(&mut ledger, ETH0, Some("lan")).unwrap();
        assert_eq!(proc.value("lan/arp_ignore"), "2");
        sysctls.hold(&mut ledger, ETH0, "eth0", 1).unwrap();
        sysctls.release(&mut ledger, ETH0, None).unwrap();
        assert_eq!(proc.value("eth0/arp_ignore"), "1");
        assert!(ledger.entries().is_empty());
    }
}
