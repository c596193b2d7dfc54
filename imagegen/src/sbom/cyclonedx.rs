//! The bill as CycloneDX 1.6 in JSON (ECMA-424).

use serde::Serialize;

use super::{Bill, Component, Kind};
use crate::calendar::timestamp;
use crate::sbom::{id, purl};

/// What the image is called where components refer to each other by purl.
const IMAGE: &str = "image";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Item<'a>>,
    dependencies: Vec<Dependency<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    timestamp: String,
    tools: Tools,
    component: Item<'a>,
}

#[derive(Serialize)]
struct Tools {
    components: [Item<'static>; 1],
}

#[derive(Default, Serialize)]
struct Item<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<Supplier>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<Licence<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pedigree: Option<Pedigree<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property<'a>>,
}

#[derive(Serialize)]
struct Supplier {
    name: &'static str,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Licence<'a> {
    expression: &'a str,
    acknowledgement: &'static str,
}

/// A binary package's source.
#[derive(Serialize)]
struct Pedigree<'a> {
    ancestors: [Box<Item<'a>>; 1],
}

#[derive(Serialize)]
struct Property<'a> {
    name: &'static str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<&'a str>,
}

/// Writes the bill as CycloneDX.
#[must_use]
pub(super) fn cyclonedx(bill: &Bill) -> String {
    let mut document = Document {
        schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: None,
        version: 1,
        metadata: metadata(bill),
        components: bill.components.iter().map(item).collect(),
        dependencies: dependencies(bill),
    };
    let anonymous = super::json(&document);
    document.serial_number = Some(format!("urn:uuid:{}", id::uuid(anonymous.as_bytes())));
    super::json(&document)
}

fn metadata(bill: &Bill) -> Metadata<'_> {
    Metadata {
        timestamp: timestamp(bill.time),
        tools: Tools {
            components: [Item {
                kind: "application",
                name: env!("CARGO_PKG_NAME"),
                version: Some(env!("CARGO_PKG_VERSION")),
                ..Item::default()
            }],
        },
        component: Item {
            kind: "operating-system",
            reference: Some(IMAGE),
            name: &bill.name,
            version: Some(&bill.version),
            ..Item::default()
        },
    }
}

fn item<'a>((purl, component): (&'a String, &'a Component)) -> Item<'a> {
    let debian = component.debian.as_ref();
    let file = debian.map(|debian| Property {
        name: "footbridge:archive-file",
        value: &debian.file,
    });
    let non_free = component.non_free().map(|part| Property {
        name: "footbridge:archive-part",
        value: part,
    });
    let licence = component.licence.as_deref().map(|expression| Licence {
        expression,
        acknowledgement: "declared",
    });
    let sha256 = component.sha256.map(|digest| Hash {
        alg: "SHA-256",
        content: digest.to_string(),
    });
    Item {
        kind: match component.kind {
            Kind::Package | Kind::Crate | Kind::Library => "library",
            Kind::Kernel => "operating-system",
            Kind::Firmware => "firmware",
            Kind::Agent => "application",
        },
        reference: Some(purl),
        supplier: debian.map(|_| Supplier { name: "Debian" }),
        name: &component.name,
        version: component.version.as_deref(),
        hashes: sha256.into_iter().collect(),
        licenses: licence.into_iter().collect(),
        purl: Some(purl.clone()),
        pedigree: debian.map(|debian| {
            let (name, version) = &debian.source;
            Pedigree {
                ancestors: [Box::new(Item {
                    kind: "library",
                    name,
                    version: Some(version),
                    purl: Some(purl::of_source(name, version)),
                    ..Item::default()
                })],
            }
        }),
        properties: file.into_iter().chain(non_free).collect(),
    }
}

fn dependencies(bill: &Bill) -> Vec<Dependency<'_>> {
    let image = Dependency {
        reference: IMAGE,
        depends_on: bill.top().collect(),
    };
    let others = bill.components.iter().map(|(purl, component)| Dependency {
        reference: purl,
        depends_on: component.needs.iter().map(String::as_str).collect(),
    });
    [image].into_iter().chain(others).collect()
}
