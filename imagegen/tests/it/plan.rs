//! Golden plans: every board with fixed packages. `UPDATE_EXPECT=1` rewrites them; the difference is what a review looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use expect_test::{expect, expect_file};
use imagegen::board::{Arch, Board, load_boards};
use imagegen::credentials::{Psk, Security, Ssid};
use imagegen::index::{Index, Origin};
use imagegen::lock::Lock;
use imagegen::overlays::{Overlays, load_overlays};
use imagegen::plan::{Plan, PlanInputs, features_of, plan};
use imagegen::recipe::Feature;
use imagegen::resolve::{Resolution, resolve};
use imagegen::site::config::parse_site_config;
use imagegen::site::{CountryCode, Hostname, Network, SiteOptions, SshKeys};

use crate::readers::{available, run};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb0 me@desk";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn overlays() -> Overlays {
    load_overlays(&repository().join("overlays")).unwrap()
}

pub(crate) fn boards() -> BTreeMap<String, Board> {
    load_boards(&repository().join("boards")).unwrap()
}

pub(crate) fn board(id: &str) -> Board {
    boards().remove(id).unwrap()
}

pub(crate) fn site() -> SiteOptions {
    site_of("home", Security::Wpa2(Psk::parse(b"open sesame").unwrap()))
}

fn site_of(ssid: impl Into<Vec<u8>>, security: Security) -> SiteOptions {
    SiteOptions::joining(Network::new(Ssid::new(ssid).unwrap(), security))
}

/// Debian's packages of one day, so that only this repository changes a plan.
pub(crate) fn resolution(
    board: &Board,
    overlays: &Overlays,
    features: &BTreeSet<Feature>,
) -> Resolution {
    let mut index = Index::default();
    for (text, suite) in offers(board.arch) {
        let origin = Origin {
            suite: suite.to_owned(),
            automatic: suite == "trixie",
        };
        index.add(text, &origin).unwrap();
    }
    resolve(&index, &overlays.recipe.request(board, features)).unwrap()
}

fn offers(arch: Arch) -> Vec<(&'static str, &'static str)> {
    match arch {
        Arch::Arm64 => vec![
            (include_str!("fixtures/packages-arm64.txt"), "trixie"),
            (
                include_str!("fixtures/packages-arm64-backports.txt"),
                "trixie-backports",
            ),
        ],
        Arch::Armhf => vec![(include_str!("fixtures/packages-armhf.txt"), "trixie")],
        Arch::Armel => vec![(include_str!("fixtures/packages-armel.txt"), "trixie")],
    }
}

pub(crate) fn plan_for(id: &str, site: &SiteOptions) -> Plan {
    plan_board(&board(id), site)
}

fn plan_board(board: &Board, site: &SiteOptions) -> Plan {
    let overlays = overlays();
    let resolution = resolution(board, &overlays, &features_of(board, site));
    plan(&PlanInputs {
        board,
        site,
        resolution: &resolution,
        overlays: &overlays,
    })
    .unwrap()
}

fn site_file(plan: &Plan, name: &str) -> String {
    let bytes = plan.boot.site[name].node.bytes().unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_board_has_a_golden_plan() {
    for id in load_boards(&repository().join("boards")).unwrap().keys() {
        let golden =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/golden/{id}.txt"));
        expect_file![golden].assert_eq(&plan_for(id, &site()).to_string());
    }
}

/// Every image of an architecture that has a lock can be made of it.
#[test]
fn the_committed_locks_have_what_boards_need() {
    let overlays = overlays();
    let boards = load_boards(&repository().join("boards")).unwrap();
    let folder = repository().join("packages.lock");
    let mut locked = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let arch = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lock = Lock::parse(&text, arch).unwrap();
        assert_eq!(
            lock.to_string(),
            text,
            "{} is as it is written",
            path.display()
        );
        for board in boards
            .values()
            .filter(|board| board.arch.debian_name() == arch)
        {
            for board in std::iter::once(board.clone()).chain(board.as_gadget()) {
                let site = SiteOptions {
                    ssh_keys: Some(SshKeys::parse(KEY).unwrap()),
                    ..site()
                };
                for site in [site, self::site()] {
                    let request = overlays.recipe.request(&board, &features_of(&board, &site));
                    let resolution = lock.resolve(&request).unwrap();
                    let inputs = PlanInputs {
                        board: &board,
                        site: &site,
                        resolution: &resolution,
                        overlays: &overlays,
                    };
                    plan(&inputs).unwrap();
                }
            }
            locked.insert(board.id.clone());
        }
    }
    assert!(
        locked.contains("pi3") && locked.contains("pi5"),
        "{locked:?}"
    );
}

#[test]
fn every_golden_plan_has_a_board() {
    let boards = load_boards(&repository().join("boards")).unwrap();
    for entry in std::fs::read_dir(repository().join("imagegen/tests/it/golden")).unwrap() {
        let path = entry.unwrap().path();
        let id = path.file_stem().unwrap().to_str().unwrap();
        assert!(boards.contains_key(id), "{}", path.display());
    }
}

#[test]
fn a_key_adds_the_ssh_server_and_nothing_else() {
    let with_key = SiteOptions {
        ssh_keys: Some(SshKeys::parse(KEY).unwrap()),
        ..site()
    };
    let (without, with) = (
        plan_for("pi3", &site()).to_string(),
        plan_for("pi3", &with_key).to_string(),
    );
    let known: BTreeSet<&str> = without.lines().collect();
    let added: String = with
        .lines()
        .filter(|line| !known.contains(line))
        .map(|line| format!("{line}\n"))
        .collect();
    expect![[r#"
        features: ssh
        disk: signature 928ef8ae, boot partition 928ef8ae-01, root partition 928ef8ae-02
          dropbear-bin 2025.89-1~deb13u1 root (no scripts)
          libgmp10 2:6.3.0+dfsg-3 root (no scripts)
          libtomcrypt1 1.18.2+dfsg-7+b2 root (no scripts)
          libtommath1 1.3.0-1 root (no scripts)
          /site/authorized_keys (overlays/site/authorized_keys.tera)
            | console=tty1 console=ttyS1,115200 boot=PARTUUID=928ef8ae-01 root=PARTUUID=928ef8ae-02 ro panic=10 quiet net.ifnames=0
          /etc/systemd/system/multi-user.target.wants/ssh.service -> ../ssh.service (link)
          /etc/systemd/system/ssh.service 0644 (overlays/rootfs/etc/systemd/system/ssh.service)
    "#]].assert_eq(&added);
}

#[test]
fn a_gadget_is_the_same_board_with_another_wired_side() {
    let zero = board("zero-2-w");
    let (without, with) = (
        plan_board(&zero, &site()).to_string(),
        plan_board(&zero.as_gadget().unwrap(), &site()).to_string(),
    );
    let known: BTreeSet<&str> = without.lines().collect();
    let added: String = with
        .lines()
        .filter(|line| !known.contains(line) && !line.contains("PARTUUID"))
        .map(|line| format!("{line}\n"))
        .collect();
    expect![[r#"
        features: gadget
        disk: signature 96ae226d, boot partition 96ae226d-01, root partition 96ae226d-02
          module g_ether
          module usb_f_ecm
          module usb_f_ecm_subset
          module usb_f_rndis
          /etc/systemd/system/footbridge-gadget.service 0644 (overlays/rootfs/etc/systemd/system/footbridge-gadget.service)
          /etc/udev/rules.d/70-footbridge-gadget.rules 0644 (overlays/rootfs/etc/udev/rules.d/70-footbridge-gadget.rules)
          /usr/lib/footbridge/gadget 0755 (overlays/rootfs/usr/lib/footbridge/gadget)
    "#]].assert_eq(&added);
    let gadget = plan_board(&zero.as_gadget().unwrap(), &site());
    assert!(site_file(&gadget, "footbridge.toml").contains("\ndownlink = \"usb0\"\n"));
    assert_eq!(board("pi3").as_gadget(), None);
}

/// One root, with one hash, serves a whole fleet; what tells its cards apart is on the boot partition.
#[test]
fn root_and_initramfs_know_nothing_of_the_site() {
    let elsewhere = SiteOptions {
        country: Some(CountryCode::parse("DE").unwrap()),
        hostname: Hostname::parse("attic").unwrap(),
        ..site_of("Café \"bar\" $x", Security::Open)
    };
    let (one, other) = (plan_for("pi3", &site()), plan_for("pi3", &elsewhere));
    assert_eq!(
        (&one.root, &one.initramfs, one.signature),
        (&other.root, &other.initramfs, other.signature)
    );
    assert_ne!(one.boot, other.boot);
    let printed = one.to_string();
    let pmk = site_file(&one, "wpa_supplicant.conf")
        .lines()
        .find_map(|line| line.trim().strip_prefix("psk=").map(str::to_owned));
    assert!(!printed.contains(&pmk.unwrap()), "a plan shows no key");
}

#[test]
fn any_name_of_a_network_is_one_harmless_line() {
    for ssid in [
        &b"home"[..],
        "Café \"bar\" $x".as_bytes(),
        b"}\nnetwork={",
        b"{{ pmk }}{% raw %}",
        b"\0\r\n\\\xff",
        b" # <&>'\"",
    ] {
        let site = site_of(ssid, Security::Wpa2(Psk::parse(b"open sesame").unwrap()));
        let text = site_file(&plan_for("pi3", &site), "wpa_supplicant.conf");
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_graphic() || b" \t\n".contains(&byte)),
            "{text}"
        );
        assert_eq!(text.matches("\nnetwork={\n").count(), 1, "{text}");
        assert!(
            text.contains(&format!("\n\tssid={}\n", site.networks[0].ssid.to_hex())),
            "{text}"
        );
    }
}

#[test]
fn supplicant_files() {
    let secured = SiteOptions {
        country: Some(CountryCode::parse("de").unwrap()),
        ..site()
    };
    expect![[r##"
        # Network: home
        ctrl_interface=/run/wpa_supplicant
        update_config=0
        country=DE

        network={
        	# The name of the network, its bytes in hexadecimal. A name in double quotes is fine too: ssid="name"
        	ssid=686f6d65
        	scan_ssid=1
        	key_mgmt=WPA-PSK
        	# The key, as 64 hexadecimal digits. A passphrase in double quotes is fine too: psk="passphrase"
        	psk=613df7a59cc4227a0d7e51994dbd9c8d2199b35982c8ad1403ae207f38523156
        }
    "##]].assert_eq(&site_file(&plan_for("pi3", &secured), "wpa_supplicant.conf"));
    let open = site_of("home", Security::Open);
    expect![[r##"
        # Network: home
        ctrl_interface=/run/wpa_supplicant
        update_config=0

        network={
        	# The name of the network, its bytes in hexadecimal. A name in double quotes is fine too: ssid="name"
        	ssid=686f6d65
        	scan_ssid=1
        	key_mgmt=NONE
        }
    "##]].assert_eq(&site_file(&plan_for("pi3", &open), "wpa_supplicant.conf"));
    let secured_by = |security| {
        let site = site_of("home", security);
        site_file(&plan_for("pi3", &site), "wpa_supplicant.conf")
    };
    // wpa_supplicant takes a quoted value to its last quote and knows no escapes in it.
    let Ok(Psk::Passphrase(passphrase)) = Psk::parse(br#"say "{{ pmk }}" # \"#) else {
        panic!("that is a passphrase");
    };
    expect![[r##"
        # Network: home
        ctrl_interface=/run/wpa_supplicant
        update_config=0
        # WPA3: both ways to derive the key from the passphrase, for there are access points that know only one.
        sae_pwe=2

        network={
        	# The name of the network, its bytes in hexadecimal. A name in double quotes is fine too: ssid="name"
        	ssid=686f6d65
        	scan_ssid=1
        	key_mgmt=SAE
        	# WPA3 works with the passphrase itself, in double quotes.
        	psk="say "{{ pmk }}" # \"
        	ieee80211w=2
        }
    "##]].assert_eq(&secured_by(Security::Wpa3(passphrase.clone())));
    expect![[r##"
        # Network: home
        ctrl_interface=/run/wpa_supplicant
        update_config=0
        # WPA3: both ways to derive the key from the passphrase, for there are access points that know only one.
        sae_pwe=2

        network={
        	# The name of the network, its bytes in hexadecimal. A name in double quotes is fine too: ssid="name"
        	ssid=686f6d65
        	scan_ssid=1
        	key_mgmt=SAE WPA-PSK
        	# WPA3 works with the passphrase itself, in double quotes.
        	psk="say "{{ pmk }}" # \"
        	ieee80211w=1
        }
    "##]].assert_eq(&secured_by(Security::Mixed(passphrase)));
}

/// Several networks of all kinds, a static address and a setting of the bridge, said as a person says them.
#[test]
fn everything_that_a_site_toml_can_say() {
    let text = r#"
        [[network]]
        ssid = "work"
        security = "eap-tls"
        priority = 20
        hidden = false
        identity = "host/attic"
        ca-file = "pem"
        certificate-file = "pem"
        key = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
        key-password = "open \"sesame\" # {{ pmk }}"

        [[network]]
        ssid = "campus"
        security = "peap"
        identity = "me@example.org"
        anonymous-identity = "anonymous@example.org"
        password = "open sesame"
        ca-file = "pem"
        server-name = "radius.example.org"

        [[network]]
        ssid = "home"
        psk = "open sesame"

        [uplink]
        address = "192.168.1.5/24"
        gateway = "192.168.1.1"

        [agent.dhcp]
        mode = "relay"
    "#;
    let read =
        |_: &Path| Ok(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_vec());
    let site = parse_site_config(text, &read).unwrap().into_options();
    let plan = plan_for("pi3", &site.unwrap());
    // The agent checks that nothing is wrong with it.
    expect_file!["site_files/wpa_supplicant.conf"]
        .assert_eq(&site_file(&plan, "wpa_supplicant.conf"));
    let names: Vec<&str> = plan.boot.site.keys().map(String::as_str).collect();
    expect!["README.txt ca-8010bfce.pem certificate-8010bfce.pem footbridge.toml hostname key-ca954af2.pem uplink.network wpa_supplicant.conf"].assert_eq(&names.join(" "));
    assert!(
        site_file(&plan, "uplink.network")
            .contains("\nDHCP=no\nAddress=192.168.1.5/24\nGateway=192.168.1.1\n")
    );
    assert!(site_file(&plan, "footbridge.toml").contains("\nmode = \"relay\"\n"));
}

#[test]
fn a_package_nobody_has_read_stops_the_plan() {
    let (board, overlays) = (board("pi3"), overlays());
    let mut resolution = resolution(&board, &overlays, &BTreeSet::new());
    let mut stranger = resolution.packages["mount"].clone();
    stranger.name = "telnetd".to_owned();
    resolution.packages.insert("telnetd".to_owned(), stranger);
    let err = plan(&PlanInputs {
        board: &board,
        site: &site(),
        resolution: &resolution,
        overlays: &overlays,
    })
    .unwrap_err();
    expect!["nobody has read the maintainer scripts of package `telnetd`; read them, then list it under scriptless or scripts in packages.toml"].assert_eq(&err.to_string());
}

/// Each row spoils good overlays in one way.
#[test]
fn overlays_that_do_not_fit_together_are_refused() {
    type Spoil = fn(&mut Overlays);
    let rows: [(Spoil, &str); 6] = [
        (
            |overlays| drop(overlays.rootfs.remove("etc/shadow")),
            "overlay.toml has a rule under modes for `/etc/shadow`, but nothing is there",
        ),
        (
            |overlays| drop(overlays.site.remove("hostname.tera")),
            "overlay.toml has a rule under site for `/hostname`, but nothing is there",
        ),
        (
            |overlays| drop(overlays.site.insert("hostname".into(), (*b"x").into())),
            "/hostname comes both from overlays/site/hostname and from overlays/site/hostname.tera",
        ),
        (
            |overlays| drop(overlays.rules.links.insert("etc/hosts".into(), "x".into())),
            "/etc/hosts comes both from overlays/rootfs/etc/hosts and from link",
        ),
        (
            |overlays| {
                drop(
                    overlays
                        .site
                        .insert("hostname.tera".into(), (*b"{{ hotsname }}").into()),
                )
            },
            "the template overlays/site/hostname.tera cannot be rendered",
        ),
        (
            |overlays| {
                drop(
                    overlays
                        .boot
                        .insert("cmdline.txt.tera".into(), (*b"quiet\nro\n").into()),
                )
            },
            "the kernel command line has to be one line of at most 1023 bytes, and this has 2 of 9 bytes together",
        ),
    ];
    let board = board("pi3");
    let resolution = resolution(&board, &overlays(), &BTreeSet::new());
    for (spoil, says) in rows {
        let mut overlays = overlays();
        spoil(&mut overlays);
        let inputs = PlanInputs {
            board: &board,
            site: &site(),
            resolution: &resolution,
            overlays: &overlays,
        };
        let message = plan(&inputs).unwrap_err().to_string();
        assert!(message.starts_with(says), "{message}");
    }
}

/// Every program that `init` starts is an applet that the initramfs has.
#[test]
fn init_is_a_shell_script_that_calls_what_is_there() {
    let plan = plan_for("pi3", &site());
    let init = plan.initramfs["init"].node.bytes().unwrap();
    let text = std::str::from_utf8(init).unwrap();
    assert!(text.starts_with("#!/bin/sh\n"));
    for program in [
        "mount",
        "umount",
        "modprobe",
        "hexdump",
        "sha256sum",
        "cp",
        "cat",
        "sleep",
        "reboot",
        "switch_root",
    ] {
        assert!(
            text.contains(program),
            "{program} is not called and need not be there"
        );
        assert!(
            plan.initramfs.contains_key(&format!("bin/{program}")),
            "{program} is not there"
        );
    }
    if available("init_is_a_shell_script_that_calls_what_is_there", &["sh"]) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("init"), init).unwrap();
        run(dir.path(), "sh", &["-n", "init"]);
    }
}
