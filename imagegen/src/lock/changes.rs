//! What two locks of an architecture differ in, and which of it are updates of the security archive.

use std::collections::BTreeMap;
use std::fmt;

use debversion::Version;

use super::Lock;
use crate::index::Package;
use crate::mirror::Archive;

/// A difference between two locks; packages of different suites are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A package that was not there.
    Added(Box<Package>),
    /// A package that is no longer there.
    Removed(Box<Package>),
    /// Another version, or another file of the same version.
    Replaced {
        /// The package as it was.
        old: Box<Package>,
        /// The package as it is.
        new: Box<Package>,
    },
}

/// A source package of which the security archive has a newer version than was locked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityUpdate<'a> {
    /// The source package.
    pub source: &'a str,
    /// Its newest version that was locked before.
    pub old: &'a Version,
    /// The version of the security archive.
    pub new: &'a Version,
    /// The packages built from it, the smallest first.
    pub packages: Vec<&'a Package>,
}

/// Returns what became of each package between two locks, sorted by name.
pub fn changes(old: Option<&Lock>, new: &Lock) -> Vec<Change> {
    let mut places: BTreeMap<(&str, bool), [Vec<&Package>; 2]> = BTreeMap::new();
    for (side, lock) in [old, Some(new)].into_iter().enumerate() {
        for package in lock.iter().flat_map(|lock| &lock.packages) {
            let place = places
                .entry((&package.name, package.automatic))
                .or_default();
            place[side].push(package);
        }
    }
    let mut changes = Vec::new();
    for [mut before, mut after] in places.into_values() {
        // A lock may have a name in several versions: those that both have are no change.
        let same: Vec<&Package> = before
            .iter()
            .copied()
            .filter(|package| after.contains(package))
            .collect();
        before.retain(|package| !same.contains(package));
        after.retain(|package| !same.contains(package));
        let own = |package: &Package| Box::new(package.clone());
        let pairs = before.len().min(after.len());
        let (gone, come) = (before.split_off(pairs), after.split_off(pairs));
        changes.extend(
            before
                .into_iter()
                .zip(after)
                .map(|(old, new)| Change::Replaced {
                    old: own(old),
                    new: own(new),
                }),
        );
        changes.extend(gone.into_iter().map(own).map(Change::Removed));
        changes.extend(come.into_iter().map(own).map(Change::Added));
    }
    changes.sort_by(|one, other| one.name().cmp(other.name()));
    changes
}

/// Returns the security updates between two locks, sorted by source package. What is new to the lock is none: nothing is fixed by it.
pub fn security_updates<'a>(old: &'a Lock, new: &'a Lock) -> Vec<SecurityUpdate<'a>> {
    let mut before: BTreeMap<(&str, bool), &Version> = BTreeMap::new();
    for package in &old.packages {
        let (source, version) = &package.source;
        let newest = before.entry((source, package.automatic)).or_insert(version);
        *newest = version.max(newest);
    }
    let mut updates: BTreeMap<(&str, &Version), SecurityUpdate<'_>> = BTreeMap::new();
    for package in &new.packages {
        let (source, version) = &package.source;
        let Some(old) = before.get(&(source.as_str(), package.automatic)).copied() else {
            continue;
        };
        if package.archive == Archive::Security && version > old {
            let update = updates.entry((source, version)).or_insert(SecurityUpdate {
                source,
                old,
                new: version,
                packages: Vec::new(),
            });
            update.packages.push(package);
        }
    }
    let mut updates: Vec<SecurityUpdate<'_>> = updates.into_values().collect();
    for update in &mut updates {
        update.packages.sort_by_key(|package| package.size);
    }
    updates
}

impl Change {
    /// Returns the package's name.
    pub fn name(&self) -> &str {
        match self {
            Change::Added(package)
            | Change::Removed(package)
            | Change::Replaced { new: package, .. } => &package.name,
        }
    }
}

/// `+ name version`, `- name version`, or `  name old -> new`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Added(new) => write!(f, "+ {} {} ({})", new.name, new.version, new.suite),
            Change::Removed(old) => write!(f, "- {} {}", old.name, old.version),
            Change::Replaced { old, new } if old.version == new.version => {
                write!(
                    f,
                    "  {} {}: another entry ({})",
                    new.name, new.version, new.suite
                )
            }
            Change::Replaced { old, new } => write!(
                f,
                "  {} {} -> {} ({})",
                new.name, old.version, new.version, new.suite
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::sha256::Sha256;

    const DATE: &str = "Sat, 01 Nov 2025 08:00:00 UTC";

    /// A package a line: suite, name, version, source, size.
    fn lock(lines: &str) -> Lock {
        let mut text = format!(
            "version = 1\narchitecture = \"arm64\"\n[[release]]\nsuite = \"trixie\"\ndate = \"{DATE}\"\n[[release]]\nsuite = \"trixie-security\"\ndate = \"{DATE}\"\n"
        );
        for line in lines.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [suite, name, version, source, size] = words[..] else {
                panic!("{line}");
            };
            let digest = Sha256::of(line.as_bytes());
            text.push_str(&format!(
                "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsuite = \"{suite}\"\nfile = \"{name}_{version}_all.deb\"\nsize = {size}\nsha256 = \"{digest}\"\ninstalled-size = 1\nsource = \"{source} ({version})\"\n"
            ));
        }
        Lock::parse(&text, "arm64").unwrap()
    }

    /// Also where the packages have other names than before, as the kernel's have.
    #[test]
    fn security_updates_are_told_by_source_package() {
        let old = lock(
            "trixie libssl 1-1 openssl 9
             trixie openssl-provider 1-1 openssl 3
             trixie linux-image-6.1 6.1 linux 5
             trixie-security zlib1g 2-1 zlib 1
             trixie mount 3-1 util-linux 1",
        );
        let new = lock(
            "trixie-security libssl 1-1+deb13u1 openssl 9
             trixie-security openssl-provider 1-1+deb13u1 openssl 3
             trixie-security linux-image-6.2 6.2 linux 5
             trixie-security zlib1g 2-1 zlib 1
             trixie-security xz 5-1 xz-utils 1
             trixie mount 3-2 util-linux 1",
        );
        let told: Vec<String> = security_updates(&old, &new)
            .iter()
            .map(|update| {
                let names = update.packages.iter().map(|package| package.name.as_str());
                let names: Vec<&str> = names.collect();
                let SecurityUpdate {
                    source, old, new, ..
                } = update;
                format!("{source} {old} -> {new}: {}", names.join(" "))
            })
            .collect();
        expect![[r#"
            linux 6.1 -> 6.2: linux-image-6.2
            openssl 1-1 -> 1-1+deb13u1: openssl-provider libssl"#]]
        .assert_eq(&told.join("\n"));
        assert_eq!(security_updates(&new, &old), []);
    }

    /// A lock may have two versions of a name, for one board each.
    #[test]
    fn a_change_of_one_version_of_several_is_told() {
        let (one, two) = ("trixie libc 1-1 glibc 1", "trixie libc 2-1 glibc 1");
        let three = "trixie libc 3-1 glibc 1";
        for (before, after, expected) in [
            (vec![one, two], vec![one, two], ""),
            (
                vec![one, two],
                vec![one, three],
                "  libc 2-1 -> 3-1 (trixie)",
            ),
            (
                vec![one, two],
                vec![two, three],
                "  libc 1-1 -> 3-1 (trixie)",
            ),
            (vec![one, two], vec![two], "- libc 1-1"),
            (vec![two], vec![one, two], "+ libc 1-1 (trixie)"),
        ] {
            let (before, after) = (lock(&before.join("\n")), lock(&after.join("\n")));
            let told: Vec<String> = changes(Some(&before), &after)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(told.join("\n"), expected);
        }
    }
}
