//! What is to be built, decided without touching the world: values in, values out.
//!
//! A [`Plan`] says everything about an image but what is inside its packages, and can be printed: the same inputs give the same text, which
//! is kept in git for every board, so that a change that alters images shows as a readable difference.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::board::{Board, Modules, Radio};
use crate::overlays::{Overlays, Pattern};
use crate::recipe::{Cover, Feature, RecipeError, Rule};
use crate::resolve::Resolution;
use crate::site::SiteOptions;

pub mod boot;
pub mod disk;
pub mod initramfs;
pub mod overlay;
pub mod site;
mod text;

use boot::{BootPlan, BootPlanError, plan_boot};
use disk::DiskSignature;
use initramfs::plan_initramfs;
use overlay::{OverlayPlanError, PlannedNode, plan_root_overlay};

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct PlanInputs<'a> {
    /// The board.
    pub board: &'a Board,
    /// The site.
    pub site: &'a SiteOptions,
    /// The packages chosen for [`crate::recipe::Recipe::request`].
    pub resolution: &'a Resolution,
    /// The repository's own files.
    pub overlays: &'a Overlays,
}

/// An image, before it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the board.
    pub board: String,
    /// What this image has that not all have.
    pub features: BTreeSet<Feature>,
    /// The packages by name.
    pub packages: BTreeMap<String, PlannedPackage>,
    /// The release of the kernel, as its modules' directory is called.
    pub kernel_release: String,
    /// The disk's identity.
    pub signature: DiskSignature,
    /// The modules.
    pub modules: Modules,
    /// The radio's firmware.
    pub radio: Radio,
    /// The root file system.
    pub root: RootPlan,
    /// The initramfs, without busybox and modules.
    pub initramfs: BTreeMap<String, PlannedNode>,
    /// The boot partition.
    pub boot: BootPlan,
}

/// What the root gets beside its packages, modules, radio firmware and the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPlan {
    /// What packages bring and the root does not take.
    pub removals: Vec<Pattern>,
    /// Rules that stand for maintainer scripts.
    pub rules: BTreeSet<Rule>,
    /// Overlay files, links and masks.
    pub nodes: BTreeMap<String, PlannedNode>,
}

/// A package and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPackage {
    /// Its version.
    pub version: String,
    /// Where its files go.
    pub place: Place,
    /// What stands for its scripts.
    pub cover: Cover,
}

/// Where the files of a package go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into the root, but for what is removed.
    Root,
    /// Kernel and device trees to the boot partition, modules to initramfs and root.
    Kernel,
    /// To the boot partition, those that the board names.
    BootFirmware,
    /// Into the root, those that the board names.
    RadioFirmware,
    /// Nowhere: it only depends on others.
    Nowhere,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The recipe does not know a package.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The overlays do not fit together.
    #[error(transparent)]
    Overlay(#[from] OverlayPlanError),
    /// The boot partition cannot be planned.
    #[error(transparent)]
    Boot(#[from] BootPlanError),
    /// The kernel's meta-package leads to no kernel.
    #[error("package `{meta}` leads to {count} kernels, and one is wanted")]
    Kernel {
        /// The package the board names.
        meta: String,
        /// How many kernels its packages are of.
        count: usize,
    },
}

/// Says which features an image has: the board's, and what the site asks for.
pub fn features_of(board: &Board, site: &SiteOptions) -> BTreeSet<Feature> {
    let ssh = site.ssh_keys.iter().map(|_| Feature::Ssh);
    board.features.iter().copied().chain(ssh).collect()
}

/// Plans an image.
pub fn plan(inputs: &PlanInputs<'_>) -> Result<Plan, PlanError> {
    let PlanInputs {
        board,
        site,
        resolution,
        overlays,
    } = *inputs;
    let features = features_of(board, site);
    let packages = plan_packages(board, resolution, overlays)?;
    let nodes = plan_root_overlay(board, overlays, &features)?;
    let initramfs = plan_initramfs(board, overlays);
    let signature = derive_signature(board, resolution, &nodes, &initramfs);
    Ok(Plan {
        board: board.id.clone(),
        kernel_release: kernel_release(board, &packages)?,
        signature,
        modules: board.modules.clone(),
        radio: board.radio.clone(),
        root: RootPlan {
            removals: overlays.rules.removals.clone(),
            rules: packages
                .values()
                .filter_map(|package| package.cover.rule())
                .collect(),
            nodes,
        },
        initramfs,
        boot: plan_boot(board, site, overlays, signature)?,
        features,
        packages,
    })
}

fn plan_packages(
    board: &Board,
    resolution: &Resolution,
    overlays: &Overlays,
) -> Result<BTreeMap<String, PlannedPackage>, PlanError> {
    let mut packages = BTreeMap::new();
    for (name, package) in &resolution.packages {
        let planned = PlannedPackage {
            version: package.version.to_string(),
            place: place_of(board, name),
            cover: overlays.recipe.cover(name)?,
        };
        packages.insert(name.clone(), planned);
    }
    Ok(packages)
}

fn place_of(board: &Board, name: &str) -> Place {
    let boot_firmware = board.firmware.as_ref().map(|firmware| &firmware.package);
    if boot_firmware.is_some_and(|package| package == name) {
        return Place::BootFirmware;
    }
    if board.radio.firmware.contains_key(name) {
        return Place::RadioFirmware;
    }
    match KERNEL_PREFIXES
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
    {
        Some(release) if release.starts_with(|first: char| first.is_ascii_digit()) => Place::Kernel,
        Some(_) => Place::Nowhere,
        None => Place::Root,
    }
}

/// Debian names a kernel's packages after its release; until Linux 7 there is one of them, since then there are several. Those named
/// otherwise only depend on them.
const KERNEL_PREFIXES: [&str; 4] = [
    "linux-image-",
    "linux-binary-",
    "linux-modules-",
    "linux-base-",
];

fn kernel_release(
    board: &Board,
    packages: &BTreeMap<String, PlannedPackage>,
) -> Result<String, PlanError> {
    let releases: BTreeSet<&str> = packages
        .iter()
        .filter(|(_, package)| package.place == Place::Kernel)
        .filter_map(|(name, _)| {
            KERNEL_PREFIXES
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix))
        })
        .collect();
    let count = releases.len();
    match releases.first() {
        Some(release) if count == 1 => Ok((*release).to_owned()),
        _ => Err(PlanError::Kernel {
            meta: board.kernel.package.clone(),
            count,
        }),
    }
}

/// Two images with different contents should not be mistaken for each other when both are in one machine. The site has no part in it: cards
/// of one fleet have the same root, and the same name for it.
fn derive_signature(
    board: &Board,
    resolution: &Resolution,
    root: &BTreeMap<String, PlannedNode>,
    initramfs: &BTreeMap<String, PlannedNode>,
) -> DiskSignature {
    let mut seed = Sha256::new();
    // What only people read has no part in it either.
    seed.update(format!(
        "{:?}",
        (
            &board.id,
            &board.console,
            &board.kernel,
            &board.firmware,
            &board.radio.firmware,
            &board.modules,
        )
    ));
    for package in resolution.packages.values() {
        seed.update(package.sha256.0);
    }
    for (path, PlannedNode { node, .. }) in root.iter().chain(initramfs) {
        seed.update(format!("\0{path}\0{node}\0"));
        seed.update(node.bytes().map_or(&[][..], |bytes| bytes));
    }
    DiskSignature::derive(&seed.finalize())
}

impl Cover {
    fn rule(&self) -> Option<Rule> {
        match self {
            Self::Rule(rule) => Some(*rule),
            Self::Elsewhere(_) | Self::Waived(_) | Self::Scriptless => None,
        }
    }
}
