//! Whom to look for, and who that is among those who answer.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use imagegen::fleet::identities::Identity;

use super::ask::{Answer, STATUS_PORT};
use crate::usage::UsageError;

/// Longest name of a host (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;

/// A device that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is called here.
    pub name: String,
    /// What it calls itself, where that is known.
    pub hostname: Option<String>,
    /// The number of its processor, where that is known.
    pub serial: Option<String>,
    /// Where to ask, where that is known.
    pub address: Option<SocketAddrV4>,
}

impl Wanted {
    /// Parses what a person typed: an address, with a port or without, or a name, with `.local` or without.
    pub fn parse(text: &str) -> Result<Self> {
        let address = text.parse().or_else(|_| {
            text.parse()
                .map(|ip: Ipv4Addr| SocketAddrV4::new(ip, STATUS_PORT))
        });
        if let Ok(address) = address {
            return Ok(Wanted {
                name: text.to_owned(),
                hostname: None,
                serial: None,
                address: Some(address),
            });
        }
        let name = text.trim_end_matches('.');
        let name = name.strip_suffix(".local").unwrap_or(name);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(allowed) {
            return Err(UsageError::new(
                format!("`{text}` is neither a name nor an IPv4 address"),
                "for example: hall-1, 10.0.0.11 or 10.0.0.11:61067",
            )
            .into());
        }
        Ok(Wanted {
            name: name.to_owned(),
            hostname: Some(name.to_owned()),
            serial: None,
            address: None,
        })
    }

    /// Whether an answer is this device's. The number of its processor says more than a name, and an address that was asked more
    /// than both, if nothing else is known.
    pub fn is(&self, answer: &Answer) -> bool {
        match (&self.serial, &answer.serial, &self.hostname) {
            (Some(wanted), Some(found), _) => wanted.eq_ignore_ascii_case(found),
            (_, _, Some(hostname)) => {
                let first = hostname.split('.').next().unwrap_or_default();
                [hostname, first]
                    .iter()
                    .any(|name| answer.name.eq_ignore_ascii_case(name))
            }
            (_, _, None) => self.address == Some(answer.from),
        }
    }
}

impl From<Identity> for Wanted {
    fn from(identity: Identity) -> Self {
        Wanted {
            name: identity.name.to_string(),
            hostname: Some(identity.hostname.to_string()),
            serial: identity.serial.map(|serial| serial.to_string()),
            address: identity
                .address
                .map(|address| SocketAddrV4::new(address, STATUS_PORT)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::status::ask::tests::answer;

    #[test]
    fn devices_are_named_in_several_ways() {
        let port = |address: [u8; 4], port| Some(SocketAddrV4::new(address.into(), port));
        for (text, hostname, address) in [
            ("10.0.0.11", None, port([10, 0, 0, 11], STATUS_PORT)),
            ("10.0.0.11:7", None, port([10, 0, 0, 11], 7)),
            ("hall-1", Some("hall-1"), None),
            ("hall-1.local.", Some("hall-1"), None),
            ("hall-1.example.org", Some("hall-1.example.org"), None),
        ] {
            let wanted = Wanted::parse(text).unwrap();
            assert_eq!(wanted.hostname.as_deref(), hostname, "{text}");
            assert_eq!(wanted.address, address, "{text}");
        }
        for text in [
            "",
            ".",
            ".local",
            "hall 1",
            "\u{1b}[31m",
            "fe80::1",
            &"x".repeat(254),
        ] {
            assert!(Wanted::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_device_is_who_it_is_by_number_then_name_then_address() {
        let mut listed = Wanted::parse("hall-1").unwrap();
        let mut found = answer("HALL-1", "10.0.0.11:61067");
        assert!(listed.is(&found));
        listed.serial = Some("10000000abcdef01".to_owned());
        assert!(listed.is(&found));
        found.serial = Some("10000000ABCDEF01".to_owned());
        found.name = "renamed".to_owned();
        assert!(listed.is(&found));
        found.name = "hall-1".to_owned();
        found.serial = Some("10000000abcdef02".to_owned());
        assert!(!listed.is(&found), "another board with that name");
        let by_address = Wanted::parse("10.0.0.11").unwrap();
        assert!(by_address.is(&found));
        assert!(!Wanted::parse("10.0.0.11:7").unwrap().is(&found));
        assert!(Wanted::parse("hall-1.example.org").unwrap().is(&found));
    }
}
