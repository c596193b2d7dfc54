//! What is wrong with a block of wpa_supplicant.conf: a network, a credential or a file in base64.

use std::collections::{BTreeMap, BTreeSet};

use super::values::{
    Kind, TextFault, Wrong, check_value, parse_number, parse_text, passphrase, words,
};
use super::words::{CREDENTIAL, NETWORK};
use super::{Line, find, no_setting, setting, unknown};

/// Where wpa_supplicant finds the certificates of `site/`.
const CERTIFICATES: &[u8] = b"/etc/wpa_supplicant/";

/// How many bytes of a line of a network wpa_supplicant reads.
const LONGEST_OF_NETWORK: usize = 1999;
/// The same in other blocks.
const LONGEST_OF_OTHER: usize = 255;

/// Settings that are a key, or lead to one. A network without any of them is open, or cannot be joined.
const KEYS: &[&str] = &[
    "dpp_connector",
    "eap",
    "identity",
    "mem_only_psk",
    "password",
    "private_key",
    "psk",
    "psk_list",
    "sae_password",
];

/// A line's number and what is wrong with it.
pub(super) type WrongLine = (usize, Wrong);

/// Returns what is wrong with a network, whose first line is `first`.
pub(super) fn check_network(
    first: &Line<'_>,
    inner: &[Line<'_>],
    certificates: &BTreeSet<&str>,
) -> Vec<WrongLine> {
    let mut wrongs = Vec::new();
    let mut network = Network::default();
    for line in inner {
        let checked = line
            .read(LONGEST_OF_NETWORK)
            .and_then(|content| match content {
                None => Ok(()),
                Some(content) => {
                    let (key, value) = setting(content).ok_or_else(no_setting)?;
                    let (name, kind) = find(NETWORK, key).ok_or_else(|| {
                        unknown("a network has no setting of this name", key, NETWORK)
                    })?;
                    network.take(line.number, name, value);
                    check_of_block(name, kind, value)?;
                    check_certificate(kind, value, certificates)
                }
            });
        wrongs.extend(checked.err().map(|wrong| (line.number, wrong)));
    }
    if wrongs.is_empty() {
        wrongs.extend(network.wrong(first.number));
    }
    wrongs
}

/// Says what is wrong with a value inside of a block.
fn check_of_block(name: &str, kind: Kind, value: &[u8]) -> Result<(), Wrong> {
    const TYPOGRAPHIC: [&str; 5] = ["\u{201c}", "\u{201d}", "\u{201e}", "\u{ab}", "\u{bb}"];
    if TYPOGRAPHIC
        .iter()
        .any(|mark| value.starts_with(mark.as_bytes()))
    {
        return Err(Wrong::new(
            format!("the value of `{name}` is in typographic quotation marks"),
            "use straight ones: \"",
        ));
    }
    // Whatever the setting is.
    if value.starts_with(b"\"") && !value[1..].contains(&b'"') {
        return Err(TextFault::NotClosed.wrong(name));
    }
    check_value(name, kind, value)
}

/// What a network says as a whole: its settings by name, with their lines, the last one of each.
#[derive(Default)]
struct Network<'a> {
    settings: BTreeMap<&'static str, (usize, &'a [u8])>,
}

impl<'a> Network<'a> {
    fn take(&mut self, line: usize, name: &'static str, value: &'a [u8]) {
        // Operating channel validation has frames protected, unless a later line forbids it.
        if name == "ocv" {
            self.settings.remove("ieee80211w");
        }
        match value {
            b"NULL" => self.settings.remove(name),
            _ => self.settings.insert(name, (line, value)),
        };
    }

    fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.settings.get(name).map(|(_, value)| *value)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.value(name).and_then(parse_number)
    }

    /// Returns what is wrong with settings that are each good.
    fn wrong(&self, first: usize) -> Option<WrongLine> {
        let of_network = |what: &str, next: &str| Some((first, Wrong::new(what, next)));
        let at = |name: &str, what: &str, next: &str| {
            let line = self.settings.get(name).map_or(first, |(line, _)| *line);
            Some((line, Wrong::new(what, next)))
        };
        let ways: Vec<&[u8]> = match self.value("key_mgmt") {
            Some(ways) => words(ways).collect(),
            // Where nothing is said of them.
            None => vec![b"WPA-PSK", b"WPA-EAP"],
        };
        let all_are = |known: &[&str]| {
            ways.iter()
                .all(|way| known.iter().any(|known| known.as_bytes() == *way))
        };
        // Without a name it is any open one, or that of one access point.
        let has_name = ["ssid", "bssid"]
            .iter()
            .any(|name| self.settings.contains_key(*name));
        if !has_name && !all_are(&["NONE"]) {
            return of_network(
                "the network that begins here has no name",
                "add `ssid=\"name\"`",
            );
        }
        if self.number("mode") == Some(5) && !(all_are(&["NONE"]) || all_are(&["SAE"])) {
            return at(
                "mode",
                "a mesh is open or has WPA3's keys, and `key_mgmt` says otherwise",
                "write `key_mgmt=SAE` or `key_mgmt=NONE`, or delete `mode` to join an access point",
            );
        }
        if self.number("ocv") == Some(1) && self.number("ieee80211w") == Some(0) {
            return at(
                "ieee80211w",
                "`ocv` needs protected frames, which `ieee80211w` forbids",
                "delete one of the two",
            );
        }
        if all_are(&["SAE", "FT-SAE"]) && !self.settings.contains_key("sae_password") {
            return match self.value("psk") {
                None => of_network(
                    "the network that begins here has no key",
                    "add `psk=\"passphrase\"`",
                ),
                Some(psk) if passphrase(psk).is_none() => at(
                    "psk",
                    "WPA3 works with the passphrase itself, and this is none",
                    "write the passphrase in double quotes, or `key_mgmt=WPA-PSK` if the access point has WPA2 too",
                ),
                Some(_) => None,
            };
        }
        let needs_key = !ways
            .iter()
            .any(|way| [&b"NONE"[..], b"WPS", b"OWE", b"DPP"].contains(way));
        if needs_key && !KEYS.iter().any(|key| self.settings.contains_key(key)) {
            return of_network(
                "the network that begins here has no key",
                "add `psk=\"passphrase\"`, or `key_mgmt=NONE` if it is open",
            );
        }
        None
    }
}

fn check_certificate(kind: Kind, value: &[u8], certificates: &BTreeSet<&str>) -> Result<(), Wrong> {
    let Kind::Text { .. } = kind else {
        return Ok(());
    };
    let text = parse_text(value).unwrap_or_default();
    let there = match text.strip_prefix(CERTIFICATES) {
        Some(name) => certificates.iter().any(|there| there.as_bytes() == name),
        None => true,
    };
    match there {
        true => Ok(()),
        false => Err(Wrong::new(
            "a certificate or key that it names is not in site/",
            "copy the .pem file into site/, with the name that is written here",
        )),
    }
}

pub(super) fn check_credential(inner: &[Line<'_>]) -> Vec<WrongLine> {
    let check = |line: &Line<'_>| {
        let Some(content) = line.read(LONGEST_OF_OTHER)? else {
            return Ok(());
        };
        let (key, value) = setting(content).ok_or_else(no_setting)?;
        let (name, kind) = find(CREDENTIAL, key)
            .ok_or_else(|| unknown("a credential has no setting of this name", key, CREDENTIAL))?;
        check_of_block(name, kind, value)
    };
    let wrongs = inner.iter().filter_map(|line| {
        let wrong = check(line).err()?;
        Some((line.number, wrong))
    });
    wrongs.collect()
}

/// Its lines are put together, and what is not of base64 is passed over.
pub(super) fn check_blob(first: &Line<'_>, inner: &[Line<'_>]) -> Vec<WrongLine> {
    let mut digits = Vec::new();
    let mut wrongs = Vec::new();
    for line in inner {
        match line.read(LONGEST_OF_OTHER) {
            Ok(content) => {
                let of_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
                digits.extend(
                    content
                        .unwrap_or_default()
                        .iter()
                        .copied()
                        .filter(of_base64),
                );
            }
            Err(wrong) => wrongs.push((line.number, wrong)),
        }
    }
    digits.resize(digits.len().next_multiple_of(4), b'=');
    let padding = |block: &[u8; 4]| block.iter().filter(|byte| **byte == b'=').count();
    let last = digits
        .as_chunks::<4>()
        .0
        .iter()
        .map(padding)
        .find(|count| *count > 0);
    if wrongs.is_empty() && (digits.is_empty() || last.unwrap_or(0) > 2) {
        wrongs.push((
            first.number,
            Wrong::new(
                "what begins here is no file in base64",
                "`base64 FILE` makes it, or put the file into site/",
            ),
        ));
    }
    wrongs
}
