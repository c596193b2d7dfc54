//! How the Wi-Fi side gets its address: from the network's DHCP server, or as a person says.

use std::fmt;
use std::net::Ipv4Addr;

use thiserror::Error;

/// How the Wi-Fi side gets its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkAddress {
    /// From the network's server.
    Dhcp,
    /// Always the same.
    Static(StaticAddress),
}

/// An address that stays the same, in the network it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticAddress {
    address: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
}

/// Why an address cannot be that of the Wi-Fi side.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not an address with its network's length.
    #[error(
        "`{0}` is no address with the length of its network, at most 30, such as 192.168.1.5/24"
    )]
    Syntax(String),
    /// An address nobody can have there.
    #[error("{address} is no address for one machine of the network {network}/{prefix}")]
    NotOfOne {
        /// The address.
        address: Ipv4Addr,
        /// Its network.
        network: Ipv4Addr,
        /// And its length.
        prefix: u8,
    },
    /// A gateway that cannot be reached.
    #[error("the gateway {gateway} is not another machine of the network {network}/{prefix}")]
    Gateway {
        /// The gateway.
        gateway: Ipv4Addr,
        /// The network.
        network: Ipv4Addr,
        /// And its length.
        prefix: u8,
    },
    /// Not an IPv4 address.
    #[error("`{0}` is no IPv4 address")]
    NoAddress(String),
}

/// Why an address cannot be put into a file. Its settings are those of systemd.network(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UplinkFileError {
    /// No place for an address.
    #[error("uplink.network has no section [Network]")]
    NoSection,
    /// Addresses in sections of their own, which somebody thought about.
    #[error("uplink.network has a section [{0}] that somebody wrote by hand")]
    ByHand(&'static str),
}

impl UplinkAddress {
    /// Puts the address into the text of an uplink.network, in place of the one there; leaves every other line as it is.
    pub fn edit(&self, text: &str) -> Result<String, UplinkFileError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for section in ["Address", "Route"] {
            if text.lines().any(|line| section_of(line) == Some(section)) {
                return Err(UplinkFileError::ByHand(section));
            }
        }
        let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut kept: Vec<&str> = Vec::new();
        let mut place = None;
        let mut inside = false;
        for line in text.split_inclusive('\n') {
            if let Some(section) = section_of(line) {
                inside = section == "Network";
                kept.push(line);
                if inside {
                    place = place.or(Some(kept.len()));
                }
            } else if !inside || !is_about_the_address(line) {
                kept.push(line);
            }
        }
        let place = place.ok_or(UplinkFileError::NoSection)?;
        let (before, after) = kept.split_at(place);
        let mut edited = before.concat();
        if !edited.ends_with('\n') {
            edited.push_str(end);
        }
        for line in self.lines() {
            edited.push_str(&line);
            edited.push_str(end);
        }
        Ok(edited + &after.concat())
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::Dhcp => vec!["DHCP=ipv4".to_owned()],
            Self::Static(address) => {
                let mut lines = vec!["DHCP=no".to_owned()];
                lines.extend(address.lines());
                lines
            }
        }
    }
}

/// Returns the lines of an uplink.network that say how the address comes about.
pub fn address_lines(text: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        match section_of(line) {
            Some(section) => inside = matches!(section, "Network" | "Address" | "Route"),
            None if inside && is_about_the_address(line) => lines.push(line.trim()),
            None => {}
        }
    }
    lines
}

fn section_of(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.strip_suffix(']')
}

fn is_about_the_address(line: &str) -> bool {
    let key = line.split_once('=').map(|(key, _)| key.trim());
    matches!(key, Some("DHCP" | "Address" | "Gateway" | "DNS"))
}

impl StaticAddress {
    /// Parses `ADDRESS/LENGTH`, the gateway and the name servers, and checks that they fit together.
    pub fn parse(
        address: &str,
        gateway: Option<&str>,
        dns: &[String],
    ) -> Result<Self, AddressError> {
        let syntax = || AddressError::Syntax(address.to_owned());
        let (ip, prefix) = address.split_once('/').ok_or_else(syntax)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| syntax())?;
        // A network of two or one has no room for hosts behind a bridge.
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| (1..=30).contains(prefix));
        let prefix: u8 = prefix.ok_or_else(syntax)?;
        let network = network_of(ip, prefix);
        if !is_of_one(ip, prefix) {
            return Err(AddressError::NotOfOne {
                address: ip,
                network,
                prefix,
            });
        }
        let parse = |text: &str| {
            let parsed = text.parse::<Ipv4Addr>();
            parsed.map_err(|_| AddressError::NoAddress(text.to_owned()))
        };
        let gateway = gateway.map(parse).transpose()?;
        if let Some(gateway) = gateway {
            let near = network_of(gateway, prefix) == network && is_of_one(gateway, prefix);
            if !near || gateway == ip {
                return Err(AddressError::Gateway {
                    gateway,
                    network,
                    prefix,
                });
            }
        }
        Ok(Self {
            address: ip,
            prefix,
            gateway,
            dns: dns
                .iter()
                .map(|text| parse(text))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Returns the lines of a `[Network]` section (systemd.network(5)) that say the same.
    pub fn lines(&self) -> Vec<String> {
        let address = format!("Address={}/{}", self.address, self.prefix);
        let gateway = self.gateway.map(|gateway| format!("Gateway={gateway}"));
        let dns = self.dns.iter().map(|server| format!("DNS={server}"));
        std::iter::once(address).chain(gateway).chain(dns).collect()
    }
}

impl fmt::Display for UplinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dhcp => f.write_str("by DHCP"),
            Self::Static(address) => {
                write!(f, "{}/{}", address.address, address.prefix)?;
                if let Some(gateway) = address.gateway {
                    write!(f, ", gateway {gateway}")?;
                }
                for server in &address.dns {
                    write!(f, ", name server {server}")?;
                }
                Ok(())
            }
        }
    }
}

fn network_of(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    (address.to_bits() & mask(prefix)).into()
}

fn mask(prefix: u8) -> u32 {
    !(u32::MAX >> prefix)
}

/// Whether an address is one machine's, not a network's, everyone's or a group's.
fn is_of_one(address: Ipv4Addr, prefix: u8) -> bool {
    let host = address.to_bits() & !mask(prefix);
    host != 0
        && host != !mask(prefix)
        && !address.is_multicast()
        && !address.is_loopback()
        && !address.is_unspecified()
        && !address.is_broadcast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_goes_into_its_section() {
        let address = StaticAddress::parse("10.0.0.5/24", Some("10.0.0.1"), &["10.0.0.1".into()]);
        let address = UplinkAddress::Static(address.unwrap());
        let file = include_str!("../../../overlays/site/uplink.network");
        let edited = address.edit(file).unwrap();
        assert_eq!(
            edited,
            file.replace(
                "DHCP=ipv4\n",
                "DHCP=no\nAddress=10.0.0.5/24\nGateway=10.0.0.1\nDNS=10.0.0.1\n"
            )
        );
        assert_eq!(address.edit(&edited).as_ref(), Ok(&edited));
        assert_eq!(UplinkAddress::Dhcp.edit(&edited).as_deref(), Ok(file));
        for (text, want) in [
            (
                "[Network]\r\n# mine\r\nDHCP=yes\r\n",
                Ok("[Network]\r\nDHCP=ipv4\r\n# mine\r\n"),
            ),
            ("\u{feff}[Network]", Ok("[Network]\nDHCP=ipv4\n")),
            ("[DHCPv4]\nDHCP=x\n", Err(UplinkFileError::NoSection)),
            (
                "[Network]\n[Address]\nAddress=10.0.0.1/8\n",
                Err(UplinkFileError::ByHand("Address")),
            ),
        ] {
            assert_eq!(
                UplinkAddress::Dhcp.edit(text),
                want.map(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_fit_their_networks() {
        for (address, gateway, want) in [
            (
                "192.168.1.5/24",
                Some("192.168.1.1"),
                "Address=192.168.1.5/24 Gateway=192.168.1.1",
            ),
            ("10.0.0.1/8", None, "Address=10.0.0.1/8"),
            (
                "192.168.1.5",
                None,
                "`192.168.1.5` is no address with the length of its network, at most 30, such as 192.168.1.5/24",
            ),
            (
                "192.168.1.5/31",
                None,
                "`192.168.1.5/31` is no address with the length of its network, at most 30, such as 192.168.1.5/24",
            ),
            (
                "192.168.1.0/24",
                None,
                "192.168.1.0 is no address for one machine of the network 192.168.1.0/24",
            ),
            (
                "192.168.1.255/24",
                None,
                "192.168.1.255 is no address for one machine of the network 192.168.1.0/24",
            ),
            (
                "127.0.0.1/8",
                None,
                "127.0.0.1 is no address for one machine of the network 127.0.0.0/8",
            ),
            (
                "192.168.1.5/24",
                Some("192.168.2.1"),
                "the gateway 192.168.2.1 is not another machine of the network 192.168.1.0/24",
            ),
            (
                "192.168.1.5/24",
                Some("192.168.1.5"),
                "the gateway 192.168.1.5 is not another machine of the network 192.168.1.0/24",
            ),
            (
                "192.168.1.5/24",
                Some("fritz.box"),
                "`fritz.box` is no IPv4 address",
            ),
        ] {
            let found = match StaticAddress::parse(address, gateway, &[]) {
                Ok(address) => address.lines().join(" "),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, want);
        }
    }
}
