//! Settings of images that exist, as people change them.

use std::io::Cursor;

use expect_test::expect;
use imagegen::make::disk::{DiskParts, Draft, ImageFormat, Papers, write_disk};
use imagegen::make::fat::FatLabel;
use imagegen::make::squashfs::{SquashfsOptions, write_squashfs};
use imagegen::plan::disk::{DiskLayout, DiskSignature, DiskSizes};
use imagegen::tree::{Node, Tree};

use crate::command::Desk;

/// Puts an image on the desk whose files somebody has edited.
fn put_image(desk: &Desk) {
    put_image_with_root(desk, "card.img", &Tree::new());
}

fn put_image_with_root(desk: &Desk, name: &str, tree: &Tree) {
    let mut boot = Tree::new();
    for (path, text) in [
        ("site/hostname", "attic\n"),
        (
            "site/footbridge.toml",
            "uplink = \"wlan0\"\ndownlink = \"eth0\"\n# mine\n",
        ),
        (
            "site/wpa_supplicant.conf",
            "ap_scan=1\nnetwork={\n\tssid=\"old\"\n\tpsk=\"old secret\"\n}\n",
        ),
    ] {
        boot.insert(path, Node::file(0o644, text.as_bytes()))
            .unwrap();
    }
    let mut root = Cursor::new(Vec::new());
    write_squashfs(tree, &SquashfsOptions::at(0), &mut root).unwrap();
    let root = root.into_inner();
    let sizes = DiskSizes {
        boot: 64 << 20,
        root: root.len() as u64,
    };
    let layout = DiskLayout::new(DiskSignature::derive(b"card"), sizes).unwrap();
    let parts = DiskParts {
        boot: &boot,
        boot_label: FatLabel::new("FOOTBRIDGE").unwrap(),
        time: 0,
        root: &root,
    };
    let format = ImageFormat::of_name(name).unwrap();
    let draft = Draft::create(&desk.path().join(name), format).unwrap();
    write_disk(draft, &layout, &parts, |_, _| Papers::new()).unwrap();
}

#[test]
fn only_what_is_named_changes_and_no_secret_is_shown() {
    let desk = Desk::new();
    put_image(&desk);
    desk.put("psk", "open sesame\n");
    let told = desk.run(&[
        "site",
        "card.img",
        "--ssid",
        "new",
        "--psk-file",
        "psk",
        "--set",
        "dhcp.mode=relay",
        "--show",
    ]);
    expect![[r#"
        site/footbridge.toml:
            uplink = "wlan0"
            downlink = "eth0"
            # mine

            [dhcp]
            mode = "relay"
        site/hostname:
            attic
        site/wpa_supplicant.conf:
            # Network: new
            ap_scan=1

            network={
            	# The name of the network, its bytes in hexadecimal. A name in double quotes is fine too: ssid="name"
            	ssid=6e6577    (new)
            	scan_ssid=1
            	key_mgmt=WPA-PSK
            	# The key, as 64 hexadecimal digits. A passphrase in double quotes is fine too: psk=<hidden>
            	psk=<hidden>
            }
        card.img: changed footbridge.toml, wpa_supplicant.conf
        exit code 0"#]].assert_eq(&told);
    assert!(!told.contains("secret") && !told.contains("sesame"));
}

#[test]
fn mistakes_change_nothing() {
    let desk = Desk::new();
    put_image(&desk);
    desk.put("letter", "Dear card,\n".repeat(100));
    desk.put(
        "site.toml",
        "hostname = \"cellar\"\n\n[[network]]\nssid = \"x\"\npsk = \"short\"\n",
    );
    let before = std::fs::read(desk.path().join("card.img")).unwrap();
    let mut told = String::new();
    for args in [
        &["card.img"][..],
        &["card.img", "--config", "site.toml"],
        &["card.img", "--set", "dhcp.mod=relay"],
        &["card.img", "--address", "10.0.0.0/24"],
        &["missing.img", "--hostname", "cellar"],
        &["letter", "--hostname", "cellar"],
        &["letter", "--show"],
        &["/dev/null", "--hostname", "cellar"],
    ] {
        told.push_str(&desk.run(&[&["site"], args].concat()));
        told.push_str("\n\n");
    }
    expect![[r#"
        error: nothing is named that is to be changed

        hint: for example --hostname NAME; --show prints the settings there are
        exit code 2

        error: site.toml, line 5: the passphrase has 5 characters; Wi-Fi wants 8 to 63

        hint: 8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits
        exit code 2

        error: the bridge has no setting `dhcp.mod`

        hint: did you mean `dhcp.mode`?
        exit code 2

        error: 10.0.0.0 is no address for one machine of the network 10.0.0.0/24

        hint: for example: --address 192.168.1.5/24 --gateway 192.168.1.1 --dns 192.168.1.1
        exit code 2

        error: cannot open missing.img: No such file or directory (os error 2)

        hint: check the path; `cargo xtask image` makes an image
        exit code 2

        error: letter: it is no image of this program's: the first sector has no boot signature, so this is no disk image

        hint: `cargo xtask image` makes images, `cargo xtask flash` cards
        exit code 2

        error: letter: it is no image of this program's: the first sector has no boot signature, so this is no disk image

        hint: `cargo xtask image` makes images, `cargo xtask flash` cards
        exit code 2

        error: /dev/null: it is no image of this program's: failed to fill whole buffer

        hint: `cargo xtask image` makes images, `cargo xtask flash` cards
        exit code 2

    "#]].assert_eq(&told);
    assert!(std::fs::read(desk.path().join("card.img")).unwrap() == before);
}

/// Keys for nobody are refused, and keys for a server are put on the card.
#[test]
fn keys_need_a_server() {
    let desk = Desk::new();
    desk.put(
        "me.pub",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb0 me@desk\n",
    );
    let mut with_server = Tree::new();
    let unit = Node::file(0o644, &b"[Service]\n"[..]);
    with_server
        .insert("etc/systemd/system/ssh.service", unit)
        .unwrap();
    let mut told = String::new();
    for name in ["card.img", "card.img.zst", "card.img.xz"] {
        put_image_with_root(&desk, name, &Tree::new());
        let before = std::fs::read(desk.path().join(name)).unwrap();
        told.push_str(&desk.run(&["site", name, "--ssh-key", "me.pub", "--hostname", "cellar"]));
        told.push_str("\n\n");
        assert!(std::fs::read(desk.path().join(name)).unwrap() == before);

        put_image_with_root(&desk, name, &with_server);
        told.push_str(&desk.run(&["site", name, "--ssh-key", "me.pub"]));
        told.push_str("\n\n");
    }
    expect![[r#"
        error: card.img: its root has no SSH server, so no SSH key lets anybody in

        hint: nothing was changed; `cargo xtask image --ssh-key FILE` makes an image with a server, or leave the SSH keys out
        exit code 2

        card.img: changed authorized_keys
        exit code 0

        error: card.img.zst: its root has no SSH server, so no SSH key lets anybody in

        hint: nothing was changed; `cargo xtask image --ssh-key FILE` makes an image with a server, or leave the SSH keys out
        exit code 2

        card.img.zst: changed authorized_keys
        exit code 0

        error: card.img.xz: its root has no SSH server, so no SSH key lets anybody in

        hint: nothing was changed; `cargo xtask image --ssh-key FILE` makes an image with a server, or leave the SSH keys out
        exit code 2

        card.img.xz: changed authorized_keys
        exit code 0

    "#]].assert_eq(&told);
}
