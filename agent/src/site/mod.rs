//! The files of `site/` on the card: checked at the start of the system and laid over the root, so far as they are good.
//!
//! ```text
//! boot partition --(rpi-preseed.toml taken over)--> site/ --check--> files for the layer   + faults, for console and status
//! ```
//!
//! A person edits these files on another computer, and the device has to come up whatever they say. So what is wrong with a file costs as
//! little of it as can be: a network, a line, or the file, for which the root has a default. [`check_site`] is pure; `lay.rs` reads the
//! partition and writes the layer.

mod boot_partition;
mod fault;
mod hostname;
mod lay;
mod preseed;
mod ssh_keys;
mod supplicant;
mod text;
mod uplink;

use std::collections::{BTreeMap, BTreeSet};

use self::fault::Finding;
pub use self::fault::{Fault, load_faults};
pub use self::lay::{Folders, lay_site};
use crate::config::{Overrides, line_of_error, parse_config};

/// Where the list of faults lies in the layer, and so in the root.
pub const FAULTS: &str = "etc/footbridge/site-faults.json";

/// Faults of one file that are told; a file that is something else altogether has one a line.
const MOST_FAULTS: usize = 8;
/// Faults of all files that are told; a folder may hold any number of files with names that are nearly right.
const MOST_FAULTS_OF_ALL: usize = 64;

const SUPPLICANT: &str = "wpa_supplicant.conf";
const UPLINK: &str = "uplink.network";
const HOSTNAME: &str = "hostname";
const AGENT: &str = "footbridge.toml";
const SSH_KEYS: &str = "authorized_keys";

/// What `site/` holds, by name: the bytes, or why a file cannot be read.
pub type SiteFiles = BTreeMap<String, Result<Vec<u8>, String>>;

/// A file of `site/` that is laid over the root, or all those whose names end alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name; `*.pem` stands for all that end so.
    name: String,
    mode: u32,
    /// Where it goes, relative to the root; a star at its end stands for the file's own name.
    destination: String,
}

/// A file for the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaidFile {
    /// Where it goes, relative to the root.
    pub destination: String,
    /// Its permissions.
    pub mode: u32,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// What came of `site/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What is good.
    pub files: Vec<LaidFile>,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What is neither: for the console.
    pub notes: Vec<String>,
}

impl Rule {
    /// Parses a table: name, mode in octal digits and destination, a line each.
    pub fn parse_table(text: &str) -> Option<Vec<Rule>> {
        let rule = |line: &str| {
            let mut words = line.split_whitespace();
            Some(Rule {
                name: words.next()?.to_owned(),
                mode: u32::from_str_radix(words.next()?, 8).ok()?,
                destination: words.next()?.to_owned(),
            })
        };
        text.lines().map(rule).collect()
    }

    /// FAT does not tell capitals from small letters.
    fn is_for(&self, name: &str) -> bool {
        match self.name.strip_prefix('*') {
            Some(end) => {
                let at = name.len().saturating_sub(end.len());
                name.get(at..)
                    .is_some_and(|found| found.eq_ignore_ascii_case(end))
                    && at > 0
            }
            None => self.name.eq_ignore_ascii_case(name),
        }
    }

    /// Certificates and keys are the files of any name.
    fn is_certificate(&self) -> bool {
        self.name.starts_with('*')
    }

    fn file(&self, name: &str, bytes: Vec<u8>) -> LaidFile {
        let destination = match self.destination.strip_suffix('*') {
            Some(folder) => format!("{folder}{name}"),
            None => self.destination.clone(),
        };
        LaidFile {
            destination,
            mode: self.mode,
            bytes,
        }
    }

    /// The interface that networkd's file is about: `08-wlan0.network`.
    fn interface(&self) -> &str {
        let name = self.destination.rsplit('/').next().unwrap_or_default();
        let stem = name.strip_suffix(".network").unwrap_or(name);
        stem.split_once('-')
            .map_or(stem, |(_, interface)| interface)
    }
}

/// Checks everything. `ssh_server` is whether the root has one.
pub fn check_site(rules: &[Rule], site: &SiteFiles, ssh_server: bool) -> Checked {
    let mut checked = Checked::default();
    let certificates: BTreeSet<&str> = site
        .iter()
        .filter(|(_, read)| read.as_ref().is_ok_and(|bytes| is_certificate(bytes)))
        .map(|(name, _)| name.as_str())
        .collect();
    for (name, read) in site {
        let Some(rule) = rules.iter().find(|rule| rule.is_for(name)) else {
            checked.meet_stranger(name, rules);
            continue;
        };
        let (bytes, findings) = match read {
            Ok(bytes) => check_file(rule, bytes, &certificates, ssh_server),
            Err(reason) => (
                None,
                vec![unreadable(rule, format!("it cannot be read: {reason}"))],
            ),
        };
        checked.tell(&format!("site/{name}"), findings);
        checked
            .files
            .extend(bytes.map(|bytes| rule.file(name, bytes)));
    }
    let has_networks = site
        .keys()
        .any(|name| name.eq_ignore_ascii_case(SUPPLICANT));
    if !has_networks && rules.iter().any(|rule| rule.name == SUPPLICANT) {
        let missing = Finding::of_file(
            "it is not there",
            effect(SUPPLICANT),
            "make it, with a line `network={`, `ssid=\"name\"`, `psk=\"passphrase\"` and a line `}`",
        );
        checked.tell(&format!("site/{SUPPLICANT}"), vec![missing]);
    }
    checked
}

/// Returns what of a file is laid, if anything, and what is wrong with it.
fn check_file(
    rule: &Rule,
    bytes: &[u8],
    certificates: &BTreeSet<&str>,
    ssh_server: bool,
) -> (Option<Vec<u8>>, Vec<Finding>) {
    if rule.is_certificate() {
        return check_certificate(rule, bytes);
    }
    let mended = text::mend(bytes);
    if mended.contains(&0) {
        return (
            None,
            vec![unreadable(
                rule,
                "it holds zeros, as no text does".to_owned(),
            )],
        );
    }
    if rule.name == SUPPLICANT {
        let (kept, findings) = supplicant::check(&mended, certificates);
        return (Some(kept), findings);
    }
    let Ok(text) = std::str::from_utf8(&mended) else {
        return (
            None,
            vec![unreadable(rule, "it is no text in UTF-8".to_owned())],
        );
    };
    match rule.name.as_str() {
        HOSTNAME => hostname::check(text),
        UPLINK => uplink::check(text, rule.interface()),
        AGENT => check_agent(text),
        SSH_KEYS => check_keys(text, ssh_server),
        _ => (Some(mended), Vec::new()),
    }
}

/// A certificate or a key: as text, or the bytes themselves (DER, which begins with a sequence).
fn is_certificate(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x30]) || is_armoured(bytes)
}

fn is_armoured(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ";
    bytes.windows(BEGIN.len()).any(|window| window == BEGIN)
}

fn check_certificate(rule: &Rule, bytes: &[u8]) -> (Option<Vec<u8>>, Vec<Finding>) {
    if is_armoured(bytes) {
        (Some(text::mend(bytes)), Vec::new())
    } else if is_certificate(bytes) {
        (Some(bytes.to_vec()), Vec::new())
    } else {
        let what = "it holds neither a certificate nor a key";
        (None, vec![unreadable(rule, what.to_owned())])
    }
}

fn check_agent(text: &str) -> (Option<Vec<u8>>, Vec<Finding>) {
    match parse_config(text, Overrides::default()) {
        Ok(_) => (Some(text.as_bytes().to_vec()), Vec::new()),
        Err(error) => {
            let finding = Finding {
                line: line_of_error(text, &error),
                ..Finding::of_file(error.in_short(), effect(AGENT), error.hint())
            };
            (None, vec![finding])
        }
    }
}

fn check_keys(text: &str, ssh_server: bool) -> (Option<Vec<u8>>, Vec<Finding>) {
    let (kept, findings) = ssh_keys::check(text);
    if !ssh_server && !kept.is_empty() {
        let finding = Finding::of_file(
            "this image has no SSH server",
            effect(SSH_KEYS),
            "take an image that was made with --ssh-key, or delete the file",
        );
        return (None, vec![finding]);
    }
    // An empty file would start a server that lets nobody in.
    ((!kept.is_empty()).then_some(kept), findings)
}

/// What comes of it where a file is not used at all.
fn effect(name: &str) -> &'static str {
    match name {
        SUPPLICANT => "no network is joined",
        UPLINK => "the address comes by DHCP",
        HOSTNAME => "the device is called footbridge",
        AGENT => "the bridge has its default settings",
        SSH_KEYS => "nobody logs in",
        _ => "it is left out",
    }
}

fn unreadable(rule: &Rule, what: String) -> Finding {
    let next = match rule.is_certificate() {
        true => "copy it anew, as PEM",
        false => "save it anew with a text editor, as plain text in UTF-8",
    };
    Finding::of_file(what, effect(&rule.name), next)
}

impl Checked {
    /// Leaves no more faults and notes than a person reads.
    fn shorten(&mut self) {
        let more = self.faults.len().saturating_sub(MOST_FAULTS_OF_ALL);
        if more > 0 {
            self.faults.truncate(MOST_FAULTS_OF_ALL);
            let rest = Finding::of_file(
                format!("{more} more things are wrong"),
                "they count as the ones before",
                "put the first ones right; is this the right card?",
            );
            self.faults.push(rest.in_file("site"));
        }
        self.notes.truncate(MOST_FAULTS_OF_ALL);
    }

    fn tell(&mut self, file: &str, findings: Vec<Finding>) {
        let more = findings.len().saturating_sub(MOST_FAULTS);
        let told = findings.into_iter().take(MOST_FAULTS);
        self.faults
            .extend(told.map(|finding| finding.in_file(file)));
        if more > 0 {
            let rest = Finding::of_file(
                format!("{more} more lines are wrong"),
                "they are left out, too",
                "correct the first ones; is this the right file?",
            );
            self.faults.push(rest.in_file(file));
        }
    }

    /// A file that nobody reads may be one that somebody meant to be read.
    fn meet_stranger(&mut self, name: &str, rules: &[Rule]) {
        // What operating systems leave, and the folder's own explanation.
        if name.starts_with('.') || name.eq_ignore_ascii_case("README.txt") {
            return;
        }
        let lower = name.to_ascii_lowercase();
        let is_copy = [".bak", ".old", ".orig", ".swp", "~"]
            .iter()
            .any(|end| lower.ends_with(end));
        let is_near = |known: &&str| {
            let behind = lower.strip_prefix(known);
            behind.is_some_and(|behind| behind.starts_with('.'))
                || strsim::jaro_winkler(&lower, known) > 0.92
        };
        let mut known = rules.iter().map(|rule| rule.name.as_str());
        match known.find(is_near) {
            Some(near) if !is_copy => {
                let finding = Finding::of_file(
                    "no file of this name is read",
                    "it does nothing",
                    format!("rename it to `{near}` if it is meant to be that, or delete it"),
                );
                self.tell(&format!("site/{name}"), vec![finding]);
            }
            _ => self.notes.push(format!(
                "site/{name} is not a file that is read; it is left where it is"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const TABLE: &str = "\
        *.pem 0600 etc/wpa_supplicant/*\n\
        authorized_keys 0600 root/.ssh/authorized_keys\n\
        footbridge.toml 0644 etc/footbridge/footbridge.toml\n\
        hostname 0644 etc/hostname\n\
        uplink.network 0644 etc/systemd/network/08-wlan0.network\n\
        wpa_supplicant.conf 0600 etc/wpa_supplicant/wpa_supplicant-wlan0.conf\n";

    pub(super) fn rules() -> Vec<Rule> {
        Rule::parse_table(TABLE).unwrap()
    }

    fn site(files: &[(&str, &[u8])]) -> SiteFiles {
        let files = files.iter();
        files
            .map(|(name, bytes)| ((*name).to_owned(), Ok(bytes.to_vec())))
            .collect()
    }

    fn show(checked: &Checked) -> String {
        let mut shown = String::new();
        for file in &checked.files {
            shown += &format!("{:04o} {}\n", file.mode, file.destination);
        }
        for note in &checked.notes {
            shown += &format!("note: {note}\n");
        }
        for fault in &checked.faults {
            shown += &format!("fault: {fault}\n");
        }
        shown
    }

    pub(super) const NETWORK: &[u8] = b"network={\r\nssid=\"home\"\r\npsk=\"a secret\"\r\n}\r\n";
    pub(super) const UPLINK_FILE: &[u8] = include_bytes!("../../../overlays/site/uplink.network");

    #[test]
    fn good_files_are_laid_and_mended() {
        let checked = check_site(
            &rules(),
            &site(&[
                (".DS_Store", b"\0"),
                ("CA.PEM", b"-----BEGIN CERTIFICATE-----\r\nAAAA\r\n"),
                ("HOSTNAME", b"\xef\xbb\xbfattic\r\n"),
                ("README.txt", b"hello"),
                ("der.pem", b"\x30\r\n"),
                (
                    "footbridge.toml",
                    b"uplink = \"wlan0\"\r\ndownlink = \"eth0\"\r\n",
                ),
                ("uplink.network", UPLINK_FILE),
                ("wpa_supplicant.conf", NETWORK),
            ]),
            false,
        );
        expect![[r#"
            0600 etc/wpa_supplicant/CA.PEM
            0644 etc/hostname
            0600 etc/wpa_supplicant/der.pem
            0644 etc/footbridge/footbridge.toml
            0644 etc/systemd/network/08-wlan0.network
            0600 etc/wpa_supplicant/wpa_supplicant-wlan0.conf
        "#]]
        .assert_eq(&show(&checked));
        let bytes = |at: usize| String::from_utf8_lossy(&checked.files[at].bytes);
        assert_eq!(bytes(0), "-----BEGIN CERTIFICATE-----\nAAAA\n");
        assert_eq!(bytes(1), "attic\n");
        // Not a text.
        assert_eq!(bytes(2), "0\r\n");
        assert_eq!(
            bytes(5),
            "network={\nssid=\"home\"\npsk=\"a secret\"\n}\nctrl_interface=/run/wpa_supplicant\n"
        );
    }

    #[test]
    fn bad_files_are_left_out_and_told() {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me\n";
        let mut site = site(&[
            ("authorized_keys", key.as_bytes()),
            ("ca.pem", b"hello"),
            (
                "footbridge.toml",
                b"uplink = \"wlan0\"\ndownlink = \"eth0\"\n[dhcp]\nmode = relay\n",
            ),
            ("hostname", b"a\0t\0"),
            ("hostname.txt", b"attic"),
            ("notes.txt", b"hello"),
            ("uplink.network", b"\xff\n"),
            ("wpa_supplicant.conf.bak", b""),
        ]);
        expect![[r#"
            note: site/notes.txt is not a file that is read; it is left where it is
            note: site/wpa_supplicant.conf.bak is not a file that is read; it is left where it is
            fault: site/authorized_keys: this image has no SSH server; nobody logs in; next: take an image that was made with --ssh-key, or delete the file
            fault: site/ca.pem: it holds neither a certificate nor a key; it is left out; next: copy it anew, as PEM
            fault: site/footbridge.toml, line 4: string values must be quoted, expected literal string; the bridge has its default settings; next: the file is TOML: one `key = "value"` a line, below its `[table]` if it has one
            fault: site/hostname: it holds zeros, as no text does; the device is called footbridge; next: save it anew with a text editor, as plain text in UTF-8
            fault: site/hostname.txt: no file of this name is read; it does nothing; next: rename it to `hostname` if it is meant to be that, or delete it
            fault: site/uplink.network: it is no text in UTF-8; the address comes by DHCP; next: save it anew with a text editor, as plain text in UTF-8
            fault: site/wpa_supplicant.conf: it is not there; no network is joined; next: make it, with a line `network={`, `ssid="name"`, `psk="passphrase"` and a line `}`
        "#]].assert_eq(&show(&check_site(&rules(), &site, false)));
        site.insert(
            "hostname".to_owned(),
            Err("it is longer than 64 KiB".to_owned()),
        );
        site.insert(
            "footbridge.toml".to_owned(),
            Ok(b"\n\nuplink = \"wlan0\"\nup = 1\n".to_vec()),
        );
        site.insert(
            "authorized_keys".to_owned(),
            Ok("x\n".repeat(20).into_bytes()),
        );
        site.remove("ca.pem");
        expect![[r#"
            note: site/notes.txt is not a file that is read; it is left where it is
            note: site/wpa_supplicant.conf.bak is not a file that is read; it is left where it is
            fault: site/authorized_keys, line 1: this is no key of a type that the SSH server takes; this key may not log in; next: put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            fault: site/authorized_keys, line 2: this is no key of a type that the SSH server takes; this key may not log in; next: put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            fault: site/authorized_keys, line 3: this is no key of a type that the SSH server takes; this key may not log in; next: put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            fault: site/authorized_keys, line 4: this is no key of a type that the SSH server takes; this key may not log in; next: put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            fault: site/authorized_keys, line 5: this is no key of a type that the SSH server takes; this key may not log in; next: put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            fault: site/authorized_keys, line 6: this is no key of a type that the SSH server takes; this key may not log in; next: put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            fault: site/authorized_keys, line 7: this is no key of a type that the SSH server takes; this key may not log in; next: put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            fault: site/authorized_keys, line 8: this is no key of a type that the SSH server takes; this key may not log in; next: put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            fault: site/authorized_keys: 12 more lines are wrong; they are left out, too; next: correct the first ones; is this the right file?
            fault: site/footbridge.toml, line 4: unknown key `up`; the bridge has its default settings; next: did you mean `uplink`?
            fault: site/hostname: it cannot be read: it is longer than 64 KiB; the device is called footbridge; next: save it anew with a text editor, as plain text in UTF-8
            fault: site/hostname.txt: no file of this name is read; it does nothing; next: rename it to `hostname` if it is meant to be that, or delete it
            fault: site/uplink.network: it is no text in UTF-8; the address comes by DHCP; next: save it anew with a text editor, as plain text in UTF-8
            fault: site/wpa_supplicant.conf: it is not there; no network is joined; next: make it, with a line `network={`, `ssid="name"`, `psk="passphrase"` and a line `}`
        "#]].assert_eq(&show(&check_site(&rules(), &site, true)));
    }

    /// Each file with each of the contents that no editor means: it ends soon, tells little, and what is laid is text.
    #[test]
    fn whatever_a_file_holds_the_start_goes_on() {
        const LONG: usize = 60 << 10;
        let utf16 = |order: fn(u16) -> [u8; 2], mark: &[u8]| {
            let text = "[Match]\r\nName=wlan0\r\n\u{1f600}".encode_utf16();
            [mark, &text.flat_map(order).collect::<Vec<u8>>()].concat()
        };
        let mut contents = vec![
            Vec::new(),
            b"\0".repeat(LONG),
            b"\xff".repeat(LONG),
            utf16(u16::to_le_bytes, b""),
            utf16(u16::to_le_bytes, b"\xff\xfe"),
            utf16(u16::to_be_bytes, b"\xfe\xff"),
            b"\xff\xfe\x00".to_vec(),
            b"\xff\xfe\x00\xd8".to_vec(),
            b"-----BEGIN \0".to_vec(),
        ];
        for piece in [
            "a",
            "=",
            "\"",
            "#",
            "[",
            "]",
            "{",
            "a={",
            "a=[",
            "a.",
            "[a.",
            "[[",
            "[a]\n",
            "\n",
            "\r",
            "\r\n",
            "\\\n",
            "\"\"\"",
            "a=1\n",
            "network={\n",
            "network={\n}\n",
            "cred={\n",
            "psk=\"",
            "Address=",
            "[Network]\n",
            "ssh-ed25519 ",
            "-----BEGIN X-----\n",
            "authorized_keys=[\"\",",
            "\u{202e}",
            "\u{feff}",
            "\u{1b}[2J",
            "\u{7}=\n",
        ] {
            contents.push(piece.repeat(LONG / piece.len()).into_bytes());
        }
        let keys = "\"\",".repeat(LONG / 4);
        contents.push(format!("[ssh]\nauthorized_keys=[{keys}]\n").into_bytes());
        for content in contents {
            let begin = format!(
                "{:?}",
                &content[..content.len().min(40)].escape_ascii().to_string()
            );
            for rule in rules() {
                let name = rule.name.replace('*', "ca");
                let mut checked = check_site(&rules(), &site(&[(&name, &content)]), true);
                checked.shorten();
                let size = serde_json::to_vec(&checked.faults).unwrap().len();
                assert!(size < 64 << 10, "{name}: {begin}: {size}");
                for file in checked.files.iter().filter(|_| !rule.is_certificate()) {
                    assert!(!file.bytes.contains(&0), "{name}: {begin}");
                }
            }
            if let Err(findings) = preseed::parse(&text::mend(&content), true) {
                assert!(findings.len() < 20, "{begin}");
            }
        }
    }

    #[test]
    fn more_files_than_anybody_reads_of_are_counted() {
        let names: Vec<String> = (0..5000)
            .map(|number| format!("hostname.{number}"))
            .collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let mut checked = check_site(&rules(), &site(&files), true);
        checked.shorten();
        assert_eq!(checked.faults.len(), MOST_FAULTS_OF_ALL + 1);
        let last = checked.faults.last().unwrap();
        assert_eq!(
            (last.file.as_str(), last.what.as_str()),
            ("site", "4937 more things are wrong")
        );
    }

    #[test]
    fn a_table_is_whole_or_none() {
        assert_eq!(rules().len(), 6);
        assert_eq!(rules()[4].interface(), "wlan0");
        assert_eq!(Rule::parse_table("hostname 0644\n"), None);
        assert_eq!(Rule::parse_table("hostname rw etc/hostname\n"), None);
    }
}
