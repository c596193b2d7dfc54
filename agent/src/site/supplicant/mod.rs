//! Checks wpa_supplicant.conf. wpa_supplicant refuses a file as a whole for one line that it does not take; here the network with that line
//! is left out, or the line where it is outside of any, and all others stay.
//!
//! Lines are taken the way wpa_supplicant takes them (2.10, `src/utils/config.c`, `wpa_supplicant/config_file.c`), values too (`values.rs`),
//! and a few that it takes first and stops at later are among those that are left out. What is inside of a block is judged in `blocks.rs`.
//!
//! The control socket is the bridge's: it is where the bridge listens, and opens to nobody else, whatever group a file from another system
//! names.

mod blocks;
mod values;
mod words;

use std::collections::BTreeSet;

use self::blocks::{check_blob, check_credential, check_network};
pub(super) use self::values::from_hex;
use self::values::{CONTROL_DIRECTORY, Kind, Next, Wrong, check_value};
use self::words::{GLOBAL, NETWORK};
use super::fault::{Finding, LINE_LEFT_OUT};
use super::{MOST_FAULTS, text};

const NETWORK_LEFT_OUT: &str = "this network is left out";
const BLOCK_LEFT_OUT: &str = "it is left out";
const NO_NETWORK: &str = "no network is joined";

const CONTROL: &str = "ctrl_interface";

/// How many bytes of a line outside of blocks wpa_supplicant reads.
const LONGEST_GLOBAL: usize = 511;

/// Returns what of the file is good, every line in its place, and what is wrong. `certificates` are the names of those that are there.
pub(super) fn check(text: &[u8], certificates: &BTreeSet<&str>) -> (Vec<u8>, Vec<Finding>) {
    let mut file = File {
        kept: Vec::with_capacity(text.len()),
        findings: Vec::new(),
        networks: 0,
        has_control: false,
        certificates,
    };
    let mut block: Option<Block<'_>> = None;
    for (number, bytes) in text::lines(text) {
        let line = Line { number, bytes };
        let begins = line.begins();
        block = match (block.take(), begins) {
            (Some(open), Some(begun)) => {
                file.drop_open(&open);
                file.begin(begun, line)
            }
            (Some(mut open), None) => {
                let ends = line.content() == Some(b"}");
                open.lines.push(line);
                if ends {
                    file.take_block(&open);
                    None
                } else {
                    Some(open)
                }
            }
            (None, Some(begun)) => file.begin(begun, line),
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
    if !file.has_control {
        file.keep(format!("{CONTROL}={CONTROL_DIRECTORY}").as_bytes());
    }
    (file.kept, file.findings)
}

struct File<'a> {
    kept: Vec<u8>,
    findings: Vec<Finding>,
    networks: usize,
    /// Whether a line says where the control socket is.
    has_control: bool,
    certificates: &'a BTreeSet<&'a str>,
}

struct Line<'a> {
    number: usize,
    bytes: &'a [u8],
}

/// What a line begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    Network,
    /// A network by the looks of it, but not for wpa_supplicant.
    Misspelt,
    /// Credentials for hotspots.
    Credential,
    /// A file in base64.
    Blob,
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

    fn effect(&self) -> &'static str {
        match self.begun {
            Begun::Network | Begun::Misspelt => NETWORK_LEFT_OUT,
            Begun::Credential | Begun::Blob => BLOCK_LEFT_OUT,
        }
    }
}

impl<'a> Line<'a> {
    /// Without blanks around it and without a comment; nothing where that is all.
    fn content(&self) -> Option<&'a [u8]> {
        content(self.bytes)
    }

    /// The same, if wpa_supplicant reads all of it.
    fn read(&self, longest: usize) -> Result<Option<&'a [u8]>, Wrong> {
        let read = content(&self.bytes[..self.bytes.len().min(longest)]);
        match read == self.content() {
            true => Ok(read),
            false => Err(Wrong::new(
                format!("the line has more than the {longest} bytes that wpa_supplicant reads"),
                "shorten it",
            )),
        }
    }

    fn begins(&self) -> Option<Begun> {
        let content = self.content()?;
        if content == b"network={" {
            return Some(Begun::Network);
        }
        if content == b"cred={" {
            return Some(Begun::Credential);
        }
        if content.starts_with(b"blob-base64-") && content.ends_with(b"={") {
            return Some(Begun::Blob);
        }
        let mut word = content.iter().filter(|byte| !byte.is_ascii_whitespace());
        let begin: Vec<u8> = word.by_ref().take(7).copied().collect();
        let looks_so = begin.eq_ignore_ascii_case(b"network")
            && matches!(word.next(), Some(b'=' | b'{') | None);
        looks_so.then_some(Begun::Misspelt)
    }
}

/// Takes blanks and a comment away: `#` outside of double quotes begins one.
fn content(line: &[u8]) -> Option<&[u8]> {
    let find = |byte: u8, from: usize| {
        let at = line[from..].iter().position(|found| *found == byte);
        at.map(|at| from + at)
    };
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let begin = line.iter().position(|byte| !is_blank(byte))?;
    if line[begin] == b'#' {
        return None;
    }
    let mut end = find(b'#', begin);
    let mut from = begin;
    while let Some(hash) = end {
        let Some(opening) = find(b'"', from).filter(|opening| *opening < hash) else {
            break;
        };
        let Some(closing) = find(b'"', opening + 1) else {
            break;
        };
        from = closing + 1;
        if from > hash {
            end = find(b'#', from);
        }
    }
    let content = &line[begin..end.unwrap_or(line.len())];
    let last = content.iter().rposition(|byte| !is_blank(byte))?;
    Some(&content[..=last])
}

/// Takes a setting apart at the first `=`.
fn setting(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = content.iter().position(|byte| *byte == b'=')?;
    Some((&content[..at], &content[at + 1..]))
}

impl File<'_> {
    fn keep(&mut self, line: &[u8]) {
        self.kept.extend_from_slice(line);
        self.kept.push(b'\n');
    }

    /// Leaves a line empty, so that wpa_supplicant counts the others as they are on the card.
    fn leave_empty(&mut self) {
        self.kept.push(b'\n');
    }

    /// What was meant is looked for only where it is shown: that takes its time, and a file may have thousands of wrong lines.
    fn tell(&mut self, line: usize, wrong: Wrong, effect: &'static str) {
        let is_shown = self.findings.len() < MOST_FAULTS;
        let next = match wrong.next {
            Next::Said(next) => next,
            Next::Meant(word, table) if is_shown => meant(&word, table),
            Next::Meant(..) => String::new(),
        };
        self.findings
            .push(Finding::at(line, wrong.what, effect, next));
    }

    /// Opens a block, unless all of it is on this one line.
    fn begin<'b>(&mut self, begun: Begun, line: Line<'b>) -> Option<Block<'b>> {
        let is_whole = begun == Begun::Misspelt
            && line
                .content()
                .is_some_and(|content| content.ends_with(b"}"));
        let block = Block::new(begun, line);
        if !is_whole {
            return Some(block);
        }
        self.take_block(&block);
        None
    }

    fn drop_open(&mut self, block: &Block<'_>) {
        let what = match block.begun {
            Begun::Network | Begun::Misspelt => "the network that begins here has no closing brace",
            Begun::Credential | Begun::Blob => "what begins here has no closing brace",
        };
        self.findings.push(Finding::at(
            block.lines[0].number,
            what,
            block.effect(),
            "put `}` on a line of its own behind the last setting",
        ));
        block.lines.iter().for_each(|_| self.leave_empty());
    }

    fn take_block(&mut self, block: &Block<'_>) {
        let inner = block.lines.get(1..block.lines.len() - 1);
        let inner = inner.unwrap_or_default();
        let wrongs = match block.begun {
            Begun::Network => check_network(&block.lines[0], inner, self.certificates),
            Begun::Misspelt => vec![(
                block.lines[0].number,
                Wrong::new(
                    "a network does not begin like this",
                    "write `network={` without blanks, and nothing else on the line",
                ),
            )],
            Begun::Credential => check_credential(inner),
            Begun::Blob => check_blob(&block.lines[0], inner),
        };
        for line in &block.lines {
            match wrongs.is_empty() {
                true => self.keep(line.bytes),
                false => self.leave_empty(),
            }
        }
        if wrongs.is_empty() && block.begun == Begun::Network {
            self.networks += 1;
        }
        let effect = block.effect();
        for (line, wrong) in wrongs {
            self.tell(line, wrong, effect);
        }
    }

    fn take_global(&mut self, line: &Line<'_>) {
        let checked = line.read(LONGEST_GLOBAL).and_then(|content| {
            let content = content.unwrap_or_default();
            if !content.is_empty() {
                check_global(content)?;
            }
            Ok(setting(content))
        });
        match checked {
            Err(wrong) => {
                self.tell(line.number, wrong, LINE_LEFT_OUT);
                self.leave_empty();
            }
            Ok(Some((b"ctrl_interface", value))) => {
                self.has_control = true;
                match value == CONTROL_DIRECTORY.as_bytes() {
                    true => self.keep(line.bytes),
                    false => self.keep(format!("{CONTROL}={CONTROL_DIRECTORY}").as_bytes()),
                }
            }
            Ok(Some((b"ctrl_interface_group" | b"no_ctrl_interface", _))) => self.leave_empty(),
            Ok(_) => self.keep(line.bytes),
        }
    }
}

fn check_global(content: &[u8]) -> Result<(), Wrong> {
    if content == b"}" {
        return Err(Wrong::new(
            "a closing brace, and no network before it",
            "delete it, or write `network={` above the network's first setting",
        ));
    }
    let (key, value) = setting(content).ok_or_else(no_setting)?;
    match (find(GLOBAL, key), find(NETWORK, key)) {
        (Some((name, kind)), _) => check_value(name, kind, value),
        (None, Some((name, _))) => Err(Wrong::new(
            format!("`{name}` stands outside of a network"),
            "put it between `network={` and `}`",
        )),
        (None, None) => Err(unknown("there is no setting of this name", key, GLOBAL)),
    }
}

fn no_setting() -> Wrong {
    Wrong::new(
        "this is no setting",
        "write `name=value`, or `#` before a comment",
    )
}

fn find(table: &[(&'static str, Kind)], key: &[u8]) -> Option<(&'static str, Kind)> {
    let mut table = table.iter().copied();
    table.find(|(name, _)| name.as_bytes() == key)
}

/// Says that there is no such setting, and which was meant.
fn unknown(what: &str, key: &[u8], table: &'static [(&'static str, Kind)]) -> Wrong {
    let word = String::from_utf8_lossy(key);
    match find(table, word.trim_end().as_bytes()) {
        Some((name, _)) => Wrong::new(
            format!("there is a blank behind `{name}`"),
            "write `name=value` without blanks around the `=`",
        ),
        None => Wrong {
            what: what.to_owned(),
            next: Next::Meant(word.into_owned(), table),
        },
    }
}

/// Returns a hint at the setting that was meant.
fn meant(word: &str, table: &[(&'static str, Kind)]) -> String {
    // Of short words one wrong letter is much, and two in the wrong order are more.
    let names = || table.iter().map(|(name, _)| *name);
    let similarity = |known: &&str| strsim::jaro_winkler(word, known);
    // No name is as long.
    let near = (word.len() <= 64).then(|| {
        let slip = names().find(|known| strsim::osa_distance(word, known) == 1);
        slip.or_else(|| {
            names()
                .filter(|known| similarity(known) > 0.8)
                .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        })
    });
    match near.flatten() {
        Some(near) => format!("did you mean `{near}`?"),
        None => "see wpa_supplicant.conf(5), or delete the line".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::fault::listed;
    use super::*;

    fn check_text(text: &str, expected: Expect) {
        let certificates = BTreeSet::from(["ca-1.pem"]);
        let (kept, findings) = check(&text::mend(text.as_bytes()), &certificates);
        let mut shown = listed(&findings);
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
    fn any_open_network_and_one_access_point_need_no_name() {
        check_text(
            "network={\nkey_mgmt=NONE\n}\nnetwork={\nbssid=02:00:00:00:00:01\npsk=\"secret enough\"\n}\nnetwork={\npsk=\"secret enough\"\n}\n",
            expect![[r#"
                8: the network that begins here has no name; this network is left out; add `ssid="name"`
                kept: network={\nkey_mgmt=NONE\n}\nnetwork={\nbssid=02:00:00:00:00:01\npsk=\"secret enough\"\n}\n\n\n\nctrl_interface=/run/wpa_supplicant\n
            "#]],
        );
    }

    #[test]
    fn a_network_on_one_line_costs_nothing_after_it() {
        check_text(
            "network={ssid=\"home\" psk=\"secret enough\"}\ncountry=DE\n",
            expect![[r#"
                1: a network does not begin like this; this network is left out; write `network={` without blanks, and nothing else on the line
                kept: \ncountry=DE\nctrl_interface=/run/wpa_supplicant\n
            "#]],
        );
    }

    #[test]
    fn one_bad_network_does_not_cost_the_others() {
        check_text(
            "network={\n  ssid=\"home\"\n  psk=\"secret\"\n}\nnetwork={\n  ssid=\"work\"\n  psk=\"long enough\"\n}\n",
            expect![[r#"
                3: the passphrase has 6 bytes, not 8 to 63; this network is left out; write it as the access point has it
                kept: \n\n\n\nnetwork={\n  ssid=\"work\"\n  psk=\"long enough\"\n}\nctrl_interface=/run/wpa_supplicant\n
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
                12: `priority` is no number; this network is left out; correct the number
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
                kept: \n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nnetwork={\nssid=\"x\"\nkey_mgmt=WPA-EAP\neap=TLS\nca_cert=\"/etc/wpa_supplicant/ca-1.pem\"\n}\n\nctrl_interface=/run/wpa_supplicant\n
            "#]],
        );
    }

    #[test]
    fn a_file_without_a_network_says_so() {
        check_text(
            "country=DE\n",
            expect![[r#"
                -: it has no network={ ... }; no network is joined; add a network: a line `network={`, its settings, and a line `}`
                kept: country=DE\nctrl_interface=/run/wpa_supplicant\n
            "#]],
        );
        check_text(
            "",
            expect![[r#"
                -: it has no network={ ... }; no network is joined; add a network: a line `network={`, its settings, and a line `}`
                kept: \nctrl_interface=/run/wpa_supplicant\n
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
             network={\nssid=\"x\"\nkey_mgmt=WPA-EAP\nidentity=\"me\"\npassword=hash:00112233445566778899aabbccddeeff\npriority=-1\nscan_ssid= 1\n}\n",
            expect![[r#"
                1: `update_config` is no number from 0 to 1; this line is left out; correct the number
                5: the passphrase has a tab or another control character in it; this network is left out; write it as the access point has it
                11: the value of `password` is neither in quotation marks nor hexadecimal; this network is left out; put it in double quotes
                kept: \nfast_reauth=1\n\n\n\n\n\n\n\n\n\n\nnetwork={\nssid=\"x\"\nkey_mgmt=WPA-EAP\nidentity=\"me\"\npassword=hash:00112233445566778899aabbccddeeff\npriority=-1\nscan_ssid= 1\n}\nctrl_interface=/run/wpa_supplicant\n
            "#]],
        );
    }

    /// In what way what a person wrote is laid: as it is, without its networks, or without one line.
    #[test]
    fn a_value_costs_its_own_network_and_no_other() {
        let good = "network={\n\tssid=\"good\"\n\tkey_mgmt=NONE\n}\n";
        for (setting, taken) in [
            ("proto=RSN WPA", true),
            ("proto=WPA3", false),
            ("pairwise=CCMP GCMP-256", true),
            ("pairwise=AES", false),
            ("group=WEP40 TKIP", true),
            ("group=AES", false),
            ("group_mgmt=BIP-CMAC-256", true),
            ("group_mgmt=CCMP", false),
            ("auth_alg=OPEN", true),
            ("auth_alg=open", false),
            ("eap=PEAP TLS", true),
            ("eap=EAP-PEAP", false),
            ("bssid=00:11:22:33:44:55", true),
            ("bssid=any", true),
            ("bssid=00-11-22-33-44-55", false),
            (
                "bssid_ignore=00:11:22:33:44:55 00:11:22:00:00:00/ff:ff:ff:00:00:00",
                true,
            ),
            ("bssid_ignore=00:11:22:33:44:55,00:11:22:33:44:56", false),
            ("scan_freq=2412 2437", true),
            ("priority=0x10", true),
            ("priority=1.5", false),
            ("scan_ssid=2", false),
            ("psk=\"a passphrase\" ; mine", true),
            ("psk=P\"a passphrase\"", false),
            ("password=hash:0011", false),
            ("identity=NULL", true),
            ("wep_key0=\"12345678901234567\"", false),
            ("psk_list=00:11:22:33:44:55-00", false),
            ("mode=5", false),
            ("ocv=1\n\tieee80211w=0", false),
            ("ieee80211w=0\n\tocv=1", true),
        ] {
            let bad =
                format!("network={{\n\tssid=\"x\"\n\tpsk=\"a passphrase\"\n\t{setting}\n}}\n");
            let text = format!("ctrl_interface=/run/wpa_supplicant\n{bad}{good}");
            let (kept, findings) = check(text.as_bytes(), &BTreeSet::new());
            let kept = String::from_utf8(kept).unwrap();
            if taken {
                assert_eq!((kept, findings), (text, Vec::new()), "{setting}");
            } else {
                let empty = "\n".repeat(bad.lines().count());
                assert_eq!(kept, text.replace(&bad, &empty), "{setting}");
                let lines: Vec<_> = findings.iter().map(|found| found.line).collect();
                let last = 4 + setting.lines().count();
                assert_eq!(lines, [Some(last)], "{setting}");
            }
        }
    }

    #[test]
    fn wpa3_needs_the_passphrase_itself() {
        let key = "0123456789abcdef".repeat(4);
        for (settings, line) in [
            ("key_mgmt=SAE\npsk=\"a passphrase\"", None),
            ("key_mgmt=SAE\nsae_password=\"x\"", None),
            (&format!("key_mgmt=SAE\npsk={key}"), Some(4)),
            (&format!("key_mgmt=SAE FT-SAE\npsk={key}"), Some(4)),
            (
                &format!("key_mgmt=SAE\npsk={key}\nsae_password=\"x\""),
                None,
            ),
            (
                &format!("key_mgmt=SAE\npsk={key}\nsae_password=NULL"),
                Some(4),
            ),
            (&format!("key_mgmt=SAE WPA-PSK\npsk={key}"), None),
            ("key_mgmt=SAE\nidentity=\"me\"", Some(1)),
        ] {
            let text = format!("network={{\nssid=\"x\"\n{settings}\n}}\n");
            let (_, findings) = check(text.as_bytes(), &BTreeSet::new());
            let lines: Vec<_> = findings.iter().map(|found| found.line).collect();
            assert_eq!(lines, Vec::from_iter(line.map(Some)), "{settings}");
        }
    }

    #[test]
    fn the_control_socket_is_where_the_bridge_listens() {
        const OWN: &str = "ctrl_interface=/run/wpa_supplicant\n";
        for (line, kept, findings) in [
            ("ctrl_interface=/run/wpa_supplicant", OWN.to_owned(), 0),
            (
                "ctrl_interface=DIR=/var/run/wpa_supplicant GROUP=wheel",
                OWN.to_owned(),
                0,
            ),
            ("ctrl_interface_group=0", format!("\n{OWN}"), 0),
            ("no_ctrl_interface=", format!("\n{OWN}"), 0),
            ("ctrl_interface=/tmp/wpa", format!("\n{OWN}"), 1),
            ("ctrl_interface=", format!("\n{OWN}"), 1),
            ("# none", format!("# none\n{OWN}"), 0),
        ] {
            let network = "network={\nssid=\"x\"\nkey_mgmt=NONE\n}\n";
            let (found, told) = check(format!("{network}{line}\n").as_bytes(), &BTreeSet::new());
            assert_eq!(
                String::from_utf8(found).unwrap(),
                format!("{network}{kept}"),
                "{line}"
            );
            assert_eq!(told.len(), findings, "{line}");
        }
    }

    #[test]
    fn other_blocks_cost_themselves_alone() {
        check_text(
            "ctrl_interface=/run/wpa_supplicant\ncred={\nusername=me\npassword=\"secret\"\nreal=\"x\"\n}\n\
             blob-base64-a={\nAAAA\n}\nblob-base64-b={\n!\n}\nblob-base64-c={\nA\n}\n\
             network={\nssid=\"x\"\nkey_mgmt=NONE\n}\n",
            expect![[r#"
                3: the value of `username` is neither in quotation marks nor hexadecimal; it is left out; put it in double quotes
                5: a credential has no setting of this name; it is left out; did you mean `realm`?
                10: what begins here is no file in base64; it is left out; `base64 FILE` makes it, or put the file into site/
                13: what begins here is no file in base64; it is left out; `base64 FILE` makes it, or put the file into site/
                kept: ctrl_interface=/run/wpa_supplicant\n\n\n\n\n\nblob-base64-a={\nAAAA\n}\n\n\n\n\n\n\nnetwork={\nssid=\"x\"\nkey_mgmt=NONE\n}\n
            "#]],
        );
    }

    /// What is behind the end of what wpa_supplicant reads of a line may be a comment, and nothing else.
    #[test]
    fn long_lines_are_told() {
        let long = "x".repeat(2000);
        let text = format!("network={{\nssid=\"x\"\nkey_mgmt=NONE\nid_str=\"{long}\"\n}}\n");
        let (kept, findings) = check(text.as_bytes(), &BTreeSet::new());
        assert!(!kept.starts_with(b"network"));
        assert_eq!(findings[0].line, Some(4));
        let text = text.replace("id_str=", "# ");
        assert_eq!(check(text.as_bytes(), &BTreeSet::new()).1, []);
        let text = format!("{text}device_name=x # {long}\nbgscan=\"{long}\"\n");
        let (_, findings) = check(text.as_bytes(), &BTreeSet::new());
        let lines: Vec<_> = findings.iter().map(|found| found.line).collect();
        assert_eq!(lines, [Some(7)]);
    }

    #[test]
    fn bytes_are_kept() {
        let name = "\u{e9}".repeat(16);
        let file = [
            &b"network={\nssid=\"\xe9\"\nkey_mgmt=NONE\n}\nnetwork={\nssid=\""[..],
            &[0xe9; 32],
            b"\"\nkey_mgmt=NONE\n}\nnetwork={\nssid=\"",
            name.as_bytes(),
            b"\"\nkey_mgmt=NONE\n}\nctrl_interface=/run/wpa_supplicant\n",
        ]
        .concat();
        assert_eq!(check(&file, &BTreeSet::new()), (file.clone(), Vec::new()));
    }
}
