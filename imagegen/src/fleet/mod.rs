//! A fleet: many devices, each with a name and a site of its own, from a list that a person keeps.
//!
//! ```text
//! fleet.toml, devices.csv --list--> rows --check--> Fleet --keys, bundle--> NAME.site, one a device
//!                                                   base images, one a board ---+--base--> image --> card --> ledger
//! ```
//!
//! A list is checked whole: what comes of it is a [`Fleet`], or every mistake there is, each with its file and line. Programs that print
//! secrets are not run here; whoever asks runs them and hands in what they printed.

pub mod base;
pub mod bundle;
pub mod check;
pub mod identities;
pub mod keys;
pub mod ledger;
pub mod list;
mod list_csv;
mod list_toml;
mod taken;

use std::fmt;
use std::net::Ipv4Addr;

use thiserror::Error;

use crate::site::SiteOptions;

/// The devices of a list, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// At least one.
    pub devices: Vec<Device>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is called in the list, and its files with it.
    pub name: DeviceName,
    /// What its image is built for.
    pub target: Target,
    /// The number of its processor, where the list has it.
    pub serial: Option<Serial>,
    /// The hardware address of its radio, where the list has it.
    pub mac: Option<Mac>,
    /// Everything else.
    pub site: SiteOptions,
}

/// The image that devices have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The board.
    pub board: String,
    /// Whether it is a network card of the computer that it is plugged into.
    pub gadget: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gadget = if self.gadget { "-gadget" } else { "" };
        write!(f, "{}{gadget}", self.board)
    }
}

/// The name of a device: 1 to 64 ASCII letters, digits, `-`, `_` and `.`, of which the first is a letter or a digit. It names files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName(String);

/// The serial number of a Raspberry Pi's processor: 16 hexadecimal digits in lower case, as in /proc/cpuinfo.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(String);

/// The hardware address of one network interface, in lower case with colons.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(String);

/// Why text identifies no device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// A name that cannot be a file's everywhere.
    #[error(
        "`{}` cannot name a device: a name has 1 to {NAME_MAX} of A-Z, a-z, 0-9, `-`, `_` and `.`, the first of them a letter or a digit",
        .0.escape_debug()
    )]
    Name(String),
    /// Not the number of a processor.
    #[error("`{}` is no serial number; it has 8 or 16 hexadecimal digits", .0.escape_debug())]
    Serial(String),
    /// Not the address of one interface.
    #[error("`{}` is not the hardware address of one device, such as b8:27:eb:01:02:03", .0.escape_debug())]
    Mac(String),
}

/// Longest name of a device.
const NAME_MAX: usize = 64;

impl DeviceName {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        // Some systems drop dots at the end.
        if text.len() <= NAME_MAX && begins && text.bytes().all(allowed) && !text.ends_with('.') {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdentityError::Name(text.to_owned()))
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serial {
    /// Parses the 16 digits of /proc/cpuinfo, or the last 8, which say it all on boards before the 4.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if matches!(digits.len(), 8 | 16) && hex {
            Ok(Self(format!("{:0>16}", digits.to_ascii_lowercase())))
        } else {
            Err(IdentityError::Serial(text.to_owned()))
        }
    }
}

impl Mac {
    /// Parses six pairs of digits with colons or hyphens between them; refuses groups' addresses (IEEE 802, 8.2.2) and no address at all.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let wrong = || IdentityError::Mac(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let parse = |pair: &str| {
            let hex = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(separator).map(parse).collect();
        let bytes = bytes.filter(|bytes| bytes.len() == 6).ok_or_else(wrong)?;
        if bytes[0] & 1 == 1 || bytes.iter().all(|byte| *byte == 0) {
            return Err(wrong());
        }
        let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(pairs.join(":")))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the static address of a site, if it has one.
fn static_address(site: &SiteOptions) -> Option<Ipv4Addr> {
    use crate::site::address::UplinkAddress;
    let UplinkAddress::Static(address) = &site.address else {
        return None;
    };
    let lines = address.lines();
    let line = lines.first()?.strip_prefix("Address=")?;
    line.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_files() {
        let longest = "x".repeat(64);
        for good in ["hall-1", "7", "a.b_c", &longest] {
            assert_eq!(DeviceName::parse(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(65);
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "x.",
            "a/b",
            "../x",
            "a\\b",
            "a b",
            "a\nb",
            "a\0b",
            "é",
            "a:b",
            "\u{1b}[31m",
            &too_long,
        ] {
            assert_eq!(
                DeviceName::parse(bad),
                Err(IdentityError::Name(bad.to_owned()))
            );
        }
    }

    #[test]
    fn serial_numbers_have_one_form() {
        for (text, want) in [
            ("10000000ABCDEF01", Some("10000000abcdef01")),
            ("0xabcdef01", Some("00000000abcdef01")),
            ("abcdef0", None),
            ("", None),
            ("0000000g", None),
            ("ü000000", None),
        ] {
            let found = Serial::parse(text).ok().map(|serial| serial.to_string());
            assert_eq!(found.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn hardware_addresses_are_of_one_interface() {
        for (text, want) in [
            ("B8-27-EB-01-02-03", Some("b8:27:eb:01:02:03")),
            ("b8:27:eb:1:2:3", None),
            ("b8:27:eb:01:02", None),
            ("b8:27:eb:01:02:03:04", None),
            ("01:00:5e:00:00:01", None),
            ("ff:ff:ff:ff:ff:ff", None),
            ("00:00:00:00:00:00", None),
            ("+8:27:eb:01:02:03", None),
        ] {
            let found = Mac::parse(text).ok().map(|mac| mac.to_string());
            assert_eq!(found.as_deref(), want, "{text}");
        }
    }
}
