//! What an image is made of, for people and programs that ask: bills of materials (CycloneDX, SPDX), the licences, and where it came from.
//!
//! Pure: a [`Bill`] is made of what a build knows already, and every document is a text made of it. Nothing in a bill depends on the site, so
//! cards of one fleet have one; all ids and times follow from contents. Only the provenance names the image itself.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::agent::AgentBill;
use crate::index::Package;
use crate::make::disk::{CYCLONEDX, LICENCES, PROVENANCE, Papers, SPDX};
use crate::make::image::ImageInputs;
use crate::make::system::System;
use crate::plan::{Place, Plan};
use crate::sha256::Sha256;

mod copyright_file;
mod cyclonedx;
mod id;
mod licence;
mod notices;
mod provenance;
mod purl;
mod spdx_document;

use copyright_file::{Declared, declared_licences};
use cyclonedx::cyclonedx;
use licence::stated_by_crate;
use notices::notices;
pub use provenance::{Commit, Origin};
use provenance::{Subject, provenance};
use spdx_document::spdx;

/// What is known when an image is written.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// What was to be built.
    pub plan: &'a Plan,
    /// What was built of it for all sites.
    pub system: &'a System,
    /// What it was built from.
    pub inputs: &'a ImageInputs<'a>,
}

/// What an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// `IMAGE_ID` of its os-release.
    name: String,
    /// `IMAGE_VERSION` of its os-release.
    version: String,
    /// The time of everything in it, seconds since 1970.
    time: u32,
    /// Its components by purl, which is also how they refer to each other.
    components: BTreeMap<String, Component>,
    /// Texts of licences that several copyright files refer to, by name.
    common_licences: BTreeMap<String, Arc<[u8]>>,
}

/// One thing in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Component {
    kind: Kind,
    name: String,
    version: Option<String>,
    /// Name within an SPDX document.
    id: String,
    /// Digest of what came over the network, or of the program.
    sha256: Option<Sha256>,
    /// An SPDX expression, where one is declared.
    licence: Option<String>,
    /// What that expression calls `LicenseRef-…`.
    licence_texts: BTreeMap<String, String>,
    /// Copyright notices and licences as its authors wrote them, by the name of the file.
    notices: BTreeMap<String, String>,
    /// Purls of what it needs.
    needs: BTreeSet<String>,
    /// What only packages have.
    debian: Option<Debian>,
}

/// What a Debian package has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Debian {
    /// The source package and its version.
    source: (String, String),
    /// Path in the archive.
    file: String,
    /// Part of the archive if it is not the free one, such as `non-free-firmware`.
    non_free: Option<String>,
    /// The files of it that the image has, where it has only some: what boot and radio firmware packages are asked for.
    files: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A package of the root.
    Package,
    /// The kernel's packages.
    Kernel,
    /// Boot and radio firmware.
    Firmware,
    /// The agent's program.
    Agent,
    /// A crate that is linked into it.
    Crate,
    /// What the compiler links into every program.
    Library,
}

/// A package that is not free software.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFree {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Writes what says what an image is made of, to lie beside it. `name` is that of the image's file, `sha256` its digest.
#[must_use]
pub fn papers(
    build: &Build<'_>,
    bill: &Bill,
    origin: &Origin,
    name: &str,
    sha256: Sha256,
) -> Papers {
    let mut papers = Papers::from([
        (CYCLONEDX, cyclonedx(bill)),
        (SPDX, spdx(bill)),
        (LICENCES, notices(bill)),
    ]);
    let subject = |name: &str, sha256| Subject {
        name: name.to_owned(),
        sha256,
    };
    let subjects = [
        subject(name, sha256),
        subject("root.squashfs", Sha256::of(&build.system.root)),
    ];
    let byproducts: Vec<Subject> = papers
        .iter()
        .map(|(suffix, text)| subject(&format!("{name}{suffix}"), Sha256::of(text.as_bytes())))
        .collect();
    let provenance = provenance(build, origin, &subjects, &byproducts);
    papers.insert(PROVENANCE, provenance);
    papers
}

impl Bill {
    /// Collects what the image of a plan is made of.
    #[must_use]
    pub fn of(build: &Build<'_>, agent: &AgentBill) -> Self {
        let Build {
            plan,
            system,
            inputs,
        } = *build;
        let packages = &inputs.resolution.packages;
        let of_packages = packages.values().map(|package| {
            let mut component = package_component(plan, system, package);
            let needed = package.depends.iter().flatten();
            component.needs = needed
                .filter_map(|relation| packages.get(&relation.name))
                .map(purl::of_package)
                .collect();
            (purl::of_package(package), component)
        });
        let components = of_packages.chain(agent_components(inputs, agent)).collect();
        Bill {
            name: system.identity.id.clone(),
            version: system.identity.version.clone(),
            time: inputs.time,
            components,
            common_licences: system.licences.common.clone(),
        }
    }

    /// Returns the packages that are not free software, by name.
    pub fn non_free(&self) -> impl Iterator<Item = NonFree> {
        let components = self.components.values();
        components
            .filter(|component| component.non_free().is_some())
            .map(|component| NonFree {
                name: component.name.clone(),
                version: component.version.clone().unwrap_or_default(),
            })
    }

    /// What nothing else in the image needs.
    fn top(&self) -> impl Iterator<Item = &str> {
        let needed: BTreeSet<&String> = self
            .components
            .values()
            .flat_map(|component| &component.needs)
            .collect();
        let purls = self.components.keys();
        purls
            .filter(move |purl| !needed.contains(purl))
            .map(String::as_str)
    }
}

impl Component {
    fn non_free(&self) -> Option<&str> {
        self.debian.as_ref()?.non_free.as_deref()
    }
}

fn package_component(plan: &Plan, system: &System, package: &Package) -> Component {
    let notice = system.licences.of_packages.get(&package.name);
    let notice = notice.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let declared = notice
        .as_deref()
        .and_then(|text| declared_licences(text, &package.source.0));
    let (licence, licence_texts) = match declared {
        None => (None, BTreeMap::new()),
        Some(Declared { expression, texts }) => (Some(expression), texts),
    };
    let planned = plan
        .packages
        .get(&package.name)
        .map(|planned| planned.place);
    let (kind, files) = match planned {
        Some(Place::Kernel) => (Kind::Kernel, Vec::new()),
        Some(Place::BootFirmware) => (Kind::Firmware, plan.boot.firmware.clone()),
        Some(Place::RadioFirmware) => {
            let files = plan.radio.firmware.get(&package.name);
            (Kind::Firmware, files.cloned().unwrap_or_default())
        }
        Some(Place::Root | Place::Nowhere) | None => (Kind::Package, Vec::new()),
    };
    Component {
        kind,
        name: package.name.clone(),
        version: Some(package.version.to_string()),
        id: id::for_spdx(&["deb", &package.name]),
        sha256: Some(package.sha256),
        licence,
        licence_texts,
        notices: notice
            .into_iter()
            .map(|text| ("copyright".to_owned(), text))
            .collect(),
        needs: BTreeSet::new(),
        debian: Some(Debian {
            source: (package.source.0.clone(), package.source.1.to_string()),
            file: package.filename.clone(),
            non_free: part_of_archive(&package.filename)
                .filter(|part| part.starts_with("non-free"))
                .map(str::to_owned),
            files,
        }),
    }
}

/// `pool/main/…`, or `pool/updates/main/…` in the archive of security updates.
fn part_of_archive(filename: &str) -> Option<&str> {
    let path = filename.strip_prefix("pool/")?;
    let path = path.strip_prefix("updates/").unwrap_or(path);
    path.split('/').next()
}

/// The program, and what was linked into it. What the compiler adds belongs to the program.
fn agent_components<'a>(
    inputs: &'a ImageInputs<'_>,
    agent: &'a AgentBill,
) -> impl Iterator<Item = (String, Component)> + 'a {
    let of_crates = agent.crates.iter().map(move |this| {
        let needs = this.needs.iter();
        let needs = needs.map(|(name, version)| purl::of_crate(name, version));
        let is_agent = this.name == agent.name;
        let of_compiler = agent.libraries.iter().map(purl::of_library);
        let component = Component {
            kind: if is_agent { Kind::Agent } else { Kind::Crate },
            name: this.name.clone(),
            version: Some(this.version.clone()),
            id: id::for_spdx(&["crate", &this.name, &this.version]),
            sha256: match is_agent {
                true => Some(Sha256::of(&inputs.agent)),
                false => this.checksum,
            },
            licence: this.licence.as_deref().and_then(stated_by_crate),
            licence_texts: BTreeMap::new(),
            notices: this.notices.clone(),
            needs: match is_agent {
                true => needs.chain(of_compiler).collect(),
                false => needs.collect(),
            },
            debian: None,
        };
        (purl::of_crate(&this.name, &this.version), component)
    });
    let of_libraries = agent.libraries.iter().map(|library| {
        let component = Component {
            kind: Kind::Library,
            name: library.name.clone(),
            version: library.version.clone(),
            id: id::for_spdx(&["library", &library.name]),
            sha256: None,
            licence: Some(library.licence.clone()),
            licence_texts: BTreeMap::new(),
            notices: library.notices.clone(),
            needs: BTreeSet::new(),
            debian: None,
        };
        (purl::of_library(library), component)
    });
    of_crates.chain(of_libraries)
}

fn json(document: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document)
        .expect("documents are structures of texts and numbers, which JSON has");
    text.push('\n');
    text
}
