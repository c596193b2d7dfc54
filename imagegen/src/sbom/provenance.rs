//! Where an image came from: an in-toto statement (version 1) with SLSA provenance (version 1) in JSON. Every input is named by its hash.
//!
//! It names what was asked for as far as that shapes the image for everybody, and nothing of the site: no network, no key, no host, nor a hash of
//! any. The hash of the image itself cannot but depend on the site; the root's does not, and is beside it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::agent::AgentBill;
use crate::sbom::{Build, purl};
use crate::sha256::Sha256;

/// What the source's home says of itself; a name, which nobody need fetch.
const HOME: &str = env!("CARGO_PKG_REPOSITORY");

/// What an image was made of that is in neither its plan nor its packages.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// What the agent was linked from.
    pub agent: AgentBill,
    /// The repository's files that say what is in an image, by path there.
    pub files: BTreeMap<String, Sha256>,
    /// The commit of the repository, where that is known.
    pub commit: Option<Commit>,
    /// How each network is secured, which says nothing of its key: `wpa2`, `wpa3`, `mixed`, `enterprise` or `open`.
    pub security: Vec<String>,
}

/// A commit of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its hash, in hexadecimal.
    pub id: String,
    /// Whether files differ from it.
    pub modified: bool,
}

/// Something that came of the build.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) sha256: Sha256,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Resource<'a>>,
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: BuildDefinition<'a>,
    run_details: RunDetails<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition<'a> {
    build_type: String,
    external_parameters: External<'a>,
    internal_parameters: Internal<'a>,
    resolved_dependencies: Vec<Resource<'a>>,
}

/// What a person asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct External<'a> {
    board: &'a str,
    features: Vec<String>,
    security: &'a [String],
}

/// What it was made with.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Internal<'a> {
    image_id: &'a str,
    image_version: &'a str,
    compiler: &'a str,
    target: &'a str,
    source_date_epoch: u32,
}

#[derive(Serialize)]
struct RunDetails<'a> {
    builder: Builder,
    byproducts: Vec<Resource<'a>>,
}

#[derive(Serialize)]
struct Builder {
    id: String,
    version: BTreeMap<&'static str, &'static str>,
}

/// SLSA's resource descriptor.
#[derive(Default, Serialize)]
struct Resource<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    digest: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, bool>,
}

/// Writes the provenance of `subjects`, the image and the root in it; `byproducts` came with them.
pub(crate) fn provenance(
    build: &Build<'_>,
    origin: &Origin,
    subjects: &[Subject],
    byproducts: &[Subject],
) -> String {
    super::json(&Statement {
        kind: "https://in-toto.io/Statement/v1",
        subject: subjects.iter().map(resource).collect(),
        predicate_type: "https://slsa.dev/provenance/v1",
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: format!("{HOME}/image/v1"),
                external_parameters: External {
                    board: &build.plan.board,
                    features: build
                        .plan
                        .features
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                    security: &origin.security,
                },
                internal_parameters: Internal {
                    image_id: &build.system.identity.id,
                    image_version: &build.system.identity.version,
                    compiler: &origin.agent.compiler,
                    target: &origin.agent.target,
                    source_date_epoch: build.inputs.time,
                },
                resolved_dependencies: dependencies(build, origin),
            },
            run_details: RunDetails {
                builder: Builder {
                    id: format!("{HOME}/xtask"),
                    version: BTreeMap::from([(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))]),
                },
                byproducts: byproducts.iter().map(resource).collect(),
            },
        },
    })
}

fn resource(subject: &Subject) -> Resource<'_> {
    Resource {
        name: Some(&subject.name),
        digest: sha256(subject.sha256),
        ..Resource::default()
    }
}

fn sha256(digest: Sha256) -> BTreeMap<&'static str, String> {
    BTreeMap::from([("sha256", digest.to_string())])
}

fn dependencies<'a>(build: &Build<'a>, origin: &'a Origin) -> Vec<Resource<'a>> {
    let source = origin.commit.as_ref().map(|commit| Resource {
        uri: Some(format!("git+{HOME}")),
        digest: BTreeMap::from([("gitCommit", commit.id.clone())]),
        annotations: BTreeMap::from([("modified", commit.modified)]),
        ..Resource::default()
    });
    let files = origin.files.iter().map(|(path, digest)| Resource {
        name: Some(path),
        digest: sha256(*digest),
        ..Resource::default()
    });
    let agent = Resource {
        name: Some(&origin.agent.name),
        digest: sha256(Sha256::of(&build.inputs.agent)),
        ..Resource::default()
    };
    let packages = build.inputs.resolution.packages.values();
    let packages = packages.map(|package| Resource {
        name: Some(&package.name),
        uri: Some(purl::of_package(package)),
        digest: sha256(package.sha256),
        ..Resource::default()
    });
    source
        .into_iter()
        .chain(files)
        .chain([agent])
        .chain(packages)
        .collect()
}
