//! Images as Raspberry Pi Imager is told of them, compressed ones included, and those that it is not told of.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use expect_test::expect;
use imagegen::board::Board;
use imagegen::catalogue::{Audience, BaseUrl, Published, os_list};
use imagegen::make::fetch::Silent;
use imagegen::sha256::Sha256;
use imagegen::tree::Node;
use tempfile::TempDir;

use crate::plan::boards;
use crate::sample::{Draft, TIME, text};

/// One that names nobody and no network's key.
fn public() -> Draft {
    let mut draft = Draft::good();
    draft.boot(
        "site/wpa_supplicant.conf",
        "network={\n\tssid=\"yours\"\n}\n",
    );
    draft.boot("site/authorized_keys", "# nobody\n\n");
    draft
}

fn bytes_of(draft: Draft) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = draft.write();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn put(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn load(path: &Path, audience: Audience) -> Result<Published, String> {
    let boards: Vec<Board> = boards().into_values().collect();
    Published::load(path, &boards, audience, &Silent).map_err(|err| {
        let folder = path.parent().unwrap().display().to_string();
        err.to_string().replace(&format!("{folder}/"), "")
    })
}

#[test]
fn what_is_told_of_images() {
    let folder = TempDir::new().unwrap();
    let image = bytes_of(public());
    let packed = zstd::encode_all(&image[..], 1).unwrap();
    let plain = load(&put(&folder, "b.img", &image), Audience::Everybody).unwrap();
    let small = load(&put(&folder, "a.img.zst", &packed), Audience::Everybody).unwrap();
    assert_eq!(plain.board.id, "pi3");
    assert_eq!((plain.time, small.time), (TIME, TIME));
    assert_eq!(plain.download, plain.extract);
    assert_eq!(small.extract, plain.extract);
    assert_eq!(plain.extract.size, image.len() as u64);
    assert_eq!(plain.extract.sha256, Sha256::of(&image));
    assert_eq!(small.download.size, packed.len() as u64);
    assert_eq!(small.download.sha256, Sha256::of(&packed));

    let base = BaseUrl::parse("https://example.org/images/").unwrap();
    let list = |images| os_list(&base, images, "icon.svg", "https://example.org/").unwrap();
    let told = list(vec![plain.clone(), small.clone()]);
    assert_eq!(told, list(vec![small.clone(), plain.clone()]));
    let sizes_and_digests = [
        (small.download.size.to_string(), "PACKED_SIZE"),
        (small.download.sha256.to_string(), "PACKED_SHA256"),
        (plain.extract.size.to_string(), "SIZE"),
        (plain.extract.sha256.to_string(), "SHA256"),
    ];
    let mut shown = told;
    for (value, name) in &sizes_and_digests {
        shown = shown.replace(value, name);
    }
    expect![[r#"
        {
          "os_list": [
            {
              "name": "Footbridge (Raspberry Pi 3)",
              "description": "Joins what is plugged into the Ethernet port to the Wi-Fi network. For 3 Model B, 3 Model B+, 3 Model A+, Compute Module 3, Zero 2 W. So far: boots and bridges in QEMU (raspi3b) with a simulated radio; not tried on hardware.",
              "icon": "https://example.org/images/icon.svg",
              "website": "https://example.org/",
              "url": "https://example.org/images/a.img.zst",
              "release_date": "2026-11-13",
              "extract_size": SIZE,
              "extract_sha256": "SHA256",
              "image_download_size": PACKED_SIZE,
              "image_download_sha256": "PACKED_SHA256",
              "devices": [
                "pi3-64bit"
              ],
              "architecture": "armv8",
              "init_format": "none"
            },
            {
              "name": "Footbridge (Raspberry Pi 3)",
              "description": "Joins what is plugged into the Ethernet port to the Wi-Fi network. For 3 Model B, 3 Model B+, 3 Model A+, Compute Module 3, Zero 2 W. So far: boots and bridges in QEMU (raspi3b) with a simulated radio; not tried on hardware.",
              "icon": "https://example.org/images/icon.svg",
              "website": "https://example.org/",
              "url": "https://example.org/images/b.img",
              "release_date": "2026-11-13",
              "extract_size": SIZE,
              "extract_sha256": "SHA256",
              "image_download_size": SIZE,
              "image_download_sha256": "SHA256",
              "devices": [
                "pi3-64bit"
              ],
              "architecture": "armv8",
              "init_format": "none"
            }
          ]
        }
    "#]].assert_eq(&shown);
    let twice = os_list(&base, vec![plain.clone(), plain], "icon.svg", "").unwrap_err();
    assert_eq!(twice.to_string(), "two of the images are called b.img");
}

/// An image whose start looks for Imager's settings, as ours does, can be given some.
#[test]
fn settings_made_in_imager() {
    let folder = TempDir::new().unwrap();
    let mut draft = public();
    let init = Node::file(0o755, *include_bytes!("../../../overlays/initramfs/init"));
    draft.initramfs.replace("init", init).unwrap();
    let image = load(
        &put(&folder, "x.img", &bytes_of(draft)),
        Audience::Everybody,
    );
    assert!(image.unwrap().preseed);
}

/// The image's name, what is put on it, and what is said of that.
type Case = (&'static str, fn(&mut Draft), &'static str);

#[test]
fn images_that_are_not_for_everybody() {
    let folder = TempDir::new().unwrap();
    let cases: [Case; 5] = [
        ("key", |it| *it = Draft::good(), "a network's key"),
        (
            "password",
            |it| it.boot("site/wpa_supplicant.conf", "\tpassword = \"hush hush\"\n"),
            "a network's key",
        ),
        (
            "preseed",
            |it| it.boot("rpi-preseed.toml", "[wlan]\n"),
            "a network's key",
        ),
        (
            "login",
            |it| it.boot("site/authorized_keys", "ssh-ed25519 AAAA me\n"),
            "the key of somebody who may log in",
        ),
        (
            "private",
            |it| {
                it.boot
                    .replace("site/radius.pem", text("-----BEGIN PRIVATE KEY-----\n"))
                    .unwrap();
            },
            "a private key",
        ),
    ];
    for (name, change, what) in cases {
        let mut draft = public();
        change(&mut draft);
        let path = put(&folder, &format!("{name}.img"), &bytes_of(draft));
        let told = load(&path, Audience::Everybody).unwrap_err();
        assert_eq!(
            told,
            format!("{name}.img holds {what}, which everybody who downloads it would have")
        );
        assert!(!told.contains("hush"), "{told}");
        assert!(load(&path, Audience::OwnPeople).is_ok(), "{name}");
    }
}

#[test]
fn images_that_are_not_offered_at_all() {
    let folder = TempDir::new().unwrap();
    let image = bytes_of(public());
    let told = |name: &str, bytes: &[u8]| {
        load(&put(&folder, name, bytes), Audience::Everybody).unwrap_err()
    };
    let packed = zstd::encode_all(&image[..], 1).unwrap();
    expect!["no.img is no Footbridge image: it does not begin with a partition table"]
        .assert_eq(&told("no.img", b"hello"));
    expect!["x.img is img.zst, and its name does not end like that"]
        .assert_eq(&told("x.img", &packed));
    expect!["x.img.xz is img, and its name does not end like that"]
        .assert_eq(&told("x.img.xz", &image));
    expect!["image is img, and its name does not end like that"].assert_eq(&told("image", &image));

    let mut broken = public();
    drop(broken.boot.remove("start.elf"));
    expect!["`verify` finds something wrong with broken.img"]
        .assert_eq(&told("broken.img", &bytes_of(broken)));
    let mut other = public();
    other.boot("other.dtb", "another tree");
    expect!["the device trees in other.img are those of no board"]
        .assert_eq(&told("other.img", &bytes_of(other)));
    let mut none = public();
    let trees: Vec<String> = none
        .boot
        .entries("")
        .map(|(name, _)| name.to_owned())
        .collect();
    for tree in trees.iter().filter(|name| name.ends_with(".dtb")) {
        none.boot.remove(tree).unwrap();
    }
    expect!["virt.img is for the board `virt`, which is none of Raspberry Pi Imager's devices"]
        .assert_eq(&told("virt.img", &bytes_of(none)));
    let damaged = put(&folder, "damaged.img", &image);
    put(&folder, "damaged.img.sha256", "0".repeat(64).as_bytes());
    assert!(
        load(&damaged, Audience::Everybody)
            .unwrap_err()
            .contains("is damaged")
    );
}
