//! The site: everything that makes one card different from the next. It goes to `site/` on the boot partition and nowhere else.
//!
//! ```text
//! site.toml --config--> SiteChange --+--> SiteOptions --plan::site--> the files of site/
//! options of the command line -------+
//! ```
//!
//! Each type is checked once, when it is parsed. A [`SiteChange`] is what a person named, and no more: for a new card the rest is at its
//! default.

use std::fmt;

use thiserror::Error;

use crate::credentials::{Security, Ssid};

pub mod address;
pub mod agent;
pub mod config;
mod country;
pub mod edit;
pub(crate) mod secrets;

use address::UplinkAddress;
use agent::AgentOptions;
pub use country::CountryCode;

/// What the person who makes a card says about the place it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteOptions {
    /// The Wi-Fi networks, at least one. Of those in reach the one with the highest priority is joined.
    pub networks: Vec<Network>,
    /// Where the radio transmits; without it, only channels and powers that are fine everywhere are used.
    pub country: Option<CountryCode>,
    /// What the device calls itself.
    pub hostname: Hostname,
    /// Who may log in over SSH; nobody without it.
    pub ssh_keys: Option<SshKeys>,
    /// How the Wi-Fi side gets its address.
    pub address: UplinkAddress,
    /// Settings of the bridge other than their defaults.
    pub agent: AgentOptions,
}

impl SiteOptions {
    /// The options for one network, the rest at its default.
    pub fn joining(network: Network) -> Self {
        Self {
            networks: vec![network],
            country: None,
            hostname: Hostname::default(),
            ssh_keys: None,
            address: UplinkAddress::Dhcp,
            agent: AgentOptions::default(),
        }
    }
}

/// A Wi-Fi network to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub ssid: Ssid,
    /// How it is secured.
    pub security: Security,
    /// The network of the highest priority in reach is joined; among equals, the one heard best.
    pub priority: u8,
    /// Whether it is asked for by its name, which finds networks that hide it, and tells whoever listens which one is looked for.
    pub hidden: bool,
}

impl Network {
    /// A network with no priority over others, found whether it hides its name or not.
    pub fn new(ssid: Ssid, security: Security) -> Self {
        Self {
            ssid,
            security,
            priority: 0,
            hidden: true,
        }
    }
}

/// Settings that a person names; what is not named stays as it is, or at its default on a new card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteChange {
    /// The networks, in place of those before.
    pub networks: Option<Vec<Network>>,
    /// Where the radio transmits.
    pub country: Option<CountryCode>,
    /// What the device calls itself.
    pub hostname: Option<Hostname>,
    /// Who may log in over SSH, in place of those before.
    pub ssh_keys: Option<SshKeys>,
    /// How the Wi-Fi side gets its address.
    pub address: Option<UplinkAddress>,
    /// Settings of the bridge, each by itself.
    pub agent: AgentOptions,
}

impl SiteChange {
    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Lets what `other` names win over this.
    #[must_use]
    pub fn overridden_by(self, other: Self) -> Self {
        Self {
            networks: other.networks.or(self.networks),
            country: other.country.or(self.country),
            hostname: other.hostname.or(self.hostname),
            ssh_keys: other.ssh_keys.or(self.ssh_keys),
            address: other.address.or(self.address),
            agent: self.agent.overridden_by(other.agent),
        }
    }

    /// The options of a new card; nothing if no network is named.
    pub fn into_options(self) -> Option<SiteOptions> {
        Some(SiteOptions {
            networks: self.networks.filter(|networks| !networks.is_empty())?,
            country: self.country,
            hostname: self.hostname.unwrap_or_default(),
            ssh_keys: self.ssh_keys,
            address: self.address.unwrap_or(UplinkAddress::Dhcp),
            agent: self.agent,
        })
    }
}

/// Why text given for the site is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SiteError {
    /// Not two letters.
    #[error("`{0}` is no country code; it has two letters, such as DE or US (ISO 3166-1)")]
    Country(String),
    /// Two letters that people write for a country.
    #[error("`{code}` is no country code; did you mean `{meant}`?")]
    MistakenCountry {
        /// What was written.
        code: String,
        /// The country's.
        meant: &'static str,
    },
    /// Two letters of no country, or of one that the kernel has no rules for.
    #[error(
        "the kernel knows no rules for a country `{0}`; without one, radios use what is allowed everywhere"
    )]
    UnknownCountry(String),
    /// Not a single DNS label.
    #[error(
        "`{0}` is no host name; it has 1 to 63 letters, digits and hyphens, and no hyphen at either end"
    )]
    Hostname(String),
    /// The file holds the half that must stay where it is.
    #[error("this is a private key; give the file beside it that ends in .pub")]
    PrivateKey,
    /// A line that is no key.
    #[error(
        "line {0} is no SSH public key; it would begin with ssh-ed25519, ecdsa-sha2-nistp256 or ssh-rsa"
    )]
    SshKey(usize),
    /// No line with a key.
    #[error("there is no SSH public key in the file")]
    NoSshKey,
}

/// A host name: one DNS label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname(String);

impl Hostname {
    /// Parses one label (RFC 1123, 2.1).
    pub fn parse(text: &str) -> Result<Self, SiteError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let ends_fit = !text.starts_with('-') && !text.ends_with('-');
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) && ends_fit {
            Ok(Self(text.to_owned()))
        } else {
            Err(SiteError::Hostname(text.to_owned()))
        }
    }
}

impl Default for Hostname {
    fn default() -> Self {
        Self("footbridge".to_owned())
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One SSH public key or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshKeys(Vec<String>);

impl SshKeys {
    /// Parses a public key file, or a file in the manner of authorized_keys without options.
    pub fn parse(text: &str) -> Result<Self, SiteError> {
        if text.contains("PRIVATE KEY") {
            return Err(SiteError::PrivateKey);
        }
        let mut keys = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !is_public_key(line) {
                return Err(SiteError::SshKey(index + 1));
            }
            keys.push(line.to_owned());
        }
        if keys.is_empty() {
            Err(SiteError::NoSshKey)
        } else {
            Ok(Self(keys))
        }
    }

    /// Returns the keys, one a line.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

fn is_public_key(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    let known = matches!(
        kind,
        "ssh-ed25519" | "ssh-rsa" | "sk-ssh-ed25519@openssh.com"
    ) || kind.starts_with("ecdsa-sha2-nistp");
    let body = words.next().unwrap_or_default();
    // Every key's base64 begins with the length of its type's name, of which the upper bytes are zero.
    known
        && body.starts_with("AAAA")
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_one_label() {
        let longest = "x".repeat(63);
        for good in ["footbridge", "a", "0", "den-2", &longest] {
            assert_eq!(
                Hostname::parse(good).map(|name| name.to_string()),
                Ok(good.to_owned())
            );
        }
        let too_long = "x".repeat(64);
        for bad in ["", "-a", "a-", "a.b", "a b", "a_b", "é", "a\nb", &too_long] {
            assert_eq!(
                Hostname::parse(bad),
                Err(SiteError::Hostname(bad.to_owned()))
            );
        }
    }

    #[test]
    fn keys_are_public_and_whole_lines() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb0 me@desk";
        for (text, want) in [
            (format!("{key}\n"), Ok(vec![key.to_owned()])),
            (
                format!("# mine\r\n\r\n{key}\r\n{key}"),
                Ok(vec![key.to_owned(); 2]),
            ),
            (String::new(), Err(SiteError::NoSshKey)),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
                Err(SiteError::PrivateKey),
            ),
            (format!("{key}\nhello"), Err(SiteError::SshKey(2))),
            (format!("command=\"x\" {key}"), Err(SiteError::SshKey(1))),
        ] {
            assert_eq!(
                SshKeys::parse(&text).map(|keys| keys.lines().to_vec()),
                want,
                "{text}"
            );
        }
    }
}
