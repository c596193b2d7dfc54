//! Turns an `InRelease` file into a [`Release`] that can be believed: signed by a key of Debian, for the suite that was asked for, and valid.
//!
//! The keys are data of this crate and pinned by fingerprint. Only the signed part is read; anything around it is refused. The clock is an
//! argument, since a wrong one is a common reason for a failure here. Holding files against the listed digests is `fetch`'s part.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sequoia_openpgp as openpgp;

use openpgp::anyhow::Error as AnyError;
use openpgp::cert::amalgamation::key::ValidErasedKeyAmalgamation;
use openpgp::cert::amalgamation::{ValidAmalgamation, ValidateAmalgamation};
use openpgp::packet::Signature;
use openpgp::packet::key::PublicParts;
use openpgp::parse::Parse;
use openpgp::parse::stream::{
    MessageLayer, MessageStructure, VerificationError, VerificationHelper, VerifierBuilder,
};
use openpgp::policy::StandardPolicy;
use openpgp::types::RevocationStatus;
use openpgp::{Cert, KeyHandle};

use crate::deb822::{self, Stanza};
use crate::sha256::Sha256;

/// Debian's archive keys, fingerprint and certificate, for the releases 12 and 13. The archive and security keys sign the suites from day
/// to day; the stable release keys sign point releases.
const DEBIAN_KEYS: [(&str, &str); 6] = [
    (
        "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8",
        include_str!("../../data/debian-keys/bookworm-automatic.asc"),
    ),
    (
        "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0",
        include_str!("../../data/debian-keys/bookworm-security-automatic.asc"),
    ),
    (
        "4D64FEC119C2029067D6E791F8D2585B8783D481",
        include_str!("../../data/debian-keys/bookworm-stable.asc"),
    ),
    (
        "04B54C3CDCA79751B16BC6B5225629DF75B188BD",
        include_str!("../../data/debian-keys/trixie-automatic.asc"),
    ),
    (
        "5E04A1E3223A19A20706E20F9904613D4CCE68C6",
        include_str!("../../data/debian-keys/trixie-security-automatic.asc"),
    ),
    (
        "41587F7DB8C774BCCF131416762F67A0B2C39DE4",
        include_str!("../../data/debian-keys/trixie-stable.asc"),
    ),
];

/// The certificates whose signature makes a release believable.
#[derive(Clone, Debug)]
pub struct Keyring {
    certificates: Vec<Cert>,
}

/// A release whose signature and validity were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The suite as it was asked for, such as `trixie-updates`.
    pub suite: String,
    /// When the archive made it.
    pub date: SystemTime,
    /// The date as the archive wrote it, for messages and lock files.
    pub date_text: String,
    /// Until when it may be used, and that as the archive wrote it; stable releases say nothing.
    pub valid_until: Option<(SystemTime, String)>,
    /// Whether lists can be fetched by their digest, so that an update of the mirror meanwhile does no harm.
    pub by_hash: bool,
    /// Whether its packages may be taken without being asked for by version (not so for backports).
    pub automatic: bool,
    /// Digest of the whole `InRelease` file.
    pub sha256: Sha256,
    files: BTreeMap<String, ListedFile>,
}

/// A file that a release vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
}

/// Why an `InRelease` file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It is not a clear-signed text, or has text around the signed part.
    #[error("the InRelease file is not one signed text: {0}")]
    Framing(&'static str),
    /// No pinned key made a good signature.
    #[error("no trusted key of the archive signed the InRelease file as it is ({})", joined(.faults))]
    Signature {
        /// What is wrong with each signature, the most telling first.
        faults: Vec<SignatureFault>,
    },
    /// A field is missing or unreadable.
    #[error("the signed release of {suite} has no usable {field}")]
    Field {
        /// The suite asked for.
        suite: String,
        /// The field.
        field: &'static str,
    },
    /// It describes another suite.
    #[error("asked for the suite {asked}, but the mirror sent the release of {found}")]
    OtherSuite {
        /// The suite asked for.
        asked: String,
        /// Suite and code name in the file.
        found: String,
    },
    /// It comes from another distributor.
    #[error("the release of {suite} comes from `{origin}`, not from Debian")]
    Origin {
        /// The suite asked for.
        suite: String,
        /// The origin in the file.
        origin: String,
    },
    /// Its time has run out.
    #[error(
        "the release of {suite} was valid until {until} only: the mirror is stale, or this machine's clock is wrong"
    )]
    Expired {
        /// The suite asked for.
        suite: String,
        /// The end of validity as written.
        until: String,
    },
    /// It is from the future.
    #[error(
        "the release of {suite} is dated {date}, which is in the future: this machine's clock must be wrong"
    )]
    Future {
        /// The suite asked for.
        suite: String,
        /// The date as written.
        date: String,
    },
}

/// What is wrong with a signature; what tells most comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum SignatureFault {
    /// A pinned key signed another text.
    #[error("the text is not the one that key {0} signed")]
    Altered(String),
    /// The key's owner took it back.
    #[error("key {0} was revoked")]
    Revoked(String),
    /// The key's time has run out: when it signed, or since.
    #[error("key {0} has expired")]
    Expired(String),
    /// It was made, or its key was, at a time that is yet to come.
    #[error("the signature of key {0} is from the future")]
    Future(String),
    /// The signature, or what binds the key to its owner, could be forged.
    #[error("the signature of key {key} is too weak: {reason}")]
    Weak {
        /// The key.
        key: String,
        /// What is weak.
        reason: String,
    },
    /// Anything else.
    #[error("a signature cannot be used: {0}")]
    Unusable(String),
    /// A key that is not pinned.
    #[error("key {0} is none of the archive's")]
    UnknownKey(String),
}

fn joined(faults: &[SignatureFault]) -> String {
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    told.join("; ")
}

impl SignatureFault {
    fn hint(&self) -> &'static str {
        match self {
            SignatureFault::Altered(_) => {
                "the file was changed on its way: name another mirror with --mirror"
            }
            SignatureFault::Revoked(_) => {
                "anybody may have that key: name another mirror with --mirror; the archive's new key comes with a newer Footbridge"
            }
            SignatureFault::Expired(_) => {
                "set the clock if it is wrong; else the archive has a new key, which comes with a newer Footbridge"
            }
            SignatureFault::Future(_) => "set this machine's clock",
            SignatureFault::Weak { .. } => {
                "Debian signs with SHA-256 and better: name another mirror with --mirror"
            }
            SignatureFault::Unusable(_) => "name another mirror with --mirror",
            SignatureFault::UnknownKey(_) => {
                "name a mirror of Debian with --mirror; if Debian has a new key, it comes with a newer Footbridge"
            }
        }
    }
}

impl ReleaseError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ReleaseError::Signature { faults } => faults
                .first()
                .map_or("name another mirror with --mirror", SignatureFault::hint),
            ReleaseError::Expired { .. } => {
                "set the clock if it is wrong; else name another mirror with --mirror, for this one keeps updates back"
            }
            ReleaseError::Future { .. } => "set this machine's clock",
            ReleaseError::Framing(_)
            | ReleaseError::Field { .. }
            | ReleaseError::OtherSuite { .. }
            | ReleaseError::Origin { .. } => "name another mirror with --mirror",
        }
    }
}

impl Keyring {
    /// Returns the pinned keys of Debian.
    pub fn debian() -> Self {
        let parse = |(fingerprint, armor): &(&str, &str)| {
            let certificate = Cert::from_bytes(armor.as_bytes())
                .expect("a test parses every certificate of this table");
            assert_eq!(certificate.fingerprint().to_hex(), *fingerprint);
            certificate
        };
        Keyring {
            certificates: DEBIAN_KEYS.iter().map(parse).collect(),
        }
    }

    /// Makes a keyring of other certificates: one's own archive's, or a test's.
    pub fn from_certificates(certificates: Vec<Cert>) -> Self {
        Keyring { certificates }
    }
}

impl Release {
    /// Returns what the release says of a file below `dists/<suite>/`, such as `main/binary-arm64/Packages.xz`.
    pub fn file(&self, path: &str) -> Option<ListedFile> {
        self.files.get(path).copied()
    }
}

/// Checks an `InRelease` file and reads it; refuses one whose time has run out.
pub fn verify_release(
    in_release: &[u8],
    suite: &str,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Release, ReleaseError> {
    let release = verify_release_of_any_age(in_release, suite, keyring, now)?;
    check_validity(&release, now)?;
    Ok(release)
}

/// Does the same, but takes one whose time has run out, too.
pub(crate) fn verify_release_of_any_age(
    in_release: &[u8],
    suite: &str,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Release, ReleaseError> {
    check_framing(in_release)?;
    let text = signed_text(in_release, keyring, now)?;
    let mut stanzas = deb822::stanzas(&text);
    let stanza = stanzas
        .next()
        .ok_or(ReleaseError::Framing("the signed part is empty"))?;
    if stanzas.next().is_some() {
        return Err(ReleaseError::Framing("it has more than one stanza"));
    }
    check_identity(&stanza, suite)?;
    let (date, date_text) =
        parse_time(&stanza, suite, "Date")?.ok_or_else(|| lacks(suite, "Date"))?;
    let says_yes = |name| {
        stanza
            .field(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("yes"))
    };
    Ok(Release {
        suite: suite.to_owned(),
        date,
        date_text,
        valid_until: parse_time(&stanza, suite, "Valid-Until")?,
        by_hash: says_yes("Acquire-By-Hash"),
        automatic: !says_yes("NotAutomatic"),
        sha256: Sha256::of(in_release),
        files: parse_files(&stanza).ok_or_else(|| lacks(suite, "SHA256"))?,
    })
}

/// Insists on exactly one signed text and nothing else, so that nobody who reads the file can take an unsigned line for a signed one.
fn check_framing(in_release: &[u8]) -> Result<(), ReleaseError> {
    const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
    const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
    const END: &str = "-----END PGP SIGNATURE-----";
    let text =
        std::str::from_utf8(in_release).map_err(|_| ReleaseError::Framing("it is not UTF-8"))?;
    let count = |mark: &str| text.lines().filter(|line| line.trim_end() == mark).count();
    if text.lines().next() != Some(BEGIN) {
        return Err(ReleaseError::Framing(
            "it does not begin with the signed part",
        ));
    }
    if text.lines().last() != Some(END) {
        return Err(ReleaseError::Framing("it does not end with the signature"));
    }
    if [BEGIN, SIGNATURE, END].iter().any(|mark| count(mark) != 1) {
        return Err(ReleaseError::Framing("it has more than one part"));
    }
    Ok(())
}

/// Returns the text that at least one trusted key signed.
fn signed_text(
    in_release: &[u8],
    keyring: &Keyring,
    now: SystemTime,
) -> Result<String, ReleaseError> {
    let policy = StandardPolicy::at(now);
    let faults = RefCell::default();
    let signatures = AnyTrustedKey {
        keyring,
        policy: &policy,
        now,
        faults: &faults,
    };
    let read = || -> openpgp::Result<String> {
        let builder = VerifierBuilder::from_bytes(in_release)?;
        let mut text = String::new();
        builder
            .with_policy(&policy, now, signatures)?
            .read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|error| {
        let mut faults = faults.take();
        if faults.is_empty() {
            faults.push(SignatureFault::Unusable(error.to_string()));
        }
        faults.sort();
        ReleaseError::Signature { faults }
    })
}

/// One good signature is enough: an archive that changes keys signs with the old and the new one.
struct AnyTrustedKey<'a> {
    keyring: &'a Keyring,
    policy: &'a StandardPolicy<'a>,
    now: SystemTime,
    /// Where the caller finds what is wrong: an error on its way through the reader becomes a text.
    faults: &'a RefCell<Vec<SignatureFault>>,
}

impl VerificationHelper for AnyTrustedKey<'_> {
    fn get_certs(&mut self, _ids: &[KeyHandle]) -> openpgp::Result<Vec<Cert>> {
        Ok(self.keyring.certificates.clone())
    }

    fn check(&mut self, structure: MessageStructure<'_>) -> openpgp::Result<()> {
        let mut faults = Vec::new();
        for layer in structure {
            let MessageLayer::SignatureGroup { results } = layer else {
                continue;
            };
            for result in results {
                match result.map(|good| key_fault(&good.ka, self.policy, self.now)) {
                    Ok(None) => return Ok(()),
                    Ok(Some(fault)) => faults.push(fault),
                    Err(error) => faults.push(fault_of(&error)),
                }
            }
        }
        if faults.is_empty() {
            faults.push(SignatureFault::Unusable("there is none".to_owned()));
        }
        let told = joined(&faults);
        self.faults.replace(faults);
        Err(std::io::Error::other(told).into())
    }
}

/// Tells why a key that was good when it signed is not good at `now`: whoever has a key says himself when it signed.
fn key_fault(
    key: &ValidErasedKeyAmalgamation<'_, PublicParts>,
    policy: &StandardPolicy<'_>,
    now: SystemTime,
) -> Option<SignatureFault> {
    let name = key.key().fingerprint().to_hex();
    match key.clone().with_policy(policy, now) {
        Err(error) => Some(weak_or_unusable(name, &error)),
        Ok(key) => lifetime_fault(&key),
    }
}

/// Tells whether a key is expired or revoked at the time that it is looked at.
fn lifetime_fault(key: &ValidErasedKeyAmalgamation<'_, PublicParts>) -> Option<SignatureFault> {
    let name = key.key().fingerprint().to_hex();
    let revoked = [
        key.valid_cert().revocation_status(),
        key.revocation_status(),
    ]
    .iter()
    .any(|status| matches!(status, RevocationStatus::Revoked(_)));
    if revoked {
        return Some(SignatureFault::Revoked(name));
    }
    let error = key.valid_cert().alive().and_then(|()| key.alive()).err()?;
    Some(match root_of(&error) {
        Some(openpgp::Error::NotYetLive(_)) => SignatureFault::Future(name),
        _ => SignatureFault::Expired(name),
    })
}

fn fault_of(error: &VerificationError<'_>) -> SignatureFault {
    let issuer = |sig: &Signature| {
        let issuers = sig.get_issuers();
        issuers.first().map_or("?".to_owned(), KeyHandle::to_hex)
    };
    match error {
        VerificationError::MissingKey { sig } => SignatureFault::UnknownKey(issuer(sig)),
        VerificationError::UnboundKey { sig, error, .. } => weak_or_unusable(issuer(sig), error),
        VerificationError::BadKey { ka, error, .. } => lifetime_fault(ka)
            .unwrap_or_else(|| weak_or_unusable(ka.key().fingerprint().to_hex(), error)),
        VerificationError::BadSignature { ka, error, .. } => {
            let name = ka.key().fingerprint().to_hex();
            match root_of(error) {
                Some(openpgp::Error::PolicyViolation(..)) => weak_or_unusable(name, error),
                Some(openpgp::Error::NotYetLive(_)) => SignatureFault::Future(name),
                Some(openpgp::Error::Expired(_)) => SignatureFault::Expired(name),
                _ => SignatureFault::Altered(name),
            }
        }
        _ => SignatureFault::Unusable(error.to_string()),
    }
}

fn weak_or_unusable(key: String, error: &AnyError) -> SignatureFault {
    match root_of(error) {
        Some(openpgp::Error::PolicyViolation(reason, _)) => SignatureFault::Weak {
            key,
            reason: format!("{reason} is not secure any more"),
        },
        _ => SignatureFault::Unusable(error.to_string()),
    }
}

/// Returns the library's own error below what was said about it on the way.
fn root_of(error: &AnyError) -> Option<&openpgp::Error> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

fn check_identity(stanza: &Stanza<'_>, asked: &str) -> Result<(), ReleaseError> {
    let origin = stanza.field("Origin").unwrap_or_default();
    let backports = asked.ends_with("-backports");
    if origin
        != if backports {
            "Debian Backports"
        } else {
            "Debian"
        }
    {
        return Err(ReleaseError::Origin {
            suite: asked.to_owned(),
            origin: origin.to_owned(),
        });
    }
    let names = ["Suite", "Codename"].map(|field| stanza.field(field).unwrap_or_default());
    if !names.contains(&asked) {
        return Err(ReleaseError::OtherSuite {
            asked: asked.to_owned(),
            found: names.join(" / "),
        });
    }
    Ok(())
}

fn check_validity(release: &Release, now: SystemTime) -> Result<(), ReleaseError> {
    // A clock that is a few hours off is no reason to refuse a release that the archive made this very hour.
    const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3600);
    let suite = release.suite.clone();
    match &release.valid_until {
        _ if release.date > now + CLOCK_SLACK => Err(ReleaseError::Future {
            suite,
            date: release.date_text.clone(),
        }),
        Some((until, text)) if *until < now => Err(ReleaseError::Expired {
            suite,
            until: text.clone(),
        }),
        _ => Ok(()),
    }
}

fn parse_time(
    stanza: &Stanza<'_>,
    suite: &str,
    field: &'static str,
) -> Result<Option<(SystemTime, String)>, ReleaseError> {
    let Some(text) = stanza.field(field) else {
        return Ok(None);
    };
    let time = parse_date(text).ok_or_else(|| lacks(suite, field))?;
    Ok(Some((time, text.to_owned())))
}

fn lacks(suite: &str, field: &'static str) -> ReleaseError {
    ReleaseError::Field {
        suite: suite.to_owned(),
        field,
    }
}

/// Parses the `SHA256` field: lines of digest, size and path.
fn parse_files(stanza: &Stanza<'_>) -> Option<BTreeMap<String, ListedFile>> {
    let parse_line = |line: &str| {
        let mut words = line.split_whitespace();
        let file = ListedFile {
            sha256: words.next()?.parse().ok()?,
            size: words.next()?.parse().ok()?,
        };
        Some((words.next()?.to_owned(), file))
    };
    let lines = stanza.field("SHA256")?.lines();
    lines
        .filter(|line| !line.trim().is_empty())
        .map(parse_line)
        .collect()
}

/// Parses the archive's dates, `Sat, 06 Sep 2025 10:20:20 UTC`; other time zones than UTC do not occur and are refused.
pub(crate) fn parse_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_weekday, day, month, year, time, "UTC" | "GMT" | "+0000"] = words[..] else {
        return None;
    };
    let clock: Vec<u64> = time
        .split(':')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let [hour @ 0..24, minute @ 0..60, second @ 0..=60] = clock[..] else {
        return None;
    };
    let month = 1 + MONTHS.iter().position(|name| *name == month)?;
    let days = days_since_1970(year.parse().ok()?, month as u64, day.parse().ok()?)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Counts days in the Gregorian calendar. Years are taken to begin in March, so that the leap day is their last.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    // 719,468 days lie between 1 March of the year 0 and 1 January 1970.
    (year * 365 + year / 4 - year / 100 + year / 400 + day_of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_pinned_fingerprint_is_its_certificates() {
        for (fingerprint, armor) in DEBIAN_KEYS {
            let certificate = Cert::from_bytes(armor.as_bytes()).unwrap();
            assert_eq!(certificate.fingerprint().to_hex(), fingerprint);
        }
        assert_eq!(Keyring::debian().certificates.len(), DEBIAN_KEYS.len());
    }

    #[test]
    fn dates() {
        let mut shown = String::new();
        for text in [
            "Thu, 01 Jan 1970 00:00:00 UTC",
            "Thu, 29 Feb 2024 23:59:59 UTC",
            "Sat, 06 Sep 2025 10:20:20 UTC",
            "Sat,  1 Mar 2025 10:20:20 +0000",
            "Sat, 06 Sep 2025 10:20:20 +0200",
            "Sat, 06 Sep 2025 25:20:20 UTC",
            "Sat, 00 Sep 2025 10:20:20 UTC",
            "06 Sep 2025",
            "",
        ] {
            let seconds =
                parse_date(text).map(|date| date.duration_since(UNIX_EPOCH).unwrap().as_secs());
            shown.push_str(&format!("{text:?} {seconds:?}\n"));
        }
        expect![[r#"
            "Thu, 01 Jan 1970 00:00:00 UTC" Some(0)
            "Thu, 29 Feb 2024 23:59:59 UTC" Some(1709251199)
            "Sat, 06 Sep 2025 10:20:20 UTC" Some(1757154020)
            "Sat,  1 Mar 2025 10:20:20 +0000" Some(1740824420)
            "Sat, 06 Sep 2025 10:20:20 +0200" None
            "Sat, 06 Sep 2025 25:20:20 UTC" None
            "Sat, 00 Sep 2025 10:20:20 UTC" None
            "06 Sep 2025" None
            "" None
        "#]]
        .assert_eq(&shown);
    }

    proptest! {
        #[test]
        fn any_date_is_parsed_without_a_panic(
            text in "[A-Za-z]{0,3},? ?[0-9]{0,20} (Jan|Dec|Xyz) [0-9]{0,20} [0-9:]{0,12} (UTC|\\+0000)?"
        ) {
            let _ = parse_date(&text);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = b"-----BEGIN PGP SIGNED MESSAGE-----\n".to_vec();
            file.extend(tail);
            let keyring = Keyring::from_certificates(Vec::new());
            prop_assert!(verify_release(&file, "trixie", &keyring, UNIX_EPOCH).is_err());
        }
    }
}
