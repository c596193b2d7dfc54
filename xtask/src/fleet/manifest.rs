//! What `fleet build` made, for those who write cards from it: they need neither the secrets nor the boards.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use imagegen::fleet::list::Sources;
use imagegen::sha256::Sha256;
use imagegen::shell;
use serde::{Deserialize, Serialize};

use crate::usage::{Failure, UsageError};

/// The file in the folder of a fleet.
const FILE: &str = "fleet.json";

/// What is in the folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Digest of the list that it was made from.
    pub list: String,
    /// The images, by what they are for.
    pub images: BTreeMap<String, Image>,
    /// The devices in the list's order.
    pub devices: Vec<Device>,
}

/// The image of a board.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its digest.
    pub sha256: String,
    /// Time of everything on it, seconds since 1970.
    pub time: u32,
}

/// A device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Which image it has.
    pub image: String,
    /// The number of its processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The address of its radio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The digest of its bundle.
    pub bundle: String,
}

impl Manifest {
    /// Writes it into a folder, whole or not at all.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        write_private(&folder.join(FILE), &text)
    }

    /// Loads what was made from exactly this list.
    pub fn load(folder: &Path, sources: &Sources) -> Result<Self> {
        let path = folder.join(FILE);
        let again = format!(
            "cargo xtask fleet build {}",
            shell::word(Path::new(&sources.list.name))
        );
        let bytes = fs::read(&path).map_err(|error| {
            UsageError::new(
                format!(
                    "nothing was made for these devices: cannot read {}: {error}",
                    path.display()
                ),
                &again,
            )
        })?;
        let manifest: Self = serde_json::from_slice(&bytes)
            .map_err(|_| Failure::new(format!("{} is damaged", path.display()), &again))?;
        if manifest.list != sources.digest().to_string() {
            let what = format!("the list has changed since {} was made", path.display());
            return Err(UsageError::new(what, again).into());
        }
        Ok(manifest)
    }

    /// Loads what was made before, of whichever list; nothing if that cannot be read.
    pub fn load_earlier(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Returns a device by its name.
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }
}

/// Loads the bytes of a device's bundle, if it is the one that was made.
pub fn load_bundle(folder: &Path, device: &Device) -> Result<Vec<u8>> {
    let path = folder.join(super::bundle_file(&device.name));
    let bytes = fs::read(&path).with_context(|| format!("while reading {}", path.display()))?;
    if Sha256::of(&bytes).to_string() == device.bundle {
        return Ok(bytes);
    }
    Err(Failure::new(
        format!("{} is damaged, or not what was made", path.display()),
        "make it again with `cargo xtask fleet build`",
    )
    .into())
}

/// Writes a file that its owner alone may read, whole or not at all.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        let folder = path.parent().context("the file has no folder")?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(contents)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().with_context(|| format!("while writing {}", path.display()))
}
