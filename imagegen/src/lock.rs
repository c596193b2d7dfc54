//! The lock: every package that the images of one architecture are made of, by version and digest, and what each needs of the others.
//!
//! Pure: reading the file and filling it from an archive's lists are the caller's part. A lock is an [`Index`] cut down to what was chosen.
//! The relations between packages are kept as the names that met them, so that the same request leads to the same packages without the
//! archive's lists; [`Lock::of_choices`] makes sure that it does. The dates of the releases are kept, too: the newest is the time of
//! everything in an image, and none of them may be followed by an older one.

pub mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use debversion::Version;
use serde::Deserialize;

use crate::index::{Index, Package, parse_source, relative_path};
use crate::make::release::{Release, parse_date};
use crate::mirror::Archive;
use crate::relation::{Relation, is_package_name, parse_relations};
use crate::resolve::{Request, Resolution, ResolveError, resolve};
use crate::sha256::Sha256;

/// The version of the format.
const FORMAT: u32 = 1;

/// The packages of one architecture's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    architecture: String,
    releases: BTreeMap<String, LockedRelease>,
    /// Sorted by name, then version.
    packages: Vec<Package>,
}

/// A signed release that packages were chosen from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedRelease {
    /// When the archive made it.
    pub date: SystemTime,
    /// The same as the archive wrote it.
    pub date_text: String,
    /// Whether its packages may be taken without being asked for by version.
    pub automatic: bool,
}

/// Packages that were chosen for one kind of image.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The image, for messages: `pi3 with ssh`.
    pub image: String,
    /// What was asked for.
    pub request: Request,
    /// What was chosen.
    pub resolution: Resolution,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Not TOML, or not the keys of a lock.
    #[error("the lock is not written as `cargo xtask lock` writes it")]
    Syntax(#[source] Box<toml::de::Error>),
    /// It is of another architecture.
    #[error("the lock is of {found}, and the one of {wanted} is looked for")]
    Architecture {
        /// The architecture in the lock.
        found: String,
        /// The one looked for.
        wanted: String,
    },
    /// Another version of the format.
    #[error("the lock has the format {0}, and only {FORMAT} is known")]
    Format(u32),
    /// A value that cannot be.
    #[error("the lock's {what} has no usable {field}")]
    Value {
        /// The entry.
        what: String,
        /// Its key.
        field: &'static str,
    },
    /// The same package or release twice.
    #[error("the lock has {name} {version} twice")]
    Twice {
        /// What it is.
        name: String,
        /// Its version, or the date of a release.
        version: String,
    },
    /// The chosen packages cannot be told from the lock.
    #[error("the lock would lead to other packages for {image}: {names}")]
    Ambiguous {
        /// The image.
        image: String,
        /// Where the two differ.
        names: String,
    },
    /// A locked package does not lead to what it needs.
    #[error("the lock would not lead to the packages for {image}")]
    Unresolved {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: ResolveError,
    },
    /// The mirror is behind the lock.
    #[error(
        "the release of {suite} is dated {served}, but the lock was made from one dated {locked}"
    )]
    RolledBack {
        /// The suite.
        suite: String,
        /// The date of what the mirror sent.
        served: String,
        /// The date in the lock.
        locked: String,
    },
    /// The lock would lose its security updates.
    #[error("the lock was made with {suite}, and would be made anew without it")]
    SecurityTakenAway {
        /// The suite.
        suite: String,
    },
}

impl LockError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            LockError::Syntax(_)
            | LockError::Format(_)
            | LockError::Architecture { .. }
            | LockError::Value { .. }
            | LockError::Twice { .. } => {
                Some("take the committed one (`git restore packages.lock`), or make it anew")
            }
            LockError::RolledBack { .. } => Some(
                "the mirror lags behind the one used before: wait, or name another one with --mirror",
            ),
            LockError::SecurityTakenAway { .. } => {
                Some("leave the option out; a lock that has security updates keeps them")
            }
            LockError::Ambiguous { .. } | LockError::Unresolved { .. } => None,
        }
    }
}

impl LockedRelease {
    /// Takes of signed releases what a lock keeps, by suite.
    pub fn of_all(releases: &[Release]) -> BTreeMap<String, Self> {
        let locked = |release: &Release| LockedRelease {
            date: release.date,
            date_text: release.date_text.clone(),
            automatic: release.automatic,
        };
        let releases = releases.iter();
        releases
            .map(|release| (release.suite.clone(), locked(release)))
            .collect()
    }
}

impl Lock {
    /// Locks the packages of all choices, and makes sure that each choice can be made again from the lock alone.
    pub fn of_choices(
        architecture: &str,
        releases: BTreeMap<String, LockedRelease>,
        choices: &[Choice],
    ) -> Result<Self, LockError> {
        let lock = Lock {
            architecture: architecture.to_owned(),
            releases,
            packages: lock_packages(choices),
        };
        let index = lock.index();
        for choice in choices {
            let again =
                resolve(&index, &choice.request).map_err(|source| LockError::Unresolved {
                    image: choice.image.clone(),
                    source,
                })?;
            let (wanted, got) = (files_of(&choice.resolution), files_of(&again));
            let names: BTreeSet<&str> = wanted
                .symmetric_difference(&got)
                .map(|(name, _)| *name)
                .collect();
            if !names.is_empty() {
                return Err(LockError::Ambiguous {
                    image: choice.image.clone(),
                    names: names.into_iter().collect::<Vec<_>>().join(", "),
                });
            }
        }
        Ok(lock)
    }

    /// Parses the text of the lock of an architecture.
    pub fn parse(text: &str, architecture: &str) -> Result<Self, LockError> {
        let raw: RawLock =
            toml::from_str(text).map_err(|source| LockError::Syntax(Box::new(source)))?;
        if raw.version != FORMAT {
            return Err(LockError::Format(raw.version));
        }
        if raw.architecture != architecture {
            return Err(LockError::Architecture {
                found: raw.architecture,
                wanted: architecture.to_owned(),
            });
        }
        let mut releases = BTreeMap::new();
        for release in raw.release {
            let date = parse_date(&release.date).ok_or_else(|| LockError::Value {
                what: format!("release {}", release.suite),
                field: "date",
            })?;
            let locked = LockedRelease {
                date,
                date_text: release.date,
                automatic: release.automatic,
            };
            if let Some(first) = releases.insert(release.suite.clone(), locked) {
                return Err(LockError::Twice {
                    name: format!("the release {}", release.suite),
                    version: first.date_text,
                });
            }
        }
        let mut packages = Vec::new();
        for package in raw.package {
            packages.push(parse_package(package, &releases)?);
        }
        packages.sort_by(by_name_and_version);
        for pair in packages.windows(2) {
            if by_name_and_version(&pair[0], &pair[1]).is_eq() {
                return Err(LockError::Twice {
                    name: pair[0].name.clone(),
                    version: pair[0].version.to_string(),
                });
            }
        }
        Ok(Lock {
            architecture: raw.architecture,
            releases,
            packages,
        })
    }

    /// Chooses the packages of an image from the lock.
    pub fn resolve(&self, request: &Request) -> Result<Resolution, ResolveError> {
        resolve(&self.index(), request)
    }

    /// Returns Debian's name of the architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Returns the packages, sorted by name, then version.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// Returns the releases that the packages come from, by suite.
    pub fn releases(&self) -> &BTreeMap<String, LockedRelease> {
        &self.releases
    }

    /// Whether the lock was made with security updates in view.
    pub fn has_security(&self) -> bool {
        self.releases.keys().any(|suite| is_security(suite))
    }

    /// Returns the date of the newest release in seconds since 1970: the time of everything in an image.
    pub fn time(&self) -> Result<u32, LockError> {
        let newest = self.releases.values().map(|release| release.date).max();
        newest
            .and_then(|date| date.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u32::try_from(since.as_secs()).ok())
            .ok_or_else(|| LockError::Value {
                what: "releases".to_owned(),
                field: "date",
            })
    }

    /// Refuses releases that are older than those the lock was made from: a mirror that serves the past. Refuses, too, to go on without
    /// the security updates that the lock was made with.
    pub fn check_not_older(
        &self,
        releases: &BTreeMap<String, LockedRelease>,
    ) -> Result<(), LockError> {
        for (suite, release) in releases {
            let locked = self.releases.get(suite);
            if let Some(locked) = locked.filter(|locked| locked.date > release.date) {
                return Err(LockError::RolledBack {
                    suite: suite.clone(),
                    served: release.date_text.clone(),
                    locked: locked.date_text.clone(),
                });
            }
        }
        let mut security = self.releases.keys().filter(|suite| is_security(suite));
        match security.find(|suite| !releases.contains_key(*suite)) {
            Some(suite) => Err(LockError::SecurityTakenAway {
                suite: suite.clone(),
            }),
            None => Ok(()),
        }
    }

    fn index(&self) -> Index {
        Index::of(self.packages.iter().cloned())
    }
}

/// The text of the lock, ready for its file.
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let architecture = &self.architecture;
        writeln!(
            f,
            "# The packages of the {architecture} boards. `cargo xtask lock` writes this file."
        )?;
        if !self.has_security() {
            writeln!(f, "# Chosen without Debian's security updates.")?;
        }
        writeln!(
            f,
            "version = {FORMAT}\narchitecture = {}",
            quoted(architecture)
        )?;
        for (suite, release) in &self.releases {
            writeln!(f, "\n[[release]]\nsuite = {}", quoted(suite))?;
            writeln!(f, "date = {}", quoted(&release.date_text))?;
            if !release.automatic {
                writeln!(f, "automatic = false")?;
            }
        }
        for package in &self.packages {
            writeln!(f)?;
            write_package(f, package)?;
        }
        Ok(())
    }
}

fn is_security(suite: &str) -> bool {
    Archive::of_suite(suite) == Archive::Security
}

fn write_package(f: &mut fmt::Formatter<'_>, package: &Package) -> fmt::Result {
    writeln!(f, "[[package]]\nname = {}", quoted(&package.name))?;
    writeln!(f, "version = {}", quoted(&package.version.to_string()))?;
    writeln!(f, "suite = {}", quoted(&package.suite))?;
    writeln!(f, "file = {}", quoted(&package.filename))?;
    writeln!(f, "size = {}", package.size)?;
    writeln!(f, "sha256 = {}", quoted(&package.sha256.to_string()))?;
    writeln!(f, "installed-size = {}", package.installed_size)?;
    let (source, version) = &package.source;
    if (source, version) != (&package.name, &package.version) {
        writeln!(f, "source = {}", quoted(&format!("{source} ({version})")))?;
    }
    if !package.depends.is_empty() {
        let groups = package.depends.iter().map(|group| {
            let names: Vec<&str> = group
                .iter()
                .map(|relation| relation.name.as_str())
                .collect();
            quoted(&names.join(" | "))
        });
        writeln!(f, "needs = [{}]", groups.collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn by_name_and_version(one: &Package, other: &Package) -> std::cmp::Ordering {
    (&one.name, &one.version).cmp(&(&other.name, &other.version))
}

fn files_of(resolution: &Resolution) -> BTreeSet<(&str, Sha256)> {
    resolution
        .packages
        .iter()
        .map(|(name, package)| (name.as_str(), package.sha256))
        .collect()
}

/// By the number of the group: the names that meet it, in the order in which the package prefers them.
type Needs = BTreeMap<usize, BTreeSet<(usize, String)>>;

fn lock_packages(choices: &[Choice]) -> Vec<Package> {
    let mut locked: BTreeMap<(String, Version), (Package, Needs)> = BTreeMap::new();
    for choice in choices {
        for package in choice.resolution.packages.values() {
            let key = (package.name.clone(), package.version.clone());
            let (_, needs) = locked
                .entry(key)
                .or_insert_with(|| (package.clone(), Needs::new()));
            for (place, group) in package.depends.iter().enumerate() {
                if let Some(met) = met_by(group, package, &choice.resolution) {
                    needs.entry(place).or_default().insert(met);
                }
            }
        }
    }
    locked
        .into_values()
        .map(|(package, needs)| cut_down(package, needs))
        .collect()
}

/// Returns the place of the alternative that was met and the name of the package that meets it; none for what was left out on purpose.
fn met_by(group: &[Relation], package: &Package, chosen: &Resolution) -> Option<(usize, String)> {
    for (place, relation) in group.iter().enumerate() {
        let real = chosen
            .packages
            .get(&relation.name)
            .filter(|real| relation.admits(&real.version));
        let provider = || {
            let mut all = chosen.packages.values();
            all.find(|other| other.provides_for(relation))
        };
        if let Some(found) = real.or_else(provider) {
            return Some((place, found.name.clone())).filter(|(_, name)| *name != package.name);
        }
    }
    None
}

/// Takes from a package what only the archive's whole list can make sense of.
fn cut_down(package: Package, needs: Needs) -> Package {
    let mut depends: Vec<Vec<Relation>> = Vec::new();
    for names in needs.into_values() {
        let group: Vec<Relation> = names
            .into_iter()
            .map(|(_, name)| Relation {
                name,
                constraint: None,
            })
            .collect();
        if !depends.contains(&group) {
            depends.push(group);
        }
    }
    depends.sort_by(|one, other| one[0].name.cmp(&other[0].name));
    Package {
        architecture: architecture_of(&package.filename),
        depends,
        conflicts: Vec::new(),
        provides: Vec::new(),
        multi_arch: None,
        section: String::new(),
        ..package
    }
}

/// Debian names a package's file `name_version_architecture.deb`.
fn architecture_of(filename: &str) -> String {
    let stem = filename.strip_suffix(".deb").unwrap_or(filename);
    stem.rsplit('_').next().unwrap_or_default().to_owned()
}

fn parse_package(
    raw: RawPackage,
    releases: &BTreeMap<String, LockedRelease>,
) -> Result<Package, LockError> {
    let lacks = |field| LockError::Value {
        what: format!("package {}", raw.name),
        field,
    };
    if !is_package_name(&raw.name) {
        return Err(lacks("name"));
    }
    let version: Version = raw.version.parse().map_err(|_| lacks("version"))?;
    let release = releases.get(&raw.suite).ok_or_else(|| lacks("suite"))?;
    let filename = relative_path(&raw.file).ok_or_else(|| lacks("file"))?;
    let depends = parse_relations(&raw.needs.join(", ")).map_err(|_| lacks("needs"))?;
    Ok(Package {
        architecture: architecture_of(&filename),
        depends,
        conflicts: Vec::new(),
        provides: Vec::new(),
        multi_arch: None,
        source: parse_source(raw.source.as_deref(), &raw.name, &version)
            .ok_or_else(|| lacks("source"))?,
        section: String::new(),
        filename,
        archive: Archive::of_suite(&raw.suite),
        automatic: release.automatic,
        size: raw.size,
        sha256: raw.sha256.parse().map_err(|_| lacks("sha256"))?,
        installed_size: raw.installed_size,
        suite: raw.suite,
        name: raw.name,
        version,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawLock {
    version: u32,
    architecture: String,
    #[serde(default)]
    release: Vec<RawRelease>,
    #[serde(default)]
    package: Vec<RawPackage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRelease {
    suite: String,
    date: String,
    #[serde(default = "yes")]
    automatic: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawPackage {
    name: String,
    version: String,
    suite: String,
    file: String,
    size: u64,
    sha256: String,
    installed_size: u64,
    source: Option<String>,
    #[serde(default)]
    needs: Vec<String>,
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::changes::changes;
    use super::*;
    use crate::index::Origin;
    use crate::resolve::Root;

    const DATE: &str = "Sat, 01 Nov 2025 08:00:00 UTC";

    fn releases(date: &str) -> BTreeMap<String, LockedRelease> {
        let release = |automatic| LockedRelease {
            date: parse_date(date).unwrap(),
            date_text: date.to_owned(),
            automatic,
        };
        BTreeMap::from([
            ("trixie".to_owned(), release(true)),
            ("trixie-backports".to_owned(), release(false)),
        ])
    }

    /// A package a line: `suite name version fields`, the fields parted by `;`.
    fn index(lines: &str) -> Index {
        let mut index = Index::default();
        for line in lines.lines() {
            let words: Vec<&str> = line.trim().splitn(4, ' ').collect();
            let [suite, name, version, fields] = words[..] else {
                panic!("{line}");
            };
            let fields = fields.replace(';', "\n");
            let digest = Sha256::of(line.as_bytes());
            let text = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: pool/{name}_{version}_all.deb\nSize: 7\nSHA256: {digest}\n{fields}\n"
            );
            let origin = Origin {
                suite: suite.to_owned(),
                automatic: suite == "trixie",
            };
            index.add(&text, &origin).unwrap();
        }
        index
    }

    /// The same board with the shell that has what the other board gets by its first alternative, and the kernel of backports.
    const ARCHIVE: &str = "trixie init 1 Depends: libc (>= 1), awk, left-out
        trixie libc 2 Source: glibc (2.0)
        trixie mawk 1 Provides: awk;Depends: libc
        trixie gawk 1 Provides: awk;Depends: libc
        trixie editor 1 Depends: nano | vim
        trixie nano 1 Section: editors
        trixie vim 1 Section: editors
        trixie linux 6 Section: kernel
        trixie-backports linux 7 Depends: linux-modules
        trixie-backports linux-modules 7 Section: kernel";

    fn choices(archive: &str) -> Vec<Choice> {
        let index = index(archive);
        let choice = |image: &str, names: &[&str], suite: Option<&str>| {
            let mut roots: Vec<Root> = names.iter().map(|name| Root::latest(name)).collect();
            roots.push(Root {
                suite: suite.map(str::to_owned),
                ..Root::latest("linux")
            });
            let request = Request {
                roots,
                exclude: BTreeSet::from(["left-out".to_owned()]),
                ..Request::default()
            };
            Choice {
                image: image.to_owned(),
                resolution: resolve(&index, &request).unwrap(),
                request,
            }
        };
        vec![
            choice("one", &["init", "editor"], None),
            choice(
                "other",
                &["init", "mawk", "vim", "editor"],
                Some("trixie-backports"),
            ),
        ]
    }

    fn lock_of(archive: &str) -> Lock {
        Lock::of_choices("arm64", releases(DATE), &choices(archive)).unwrap()
    }

    #[test]
    fn a_lock_leads_to_the_packages_that_were_chosen() {
        let lock = lock_of(ARCHIVE);
        let again = Lock::parse(&lock.to_string(), "arm64").unwrap();
        assert_eq!(again, lock);
        for choice in choices(ARCHIVE) {
            let resolution = again.resolve(&choice.request).unwrap();
            assert_eq!(files_of(&resolution), files_of(&choice.resolution));
        }
        let needs = |name: &str| {
            let mut found = lock.packages.iter().filter(|package| package.name == name);
            found.next().unwrap().depends.concat()
        };
        let shown = ["init", "editor"].map(|name| {
            let names: Vec<String> = needs(name).iter().map(ToString::to_string).collect();
            names.join(" ")
        });
        expect![[r#"
            [
                "gawk mawk libc",
                "nano vim",
            ]
        "#]]
        .assert_debug_eq(&shown);
        assert_eq!(lock.time().unwrap(), 1_761_984_000);
        assert_eq!(
            lock.packages
                .iter()
                .filter(|package| package.name == "linux")
                .count(),
            2
        );
        assert!(!lock.to_string().contains("left-out"));
    }

    #[test]
    fn a_package_in_the_file() {
        let text = lock_of("trixie init 1 Source: systemd (1.5);Depends: libc\ntrixie libc 2 Installed-Size: 3\ntrixie linux 6 Section: kernel\ntrixie editor 1 A: b\ntrixie mawk 1 A: b\ntrixie vim 1 A: b\ntrixie-backports linux 7 A: b").to_string();
        let from = text.find("[[package]]\nname = \"init\"").unwrap();
        let end = text[from..].find("\n\n").unwrap();
        expect![[r#"
            [[package]]
            name = "init"
            version = "1"
            suite = "trixie"
            file = "pool/init_1_all.deb"
            size = 7
            sha256 = "b748cf92d3d55f90af0738a3084482e5544cd61842fd07d32404b4e90243359b"
            installed-size = 0
            source = "systemd (1.5)"
            needs = ["libc"]"#]]
        .assert_eq(&text[from..from + end]);
    }

    fn check_refused(from: &str, to: &str, expected: Expect) {
        let text = lock_of(ARCHIVE).to_string();
        assert!(text.contains(from), "{from}");
        let error = Lock::parse(&text.replacen(from, to, 1), "arm64").unwrap_err();
        expected.assert_eq(&error.to_string());
        assert!(error.hint().is_some());
    }

    #[test]
    fn a_lock_that_somebody_spoilt_is_refused() {
        check_refused(
            "pool/editor",
            "../editor",
            expect!["the lock's package editor has no usable file"],
        );
        check_refused(
            "pool/editor",
            "/editor",
            expect!["the lock's package editor has no usable file"],
        );
        check_refused(
            "pool/editor",
            "http://host/editor",
            expect!["the lock's package editor has no usable file"],
        );
        check_refused(
            "\"editor\"",
            "\"../editor\"",
            expect!["the lock's package ../editor has no usable name"],
        );
        check_refused(
            "suite = \"trixie\"\nfile",
            "suite = \"sid\"\nfile",
            expect!["the lock's package editor has no usable suite"],
        );
        check_refused(
            "sha256 = \"",
            "sha256 = \"x",
            expect!["the lock's package editor has no usable sha256"],
        );
        check_refused(
            "version = 1",
            "version = 2",
            expect!["the lock has the format 2, and only 1 is known"],
        );
        check_refused(
            "\"arm64\"",
            "\"armhf\"",
            expect!["the lock is of armhf, and the one of arm64 is looked for"],
        );
        check_refused(
            "size = 7",
            "size = -7",
            expect!["the lock is not written as `cargo xtask lock` writes it"],
        );
        check_refused(
            "08:00:00",
            "8 o'clock",
            expect!["the lock's release trixie has no usable date"],
        );
        check_refused(
            "name = \"gawk\"",
            "name = \"mawk\"",
            expect!["the lock has mawk 1 twice"],
        );
        // What a merge of two branches leaves, where both have a newer one.
        check_refused(
            "suite = \"trixie-backports\"\ndate",
            "suite = \"trixie\"\ndate",
            expect!["the lock has the release trixie Sat, 01 Nov 2025 08:00:00 UTC twice"],
        );
    }

    #[test]
    fn changes_are_told_by_name() {
        let newer = ARCHIVE
            .replace("libc 2 Source: glibc (2.0)", "libc 2.1 Source: glibc (2.1)")
            .replace(
                "init 1 Depends: libc (>= 1), awk",
                "init 1 Depends: libc (>= 1), awk, tzdata",
            )
            .replace("nano 1 Section", "pico 1 Provides: nano;Section")
            + "\ntrixie tzdata 1 Section: data";
        let (old, new) = (lock_of(ARCHIVE), lock_of(&newer));
        let told: Vec<String> = changes(Some(&old), &new)
            .iter()
            .map(ToString::to_string)
            .collect();
        expect![[r#"
              editor 1: another entry (trixie)
              init 1: another entry (trixie)
              libc 2 -> 2.1 (trixie)
            - nano 1
            + pico 1 (trixie)
            + tzdata 1 (trixie)"#]]
        .assert_eq(&told.join("\n"));
        assert_eq!(changes(Some(&old), &old), []);
        assert_eq!(changes(None, &new).len(), new.packages.len());
    }

    #[test]
    fn a_mirror_that_serves_the_past_is_refused() {
        let lock = lock_of(ARCHIVE);
        lock.check_not_older(&releases("Sat, 01 Nov 2025 08:00:00 UTC"))
            .unwrap();
        lock.check_not_older(&releases("Sun, 02 Nov 2025 08:00:00 UTC"))
            .unwrap();
        let error = lock
            .check_not_older(&releases("Fri, 31 Oct 2025 08:00:00 UTC"))
            .unwrap_err();
        expect!["the release of trixie is dated Fri, 31 Oct 2025 08:00:00 UTC, but the lock was made from one dated Sat, 01 Nov 2025 08:00:00 UTC"].assert_eq(&error.to_string());
    }

    #[test]
    fn a_lock_tells_whether_it_has_security_updates_and_keeps_them() {
        let without = lock_of(ARCHIVE);
        assert!(!without.has_security());
        let line = "# Chosen without Debian's security updates.\n";
        assert!(without.to_string().contains(line));

        let mut both = releases(DATE);
        let security = both["trixie"].clone();
        both.insert("trixie-security".to_owned(), security);
        let with = Lock::of_choices("arm64", both.clone(), &choices(ARCHIVE)).unwrap();
        assert!(with.has_security());
        assert!(!with.to_string().contains(line));

        without.check_not_older(&both).unwrap();
        with.check_not_older(&both).unwrap();
        let error = with.check_not_older(&releases(DATE)).unwrap_err();
        expect!["the lock was made with trixie-security, and would be made anew without it"]
            .assert_eq(&error.to_string());
        assert!(error.hint().is_some());
    }
}
