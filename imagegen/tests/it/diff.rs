//! `diff` on two small images of the writers' own.

use expect_test::expect;
use imagegen::inspect::diff::{Change, Difference, diff};
use imagegen::tree::Node;

use crate::sample::Draft;
use crate::verify::with_a_device;

fn told(difference: &Difference) -> String {
    let lines = |title: &str, changes: &[Change]| -> String {
        let lines = changes.iter().map(|change| {
            let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "none".to_owned());
            format!(
                "{title}: {}: {} -> {}\n",
                change.name,
                side(&change.before),
                side(&change.after)
            )
        });
        lines.collect()
    };
    [
        lines("partitions", &difference.partitions),
        lines("packages", &difference.packages),
        lines("files", &difference.files),
        difference.texts.concat(),
    ]
    .concat()
}

#[test]
fn an_image_differs_from_itself_in_nothing() {
    let difference = diff(&Draft::good().read(), &Draft::good().read()).unwrap();
    assert_eq!(told(&difference), "");
    assert!(difference.is_empty());
}

#[test]
fn everything_that_differs_is_told_but_no_secret() {
    let (mut before, mut after) = (Draft::good(), Draft::good());
    before.root(
        "usr/share/footbridge/packages",
        Node::file(0o644, *b"gone 1\nlibc6 2.41-12\nsame 1\n"),
    );
    after.root(
        "usr/share/footbridge/packages",
        Node::file(0o644, *b"libc6 2.41-13\nsame 1\nfresh 1.0~rc1\n"),
    );
    before.root("etc/gone", Node::file(0o644, *b"x"));
    after.root("etc/fresh", Node::symlink("machine-id"));
    after.root("bin", Node::symlink("usr/sbin"));
    after.root(
        "usr/bin/footbridge",
        Node::file(0o750, *b"\0").owned_by(0, 5),
    );
    before.root("usr/bin/tool", Node::file(0o755, *b"\0a"));
    after.root("usr/bin/tool", Node::file(0o755, *b"\0b"));
    after.root(
        "usr/share/large",
        Node::file(0o644, crate::writers::noise(4 << 20)),
    );
    after.boot(
        "site/wpa_supplicant.conf",
        "network={\n\tssid=\"other-network\"\n\tpsk=fedcba9876543210\n}\n",
    );
    after.boot("config.txt", "arm_64bit=1\nkernel=kernel8.img\n");
    let difference = told(&diff(&before.read(), &after.read()).unwrap());
    for secret in ["0123456789abcdef", "fedcba9876543210"] {
        assert!(!difference.contains(secret), "{difference}");
    }
    expect![[r#"
        partitions: disk: 75497472 bytes, signature acd24c1d -> 79691776 bytes, signature acd24c1d
        partitions: partition 2: 4194304 bytes at 71303168, type 0x83 -> 8388608 bytes at 71303168, type 0x83
        packages: fresh: none -> 1.0~rc1
        packages: gone: 1 -> none
        packages: libc6: 2.41-12 -> 2.41-13
        files: boot/config.txt: file of 86 bytes (mode 0644, owner 0:0) -> file of 31 bytes (mode 0644, owner 0:0)
        files: boot/site/wpa_supplicant.conf: file of 65 bytes (mode 0644, owner 0:0) -> file of 56 bytes (mode 0644, owner 0:0)
        files: root/bin: symbolic link to usr/bin -> symbolic link to usr/sbin
        files: root/etc/fresh: none -> symbolic link to machine-id
        files: root/etc/gone: file of 1 bytes (mode 0644, owner 0:0) -> none
        files: root/usr/bin/footbridge: file of 120 bytes (mode 0755, owner 0:0) -> file of 1 bytes (mode 0750, owner 0:5)
        files: root/usr/bin/tool: file of 2 bytes (mode 0755, owner 0:0) -> other bytes
        files: root/usr/share/footbridge/packages: file of 28 bytes (mode 0644, owner 0:0) -> file of 35 bytes (mode 0644, owner 0:0)
        files: root/usr/share/large: none -> file of 4194304 bytes (mode 0644, owner 0:0)
        --- a/boot/config.txt
        +++ b/boot/config.txt
        @@ -1,4 +1,2 @@
         arm_64bit=1
         kernel=kernel8.img
        -initramfs initramfs.zst followkernel
        -upstream_kernel=1
        --- a/boot/site/wpa_supplicant.conf
        +++ b/boot/site/wpa_supplicant.conf
        @@ -1,4 +1,4 @@
         network={
        -	ssid=6c6f75642d6e6574776f726b    (loud-network)
        +	ssid="other-network"
         	psk=<hidden>
         }
        --- a/root/usr/share/footbridge/packages
        +++ b/root/usr/share/footbridge/packages
        @@ -1,3 +1,3 @@
        -gone 1
        -libc6 2.41-12
        +libc6 2.41-13
         same 1
        +fresh 1.0~rc1
    "#]].assert_eq(&difference);
}

#[test]
fn what_cannot_be_read_is_not_compared() {
    let mut broken = Draft::good();
    broken.boot("initramfs.zst", "no archive");
    let err = diff(&Draft::good().read(), &broken.read()).unwrap_err();
    expect!["the initramfs cannot be read: the initramfs is no cpio archive at byte 0: it ends before its trailer"].assert_eq(&err.to_string());
}

/// Nothing is shown of files that may be a key as a whole, however they are written, nor of what an imager puts beside `site/`.
#[test]
fn no_key_is_shown() {
    let with = |what: &str| {
        let mut draft = Draft::good();
        draft.boot("site/client-key.pem", format!("{what} of a certificate\n"));
        draft.boot("rpi-preseed.toml", format!("password = '{what}'\n"));
        draft.boot(
            "site/wpa_supplicant.conf",
            format!("# psk={what}\n\tpin={what}\n"),
        );
        draft.read()
    };
    let found = diff(&with("secret-a"), &with("secret-b")).unwrap();
    let names: Vec<&str> = found
        .files
        .iter()
        .map(|change| change.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "boot/rpi-preseed.toml",
            "boot/site/client-key.pem",
            "boot/site/wpa_supplicant.conf"
        ]
    );
    assert!(!format!("{found:?}").contains("secret"));
}

/// A device is a file that differs, too.
#[test]
fn what_is_no_file_is_compared() {
    let mut draft = Draft::good();
    draft.change_root = with_a_device;
    let found = diff(&Draft::good().read(), &draft.read()).unwrap();
    let told: Vec<String> = found
        .files
        .iter()
        .map(|change| format!("{change:?}"))
        .collect();
    expect![[
        r#"Change { name: "root/console", before: None, after: Some("a character device") }"#
    ]]
    .assert_eq(&told.join("\n"));
}
