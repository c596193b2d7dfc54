//! A driver taken from its device and given back to it, through sysfs: what unplugging and plugging in would do to a radio that
//! cannot be unplugged.
//!
//! A device may show several functions to one driver (an SDIO radio has two, and only the second one's return starts it): all of
//! them are taken, then all are given back, in their order.
//!
//! A driver that was taken and did not come back leaves no interface to find the device by. So the device is written down
//! beforehand, for the next attempt to give the driver back to it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{info, warn};

/// Where the kernel shows its devices.
pub const SYSFS: &str = "/sys";

/// How often that is tried before it is left to the next run.
const ATTEMPTS: usize = 3;
/// How long the interface may take to appear: firmware is loaded after the driver was given back.
const APPEARANCE: Duration = Duration::from_secs(6);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Why a driver was not bound anew.
#[derive(Debug, Error)]
pub enum DriverError {
    /// The interface does not exist, or is nobody's device.
    #[error("failed to find the driver of {interface}")]
    Find {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The device could not be written down.
    #[error("failed to write {path}")]
    Remember {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("failed to write {function} to {path}")]
    Write {
        /// The function of the device.
        function: String,
        /// The file of the driver.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The driver has its device, and no interface came of it.
    #[error("the driver was bound anew, but {interface} did not appear")]
    Absent {
        /// The interface.
        interface: String,
    },
}

/// Binds the driver of an interface anew, and waits for the interface. `memory` is the file for what has to be known if it does
/// not come back.
pub fn reload_driver(sysfs: &Path, interface: &str, memory: &Path) -> Result<(), DriverError> {
    let device = device(sysfs, interface, memory)?;
    info!(driver = %device.driver.display(), functions = ?device.functions, "binding the driver anew");
    let shown = sysfs.join("class/net").join(interface);
    bind_anew(&device, write_to_driver, || appears(&shown))
}

/// A device as its driver knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Device {
    interface: String,
    /// The driver's directory.
    driver: PathBuf,
    functions: Vec<String>,
}

/// Finds the device of the interface, or recalls the one that it had.
fn device(sysfs: &Path, interface: &str, memory: &Path) -> Result<Device, DriverError> {
    match find(sysfs, interface) {
        Ok(device) => remember(memory, &device).map(|()| device),
        Err(source) => recall(memory, interface).ok_or_else(|| DriverError::Find {
            interface: interface.to_owned(),
            source,
        }),
    }
}

fn find(sysfs: &Path, interface: &str) -> io::Result<Device> {
    let device = sysfs.join("class/net").join(interface).join("device");
    let device = fs::canonicalize(device)?;
    let driver = fs::canonicalize(device.join("driver"))?;
    let name = file_name(&device);
    let siblings = device.parent().ok_or(io::ErrorKind::NotFound)?;
    let mut functions = Vec::new();
    for sibling in fs::read_dir(siblings)? {
        let sibling = sibling?.path();
        let same_driver =
            fs::canonicalize(sibling.join("driver")).is_ok_and(|found| found == driver);
        if same_driver && stem(&file_name(&sibling)) == stem(&name) {
            functions.push(file_name(&sibling));
        }
    }
    functions.sort();
    Ok(Device {
        interface: interface.to_owned(),
        driver,
        functions,
    })
}

fn remember(memory: &Path, device: &Device) -> Result<(), DriverError> {
    let write = || {
        fs::create_dir_all(memory.parent().unwrap_or(Path::new("")))?;
        fs::write(memory, serde_json::to_vec(device)?)
    };
    write().map_err(|source| DriverError::Remember {
        path: memory.to_owned(),
        source,
    })
}

/// Returns the device that the interface belonged to, if it was written down and its driver is still there.
fn recall(memory: &Path, interface: &str) -> Option<Device> {
    let device: Device = serde_json::from_slice(&fs::read(memory).ok()?).ok()?;
    (device.interface == interface && device.driver.is_dir()).then_some(device)
}

/// Takes the driver from the device and gives it back, until there is an interface again. The last attempt's failure is
/// returned.
fn bind_anew(
    device: &Device,
    mut write: impl FnMut(&Path, &str) -> io::Result<()>,
    mut appears: impl FnMut() -> bool,
) -> Result<(), DriverError> {
    let mut attempt = || {
        let unbound = tell(device, "unbind", &mut write);
        let bound = tell(device, "bind", &mut write);
        // Waiting for the interface is all that lies between two attempts, so it is waited for in any case.
        let there = appears().then_some(()).ok_or(DriverError::Absent {
            interface: device.interface.clone(),
        });
        unbound.and(bound).and(there)
    };
    let mut result = attempt();
    for _ in 1..ATTEMPTS {
        let Err(error) = &result else {
            break;
        };
        warn!(%error, "trying again");
        result = attempt();
    }
    result
}

/// Writes the functions that have the driver to `unbind`, or those that have none to `bind`. All are tried; the first failure is
/// returned.
fn tell(
    device: &Device,
    file: &str,
    write: &mut impl FnMut(&Path, &str) -> io::Result<()>,
) -> Result<(), DriverError> {
    let path = device.driver.join(file);
    let mut result = Ok(());
    for function in &device.functions {
        // The kernel shows a link to each device that the driver has.
        if device.driver.join(function).exists() != (file == "unbind") {
            continue;
        }
        let written = write(&path, function).map_err(|source| DriverError::Write {
            function: function.clone(),
            path: path.clone(),
            source,
        });
        result = result.and(written);
    }
    result
}

/// Writes to a file that exists, and is not to be made where it does not.
fn write_to_driver(path: &Path, function: &str) -> io::Result<()> {
    let mut file = fs::File::options().write(true).open(path)?;
    file.write_all(function.as_bytes())
}

/// Waits until the kernel shows something, for as long as that may take. It tells nobody that it does.
fn appears(path: &Path) -> bool {
    let start = Instant::now();
    while !path.exists() {
        if start.elapsed() >= APPEARANCE {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Returns a function's name without its number: `mmc1:0001` of `mmc1:0001:2`, `1-1:1` of `1-1:1.0`.
fn stem(name: &str) -> &str {
    name.rsplit_once([':', '.']).map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sysfs with one radio of two functions, a stranger beside them, and a kernel that does what is written to the driver.
    struct Machine {
        root: tempfile::TempDir,
        written: RefCell<Vec<String>>,
        /// How often giving the driver back fails.
        failures: Cell<usize>,
    }

    impl Machine {
        fn new(failures: usize) -> Machine {
            let root = tempfile::tempdir().unwrap();
            let machine = Machine {
                root,
                written: RefCell::default(),
                failures: Cell::new(failures),
            };
            fs::create_dir_all(machine.driver()).unwrap();
            for file in ["unbind", "bind"] {
                fs::write(machine.driver().join(file), "").unwrap();
            }
            for function in ["mmc1:0001:1", "mmc1:0001:2", "mmc1:0002:1"] {
                fs::create_dir_all(machine.device(function)).unwrap();
                machine.bind(function);
            }
            fs::create_dir_all(machine.device("mmc1:0001:3")).unwrap();
            fs::create_dir_all(machine.path("class/net/veth0")).unwrap();
            machine
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn driver(&self) -> PathBuf {
            self.path("bus/sdio/drivers/brcmfmac")
        }

        fn device(&self, function: &str) -> PathBuf {
            self.path("devices/mmc1").join(function)
        }

        /// The second function's driver makes the interface.
        fn bind(&self, function: &str) {
            symlink(self.device(function), self.driver().join(function)).unwrap();
            symlink(self.driver(), self.device(function).join("driver")).unwrap();
            if function == "mmc1:0001:2" {
                fs::create_dir_all(self.path("class/net/wlan0")).unwrap();
                symlink(
                    self.device("mmc1:0001:1"),
                    self.path("class/net/wlan0/device"),
                )
                .unwrap();
            }
        }

        fn unbind(&self, function: &str) {
            fs::remove_file(self.driver().join(function)).unwrap();
            fs::remove_file(self.device(function).join("driver")).unwrap();
            if function == "mmc1:0001:2" {
                fs::remove_dir_all(self.path("class/net/wlan0")).unwrap();
            }
        }

        fn write(&self, path: &Path, function: &str) -> io::Result<()> {
            let file = file_name(path);
            self.written.borrow_mut().push(format!("{file} {function}"));
            match file.as_str() {
                "unbind" => self.unbind(function),
                "bind" if self.failures.get() > 0 => {
                    self.failures.set(self.failures.get() - 1);
                    return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
                }
                "bind" => self.bind(function),
                other => panic!("{other}"),
            }
            Ok(())
        }

        fn reload(&self) -> Result<(), DriverError> {
            let device = device(self.root.path(), "wlan0", &self.path("memory"))?;
            let appears = || self.path("class/net/wlan0").exists();
            bind_anew(
                &device,
                |path, function| self.write(path, function),
                appears,
            )
        }

        fn take_written(&self) -> String {
            self.written.take().join(", ")
        }
    }

    #[test]
    fn all_functions_of_the_device_are_bound_anew() {
        let machine = Machine::new(0);
        machine.reload().unwrap();
        assert_eq!(
            machine.take_written(),
            "unbind mmc1:0001:1, unbind mmc1:0001:2, bind mmc1:0001:1, bind mmc1:0001:2"
        );
    }

    #[test]
    fn a_driver_that_does_not_come_back_is_given_back_again() {
        let machine = Machine::new(3);
        machine.reload().unwrap();
        assert_eq!(
            machine.take_written(),
            "unbind mmc1:0001:1, unbind mmc1:0001:2, bind mmc1:0001:1, bind mmc1:0001:2, \
             bind mmc1:0001:1, bind mmc1:0001:2, \
             unbind mmc1:0001:2, bind mmc1:0001:1, bind mmc1:0001:2"
        );
        assert!(machine.path("class/net/wlan0").exists());
    }

    #[test]
    fn a_device_without_an_interface_is_found_by_the_next_run() {
        let machine = Machine::new(6);
        let error = machine.reload().unwrap_err();
        assert!(matches!(error, DriverError::Write { .. }), "{error}");
        assert!(!machine.path("class/net/wlan0").exists());
        machine.take_written();
        machine.reload().unwrap();
        assert_eq!(machine.take_written(), "bind mmc1:0001:1, bind mmc1:0001:2");
    }

    #[test]
    fn what_cannot_be_bound_anew() {
        let machine = Machine::new(0);
        let memory = machine.path("memory");
        for interface in ["veth0", "wlan1"] {
            let error = reload_driver(machine.root.path(), interface, &memory).unwrap_err();
            assert!(matches!(error, DriverError::Find { .. }), "{error}");
        }
        machine.reload().unwrap();
        // What is remembered of another interface is of no use.
        let error = reload_driver(machine.root.path(), "wlan1", &memory).unwrap_err();
        assert!(matches!(error, DriverError::Find { .. }), "{error}");
        let unbind = machine.driver().join("unbind");
        fs::remove_file(&unbind).unwrap();
        let error = reload_driver(machine.root.path(), "wlan0", &memory).unwrap_err();
        assert!(matches!(error, DriverError::Write { .. }), "{error}");
        assert!(!unbind.exists());
    }
}
