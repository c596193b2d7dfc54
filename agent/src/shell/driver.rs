//! A driver taken from its device and given back to it, through sysfs: what unplugging and plugging in would do to a radio that
//! cannot be unplugged.
//!
//! A device may show several functions to one driver (an SDIO radio has two, and only the second one's return starts it): all of
//! them are taken, then all are given back, in their order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::info;

/// Where the kernel shows its devices.
pub const SYSFS: &str = "/sys";

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
}

/// Binds the driver of an interface anew. All functions are tried; the first failure is returned.
pub fn reload_driver(sysfs: &Path, interface: &str) -> Result<(), DriverError> {
    let found = find(sysfs, interface).map_err(|source| DriverError::Find {
        interface: interface.to_owned(),
        source,
    })?;
    info!(driver = %found.driver.display(), functions = ?found.functions, "binding the driver anew");
    let mut result = Ok(());
    for file in ["unbind", "bind"] {
        let path = found.driver.join(file);
        for function in &found.functions {
            // The file exists, and is not to be made where it does not.
            let written = fs::File::options()
                .write(true)
                .open(&path)
                .and_then(|mut file| io::Write::write_all(&mut file, function.as_bytes()));
            let written = written.map_err(|source| DriverError::Write {
                function: function.clone(),
                path: path.clone(),
                source,
            });
            result = result.and(written);
        }
    }
    result
}

struct Found {
    driver: PathBuf,
    functions: Vec<String>,
}

fn find(sysfs: &Path, interface: &str) -> io::Result<Found> {
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
    Ok(Found { driver, functions })
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
    use std::os::unix::fs::symlink;

    use super::*;

    /// Makes a sysfs with one radio of two functions and a stranger beside them.
    fn sysfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let driver = path("bus/sdio/drivers/brcmfmac");
        fs::create_dir_all(&driver).unwrap();
        for file in ["unbind", "bind"] {
            fs::write(driver.join(file), "").unwrap();
        }
        for device in ["mmc1:0001:1", "mmc1:0001:2", "mmc1:0002:1"] {
            let device = path("devices/mmc1").join(device);
            fs::create_dir_all(&device).unwrap();
            symlink(&driver, device.join("driver")).unwrap();
        }
        fs::create_dir_all(path("devices/mmc1/mmc1:0001:3")).unwrap();
        fs::create_dir_all(path("class/net/wlan0")).unwrap();
        symlink(
            path("devices/mmc1/mmc1:0001:1"),
            path("class/net/wlan0/device"),
        )
        .unwrap();
        fs::create_dir_all(path("class/net/veth0")).unwrap();
        root
    }

    #[test]
    fn all_functions_of_the_device_are_bound_anew() {
        let root = sysfs();
        let found = find(root.path(), "wlan0").unwrap();
        assert_eq!(found.functions, ["mmc1:0001:1", "mmc1:0001:2"]);
        reload_driver(root.path(), "wlan0").unwrap();
        for file in ["unbind", "bind"] {
            // Each write starts at the beginning of the file, as in the kernel's.
            let written = fs::read_to_string(found.driver.join(file)).unwrap();
            assert_eq!(written, "mmc1:0001:2", "{file}");
        }
    }

    #[test]
    fn what_cannot_be_bound_anew() {
        let root = sysfs();
        for interface in ["veth0", "wlan1"] {
            let error = reload_driver(root.path(), interface).unwrap_err();
            assert!(matches!(error, DriverError::Find { .. }), "{error}");
        }
        fs::remove_file(root.path().join("bus/sdio/drivers/brcmfmac/bind")).unwrap();
        let error = reload_driver(root.path(), "wlan0").unwrap_err();
        assert!(matches!(error, DriverError::Write { .. }), "{error}");
        assert!(!root.path().join("bus/sdio/drivers/brcmfmac/bind").exists());
    }
}
