//! `site.toml`: what a person says about a site, as a file.
//!
//! ```toml
//! country = "DE"
//! hostname = "attic"
//! ssh-keys-file = "id_ed25519.pub"    # or ssh-keys = ["ssh-ed25519 ..."]
//!
//! [[network]]
//! ssid = "home"                       # or ssid-hex, for names that are no text
//! psk-file = "home.psk"               # or psk = "..."
//! security = "mixed"                  # wpa2 (which it is without), wpa3, mixed, open, eap-tls or peap
//! priority = 10                       # 0 (which it is without) to 255
//! hidden = false                      # true, which it is without, finds hidden networks too
//!
//! [[network]]
//! ssid = "work"
//! security = "peap"                   # eap-tls has certificate-file, key-file and key-password-file in place of a password
//! identity = "me@example.org"
//! anonymous-identity = "anonymous@example.org"
//! password-file = "work.password"
//! ca-file = "work-ca.pem"
//! server-name = "radius.example.org"
//!
//! [uplink]
//! address = "192.168.1.5/24"          # or "dhcp"
//! gateway = "192.168.1.1"
//! dns = ["192.168.1.1"]
//!
//! [agent.dhcp]                        # and whatever else footbridge.toml has, but for the interfaces
//! mode = "relay"
//! ```
//!
//! Each secret can stand in the file itself or in one of its own. An error tells the line, and nothing of a secret.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use thiserror::Error;
use toml::{Spanned, Table, Value};

use super::address::{StaticAddress, UplinkAddress};
use super::agent::AgentOptions;
use super::{CountryCode, Hostname, Network, SiteChange, SshKeys};
use crate::credentials::enterprise::{
    Certificates, Enterprise, EnterpriseError, Password, PrivateKey, Proof, Words,
};
use crate::credentials::{Passphrase, Psk, Security, Ssid, decode_hex};

/// Why a site.toml is refused: what is wrong in which line, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {what}")]
pub struct SiteConfigError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// Reads a file that a site.toml names. The path is as written there; an error says why there are no bytes.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<Vec<u8>, String>;

/// Parses a site.toml.
pub fn parse_site_config(text: &str, read: ReadFile<'_>) -> Result<SiteChange, SiteConfigError> {
    let raw: RawSite = toml::from_str(text).map_err(|error| SiteConfigError {
        line: line_of(text, error.span()),
        what: error.message().to_owned(),
        hint: "the book shows a whole site.toml (docs/src/configuration.md)".to_owned(),
    })?;
    raw.check(text, read)
}

/// Returns the line that a place in a text is on, counted from 1.
pub(super) fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let end = span.map_or(0, |span| span.start).min(text.len());
    let before = &text.as_bytes()[..end];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// A site.toml, or a table of another file with the same keys, before its values are checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawSite {
    country: Option<Spanned<String>>,
    hostname: Option<Spanned<String>>,
    ssh_keys: Option<Spanned<Vec<String>>>,
    ssh_keys_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    network: Vec<Spanned<RawNetwork>>,
    uplink: Option<Spanned<RawUplink>>,
    agent: Option<Spanned<Table>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawNetwork {
    ssid: Option<Spanned<String>>,
    ssid_hex: Option<Spanned<String>>,
    security: Option<Spanned<Protocol>>,
    psk: Option<RawSecret>,
    psk_file: Option<Spanned<PathBuf>>,
    priority: Option<Spanned<i64>>,
    hidden: Option<bool>,
    identity: Option<Spanned<String>>,
    anonymous_identity: Option<Spanned<String>>,
    password: Option<RawSecret>,
    password_file: Option<Spanned<PathBuf>>,
    ca: Option<RawSecret>,
    ca_file: Option<Spanned<PathBuf>>,
    server_name: Option<Spanned<String>>,
    certificate: Option<RawSecret>,
    certificate_file: Option<Spanned<PathBuf>>,
    key: Option<RawSecret>,
    key_file: Option<Spanned<PathBuf>>,
    key_password: Option<RawSecret>,
    key_password_file: Option<Spanned<PathBuf>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Protocol {
    Open,
    Wpa2,
    Wpa3,
    Mixed,
    EapTls,
    Peap,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawUplink {
    address: Spanned<String>,
    gateway: Option<String>,
    #[serde(default)]
    dns: Vec<String>,
}

/// A value that no message shows, not even one that says it should have been text.
#[derive(Clone)]
struct RawSecret(Spanned<Value>);

impl<'de> Deserialize<'de> for RawSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl std::fmt::Debug for RawSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl RawSite {
    /// Checks every value and reads the files named. `text` is the whole file that this is of.
    pub fn check(self, text: &str, read: ReadFile<'_>) -> Result<SiteChange, SiteConfigError> {
        let desk = Desk { text, read };
        let country = self.country.map(|country| {
            let parsed = CountryCode::parse(country.get_ref());
            desk.hinted(parsed, country.span(), "for example: country = \"DE\"")
        });
        let hostname = self.hostname.map(|name| {
            let parsed = Hostname::parse(name.get_ref());
            desk.hinted(parsed, name.span(), "for example: hostname = \"attic\"")
        });
        let networks: Vec<Network> = self
            .network
            .into_iter()
            .map(|network| desk.network(network))
            .collect::<Result<_, _>>()?;
        Ok(SiteChange {
            networks: Some(networks).filter(|networks| !networks.is_empty()),
            country: country.transpose()?,
            hostname: hostname.transpose()?,
            ssh_keys: desk.ssh_keys(self.ssh_keys, self.ssh_keys_file)?,
            address: self.uplink.map(|uplink| desk.address(uplink)).transpose()?,
            agent: match self.agent {
                Some(agent) => {
                    let parsed = AgentOptions::parse(agent.get_ref());
                    parsed.map_err(|error| {
                        let hint = error.hint();
                        desk.error(agent.span(), error.to_string(), &hint)
                    })?
                }
                None => AgentOptions::default(),
            },
        })
    }
}

type Span = Range<usize>;

/// Where values are checked: beside the file they are of, and within reach of those it names.
struct Desk<'a> {
    text: &'a str,
    read: ReadFile<'a>,
}

impl Desk<'_> {
    fn network(&self, network: Spanned<RawNetwork>) -> Result<Network, SiteConfigError> {
        let span = network.span();
        let raw = network.into_inner();
        let ssid = self.ssid(&raw, &span)?;
        let priority = match &raw.priority {
            Some(given) => u8::try_from(*given.get_ref()).map_err(|_| {
                let what = format!("a priority of {} is not possible", given.get_ref());
                self.error(
                    given.span(),
                    what,
                    "give a number from 0 to 255; the highest in reach is joined",
                )
            })?,
            None => 0,
        };
        let hidden = raw.hidden.unwrap_or(true);
        Ok(Network {
            priority,
            hidden,
            security: self.security(raw, &span)?,
            ssid,
        })
    }

    fn ssid(&self, raw: &RawNetwork, span: &Span) -> Result<Ssid, SiteConfigError> {
        let hint = "for example: ssid = \"home\"";
        let (bytes, span) = match (&raw.ssid, &raw.ssid_hex) {
            (Some(text), None) => (text.get_ref().as_bytes().to_vec(), text.span()),
            (None, Some(digits)) => {
                let bytes = decode_hex(digits.get_ref()).ok_or_else(|| {
                    self.error(
                        digits.span(),
                        "ssid-hex is not pairs of hexadecimal digits",
                        "for example: ssid-hex = \"686f6d65\"",
                    )
                })?;
                (bytes, digits.span())
            }
            (Some(_), Some(digits)) => {
                return Err(self.error(
                    digits.span(),
                    "the network has two names",
                    "give ssid or ssid-hex",
                ));
            }
            (None, None) => return Err(self.error(span.clone(), "the network has no name", hint)),
        };
        self.hinted(Ssid::new(bytes), span, hint)
    }

    fn security(&self, raw: RawNetwork, span: &Span) -> Result<Security, SiteConfigError> {
        let protocol = match &raw.security {
            Some(given) => *given.get_ref(),
            None if raw.psk.is_none() && raw.psk_file.is_none() => {
                let hint =
                    "give psk-file (or psk), or say security = \"open\", \"eap-tls\" or \"peap\"";
                return Err(self.error(
                    span.clone(),
                    "nothing says how the network is secured",
                    hint,
                ));
            }
            None => Protocol::Wpa2,
        };
        self.refuse_strangers(&raw, protocol)?;
        Ok(match protocol {
            Protocol::Open => Security::Open,
            Protocol::Wpa2 => Security::Wpa2(self.psk(raw, span)?.0),
            Protocol::Wpa3 => Security::Wpa3(self.passphrase(raw, span)?),
            Protocol::Mixed => Security::Mixed(self.passphrase(raw, span)?),
            Protocol::EapTls | Protocol::Peap => {
                Security::Enterprise(Box::new(self.enterprise(raw, protocol, span)?))
            }
        })
    }

    /// A key that has no part in the way the network is secured is a mistake about one or the other.
    fn refuse_strangers(
        &self,
        raw: &RawNetwork,
        protocol: Protocol,
    ) -> Result<(), SiteConfigError> {
        let at = |secret: &Option<RawSecret>, file: &Option<Spanned<PathBuf>>| {
            let file = file.as_ref().map(Spanned::span);
            secret.as_ref().map(|secret| secret.0.span()).or(file)
        };
        let with_psk = matches!(protocol, Protocol::Wpa2 | Protocol::Wpa3 | Protocol::Mixed);
        let tls = protocol == Protocol::EapTls;
        let peap = protocol == Protocol::Peap;
        let rows = [
            ("psk", with_psk, at(&raw.psk, &raw.psk_file)),
            (
                "identity",
                tls || peap,
                raw.identity.as_ref().map(Spanned::span),
            ),
            (
                "anonymous-identity",
                peap,
                raw.anonymous_identity.as_ref().map(Spanned::span),
            ),
            ("password", peap, at(&raw.password, &raw.password_file)),
            ("ca", tls || peap, at(&raw.ca, &raw.ca_file)),
            (
                "server-name",
                tls || peap,
                raw.server_name.as_ref().map(Spanned::span),
            ),
            (
                "certificate",
                tls,
                at(&raw.certificate, &raw.certificate_file),
            ),
            ("key", tls, at(&raw.key, &raw.key_file)),
            (
                "key-password",
                tls,
                at(&raw.key_password, &raw.key_password_file),
            ),
        ];
        for (key, fits, span) in rows {
            if let Some(span) = span.filter(|_| !fits) {
                let what = format!("`{key}` has no part in a network that is secured so");
                return Err(self.error(span, what, "leave it out, or give another security"));
            }
        }
        Ok(())
    }

    fn psk(&self, raw: RawNetwork, span: &Span) -> Result<(Psk, Span), SiteConfigError> {
        let (bytes, at) = self.wanted("psk", raw.psk, raw.psk_file, span)?;
        let hint = "8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits";
        let psk = self.hinted(Psk::parse_line(&bytes), at.clone(), hint)?;
        Ok((psk, at))
    }

    /// WPA3 derives a key anew in each session, from what people type only.
    fn passphrase(&self, raw: RawNetwork, span: &Span) -> Result<Passphrase, SiteConfigError> {
        match self.psk(raw, span)? {
            (Psk::Passphrase(passphrase), _) => Ok(passphrase),
            (Psk::Pmk(_), at) => Err(self.error(
                at,
                "64 hexadecimal digits are a key for WPA2; WPA3 needs the passphrase",
                "give the network's passphrase, or security = \"wpa2\"",
            )),
        }
    }

    fn enterprise(
        &self,
        raw: RawNetwork,
        protocol: Protocol,
        span: &Span,
    ) -> Result<Enterprise, SiteConfigError> {
        let identity = raw.identity.as_ref().ok_or_else(|| {
            self.error(
                span.clone(),
                "the network wants an identity",
                "for example: identity = \"me@example.org\"",
            )
        })?;
        let (ca, ca_at) = self.wanted("ca", raw.ca, raw.ca_file, span)?;
        let pem = "as PEM: `openssl x509 -inform der -in FILE -out FILE.pem` makes that of the other form";
        let enterprise = Enterprise {
            identity: self.words("identity", identity)?,
            authority: self.named("ca", Certificates::parse(&ca), ca_at, pem)?,
            server_name: raw
                .server_name
                .map(|name| self.words("server-name", &name))
                .transpose()?,
            proof: if protocol == Protocol::Peap {
                let (password, at) =
                    self.wanted("password", raw.password, raw.password_file, span)?;
                Proof::Peap {
                    password: self.named(
                        "password",
                        Password::parse_line(&password),
                        at,
                        "it is one line of text",
                    )?,
                    anonymous_identity: raw
                        .anonymous_identity
                        .map(|name| self.words("anonymous-identity", &name))
                        .transpose()?,
                }
            } else {
                let (certificate, at) =
                    self.wanted("certificate", raw.certificate, raw.certificate_file, span)?;
                let certificate =
                    self.named("certificate", Certificates::parse(&certificate), at, pem)?;
                let (key, at) = self.wanted("key", raw.key, raw.key_file, span)?;
                let key = self.named(
                    "key",
                    PrivateKey::parse(&key),
                    at,
                    "as PEM: `openssl pkey` makes that of other forms",
                )?;
                let password =
                    self.given("key-password", raw.key_password, raw.key_password_file)?;
                let key_password = password.map(|(password, at)| {
                    self.named(
                        "key-password",
                        Password::parse_line(&password),
                        at,
                        "it is one line of text",
                    )
                });
                Proof::Tls {
                    certificate,
                    key,
                    key_password: key_password.transpose()?,
                }
            },
        };
        self.named(
            "key",
            enterprise.check(),
            span.clone(),
            "give key-password-file",
        )
    }

    fn address(&self, uplink: Spanned<RawUplink>) -> Result<UplinkAddress, SiteConfigError> {
        let span = uplink.span();
        let raw = uplink.into_inner();
        let alone = raw.gateway.is_none() && raw.dns.is_empty();
        match raw.address.get_ref().as_str() {
            "dhcp" if alone => Ok(UplinkAddress::Dhcp),
            "dhcp" => Err(self.error(
                span,
                "with DHCP, gateway and name servers come from the network",
                "leave gateway and dns out, or give an address",
            )),
            address => {
                let parsed = StaticAddress::parse(address, raw.gateway.as_deref(), &raw.dns);
                let hint = "for example: address = \"192.168.1.5/24\", gateway = \"192.168.1.1\", dns = [\"192.168.1.1\"]";
                self.hinted(parsed, raw.address.span(), hint)
                    .map(UplinkAddress::Static)
            }
        }
    }

    fn ssh_keys(
        &self,
        keys: Option<Spanned<Vec<String>>>,
        file: Option<Spanned<PathBuf>>,
    ) -> Result<Option<SshKeys>, SiteConfigError> {
        let (text, span) = match (keys, file) {
            (None, None) => return Ok(None),
            (Some(keys), None) => (keys.get_ref().join("\n"), keys.span()),
            (None, Some(file)) => {
                let bytes = self.read(&file)?;
                (String::from_utf8_lossy(&bytes).into_owned(), file.span())
            }
            (Some(_), Some(file)) => {
                return Err(self.error(
                    file.span(),
                    "there are keys here and in a file",
                    "give ssh-keys or ssh-keys-file",
                ));
            }
        };
        let hint = "give the public half, usually ~/.ssh/id_ed25519.pub; `ssh-keygen` makes a pair";
        self.hinted(SshKeys::parse(&text), span, hint).map(Some)
    }

    fn words(&self, key: &str, given: &Spanned<String>) -> Result<Words, SiteConfigError> {
        self.named(
            key,
            Words::parse(given.get_ref()),
            given.span(),
            "it is one line of text",
        )
    }

    /// Returns what a key or the file of its name holds, and where the file says so.
    fn given(
        &self,
        key: &str,
        value: Option<RawSecret>,
        file: Option<Spanned<PathBuf>>,
    ) -> Result<Option<(Vec<u8>, Span)>, SiteConfigError> {
        match (value, file) {
            (None, None) => Ok(None),
            (None, Some(file)) => Ok(Some((self.read(&file)?, file.span()))),
            (Some(RawSecret(value)), None) => {
                let span = value.span();
                match value.into_inner() {
                    Value::String(text) => Ok(Some((text.into_bytes(), span))),
                    _ => Err(self.error(
                        span,
                        format!("`{key}` is not text"),
                        "put it in double quotes",
                    )),
                }
            }
            (Some(_), Some(file)) => {
                let what = format!("`{key}` is given here and in a file");
                Err(self.error(file.span(), what, &format!("give {key} or {key}-file")))
            }
        }
    }

    fn wanted(
        &self,
        key: &str,
        value: Option<RawSecret>,
        file: Option<Spanned<PathBuf>>,
        span: &Span,
    ) -> Result<(Vec<u8>, Span), SiteConfigError> {
        self.given(key, value, file)?.ok_or_else(|| {
            let what = format!("the network wants `{key}`");
            self.error(
                span.clone(),
                what,
                &format!("for example: {key}-file = \"FILE\""),
            )
        })
    }

    fn read(&self, file: &Spanned<PathBuf>) -> Result<Vec<u8>, SiteConfigError> {
        (self.read)(file.get_ref()).map_err(|reason| {
            let what = format!("cannot read {}: {reason}", file.get_ref().display());
            self.error(
                file.span(),
                what,
                "check the path; it begins where this file is",
            )
        })
    }

    fn named<T>(
        &self,
        key: &str,
        parsed: Result<T, EnterpriseError>,
        span: Span,
        hint: &str,
    ) -> Result<T, SiteConfigError> {
        parsed.map_err(|error| self.error(span, format!("`{key}`: {error}"), hint))
    }

    fn hinted<T, E: std::error::Error>(
        &self,
        parsed: Result<T, E>,
        span: Span,
        hint: &str,
    ) -> Result<T, SiteConfigError> {
        parsed.map_err(|error| self.error(span, error.to_string(), hint))
    }

    fn error(&self, span: Span, what: impl Into<String>, hint: &str) -> SiteConfigError {
        SiteConfigError {
            line: line_of(self.text, Some(span)),
            what: what.into(),
            hint: hint.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    const KEY: &str =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";

    fn read(path: &Path) -> Result<Vec<u8>, String> {
        match path.to_str() {
            Some("home.psk") => Ok(b"open sesame\n".to_vec()),
            Some("ca.pem") => Ok(CERTIFICATE.into()),
            Some("key.pem") => Ok(KEY.into()),
            _ => Err("it is not there".to_owned()),
        }
    }

    fn parse(text: &str) -> Result<SiteChange, SiteConfigError> {
        parse_site_config(text, &read)
    }

    /// The example at the head of this file, so that it stays true.
    #[test]
    fn the_example_is_whole() {
        let text: String = include_str!("config.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start()))
            .collect();
        let read = |path: &Path| match path.extension().and_then(|end| end.to_str()) {
            Some("pub") => Ok(b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb0 me@desk\n".to_vec()),
            Some("pem") => Ok(CERTIFICATE.into()),
            _ => Ok(b"open sesame\n".to_vec()),
        };
        let change = parse_site_config(&text, &read).unwrap();
        expect![[r#"
            SiteChange {
                networks: Some(
                    [
                        Network {
                            ssid: Ssid(
                                [
                                    104,
                                    111,
                                    109,
                                    101,
                                ],
                            ),
                            security: Mixed(
                                <redacted>,
                            ),
                            priority: 10,
                            hidden: false,
                        },
                        Network {
                            ssid: Ssid(
                                [
                                    119,
                                    111,
                                    114,
                                    107,
                                ],
                            ),
                            security: Enterprise(
                                Enterprise {
                                    identity: Words(
                                        "me@example.org",
                                    ),
                                    authority: certificates-8010bfce.pem,
                                    server_name: Some(
                                        Words(
                                            "radius.example.org",
                                        ),
                                    ),
                                    proof: Peap {
                                        password: <redacted>,
                                        anonymous_identity: Some(
                                            Words(
                                                "anonymous@example.org",
                                            ),
                                        ),
                                    },
                                },
                            ),
                            priority: 0,
                            hidden: true,
                        },
                    ],
                ),
                country: Some(
                    CountryCode(
                        "DE",
                    ),
                ),
                hostname: Some(
                    Hostname(
                        "attic",
                    ),
                ),
                ssh_keys: Some(
                    SshKeys(
                        [
                            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb0 me@desk",
                        ],
                    ),
                ),
                address: Some(
                    Static(
                        StaticAddress {
                            address: 192.168.1.5,
                            prefix: 24,
                            gateway: Some(
                                192.168.1.1,
                            ),
                            dns: [
                                192.168.1.1,
                            ],
                        },
                    ),
                ),
                agent: AgentOptions(
                    {
                        (
                            "dhcp",
                            "mode",
                        ): Text(
                            "relay",
                        ),
                    },
                ),
            }
        "#]]
        .assert_debug_eq(&change);
    }

    #[test]
    fn errors_tell_the_line_and_no_secret() {
        let network = |keys: &str| format!("country = \"DE\"\n\n[[network]]\n{keys}");
        let tls = "ssid = \"x\"\nsecurity = \"eap-tls\"\nidentity = \"me\"\nca-file = \"ca.pem\"\ncertificate-file = \"ca.pem\"\n";
        let mut seen = String::new();
        for text in [
            "country = \"DEU\"\n".to_owned(),
            "\nhostname = \"a b\"\n".to_owned(),
            "contry = \"DE\"\n".to_owned(),
            "ssh-keys = [\"hello\"]\n".to_owned(),
            "x = \n".to_owned(),
            network("ssid = \"\"\npsk = \"open sesame\"\n"),
            network("psk = \"open sesame\"\n"),
            network("ssid = \"x\"\nssid-hex = \"78\"\npsk = \"open sesame\"\n"),
            network("ssid-hex = \"7\"\npsk = \"open sesame\"\n"),
            network("ssid = \"x\"\n"),
            network("ssid = \"x\"\npsk = 12345678\n"),
            network("ssid = \"x\"\npsk = \"secret\"\n"),
            network("ssid = \"x\"\npsk = \"open sesame\"\npsk-file = \"home.psk\"\n"),
            network("ssid = \"x\"\npsk-file = \"none.psk\"\n"),
            network("ssid = \"x\"\npsk = \"open sesame\"\nsecurity = \"wep\"\n"),
            network("ssid = \"x\"\npsk = \"open sesame\"\nsecurity = \"open\"\n"),
            network("ssid = \"x\"\npsk = \"open sesame\"\npriority = 256\n"),
            network(&format!(
                "ssid = \"x\"\npsk = \"{}\"\nsecurity = \"wpa3\"\n",
                "0".repeat(64)
            )),
            network(
                "ssid = \"x\"\nsecurity = \"peap\"\nidentity = \"me\"\npassword = \"secret\"\n",
            ),
            network(&format!("{tls}key-file = \"key.pem\"\n")),
            network(&format!("{tls}key-file = \"ca.pem\"\n")),
            "[uplink]\naddress = \"192.168.1.5\"\n".to_owned(),
            "[uplink]\naddress = \"dhcp\"\ngateway = \"192.168.1.1\"\n".to_owned(),
            "[agent.dhcp]\nmood = \"relay\"\n".to_owned(),
        ] {
            let error = parse(&text).unwrap_err();
            seen.push_str(&format!("{error}\n    {}\n", error.hint));
        }
        for secret in ["secret", "sesame", "12345678", "00000000"] {
            assert!(!seen.contains(secret), "{seen}");
        }
        expect![[r#"
            line 1: `DEU` is no country code; it has two letters, such as DE or US (ISO 3166-1)
                for example: country = "DE"
            line 2: `a b` is no host name; it has 1 to 63 letters, digits and hyphens, and no hyphen at either end
                for example: hostname = "attic"
            line 1: unknown field `contry`, expected one of `country`, `hostname`, `ssh-keys`, `ssh-keys-file`, `network`, `uplink`, `agent`
                the book shows a whole site.toml (docs/src/configuration.md)
            line 1: line 1 is no SSH public key; it would begin with ssh-ed25519, ecdsa-sha2-nistp256 or ssh-rsa
                give the public half, usually ~/.ssh/id_ed25519.pub; `ssh-keygen` makes a pair
            line 1: string values must be quoted, expected literal string
                the book shows a whole site.toml (docs/src/configuration.md)
            line 4: the network name is empty; an SSID has 1 to 32 bytes
                for example: ssid = "home"
            line 3: the network has no name
                for example: ssid = "home"
            line 5: the network has two names
                give ssid or ssid-hex
            line 4: ssid-hex is not pairs of hexadecimal digits
                for example: ssid-hex = "686f6d65"
            line 3: nothing says how the network is secured
                give psk-file (or psk), or say security = "open", "eap-tls" or "peap"
            line 5: `psk` is not text
                put it in double quotes
            line 5: the passphrase has 6 characters; Wi-Fi wants 8 to 63
                8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits
            line 6: `psk` is given here and in a file
                give psk or psk-file
            line 5: cannot read none.psk: it is not there
                check the path; it begins where this file is
            line 6: unknown variant `wep`, expected one of `open`, `wpa2`, `wpa3`, `mixed`, `eap-tls`, `peap`
                the book shows a whole site.toml (docs/src/configuration.md)
            line 5: `psk` has no part in a network that is secured so
                leave it out, or give another security
            line 6: a priority of 256 is not possible
                give a number from 0 to 255; the highest in reach is joined
            line 5: 64 hexadecimal digits are a key for WPA2; WPA3 needs the passphrase
                give the network's passphrase, or security = "wpa2"
            line 3: the network wants `ca`
                for example: ca-file = "FILE"
            line 3: `key`: the private key is encrypted, and there is no password for it
                give key-password-file
            line 9: `key`: there is no private key in PEM form (-----BEGIN PRIVATE KEY-----)
                as PEM: `openssl pkey` makes that of other forms
            line 2: `192.168.1.5` is no address with the length of its network, at most 30, such as 192.168.1.5/24
                for example: address = "192.168.1.5/24", gateway = "192.168.1.1", dns = ["192.168.1.1"]
            line 1: with DHCP, gateway and name servers come from the network
                leave gateway and dns out, or give an address
            line 1: the bridge has no setting `dhcp.mood`
                did you mean `dhcp.mode`?
        "#]].assert_eq(&seen);
    }
}
