//! What a station needs to join a Wi-Fi network: the network's name and the key, each checked once when it is made.
//!
//! For WPA2 a passphrase becomes the 256-bit key (PMK) here, by PBKDF2 as IEEE 802.11 annex J.4 says, so that the passphrase itself never
//! reaches an image. WPA3 (SAE, IEEE 802.11 12.4) begins every session with the passphrase, so there it does. Keys and passphrases have no
//! `Display`, and their `Debug` shows nothing.

use std::fmt;

pub mod enterprise;

use enterprise::Enterprise;
use sha1::Sha1;
use thiserror::Error;

/// How often PBKDF2 hashes on the way from a passphrase to a PMK.
const PMK_ROUNDS: u32 = 4096;

/// A network name: 1 to 32 bytes of any value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssid(Vec<u8>);

/// Why bytes are no network name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SsidError {
    /// No byte at all.
    #[error("the network name is empty; an SSID has 1 to 32 bytes")]
    Empty,
    /// More bytes than an SSID element holds.
    #[error(
        "the network name has {0} bytes; an SSID has at most 32 (a letter outside ASCII takes two bytes or more)"
    )]
    TooLong(usize),
}

impl Ssid {
    /// Checks the length of a network name.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, SsidError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(SsidError::Empty),
            1..=32 => Ok(Self(bytes)),
            len => Err(SsidError::TooLong(len)),
        }
    }

    /// Returns the bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the name as hexadecimal digits, the one notation of wpa_supplicant that takes every name.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }

    /// Returns a form for people, on one line of printable ASCII.
    pub fn to_printable(&self) -> String {
        self.0.escape_ascii().to_string()
    }
}

/// How the network is secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Open,
    /// WPA2 with a pre-shared key.
    Wpa2(Psk),
    /// WPA3, with simultaneous authentication of equals (SAE) and protected management frames.
    Wpa3(Passphrase),
    /// WPA3 where the access point offers it, WPA2 where it does not.
    Mixed(Passphrase),
    /// By IEEE 802.1X: everyone proves to a server who they are. WPA2 or WPA3, whichever the access point offers.
    Enterprise(Box<Enterprise>),
}

impl Security {
    /// Returns what it is called, without its key.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Wpa2(_) => "wpa2",
            Self::Wpa3(_) => "wpa3",
            Self::Mixed(_) => "mixed",
            Self::Enterprise(_) => "enterprise",
        }
    }
}

/// A pre-shared key as a person gives it.
#[derive(Clone, PartialEq, Eq)]
pub enum Psk {
    /// 8 to 63 printable ASCII characters.
    Passphrase(Passphrase),
    /// The key itself.
    Pmk(Pmk),
}

/// Why text is no pre-shared key. Says nothing of what the text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PskError {
    /// Fewer than 8 characters.
    #[error("the passphrase has {0} characters; Wi-Fi wants 8 to 63")]
    TooShort(usize),
    /// More than 64 characters.
    #[error(
        "the passphrase has more than 64 characters; Wi-Fi wants 8 to 63, or the key itself as 64 hexadecimal digits"
    )]
    TooLong,
    /// More than one line.
    #[error("there are several lines, and a passphrase is one")]
    Lines,
    /// The byte order mark of UTF-16.
    #[error("the text is in UTF-16; a passphrase is read as ASCII or UTF-8")]
    Utf16,
    /// 64 characters, not all of them hexadecimal.
    #[error(
        "64 characters are taken for the key itself, and these are not all hexadecimal digits; a passphrase has at most 63"
    )]
    NotHex,
    /// A character outside printable ASCII.
    #[error(
        "the character at position {0} of the passphrase is not printable ASCII, which Wi-Fi wants"
    )]
    NotPrintable(usize),
}

impl Psk {
    /// Parses a passphrase of 8 to 63 characters, or a key of exactly 64 hexadecimal digits.
    pub fn parse(text: &[u8]) -> Result<Self, PskError> {
        match text.len() {
            len @ 0..8 => return Err(PskError::TooShort(len)),
            64 => return Pmk::parse_hex(text).map(Self::Pmk).ok_or(PskError::NotHex),
            65.. => return Err(PskError::TooLong),
            _ => {}
        }
        if let Some(at) = text.iter().position(|byte| !(0x20..0x7f).contains(byte)) {
            return Err(PskError::NotPrintable(at + 1));
        }
        let text = text.iter().copied().map(char::from).collect();
        Ok(Self::Passphrase(Passphrase(text)))
    }

    /// Parses what a file or a pipe holds: the same, with one line end after it, and before it the mark that some editors put there.
    pub fn parse_line(text: &[u8]) -> Result<Self, PskError> {
        if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
            return Err(PskError::Utf16);
        }
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let line = text.strip_suffix(b"\n").unwrap_or(text);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.contains(&b'\n') {
            return Err(PskError::Lines);
        }
        Self::parse(line)
    }

    /// Returns the key for a network of this name. A passphrase takes some milliseconds.
    pub fn to_pmk(&self, ssid: &Ssid) -> Pmk {
        match self {
            Self::Pmk(pmk) => pmk.clone(),
            Self::Passphrase(passphrase) => Pmk(pbkdf2::pbkdf2_hmac_array::<Sha1, 32>(
                passphrase.0.as_bytes(),
                ssid.as_bytes(),
                PMK_ROUNDS,
            )),
        }
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// A passphrase: 8 to 63 printable ASCII characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(String);

impl Passphrase {
    /// Returns the passphrase. The one way out of this type: for the file that holds it, never for a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns what a person may not have meant to be part of it.
    #[must_use]
    pub fn doubt(&self) -> Option<&'static str> {
        let text = &self.0;
        if text.starts_with('"') && text.ends_with('"') {
            Some("begins and ends with a double quote")
        } else if text.starts_with(' ') || text.ends_with(' ') {
            Some("begins or ends with a blank")
        } else {
            None
        }
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// The 256-bit key a passphrase stands for.
#[derive(Clone, PartialEq, Eq)]
pub struct Pmk([u8; 32]);

impl Pmk {
    /// Returns the key as the 64 digits wpa_supplicant reads. The one way out of this type: for the file that holds it, never for a log.
    pub fn reveal_hex(&self) -> String {
        to_hex(&self.0)
    }

    fn parse_hex(text: &[u8]) -> Option<Self> {
        let key = decode_hex(str::from_utf8(text).ok()?)?;
        key.try_into().map(Self).ok()
    }
}

impl fmt::Debug for Pmk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// The bytes that hexadecimal digits of either case stand for; two make one.
pub(crate) fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs
        .map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok())
        .collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_32_bytes_of_any_value() {
        assert_eq!(Ssid::new(""), Err(SsidError::Empty));
        assert_eq!(Ssid::new([b'x'; 33]), Err(SsidError::TooLong(33)));
        for (name, hex, printable) in [
            (&b"home"[..], "686f6d65", "home"),
            (
                "Café \"bar\" $x".as_bytes(),
                "436166c3a9202262617222202478",
                r#"Caf\xc3\xa9 \"bar\" $x"#,
            ),
            (b"\0\n\xff", "000aff", r"\x00\n\xff"),
            (&[b'x'; 32], &"78".repeat(32), &"x".repeat(32)),
        ] {
            let ssid = Ssid::new(name).unwrap();
            assert_eq!(ssid.to_hex(), hex);
            assert_eq!(ssid.to_printable(), printable);
        }
    }

    #[test]
    fn a_key_is_8_to_63_characters_or_64_digits() {
        let digits = "0123456789abcdefABCDEF9876543210".repeat(2);
        for (text, want) in [
            (&b"1234567"[..], Err(PskError::TooShort(7))),
            (b"", Err(PskError::TooShort(0))),
            (&[b'x'; 64], Err(PskError::NotHex)),
            (&[b'0'; 65], Err(PskError::TooLong)),
            (b"new\nline!", Err(PskError::NotPrintable(4))),
            ("straße 12".as_bytes(), Err(PskError::NotPrintable(5))),
            (b"12345678", Ok("passphrase")),
            (&[b'~'; 63], Ok("passphrase")),
            (digits.as_bytes(), Ok("pmk")),
        ] {
            let got = Psk::parse(text).map(|psk| match psk {
                Psk::Passphrase(_) => "passphrase",
                Psk::Pmk(_) => "pmk",
            });
            assert_eq!(got, want, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn one_line_end_after_a_key_is_not_part_of_it() {
        for file in ["password", "password\n", "password\r\n"] {
            assert_eq!(
                Psk::parse_line(file.as_bytes()),
                Ok(Psk::Passphrase(Passphrase("password".into())))
            );
        }
        assert_eq!(Psk::parse_line(b"password\n\n"), Err(PskError::Lines));
        assert_eq!(Psk::parse_line(b"password\nanother"), Err(PskError::Lines));
        // Notepad's two ways.
        assert_eq!(
            Psk::parse_line(b"\xef\xbb\xbfpassword\r\n"),
            Ok(Psk::Passphrase(Passphrase("password".into())))
        );
        assert_eq!(Psk::parse_line(b"\xff\xfep\0"), Err(PskError::Utf16));
    }

    /// The test vectors of IEEE 802.11 J.4.2.
    #[test]
    fn a_passphrase_becomes_the_key_of_the_standard() {
        for (ssid, passphrase, pmk) in [
            (
                "IEEE",
                "password",
                "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e",
            ),
            (
                "ThisIsASSID",
                "ThisIsAPassword",
                "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af",
            ),
        ] {
            let psk = Psk::parse(passphrase.as_bytes()).unwrap();
            assert_eq!(psk.to_pmk(&Ssid::new(ssid).unwrap()).reveal_hex(), pmk);
            assert_eq!(
                Psk::parse(pmk.as_bytes())
                    .unwrap()
                    .to_pmk(&Ssid::new("any").unwrap())
                    .reveal_hex(),
                pmk
            );
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let psk = Psk::parse(b"open sesame").unwrap();
        let Psk::Passphrase(passphrase) = psk.clone() else {
            panic!("a passphrase was taken for a key");
        };
        for (security, shown) in [
            (Security::Wpa2(psk), "Wpa2(<redacted>)"),
            (Security::Wpa3(passphrase.clone()), "Wpa3(<redacted>)"),
            (Security::Mixed(passphrase), "Mixed(<redacted>)"),
        ] {
            assert_eq!(format!("{security:?}"), shown);
        }
    }
}
