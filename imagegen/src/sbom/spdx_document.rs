//! The bill as SPDX 2.3 in JSON (ISO/IEC 5962).

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Bill, Component, Kind};
use crate::calendar::timestamp;
use crate::sbom::id;

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-image";
const UNKNOWN: &str = "NOASSERTION";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Item<'a>>,
    relationships: Vec<Relationship<'a>>,
    has_extracted_licensing_infos: Vec<ExtractedLicence<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreationInfo {
    created: String,
    creators: [String; 1],
    license_list_version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(rename = "SPDXID")]
    id: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_file_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<&'static str>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    license_concluded: &'static str,
    license_declared: &'a str,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef<'a>>,
    primary_package_purpose: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef<'a> {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship<'a> {
    spdx_element_id: &'a str,
    relationship_type: &'static str,
    related_spdx_element: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtractedLicence<'a> {
    license_id: &'a str,
    name: &'a str,
    extracted_text: &'a str,
}

/// Writes the bill as SPDX.
#[must_use]
pub(super) fn spdx(bill: &Bill) -> String {
    let name = format!("{}-{}", bill.name, bill.version);
    let base = "https://spdx.org/spdxdocs/";
    let mut document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        document_namespace: format!("{base}{name}"),
        name,
        creation_info: CreationInfo {
            created: timestamp(bill.time),
            creators: [concat!(
                "Tool: footbridge-",
                env!("CARGO_PKG_NAME"),
                "-",
                env!("CARGO_PKG_VERSION")
            )
            .to_owned()],
            license_list_version: list_version(),
        },
        packages: [image(bill)]
            .into_iter()
            .chain(bill.components.iter().map(item))
            .collect(),
        relationships: relationships(bill),
        has_extracted_licensing_infos: extracted(bill),
    };
    let uuid = id::uuid(super::json(&document).as_bytes());
    document.document_namespace = format!("{}-{uuid}", document.document_namespace);
    super::json(&document)
}

/// The list's version has two numbers; its patches say nothing here.
fn list_version() -> String {
    let mut numbers = spdx::license_version().split('.');
    let mut next = || numbers.next().unwrap_or("0");
    format!("{}.{}", next(), next())
}

fn image(bill: &Bill) -> Item<'_> {
    Item {
        id: IMAGE,
        name: &bill.name,
        version_info: Some(&bill.version),
        package_file_name: None,
        supplier: None,
        download_location: UNKNOWN,
        files_analyzed: false,
        checksums: Vec::new(),
        source_info: None,
        license_concluded: UNKNOWN,
        license_declared: UNKNOWN,
        copyright_text: UNKNOWN,
        external_refs: Vec::new(),
        primary_package_purpose: "OPERATING-SYSTEM",
    }
}

fn item<'a>((purl, component): (&'a String, &'a Component)) -> Item<'a> {
    let debian = component.debian.as_ref();
    let sha256 = component.sha256.map(|digest| Checksum {
        algorithm: "SHA256",
        checksum_value: digest.to_string(),
    });
    Item {
        id: &component.id,
        name: &component.name,
        version_info: component.version.as_deref(),
        package_file_name: debian.map(|debian| debian.file.as_str()),
        supplier: debian.map(|_| "Organization: Debian"),
        download_location: UNKNOWN,
        files_analyzed: false,
        checksums: sha256.into_iter().collect(),
        source_info: debian.map(|debian| {
            let (name, version) = &debian.source;
            format!("built from the source package {name} {version}")
        }),
        license_concluded: UNKNOWN,
        license_declared: component.licence.as_deref().unwrap_or(UNKNOWN),
        copyright_text: UNKNOWN,
        external_refs: vec![ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: purl,
        }],
        primary_package_purpose: match component.kind {
            Kind::Package | Kind::Crate | Kind::Library => "LIBRARY",
            Kind::Kernel => "OPERATING-SYSTEM",
            Kind::Firmware => "FIRMWARE",
            Kind::Agent => "APPLICATION",
        },
    }
}

fn relationships(bill: &Bill) -> Vec<Relationship<'_>> {
    let relate = |from, kind, to| Relationship {
        spdx_element_id: from,
        relationship_type: kind,
        related_spdx_element: to,
    };
    let mut relationships = vec![relate(DOCUMENT, "DESCRIBES", IMAGE)];
    let contained = bill.components.values();
    // What is linked into the program is in the image by way of it.
    let contained =
        contained.filter(|component| !matches!(component.kind, Kind::Crate | Kind::Library));
    relationships.extend(contained.map(|component| relate(IMAGE, "CONTAINS", &component.id)));
    for component in bill.components.values() {
        let kind = match component.kind {
            Kind::Agent => "STATIC_LINK",
            _ => "DEPENDS_ON",
        };
        let needed = component.needs.iter();
        let needed = needed.filter_map(|purl| bill.components.get(purl));
        relationships.extend(needed.map(|needed| relate(&component.id, kind, &needed.id)));
    }
    relationships
}

fn extracted(bill: &Bill) -> Vec<ExtractedLicence<'_>> {
    // Packages of one source have the same copyright file, or nearly so: the longest text of a name has all.
    let mut texts: BTreeMap<&str, &str> = BTreeMap::new();
    for component in bill.components.values() {
        for (name, text) in &component.licence_texts {
            let known = texts.entry(name).or_insert(text);
            if text.len() > known.len() {
                *known = text;
            }
        }
    }
    let extracted = texts.into_iter().map(|(id, text)| ExtractedLicence {
        license_id: id,
        name: id.trim_start_matches("LicenseRef-"),
        extracted_text: text,
    });
    extracted.collect()
}
