//! What lies beside an image: other people's validators, what follows from what, and what must not be in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use expect_test::expect;
use imagegen::make::disk::{CYCLONEDX, LICENCES, PROVENANCE, SPDX};
use imagegen::sha256::Sha256;
use imagegen::site::SiteOptions;
use serde_json::Value;

use crate::image::{build, loud_site, root_files, small_plan};
use crate::plan::site;
use crate::readers::{run, skip};

/// Names a Python that has the validators; `cargo xtask test` makes one.
const PYTHON: &str = "FOOTBRIDGE_TEST_PYTHON";

/// An image and what lies beside it.
struct Made {
    dir: tempfile::TempDir,
    root: BTreeMap<String, Vec<u8>>,
}

impl Made {
    fn for_site(site: &SiteOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (plan, resolution) = small_plan(site);
        let built = build(dir.path(), &plan, &resolution).unwrap();
        let root = root_files(&dir.path().join("out.img"), &built);
        Self { dir, root }
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("out.img{suffix}"))
    }

    fn paper(&self, suffix: &str) -> String {
        std::fs::read_to_string(self.path(suffix)).unwrap()
    }

    fn json(&self, suffix: &str) -> Value {
        serde_json::from_str(&self.paper(suffix)).unwrap()
    }
}

fn named<'a>(items: &'a Value, key: &str, name: &str) -> &'a Value {
    let mut items = items.as_array().unwrap().iter();
    items.find(|item| item[key] == name).unwrap()
}

#[test]
fn an_image_says_what_it_is_and_what_it_is_made_from() {
    let made = Made::for_site(&site());
    let text = |path: &str| String::from_utf8(made.root[path].clone()).unwrap();
    let os_release = text("/usr/lib/os-release");
    let (fixed, hash) = os_release.trim_end().rsplit_once('.').unwrap();
    assert_eq!(
        fixed,
        "ID=debian\nIMAGE_ID=footbridge-pi3\nIMAGE_VERSION=20231114"
    );
    assert_eq!(hash.len(), 8);
    let packages = text("/usr/share/footbridge/packages");
    let (_, resolution) = small_plan(&site());
    assert_eq!(packages.lines().count(), resolution.packages.len());
    for (line, package) in packages.lines().zip(resolution.packages.values()) {
        let words: Vec<&str> = line.split(' ').collect();
        let version = package.version.to_string();
        assert_eq!(words, [&package.name, &version, &package.architecture]);
    }
}

#[test]
fn the_version_follows_from_the_contents() {
    let version = |change: fn(&mut imagegen::plan::Plan)| {
        let dir = tempfile::tempdir().unwrap();
        let (mut plan, resolution) = small_plan(&site());
        change(&mut plan);
        build(dir.path(), &plan, &resolution).unwrap();
        let text = std::fs::read_to_string(dir.path().join(format!("out.img{CYCLONEDX}"))).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        document["metadata"]["component"]["version"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let before = version(|_| {});
    assert_eq!(version(|_| {}), before);
    assert_ne!(
        version(|plan| {
            let hosts = plan.root.nodes.get_mut("etc/hosts").unwrap();
            hosts.node.mode = 0o600;
        }),
        before,
        "a file of the root"
    );
    assert_ne!(
        version(|plan| drop(plan.boot.device_trees.pop())),
        before,
        "a file of the boot partition"
    );
}

#[test]
fn validators_agree_with_the_bills() {
    let Some(python) = std::env::var_os(PYTHON) else {
        skip(
            "the bills",
            &format!("{PYTHON} names no Python with cyclonedx-python-lib and spdx-tools"),
        );
        return;
    };
    let made = Made::for_site(&site());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/validate.py");
    let said = run(
        made.dir.path(),
        &python.to_string_lossy(),
        &[
            &script.to_string_lossy(),
            &format!("out.img{CYCLONEDX}"),
            &format!("out.img{SPDX}"),
        ],
    );
    assert!(
        said.contains(" components") && said.contains(" packages"),
        "{said}"
    );
}

#[test]
fn both_bills_have_every_package_and_every_crate() {
    let made = Made::for_site(&site());
    let (cyclonedx, spdx) = (made.json(CYCLONEDX), made.json(SPDX));
    let (_, resolution) = small_plan(&site());
    let purls: BTreeSet<&str> = cyclonedx["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| component["purl"].as_str().unwrap())
        .collect();
    // An agent of two crates and one library.
    assert_eq!(purls.len(), resolution.packages.len() + 3);
    let in_spdx: BTreeSet<&str> = spdx["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str())
        .collect();
    assert_eq!(in_spdx, purls);
    for package in resolution.packages.values() {
        let component = named(&cyclonedx["components"], "name", &package.name);
        assert_eq!(component["version"], package.version.to_string());
        assert_eq!(
            component["hashes"][0]["content"],
            package.sha256.to_string()
        );
        let source = &component["pedigree"]["ancestors"][0];
        assert_eq!(source["name"], package.source.0);
        let item = named(&spdx["packages"], "name", &package.name);
        assert_eq!(item["versionInfo"], package.version.to_string());
        assert_eq!(
            item["checksums"][0]["checksumValue"],
            package.sha256.to_string()
        );
    }
    let agent = named(&cyclonedx["components"], "name", "agent");
    assert_eq!(
        agent["hashes"][0]["content"],
        Sha256::of(b"agent").to_string()
    );
}

#[test]
fn licences_are_what_the_packages_and_crates_declare() {
    let made = Made::for_site(&site());
    let (cyclonedx, spdx) = (made.json(CYCLONEDX), made.json(SPDX));
    let mut shown = String::new();
    for name in [
        "libkmod2",
        "kmod",
        "netbase",
        "libgcc-s1",
        "libtinfo6",
        "raspi-firmware",
        "agent",
        "the_net",
    ] {
        let declared = &named(&spdx["packages"], "name", name)["licenseDeclared"];
        let component = named(&cyclonedx["components"], "name", name);
        match component["licenses"].get(0) {
            Some(licence) => assert_eq!(&licence["expression"], declared),
            None => assert_eq!(declared, "NOASSERTION"),
        }
        shown += &format!("{name}: {}\n", declared.as_str().unwrap());
    }
    expect![[r#"
        libkmod2: LGPL-2.1-or-later AND LicenseRef-kmod-public-domain
        kmod: LGPL-2.1-or-later AND LicenseRef-kmod-public-domain
        netbase: NOASSERTION
        libgcc-s1: GPL-3.0-or-later
        libtinfo6: NOASSERTION
        raspi-firmware: LicenseRef-raspi-firmware-Proprietary
        agent: MIT OR Apache-2.0
        the_net: NOASSERTION
    "#]]
    .assert_eq(&shown);
    let extracted = &spdx["hasExtractedLicensingInfos"];
    let text = named(extracted, "licenseId", "LicenseRef-kmod-public-domain");
    assert_eq!(text["extractedText"], "Do as you like.");
}

#[test]
fn the_licence_bundle_has_every_notice_once_and_tells_what_is_not_free() {
    let made = Made::for_site(&site());
    let bundle = made.paper(LICENCES);
    let (head, notices) = bundle.split_once("\nDebian packages\n").unwrap();
    assert!(head.contains("\nraspi-firmware "), "{head}");
    assert!(
        head.contains("(non-free-firmware)\n    bootcode.bin\n    start.elf\n"),
        "{head}"
    );
    assert!(!head.contains("base-files"), "{head}");
    for (text, times) in [
        ("\nFree text.\n", 1),
        ("\nthe licence of agent\n", 1),
        ("\nthe licence of the_net\n", 1),
        ("\nLicense: Expat or GPL\n", 1),
        ("\nthe GPL, version 2\n", 1),
        ("nobody has it", 0),
        ("libtinfo6 ", 1),
    ] {
        assert_eq!(notices.matches(text).count(), times, "{text:?}");
    }
}

#[test]
fn provenance_names_every_input_and_result_by_its_hash() {
    let made = Made::for_site(&site());
    let statement = made.json(PROVENANCE);
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let digest_of =
        |suffix: &str| Sha256::of(&std::fs::read(made.path(suffix)).unwrap()).to_string();
    let sha256 = |item: &Value| item["digest"]["sha256"].as_str().unwrap().to_owned();
    let subjects = &statement["subject"];
    assert_eq!(sha256(named(subjects, "name", "out.img")), digest_of(""));
    let details = &statement["predicate"]["runDetails"];
    for suffix in [CYCLONEDX, SPDX, LICENCES] {
        let item = named(&details["byproducts"], "name", &format!("out.img{suffix}"));
        assert_eq!(sha256(item), digest_of(suffix));
    }
    let definition = &statement["predicate"]["buildDefinition"];
    let inputs = &definition["resolvedDependencies"];
    let (_, resolution) = small_plan(&site());
    for package in resolution.packages.values() {
        let item = named(inputs, "name", &package.name);
        assert_eq!(sha256(item), package.sha256.to_string());
    }
    assert_eq!(
        sha256(named(inputs, "name", "agent")),
        Sha256::of(b"agent").to_string()
    );
    assert_eq!(
        sha256(named(inputs, "name", "boards/pi3.toml")),
        Sha256::of(b"pi3").to_string()
    );
    assert_eq!(inputs[0]["digest"]["gitCommit"], "c0ffee");
    assert_eq!(definition["externalParameters"]["board"], "pi3");
}

#[test]
fn one_fleet_has_one_bill_and_no_paper_knows_its_site() {
    let site = loud_site();
    let (loud, plain) = (Made::for_site(&site), Made::for_site(&crate::plan::site()));
    for suffix in [CYCLONEDX, SPDX, LICENCES] {
        assert!(
            loud.paper(suffix) == plain.paper(suffix),
            "{suffix} differs"
        );
    }
    let (plan, _) = small_plan(&site);
    let supplicant = plan.boot.site["wpa_supplicant.conf"].node.bytes().unwrap();
    let supplicant = String::from_utf8(supplicant.to_vec()).unwrap();
    let key = supplicant
        .lines()
        .find_map(|line| line.trim().strip_prefix("psk="))
        .unwrap();
    let key_as_bytes: Vec<u8> = (0..key.len() / 2)
        .map(|at| u8::from_str_radix(&key[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let secrets = [
        "loud-network".to_owned(),
        "loud-name".to_owned(),
        site.networks[0].ssid.to_hex(),
        key.to_owned(),
        Sha256::of(key.as_bytes()).to_string(),
        Sha256::of(&key_as_bytes).to_string(),
        Sha256::of(supplicant.as_bytes()).to_string(),
        Sha256::of(b"loud-network").to_string(),
    ];
    for suffix in [CYCLONEDX, SPDX, LICENCES, PROVENANCE] {
        let paper = loud.paper(suffix).to_lowercase();
        for secret in &secrets {
            assert!(!paper.contains(secret.as_str()), "{suffix} has {secret}");
        }
    }
}
