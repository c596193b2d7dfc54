//! What may stand behind the names of wpa_supplicant.conf: for each kind of value, whether wpa_supplicant takes it, and what to tell where
//! it does not.
//!
//! Each is read as wpa_supplicant reads it (2.10, `wpa_supplicant/config.c`, `src/utils/common.c`), oddities included, for what it takes is
//! not for us to refuse. Of settings outside of networks, where no more than a line is lost, some that nobody has a use for are read more
//! strictly. No value is ever told.

use std::net::Ipv4Addr;
use std::str;

/// A kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything.
    Any,
    /// Characters as they are, of so many bytes.
    Line {
        least: usize,
        most: usize,
    },
    /// Text in double quotes, in `P"..."` with escapes as in printf(3), or as hexadecimal digits. `NULL` takes an earlier one back.
    Text {
        most: usize,
    },
    /// The same without `NULL`.
    Bytes {
        least: usize,
        most: usize,
    },
    /// The same without line ends in it.
    TextOfLine,
    /// A network's name.
    Name,
    /// A passphrase in double quotes, or a key of 64 hexadecimal digits.
    Psk,
    /// A password or its hash.
    Password,
    /// A credential's password, or where to find it.
    CredentialPassword,
    WepKey,
    /// A number, decimal, octal or hexadecimal.
    Integer,
    /// The same between two limits. A lower one of 0 is none to wpa_supplicant.
    Number(i64, i64),
    /// One or more of these words.
    Words(&'static [&'static str]),
    /// Any number of these words.
    WordsOrNone(&'static [&'static str]),
    /// One of these words.
    Word(&'static [&'static str]),
    /// So many bytes, in hexadecimal.
    Hex(&'static [usize]),
    /// Bytes in hexadecimal, from so many to so many.
    HexOf {
        least: usize,
        most: usize,
    },
    /// A hardware address, `any`, or nothing.
    Address,
    /// Hardware addresses with blanks between them, each with a mask or without.
    Addresses,
    /// Hardware addresses without masks, of which the first is read strictly.
    FirstAddress,
    /// A hardware address with any separators.
    HardwareAddress,
    /// A station's hardware address and its key.
    StationPsk,
    /// A credential's list of organisations.
    Consortiums,
    /// A credential's partner: a name, how to compare it, a priority and a country.
    RoamingPartner,
    /// Two letters.
    Country,
    /// Where the control socket is.
    ControlInterface,
    /// Ciphers in OpenSSL's notation.
    Ciphers,
    /// How to take part in WPS.
    ConfigMethods,
    /// A library that OpenSSL loads.
    Engine,
    Uuid,
    DeviceType,
    Ipv4,
    /// Pairs of operating class and channel.
    Channels,
}

pub(super) const LINE: Kind = Kind::Line {
    least: 0,
    most: usize::MAX,
};
pub(super) const TEXT: Kind = Kind::Text { most: usize::MAX };
pub(super) const TEXT_OF_LINE: Kind = Kind::TextOfLine;
pub(super) const ADDRESSES: Kind = Kind::Addresses;
pub(super) const HEX_ANY: Kind = Kind::HexOf {
    least: 0,
    most: usize::MAX,
};
pub(super) const HEX_SOME: Kind = Kind::HexOf {
    least: 1,
    most: usize::MAX,
};
/// The name of a key of MACsec.
pub(super) const HEX_NAME: Kind = Kind::HexOf { least: 1, most: 32 };

/// The directory of the control socket, the only one that wpa_supplicant may write to on the device.
pub(super) const CONTROL_DIRECTORY: &str = "/run/wpa_supplicant";

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) next: Next,
}

/// What to do about it.
#[derive(Debug)]
pub(super) enum Next {
    Said(String),
    /// Write the setting that was meant by this word, one of the table.
    Meant(String, &'static [(&'static str, Kind)]),
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, next: impl Into<String>) -> Wrong {
        Wrong {
            what: what.into(),
            next: Next::Said(next.into()),
        }
    }
}

/// Says what is wrong with the value of a setting, if wpa_supplicant does not take it.
pub(super) fn check_value(key: &str, kind: Kind, value: &[u8]) -> Result<(), Wrong> {
    let no = |what: &str, next: &str| Err(Wrong::new(what.replace("{key}", key), next));
    let when = |fits: bool, what: &str, next: &str| match fits {
        true => Ok(()),
        false => no(what, next),
    };
    match kind {
        Kind::Any => Ok(()),
        Kind::Line { least, most } => when(
            (least..=most).contains(&value.len()) && !value.contains(&b'\r'),
            "the value of `{key}` is too short or too long, or has a carriage return in it",
            "see wpa_supplicant.conf(5)",
        ),
        Kind::Text { most } => check_text(key, value, most),
        Kind::Bytes { least, most } => check_bytes(key, value, least, most),
        Kind::TextOfLine => {
            let text = parse_text(value).map_err(|fault| fault.wrong(key))?;
            when(
                !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')),
                "the value of `{key}` has a line end in it",
                "take it out",
            )
        }
        Kind::Name => check_name(value),
        Kind::Psk => check_psk(value),
        Kind::Password => check_password(key, value),
        Kind::CredentialPassword if value.starts_with(b"ext:") => Ok(()),
        Kind::CredentialPassword => check_value(key, Kind::TextOfLine, value),
        Kind::WepKey => {
            let text = parse_text(value).map_err(|fault| fault.wrong(key))?;
            when(
                text.len() <= 16,
                "the key of `{key}` has more than 16 bytes",
                "write it as the access point has it",
            )
        }
        Kind::Integer => when(
            parse_number(value).is_some(),
            "`{key}` is no number",
            "correct the number",
        ),
        Kind::Number(least, most) => {
            let above = |number| least == 0 || number >= least;
            let fits = parse_number(value).is_some_and(|number| above(number) && number <= most);
            let what = format!("`{{key}}` is no number from {least} to {most}");
            when(fits, &what, "correct the number")
        }
        Kind::Words(known) => check_words(key, value, known, 1),
        Kind::WordsOrNone(known) => check_words(key, value, known, 0),
        Kind::Word(known) => when(
            known.iter().any(|word| word.as_bytes() == value),
            "`{key}` has a value that there is not",
            "see wpa_supplicant.conf(5)",
        ),
        Kind::Hex(sizes) => when(
            from_hex(value).is_some_and(|bytes| sizes.contains(&bytes.len())),
            "`{key}` is not as many hexadecimal digits as it has to be",
            "see wpa_supplicant.conf(5)",
        ),
        Kind::HexOf { least, most } => when(
            from_hex(value).is_some_and(|bytes| (least..=most).contains(&bytes.len())),
            "`{key}` is not as many hexadecimal digits as it has to be",
            "see wpa_supplicant.conf(5)",
        ),
        Kind::Address => when(
            matches!(value, b"" | b"\"\"" | b"any") || after_address(value).is_some(),
            "`{key}` is no hardware address",
            AN_ADDRESS,
        ),
        Kind::Addresses => when(
            words(value).all(is_masked_address),
            "`{key}` holds something that is no hardware address",
            AN_ADDRESS,
        ),
        Kind::FirstAddress => when(
            words(value).next().is_none_or(is_whole_address),
            "`{key}` holds something that is no hardware address",
            AN_ADDRESS,
        ),
        Kind::HardwareAddress => when(
            is_separated_address(value),
            "`{key}` is no hardware address",
            AN_ADDRESS,
        ),
        Kind::StationPsk => when(
            is_station_psk(value),
            "`{key}` is no hardware address with a hyphen and a key of 64 hexadecimal digits behind it",
            "see wpa_supplicant.conf(5)",
        ),
        Kind::Consortiums => {
            let text = parse_text(value).map_err(|fault| fault.wrong(key))?;
            when(
                are_consortiums(&text),
                "`{key}` is no list of identifiers of 1 to 15 bytes in hexadecimal",
                "see wpa_supplicant.conf(5)",
            )
        }
        Kind::RoamingPartner => {
            let text = parse_text(value).map_err(|fault| fault.wrong(key))?;
            when(
                is_partner(&text),
                "`{key}` is not a name, 0 or 1, a priority and a country, with commas between them",
                "see wpa_supplicant.conf(5)",
            )
        }
        // It reads the first two letters of anything, and a country that is another one is worse than none.
        Kind::Country => when(
            value.len() == 2 && value.iter().all(u8::is_ascii_alphabetic),
            "the country is not two letters",
            "write its code of ISO 3166, such as `country=DE`",
        ),
        Kind::ControlInterface => when(
            is_control_interface(value),
            "wpa_supplicant can have its control socket in /run/wpa_supplicant alone",
            "write `ctrl_interface=/run/wpa_supplicant`",
        ),
        Kind::Ciphers => when(
            are_ciphers(value),
            "`{key}` names no ciphers that are known here, and without any nothing is encrypted",
            "write them behind `DEFAULT`, such as `DEFAULT@SECLEVEL=1`",
        ),
        Kind::ConfigMethods => when(
            !(has(value, "label") && has(value, "display")),
            "`{key}` cannot have both `label` and `display`",
            "delete one of them",
        ),
        Kind::Engine => no(
            "`{key}` names a library that the image does not have",
            "delete the line",
        ),
        Kind::Uuid => when(
            is_uuid(value),
            "`{key}` is no UUID",
            "write it as 12345678-9abc-def0-1234-56789abcdef0",
        ),
        Kind::DeviceType => when(
            is_device_type(value),
            "`{key}` is not category, OUI and subcategory",
            "write it as 1-0050F204-1",
        ),
        Kind::Ipv4 => when(
            str::from_utf8(value).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok()),
            "`{key}` is no IPv4 address",
            "write it as 192.168.42.1",
        ),
        Kind::Channels => when(
            are_channels(value),
            "`{key}` is no list of operating classes and channels",
            "write it as 81:1,115:36",
        ),
    }
}

/// Why a value is not text.
pub(super) enum TextFault {
    NotClosed,
    BehindQuote,
    NotQuoted,
}

impl TextFault {
    pub(super) fn wrong(&self, key: &str) -> Wrong {
        match self {
            TextFault::NotClosed => Wrong::new(
                format!("the value of `{key}` has no closing quotation mark"),
                "put it in double quotes, on one line",
            ),
            TextFault::BehindQuote => Wrong::new(
                format!("there is something behind the closing quotation mark of `{key}`"),
                "delete it",
            ),
            TextFault::NotQuoted => Wrong::new(
                format!("the value of `{key}` is neither in quotation marks nor hexadecimal"),
                "put it in double quotes",
            ),
        }
    }
}

/// Parses text: in double quotes, to the last of them, with escapes behind a `P`, or its bytes as hexadecimal digits.
pub(super) fn parse_text(value: &[u8]) -> Result<Vec<u8>, TextFault> {
    if let Some(rest) = value.strip_prefix(b"P\"") {
        return Ok(unescape(quoted(rest)?));
    }
    match value.strip_prefix(b"\"") {
        Some(rest) => Ok(quoted(rest)?.to_vec()),
        None => from_hex(value).ok_or(TextFault::NotQuoted),
    }
}

/// Returns what is before the closing quotation mark, which nothing follows.
fn quoted(rest: &[u8]) -> Result<&[u8], TextFault> {
    match rest.iter().rposition(|byte| *byte == b'"') {
        None => Err(TextFault::NotClosed),
        Some(end) if end + 1 < rest.len() => Err(TextFault::BehindQuote),
        Some(end) => Ok(&rest[..end]),
    }
}

/// Decodes escapes as `printf_decode` does. A backslash before anything else is dropped.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let Some((&escape, behind)) = rest.split_first() else {
            break;
        };
        let (digits, radix, most) = match escape {
            b'x' => (behind, 16, 2),
            b'0'..=b'7' => (rest, 8, 3),
            b'\\' | b'"' | b'n' | b'r' | b't' | b'e' => {
                rest = behind;
                bytes.push(match escape {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'e' => 0x1b,
                    other => other,
                });
                continue;
            }
            _ => continue,
        };
        let digit = |byte: &u8| (*byte as char).to_digit(radix);
        let values: Vec<u32> = digits.iter().map_while(digit).take(most).collect();
        rest = &digits[values.len()..];
        if !values.is_empty() {
            let value = values.iter().fold(0, |value, digit| value * radix + digit);
            bytes.push(value as u8);
        }
    }
    bytes
}

/// Returns the bytes of hexadecimal digits.
pub(in crate::site) fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |digit: &u8| (*digit as char).to_digit(16).map(|digit| digit as u8);
    let digits: Vec<u8> = text.iter().map(digit).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| (high << 4) | low).collect())
}

fn check_text(key: &str, value: &[u8], most: usize) -> Result<(), Wrong> {
    match value {
        b"NULL" => Ok(()),
        _ => check_bytes(key, value, 0, most),
    }
}

fn check_bytes(key: &str, value: &[u8], least: usize, most: usize) -> Result<(), Wrong> {
    let text = parse_text(value).map_err(|fault| fault.wrong(key))?;
    let length = text.len();
    match (least..=most).contains(&length) {
        true => Ok(()),
        false => Err(Wrong::new(
            format!("the value of `{key}` has {length} bytes, not {least} to {most}"),
            "correct it",
        )),
    }
}

fn check_name(value: &[u8]) -> Result<(), Wrong> {
    let name = parse_text(value).map_err(|fault| fault.wrong("ssid"))?;
    match (1..=32).contains(&name.len()) {
        true => Ok(()),
        false => Err(Wrong::new(
            format!("the network's name has {} bytes, not 1 to 32", name.len()),
            "write it as the access point has it",
        )),
    }
}

/// Returns what a value of `psk=` in double quotes has before the last of them; what is behind that is passed over.
pub(super) fn passphrase(value: &[u8]) -> Option<&[u8]> {
    let rest = value.strip_prefix(b"\"")?;
    let end = rest.iter().rposition(|byte| *byte == b'"')?;
    Some(&rest[..end])
}

fn check_psk(value: &[u8]) -> Result<(), Wrong> {
    const NEXT: &str = "write it as the access point has it";
    if value.starts_with(b"\"") {
        let Some(passphrase) = passphrase(value) else {
            return Err(TextFault::NotClosed.wrong("psk"));
        };
        let length = passphrase.len();
        if !(8..=63).contains(&length) {
            let what = format!("the passphrase has {length} bytes, not 8 to 63");
            return Err(Wrong::new(what, NEXT));
        }
        if passphrase.iter().any(|byte| *byte < b' ') {
            let what = "the passphrase has a tab or another control character in it";
            return Err(Wrong::new(what, NEXT));
        }
        return Ok(());
    }
    match from_hex(value).is_some_and(|key| key.len() == 32) {
        true => Ok(()),
        false => Err(Wrong::new(
            "the key is neither a passphrase in double quotes nor 64 hexadecimal digits",
            "put the passphrase in double quotes",
        )),
    }
}

fn check_password(key: &str, value: &[u8]) -> Result<(), Wrong> {
    match value.strip_prefix(b"hash:") {
        Some(hash) if from_hex(hash).is_some_and(|hash| hash.len() == 16) => Ok(()),
        Some(_) => Err(Wrong::new(
            format!("the hash of `{key}` is not 32 hexadecimal digits"),
            "write the NT hash of the password behind `hash:`, or the password in double quotes",
        )),
        None => check_text(key, value, usize::MAX),
    }
}

/// Reads a number as strtol(3) does with a base of 0: nothing is 0.
pub(super) fn parse_number(value: &[u8]) -> Option<i64> {
    let text = str::from_utf8(value).ok()?;
    let text = text.trim_start_matches([' ', '\t', '\r', '\u{b}', '\u{c}']);
    if value.is_empty() {
        return Some(0);
    }
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if lower.len() > 1 && lower.starts_with('0') => (lower.as_str(), 8),
        None => (lower.as_str(), 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    // What is too large for 64 bits is the largest.
    let number = i64::from_str_radix(digits, radix).unwrap_or(i64::MAX);
    Some(if negative { -number } else { number })
}

/// Words have blanks and tabs between them.
pub(super) fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = value.split(|byte| matches!(byte, b' ' | b'\t'));
    words.filter(|word| !word.is_empty())
}

fn check_words(key: &str, value: &[u8], known: &[&str], least: usize) -> Result<(), Wrong> {
    let is_known = |word: &[u8]| known.iter().any(|known| known.as_bytes() == word);
    if words(value).all(is_known) && words(value).count() >= least {
        return Ok(());
    }
    Err(match key {
        "key_mgmt" => Wrong::new(
            "`key_mgmt` names a way to agree on keys that there is not",
            "write WPA-PSK, SAE, both, WPA-EAP, or NONE for an open network",
        ),
        "proto" => Wrong::new(
            "`proto` names a version that there is not",
            "write RSN, which WPA3 is as well, or delete the line",
        ),
        _ => {
            // A list of all would be no help.
            let first: Vec<&str> = known.iter().copied().take(4).collect();
            Wrong::new(
                format!("`{key}` has a value that there is not"),
                format!(
                    "write one or more of {} ...; without the line all usual ones are tried",
                    first.join(", ")
                ),
            )
        }
    })
}

const AN_ADDRESS: &str = "write it as 00:11:22:33:44:55";

/// Returns what is behind a hardware address.
fn after_address(text: &[u8]) -> Option<&[u8]> {
    const LENGTH: usize = "00:11:22:33:44:55".len();
    let (address, rest) = text.split_at_checked(LENGTH)?;
    let mut parts = address.split(|byte| *byte == b':');
    let fits = address.len() == LENGTH
        && parts.clone().count() == 6
        && parts.all(|part| part.len() == 2 && from_hex(part).is_some());
    fits.then_some(rest)
}

fn is_whole_address(word: &[u8]) -> bool {
    after_address(word).is_some_and(|rest| rest.is_empty() || rest[0].is_ascii_whitespace())
}

/// What is behind a mask is passed over.
fn is_masked_address(word: &[u8]) -> bool {
    let mask = after_address(word).and_then(|rest| rest.strip_prefix(b"/"));
    is_whole_address(word) || mask.is_some_and(|mask| after_address(mask).is_some())
}

fn is_separated_address(value: &[u8]) -> bool {
    let parts: Vec<&[u8]> = value
        .split(|byte| matches!(byte, b':' | b'.' | b'-'))
        .collect();
    let is_pair = |part: &&[u8]| part.len() == 2 && from_hex(part).is_some();
    parts.len() == 6 && parts.iter().all(is_pair)
}

fn is_station_psk(value: &[u8]) -> bool {
    let address = value.strip_prefix(b"P2P-").unwrap_or(value);
    let key = after_address(address).and_then(|rest| rest.strip_prefix(b"-"));
    key.and_then(from_hex).is_some_and(|key| key.len() == 32)
}

fn are_consortiums(text: &[u8]) -> bool {
    const MOST: usize = 36;
    let text = text.strip_suffix(b",").unwrap_or(text);
    let fits = |part: &[u8]| from_hex(part).is_some_and(|bytes| (1..=15).contains(&bytes.len()));
    let mut parts = text.split(|byte| *byte == b',');
    text.is_empty() || (parts.clone().count() < MOST && parts.all(fits))
}

fn is_partner(text: &[u8]) -> bool {
    let parts: Vec<&[u8]> = text.splitn(4, |byte| *byte == b',').collect();
    parts.len() == 4 && parts[0].len() < 128 && parts[3].len() < 3
}

/// The directory, as files of other systems have it too, with a group behind it or without.
fn is_control_interface(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    let directory = match text.strip_prefix("DIR=") {
        Some(rest) => rest.split_once(" GROUP=").map_or(rest, |(rest, _)| rest),
        None => &text,
    };
    let directory = directory.trim_end_matches('/');
    directory.strip_prefix("/var").unwrap_or(directory) == CONTROL_DIRECTORY
}

/// OpenSSL passes over ciphers that it does not know, and fails where none is left.
fn are_ciphers(value: &[u8]) -> bool {
    const GROUPS: [&str; 3] = ["DEFAULT", "ALL", "HIGH"];
    let Ok(text) = str::from_utf8(value) else {
        return false;
    };
    let plain = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "@=:+-!_, ".contains(c));
    let (first, level) = match text.split_once("@SECLEVEL=") {
        Some((first, level)) => (first, level),
        None => (text, "1"),
    };
    let first = first.split([':', ',', ' ', '@']).next();
    let level = level.split([':', ',', ' ']).next();
    plain
        && first.is_some_and(|first| GROUPS.contains(&first))
        && level.is_some_and(|level| ["0", "1", "2", "3"].contains(&level))
        && !text.contains("!ALL")
        && !text.contains("-ALL")
}

fn has(value: &[u8], word: &str) -> bool {
    value
        .windows(word.len())
        .any(|window| window == word.as_bytes())
}

fn is_uuid(value: &[u8]) -> bool {
    let parts = value.split(|byte| *byte == b'-');
    let lengths = parts.map(|part| from_hex(part).map(|bytes| bytes.len()));
    lengths.eq([4, 2, 2, 2, 6].map(Some))
}

fn is_device_type(value: &[u8]) -> bool {
    let parts: Vec<&[u8]> = value.split(|byte| *byte == b'-').collect();
    let is_number = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    matches!(*parts, [category, oui, sub]
        if is_number(category) && is_number(sub) && from_hex(oui).is_some_and(|oui| oui.len() == 4))
}

fn are_channels(value: &[u8]) -> bool {
    let is_pair = |pair: &[u8]| {
        let parts: Vec<&[u8]> = pair.split(|byte| *byte == b':').collect();
        let is_number = |part: &&[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        parts.len() == 2 && parts.iter().all(is_number)
    };
    value.is_empty() || value.split(|byte| *byte == b',').all(is_pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_the_bytes_that_wpa_supplicant_reads() {
        for (value, bytes) in [
            (&b"\"a\"b\""[..], Some(&b"a\"b"[..])),
            (b"\"\xe9\"", Some(b"\xe9")),
            (b"P\"\\x41\\102\\n\\e\\q\\\"\"", Some(b"AB\n\x1bq\"")),
            (b"P\"\\x4g\\xg\\\"", Some(b"\x04gg")),
            (b"6a", Some(b"j")),
            (b"", Some(b"")),
            (b"\"a", None),
            (b"\"a\"b", None),
            (b"6", None),
            (b"P\"", None),
        ] {
            let parsed = parse_text(value).ok();
            assert_eq!(parsed.as_deref(), bytes, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn numbers_are_those_of_c() {
        for (value, number) in [
            ("", Some(0)),
            ("7", Some(7)),
            (" -7", Some(-7)),
            ("+0x1F", Some(31)),
            ("010", Some(8)),
            ("08", None),
            ("0x", None),
            ("-", None),
            ("7 ", None),
            ("++7", None),
            ("99999999999999999999", Some(i64::MAX)),
        ] {
            assert_eq!(parse_number(value.as_bytes()), number, "{value:?}");
        }
    }
}
