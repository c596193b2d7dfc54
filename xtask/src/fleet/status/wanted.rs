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

    /// Whether an answer is this device's.
    pub fn is(&self, answer: &Answer) -> bool {
        self.likeness(answer).is_some()
    }

    /// Whether no other answer can be more likely this device's.
    pub fn is_surely(&self, answer: &Answer) -> bool {
        match self.likeness(answer) {
            Some(Likeness::OwnName) => answer.answers_as.is_none(),
            likeness => likeness.is_some(),
        }
    }

    /// Returns by what an answer is this device's. The number of its processor says more than a name, the name that it has on the
    /// network more than the one that it was given, which another machine may have there, and an address that was asked more than all,
    /// if nothing else is known.
    pub fn likeness(&self, answer: &Answer) -> Option<Likeness> {
        if let (Some(wanted), Some(found)) = (&self.serial, &answer.serial) {
            return wanted
                .eq_ignore_ascii_case(found)
                .then_some(Likeness::Serial);
        }
        let Some(hostname) = &self.hostname else {
            return (self.address == Some(answer.from)).then_some(Likeness::Address);
        };
        let is = |name: &str| name.eq_ignore_ascii_case(hostname);
        let first = hostname.split('.').next().unwrap_or_default();
        if answer.answers_as.as_deref().is_some_and(is) {
            Some(Likeness::NameOnNetwork)
        } else if is(&answer.name) || answer.name.eq_ignore_ascii_case(first) {
            Some(Likeness::OwnName)
        } else {
            None
        }
    }
}

/// By what an answer is a device's, the most certain first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likeness {
    /// The number of its processor.
    Serial,
    /// The name by which it was found.
    NameOnNetwork,
    /// What it calls itself.
    OwnName,
    /// Where it was asked.
    Address,
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

    #[test]
    fn a_device_that_took_another_name_is_found_by_both() {
        let mut found = answer("hall-1", "10.0.0.12:61067");
        found.answers_as = Some("Hall-1-4F2A10".to_owned());
        let likeness = |name| Wanted::parse(name).unwrap().likeness(&found);
        assert_eq!(
            likeness("hall-1-4f2a10.local"),
            Some(Likeness::NameOnNetwork)
        );
        assert_eq!(likeness("hall-1"), Some(Likeness::OwnName));
        assert_eq!(likeness("hall-2"), None);
        // Whoever has the name may still answer.
        assert!(!Wanted::parse("hall-1").unwrap().is_surely(&found));
        assert!(Wanted::parse("hall-1-4f2a10").unwrap().is_surely(&found));
        let mut listed = Wanted::parse("hall-9").unwrap();
        listed.serial = Some("10000000abcdef01".to_owned());
        found.serial = listed.serial.clone();
        assert_eq!(listed.likeness(&found), Some(Likeness::Serial));
    }
}
