//! The agent's configuration: a TOML file of a few keys, overridden by the command line.
//!
//! `RawConfig` mirrors the file and is private; everybody else sees `Config`, whose values were checked once, here. An unknown
//! key is refused, with the nearest known one suggested. The keys are documented on the fields of `RawConfig`.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use thiserror::Error;

use crate::engine::Settings;
use crate::hint::Hinted;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the engine is told.
    pub settings: Settings,
}

/// The keys of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawConfig {
    /// `uplink = "wlan0"`: the interface that is a member of the network. Needed here or as `--uplink`.
    uplink: Option<String>,
    /// `downlink = "eth0"`: the interface whose hosts are to become members. Needed here or as `--downlink`.
    downlink: Option<String>,
    /// `dhcp-max-hops = 16`: DHCP requests that already passed this many relays are dropped (1 to 16).
    dhcp_max_hops: Option<u8>,
}

/// The keys of `RawConfig`, for suggestions.
const KEYS: [&str; 3] = ["uplink", "downlink", "dhcp-max-hops"];

/// What the command line says about the same things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--uplink`.
    pub uplink: Option<String>,
    /// `--downlink`.
    pub downlink: Option<String>,
}

/// Why a configuration is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A key this version does not know.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The key as written.
        key: String,
    },
    /// The text is not TOML, or a value has the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// An interface is named nowhere.
    #[error("no {key} interface is named")]
    Missing {
        /// `uplink` or `downlink`.
        key: &'static str,
    },
    /// The kernel would not take this as an interface name.
    #[error("`{name}` is not an interface name")]
    BadName {
        /// The name as written.
        name: String,
    },
    /// Both sides are the same interface.
    #[error("uplink and downlink are both `{name}`")]
    SameInterface {
        /// Their name.
        name: String,
    },
    /// The relay limit is out of its range.
    #[error("dhcp-max-hops is {value}")]
    BadHops {
        /// The value as written.
        value: u8,
    },
}

impl ConfigError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            ConfigError::UnknownKey { key } => match nearest_key(key) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("the keys are {}", KEYS.map(|key| format!("`{key}`")).join(", ")),
            },
            ConfigError::Syntax(_) => "the file is TOML: one `key = \"value\"` a line".to_owned(),
            ConfigError::Missing { key } => {
                format!("give --{key} NAME, or `{key} = \"NAME\"` in the configuration file; `ip link` lists the names")
            }
            ConfigError::BadName { .. } => {
                "a name is 1 to 15 characters without `/`, `:` or blanks; `ip link` lists those that exist".to_owned()
            }
            ConfigError::SameInterface { .. } => {
                "a bridge needs two interfaces: one in the network, one for the wired hosts".to_owned()
            }
            ConfigError::BadHops { .. } => "give a number from 1 to 16; RFC 1542 suggests 16 as the limit".to_owned(),
        }
    }
}

/// Reads the configuration file, if one is named, and lets the command line override it.
pub fn load_config(path: Option<&Path>, overrides: Overrides) -> anyhow::Result<Config> {
    let (text, context) = match path {
        Some(path) => {
            let reading = format!("while reading {}", path.display());
            let text = std::fs::read_to_string(path)
                .map_err(|error| {
                    Hinted::new(
                        error.to_string(),
                        "does the file exist, and may this user read it?",
                    )
                })
                .context(reading.clone())?;
            (text, reading)
        }
        None => (String::new(), "while reading the command line".to_owned()),
    };
    parse_config(&text, overrides)
        .map_err(|error| Hinted::new(error.to_string(), error.hint()))
        .context(context)
}

/// Parses the text of a configuration file and lets `overrides` win over it.
pub fn parse_config(text: &str, overrides: Overrides) -> Result<Config, ConfigError> {
    let raw = parse_raw(text)?;
    let uplink = interface_name("uplink", overrides.uplink.or(raw.uplink))?;
    let downlink = interface_name("downlink", overrides.downlink.or(raw.downlink))?;
    if uplink == downlink {
        return Err(ConfigError::SameInterface { name: uplink });
    }
    let mut settings = Settings::new(uplink, downlink);
    if let Some(value) = raw.dhcp_max_hops {
        if !(1..=16).contains(&value) {
            return Err(ConfigError::BadHops { value });
        }
        settings.dhcp_max_hops = value;
    }
    Ok(Config { settings })
}

fn parse_raw(text: &str) -> Result<RawConfig, ConfigError> {
    let syntax =
        |error: toml::de::Error| ConfigError::Syntax(error.to_string().trim_end().to_owned());
    let table: toml::Table = text.parse().map_err(syntax)?;
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ConfigError::UnknownKey { key: key.clone() });
    }
    toml::from_str(text).map_err(syntax)
}

fn interface_name(key: &'static str, name: Option<String>) -> Result<String, ConfigError> {
    let name = name.ok_or(ConfigError::Missing { key })?;
    let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
    // The kernel refuses `/`, `:` and white space; control characters it takes, but nobody means them.
    let clean =
        !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if fits && clean {
        Ok(name)
    } else {
        Err(ConfigError::BadName { name })
    }
}

fn nearest_key(key: &str) -> Option<&'static str> {
    let similarity = |known: &&str| strsim::jaro_winkler(key, known);
    KEYS.into_iter()
        .filter(|known| similarity(known) > 0.75)
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
}
