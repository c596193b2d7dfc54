//! The whole pipeline on small packages: a plan goes in, an image comes out, and what is in it is looked at through its own file systems.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use imagegen::credentials::Ssid;
use imagegen::inspect::fat::Fat;
use imagegen::make::disk::{Draft, ImageFormat};
use imagegen::make::fetch::Silent;
use imagegen::make::image::{Built, ImageError, ImageInputs, make_image};
use imagegen::plan::{Place, Plan, features_of};
use imagegen::recipe::Cover;
use imagegen::resolve::Resolution;
use imagegen::site::{CountryCode, Hostname, SiteOptions};

use crate::debs::{Raw, deb_of, directory, file, symlink};
use crate::plan::{board, overlays, plan_for, resolution, site};

const RELEASE: &str = "6.12.117+deb13-arm64";

/// A site whose every value is easily found again.
fn loud_site() -> SiteOptions {
    SiteOptions {
        ssid: Ssid::new("loud-network").unwrap(),
        country: Some(CountryCode::parse("NZ").unwrap()),
        hostname: Hostname::parse("loud-name").unwrap(),
        ..site()
    }
}

/// The plan of a real board without what would take a real kernel and a real radio. The scripts of the tests' packages are waived.
fn small_plan(site: &SiteOptions) -> (Plan, Resolution) {
    let resolution = resolution(
        &board("pi3"),
        &overlays(),
        &features_of(&board("pi3"), site),
    );
    let mut plan = plan_for("pi3", site);
    plan.modules.initramfs.clear();
    plan.modules.root.clear();
    plan.radio.firmware.clear();
    for package in plan.packages.values_mut() {
        package.cover = Cover::Waived("there is nothing in them".to_owned());
    }
    (plan, resolution)
}

fn entries_of(name: &str, place: Place) -> Vec<Raw> {
    let firmware = ["bootcode.bin", "start.elf", "fixup.dat"];
    match (name, place) {
        ("base-files", _) => vec![
            directory("./usr/bin"),
            symlink("./bin", "usr/bin"),
            file("./usr/share/doc/x", "removed"),
        ],
        ("busybox-static", _) => vec![file("./usr/bin/busybox", "busybox")],
        ("wireless-regdb", _) => ["regulatory.db-debian", "regulatory.db.p7s-debian"]
            .map(|name| file(&format!("./usr/lib/firmware/{name}"), name))
            .into(),
        (_, Place::BootFirmware) => firmware
            .map(|name| file(&format!("./usr/lib/raspi-firmware/{name}"), name))
            .into(),
        (_, Place::Kernel) => {
            let lists = [
                "modules.order",
                "modules.builtin",
                "modules.builtin.modinfo",
            ];
            let mut entries: Vec<Raw> = lists
                .map(|name| file(&format!("./usr/lib/modules/{RELEASE}/{name}"), ""))
                .into();
            entries.push(file(&format!("./boot/vmlinuz-{RELEASE}"), "kernel"));
            let trees = board("pi3").kernel.device_trees;
            entries.extend(
                trees
                    .iter()
                    .map(|path| file(&format!("./usr/lib/linux-image-{RELEASE}/{path}"), path)),
            );
            entries
        }
        _ => vec![file(&format!("./usr/lib/{name}"), name)],
    }
}

fn build(dir: &Path, plan: &Plan, resolution: &Resolution) -> Result<Built, ImageError> {
    let mut debs: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (name, package) in &plan.packages {
        let path = dir.join(format!("{name}.deb"));
        std::fs::write(&path, deb_of(&entries_of(name, package.place))).unwrap();
        debs.insert(name.clone(), path);
    }
    let inputs = ImageInputs {
        resolution,
        debs: &debs,
        agent: (*b"agent").into(),
        time: 1_700_000_000,
    };
    let output = Draft::create(&dir.join("out.img"), ImageFormat::Img)?;
    make_image(plan, &inputs, output, &Silent)
}

/// Every file and link of the root: path to contents.
fn root_files(image: &Path, built: &Built) -> BTreeMap<String, Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(built.root_size).unwrap()];
    let mut file = File::open(image).unwrap();
    file.seek(SeekFrom::Start(built.layout.root.offset))
        .unwrap();
    file.read_exact(&mut bytes).unwrap();
    let squashfs = backhand::FilesystemReader::from_reader(std::io::Cursor::new(bytes)).unwrap();
    let mut files = BTreeMap::new();
    for node in squashfs.files() {
        let contents = match &node.inner {
            backhand::InnerNode::File(file) => {
                let mut bytes = Vec::new();
                squashfs
                    .file(file)
                    .reader()
                    .read_to_end(&mut bytes)
                    .unwrap();
                bytes
            }
            backhand::InnerNode::Symlink(link) => {
                link.link.to_string_lossy().into_owned().into_bytes()
            }
            _ => continue,
        };
        files.insert(node.fullpath.to_string_lossy().into_owned(), contents);
    }
    files
}

#[test]
fn the_site_is_on_the_boot_partition_and_nowhere_in_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let site = loud_site();
    let (plan, resolution) = small_plan(&site);
    let built = build(dir.path(), &plan, &resolution).unwrap();
    let image = dir.path().join("out.img");

    let boot = Fat::open_image(BufReader::new(File::open(&image).unwrap()))
        .unwrap()
        .tree()
        .unwrap();
    let supplicant =
        String::from_utf8(boot.bytes("site/wpa_supplicant.conf").unwrap().to_vec()).unwrap();
    assert!(supplicant.contains(&site.ssid.to_hex()));
    assert_eq!(
        boot.bytes("site/hostname").unwrap().as_ref(),
        b"loud-name\n"
    );
    assert_eq!(boot.bytes("kernel8.img").unwrap().as_ref(), b"kernel");
    assert!(
        boot.contains("bcm2837-rpi-3-b.dtb")
            && boot.contains("initramfs.zst")
            && boot.contains("start.elf")
    );

    let pmk = supplicant
        .lines()
        .find_map(|line| line.trim().strip_prefix("psk="))
        .unwrap();
    let root = root_files(&image, &built);
    assert_eq!(root["/usr/bin/footbridge"], b"agent");
    assert_eq!(
        root["/usr/lib/firmware/regulatory.db"],
        b"regulatory.db-debian"
    );
    assert!(!root.contains_key("/usr/share/doc/x") && root.contains_key("/usr/lib/mount"));
    for (path, bytes) in &root {
        let text = String::from_utf8_lossy(bytes);
        for secret in [
            "loud-name",
            "loud-network",
            &site.ssid.to_hex(),
            pmk,
            "regdom=NZ",
        ] {
            assert!(!text.contains(secret), "{path} has {secret}");
        }
    }
}

#[test]
fn the_same_plan_gives_the_same_image() {
    let (plan, resolution) = small_plan(&site());
    let images = [(); 2].map(|()| {
        let dir = tempfile::tempdir().unwrap();
        build(dir.path(), &plan, &resolution).unwrap();
        std::fs::read(dir.path().join("out.img")).unwrap()
    });
    assert!(images[0] == images[1], "two builds differ");
}

#[test]
fn a_package_that_has_grown_scripts_stops_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let (mut plan, resolution) = small_plan(&site());
    plan.packages.get_mut("mount").unwrap().cover = Cover::Scriptless;
    let err = build(dir.path(), &plan, &resolution).unwrap_err();
    assert_eq!(
        err.to_string(),
        "package `mount` is listed as scriptless but has postinst; read it, and list the package under scripts in packages.toml"
    );
    assert!(!dir.path().join("out.img").exists());
}
