//! Parts: what several boards have in common, from `boards/parts/NAME.toml`, such as the adapters that people plug into a USB port.
//!
//! A board names the parts it has and adds what is its own. A part names no other part.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::board::{BoardError, FirmwareFiles, Modules, load_descriptions};

/// What a board gets by naming it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Part {
    /// Kernel modules.
    pub modules: Modules,
    /// Firmware of radios.
    pub radio_firmware: FirmwareFiles,
}

/// Loads every part of a directory, by name.
pub fn load_parts(dir: &Path) -> Result<BTreeMap<String, Part>, BoardError> {
    load_descriptions(dir, parse_part)
}

fn parse_part(name: &str, text: &str) -> Result<Part, BoardError> {
    toml::from_str(text).map_err(|err| BoardError::Syntax {
        id: format!("parts/{name}"),
        err: Box::new(err),
    })
}
