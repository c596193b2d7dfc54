//! The packages on offer: parsed `Packages` lists of one architecture, several suites laid together.
//!
//! Pure: the text comes from `make::fetch`, which has checked it against a signed release. The highest version wins over all suites; a
//! suite that its release marks as not automatic (backports) is only looked at when a version is asked for by name.

use std::collections::BTreeMap;

use debversion::Version;

use crate::deb822::{self, Stanza};
use crate::mirror::Archive;
use crate::relation::{ParseRelationError, Provided, Relation, parse_provides, parse_relations};
use crate::sha256::Sha256;

/// One binary package as its index describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Its architecture; `all` for packages that fit every one.
    pub architecture: String,
    /// `Depends` and `Pre-Depends` together.
    pub depends: Vec<Vec<Relation>>,
    /// `Conflicts` and `Breaks` together; groups have one member.
    pub conflicts: Vec<Vec<Relation>>,
    /// The names it provides besides its own.
    pub provides: Vec<Provided>,
    /// `Multi-Arch`, if given.
    pub multi_arch: Option<String>,
    /// The source package it was built from, and that one's version.
    pub source: (String, Version),
    /// Section, such as `non-free-firmware/kernel`.
    pub section: String,
    /// Path below the base of its archive.
    pub filename: String,
    /// The archive that serves it.
    pub archive: Archive,
    /// The suite whose list it comes from.
    pub suite: String,
    /// Whether it may be taken without being asked for by version.
    pub automatic: bool,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// Digest of the `.deb`.
    pub sha256: Sha256,
    /// Estimated size when unpacked, in bytes.
    pub installed_size: u64,
}

/// Where a `Packages` text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The suite.
    pub suite: String,
    /// Whether its packages may be taken without being asked for by version.
    pub automatic: bool,
}

/// All packages on offer.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// By name; versions in descending order.
    packages: BTreeMap<String, Vec<Package>>,
    /// Provided name -> names of the packages that provide it, sorted.
    providers: BTreeMap<String, Vec<String>>,
}

/// A `Packages` text that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A stanza lacks a field.
    #[error("package `{package}` of {suite} has no usable {field}")]
    Field {
        /// The stanza's package, as far as it is known.
        package: String,
        /// The suite.
        suite: String,
        /// The field.
        field: &'static str,
    },
    /// A relation cannot be parsed.
    #[error("package `{package}` of {suite} has a {field} that cannot be read")]
    Relation {
        /// The stanza's package.
        package: String,
        /// The suite.
        suite: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: ParseRelationError,
    },
}

impl Index {
    /// Lays packages together that were chosen before.
    pub(crate) fn of(packages: impl IntoIterator<Item = Package>) -> Self {
        let mut index = Index::default();
        for package in packages {
            index.insert(package);
        }
        index
    }

    /// Adds the packages of one `Packages` text.
    pub fn add(&mut self, text: &str, origin: &Origin) -> Result<(), IndexError> {
        for stanza in deb822::stanzas(text) {
            self.insert(parse_package(&stanza, origin)?);
        }
        Ok(())
    }

    /// Returns all versions of a package in descending order, those of backports included.
    pub fn versions(&self, name: &str) -> &[Package] {
        self.packages.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the highest version of a package that may be taken without being asked for.
    pub fn latest(&self, name: &str) -> Option<&Package> {
        self.automatic(name).next()
    }

    /// Returns the highest version whose upstream part (no epoch, no Debian revision) meets a condition, backports included.
    pub fn find(&self, name: &str, upstream: impl Fn(&str) -> bool) -> Option<&Package> {
        self.versions(name)
            .iter()
            .find(|package| upstream(&package.version.upstream_version))
    }

    /// Returns the versions of a real package that meet a relation and may be taken without being asked for, in descending order.
    pub(crate) fn matching(&self, relation: &Relation) -> impl Iterator<Item = &Package> {
        self.automatic(&relation.name)
            .filter(|package| relation.admits(&package.version))
    }

    /// Returns the versions of a real package in one suite, whichever it is, that meet a relation, in descending order.
    pub(crate) fn matching_in(
        &self,
        relation: &Relation,
        suite: &str,
    ) -> impl Iterator<Item = &Package> {
        self.versions(&relation.name)
            .iter()
            .filter(move |package| package.suite == suite && relation.admits(&package.version))
    }

    /// Returns the packages whose `Provides` meet a relation: sorted by name, then versions in descending order.
    pub(crate) fn providers(&self, relation: &Relation) -> impl Iterator<Item = &Package> {
        let names = self
            .providers
            .get(&relation.name)
            .map_or(&[][..], Vec::as_slice);
        names
            .iter()
            .flat_map(|name| self.automatic(name))
            .filter(|package| package.provides_for(relation))
    }

    /// Returns the number of package names.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Tells whether nothing is on offer.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    fn automatic(&self, name: &str) -> impl Iterator<Item = &Package> {
        self.versions(name)
            .iter()
            .filter(|package| package.automatic)
    }

    fn insert(&mut self, package: Package) {
        for provided in &package.provides {
            let names = self.providers.entry(provided.name.clone()).or_default();
            if let Err(place) = names.binary_search(&package.name) {
                names.insert(place, package.name.clone());
            }
        }
        let versions = self.packages.entry(package.name.clone()).or_default();
        // The same version in two suites (a point release taking over an update) is one package: the first list added keeps it.
        if versions
            .iter()
            .any(|other| other.version == package.version && other.sha256 == package.sha256)
        {
            return;
        }
        let place = versions.partition_point(|other| other.version >= package.version);
        versions.insert(place, package);
    }
}

impl Package {
    /// Tells whether one of its provided names meets a relation.
    pub(crate) fn provides_for(&self, relation: &Relation) -> bool {
        self.provides
            .iter()
            .any(|provided| provided.name == relation.name && relation.admits_provided(provided))
    }

    /// Returns the bytes that unpacking may yield at most: what the index announces, with slack for small files that the announced
    /// figure leaves out, and an absolute cap.
    pub fn unpack_limit(&self) -> u64 {
        const SLACK: u64 = 64 << 20;
        const CAP: u64 = 2 << 30;
        self.installed_size
            .saturating_mul(2)
            .saturating_add(SLACK)
            .min(CAP)
    }
}

fn parse_package(stanza: &Stanza<'_>, origin: &Origin) -> Result<Package, IndexError> {
    let name = stanza.field("Package").unwrap_or("?").to_owned();
    let lacks = |field| IndexError::Field {
        package: name.clone(),
        suite: origin.suite.clone(),
        field,
    };
    let text = |field| {
        stanza
            .field(field)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| lacks(field))
    };
    let relations = |field: &'static str| relation_field(stanza, origin, &name, field);
    let version: Version = text("Version")?.parse().map_err(|_| lacks("Version"))?;
    let provides = parse_provides(stanza.field("Provides").unwrap_or_default());
    let architecture = text("Architecture")?.to_owned();
    if !crate::relation::is_package_name(text("Package")?) {
        return Err(lacks("Package"));
    }
    Ok(Package {
        depends: [relations("Pre-Depends")?, relations("Depends")?].concat(),
        conflicts: [relations("Conflicts")?, relations("Breaks")?].concat(),
        provides: provides.map_err(|source| relation_error(origin, &name, "Provides", source))?,
        multi_arch: stanza.field("Multi-Arch").map(str::to_owned),
        source: parse_source(stanza.field("Source"), &name, &version)
            .ok_or_else(|| lacks("Source"))?,
        section: stanza.field("Section").unwrap_or_default().to_owned(),
        filename: relative_path(text("Filename")?).ok_or_else(|| lacks("Filename"))?,
        archive: Archive::of_suite(&origin.suite),
        suite: origin.suite.clone(),
        automatic: origin.automatic,
        size: text("Size")?.parse().map_err(|_| lacks("Size"))?,
        sha256: text("SHA256")?.parse().map_err(|_| lacks("SHA256"))?,
        installed_size: installed_size(stanza).ok_or_else(|| lacks("Installed-Size"))?,
        name: name.clone(),
        version,
        architecture,
    })
}

fn relation_field(
    stanza: &Stanza<'_>,
    origin: &Origin,
    name: &str,
    field: &'static str,
) -> Result<Vec<Vec<Relation>>, IndexError> {
    parse_relations(stanza.field(field).unwrap_or_default())
        .map_err(|source| relation_error(origin, name, field, source))
}

fn relation_error(
    origin: &Origin,
    name: &str,
    field: &'static str,
    source: ParseRelationError,
) -> IndexError {
    IndexError::Relation {
        package: name.to_owned(),
        suite: origin.suite.clone(),
        field,
        source,
    }
}

/// `Source: name (version)`; each part defaults to the binary package's own.
pub(crate) fn parse_source(
    field: Option<&str>,
    name: &str,
    version: &Version,
) -> Option<(String, Version)> {
    let Some(field) = field else {
        return Some((name.to_owned(), version.clone()));
    };
    match field.split_once('(') {
        None => Some((field.to_owned(), version.clone())),
        Some((source, rest)) => Some((
            source.trim_end().to_owned(),
            rest.strip_suffix(')')?.parse().ok()?,
        )),
    }
}

/// Refuses file names that would lead out of the archive's base address.
pub(crate) fn relative_path(text: &str) -> Option<String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\'));
    let inside = text.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (plain && inside).then(|| text.to_owned())
}

/// `Installed-Size` counts in KiB; very small packages may leave it out.
fn installed_size(stanza: &Stanza<'_>) -> Option<u64> {
    match stanza.field("Installed-Size") {
        None => Some(0),
        Some(text) => text.parse::<u64>().ok()?.checked_mul(1024),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    const STANZA: &str = "Package: rust-src\nSource: rustc (1.2)\nVersion: 1.2+dfsg1-1~bpo13+1\nInstalled-Size: 3\nArchitecture: all\n\
        Depends: a (>= 1),\n b | c\nPre-Depends: d\nBreaks: e\nConflicts: f\nProvides: g (= 3), h\nMulti-Arch: foreign\nSection: devel\n\
        Filename: pool/main/r/rust-src_1.2.deb\nSize: 12\n\
        SHA256: 00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF\n";

    fn origin(suite: &str) -> Origin {
        Origin {
            suite: suite.to_owned(),
            automatic: !suite.ends_with("-backports"),
        }
    }

    fn check(from: &str, to: &str, expected: Expect) {
        assert!(STANZA.contains(from));
        let mut index = Index::default();
        let outcome = index.add(&STANZA.replace(from, to), &origin("trixie-security"));
        expected.assert_eq(&match outcome {
            Ok(()) => {
                let package = &index.versions("rust-src")[0];
                format!(
                    "{} of {:?}, {} bytes at {:?} {}, unpacked {}, {} and {} relations, limit {}",
                    package.version,
                    package.source.0,
                    package.size,
                    package.archive,
                    package.filename,
                    package.installed_size,
                    package.depends.len(),
                    package.conflicts.len(),
                    package.unpack_limit(),
                )
            }
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn a_stanza_is_read_or_refused() {
        check(
            "",
            "",
            expect![[
                r#"1.2+dfsg1-1~bpo13+1 of "rustc", 12 bytes at Security pool/main/r/rust-src_1.2.deb, unpacked 3072, 3 and 2 relations, limit 67115008"#
            ]],
        );
        check(
            "Source: rustc (1.2)\n",
            "",
            expect![[
                r#"1.2+dfsg1-1~bpo13+1 of "rust-src", 12 bytes at Security pool/main/r/rust-src_1.2.deb, unpacked 3072, 3 and 2 relations, limit 67115008"#
            ]],
        );
        check(
            "Installed-Size: 3\n",
            "",
            expect![[
                r#"1.2+dfsg1-1~bpo13+1 of "rustc", 12 bytes at Security pool/main/r/rust-src_1.2.deb, unpacked 0, 3 and 2 relations, limit 67108864"#
            ]],
        );
        check(
            "Size: 12\n",
            "Size: many\n",
            expect!["package `rust-src` of trixie-security has no usable Size"],
        );
        check(
            "SHA256: 0",
            "SHA256: x",
            expect!["package `rust-src` of trixie-security has no usable SHA256"],
        );
        check(
            "pool/main",
            "pool/../..",
            expect!["package `rust-src` of trixie-security has no usable Filename"],
        );
        check(
            "pool/main",
            "http://other/main",
            expect!["package `rust-src` of trixie-security has no usable Filename"],
        );
        check(
            "Version: 1.2",
            "Version: 1_2",
            expect!["package `rust-src` of trixie-security has no usable Version"],
        );
        check(
            "b | c",
            "b | (",
            expect!["package `rust-src` of trixie-security has a Depends that cannot be read"],
        );
        check(
            "Package: rust-src",
            "Package: ../x",
            expect!["package `../x` of trixie-security has no usable Package"],
        );
    }

    #[test]
    fn several_versions_of_one_package() {
        let mut index = Index::default();
        for (version, suite) in [
            ("1.0-1", "trixie"),
            ("1.10-1~bpo13", "trixie-backports"),
            ("1.9-1", "trixie-updates"),
            ("1.9-2~bpo13", "trixie-backports"),
            ("1.9-1", "trixie"),
        ] {
            let stanza = STANZA.replace("1.2+dfsg1-1~bpo13+1", version);
            index.add(&stanza, &origin(suite)).unwrap();
        }
        let versions: Vec<String> = index
            .versions("rust-src")
            .iter()
            .map(|package| format!("{} {}", package.version, package.suite))
            .collect();
        expect![[r#"
            1.10-1~bpo13 trixie-backports
            1.9-2~bpo13 trixie-backports
            1.9-1 trixie-updates
            1.0-1 trixie"#]]
        .assert_eq(&versions.join("\n"));
        assert_eq!(
            index.latest("rust-src").unwrap().version.to_string(),
            "1.9-1"
        );
        let found = index
            .find("rust-src", |upstream| upstream == "1.9")
            .unwrap();
        assert_eq!(found.version.to_string(), "1.9-2~bpo13");
        assert!(index.find("rust-src", |upstream| upstream == "7").is_none());
        assert!(index.versions("nothing").is_empty());
    }

    proptest! {
        #[test]
        fn any_list_is_read_without_a_panic(place in 0..STANZA.len(), text in "[ -~\n\u{e9}]{0,6}") {
            let mut damaged = STANZA.to_owned();
            damaged.insert_str(place, &text);
            let _ = Index::default().add(&damaged, &origin("trixie"));
        }
    }
}
