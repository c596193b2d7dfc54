//! Settings of the bridge, as `site/footbridge.toml` has them: which there are, what they may be, and how they get into such a file
//! without disturbing what else a person wrote there.
//!
//! The agent checks its file by itself. Here a mistake is found on the desk, before somebody carries the card to the attic.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;
use toml::{Table, Value};

/// Settings by table and key, each of them known and of a possible value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentOptions(BTreeMap<(&'static str, &'static str), Setting>);

/// A value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Setting {
    Text(String),
    Number(u8),
    Switch(bool),
}

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    OneOf(&'static [&'static str]),
    Text { max: usize },
    Number { min: u8, max: u8 },
    Switch,
}

/// Everything that can be set. Both interfaces are the board's matter.
const SETTINGS: [(&str, &str, Kind); 13] = [
    (
        "dhcp",
        "mode",
        Kind::OneOf(&["auto", "relay", "broadcast", "clone"]),
    ),
    ("dhcp", "max-hops", Kind::Number { min: 1, max: 16 }),
    ("dhcp", "trust-option-82", Kind::Switch),
    ("dhcp", "circuit-id", Kind::Text { max: 64 }),
    ("discovery", "mdns", Kind::Switch),
    ("discovery", "ssdp", Kind::Switch),
    ("discovery", "ws-discovery", Kind::Switch),
    ("discovery", "wake-on-lan", Kind::Switch),
    ("discovery", "netbios", Kind::Switch),
    ("wired", "bounce", Kind::Switch),
    ("wifi", "power-save", Kind::Switch),
    (
        "wifi",
        "recovery",
        Kind::OneOf(&["off", "reassociate", "interface", "driver", "reboot"]),
    ),
    FLEET_STATUS,
];

/// Whether the device tells its network of itself.
const FLEET_STATUS: (&str, &str, Kind) = ("fleet", "status", Kind::Switch);

/// Why a setting is refused, or cannot be put into a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgentError {
    /// There is no such setting.
    #[error("the bridge has no setting `{name}`")]
    Unknown {
        /// Its name, with the table's.
        name: String,
        /// The name nearest to it, if one is near.
        nearest: Option<String>,
    },
    /// It cannot have that value.
    #[error("`{name}` cannot be {found}; it is {wanted}")]
    Value {
        /// Its name.
        name: String,
        /// What was given.
        found: String,
        /// What is possible.
        wanted: String,
    },
    /// The file is no TOML.
    #[error("footbridge.toml is not written as such files are, line {line}: {reason}")]
    Syntax {
        /// Where.
        line: usize,
        /// Why.
        reason: String,
    },
    /// The file says it in a way that is not understood here.
    #[error("footbridge.toml is written in a way that `{0}` cannot be changed in")]
    Manner(String),
}

impl AgentError {
    /// Returns what can be done about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown {
                nearest: Some(name),
                ..
            } => format!("did you mean `{name}`?"),
            Self::Unknown { nearest: None, .. } => {
                let names: Vec<String> = SETTINGS.iter().map(|(table, key, _)| name_of(table, key)).collect();
                format!("there are {}", names.join(", "))
            }
            Self::Value { .. } => "footbridge.toml in overlays/site/ says what each setting does".to_owned(),
            Self::Syntax { .. } | Self::Manner(_) => {
                "put it right with a text editor, or delete the file from the card's site/ and set everything anew".to_owned()
            }
        }
    }
}

impl AgentOptions {
    /// Returns what a device of a fleet has, unless its list says otherwise: whoever keeps many wants to be told how they are.
    pub fn of_fleet() -> Self {
        let (table, key, _) = FLEET_STATUS;
        Self([((table, key), Setting::Switch(true))].into())
    }

    /// Parses the tables of a file such as footbridge.toml, without the interfaces.
    pub fn parse(tables: &Table) -> Result<Self, AgentError> {
        let mut options = Self::default();
        for (table, value) in tables {
            let keys = value.as_table().ok_or_else(|| unknown(table.clone()))?;
            for (key, value) in keys {
                options.insert(&format!("{table}.{key}"), value)?;
            }
        }
        Ok(options)
    }

    /// Parses a setting as people type it: its name, such as `dhcp.mode`, and a value, quoted or not.
    pub fn parse_setting(name: &str, value: &str) -> Result<Self, AgentError> {
        let value = match value {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            _ => value
                .parse()
                .map_or_else(|_| Value::String(value.to_owned()), Value::Integer),
        };
        let mut options = Self::default();
        options.insert(name, &value)?;
        Ok(options)
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets the settings of `other` win.
    #[must_use]
    pub fn overridden_by(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Puts the settings into the text of a footbridge.toml, each into the line that says it or shows its default; leaves every other line
    /// as it is.
    pub fn edit(&self, text: &str) -> Result<String, AgentError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut wanted = parse_file(text)?;
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        for ((table, key), setting) in &self.0 {
            put_line(&mut lines, table, key, setting);
            let name = || name_of(table, key);
            let keys = wanted
                .entry(*table)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .ok_or_else(|| AgentError::Manner(name()))?;
            keys.insert((*key).to_owned(), setting.value());
            // Whether the lines say that and nothing else is not a matter of belief.
            if parse_file(&lines.concat()).ok().as_ref() != Some(&wanted) {
                return Err(AgentError::Manner(name()));
            }
        }
        Ok(lines.concat())
    }

    fn insert(&mut self, name: &str, value: &Value) -> Result<(), AgentError> {
        let known = SETTINGS
            .iter()
            .find(|(table, key, _)| name_of(table, key) == name);
        let (table, key, kind) = known.ok_or_else(|| unknown(name.to_owned()))?;
        let setting = kind.take(value).ok_or_else(|| AgentError::Value {
            name: name.to_owned(),
            found: value.to_string(),
            wanted: kind.to_string(),
        })?;
        self.0.insert((table, key), setting);
        Ok(())
    }
}

impl fmt::Display for AgentOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, ((table, key), setting)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{table}.{key} = {}", setting.value())?;
        }
        Ok(())
    }
}

impl Setting {
    fn value(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::Number(number) => Value::Integer((*number).into()),
            Self::Switch(on) => Value::Boolean(*on),
        }
    }
}

impl Kind {
    fn take(self, value: &Value) -> Option<Setting> {
        match (self, value) {
            (Self::OneOf(words), Value::String(text)) if words.contains(&text.as_str()) => {
                Some(Setting::Text(text.clone()))
            }
            (Self::Text { max }, Value::String(text)) if text.len() <= max => {
                Some(Setting::Text(text.clone()))
            }
            (Self::Number { min, max }, Value::Integer(number)) => u8::try_from(*number)
                .ok()
                .filter(|number| (min..=max).contains(number))
                .map(Setting::Number),
            (Self::Switch, Value::Boolean(on)) => Some(Setting::Switch(*on)),
            (Self::OneOf(_) | Self::Text { .. } | Self::Number { .. } | Self::Switch, _) => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::Text { max } => write!(f, "text of at most {max} bytes"),
            Self::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Switch => f.write_str("true or false"),
        }
    }
}

fn unknown(name: String) -> AgentError {
    let similarity = |known: &String| strsim::jaro_winkler(&name, known);
    let nearest = SETTINGS
        .iter()
        .map(|(table, key, _)| name_of(table, key))
        .filter(|known| similarity(known) > 0.8)
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    AgentError::Unknown { name, nearest }
}

fn name_of(table: &str, key: &str) -> String {
    format!("{table}.{key}")
}

fn parse_file(text: &str) -> Result<Table, AgentError> {
    text.parse()
        .map_err(|error: toml::de::Error| AgentError::Syntax {
            line: super::config::line_of(text, error.span()),
            reason: error.message().to_owned(),
        })
}

/// Writes a setting over its line, over the comment that shows its default, below the header of its table, or into a new table.
fn put_line(lines: &mut Vec<String>, table: &str, key: &str, setting: &Setting) {
    let end = if lines.first().is_some_and(|line| line.ends_with("\r\n")) {
        "\r\n"
    } else {
        "\n"
    };
    let line = format!("{key} = {}{end}", setting.value());
    let Some(begin) = lines.iter().position(|line| is_header(line, table)) else {
        if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
            last.push_str(end);
        }
        lines.extend([end.to_owned(), format!("[{table}]{end}"), line]);
        return;
    };
    let rest = &lines[begin + 1..];
    let size = rest
        .iter()
        .position(|line| line.trim_start().starts_with('['))
        .unwrap_or(rest.len());
    let find = |prefix: &str| {
        let says = |line: &String| {
            let rest = line.trim_start().strip_prefix(prefix);
            let rest = rest.and_then(|rest| rest.trim_start().strip_prefix(key));
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        rest[..size].iter().position(says)
    };
    match find("").or_else(|| find("#")) {
        Some(at) => lines[begin + 1 + at] = line,
        None => {
            if !lines[begin].ends_with('\n') {
                lines[begin].push_str(end);
            }
            lines.insert(begin + 1, line);
        }
    }
}

fn is_header(line: &str, table: &str) -> bool {
    let line = line.trim_start().strip_prefix('[');
    let rest = line.and_then(|rest| rest.trim_start().strip_prefix(table));
    rest.is_some_and(|rest| rest.trim_start().starts_with(']'))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const FILE: &str = include_str!("../../../overlays/site/footbridge.toml.tera");

    fn file() -> String {
        FILE.replace("{{ radio_interface }}", "wlan0")
            .replace("{{ wired_interface }}", "eth0")
    }

    /// The file shows every setting at its default, and only settings that are known here.
    #[test]
    fn the_file_and_the_table_are_about_the_same_settings() {
        let text = file();
        let shown: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let mut tables: Table = shown.parse().unwrap();
        tables.remove("uplink");
        tables.remove("downlink");
        let options = AgentOptions::parse(&tables).unwrap();
        assert_eq!(options.0.len(), SETTINGS.len());
    }

    #[test]
    fn a_setting_takes_the_line_of_its_default() {
        let options = AgentOptions::parse_setting("dhcp.mode", "relay")
            .unwrap()
            .overridden_by(AgentOptions::parse_setting("wifi.power-save", "true").unwrap());
        let edited = options.edit(&file()).unwrap();
        let changes: Vec<_> = edited
            .lines()
            .zip(file().lines().map(str::to_owned))
            .filter(|(now, before)| now != before)
            .map(|(now, before)| format!("{before} -> {now}"))
            .collect();
        assert_eq!(
            changes,
            [
                "#mode = \"auto\" -> mode = \"relay\"",
                "#power-save = false -> power-save = true"
            ]
        );
        assert_eq!(options.edit(&edited).unwrap(), edited);
    }

    #[test]
    fn what_people_write_is_kept() {
        let options = AgentOptions::parse_setting("dhcp.max-hops", "4").unwrap();
        for (text, want) in [
            (
                "uplink = \"x\"",
                Ok("uplink = \"x\"\n\n[dhcp]\nmax-hops = 4\n"),
            ),
            (
                "[ dhcp ] # mine\r\nmode = \"relay\"\r\n",
                Ok("[ dhcp ] # mine\r\nmax-hops = 4\r\nmode = \"relay\"\r\n"),
            ),
            ("[dhcp]", Ok("[dhcp]\nmax-hops = 4\n")),
            (
                "[dhcp]\n  max-hops=3 # as before\n[wifi]\n",
                Ok("[dhcp]\nmax-hops = 4\n[wifi]\n"),
            ),
            (
                "dhcp = { max-hops = 3 }\n",
                Err(AgentError::Manner("dhcp.max-hops".into())),
            ),
            (
                "dhcp.max-hops = 3\n",
                Err(AgentError::Manner("dhcp.max-hops".into())),
            ),
            (
                "x = \"\"\"\n[dhcp]\n\"\"\"\n",
                Err(AgentError::Manner("dhcp.max-hops".into())),
            ),
        ] {
            assert_eq!(options.edit(text), want.map(str::to_owned), "{text}");
        }
        let error = options.edit("uplink = \"x\"\nmode = relay\n").unwrap_err();
        assert!(
            matches!(error, AgentError::Syntax { line: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn settings_are_checked() {
        let check = |name: &str, value: &str| {
            let error = AgentOptions::parse_setting(name, value).unwrap_err();
            format!("{error}\n{}\n", error.hint())
        };
        let found = [
            ("dhcp.mod", "relay"),
            ("dhcp.mode", "rely"),
            ("dhcp.max-hops", "17"),
            ("wired.bounce", "1"),
        ]
        .map(|(name, value)| check(name, value));
        expect![[r#"
            the bridge has no setting `dhcp.mod`
            did you mean `dhcp.mode`?
            `dhcp.mode` cannot be "rely"; it is one of auto, relay, broadcast, clone
            footbridge.toml in overlays/site/ says what each setting does
            `dhcp.max-hops` cannot be 17; it is a number from 1 to 16
            footbridge.toml in overlays/site/ says what each setting does
            `wired.bounce` cannot be 1; it is true or false
            footbridge.toml in overlays/site/ says what each setting does
        "#]]
        .assert_eq(&found.concat());
    }
}
