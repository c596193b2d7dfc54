//! Changes the files of a card's `site/` as a person wishes: decides what each is to hold, and touches none.
//!
//! A file of which nothing is named stays as it is. In one of which something is, every line stays that says something else, whoever wrote
//! it.

use std::collections::BTreeMap;

use thiserror::Error;

use super::address::UplinkFileError;
use super::agent::AgentError;
use super::{CountryCode, Network, SiteChange};
use crate::make::fat::change::FileChange;
use crate::overlays::Overlays;
use crate::plan::boot::{COMMAND_LINE_FILE, COMMAND_LINE_MAX};
use crate::plan::overlay::OverlayPlanError;
use crate::plan::site::{
    AGENT_FILE, HOSTNAME_FILE, SSH_KEYS_FILE, SUPPLICANT_FILE, UPLINK_FILE, credential_files,
    render_supplicant,
};
use crate::site::secrets::{is_secret_file, without_secret};

/// Files of `site/` by name.
pub type SiteFiles = BTreeMap<String, Vec<u8>>;

/// What says on the boot partition of a card where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The files of `site/`.
    pub site: SiteFiles,
    /// What the kernel is told (`cmdline.txt`), if there is such a file.
    pub command_line: Option<Vec<u8>>,
}

/// What has to happen to the files of a card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsEdit {
    /// Those of `site/`, in an order in which each step leaves a card that works.
    pub site: Vec<FileChange>,
    /// Those beside it.
    pub boot: Vec<FileChange>,
}

impl SettingsEdit {
    /// Whether nothing happens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.site.is_empty() && self.boot.is_empty()
    }

    /// The names of the files that change.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let changes = self.site.iter().chain(&self.boot);
        changes.map(|change| change.name.clone()).collect()
    }
}

/// Why files cannot be changed so.
#[derive(Debug, Error)]
pub enum EditError {
    /// A file without which there is nothing to change.
    #[error("there is no site/{0} on the card")]
    Missing(&'static str),
    /// Not text.
    #[error("site/{0} on the card is not text in UTF-8")]
    NotText(&'static str),
    /// A network without an end.
    #[error("site/wpa_supplicant.conf on the card: what begins on line {0} has no closing brace")]
    Unclosed(usize),
    /// The settings of the bridge.
    #[error("site/footbridge.toml on the card")]
    Agent(#[source] AgentError),
    /// The address.
    #[error("site/uplink.network on the card")]
    Uplink(#[source] UplinkFileError),
    /// The kernel's command line.
    #[error(
        "cmdline.txt on the card: with the country it would have {0} bytes, and there is room for {COMMAND_LINE_MAX}"
    )]
    CommandLine(usize),
    /// The template.
    #[error(transparent)]
    Template(#[from] OverlayPlanError),
}

impl EditError {
    /// Returns what can be done about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Agent(error) => error.hint(),
            Self::Missing(_) => "set that on the card with a text editor, or make the image anew".to_owned(),
            Self::NotText(_) | Self::Unclosed(_) | Self::Uplink(_) => {
                "put the file right with a text editor, or delete it from the card's site/ and set everything it says anew".to_owned()
            }
            Self::CommandLine(_) => {
                "shorten the line on the card with a text editor; its end may go, from what was added to it on".to_owned()
            }
            Self::Template(_) => "overlays/site/ is not whole".to_owned(),
        }
    }
}

/// Returns what has to happen to the files of a card.
pub fn edit_settings(
    settings: &Settings,
    change: &SiteChange,
    overlays: &Overlays,
) -> Result<SettingsEdit, EditError> {
    let site = edit_site(&settings.site, change, overlays)?;
    let mut boot = Vec::new();
    // A card without a command line has none that speaks of another country.
    if let (Some(country), Some(old)) = (&change.country, &settings.command_line) {
        let new = edit_command_line(old, country);
        if new.len() > COMMAND_LINE_MAX && new.len() > old.len() {
            return Err(EditError::CommandLine(new.len()));
        }
        if new != *old {
            boot.push(FileChange {
                name: COMMAND_LINE_FILE.to_owned(),
                contents: Some(new),
            });
        }
    }
    Ok(SettingsEdit { site, boot })
}

/// How the kernel is told the country before there is a supplicant (Documentation/admin-guide/kernel-parameters, `cfg80211`).
const COUNTRY_PARAMETER: &[u8] = b"cfg80211.ieee80211_regdom=";

/// Puts the country in place of the one on a command line, or at the end of what is for the kernel. All else stays, byte for byte.
fn edit_command_line(line: &[u8], country: &CountryCode) -> Vec<u8> {
    let said = [COUNTRY_PARAMETER, country.to_string().as_bytes()].concat();
    let mut words = words(line);
    // What follows two hyphens is for the first program.
    let kernel = words.iter().position(|word| &line[word.clone()] == b"--");
    words.truncate(kernel.unwrap_or(words.len()));
    let end = words.last().map_or(0, |word| word.end);
    let old = words
        .into_iter()
        .filter(|word| line[word.clone()].starts_with(COUNTRY_PARAMETER));
    let mut edited = Vec::new();
    let mut copied = 0;
    for word in old {
        edited.extend_from_slice(&line[copied..word.start]);
        edited.extend_from_slice(&said);
        copied = word.end;
    }
    if copied == 0 {
        edited.extend_from_slice(&line[..end]);
        if end > 0 {
            edited.push(b' ');
        }
        edited.extend_from_slice(&said);
        if end == 0 && line.iter().any(|byte| !byte.is_ascii_whitespace()) {
            edited.push(b' ');
        }
        copied = end;
    }
    edited.extend_from_slice(&line[copied..]);
    edited
}

/// Where the words of a command line are; white space between double quotes is part of a word.
fn words(line: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut words = Vec::new();
    let mut begin = None;
    let mut quoted = false;
    for (at, byte) in line.iter().enumerate() {
        quoted ^= *byte == b'"';
        match (begin, byte.is_ascii_whitespace() && !quoted) {
            (None, false) => begin = Some(at),
            (Some(first), true) => {
                words.push(first..at);
                begin = None;
            }
            (None, true) | (Some(_), false) => {}
        }
    }
    words.extend(begin.map(|first| first..line.len()));
    words
}

/// Returns what has to happen to the files of `site/`, in an order in which each step leaves a card that works: certificates come before the
/// file that names them, and go after it.
pub fn edit_site(
    files: &SiteFiles,
    change: &SiteChange,
    overlays: &Overlays,
) -> Result<Vec<FileChange>, EditError> {
    let mut wanted: Vec<(String, Option<Vec<u8>>)> = Vec::new();
    let mut put = |name: &str, contents: Vec<u8>| wanted.push((name.to_owned(), Some(contents)));
    if let Some(name) = &change.hostname {
        put(HOSTNAME_FILE, format!("{name}\n").into_bytes());
    }
    if let Some(keys) = &change.ssh_keys {
        put(SSH_KEYS_FILE, (keys.lines().join("\n") + "\n").into_bytes());
    }
    if let Some(address) = &change.address {
        let template = overlays.site.get(UPLINK_FILE).map(|bytes| bytes.to_vec());
        let text = text_of(files, UPLINK_FILE, template)?;
        put(
            UPLINK_FILE,
            address.edit(&text).map_err(EditError::Uplink)?.into_bytes(),
        );
    }
    if !change.agent.is_empty() {
        let text = text_of(files, AGENT_FILE, None)?;
        put(
            AGENT_FILE,
            change
                .agent
                .edit(&text)
                .map_err(EditError::Agent)?
                .into_bytes(),
        );
    }
    for (name, bytes) in credential_files(change.networks.as_deref().unwrap_or_default()) {
        put(&name, bytes.to_vec());
    }
    if change.networks.is_some() || change.country.is_some() {
        let text = edit_supplicant(files, change, overlays)?;
        put(SUPPLICANT_FILE, text.clone().into_bytes());
        let gone = files
            .keys()
            .filter(|name| is_credential(name) && !text.contains(name.as_str()));
        wanted.extend(gone.map(|name| (name.clone(), None)));
    }
    Ok(wanted
        .into_iter()
        .filter(|(name, contents)| files.get(name) != contents.as_ref())
        .map(|(name, contents)| FileChange { name, contents })
        .collect())
}

/// Shows the settings with every secret hidden: the files of `site/`, and what the kernel is told of them.
pub fn show_settings(settings: &Settings) -> String {
    let mut shown = show_site(&settings.site);
    let line = settings.command_line.as_deref().unwrap_or_default();
    let said: Vec<_> = words(line)
        .into_iter()
        .map(|word| &line[word])
        .filter(|word| word.starts_with(COUNTRY_PARAMETER))
        .collect();
    if !said.is_empty() {
        shown.push_str(&format!("{COMMAND_LINE_FILE}:\n"));
    }
    for word in said {
        shown.push_str(&format!("    {}\n", word.escape_ascii()));
    }
    shown
}

/// Shows the files with every secret hidden. Comments are shown too, but for those that a secret is in.
pub fn show_site(files: &SiteFiles) -> String {
    let mut shown = String::new();
    for (name, bytes) in files {
        if name.eq_ignore_ascii_case("README.txt") {
            continue;
        }
        shown.push_str(&format!("site/{name}:\n"));
        match str::from_utf8(bytes) {
            _ if is_secret_file(name) => {
                shown.push_str(&format!(
                    "    ({} bytes of a certificate or key)\n",
                    bytes.len()
                ));
            }
            Ok(text) => {
                for line in text.lines() {
                    shown.push_str(format!("    {}", without_secret(line)).trim_end());
                    shown.push('\n');
                }
            }
            Err(_) => shown.push_str(&format!("    ({} bytes that are no text)\n", bytes.len())),
        }
    }
    shown
}

fn text_of(
    files: &SiteFiles,
    name: &'static str,
    otherwise: Option<Vec<u8>>,
) -> Result<String, EditError> {
    let bytes = files.get(name).cloned().or(otherwise);
    let bytes = bytes.ok_or(EditError::Missing(name))?;
    String::from_utf8(bytes).map_err(|_| EditError::NotText(name))
}

/// Whether a file is a certificate or key that was put there by this program, not by hand.
fn is_credential(name: &str) -> bool {
    let name = name
        .strip_suffix(".pem")
        .and_then(|name| name.rsplit_once('-'));
    name.is_some_and(|(role, digest)| {
        matches!(role, "ca" | "certificate" | "key")
            && digest.len() == 8
            && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn edit_supplicant(
    files: &SiteFiles,
    change: &SiteChange,
    overlays: &Overlays,
) -> Result<String, EditError> {
    let networks: &[Network] = change.networks.as_deref().unwrap_or_default();
    let fresh = render_supplicant(overlays, networks, change.country.as_ref())?;
    if !files.contains_key(SUPPLICANT_FILE) {
        return Ok(fresh);
    }
    let text = text_of(files, SUPPLICANT_FILE, None)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut old = Supplicant::parse(text)?;
    let fresh = Supplicant::parse(&fresh)?;
    if change.country.is_some() {
        let line = fresh.globals.iter().find(|line| is_set(line, "country"));
        old.set("country", line.cloned());
    }
    if change.networks.is_some() {
        let sae = fresh
            .globals
            .iter()
            .position(|line| is_set(line, "sae_pwe"));
        if let Some(at) = sae.filter(|_| !old.globals.iter().any(|line| is_set(line, "sae_pwe"))) {
            // With the comment above it.
            old.globals
                .extend_from_slice(&fresh.globals[at.saturating_sub(1)..=at]);
        }
        old.titles = fresh.titles;
        old.networks = fresh.networks;
    }
    Ok(old.text())
}

/// A wpa_supplicant.conf, taken apart as far as it is changed. No line is lost.
struct Supplicant {
    /// Comments that name the networks.
    titles: Vec<String>,
    /// Everything outside of networks.
    globals: Vec<String>,
    networks: Vec<String>,
}

impl Supplicant {
    fn parse(text: &str) -> Result<Self, EditError> {
        let mut file = Self {
            titles: Vec::new(),
            globals: Vec::new(),
            networks: Vec::new(),
        };
        let mut open: Option<usize> = None;
        for (index, line) in text.lines().enumerate() {
            let whole = format!("{line}\n");
            let trimmed = line.trim();
            match open {
                Some(_) => {
                    file.networks.push(whole);
                    if trimmed.starts_with('}') {
                        open = None;
                    }
                }
                None if opens_network(trimmed) => {
                    file.networks.push("\n".to_owned());
                    file.networks.push(whole);
                    open = Some(index + 1);
                }
                None if trimmed.starts_with("# Network: ") => file.titles.push(whole),
                None => file.globals.push(whole),
            }
        }
        if let Some(line) = open {
            return Err(EditError::Unclosed(line));
        }
        let blank = |line: &String| line.trim().is_empty();
        while file.globals.last().is_some_and(blank) {
            file.globals.pop();
        }
        Ok(file)
    }

    /// Puts a setting in place of the one there, or below all others.
    fn set(&mut self, key: &str, line: Option<String>) {
        let Some(line) = line else { return };
        match self.globals.iter().position(|line| is_set(line, key)) {
            Some(at) => self.globals[at] = line,
            None => self.globals.push(line),
        }
    }

    fn text(&self) -> String {
        [&self.titles, &self.globals, &self.networks]
            .map(|lines| lines.concat())
            .concat()
    }
}

/// wpa_supplicant(5) takes `network={` and white space around its parts.
fn opens_network(line: &str) -> bool {
    let rest = line.strip_prefix("network").map(str::trim_start);
    let rest = rest
        .and_then(|rest| rest.strip_prefix('='))
        .map(str::trim_start);
    rest.is_some_and(|rest| rest.starts_with('{'))
}

fn is_set(line: &str, key: &str) -> bool {
    let rest = line.trim_start().strip_prefix(key);
    rest.is_some_and(|rest| rest.trim_start().starts_with('='))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use expect_test::expect;

    use super::*;
    use crate::credentials::{Psk, Security, Ssid};
    use crate::overlays::load_overlays;
    use crate::site::{CountryCode, Hostname};

    fn overlays() -> Overlays {
        load_overlays(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlays")).unwrap()
    }

    fn joins(ssid: &str) -> Vec<Network> {
        let security = Security::Wpa2(Psk::parse(b"open sesame").unwrap());
        vec![Network::new(Ssid::new(ssid).unwrap(), security)]
    }

    fn files(text: &str) -> SiteFiles {
        [
            (SUPPLICANT_FILE.to_owned(), text.into()),
            ("ca-01234567.pem".to_owned(), b"old".to_vec()),
            ("mine.pem".to_owned(), b"by hand".to_vec()),
            (HOSTNAME_FILE.to_owned(), b"attic\n".to_vec()),
        ]
        .into()
    }

    #[test]
    fn networks_change_and_what_was_written_by_hand_stays() {
        let by_hand = "\u{feff}# Network: old\r\nctrl_interface=/run/wpa_supplicant\r\n# mine\r\nbgscan=\"simple:30:-70:3600\"\r\ncountry=FR\r\n\r\nnetwork={\r\n  ssid=\"old\"\r\n  psk=\"old secret\"\r\n}\r\n";
        let change = SiteChange {
            networks: Some(joins("new")),
            ..SiteChange::default()
        };
        let changes = edit_site(&files(by_hand), &change, &overlays()).unwrap();
        let names: Vec<_> = changes
            .iter()
            .map(|change| (&*change.name, change.contents.is_some()))
            .collect();
        assert_eq!(names, [(SUPPLICANT_FILE, true), ("ca-01234567.pem", false)]);
        let text = String::from_utf8(changes[0].contents.clone().unwrap()).unwrap();
        expect![[r##"
            # Network: new
            ctrl_interface=/run/wpa_supplicant
            # mine
            bgscan="simple:30:-70:3600"
            country=FR

            network={
            	# The name of the network, its bytes in hexadecimal. A name in double quotes is fine too: ssid="name"
            	ssid=6e6577
            	scan_ssid=1
            	key_mgmt=WPA-PSK
            	# The key, as 64 hexadecimal digits. A passphrase in double quotes is fine too: psk="passphrase"
            	psk=45f25534cf3cdd41b3705ad20c5187230a2c37daacb3262ee1c0989af4b9097c
            }
        "##]].assert_eq(&text);
        let change = SiteChange {
            country: Some(CountryCode::parse("DE").unwrap()),
            ..SiteChange::default()
        };
        let changes = edit_site(&files(&text), &change, &overlays()).unwrap();
        let edited = String::from_utf8(changes[0].contents.clone().unwrap()).unwrap();
        assert_eq!(edited, text.replace("country=FR", "country=DE"));
    }

    #[test]
    fn nothing_changes_that_is_so_already() {
        let change = SiteChange {
            hostname: Some(Hostname::parse("attic").unwrap()),
            ..SiteChange::default()
        };
        assert_eq!(edit_site(&files(""), &change, &overlays()).unwrap(), []);
    }

    #[test]
    fn a_broken_file_is_said_to_be_so() {
        let change = SiteChange {
            networks: Some(joins("new")),
            ..SiteChange::default()
        };
        let refused = |text: &str| {
            let error = edit_site(&files(text), &change, &overlays()).unwrap_err();
            format!("{error}\n{}", error.hint())
        };
        expect![[r#"
            site/wpa_supplicant.conf on the card: what begins on line 2 has no closing brace
            put the file right with a text editor, or delete it from the card's site/ and set everything it says anew"#]]
        .assert_eq(&refused("\nnetwork={\nssid=\"x\"\n"));
    }

    #[test]
    fn the_kernel_is_told_the_country_too() {
        for (line, expected) in [
            ("", "R=DE"),
            ("quiet\n", "quiet R=DE\n"),
            ("quiet  \r\n", "quiet R=DE  \r\n"),
            ("R=FR", "R=DE"),
            ("a R=FR quiet R=\n", "a R=DE quiet R=DE\n"),
            ("a=\"R=FR R=FR\" R=DE", "a=\"R=FR R=FR\" R=DE"),
            ("a -- R=FR", "a R=DE -- R=FR"),
            ("-- a", "R=DE -- a"),
        ] {
            let whole = |text: &str| text.replace("R=", "cfg80211.ieee80211_regdom=");
            let country = CountryCode::parse("DE").unwrap();
            let edited = edit_command_line(whole(line).as_bytes(), &country);
            assert_eq!(
                String::from_utf8(edited).unwrap(),
                whole(expected),
                "{line}"
            );
        }
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let change = SiteChange {
            country: Some(CountryCode::parse("DE").unwrap()),
            ..SiteChange::default()
        };
        let edit = |line: &str| {
            let settings = Settings {
                site: files("country=DE\n"),
                command_line: Some(line.into()),
            };
            edit_settings(&settings, &change, &overlays())
        };
        let said = "cfg80211.ieee80211_regdom=DE";
        let room = COMMAND_LINE_MAX - said.len() - 1;
        assert_eq!(edit(&"x".repeat(room)).unwrap().boot[0].name, "cmdline.txt");
        let error = edit(&"x".repeat(room + 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cmdline.txt on the card: with the country it would have 1024 bytes, and there is room for 1023"
        );
        // It is too long already, and does not become longer.
        let long = format!("{} {said}", "x".repeat(2000));
        assert!(edit(&long).unwrap().boot.is_empty());
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        let text = "country=DE\nnetwork={\n\tssid=6e6577\n\tpsk=\"secret\"\n\t#psk=\"secret\"\n# so: network={ psk=\"secret\"\n private_key_passwd = \"secret\"\n}\n";
        let mut files = files(text);
        files.insert("key-01234567.pem".to_owned(), b"secret".to_vec());
        let shown = show_site(&files);
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("ssid=6e6577    (new)"), "{shown}");
    }
}
