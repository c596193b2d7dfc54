//! What a station needs for a network where a server (RADIUS) admits people or machines, each by themselves: EAP-TLS (RFC 5216) with a
//! certificate, or PEAP with MSCHAPv2 inside, which takes a password.
//!
//! Both ask for the certificate of the authority that vouches for the server. Without it, whoever calls an access point by the network's
//! name is told the password, or as good as that.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use thiserror::Error;

/// How one member of such a network is known to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enterprise {
    /// Who asks to be let in.
    pub identity: Words,
    /// Who vouches for the server.
    pub authority: Certificates,
    /// What the server's certificate has to name, such as `radius.example.org`; any name that the authority vouches for without it.
    pub server_name: Option<Words>,
    /// How the identity is proved.
    pub proof: Proof,
}

/// How an identity is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// EAP-TLS: by a certificate and its key.
    Tls {
        /// The member's certificate, with those between it and the authority.
        certificate: Certificates,
        /// The key of the first one.
        key: PrivateKey,
        /// What opens the key, where it is encrypted.
        key_password: Option<Password>,
    },
    /// PEAP with MSCHAPv2: by a password.
    Peap {
        /// The password.
        password: Password,
        /// What is said before there is a tunnel, in place of the identity; others hear it.
        anonymous_identity: Option<Words>,
    },
}

/// A name: 1 to 253 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(String);

/// A password: 1 to 256 bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// One certificate or more, as PEM (RFC 7468).
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates(Arc<[u8]>);

/// A private key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey {
    pem: Arc<[u8]>,
    encrypted: bool,
}

/// Why something is of no use for such a network. Says nothing of what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EnterpriseError {
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// Too much.
    #[error("it has {length} bytes; at most {max} are possible")]
    TooLong {
        /// How many bytes.
        length: usize,
        /// How many there may be.
        max: usize,
    },
    /// A line end or the like.
    #[error("the character at position {0} is a control character")]
    Control(usize),
    /// No text.
    #[error("it is not text in UTF-8")]
    NotText,
    /// No certificate.
    #[error("there is no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// A key where others can read it.
    #[error("there is a private key beside the certificate; it belongs into a file of its own")]
    KeyBesideCertificate,
    /// No key.
    #[error("there is no private key in PEM form (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// The block has no end, or something other than base64 in it.
    #[error("the PEM block that begins on line {0} is not whole")]
    Broken(usize),
    /// A key that needs a password.
    #[error("the private key is encrypted, and there is no password for it")]
    KeyPassword,
}

/// Longest name, that of a network access identifier (RFC 7542, 2.2).
const WORDS_MAX: usize = 253;

/// Longest password that MSCHAPv2 takes (RFC 2759, 4): 256 characters.
const PASSWORD_MAX: usize = 256;

/// More than any chain of certificates needs.
const PEM_MAX: usize = 64 << 10;

impl Enterprise {
    /// Checks what no part can by itself: that an encrypted key can be opened.
    pub fn check(self) -> Result<Self, EnterpriseError> {
        match &self.proof {
            Proof::Tls {
                key,
                key_password: None,
                ..
            } if key.encrypted => Err(EnterpriseError::KeyPassword),
            Proof::Tls { .. } | Proof::Peap { .. } => Ok(self),
        }
    }
}

impl Words {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, EnterpriseError> {
        check_line(text, WORDS_MAX).map(|()| Self(text.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Password {
    /// Checks a password.
    pub fn parse(text: &[u8]) -> Result<Self, EnterpriseError> {
        let text = str::from_utf8(text).map_err(|_| EnterpriseError::NotText)?;
        check_line(text, PASSWORD_MAX).map(|()| Self(text.to_owned()))
    }

    /// Parses what a file or a pipe holds: the same, with one line end after it.
    pub fn parse_line(text: &[u8]) -> Result<Self, EnterpriseError> {
        let line = text.strip_suffix(b"\n").unwrap_or(text);
        Self::parse(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Returns the password. The one way out of this type: for the file that holds it, never for a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Certificates {
    /// Parses a PEM file of certificates; words between them are allowed.
    pub fn parse(pem: &[u8]) -> Result<Self, EnterpriseError> {
        let labels = pem_labels(pem)?;
        if labels.iter().any(|label| label.ends_with("PRIVATE KEY")) {
            return Err(EnterpriseError::KeyBesideCertificate);
        }
        if labels.iter().all(|label| *label != "CERTIFICATE") {
            return Err(EnterpriseError::NoCertificate);
        }
        Ok(Self(pem.into()))
    }

    /// Returns the file.
    pub fn pem(&self) -> &Arc<[u8]> {
        &self.0
    }

    /// Returns a name that no other certificates have, for a file in `site/`.
    pub fn file_name(&self, role: &str) -> String {
        named_after(role, &self.0)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file_name("certificates"))
    }
}

impl PrivateKey {
    /// Parses a PEM file with one private key.
    pub fn parse(pem: &[u8]) -> Result<Self, EnterpriseError> {
        let labels = pem_labels(pem)?;
        let label = labels.iter().find(|label| label.ends_with("PRIVATE KEY"));
        let label = label.ok_or(EnterpriseError::NoKey)?;
        // PKCS #8 says it in the label, the older forms in a header (RFC 1421, 4.6.1.1).
        let header = b"ENCRYPTED\n";
        let headed = pem.windows(header.len()).any(|window| window == header);
        Ok(Self {
            pem: pem.into(),
            encrypted: headed || *label == "ENCRYPTED PRIVATE KEY",
        })
    }

    /// Returns the file. The one way out of this type: for the file that holds it, never for a log.
    pub fn reveal_pem(&self) -> &Arc<[u8]> {
        &self.pem
    }

    /// Returns a name that no other key has, for a file in `site/`.
    pub fn file_name(&self) -> String {
        named_after("key", &self.pem)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// A card can then be given other certificates beside those in use, and change to them in one step.
fn named_after(role: &str, bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let [a, b, c, d] = [digest[0], digest[1], digest[2], digest[3]];
    format!("{role}-{a:02x}{b:02x}{c:02x}{d:02x}.pem")
}

fn check_line(text: &str, max: usize) -> Result<(), EnterpriseError> {
    if text.is_empty() {
        return Err(EnterpriseError::Empty);
    }
    if text.len() > max {
        let length = text.len();
        return Err(EnterpriseError::TooLong { length, max });
    }
    match text.chars().position(char::is_control) {
        Some(at) => Err(EnterpriseError::Control(at + 1)),
        None => Ok(()),
    }
}

/// Returns the label of every PEM block.
fn pem_labels(pem: &[u8]) -> Result<Vec<&str>, EnterpriseError> {
    if pem.len() > PEM_MAX {
        let (length, max) = (pem.len(), PEM_MAX);
        return Err(EnterpriseError::TooLong { length, max });
    }
    let text = str::from_utf8(pem).map_err(|_| EnterpriseError::NotText)?;
    let mut labels = Vec::new();
    let mut open: Option<(&str, usize)> = None;
    for (index, line) in text.lines().map(str::trim_end).enumerate() {
        let number = index + 1;
        let begins = line
            .strip_prefix("-----BEGIN ")
            .and_then(|rest| rest.strip_suffix("-----"));
        match (open, begins) {
            (None, None) => {}
            (None, Some(label)) => open = Some((label, number)),
            (Some((_, begin)), Some(_)) => return Err(EnterpriseError::Broken(begin)),
            (Some((label, begin)), None) => {
                if line
                    .strip_prefix("-----END ")
                    .and_then(|rest| rest.strip_suffix("-----"))
                    == Some(label)
                {
                    labels.push(label);
                    open = None;
                } else if !is_pem_line(line) {
                    return Err(EnterpriseError::Broken(begin));
                }
            }
        }
    }
    match open {
        Some((_, begin)) => Err(EnterpriseError::Broken(begin)),
        None => Ok(labels),
    }
}

/// Base64, or a header of the older forms.
fn is_pem_line(line: &str) -> bool {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    line.bytes().all(base64) || line.contains(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\r\nMIIB\r\n-----END PRIVATE KEY-----\r\n";

    #[test]
    fn certificates_come_without_keys() {
        let chain = format!("subject: me\n{CERTIFICATE}{CERTIFICATE}");
        let both = format!("{CERTIFICATE}{KEY}");
        for (pem, want) in [
            (CERTIFICATE, None),
            (&chain, None),
            (&both, Some(EnterpriseError::KeyBesideCertificate)),
            (KEY, Some(EnterpriseError::KeyBesideCertificate)),
            ("", Some(EnterpriseError::NoCertificate)),
            ("hello", Some(EnterpriseError::NoCertificate)),
            (&CERTIFICATE[..40], Some(EnterpriseError::Broken(1))),
            (
                &CERTIFICATE.replace("MIIB", "MI-B"),
                Some(EnterpriseError::Broken(1)),
            ),
        ] {
            assert_eq!(Certificates::parse(pem.as_bytes()).err(), want, "{pem}");
        }
        assert_eq!(
            Certificates::parse(b"\xff").err(),
            Some(EnterpriseError::NotText)
        );
    }

    #[test]
    fn keys_say_whether_they_are_encrypted() {
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n";
        for (pem, want) in [
            (KEY, Ok(false)),
            (&KEY.replace("PRIVATE", "EC PRIVATE"), Ok(false)),
            (&KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"), Ok(true)),
            (old, Ok(true)),
            (CERTIFICATE, Err(EnterpriseError::NoKey)),
        ] {
            let found = PrivateKey::parse(pem.as_bytes()).map(|key| key.encrypted);
            assert_eq!(found, want, "{pem}");
        }
    }

    #[test]
    fn passwords_are_one_line_and_never_shown() {
        for (text, want) in [
            (&b"a"[..], None),
            ("pässword \"x\" #".as_bytes(), None),
            (b"", Some(EnterpriseError::Empty)),
            (b"a\nb", Some(EnterpriseError::Control(2))),
            (b"\xff", Some(EnterpriseError::NotText)),
            (
                &[b'x'; 257],
                Some(EnterpriseError::TooLong {
                    length: 257,
                    max: 256,
                }),
            ),
        ] {
            assert_eq!(Password::parse(text).err(), want);
        }
        let password = Password::parse_line(b"open sesame\r\n").unwrap();
        assert_eq!(password.reveal(), "open sesame");
        let key = PrivateKey::parse(KEY.as_bytes()).unwrap();
        assert_eq!(format!("{password:?}{key:?}"), "<redacted><redacted>");
    }
}
