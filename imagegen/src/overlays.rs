//! The files of `overlays/`, read into memory, and the rules in `overlay.toml` that say what a path alone cannot.
//!
//! Below `rootfs/` the path is the destination. What ends in `.tera` is a template, rendered in `plan::overlay`; nothing is decided here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

use crate::recipe::{Feature, Recipe, RecipeError};

/// Everything that `overlays/` holds. Paths are relative, files by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlays {
    /// Files of the root.
    pub rootfs: Files,
    /// Files of the boot partition.
    pub boot: Files,
    /// Files for `site/` on the boot partition.
    pub site: Files,
    /// Files of the initramfs.
    pub initramfs: Files,
    /// What goes beyond the files.
    pub rules: OverlayRules,
    /// The packages.
    pub recipe: Recipe,
}

/// The bytes of files by relative path.
pub type Files = BTreeMap<String, Arc<[u8]>>;

/// The contents of `overlay.toml`. Paths are relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayRules {
    /// Modes other than 0644.
    pub modes: BTreeMap<String, u16>,
    /// Files and links that only images with a feature have.
    pub conditions: BTreeMap<String, Feature>,
    /// What of `site/` is laid over the root, in order of name.
    pub site: Vec<SiteFile>,
    /// Modes of directories on the way to those destinations, other than 0755.
    pub site_directories: BTreeMap<String, u16>,
    /// Symbolic links, path to target.
    pub links: BTreeMap<String, String>,
    /// Units to be masked.
    pub masks: Vec<String>,
    /// What packages bring and the root does not take.
    pub removals: Vec<Pattern>,
}

/// A file that the initramfs takes from `site/`, or all those with a name such as `*.pem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteFile {
    /// Its name there. A star stands for any characters, at the beginning only.
    pub name: String,
    /// Where it is laid, relative to the root. Ends in `/*` where the name has a star: each file keeps its name.
    pub destination: String,
    /// With which mode; 0644 or 0600. The owner is root.
    pub mode: u16,
}

/// A path pattern: `*` stands for part of one component, and whatever is below a match matches too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

/// Why overlays cannot be used.
#[derive(Debug, Error)]
pub enum OverlayError {
    /// Something cannot be read.
    #[error("failed to read {path}", path = path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        #[source]
        err: std::io::Error,
    },
    /// A link, a pipe or the like, which could lead out of the overlays or never end.
    #[error("{} is neither a file nor a directory; links are named in overlay.toml", .0.display())]
    Kind(PathBuf),
    /// Not TOML, or not the keys of overlay rules.
    #[error("overlay.toml is not written as overlay rules are: {0}")]
    Syntax(String),
    /// A value that cannot work.
    #[error("overlay.toml: `{value}` under {table}, but {rule}")]
    Value {
        /// The table it is in.
        table: &'static str,
        /// The value.
        value: String,
        /// What it has to be.
        rule: &'static str,
    },
    /// The packages are not written as they should be.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}

/// Loads a directory of overlays.
pub fn load_overlays(dir: &Path) -> Result<Overlays, OverlayError> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|err| OverlayError::Read { path, err })
    };
    Ok(Overlays {
        rootfs: load_files(&dir.join("rootfs"))?,
        boot: load_files(&dir.join("boot"))?,
        site: load_files(&dir.join("site"))?,
        initramfs: load_files(&dir.join("initramfs"))?,
        rules: parse_rules(&read("overlay.toml")?)?,
        recipe: Recipe::parse(&read("packages.toml")?)?,
    })
}

/// Parses `overlay.toml`.
pub fn parse_rules(text: &str) -> Result<OverlayRules, OverlayError> {
    let raw: RawRules =
        toml::from_str(text).map_err(|err| OverlayError::Syntax(err.to_string()))?;
    let site = raw
        .site
        .into_iter()
        .map(|(name, file)| parse_site_file(name, &file))
        .collect::<Result<_, _>>()?;
    Ok(OverlayRules {
        modes: parse_modes("modes", &raw.modes)?,
        conditions: raw
            .conditions
            .into_iter()
            .map(|(path, feature)| Ok((inner("conditions", &path)?, feature)))
            .collect::<Result<_, OverlayError>>()?,
        site,
        site_directories: parse_modes("site-directories", &raw.site_directories)?,
        links: raw
            .links
            .into_iter()
            .map(|(path, target)| Ok((inner("links", &path)?, target)))
            .collect::<Result<_, OverlayError>>()?,
        masks: raw.masks.units,
        removals: raw
            .remove
            .paths
            .iter()
            .map(|path| Ok(Pattern::parse(&inner("remove", path)?)))
            .collect::<Result<_, OverlayError>>()?,
    })
}

impl Pattern {
    fn parse(path: &str) -> Self {
        Self(path.split('/').map(str::to_owned).collect())
    }

    /// Whether the pattern names this path or a directory above it.
    pub fn covers(&self, path: &str) -> bool {
        let mut names = path.split('/');
        self.0
            .iter()
            .all(|pattern| names.next().is_some_and(|name| matches_name(pattern, name)))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.join("/"))
    }
}

/// Matches one name against a pattern whose stars stand for any characters.
fn matches_name(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        if let Some(piece) = last.replace(piece) {
            let Some(at) = rest.find(piece) else {
                return false;
            };
            rest = &rest[at + piece.len()..];
        }
    }
    match last {
        Some(piece) => rest.ends_with(piece),
        None => rest.is_empty(),
    }
}

fn load_files(dir: &Path) -> Result<Files, OverlayError> {
    let mut files = Files::new();
    let mut directories = vec![(dir.to_owned(), String::new())];
    while let Some((dir, prefix)) = directories.pop() {
        let failed = |err| OverlayError::Read {
            path: dir.clone(),
            err,
        };
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                directories.push((path, format!("{name}/")));
            } else if !kind.is_file() {
                return Err(OverlayError::Kind(path));
            } else {
                let bytes = std::fs::read(&path).map_err(|err| OverlayError::Read { path, err })?;
                files.insert(name, bytes.into());
            }
        }
    }
    Ok(files)
}

fn parse_modes(
    table: &'static str,
    modes: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, u16>, OverlayError> {
    modes
        .iter()
        .map(|(path, mode)| Ok((inner(table, path)?, parse_mode(table, mode)?)))
        .collect()
}

fn parse_mode(table: &'static str, text: &str) -> Result<u16, OverlayError> {
    let mode = u16::from_str_radix(text, 8)
        .ok()
        .filter(|mode| text.len() == 4 && *mode <= 0o7777);
    mode.ok_or_else(|| value(table, text, "a mode has four octal digits"))
}

/// What a person edits must be able to change settings, not the system: it lands where settings are, and cannot be executed.
fn parse_site_file(name: String, file: &RawSiteFile) -> Result<SiteFile, OverlayError> {
    const TABLE: &str = "site";
    let destination = inner(TABLE, &file.destination)?;
    let is_word = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"*?[\\\"'$`".contains(&byte))
    };
    let (plain_name, plain_destination) = match name.strip_prefix("*.") {
        Some(end) => (end, destination.strip_suffix("/*").unwrap_or_default()),
        None => (&*name, &*destination),
    };
    if plain_name.is_empty()
        || !is_word(plain_name)
        || name.contains('/')
        || plain_destination.is_empty()
        || !is_word(plain_destination)
    {
        return Err(value(
            TABLE,
            &name,
            "names and destinations are plain words, or a name begins with `*.` and its destination ends in `/*`",
        ));
    }
    let mode = parse_mode(TABLE, &file.mode)?;
    if !matches!(mode, 0o600 | 0o644) {
        return Err(value(
            TABLE,
            &file.mode,
            "site files have mode 0600 or 0644",
        ));
    }
    let place = destination.rsplit_once('/').map_or("", |(place, _)| place);
    if !SITE_PLACES.contains(&place) || destination.ends_with("passwd") {
        return Err(value(
            TABLE,
            &file.destination,
            "site files are laid into directories of settings only",
        ));
    }
    Ok(SiteFile {
        name,
        destination,
        mode,
    })
}

/// Directories that site files may be laid into.
const SITE_PLACES: [&str; 5] = [
    "etc",
    "etc/footbridge",
    "etc/systemd/network",
    "etc/wpa_supplicant",
    "root/.ssh",
];

fn inner(table: &'static str, path: &str) -> Result<String, OverlayError> {
    let relative = path
        .strip_prefix('/')
        .filter(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")));
    relative
        .map(str::to_owned)
        .ok_or_else(|| value(table, path, "paths are absolute, without `.` and `..`"))
}

fn value(table: &'static str, value: &str, rule: &'static str) -> OverlayError {
    OverlayError::Value {
        table,
        value: value.to_owned(),
        rule,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRules {
    modes: BTreeMap<String, String>,
    conditions: BTreeMap<String, Feature>,
    site: BTreeMap<String, RawSiteFile>,
    site_directories: BTreeMap<String, String>,
    links: BTreeMap<String, String>,
    masks: RawMasks,
    remove: RawRemovals,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawSiteFile {
    destination: String,
    mode: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawMasks {
    units: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRemovals {
    paths: Vec<String>,
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const RULES: &str = include_str!("../../overlays/overlay.toml");

    #[test]
    fn a_pattern_covers_what_it_names_and_all_below() {
        for (pattern, path, want) in [
            ("usr/share/doc", "usr/share/doc", true),
            ("usr/share/doc", "usr/share/doc/systemd/README", true),
            ("usr/share/doc", "usr/share/docs", false),
            ("usr/share/doc", "usr/share", false),
            (
                "usr/lib/*/gconv",
                "usr/lib/aarch64-linux-gnu/gconv/UTF-7.so",
                true,
            ),
            ("usr/lib/*/gconv", "usr/lib/gconv", false),
            ("units/*pcr*", "units/systemd-pcrphase.service", true),
            ("units/*pcr*", "units/pc", false),
            ("units/initrd*", "units/initrd-fs.target", true),
            ("a/b*c*d", "a/bxcycd", true),
            ("a/b*c*d", "a/bxd", false),
        ] {
            assert_eq!(
                Pattern::parse(pattern).covers(path),
                want,
                "{pattern} {path}"
            );
        }
    }

    /// The whole way from the boot partition into the system. A change here wants a second thought.
    #[test]
    fn the_site_reaches_these_files_and_no_others() {
        let rules = parse_rules(RULES).unwrap();
        let table: String = rules
            .site
            .iter()
            .map(|file| {
                format!(
                    "{:04o} /{} <- site/{}\n",
                    file.mode, file.destination, file.name
                )
            })
            .collect();
        expect![[r#"
            0600 /etc/wpa_supplicant/* <- site/*.pem
            0600 /root/.ssh/authorized_keys <- site/authorized_keys
            0644 /etc/footbridge/footbridge.toml <- site/footbridge.toml
            0644 /etc/hostname <- site/hostname
            0644 /etc/systemd/network/08-wlan0.network <- site/uplink.network
            0600 /etc/wpa_supplicant/wpa_supplicant-wlan0.conf <- site/wpa_supplicant.conf
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn a_link_among_the_files_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(".", scratch.path().join("loop")).unwrap();
        let message = load_files(scratch.path()).unwrap_err().to_string();
        assert!(message.contains("/loop is neither a file"), "{message}");
    }

    #[test]
    fn rules_that_cannot_work_are_refused() {
        for (from, to, says) in [
            ("[masks]", "[maks]", "unknown field `maks`"),
            (
                "\"/etc/shadow\" = \"0600\"",
                "\"/etc/shadow\" = \"600\"",
                "four octal digits",
            ),
            ("\"/etc/shadow\"", "\"/etc/../shadow\"", "absolute"),
            ("/etc/hostname", "/etc/passwd", "settings only"),
            (
                "/etc/hostname",
                "/etc/systemd/system/evil.service",
                "settings only",
            ),
            (
                "\"/etc/hostname\", mode = \"0644\"",
                "\"/etc/hostname\", mode = \"4755\"",
                "0600 or 0644",
            ),
            ("\"hostname\" =", "\"../hostname\" =", "plain words"),
            ("\"hostname\" =", "\"*.hostname\" =", "plain words"),
            ("\"*.pem\"", "\"*\"", "plain words"),
            ("wpa_supplicant/*\"", "*/*\"", "plain words"),
        ] {
            assert!(RULES.contains(from), "{from}");
            let message = parse_rules(&RULES.replacen(from, to, 1))
                .unwrap_err()
                .to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
