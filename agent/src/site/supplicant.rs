//! Checks wpa_supplicant.conf. wpa_supplicant refuses a file as a whole for one wrong line; here the network with that line is left out, or
//! the line where it is outside of any, and all others stay.
//!
//! Lines are taken the way wpa_supplicant takes them (2.10, `src/utils/config.c`, `wpa_supplicant/config_file.c`).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::fault::{Finding, LINE_LEFT_OUT};
use super::supplicant_words::{GLOBAL, KEY_MANAGEMENT, NETWORK};
use super::text;

/// Where wpa_supplicant finds the certificates of `site/`.
pub(super) const CERTIFICATES: &str = "/etc/wpa_supplicant/";

const NETWORK_LEFT_OUT: &str = "this network is left out";
const BLOCK_LEFT_OUT: &str = "it is left out";
const NO_NETWORK: &str = "no network is joined";

/// Settings whose value is text in double quotes, or its bytes in hexadecimal.
const TEXTS: &[&str] = &[
    "anonymous_identity",
    "ca_cert",
    "client_cert",
    "domain_match",
    "domain_suffix_match",
    "id_str",
    "identity",
    "phase1",
    "phase2",
    "private_key",
    "private_key_passwd",
    "sae_password",
    "subject_match",
];

/// Settings that are a number, with the least and the largest.
const NUMBERS: &[(&str, RangeInclusive<i64>)] = &[
    ("disabled", 0..=2),
    ("ieee80211w", 0..=2),
    ("mode", 0..=5),
    ("priority", i32::MIN as i64..=i32::MAX as i64),
    ("scan_ssid", 0..=1),
];
/// The same outside of networks.
const GLOBAL_NUMBERS: &[(&str, RangeInclusive<i64>)] = &[
    ("ap_scan", 0..=2),
    ("eapol_version", 1..=3),
    ("fast_reauth", 0..=1),
    ("okc", 0..=1),
    ("pmf", 0..=2),
    ("sae_pwe", 0..=3),
    ("update_config", 0..=1),
];

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

/// Returns what of the file is good, every line in its place, and what is wrong. `certificates` are the names of those that are there.
pub(super) fn check(text: &[u8], certificates: &BTreeSet<&str>) -> (Vec<u8>, Vec<Finding>) {
    let mut file = File {
        kept: Vec::with_capacity(text.len()),
        findings: Vec::new(),
        networks: 0,
        certificates,
    };
    let mut block: Option<Block<'_>> = None;
    for (number, line) in text::lines(text) {
        let line = Line::new(number, line);
        let begins = line.begins();
        block = match (block.take(), begins) {
            (Some(open), Some(begun)) => {
                file.drop_open(&open);
                Some(Block::new(begun, line))
            }
            (Some(mut open), None) => {
                let ends = line.content.as_deref() == Some("}");
                open.lines.push(line);
                if ends {
                    file.take_block(&open);
                    None
                } else {
                    Some(open)
                }
            }
            (None, Some(begun)) => Some(Block::new(begun, line)),
            (None, None) => {
                file.take_global(&line);
                None
            }
        };
    }
    if let Some(open) = &block {
        file.drop_open(open);
    }
    if file.networks == 0 && file.findings.is_empty() {
        file.findings.push(Finding::of_file(
            "it has no network={ ... }",
            NO_NETWORK,
            "add a network: a line `network={`, its settings, and a line `}`",
        ));
    }
    (file.kept, file.findings)
}

struct File<'a> {
    kept: Vec<u8>,
    findings: Vec<Finding>,
    networks: usize,
    certificates: &'a BTreeSet<&'a str>,
}

/// A line as it is, and what wpa_supplicant makes of it.
struct Line<'a> {
    number: usize,
    bytes: &'a [u8],
    /// Without blanks around it and without a comment; nothing where that is all.
    content: Option<Cow<'a, str>>,
}

/// What a line begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    Network,
    /// A network by the looks of it, but not for wpa_supplicant.
    Misspelt,
    /// Credentials for hotspots, or a file in base64.
    Other,
}

struct Block<'a> {
    begun: Begun,
    lines: Vec<Line<'a>>,
}

impl<'a> Block<'a> {
    fn new(begun: Begun, line: Line<'a>) -> Block<'a> {
        Block {
            begun,
            lines: vec![line],
        }
    }
}

impl<'a> Line<'a> {
    fn new(number: usize, bytes: &'a [u8]) -> Line<'a> {
        let content = match String::from_utf8_lossy(bytes) {
            Cow::Borrowed(text) => content(text).map(Cow::Borrowed),
            Cow::Owned(text) => content(&text).map(|text| Cow::Owned(text.to_owned())),
        };
        Line {
            number,
            bytes,
            content,
        }
    }

    fn begins(&self) -> Option<Begun> {
        let content = self.content.as_deref()?;
        if content == "network={" {
            return Some(Begun::Network);
        }
        if content == "cred={" || (content.starts_with("blob-base64-") && content.ends_with("={")) {
            return Some(Begun::Other);
        }
        let word: String = content.chars().filter(|c| !c.is_whitespace()).collect();
        let rest = word
            .get(..7)
            .is_some_and(|w| w.eq_ignore_ascii_case("network"));
        (rest && matches!(word.as_bytes().get(7), Some(b'=' | b'{') | None))
            .then_some(Begun::Misspelt)
    }
}

/// Takes blanks and a comment away: `#` outside of double quotes begins one.
fn content(line: &str) -> Option<&str> {
    let line = line.trim_start_matches([' ', '\t', '\r']);
    if line.starts_with('#') {
        return None;
    }
    let mut end = line.find('#');
    let mut from = 0;
    while let Some(hash) = end {
        let Some(opening) = line[from..].find('"').map(|at| from + at) else {
            break;
        };
        if opening > hash {
            break;
        }
        let Some(closing) = line[opening + 1..].find('"').map(|at| opening + 1 + at) else {
            break;
        };
        from = closing + 1;
        if from > hash {
            end = line[from..].find('#').map(|at| from + at);
        }
    }
    let content = &line[..end.unwrap_or(line.len())];
    let content = content.trim_end_matches([' ', '\t', '\r']);
    (!content.is_empty()).then_some(content)
}

impl File<'_> {
    fn keep(&mut self, line: &Line<'_>) {
        self.kept.extend_from_slice(line.bytes);
        self.kept.push(b'\n');
    }

    /// Leaves a line empty, so that wpa_supplicant counts the others as they are on the card.
    fn leave_empty(&mut self) {
        self.kept.push(b'\n');
    }

    fn drop_open(&mut self, block: &Block<'_>) {
        let first = block.lines[0].number;
        let (what, effect) = match block.begun {
            Begun::Network | Begun::Misspelt => (
                "the network that begins here has no closing brace",
                NETWORK_LEFT_OUT,
            ),
            Begun::Other => ("what begins here has no closing brace", BLOCK_LEFT_OUT),
        };
        self.findings.push(Finding::at(
            first,
            what,
            effect,
            "put `}` on a line of its own behind the last setting",
        ));
        block.lines.iter().for_each(|_| self.leave_empty());
    }

    fn take_block(&mut self, block: &Block<'_>) {
        let findings = match block.begun {
            Begun::Network => check_network(&block.lines, self.certificates),
            Begun::Misspelt => vec![Finding::at(
                block.lines[0].number,
                "a network does not begin like this",
                NETWORK_LEFT_OUT,
                "write `network={` without blanks, and nothing else on the line",
            )],
            Begun::Other => Vec::new(),
        };
        for line in &block.lines {
            match findings.is_empty() {
                true => self.keep(line),
                false => self.leave_empty(),
            }
        }
        if findings.is_empty() && block.begun == Begun::Network {
            self.networks += 1;
        }
        self.findings.extend(findings);
    }

    fn take_global(&mut self, line: &Line<'_>) {
        match check_global(line) {
            Some(finding) => {
                self.findings.push(finding);
                self.leave_empty();
            }
            None => self.keep(line),
        }
    }
}

fn check_global(line: &Line<'_>) -> Option<Finding> {
    let content = line.content.as_deref()?;
    let wrong =
        |what: &str, next: String| Some(Finding::at(line.number, what, LINE_LEFT_OUT, next));
    if content == "}" {
        return wrong(
            "a closing brace, and no network before it",
            "delete it, or write `network={` above the network's first setting".to_owned(),
        );
    }
    let Some((key, value)) = content.split_once('=') else {
        return wrong(
            "this is no setting",
            "write `name=value`, or `#` before a comment".to_owned(),
        );
    };
    if NETWORK.contains(&key) && !GLOBAL.contains(&key) {
        return wrong(
            &format!("`{key}` stands outside of a network"),
            "put it between `network={` and `}`".to_owned(),
        );
    }
    if !GLOBAL.contains(&key) {
        return wrong("there is no setting of this name", meant(key, GLOBAL));
    }
    let is_country = value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_alphabetic());
    if key == "country" && !is_country {
        return wrong(
            "the country is not two letters",
            "write its code of ISO 3166, such as `country=DE`".to_owned(),
        );
    }
    let (_, range) = GLOBAL_NUMBERS.iter().find(|(name, _)| *name == key)?;
    let fault = check_number(key, value, range)?;
    wrong(&fault.what, fault.next)
}

/// Returns what is wrong with a closed network, its first and last line included.
fn check_network(lines: &[Line<'_>], certificates: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut keys = BTreeSet::new();
    let mut ways = None;
    let inner = &lines[1..lines.len() - 1];
    for line in inner {
        let Some(content) = line.content.as_deref() else {
            continue;
        };
        let wrong = match content.split_once('=') {
            None => Some(Wrong::new(
                "this is no setting",
                "write `name=value`, or `#` before a comment",
            )),
            Some((key, value)) => {
                keys.insert(key);
                if key == "key_mgmt" {
                    ways = Some(value);
                }
                check_setting(key, value, certificates)
            }
        };
        if let Some(Wrong { what, next }) = wrong {
            findings.push(Finding::at(line.number, what, NETWORK_LEFT_OUT, next));
        }
    }
    if findings.is_empty() {
        let first = lines[0].number;
        let of_network = |what: &str, next: &str| Finding::at(first, what, NETWORK_LEFT_OUT, next);
        if !keys.contains("ssid") {
            findings.push(of_network(
                "the network that begins here has no name",
                "add `ssid=\"name\"`",
            ));
        } else if needs_key(ways) && !KEYS.iter().any(|key| keys.contains(key)) {
            findings.push(of_network(
                "the network that begins here has no key",
                "add `psk=\"passphrase\"`, or `key_mgmt=NONE` if it is open",
            ));
        }
    }
    findings
}

/// Whether each of the ways to agree on keys needs one beforehand. Without `key_mgmt` they are WPA-PSK and WPA-EAP.
fn needs_key(ways: Option<&str>) -> bool {
    const WITHOUT: [&str; 4] = ["NONE", "WPS", "OWE", "DPP"];
    let mut ways = ways.unwrap_or("WPA-PSK WPA-EAP").split_whitespace();
    ways.all(|way| !WITHOUT.contains(&way))
}

/// What is wrong with a value.
struct Wrong {
    what: String,
    next: String,
}

impl Wrong {
    fn new(what: impl Into<String>, next: impl Into<String>) -> Wrong {
        Wrong {
            what: what.into(),
            next: next.into(),
        }
    }
}

fn check_setting(key: &str, value: &str, certificates: &BTreeSet<&str>) -> Option<Wrong> {
    if let Some(known) = NETWORK.iter().find(|known| **known == key.trim_end())
        && key.trim_end() != key
    {
        return Some(Wrong::new(
            format!("there is a blank behind `{known}`"),
            "write `name=value` without blanks around the `=`",
        ));
    }
    if !NETWORK.contains(&key) {
        return Some(Wrong::new(
            "a network has no setting of this name",
            meant(key, NETWORK),
        ));
    }
    let is_quoted = |c: char| {
        matches!(
            c,
            '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{ab}' | '\u{bb}'
        )
    };
    if value.starts_with(is_quoted) {
        return Some(Wrong::new(
            format!("the value of `{key}` is in typographic quotation marks"),
            "use straight ones: \"",
        ));
    }
    match key {
        "ssid" => check_ssid(value),
        "psk" => check_psk(value),
        "key_mgmt" => check_ways(value),
        "password" | "machine_password"
            if value.starts_with("hash:") || value.starts_with("ext:") =>
        {
            None
        }
        "password" | "machine_password" => parse_text(value).err().map(|fault| fault.wrong(key)),
        _ => {
            let number = NUMBERS.iter().find(|(name, _)| *name == key);
            let text = TEXTS.contains(&key).then(|| parse_text(value));
            match (number, text) {
                (Some((_, range)), _) => check_number(key, value, range),
                (None, Some(Err(fault))) => Some(fault.wrong(key)),
                (None, Some(Ok(text))) => check_certificate(&text, certificates),
                // Of the others the quotes alone are looked at.
                (None, None) if value.starts_with('"') => {
                    parse_text(value).err().map(|fault| fault.wrong(key))
                }
                (None, None) => None,
            }
        }
    }
}

/// Why a value is not text.
enum TextFault {
    NotClosed,
    BehindQuote,
    NotQuoted,
}

impl TextFault {
    fn wrong(&self, key: &str) -> Wrong {
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

/// Parses text in double quotes, to the last of them, or its bytes as hexadecimal digits.
fn parse_text(value: &str) -> Result<Vec<u8>, TextFault> {
    // With escapes as in printf(3).
    if let Some(escaped) = value.strip_prefix("P\"") {
        let inner = escaped.strip_suffix('"').ok_or(TextFault::NotClosed)?;
        return Ok(inner.as_bytes().to_vec());
    }
    if let Some(rest) = value.strip_prefix('"') {
        let end = rest.rfind('"').ok_or(TextFault::NotClosed)?;
        if end + 1 != rest.len() {
            return Err(TextFault::BehindQuote);
        }
        return Ok(rest.as_bytes()[..end].to_vec());
    }
    from_hex(value).ok_or(TextFault::NotQuoted)
}

/// Returns the bytes of hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| (high << 4) | low).collect())
}

fn check_ssid(value: &str) -> Option<Wrong> {
    match parse_text(value) {
        Err(fault) => Some(fault.wrong("ssid")),
        Ok(name) if name.is_empty() || (name.len() > 32 && !value.starts_with('P')) => {
            Some(Wrong::new(
                format!("the network's name has {} bytes, not 1 to 32", name.len()),
                "write it as the access point has it",
            ))
        }
        Ok(_) => None,
    }
}

fn check_psk(value: &str) -> Option<Wrong> {
    if value.starts_with('"') {
        let passphrase = match parse_text(value) {
            Err(fault) => return Some(fault.wrong("psk")),
            Ok(passphrase) => passphrase,
        };
        let length = passphrase.len();
        let what = if !(8..=63).contains(&length) {
            format!("the passphrase has {length} bytes, not 8 to 63")
        } else if passphrase.iter().any(u8::is_ascii_control) {
            "the passphrase has a tab or another control character in it".to_owned()
        } else {
            return None;
        };
        return Some(Wrong::new(what, "write it as the access point has it"));
    }
    let is_key = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!is_key && !value.starts_with("ext:")).then(|| {
        Wrong::new(
            "the key is neither a passphrase in double quotes nor 64 hexadecimal digits",
            "put the passphrase in double quotes",
        )
    })
}

fn check_ways(value: &str) -> Option<Wrong> {
    let mut ways = value.split_whitespace();
    let wrong = ways.find(|way| !KEY_MANAGEMENT.contains(way));
    (value.is_empty() || wrong.is_some()).then(|| {
        Wrong::new(
            "`key_mgmt` names a way to agree on keys that there is not",
            "write WPA-PSK, SAE, both, WPA-EAP, or NONE for an open network",
        )
    })
}

fn check_number(key: &str, value: &str, range: &RangeInclusive<i64>) -> Option<Wrong> {
    // Blanks in front are let pass there, too (strtol(3)).
    let number = value.trim_start().parse::<i64>().ok();
    let fits = number.is_some_and(|number| range.contains(&number));
    (!fits).then(|| {
        let (least, largest) = (range.start(), range.end());
        Wrong::new(
            format!("`{key}` is no number from {least} to {largest}"),
            "correct the number",
        )
    })
}

fn check_certificate(text: &[u8], certificates: &BTreeSet<&str>) -> Option<Wrong> {
    let path = std::str::from_utf8(text).ok()?;
    let name = path.strip_prefix(CERTIFICATES)?;
    (!certificates.contains(name)).then(|| {
        Wrong::new(
            "a certificate or key that it names is not in site/",
            "copy the .pem file into site/, with the name that is written here",
        )
    })
}

/// Returns a hint at the word that was meant.
fn meant(word: &str, known: &[&str]) -> String {
    // Of short words one wrong letter is much, and two in the wrong order are more.
    let slip = |known: &&str| strsim::osa_distance(word, known) == 1;
    let similarity = |known: &&str| strsim::jaro_winkler(word, known);
    let near = known
        .iter()
        .copied()
        .filter(|known| similarity(known) > 0.8)
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match known.iter().copied().find(slip).or(near) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "see wpa_supplicant.conf(5), or delete the line".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check_text(text: &str, expected: Expect) {
        let certificates = BTreeSet::from(["ca-1.pem"]);
        let (kept, findings) = check(&text::mend(text.as_bytes()), &certificates);
        let mut shown = String::new();
        for finding in findings {
            let line = finding.line.map_or("-".to_owned(), |line| line.to_string());
            shown += &format!(
                "{line}: {}; {}; {}\n",
                finding.what, finding.effect, finding.next
            );
        }
        shown += &format!("kept: {}\n", kept.escape_ascii());
        let told = shown.split("kept:").next().unwrap_or_default();
        assert!(!told.contains("secret"), "{told}");
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_good_file_stays_as_it_is() {
        check_text(
            "# mine\nctrl_interface=/run/wpa_supplicant\ncountry=DE\n network={ # home\n\tssid=\"a # b\"\n\tpsk=\"secret # 1\" # !\n}\n\
             network={\nssid=686f6d65\nkey_mgmt=NONE\n}\ncred={\nrealm=\"x\"\n}\n",
            expect![[r#"
                kept: # mine\nctrl_interface=/run/wpa_supplicant\ncountry=DE\n network={ # home\n\tssid=\"a # b\"\n\tpsk=\"secret # 1\" # !\n}\nnetwork={\nssid=686f6d65\nkey_mgmt=NONE\n}\ncred={\nrealm=\"x\"\n}\n
            "#]],
        );
    }

    #[test]
    fn one_bad_network_does_not_cost_the_others() {
        check_text(
            "network={\n  ssid=\"home\"\n  psk=\"secret\"\n}\nnetwork={\n  ssid=\"work\"\n  psk=\"long enough\"\n}\n",
            expect![[r#"
                3: the passphrase has 6 bytes, not 8 to 63; this network is left out; write it as the access point has it
                kept: \n\n\n\nnetwork={\n  ssid=\"work\"\n  psk=\"long enough\"\n}\n
            "#]],
        );
    }

    #[test]
    fn each_fault_is_named() {
        check_text(
            "ssid=\"home\"\nupdate_confg=1\ncountry=Germany\n}\nhello secret\n\
             network = {\n}\n\
             network={\nssid=home\npks=\"secret secret\"\npsk = \"secret secret\"\npriority=high\nscan_ssid=2\nkey_mgmt=WPA3\nsecret\n\
             psk=secretsecret\nidentity=\"me\npassword=\"me\"2\npsk=\u{201c}secretsecret\u{201d}\n}\n\
             network={\nssid=\"\"\npsk=\"secretsecret\"\n}\n\
             network={\npsk=\"secretsecret\"\n}\n\
             network={\nssid=\"x\"\n}\n\
             network={\nssid=\"x\"\nkey_mgmt=WPA-EAP\neap=TLS\nca_cert=\"/etc/wpa_supplicant/ca-2.pem\"\n}\n\
             network={\nssid=\"x\"\n\
             network={\nssid=\"x\"\nkey_mgmt=WPA-EAP\neap=TLS\nca_cert=\"/etc/wpa_supplicant/ca-1.pem\"\n}\ncred={\n",
            expect![[r#"
                1: `ssid` stands outside of a network; this line is left out; put it between `network={` and `}`
                2: there is no setting of this name; this line is left out; did you mean `update_config`?
                3: the country is not two letters; this line is left out; write its code of ISO 3166, such as `country=DE`
                4: a closing brace, and no network before it; this line is left out; delete it, or write `network={` above the network's first setting
                5: this is no setting; this line is left out; write `name=value`, or `#` before a comment
                6: a network does not begin like this; this network is left out; write `network={` without blanks, and nothing else on the line
                9: the value of `ssid` is neither in quotation marks nor hexadecimal; this network is left out; put it in double quotes
                10: a network has no setting of this name; this network is left out; did you mean `psk`?
                11: there is a blank behind `psk`; this network is left out; write `name=value` without blanks around the `=`
                12: `priority` is no number from -2147483648 to 2147483647; this network is left out; correct the number
                13: `scan_ssid` is no number from 0 to 1; this network is left out; correct the number
                14: `key_mgmt` names a way to agree on keys that there is not; this network is left out; write WPA-PSK, SAE, both, WPA-EAP, or NONE for an open network
                15: this is no setting; this network is left out; write `name=value`, or `#` before a comment
                16: the key is neither a passphrase in double quotes nor 64 hexadecimal digits; this network is left out; put the passphrase in double quotes
                17: the value of `identity` has no closing quotation mark; this network is left out; put it in double quotes, on one line
                18: there is something behind the closing quotation mark of `password`; this network is left out; delete it
                19: the value of `psk` is in typographic quotation marks; this network is left out; use straight ones: "
                22: the network's name has 0 bytes, not 1 to 32; this network is left out; write it as the access point has it
                25: the network that begins here has no name; this network is left out; add `ssid="name"`
                28: the network that begins here has no key; this network is left out; add `psk="passphrase"`, or `key_mgmt=NONE` if it is open
                35: a certificate or key that it names is not in site/; this network is left out; copy the .pem file into site/, with the name that is written here
                37: the network that begins here has no closing brace; this network is left out; put `}` on a line of its own behind the last setting
                45: what begins here has no closing brace; it is left out; put `}` on a line of its own behind the last setting
                kept: \n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nnetwork={\nssid=\"x\"\nkey_mgmt=WPA-EAP\neap=TLS\nca_cert=\"/etc/wpa_supplicant/ca-1.pem\"\n}\n\n
            "#]],
        );
    }

    #[test]
    fn a_file_without_a_network_says_so() {
        check_text(
            "country=DE\n",
            expect![[r#"
            -: it has no network={ ... }; no network is joined; add a network: a line `network={`, its settings, and a line `}`
            kept: country=DE\n
        "#]],
        );
        check_text(
            "",
            expect![[r#"
            -: it has no network={ ... }; no network is joined; add a network: a line `network={`, its settings, and a line `}`
            kept: \n
        "#]],
        );
    }

    /// A byte that is no text is kept: a network's name may have any.
    #[test]
    fn what_one_setting_is_refused_for_is_found_before() {
        check_text(
            "update_config=yes\nfast_reauth=1\n\
             network={\nssid=\"x\"\npsk=\"long\tenough\"\n}\n\
             network={\nssid=\"x\"\nkey_mgmt=WPA-EAP\nidentity=\"me\"\npassword=secret\n}\n\
             network={\nssid=\"x\"\nkey_mgmt=WPA-EAP\nidentity=\"me\"\npassword=hash:00\npriority=-1\nscan_ssid= 1\n}\n",
            expect![[r#"
                1: `update_config` is no number from 0 to 1; this line is left out; correct the number
                5: the passphrase has a tab or another control character in it; this network is left out; write it as the access point has it
                11: the value of `password` is neither in quotation marks nor hexadecimal; this network is left out; put it in double quotes
                kept: \nfast_reauth=1\n\n\n\n\n\n\n\n\n\n\nnetwork={\nssid=\"x\"\nkey_mgmt=WPA-EAP\nidentity=\"me\"\npassword=hash:00\npriority=-1\nscan_ssid= 1\n}\n
            "#]],
        );
    }

    #[test]
    fn bytes_are_kept() {
        let file = b"network={\nssid=\"\xe9\"\nkey_mgmt=NONE\n}\n";
        assert_eq!(check(file, &BTreeSet::new()), (file.to_vec(), Vec::new()));
    }
}
