//! Where packages come from: the base addresses of Debian's archive and of its security archive.
//!
//! Parses what the host's own package manager is told (`.sources` in deb822 form and one-line `sources.list`); reading those files is
//! `make::fetch`'s part. Nothing here is trusted: whatever a mirror serves is held against Debian's signatures.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::deb822;

/// The mirror used when neither the user nor the host names one: a university's, which carries the security archive too.
pub const FALLBACK_MIRROR: &str = "https://mirrors.ocf.berkeley.edu/debian";

/// The base addresses of the two archives, without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Base of the main archive, the parent of `dists/trixie`.
    pub archive: String,
    /// Base of the security archive, the parent of `dists/trixie-security`.
    pub security: String,
}

/// One of Debian's two archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Archive {
    /// Releases, their updates and backports.
    Main,
    /// Security updates.
    Security,
}

impl Archive {
    /// Returns the archive that serves a suite: `<codename>-security` lives in the security archive, all others in the main one.
    pub fn of_suite(suite: &str) -> Self {
        if suite.ends_with("-security") {
            Archive::Security
        } else {
            Archive::Main
        }
    }
}

/// Text that is no address of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mirror's address begins with http:// or https:// and a host, and has no blanks")]
pub struct MirrorError;

/// Returns an address for people to read: without the name and password that may be in it.
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_owned(),
    }
}

impl Mirror {
    /// Parses what a person says is a mirror.
    pub fn parse(text: &str) -> Result<Self, MirrorError> {
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        rest.filter(|rest| !rest.starts_with('/') && !rest.is_empty())
            .filter(|rest| rest.bytes().all(|byte| byte.is_ascii_graphic()))
            .map(|_| Self::from_url(text))
            .ok_or(MirrorError)
    }

    /// Takes a mirror of the main archive and supposes the security archive beside it, as mirrors lay it out.
    pub fn from_url(url: &str) -> Self {
        let archive = url.trim_end_matches('/').to_owned();
        Mirror {
            security: format!("{archive}-security"),
            archive,
        }
    }

    /// Returns the base address of one of the archives.
    pub fn base(&self, archive: Archive) -> &str {
        match archive {
            Archive::Main => &self.archive,
            Archive::Security => &self.security,
        }
    }

    /// Finds Debian's mirrors in the contents of a host's source lists, whatever release of Debian the host runs; `None` if there is no
    /// mirror of the main archive. Entries of other projects, other schemes than http(s) and switched-off entries are passed over.
    pub fn from_apt_sources(contents: &[String]) -> Option<Self> {
        let entries: Vec<Entry> = contents
            .iter()
            .flat_map(|text| parse_entries(text))
            .filter(Entry::is_debian)
            .collect();
        let first_of = |wanted| {
            entries
                .iter()
                .find(|entry| entry.archive() == wanted)
                .map(|entry| entry.uri.clone())
        };
        let mirror = Mirror::from_url(&first_of(Archive::Main)?);
        Some(Mirror {
            security: first_of(Archive::Security).unwrap_or(mirror.security),
            ..mirror
        })
    }
}

/// An archive of old versions: `<base>/debian/<moment>/` and `<base>/debian-security/<moment>/` are the two archives as they were then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastArchive {
    base: String,
    /// By suite: `YYYYMMDDTHHMMSSZ`.
    moments: BTreeMap<String, String>,
}

impl PastArchive {
    /// Takes the base address and, by suite, the date of the release whose packages are wanted.
    pub fn new(base: &str, dates: impl IntoIterator<Item = (String, SystemTime)>) -> Self {
        // A release is dated a while before the archive takes its picture of it; what it lists stays on the mirrors longer than that.
        const LATER: Duration = Duration::from_secs(12 * 3600);
        PastArchive {
            base: base.trim_end_matches('/').to_owned(),
            moments: dates
                .into_iter()
                .map(|(suite, date)| (suite, moment(date + LATER)))
                .collect(),
        }
    }

    /// Returns the base of an archive as it was soon after the release of a suite.
    pub fn base_of(&self, suite: &str) -> Option<String> {
        let archive = match Archive::of_suite(suite) {
            Archive::Main => "debian",
            Archive::Security => "debian-security",
        };
        let moment = self.moments.get(suite)?;
        Some(format!("{}/{archive}/{moment}", self.base))
    }
}

/// Writes a time as `YYYYMMDDTHHMMSSZ`.
fn moment(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years are taken to begin in March, so that the leap day is their last; an era is 400 of them.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        era * 400 + year + carry,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

impl Default for Mirror {
    fn default() -> Self {
        Mirror::from_url(FALLBACK_MIRROR)
    }
}

/// One address with one suite, as either format says it.
struct Entry {
    uri: String,
    suite: String,
    components: Vec<String>,
    signed_by: Option<String>,
}

impl Entry {
    /// Tells Debian's own archives from others that only look like them, such as a vendor's `https://example.org/debian trixie main`
    /// (they name their own key) or `.../linux/debian trixie stable` (they have no `main`).
    fn is_debian(&self) -> bool {
        let web = self.uri.starts_with("http://") || self.uri.starts_with("https://");
        let own_key = self
            .signed_by
            .as_ref()
            .is_none_or(|path| path.contains("debian-archive"));
        let vendor = ["raspbian", "raspberrypi", "ubuntu"]
            .iter()
            .any(|name| self.uri.contains(name));
        web && own_key
            && !vendor
            && is_debian_suite(&self.suite)
            && self.components.iter().any(|name| name == "main")
    }

    fn archive(&self) -> Archive {
        // Before Debian 11 the security suite was called `buster/updates`.
        if self.suite.ends_with("/updates") {
            Archive::Security
        } else {
            Archive::of_suite(&self.suite)
        }
    }
}

fn is_debian_suite(suite: &str) -> bool {
    const NAMES: [&str; 12] = [
        "buster",
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
        "unstable",
        "testing",
        "stable",
        "oldstable",
        "oldoldstable",
    ];
    const PARTS: [&str; 5] = ["", "-updates", "-security", "/updates", "-backports"];
    NAMES.iter().any(|name| {
        suite
            .strip_prefix(name)
            .is_some_and(|part| PARTS.contains(&part))
    })
}

fn parse_entries(text: &str) -> Vec<Entry> {
    let one_line = text
        .lines()
        .any(|line| matches!(line.split_whitespace().next(), Some("deb" | "deb-src")));
    if one_line {
        text.lines().filter_map(parse_line).collect()
    } else {
        parse_stanzas(text)
    }
}

/// Parses `deb [options] uri suite component...`.
fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracket) => bracket.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace();
    Some(Entry {
        uri: words.next()?.trim_end_matches('/').to_owned(),
        suite: words.next()?.to_owned(),
        components: words.map(str::to_owned).collect(),
        signed_by: signed_by.map(str::to_owned),
    })
}

fn parse_stanzas(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for stanza in deb822::stanzas(text) {
        let words = |name| {
            stanza
                .field(name)
                .unwrap_or_default()
                .split_whitespace()
                .filter(|word| *word != "#")
        };
        let enabled = stanza
            .field("Enabled")
            .is_none_or(|value| !value.eq_ignore_ascii_case("no"));
        if !enabled || !words("Types").any(|word| word == "deb") {
            continue;
        }
        for uri in words("URIs") {
            entries.extend(words("Suites").map(|suite| Entry {
                uri: uri.trim_end_matches('/').to_owned(),
                suite: suite.to_owned(),
                components: words("Components").map(str::to_owned).collect(),
                signed_by: stanza.field("Signed-By").map(str::to_owned),
            }));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(contents: &[&str], expected: Expect) {
        let contents: Vec<String> = contents.iter().map(|text| (*text).to_owned()).collect();
        expected.assert_eq(&match Mirror::from_apt_sources(&contents) {
            None => "none".to_owned(),
            Some(Mirror { archive, security }) => format!("{archive} {security}"),
        });
    }

    #[test]
    fn an_address_has_a_scheme_and_a_host() {
        for (text, good) in [
            ("http://a/debian", true),
            ("https://me:pw@a:8080/", true),
            ("", false),
            ("a/debian", false),
            ("ftp://a/debian", false),
            ("http://", false),
            ("https:///debian", false),
            ("http://a b/", false),
            ("http://a/\u{1b}[31m", false),
        ] {
            assert_eq!(Mirror::parse(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn people_read_no_passwords() {
        for (url, shown) in [
            ("http://a/debian", "http://a/debian"),
            ("http://me:p@ss@a:80/d/x@y", "http://a:80/d/x@y"),
            ("http://me@a", "http://a"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn deb822_sources_with_a_comment_between_the_fields() {
        check(
            &[
                "Types: deb\n# pinned once\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\nComponents: main\n\
               Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
               Types: deb deb-src\nURIs: http://sec.example/debian-security\nSuites: bookworm-security\nComponents: main\n",
            ],
            expect!["http://mirror.example/debian http://sec.example/debian-security"],
        );
    }

    #[test]
    fn one_line_sources_with_options_and_a_compact_disc() {
        check(
            &[
                "# deb http://old.example/debian trixie main\ndeb cdrom:[Debian 13]/ trixie main\n\
               deb-src https://src.example/debian trixie main\ndeb [arch=amd64 trusted=no] https://m.example/debian/ trixie main contrib # near\n",
            ],
            expect!["https://m.example/debian https://m.example/debian-security"],
        );
        check(
            &[
                "deb http://sec.example/debian-security buster/updates main\n",
                "deb http://m.example/debian stable main\n",
            ],
            expect!["http://m.example/debian http://sec.example/debian-security"],
        );
    }

    #[test]
    fn others_archives_are_passed_over() {
        check(
            &[
                "deb [signed-by=/etc/apt/keyrings/docker.asc] https://vendor.example/linux/debian trixie stable\n",
                "deb http://archive.raspberrypi.example/debian/ bookworm main\n",
                "Types: deb\nURIs: https://vendor.example/debian\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/vendor.gpg\n",
                "deb http://archive.ubuntu.example/ubuntu noble main universe\n",
                "Types: deb\nEnabled: no\nURIs: https://off.example/debian\nSuites: trixie\nComponents: main\n",
                "deb mirror+file:/etc/apt/mirrors/debian.list trixie main\n",
            ],
            expect!["none"],
        );
    }

    #[test]
    fn a_given_address_implies_the_security_archive_beside_it() {
        let mirror = Mirror::from_url("http://m.example/debian/");
        assert_eq!(
            mirror.base(Archive::of_suite("trixie-updates")),
            "http://m.example/debian"
        );
        assert_eq!(
            mirror.base(Archive::of_suite("trixie-security")),
            "http://m.example/debian-security"
        );
    }

    proptest! {
        #[test]
        fn any_source_list_is_parsed_without_a_panic(text in "((deb|Types:|URIs:|\\[|\\]|http://|trixie|main|#| |\n|\u{e9}){1,4}){0,30}") {
            let _ = Mirror::from_apt_sources(&[text]);
        }
    }

    #[test]
    fn old_versions_are_where_the_archive_was_soon_after_the_release() {
        for (seconds, expected) in [
            (0, "19700101T120000Z"),
            (951_782_400 - 43_200, "20000229T000000Z"),
            (1_709_251_199, "20240301T115959Z"),
            (1_761_984_000, "20251101T200000Z"),
        ] {
            let date = UNIX_EPOCH + Duration::from_secs(seconds);
            let past = PastArchive::new(
                "http://host/archive/",
                ["trixie", "trixie-security"].map(|suite| (suite.to_owned(), date)),
            );
            let bases = ["trixie", "trixie-security", "sid"].map(|suite| past.base_of(suite));
            assert_eq!(
                bases,
                [
                    Some(format!("http://host/archive/debian/{expected}")),
                    Some(format!("http://host/archive/debian-security/{expected}")),
                    None
                ]
            );
        }
    }
}
