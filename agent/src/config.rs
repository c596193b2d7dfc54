//! The agent's configuration: a TOML file of a few keys, overridden by the command line.
//!
//! `RawConfig` mirrors the file and is private; everybody else sees `Config`, whose values were checked once, here. An unknown
//! key is refused, with the nearest known one suggested. The keys are documented on the fields of the raw types.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use thiserror::Error;

use crate::engine::{
    DhcpMode, DhcpSettings, DiscoverySettings, FleetSettings, Recovery, Settings, WifiSettings,
    WiredSettings,
};
use crate::hint::Hinted;
use crate::plain_file::{read_bounded, read_plain_file};

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the engine is told.
    pub settings: Settings,
}

/// The keys of the configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawConfig {
    /// `uplink = "wlan0"`: the interface that is a member of the network. Needed here or as `--uplink`.
    uplink: Option<String>,
    /// `downlink = "eth0"`: the interface whose hosts are to become members. Needed here or as `--downlink`.
    downlink: Option<String>,
    #[serde(default)]
    dhcp: RawDhcp,
    #[serde(default)]
    discovery: RawDiscovery,
    #[serde(default)]
    wired: RawWired,
    #[serde(default)]
    wifi: RawWifi,
    #[serde(default)]
    fleet: RawFleet,
}

/// The keys of `[dhcp]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "the table `[dhcp]`"
)]
struct RawDhcp {
    /// `mode = "auto"`: how DHCP crosses. `"relay"` names us as the relay (giaddr), `"broadcast"` does without, `"clone"` asks
    /// with the radio's own hardware address and the client's in option 61. `"auto"` tries the first, then the second.
    mode: Option<DhcpMode>,
    /// `max-hops = 16`: requests that already passed this many relays are dropped (1 to 16).
    max_hops: Option<i64>,
    /// `trust-option-82 = false`: whether requests that already carry relay information, but no relay's address, are relayed.
    trust_option_82: Option<bool>,
    /// `circuit-id = ""`: relay information (option 82) to add to requests, for servers that choose by it; at most 64 bytes.
    circuit_id: Option<String>,
}

/// The keys of `[discovery]`: which protocols cross the bridge.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "the table `[discovery]`"
)]
struct RawDiscovery {
    /// `mdns = true`: multicast DNS, by which printers, speakers and computers find each other.
    mdns: Option<bool>,
    /// `ssdp = true`: UPnP's discovery, used by televisions and media servers.
    ssdp: Option<bool>,
    /// `ws-discovery = true`: web services discovery, used by Windows for printers and file servers.
    ws_discovery: Option<bool>,
    /// `wake-on-lan = true`: magic packets that switch sleeping machines on.
    wake_on_lan: Option<bool>,
    /// `netbios = true`: NetBIOS names and browsing, used by old Windows machines and file servers.
    netbios: Option<bool>,
}

/// The keys of `[wired]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "the table `[wired]`"
)]
struct RawWired {
    /// `bounce = true`: whether the wired link is interrupted for a moment after the uplink joined another network, so that
    /// hosts ask for new addresses by themselves.
    bounce: Option<bool>,
}

/// The keys of `[wifi]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "the table `[wifi]`"
)]
struct RawWifi {
    /// `power-save = false`: whether the radio may doze, which saves little and costs a tenth of a second a packet.
    power_save: Option<bool>,
    /// `recovery = "reboot"`: how far the recovery of a radio that hears nothing may go: `"off"`, `"reassociate"`,
    /// `"interface"`, `"driver"` or `"reboot"`; each includes those before it.
    recovery: Option<Recovery>,
}

/// The keys of `[fleet]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "the table `[fleet]`"
)]
struct RawFleet {
    /// `status = false`: whether the device is found on the uplink by multicast DNS (`_footbridge._tcp`), and tells its neighbours
    /// there what it is and how it is.
    status: Option<bool>,
}

/// The keys of each table, for suggestions.
const KEYS: [(&str, &[&str]); 6] = [
    (
        "",
        &[
            "uplink",
            "downlink",
            "dhcp",
            "discovery",
            "wired",
            "wifi",
            "fleet",
        ],
    ),
    (
        "dhcp",
        &["mode", "max-hops", "trust-option-82", "circuit-id"],
    ),
    (
        "discovery",
        &["mdns", "ssdp", "ws-discovery", "wake-on-lan", "netbios"],
    ),
    ("wired", &["bounce"]),
    ("wifi", &["power-save", "recovery"]),
    ("fleet", &["status"]),
];
/// Longest configuration file, in bytes: far more than all keys and much comment need.
const LONGEST_FILE: usize = 64 << 10;
/// Longest circuit id: with its headers far from the 255 bytes that an option can hold.
const LONGEST_CIRCUIT_ID: usize = 64;

/// What the command line says about the same things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--uplink`.
    pub uplink: Option<String>,
    /// `--downlink`.
    pub downlink: Option<String>,
}

/// Where the configuration comes from, at the start and whenever it is to be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// The file, if one is named.
    pub path: Option<PathBuf>,
    /// What the command line says.
    pub overrides: Overrides,
}

impl ConfigSource {
    /// Reads the configuration.
    pub fn load(&self) -> anyhow::Result<Config> {
        load_config(self.path.as_deref(), self.overrides.clone())
    }
}

/// Why a configuration is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A key this version does not know.
    #[error("unknown key `{key}`{}", in_table(table))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The table it stands in; empty for the top level.
        table: &'static str,
    },
    /// The text is not TOML, or a value has the wrong type.
    #[error("{shown}")]
    Syntax {
        /// With the line it is about, below each other.
        shown: String,
        /// What is wrong with it.
        what: String,
        /// Where, counted from 1.
        line: Option<usize>,
    },
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
    #[error("max-hops is {value}")]
    BadHops {
        /// The value as written.
        value: i64,
    },
    /// The circuit id does not fit.
    #[error("circuit-id has {length} bytes")]
    LongCircuitId {
        /// Its length.
        length: usize,
    },
}

impl ConfigError {
    /// Returns the error in a line.
    pub fn in_short(&self) -> String {
        match self {
            ConfigError::Syntax { what, .. } => what.lines().collect::<Vec<_>>().join(" "),
            other => other.to_string(),
        }
    }

    /// Returns what the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            ConfigError::UnknownKey { key, table } => unknown_key_hint(key, table),
            ConfigError::Syntax { .. } => "the file is TOML: one `key = \"value\"` a line, below its `[table]` if it has one".to_owned(),
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
            ConfigError::LongCircuitId { .. } => format!("give at most {LONGEST_CIRCUIT_ID} bytes"),
        }
    }
}

/// Reads the configuration file, if one is named, and lets the command line override it. It has to be a regular file: whoever
/// runs does not wait for it.
pub fn load_config(path: Option<&Path>, overrides: Overrides) -> anyhow::Result<Config> {
    let (text, context) = match path {
        Some(path) => (
            text_of(read_plain_file(path, LONGEST_FILE), path)?,
            reading(path),
        ),
        None => (String::new(), "while reading the command line".to_owned()),
    };
    take_config(&text, overrides, context)
}

/// Reads a configuration file, or what comes through a pipe, to the end.
pub fn check_config(path: &Path) -> anyhow::Result<Config> {
    let read = File::open(path).and_then(|file| read_bounded(file, LONGEST_FILE));
    take_config(&text_of(read, path)?, Overrides::default(), reading(path))
}

fn text_of(read: io::Result<Vec<u8>>, path: &Path) -> anyhow::Result<String> {
    let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    text.map_err(|error| Hinted::new(error.to_string(), reading_hint(error.kind())))
        .with_context(|| reading(path))
}

fn reading(path: &Path) -> String {
    format!("while reading {}", path.display())
}

fn reading_hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::InvalidInput => {
            "name the configuration file itself: no directory, pipe or device"
        }
        io::ErrorKind::FileTooLarge => "is this the configuration file? It has a few lines",
        io::ErrorKind::Other => "is this the configuration file? It is text in UTF-8",
        _ => "does the file exist, and may this user read it?",
    }
}

fn take_config(text: &str, overrides: Overrides, context: String) -> anyhow::Result<Config> {
    parse_config(text, overrides)
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
    let settings = Settings {
        dhcp: dhcp_settings(raw.dhcp)?,
        discovery: discovery_settings(raw.discovery),
        wired: wired_settings(raw.wired),
        wifi: wifi_settings(raw.wifi),
        fleet: fleet_settings(raw.fleet),
        ..Settings::new(uplink, downlink)
    };
    Ok(Config { settings })
}

fn parse_raw(text: &str) -> Result<RawConfig, ConfigError> {
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        shown: error.to_string().trim_end().to_owned(),
        what: error.message().to_owned(),
        line: error.span().map(|span| line_at(text, span.start)),
    };
    let top: toml::Table = text.parse().map_err(syntax)?;
    for (table, known) in KEYS {
        let found = match table {
            "" => Some(&top),
            _ => top.get(table).and_then(toml::Value::as_table),
        };
        let mut keys = found.into_iter().flat_map(toml::Table::keys);
        if let Some(key) = keys.find(|key| !known.contains(&key.as_str())) {
            let key = key.clone();
            return Err(ConfigError::UnknownKey { key, table });
        }
    }
    toml::from_str(text).map_err(syntax)
}

/// Returns the line, counted from 1, that the error is about.
pub fn line_of_error(text: &str, error: &ConfigError) -> Option<usize> {
    match error {
        ConfigError::Syntax { line, .. } => *line,
        ConfigError::UnknownKey { key, table } => line_of_key(text, table, key),
        ConfigError::BadHops { .. } => line_of_key(text, "dhcp", "max-hops"),
        ConfigError::LongCircuitId { .. } => line_of_key(text, "dhcp", "circuit-id"),
        ConfigError::SameInterface { .. } => line_of_key(text, "", "downlink"),
        ConfigError::BadName { name } => {
            let top: toml::Table = text.parse().ok()?;
            let is_bad =
                |key: &&str| top.get(*key).and_then(toml::Value::as_str) == Some(name.as_str());
            let key = ["uplink", "downlink"].into_iter().find(is_bad)?;
            line_of_key(text, "", key)
        }
        ConfigError::Missing { .. } => None,
    }
}

/// Returns the line, counted from 1, with a key of a table, or of the top level where that is empty.
pub(crate) fn line_of_key(text: &str, table: &str, key: &str) -> Option<usize> {
    let top = toml::de::DeTable::parse(text).ok()?;
    let mut keys = top.get_ref();
    if !table.is_empty() {
        let (_, found) = keys.iter().find(|(name, _)| *name.get_ref() == table)?;
        keys = found.get_ref().as_table()?;
    }
    let (found, _) = keys.iter().find(|(name, _)| *name.get_ref() == key)?;
    Some(line_at(text, found.span().start))
}

/// Returns the line, counted from 1, of each item of a list; none if it is no list.
pub(crate) fn lines_of_items(text: &str, table: &str, key: &str) -> Vec<usize> {
    let lines = || {
        let top = toml::de::DeTable::parse(text).ok()?;
        let items = top
            .get_ref()
            .get(table)?
            .get_ref()
            .as_table()?
            .get(key)?
            .get_ref()
            .as_array()?;
        // They are in order, and there may be thousands.
        let (mut line, mut from) = (1, 0);
        let lines = items.iter().map(|item| {
            let to = item.span().start;
            line += line_at(text.get(from..to).unwrap_or_default(), to) - 1;
            from = to;
            line
        });
        Some(lines.collect())
    };
    lines().unwrap_or_default()
}

/// Returns the line, counted from 1, of a byte.
pub(crate) fn line_at(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn dhcp_settings(raw: RawDhcp) -> Result<DhcpSettings, ConfigError> {
    let default = DhcpSettings::default();
    let circuit_id = raw.circuit_id.unwrap_or(default.circuit_id);
    if circuit_id.len() > LONGEST_CIRCUIT_ID {
        let length = circuit_id.len();
        return Err(ConfigError::LongCircuitId { length });
    }
    Ok(DhcpSettings {
        mode: raw.mode.unwrap_or(default.mode),
        max_hops: raw.max_hops.map_or(Ok(default.max_hops), hops)?,
        trust_option_82: raw.trust_option_82.unwrap_or(default.trust_option_82),
        circuit_id,
    })
}

fn hops(value: i64) -> Result<u8, ConfigError> {
    let hops = u8::try_from(value).ok();
    hops.filter(|hops| (1..=16).contains(hops))
        .ok_or(ConfigError::BadHops { value })
}

fn discovery_settings(raw: RawDiscovery) -> DiscoverySettings {
    let default = DiscoverySettings::default();
    DiscoverySettings {
        mdns: raw.mdns.unwrap_or(default.mdns),
        ssdp: raw.ssdp.unwrap_or(default.ssdp),
        ws_discovery: raw.ws_discovery.unwrap_or(default.ws_discovery),
        wake_on_lan: raw.wake_on_lan.unwrap_or(default.wake_on_lan),
        netbios: raw.netbios.unwrap_or(default.netbios),
    }
}

fn wired_settings(raw: RawWired) -> WiredSettings {
    let default = WiredSettings::default();
    WiredSettings {
        bounce: raw.bounce.unwrap_or(default.bounce),
    }
}

fn wifi_settings(raw: RawWifi) -> WifiSettings {
    let default = WifiSettings::default();
    WifiSettings {
        power_save: raw.power_save.unwrap_or(default.power_save),
        recovery: raw.recovery.unwrap_or(default.recovery),
    }
}

fn fleet_settings(raw: RawFleet) -> FleetSettings {
    let default = FleetSettings::default();
    FleetSettings {
        status: raw.status.unwrap_or(default.status),
        ..default
    }
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

fn in_table(table: &str) -> String {
    match table {
        "" => String::new(),
        table => format!(" in [{table}]"),
    }
}

/// Returns what an unknown key may have meant: the nearest key of its table, else the nearest one of another.
fn unknown_key_hint(key: &str, table: &str) -> String {
    let near = |keys: &[&'static str]| {
        let similarity = |known: &&str| strsim::jaro_winkler(key, known);
        let keys = keys.iter().copied();
        keys.filter(|known| similarity(known) > 0.75)
            .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
    };
    let own = KEYS.iter().find(|(name, _)| *name == table);
    let own = own.map_or(&[][..], |(_, keys)| keys);
    let others = KEYS.iter().filter(|(name, _)| *name != table);
    let mut elsewhere = others.filter_map(|(name, keys)| Some((*name, near(keys)?)));
    match (near(own), elsewhere.next()) {
        (Some(known), _) => format!("did you mean `{known}`?"),
        (None, Some(("", known))) => {
            format!("did you mean `{known}`, at the top, before any table?")
        }
        (None, Some((name, known))) => format!("did you mean `{known}`, under `[{name}]`?"),
        (None, None) => {
            let own: Vec<String> = own.iter().map(|key| format!("`{key}`")).collect();
            format!("the keys{} are {}", in_table(table), own.join(", "))
        }
    }
}
