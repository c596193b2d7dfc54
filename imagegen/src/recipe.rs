//! The recipe: which packages an image is made of, and what stands for the maintainer scripts that never run (`overlays/packages.toml`).
//!
//! Pure: reading the file is `overlays`' job. Every package of an image is either known to have no scripts, or somebody has read them and
//! written down who does their work; a package of which neither is said stops the build before anything is fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use thiserror::Error;

use crate::board::Board;
use crate::resolve::{Request, Root};

/// What images are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    base: Vec<String>,
    exclude: BTreeSet<String>,
    scriptless: BTreeSet<String>,
    features: BTreeMap<Feature, Vec<String>>,
    scripts: BTreeMap<String, Cover>,
}

/// Something that only some images have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// A shell for those who hold a key.
    Ssh,
    /// A USB port that is a network card of the computer at its other end.
    Gadget,
}

/// What stands for the maintainer scripts of a package.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cover {
    /// A rule of `make::rootfs`.
    Rule(Rule),
    /// Something else of this repository, told in words.
    Elsewhere(String),
    /// Nothing, for a reason.
    Waived(String),
    /// Nothing, for there are none.
    #[serde(skip)]
    Scriptless,
}

/// A rule that does to the root what a package's scripts would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Makes the directories of the top level, mount points above all.
    Directories,
    /// Makes Debian's signed copy of the regulatory database the one that the kernel finds.
    RegulatoryDatabase,
}

/// Why a recipe or the package list made by it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecipeError {
    /// Not TOML, or not the keys of a recipe.
    #[error("packages.toml is not written as a recipe is: {0}")]
    Syntax(String),
    /// A package is said to have no scripts and to have some.
    #[error("packages.toml lists `{0}` both under scriptless and under scripts")]
    Contradiction(String),
    /// Nobody has looked at the package.
    #[error(
        "nobody has read the maintainer scripts of package `{0}`; read them, then list it under scriptless or scripts in packages.toml"
    )]
    UnknownScripts(String),
}

impl Recipe {
    /// Parses `packages.toml`.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let raw: RawRecipe =
            toml::from_str(text).map_err(|err| RecipeError::Syntax(err.to_string()))?;
        if let Some(name) = raw
            .scriptless
            .iter()
            .find(|name| raw.scripts.contains_key(*name))
        {
            return Err(RecipeError::Contradiction(name.clone()));
        }
        Ok(Self {
            base: raw.base,
            exclude: raw.exclude,
            scriptless: raw.scriptless,
            features: raw.features,
            scripts: raw.scripts,
        })
    }

    /// Says what is to be resolved for a board.
    pub fn request(&self, board: &Board, features: &BTreeSet<Feature>) -> Request {
        let firmware = board.firmware.iter().map(|firmware| &firmware.package);
        let of_board = std::iter::once(&board.kernel.package)
            .chain(firmware)
            .chain(board.radio.firmware.keys());
        let of_features = self
            .features
            .iter()
            .filter(|(feature, _)| features.contains(feature))
            .flat_map(|(_, names)| names);
        let names: BTreeSet<&String> = self
            .base
            .iter()
            .chain(of_board)
            .chain(of_features)
            .collect();
        Request {
            roots: names
                .into_iter()
                .map(|name| Root {
                    suite: board
                        .kernel
                        .suite
                        .clone()
                        .filter(|_| *name == board.kernel.package),
                    ..Root::latest(name)
                })
                .collect(),
            exclude: self.exclude.clone(),
            ..Request::default()
        }
    }

    /// Returns what stands for a package's maintainer scripts.
    pub fn cover(&self, package: &str) -> Result<Cover, RecipeError> {
        if self.scriptless.contains(package) {
            return Ok(Cover::Scriptless);
        }
        let by_prefix = || {
            self.scripts.iter().find(|(name, _)| {
                name.strip_suffix('*')
                    .is_some_and(|prefix| package.starts_with(prefix))
            })
        };
        let cover = self
            .scripts
            .get(package)
            .or_else(|| by_prefix().map(|(_, cover)| cover));
        cover
            .cloned()
            .ok_or_else(|| RecipeError::UnknownScripts(package.to_owned()))
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ssh => "ssh",
            Self::Gadget => "gadget",
        })
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "scripts: rule {rule}"),
            Self::Elsewhere(what) => write!(f, "scripts: {what}"),
            Self::Waived(why) => write!(f, "scripts waived: {why}"),
            Self::Scriptless => f.write_str("no scripts"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directories => "directories",
            Self::RegulatoryDatabase => "regulatory-database",
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRecipe {
    base: Vec<String>,
    exclude: BTreeSet<String>,
    scriptless: BTreeSet<String>,
    features: BTreeMap<Feature, Vec<String>>,
    scripts: BTreeMap<String, Cover>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = r#"
        base = ["systemd"]
        exclude = []
        scriptless = ["mount"]
        [features]
        ssh = ["dropbear-bin"]
        [scripts]
        base-files = { rule = "directories" }
        "linux-image-6*" = { elsewhere = "by the builder" }
    "#;

    #[test]
    fn a_package_nobody_has_looked_at_is_an_error() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        for (package, want) in [
            ("mount", Ok(Cover::Scriptless)),
            ("base-files", Ok(Cover::Rule(Rule::Directories))),
            (
                "linux-image-6.12.1-arm64",
                Ok(Cover::Elsewhere("by the builder".to_owned())),
            ),
            (
                "linux-image-arm64",
                Err(RecipeError::UnknownScripts("linux-image-arm64".to_owned())),
            ),
        ] {
            assert_eq!(recipe.cover(package), want);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (from, to, says) in [
            ("exclude", "exclusions", "unknown field `exclusions`"),
            ("directories", "magic", "unknown variant `magic`"),
            ("ssh =", "telnet =", "unknown variant `telnet`"),
            ("\"mount\"", "\"base-files\"", "both under"),
        ] {
            let message = Recipe::parse(&RECIPE.replacen(from, to, 1))
                .unwrap_err()
                .to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
