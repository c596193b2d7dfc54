//! A small Debian archive made on the spot: packages, lists, and releases signed with a key of the test's own.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use imagegen::sha256::Sha256;
use sequoia_openpgp as openpgp;

use openpgp::cert::{CertBuilder, CertRevocationBuilder};
use openpgp::packet::signature::SignatureBuilder;
use openpgp::policy::StandardPolicy;
use openpgp::serialize::stream::{Message, Signer};
use openpgp::types::{HashAlgorithm, KeyFlags, ReasonForRevocation, SignatureType};
use openpgp::{Cert, Packet};

/// The moment at which the tests take place: Sat, 01 Nov 2025 12:00:00 UTC.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_761_998_400)
}

/// Makes a signing key that was valid long before [`now`].
pub(crate) fn signing_key() -> Cert {
    let (key, _) = CertBuilder::general_purpose(Some("an archive"))
        .set_creation_time(now() - Duration::from_secs(365 * 86_400))
        .generate()
        .unwrap();
    key
}

/// Makes a signing key that was valid for a month of the last year.
pub(crate) fn expired_key() -> Cert {
    let (key, _) = CertBuilder::general_purpose(Some("an archive"))
        .set_creation_time(now() - Duration::from_secs(365 * 86_400))
        .set_validity_period(Duration::from_secs(30 * 86_400))
        .generate()
        .unwrap();
    key
}

/// Returns the key as it is after its owner said that it is in other hands.
pub(crate) fn revoked(key: &Cert) -> Cert {
    let secret = key.primary_key().key().clone().parts_into_secret().unwrap();
    let mut signer = secret.into_keypair().unwrap();
    let revocation = CertRevocationBuilder::new()
        .set_signature_creation_time(now() - Duration::from_secs(86_400))
        .unwrap()
        .set_reason_for_revocation(ReasonForRevocation::KeyCompromised, b"stolen")
        .unwrap()
        .build(&mut signer, key, None)
        .unwrap();
    key.clone().insert_packets(revocation).unwrap().0
}

/// Returns a key whose name is bound to it by a SHA-1 digest, as keys of the last century are.
pub(crate) fn weakly_bound(key: &Cert) -> Cert {
    let secret = key.primary_key().key().clone().parts_into_secret().unwrap();
    let mut signer = secret.into_keypair().unwrap();
    let name = key.userids().next().unwrap().userid().clone();
    let flags = KeyFlags::empty().set_certification().set_signing();
    let binding = SignatureBuilder::new(SignatureType::PositiveCertification)
        .set_hash_algo(HashAlgorithm::SHA1)
        .set_signature_creation_time(now() - Duration::from_secs(300 * 86_400))
        .unwrap()
        .set_key_flags(flags)
        .unwrap()
        .sign_userid_binding(&mut signer, None, &name)
        .unwrap();
    let primary = key.primary_key().key().clone().parts_into_secret().unwrap();
    let packets: Vec<Packet> = vec![primary.into(), name.into(), binding.into()];
    Cert::from_packets(packets.into_iter()).unwrap()
}

/// Clear-signs a text, as `InRelease` files are.
pub(crate) fn sign(text: &str, key: &Cert) -> Vec<u8> {
    let made = now() - Duration::from_secs(3600);
    sign_as(text, key, made, HashAlgorithm::SHA512)
}

/// Clear-signs a text with another digest, or as if it were another time.
pub(crate) fn sign_as(text: &str, key: &Cert, made: SystemTime, hash: HashAlgorithm) -> Vec<u8> {
    // What is weak here is for the reader to find out.
    let mut policy = StandardPolicy::new();
    policy.accept_hash(HashAlgorithm::SHA1);
    let pair = key
        .keys()
        .unencrypted_secret()
        .with_policy(&policy, made)
        .supported()
        .for_signing()
        .next()
        .unwrap()
        .key()
        .clone()
        .into_keypair()
        .unwrap();
    let mut signed = Vec::new();
    let signer = Signer::new(Message::new(&mut signed), pair).unwrap();
    let signer = signer.hash_algo(hash).unwrap();
    let mut message = signer.creation_time(made).cleartext().build().unwrap();
    message.write_all(text.as_bytes()).unwrap();
    message.finalize().unwrap();
    signed
}

/// Where the suites' only list is.
const DIRECTORY: &str = "main/binary-arm64";

/// A suite to be served: its head fields and the packages in it.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// `Field: value` lines; those of the release's identity and validity.
    pub(crate) head: String,
    /// Name and the bytes of the `.deb`.
    pub(crate) packages: Vec<(&'static str, Vec<u8>)>,
}

impl Suite {
    /// A trixie that was released on the first of November and is valid for a week.
    pub(crate) fn trixie(packages: Vec<(&'static str, Vec<u8>)>) -> Self {
        let head = "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 01 Nov 2025 08:00:00 UTC\n\
                    Valid-Until: Sat, 08 Nov 2025 08:00:00 UTC\nAcquire-By-Hash: yes\n";
        Suite {
            name: "trixie",
            head: head.to_owned(),
            packages,
        }
    }

    /// Returns the same with a piece of the head changed.
    pub(crate) fn with_head(mut self, from: &str, to: &str) -> Self {
        assert!(self.head.contains(from));
        self.head = self.head.replace(from, to);
        self
    }

    /// Returns the text of `Packages` for arm64 and component main.
    fn packages_text(&self) -> String {
        let stanza = |(name, deb): &(&str, Vec<u8>)| {
            format!(
                "Package: {name}\nVersion: 1.0-1\nArchitecture: arm64\nInstalled-Size: 1\nFilename: pool/{name}_1.0-1_arm64.deb\n\
                 Size: {}\nSHA256: {}\n\n",
                deb.len(),
                Sha256::of(deb)
            )
        };
        self.packages.iter().map(stanza).collect()
    }

    fn list(&self) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
        encoder.write_all(self.packages_text().as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    /// Returns the text of `InRelease`, as it is before it is signed.
    pub(crate) fn release_text(&self) -> String {
        let text = self.packages_text();
        let list = self.list();
        let mut release = format!("{}SHA256:\n", self.head);
        for (name, bytes) in [("Packages.xz", &list[..]), ("Packages", text.as_bytes())] {
            release.push_str(&format!(
                " {} {} {DIRECTORY}/{name}\n",
                Sha256::of(bytes),
                bytes.len()
            ));
        }
        release
    }

    /// Returns the files of the suite by path on the server, `InRelease` signed with `key`.
    pub(crate) fn files(&self, key: &Cert) -> BTreeMap<String, Vec<u8>> {
        let (release, list) = (self.release_text(), self.list());
        let base = format!("/debian/dists/{}", self.name);
        let by_hash = format!("{base}/{DIRECTORY}/by-hash/SHA256/{}", Sha256::of(&list));
        let mut files = BTreeMap::from([
            (format!("{base}/InRelease"), sign(&release, key)),
            (by_hash, list.clone()),
            (format!("{base}/{DIRECTORY}/Packages.xz"), list),
        ]);
        for (name, deb) in &self.packages {
            files.insert(format!("/debian/pool/{name}_1.0-1_arm64.deb"), deb.clone());
        }
        files
    }
}

/// Returns bytes that do not compress and differ between names.
pub(crate) fn noise(name: &str, length: usize) -> Vec<u8> {
    let blocks = (0_u32..).map(|count| Sha256::of(format!("{name} {count}").as_bytes()));
    blocks.flat_map(|block| block.0).take(length).collect()
}
