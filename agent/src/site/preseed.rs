//! Raspberry Pi Imager's file for what people choose in it, `rpi-preseed.toml`, turned into the files of `site/`.
//!
//! Imager writes it beside the boot files for images whose `init_format` is `rpi-preseed` (rpi-imager, `src/customization_generator.cpp`;
//! keys and values: rpi-preseed(5)). Of it `[system]`, `[ssh]` and `[wlan]` have a meaning here. It is taken as a whole or not at all, but
//! for the SSH keys: one that is none costs itself alone.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::fault::Finding;
use super::{hostname, ssh_keys, supplicant};
use crate::config::{line_at, line_of_key, lines_of_items};

/// The name of the file.
pub(super) const PRESEED: &str = "rpi-preseed.toml";

const NOT_USED: &str = "nothing of the file is used, and it stays where it is";

const NOBODY: &str = "nobody logs in";

/// What people chose in Imager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Preseed {
    /// Files of `site/` by name.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// What cannot be had here.
    pub(super) findings: Vec<Finding>,
    /// Tables and keys that have no meaning here.
    pub(super) passed_over: Vec<String>,
}

/// Parses a mended file. `ssh_server` is whether the image has one.
pub(super) fn parse(text: &[u8], ssh_server: bool) -> Result<Preseed, Vec<Finding>> {
    let Ok(text) = std::str::from_utf8(text) else {
        let next = "save it as UTF-8, or write the card anew";
        return Err(vec![Finding::of_file(
            "it is no text in UTF-8",
            NOT_USED,
            next,
        )]);
    };
    let top: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map(|span| line_at(text, span.start));
        vec![Finding {
            line,
            // The parser's own words may quote the file.
            ..Finding::of_file(
                "this is not written as TOML",
                NOT_USED,
                "correct it, or write the card anew with Raspberry Pi Imager",
            )
        }]
    })?;
    let mut reader = Reader {
        text,
        top: &top,
        wrong: Vec::new(),
    };
    let preseed = reader.read(ssh_server);
    match reader.wrong.is_empty() {
        true => Ok(preseed),
        false => Err(reader.wrong),
    }
}

struct Reader<'a> {
    text: &'a str,
    top: &'a Table,
    wrong: Vec<Finding>,
}

impl<'a> Reader<'a> {
    fn read(&mut self, ssh_server: bool) -> Preseed {
        let mut preseed = Preseed::default();
        self.check_version();
        if let Some(name) = self.text_of("system", "hostname") {
            match hostname::parse(name.trim()) {
                Some(name) => {
                    preseed
                        .files
                        .insert("hostname".to_owned(), format!("{name}\n").into_bytes());
                }
                None => self.refuse("system", "hostname", hostname::WHAT, hostname::NEXT),
            }
        }
        self.read_ssh(ssh_server, &mut preseed);
        if let Some(networks) = self.read_wlan() {
            preseed
                .files
                .insert("wpa_supplicant.conf".to_owned(), networks);
        }
        for (table, value) in self.top {
            match table.as_str() {
                "config_version" | "system" | "ssh" | "wlan" => {}
                _ if value.is_table() => preseed.passed_over.push(format!("[{table}]")),
                _ => preseed.passed_over.push(table.clone()),
            }
        }
        preseed
    }

    /// Another major version may mean something else by the same keys.
    fn check_version(&mut self) {
        let version = match self.top.get("config_version") {
            None => return,
            Some(Value::String(version)) => version.clone(),
            Some(version) => version.to_string(),
        };
        if version.split('.').next() != Some("1") {
            self.refuse(
                "",
                "config_version",
                "the file is of a version that is not known here",
                "take an Imager that writes version 1, or fill site/ in with a text editor",
            );
        }
    }

    fn read_ssh(&mut self, ssh_server: bool, preseed: &mut Preseed) {
        let enabled = self.switch_of("ssh", "enabled", true);
        let by_password = self.switch_of("ssh", "password_authentication", false);
        let keys = self.keys(preseed);
        if !enabled || (keys.is_empty() && !by_password) {
            return;
        }
        if !ssh_server {
            preseed.findings.push(Finding::of_file(
                "it asks for SSH, and this image has no SSH server",
                NOBODY,
                "take an image that was made with --ssh-key, or do without",
            ));
        } else if keys.is_empty() {
            preseed.findings.push(Finding::of_file(
                "it asks for SSH by password, which there is not",
                NOBODY,
                "put a public key into site/authorized_keys, or give one in Raspberry Pi Imager",
            ));
        } else {
            let lines: String = keys.iter().map(|key| format!("{key}\n")).collect();
            preseed
                .files
                .insert("authorized_keys".to_owned(), lines.into_bytes());
        }
    }

    /// Returns the keys that are some; the others are told.
    fn keys(&self, preseed: &mut Preseed) -> Vec<&'a str> {
        const KEY: &str = "authorized_keys";
        let Some(value) = self.value_of("ssh", KEY) else {
            return Vec::new();
        };
        let Some(items) = value.as_array() else {
            preseed.findings.push(Finding {
                line: line_of_key(self.text, "ssh", KEY),
                ..Finding::of_file(
                    format!("{KEY} of [ssh]: the keys are no list"),
                    NOBODY,
                    "put their lines into site/authorized_keys",
                )
            });
            return Vec::new();
        };
        let mut keys = Vec::new();
        for (item, line) in items.iter().zip(lines_of_items(self.text, "ssh", KEY)) {
            // What was pasted may have several lines.
            let lines = item.as_str().unwrap_or("-").lines().map(str::trim);
            for key in lines.filter(|key| !key.is_empty()) {
                match ssh_keys::wrong_with(key) {
                    Some((what, next)) => preseed.findings.push(Finding::at(
                        line,
                        format!("{KEY} of [ssh]: {what}"),
                        ssh_keys::LEFT_OUT,
                        next,
                    )),
                    None => keys.push(key),
                }
            }
        }
        keys
    }

    /// Returns wpa_supplicant.conf for the network, if there is one.
    fn read_wlan(&mut self) -> Option<Vec<u8>> {
        let ssid = self.ssid()?;
        let hidden = self.switch_of("wlan", "hidden", false);
        let country = self.country();
        let password = self
            .text_of("wlan", "password")
            .filter(|text| !text.is_empty());
        let is_key = self.switch_of("wlan", "password_encrypted", false);
        let way = self.text_of("wlan", "key_mgmt");
        let way = way.unwrap_or(match password {
            Some(_) => "wpa-psk",
            None => "none",
        });
        let security = match (way, password) {
            ("none", _) => "\tkey_mgmt=NONE\n".to_owned(),
            ("owe", _) => "\tkey_mgmt=OWE\n\tieee80211w=2\n".to_owned(),
            ("wpa-psk", Some(password)) => {
                format!(
                    "\tkey_mgmt=WPA-PSK\n\tpsk={}\n",
                    self.psk(password, is_key)?
                )
            }
            ("sae", Some(password)) if !is_key && password.len() < 64 => format!(
                "\tkey_mgmt=SAE\n\tpsk={}\n\tieee80211w=2\n",
                self.psk(password, false)?
            ),
            ("wpa-psk" | "sae", _) => {
                self.refuse(
                    "wlan",
                    "key_mgmt",
                    "the network's passphrase is missing",
                    "add `password = \"...\"` to [wlan]; WPA3 needs the passphrase itself",
                );
                return None;
            }
            _ => {
                self.refuse(
                    "wlan",
                    "key_mgmt",
                    "this is no way to agree on keys",
                    "write \"wpa-psk\", \"sae\", \"owe\" or \"none\"",
                );
                return None;
            }
        };
        let mut file = "ctrl_interface=/run/wpa_supplicant\nupdate_config=0\n".to_owned();
        if let Some(country) = country {
            file += &format!("country={country}\n");
        }
        if way == "sae" {
            file += "sae_pwe=2\n";
        }
        let name: String = ssid.iter().map(|byte| format!("{byte:02x}")).collect();
        file += &format!("\nnetwork={{\n\tssid={name}\n");
        if hidden {
            file += "\tscan_ssid=1\n";
        }
        file += &format!("{security}}}\n");
        // Where quotes do not come in pairs, `#` begins a comment.
        if !supplicant::check(file.as_bytes(), &BTreeSet::new())
            .1
            .is_empty()
        {
            self.refuse(
                "wlan",
                "password",
                "wpa_supplicant.conf cannot hold the passphrase, because of `\"` and `#` in it",
                "give the key as 64 hexadecimal digits; `wpa_passphrase` makes it",
            );
        }
        Some(file.into_bytes())
    }

    /// The network's name: text, or its bytes in hexadecimal where it is none.
    fn ssid(&mut self) -> Option<Vec<u8>> {
        let (key, name) = match self.text_of("wlan", "ssid_hex") {
            Some(hex) => ("ssid_hex", supplicant::from_hex(hex.as_bytes())),
            None => (
                "ssid",
                Some(self.text_of("wlan", "ssid")?.as_bytes().to_vec()),
            ),
        };
        let name = name.filter(|name| (1..=32).contains(&name.len()));
        if name.is_none() {
            self.refuse(
                "wlan",
                key,
                "the network's name does not have 1 to 32 bytes",
                "write it as the access point has it",
            );
        }
        name
    }

    fn country(&mut self) -> Option<String> {
        let country = self.text_of("wlan", "country")?.trim();
        if country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Some(country.to_ascii_uppercase());
        }
        self.refuse(
            "wlan",
            "country",
            "the country is not two letters",
            "write its code of ISO 3166, such as \"DE\"",
        );
        None
    }

    /// The value of wpa_supplicant's `psk=`, which takes what is in quotes to the last of them and knows no escapes.
    fn psk(&mut self, password: &str, is_key: bool) -> Option<String> {
        let is_hex = password.len() == 64 && password.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_passphrase = (8..=63).contains(&password.len())
            && password.chars().all(|character| !character.is_control());
        if is_hex {
            return Some(password.to_owned());
        }
        if is_passphrase && !is_key {
            return Some(format!("\"{password}\""));
        }
        self.refuse(
            "wlan",
            "password",
            match is_key {
                true => "the key is not 64 hexadecimal digits",
                false => "the passphrase does not have 8 to 63 bytes",
            },
            "write it as the access point has it",
        );
        None
    }

    fn text_of(&mut self, table: &str, key: &str) -> Option<&'a str> {
        let value = self.value_of(table, key)?;
        if value.as_str().is_none() {
            self.refuse(table, key, "this is no text", "put it in double quotes");
        }
        value.as_str()
    }

    fn switch_of(&mut self, table: &str, key: &str, default: bool) -> bool {
        let Some(value) = self.value_of(table, key) else {
            return default;
        };
        if value.as_bool().is_none() {
            self.refuse(
                table,
                key,
                "this is neither true nor false",
                "write true or false, without quotes",
            );
        }
        value.as_bool().unwrap_or(default)
    }

    fn value_of(&self, table: &str, key: &str) -> Option<&'a Value> {
        self.top.get(table)?.as_table()?.get(key)
    }

    fn refuse(&mut self, table: &str, key: &str, what: &str, next: &str) {
        let place = match table {
            "" => key.to_owned(),
            table => format!("{key} of [{table}]"),
        };
        let finding = Finding {
            line: line_of_key(self.text, table, key),
            ..Finding::of_file(format!("{place}: {what}"), NOT_USED, next)
        };
        self.wrong.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@example";

    fn check(text: &str, expected: Expect) {
        let mut shown = String::new();
        let findings = match parse(text.as_bytes(), true) {
            Ok(preseed) => {
                for (name, bytes) in &preseed.files {
                    shown += &format!("== {name}\n{}", String::from_utf8_lossy(bytes));
                    if name == "wpa_supplicant.conf" {
                        let (kept, findings) = supplicant::check(bytes, &Default::default());
                        assert_eq!((&kept, findings), (bytes, Vec::new()));
                    }
                }
                shown += &format!("passed over: {}\n", preseed.passed_over.join(", "));
                preseed.findings
            }
            Err(findings) => findings,
        };
        for finding in findings {
            let line = finding.line.map_or("-".to_owned(), |line| line.to_string());
            let told = format!(
                "{line}: {}; {}; {}\n",
                finding.what, finding.effect, finding.next
            );
            assert!(!told.contains("secret"), "{told}");
            shown += &told;
        }
        expected.assert_eq(&shown);
    }

    /// What Imager 2 writes if everything is filled in.
    #[test]
    fn what_imager_writes_becomes_files_of_the_site() {
        let text = format!(
            "config_version = \"1.0\"\n\n[system]\nhostname = \"attic\"\n\n[user]\nname = \"pi\"\npassword = \"$y$secret\"\n\
             password_encrypted = true\ngroups = [\"sudo\"]\n\n[ssh]\nenabled = true\npassword_authentication = false\n\
             authorized_keys = [\n  \"{KEY}\",\n]\n\n[wlan]\nssid = \"My\\\"Net\\\\\"\npassword = \"{}\"\npassword_encrypted = true\n\
             hidden = true\ncountry = \"GB\"\n\n[locale]\nkeymap = \"gb\"\ntimezone = \"Europe/London\"\n",
            "ab".repeat(32)
        );
        check(
            &text,
            expect![[r#"
            == authorized_keys
            ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@example
            == hostname
            attic
            == wpa_supplicant.conf
            ctrl_interface=/run/wpa_supplicant
            update_config=0
            country=GB

            network={
            	ssid=4d79224e65745c
            	scan_ssid=1
            	key_mgmt=WPA-PSK
            	psk=abababababababababababababababababababababababababababababababab
            }
            passed over: [locale], [user]
        "#]],
        );
    }

    #[test]
    fn each_kind_of_network_is_taken() {
        for (wlan, expected) in [
            (
                "ssid = \"a\"\nhidden = false\n",
                expect![[r#"
                == wpa_supplicant.conf
                ctrl_interface=/run/wpa_supplicant
                update_config=0

                network={
                	ssid=61
                	key_mgmt=NONE
                }
                passed over: 
            "#]],
            ),
            (
                "ssid_hex = \"fffe4142\"\npassword = \"a \\\"secret\\\"\"\npassword_encrypted = false\n",
                expect![[r#"
                    == wpa_supplicant.conf
                    ctrl_interface=/run/wpa_supplicant
                    update_config=0

                    network={
                    	ssid=fffe4142
                    	key_mgmt=WPA-PSK
                    	psk="a "secret""
                    }
                    passed over: 
                "#]],
            ),
            (
                "ssid = \"a\"\npassword = \"a secret\"\nkey_mgmt = \"sae\"\ncountry = \"de\"\n",
                expect![[r#"
                    == wpa_supplicant.conf
                    ctrl_interface=/run/wpa_supplicant
                    update_config=0
                    country=DE
                    sae_pwe=2

                    network={
                    	ssid=61
                    	key_mgmt=SAE
                    	psk="a secret"
                    	ieee80211w=2
                    }
                    passed over: 
                "#]],
            ),
            (
                "ssid = \"a\"\nkey_mgmt = \"owe\"\n",
                expect![[r#"
                == wpa_supplicant.conf
                ctrl_interface=/run/wpa_supplicant
                update_config=0

                network={
                	ssid=61
                	key_mgmt=OWE
                	ieee80211w=2
                }
                passed over: 
            "#]],
            ),
        ] {
            check(&format!("[wlan]\n{wlan}"), expected);
        }
    }

    #[test]
    fn each_fault_is_named_and_no_secret() {
        check(
            "[wlan]\nssid = \"home\npassword = \"secret\"\n",
            expect![[r#"
                2: this is not written as TOML; nothing of the file is used, and it stays where it is; correct it, or write the card anew with Raspberry Pi Imager
            "#]],
        );
        check(
            "config_version = 2\n[system]\nhostname = \"my host\"\n[ssh]\nenabled = \"yes\"\n\n\
             [wlan]\nssid = 7\nhidden = 1\n",
            expect![[r#"
                1: config_version: the file is of a version that is not known here; nothing of the file is used, and it stays where it is; take an Imager that writes version 1, or fill site/ in with a text editor
                3: hostname of [system]: this is no host name; nothing of the file is used, and it stays where it is; write 1 to 63 letters, digits and hyphens, none of those at an end
                5: enabled of [ssh]: this is neither true nor false; nothing of the file is used, and it stays where it is; write true or false, without quotes
                8: ssid of [wlan]: this is no text; nothing of the file is used, and it stays where it is; put it in double quotes
            "#]],
        );
        for wlan in [
            "ssid_hex = \"f\"\n",
            "ssid = \"\"\n",
            "ssid = \"a\"\npassword = \"secret\"\n",
            "ssid = \"a\"\npassword = \"a secret\"\npassword_encrypted = true\n",
            "ssid = \"a\"\nkey_mgmt = \"sae\"\n",
            "ssid = \"a\"\nkey_mgmt = \"wep\"\n",
            "ssid = \"a\"\ncountry = \"Germany\"\n",
            "ssid = \"a\"\npassword = 12345678\n",
            "ssid = \"a\"\npassword = \"a\\\"secret # b\"\n",
        ] {
            assert_eq!(
                parse(format!("[wlan]\n{wlan}").as_bytes(), true)
                    .unwrap_err()
                    .len(),
                1,
                "{wlan}"
            );
        }
    }

    #[test]
    fn what_is_no_ssh_key_costs_itself_alone() {
        let others = "[system]\nhostname = \"attic\"\n[wlan]\nssid = \"a\"\n";
        check(
            &format!(
                "{others}[ssh]\nauthorized_keys = [\n  \"secret\",\n  \"{KEY}\",\n  7,\n  \"{KEY}2\\n\\n{KEY}3\",\n]\n"
            ),
            expect![[r#"
                == authorized_keys
                ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@example
                ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@example2
                ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@example3
                == hostname
                attic
                == wpa_supplicant.conf
                ctrl_interface=/run/wpa_supplicant
                update_config=0

                network={
                	ssid=61
                	key_mgmt=NONE
                }
                passed over: 
                7: authorized_keys of [ssh]: this is no key of a type that the SSH server takes; this key may not log in; put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
                9: authorized_keys of [ssh]: this is no key of a type that the SSH server takes; this key may not log in; put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            "#]],
        );
        check(
            &format!("{others}[ssh]\nauthorized_keys = \"secret\"\n"),
            expect![[r#"
                == hostname
                attic
                == wpa_supplicant.conf
                ctrl_interface=/run/wpa_supplicant
                update_config=0

                network={
                	ssid=61
                	key_mgmt=NONE
                }
                passed over: 
                6: authorized_keys of [ssh]: the keys are no list; nobody logs in; put their lines into site/authorized_keys
            "#]],
        );
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        check(
            "[ssh]\nenabled = true\npassword_authentication = true\n",
            expect![[r#"
                passed over: 
                -: it asks for SSH by password, which there is not; nobody logs in; put a public key into site/authorized_keys, or give one in Raspberry Pi Imager
            "#]],
        );
        let text = format!("[ssh]\nauthorized_keys = [\"{KEY}\"]\n");
        let preseed = parse(text.as_bytes(), false).unwrap();
        assert_eq!(preseed.files, BTreeMap::new());
        assert_eq!(preseed.findings.len(), 1);
        let off = parse(
            b"[ssh]\nenabled = false\npassword_authentication = true\n",
            false,
        );
        assert_eq!(off.unwrap(), Preseed::default());
    }
}
