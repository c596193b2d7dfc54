//! Lists of devices, from text to devices or to every mistake in them, and images made of a board's and a bundle.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use imagegen::board::{Board, load_boards};
use imagegen::card::image::examine;
use imagegen::fleet::Fleet;
use imagegen::fleet::base::Base;
use imagegen::fleet::bundle::SiteFiles;
use imagegen::fleet::check::{Command, check, check_all_but_commands};
use imagegen::fleet::keys::derive_keys;
use imagegen::fleet::list::{Problem, Source, Sources, load_sources, parse_list};
use imagegen::inspect::image::read_boot_partition;
use imagegen::make::disk::{Draft, ImageFormat};
use imagegen::make::fetch::Silent;
use imagegen::site::address::UplinkAddress;

use crate::card;
use crate::readers::{available, run, skip};
use crate::writers::TIME;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb0 me@desk";

fn boards() -> BTreeMap<String, Board> {
    load_boards(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards")).unwrap()
}

fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.to_owned(),
        folder: PathBuf::from("/fleet"),
        text: text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        open_to_all: false,
    }
}

fn alone(name: &str, text: &str) -> Sources {
    Sources {
        list: source(name, text),
        devices: None,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    match path.to_str() {
        Some("/fleet/hall.psk") => Ok(b"open sesame\n".to_vec()),
        Some("/fleet/short.psk") => Ok(b"hushed\n".to_vec()),
        Some("/fleet/me.pub") => Ok(KEY.into()),
        _ => Err("it is not there".to_owned()),
    }
}

fn printed(command: &Command) -> Result<Vec<u8>, String> {
    match command.words().join(" ").as_str() {
        "pass show wifi" => Ok(b"correct horse\nlogin: me\n".to_vec()),
        "pass show short" => Ok(b"hushed\n".to_vec()),
        "pass show nothing" => Ok(b"\n".to_vec()),
        _ => Err("exit status: 1".to_owned()),
    }
}

fn load(sources: &Sources) -> Result<Fleet, Vec<Problem>> {
    let list = parse_list(sources)?;
    check_all_but_commands(&list, &boards(), &read)?;
    check(&list, &boards(), &read, &printed)
}

/// A line a device, without secrets.
fn describe(fleet: &Fleet) -> String {
    let mut text = String::new();
    for device in &fleet.devices {
        let site = &device.site;
        let mut words = vec![
            device.name.to_string(),
            device.target.to_string(),
            site.hostname.to_string(),
        ];
        words.extend(device.serial.iter().map(ToString::to_string));
        words.extend(device.mac.iter().map(ToString::to_string));
        words.extend(site.country.iter().map(ToString::to_string));
        words.extend(site.networks.iter().map(|network| {
            let security = format!("{:?}", network.security);
            let kind = security.split('(').next().unwrap_or_default();
            format!(
                "[{} {kind} {}]",
                network.ssid.to_printable(),
                network.priority
            )
        }));
        words.extend(
            site.ssh_keys
                .iter()
                .map(|keys| format!("{} keys", keys.lines().len())),
        );
        if site.address != UplinkAddress::Dhcp {
            words.push(site.address.to_string());
        }
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    text
}

fn explain(result: &Result<Fleet, Vec<Problem>>) -> String {
    match result {
        Ok(fleet) => describe(fleet),
        Err(problems) => {
            let lines = problems
                .iter()
                .map(|problem| format!("{problem}\n    {}\n", problem.hint));
            lines.collect()
        }
    }
}

fn check_list(sources: &Sources, expected: Expect) {
    let told = explain(&load(sources));
    for secret in ["hushed", "sesame", "horse", "12345678"] {
        assert!(!told.contains(secret), "{told}");
    }
    expected.assert_eq(&told);
}

/// The example at the head of a file, so that it stays true.
fn example(file: &str, fence: &str) -> String {
    let lines = file.lines().skip_while(|line| *line != fence).skip(1);
    let lines = lines.take_while(|line| *line != "//! ```");
    lines
        .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start()))
        .collect()
}

#[test]
fn a_list_in_toml() {
    let text = example(include_str!("../../src/fleet/list_toml.rs"), "//! ```toml");
    let text = text
        .replace("operations.pub", "me.pub")
        .replace("shop.psk", "hall.psk")
        .replace("\"wifi/hall\"", "\"wifi\"");
    let sources = Sources {
        list: source("fleet.toml", &text),
        devices: Some(source(
            "devices.csv",
            "name,address,country\nhall-2,10.0.0.12/24,US\nhall-3,dhcp,\n",
        )),
    };
    check_list(
        &sources,
        expect![[r#"
        hall-1 pi3 hall-1 10000000abcdef01 DE [Hall Wpa2 0] 1 keys 10.0.0.11/24, gateway 10.0.0.1, name server 10.0.0.1
        shop zero-w-gadget till b8:27:eb:01:02:03 DE [Shop Wpa2 0] 1 keys
        hall-2 pi3 hall-2 US [Hall Wpa2 0] 1 keys 10.0.0.12/24, gateway 10.0.0.1, name server 10.0.0.1
        hall-3 pi3 hall-3 DE [Hall Wpa2 0] 1 keys
    "#]],
    );
}

#[test]
fn a_list_in_csv() {
    let text = example(include_str!("../../src/fleet/list_csv.rs"), "//! ```csv");
    check_list(
        &alone("x.csv", &text),
        expect![[r#"
        hall-1 pi3 hall-1 10000000abcdef01 [Hall Wpa2 0] 10.0.0.11/24
        hall-2 pi3 den [Hall Wpa2 0] [Guests Open 0]
    "#]],
    );
    // What spreadsheets make of it.
    let plain = load(&alone("x.csv", &text));
    for changed in [
        format!("\u{feff}{}", text.replace('\n', "\r\n")),
        text.replace(',', ";"),
        text.replace(',', "\t"),
        text.replace(",Hall,", ",\"Hall\","),
        text.trim_end().to_owned(),
        text.replacen('\n', "\n\n,,,\n", 1),
    ] {
        assert_eq!(
            describe(&load(&alone("x.csv", &changed)).unwrap()),
            describe(plain.as_ref().unwrap()),
            "{changed}"
        );
    }
}

/// A device of a fleet tells its network of itself, a device of its own does not, and the list has the last word.
#[test]
fn devices_of_a_list_tell_how_they_are_unless_it_says_otherwise() {
    let list = |text: &str| {
        let fleet = load(&alone("fleet.toml", text)).unwrap();
        let options = fleet.devices.iter();
        let options = options.map(|device| device.site.agent.to_string());
        options.collect::<Vec<_>>()
    };
    let devices = "[[device]]\nname = \"a\"\n[[device]]\nname = \"b\"\nagent.fleet.status = true\n";
    let defaults =
        "[defaults]\nboard = \"pi3\"\nnetwork = [{ ssid = \"x\", psk-file = \"hall.psk\" }]\n";
    let (on, off) = ("fleet.status = true", "fleet.status = false");
    assert_eq!(list(&format!("{defaults}{devices}")), [on, on]);
    let quiet = "agent.fleet.status = false\n";
    assert_eq!(list(&format!("{defaults}{quiet}{devices}")), [off, on]);
    let file = include_str!("../../../overlays/site/footbridge.toml.tera");
    assert!(file.contains("\n#status = false\n"));
}

#[test]
fn cells_may_hold_anything_that_a_name_of_a_network_may() {
    let text = "name,board,ssid,security,ssid-hex-2,security-2,hidden,priority\na,pi3,\" Caf\u{e9}, \"\"bar\"\"; \",open,00ff,open,yes,7\n";
    check_list(
        &alone("x.csv", text),
        expect![[r#"
        a pi3 a [ Caf\xc3\xa9, \"bar\";  Open 7] [\x00\xff Open 0]
    "#]],
    );
}

#[test]
fn every_mistake_in_a_table_is_told_with_its_line() {
    let head = "name,board,serial,mac,hostname,ssid,psk-file,security,address,gateway,dns\r\n";
    let lines = [
        "a,pi3,10000000abcdef01,b8:27:eb:01:02:03,,Hall,hall.psk,,10.0.0.5/24,10.0.0.1,10.0.0.1 10.0.0.2",
        "../etc/passwd,pi3,,,x1,Hall,hall.psk,,,,",
        "\u{1b}[31m,pi3,,,x2,Hall,hall.psk,,,,",
        "b,pi33,,,,Hall,hall.psk,,,,",
        "c,pi3,xyz,b8:27:eb,,Hall,short.psk,,,,",
        "A,pi3,10000000ABCDEF01,B8-27-EB-01-02-03,a,Hall,hall.psk,,10.0.0.5/24,,",
        "d,pi3,,,-bad-,,,,,,",
        "e,pi3,,,,Hall,none.psk,,10.0.0.300/24,,",
        "f,pi3,,,,Hall,,,,,,,,surplus",
        "g.h,pi3,,,,Hall,,wep,,,",
        "i,,,,,Hall,hall.psk,open,10.0.0.9/24,10.1.0.1,",
        ",pi3,,,,Hall,hall.psk,,,,",
        "j,pi3,,,,Other,hall.psk,,10.0.0.5/24,,",
    ];
    let text = format!("{head}{}\r\n", lines.join("\r\n"));
    check_list(
        &alone("x.csv", &text),
        expect![[r#"
            x.csv:3: `../etc/passwd` cannot name a device: a name has 1 to 64 of A-Z, a-z, 0-9, `-`, `_` and `.`, the first of them a letter or a digit
                it names files; what people call the device goes into hostname
            x.csv:4: a cell has a line end or another control character in it
                is there a double quote without its other half?
            x.csv:5: board `pi33` does not exist
                did you mean `pi3`? the boards are: arm64, pi2, pi3, pi4, pi5, virt, zero-2-w, zero-w
            x.csv:6: `b8:27:eb` is not the hardware address of one device, such as b8:27:eb:01:02:03
                `ip link show wlan0` on the device says it
            x.csv:6: `xyz` is no serial number; it has 8 or 16 hexadecimal digits
                `cat /proc/cpuinfo` on the device says it in its last lines
            x.csv:6: the passphrase has 6 characters; Wi-Fi wants 8 to 63
                8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits
            x.csv:7: the address `10.0.0.5 in Hall` is that of x.csv:2 too
                give each device its own
            x.csv:7: the hardware address `b8:27:eb:01:02:03` is that of x.csv:2 too
                give each device its own
            x.csv:7: the host name `a` is that of x.csv:2 too
                give each device its own
            x.csv:7: the name `a` is that of x.csv:2 too
                give each device its own
            x.csv:7: the serial number `10000000abcdef01` is that of x.csv:2 too
                give each device its own
            x.csv:8: `-bad-` is no host name; it has 1 to 63 letters, digits and hyphens, and no hyphen at either end
                for example: hostname = "attic"
            x.csv:9: `10.0.0.300/24` is no address with the length of its network, at most 30, such as 192.168.1.5/24
                for example: address = "192.168.1.5/24", gateway = "192.168.1.1", dns = ["192.168.1.1"]
            x.csv:9: cannot read none.psk: it is not there
                check the path; it begins where this file is
            x.csv:10: the line has 14 cells, and there are 11 columns
                a cell with a comma in it is written in double quotes
            x.csv:11: `g.h` is no host name; it has 1 to 63 letters, digits and hyphens, and no hyphen at either end
                give the device a hostname, or a name that is one
            x.csv:11: unknown variant `wep`, expected one of `open`, `wpa2`, `wpa3`, `mixed`, `eap-tls`, `peap`
                the book shows a whole list
            x.csv:12: `psk` has no part in a network that is secured so
                leave it out, or give another security
            x.csv:12: nothing says which board the device is
                the boards are: arm64, pi2, pi3, pi4, pi5, virt, zero-2-w, zero-w
            x.csv:12: the gateway 10.1.0.1 is not another machine of the network 10.0.0.0/24
                for example: address = "192.168.1.5/24", gateway = "192.168.1.1", dns = ["192.168.1.1"]
            x.csv:13: the device has no name
                for example: name = "hall-1"
        "#]],
    );
}

#[test]
fn headings_are_known_and_come_once() {
    for (text, expected) in [
        (
            "",
            expect![[r#"
            x.csv:1: there is no device in the list
                a CSV has a line of headings and a line a device, a fleet.toml a [[device]] each
        "#]],
        ),
        (
            "\n\n",
            expect![[r#"
            x.csv:1: there is no device in the list
                a CSV has a line of headings and a line a device, a fleet.toml a [[device]] each
        "#]],
        ),
        (
            "name,board,ssid,psk-file\n",
            expect![[r#"
            x.csv:1: there is no device in the list
                a CSV has a line of headings and a line a device, a fleet.toml a [[device]] each
        "#]],
        ),
        (
            "name,Board ,board,ssid,sid,pks-file,psk-command-17,,\na,pi3,pi4,x,,,,notes,\n",
            expect![[r#"
                x.csv:1: there are two columns `board`
                    take one away
                x.csv:1: there is no column `sid`
                    did you mean `ssid`?
                x.csv:1: there is no column `pks-file`
                    did you mean `psk-file`?
                x.csv:1: there is no column `psk-command-17`
                    did you mean `psk-command`?
            "#]],
        ),
        (
            "a,pi3,Hall,open sesame\n",
            expect![[r#"
                x.csv:1: there is no column `name`
                    the first line has the columns' names, such as name,board,ssid,psk-file
            "#]],
        ),
        (
            "name,board,ssid,psk-file\na,pi3,\"Hall,hall.psk\nb,pi3,Hall,hall.psk\n",
            expect![[r#"
                x.csv:2: a cell has a line end or another control character in it
                    is there a double quote without its other half?
            "#]],
        ),
    ] {
        check_list(&alone("x.csv", text), expected);
    }
}

#[test]
fn every_mistake_in_toml_is_told_with_its_line() {
    let text = r#"
devices = 5
speed = 3

[defaults]
name = "all"
board = "pi3"
country = "DEU"
contry = "DE"

[[device]]
name = "a"
serial = 12345678
network = [{ ssid = "x", psk = 12345678 }, { ssid = "y", psk = "hushed" }, { ssid = "z", pks = "hushed" }]

[[device]]
name = "b"
gadget = "yes"
uplink = { address = "10.0.0.1", speed = 3 }
agent.dhcp.mood = "relay"
network = [{ ssid = "x", psk-command = [] }, { ssid = "x", psk-command = ["pass"], psk = "open sesame" }]

[[device]]
name = "c"
board = "pi5"
gadget = true
ssh-keys = ["hello"]
network = { ssid = "x" }
"#;
    check_list(
        &alone("fleet.toml", text),
        expect![[r#"
            fleet.toml:2: `devices` names no file
                for example: devices = "devices.csv"; a device here begins with [[device]]
            fleet.toml:3: a list of devices has no `speed`
                there are devices, [defaults] and [[device]]
            fleet.toml:6: `name` is one device's, not everybody's
                write it below the [[device]]
            fleet.toml:8: `DEU` is no country code; it has two letters, such as DE or US (ISO 3166-1)
                for example: country = "DE"
            fleet.toml:9: a device has no `contry`
                did you mean `country`?
            fleet.toml:13: `serial` is not text
                put it in double quotes
            fleet.toml:14: `psk` is not text
                put it in double quotes
            fleet.toml:14: a network has no `pks`
                there are ssid, ssid-hex, security, psk, psk-file, psk-command, priority, hidden, identity, anonymous-identity, password, password-file, password-command, ca, ca-file, server-name, certificate, certificate-file, key-file, key-password, key-password-file, key-password-command
            fleet.toml:14: nothing says how the network is secured
                give psk-file (or psk), or say security = "open", "eap-tls" or "peap"
            fleet.toml:14: the passphrase has 6 characters; Wi-Fi wants 8 to 63
                8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits
            fleet.toml:18: `gadget` is neither true nor false
                for example: gadget = true
            fleet.toml:19: unknown field `speed`, expected one of `address`, `gateway`, `dns`
                the book shows a whole list
            fleet.toml:20: the bridge has no setting `dhcp.mood`
                did you mean `dhcp.mode`?
            fleet.toml:21: `psk-command` is no list of words
                for example: psk-command = ["pass", "show", "wifi"]
            fleet.toml:21: `psk` is given twice
                give psk-command, psk-file or psk
            fleet.toml:23: the board `pi5` cannot be a network card of another computer
                leave out gadget; `cargo xtask boards` says which can
            fleet.toml:27: line 1 is no SSH public key; it would begin with ssh-ed25519, ecdsa-sha2-nistp256 or ssh-rsa
                give the public half, usually ~/.ssh/id_ed25519.pub; `ssh-keygen` makes a pair
            fleet.toml:28: invalid type: map, expected a sequence
                the book shows a whole list
        "#]],
    );
    check_list(
        &alone("fleet.toml", "[[device]\nname = \"a\nx = 1 2\n"),
        expect![[r#"
            fleet.toml:1: unclosed array table, expected `]`
                the book shows a whole fleet.toml
        "#]],
    );
    check_list(
        &alone("fleet.toml", "device = [1]\ndefaults = 2\n"),
        expect![[r#"
            fleet.toml:1: this is no device
                write [[device]]
            fleet.toml:2: `defaults` is no table
                write [defaults]
        "#]],
    );
    check_list(
        &alone("fleet.toml", ""),
        expect![[r#"
        fleet.toml:1: there is no device in the list
            a CSV has a line of headings and a line a device, a fleet.toml a [[device]] each
    "#]],
    );
}

#[test]
fn what_programs_print_is_checked_last() {
    let list = |command: &str| {
        format!(
            "[defaults]\nboard = \"pi3\"\n\n[[device]]\nname = \"a\"\n[[device.network]]\nssid = \"x\"\npsk-command = {command}\n"
        )
    };
    for (command, expected) in [
        (
            r#"["pass", "show", "wifi"]"#,
            expect![[r#"
            a pi3 a [x Wpa2 0]
        "#]],
        ),
        (
            r#""pass show wifi""#,
            expect![[r#"
            a pi3 a [x Wpa2 0]
        "#]],
        ),
        (
            r#"["pass", "show", "short"]"#,
            expect![[r#"
            fleet.toml:8: the passphrase has 6 characters; Wi-Fi wants 8 to 63
                8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits
        "#]],
        ),
        (
            r#"["pass", "show", "nothing"]"#,
            expect![[r#"
            fleet.toml:8: `pass` gave no secret: its first line is empty
                try it by itself; its first line is the secret
        "#]],
        ),
        (
            r#"["pass", "show", "wrong"]"#,
            expect![[r#"
            fleet.toml:8: `pass` gave no secret: exit status: 1
                try it by itself; its first line is the secret
        "#]],
        ),
    ] {
        check_list(&alone("fleet.toml", &list(command)), expected);
    }
    // Two devices with one command, and a mistake elsewhere: nothing is run.
    let text = "name,board,ssid,psk-command\na,pi3,x,pass show wifi\nb,pi3,x,pass  show wifi\n";
    let sources = alone("x.csv", text);
    let list = parse_list(&sources).unwrap();
    assert_eq!(
        check_all_but_commands(&list, &boards(), &read)
            .unwrap()
            .len(),
        1
    );
    let sources = alone("x.csv", &text.replace("pi3", "pi"));
    let list = parse_list(&sources).unwrap();
    assert_eq!(
        check_all_but_commands(&list, &boards(), &read)
            .unwrap_err()
            .len(),
        2
    );
}

#[test]
fn a_secret_in_a_file_for_everybody_is_refused() {
    let mut sources = alone("x.csv", "name,board,ssid,psk\na,pi3,x,open sesame\n");
    check_list(
        &sources,
        expect![[r#"
        a pi3 a [x Wpa2 0]
    "#]],
    );
    sources.list.open_to_all = true;
    check_list(
        &sources,
        expect![[r#"
        x.csv:2: everybody on this machine can read this file, and `psk` in it
            chmod o= x.csv, or psk-file, or psk-command
    "#]],
    );
    sources.list.text = "name,board,ssid,psk-file\na,pi3,x,hall.psk\n".to_owned();
    assert!(load(&sources).is_ok());
}

#[test]
fn files_are_read_with_their_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8], mode| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    put("devices.csv", b"\xef\xbb\xbfname\na\n", 0o640);
    let path = put("fleet.toml", b"devices = \"devices.csv\"\n", 0o644);
    let sources = load_sources(&path).unwrap();
    assert!(sources.list.open_to_all);
    let devices = sources.devices.as_ref().unwrap();
    assert_eq!(
        (devices.open_to_all, devices.text.as_str()),
        (false, "name\na\n")
    );
    let mut other = sources.clone();
    other.list.text.push('\n');
    assert_ne!(sources.digest(), other.digest());
    assert!(!format!("{sources:?}").contains("name\\n"), "{sources:?}");

    let told = |path: &Path| {
        load_sources(path)
            .unwrap_err()
            .to_string()
            .replace(&folder.path().display().to_string(), "DIR")
    };
    assert_eq!(
        told(&put("x.csv", b"name\n\xff\n", 0o600)),
        "DIR/x.csv:2: this is not text in UTF-8"
    );
    assert_eq!(
        told(&put("x.txt", b"", 0o600)),
        "DIR/x.txt is neither a .toml nor a .csv"
    );
    assert_eq!(
        told(&folder.path().join("none.csv")),
        "cannot read DIR/none.csv"
    );
    assert_eq!(
        told(&put("lost.toml", b"devices = \"lost.csv\"", 0o600)),
        "cannot read DIR/lost.csv"
    );
}

#[test]
fn a_key_is_the_same_however_it_is_derived() {
    let text = "name,board,ssid,psk-file,ssid-2,psk-file-2,security-2\na,pi3,Hall,hall.psk,x,hall.psk,wpa3\nb,pi3,Hall,hall.psk,,,\nc,pi3,Shop,hall.psk,,,\n";
    let fleet = load(&alone("x.csv", text)).unwrap();
    let mut derived = fleet.clone();
    derive_keys(&mut derived);
    for (before, after) in fleet.devices.iter().zip(&derived.devices) {
        use imagegen::credentials::{Psk, Security};
        for (before, after) in before.site.networks.iter().zip(&after.site.networks) {
            match (&before.security, &after.security) {
                (Security::Wpa2(psk), Security::Wpa2(found @ Psk::Pmk(_))) => {
                    assert!(psk.to_pmk(&before.ssid) == found.to_pmk(&before.ssid));
                }
                (before, after) => assert!(before == after && matches!(after, Security::Wpa3(_))),
            }
        }
    }
}

fn site(names: &[(&str, usize)]) -> SiteFiles {
    let files = names.iter().map(|(name, size)| {
        let bytes: Vec<u8> = name.bytes().cycle().take(*size).collect();
        ((*name).to_owned(), bytes.into())
    });
    files.collect()
}

/// Large sites and small ones in turns: what is left of one must not be in the next.
#[test]
fn images_of_devices_have_their_boards_files_and_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let base_path = card::image(folder.path(), "base.img", 300_000);
    let base = Base::open(&base_path, TIME).unwrap();
    let has_fsck = available(
        "images_of_devices_have_their_boards_files_and_their_own",
        &["fsck.fat"],
    );
    let sites = [
        site(&[
            ("hostname", 7),
            ("wpa_supplicant.conf", 300),
            ("footbridge.toml", 5000),
        ]),
        site(&[("hostname", 9)]),
        site(&[("authorized_keys", 200_000), ("hostname", 1), ("empty", 0)]),
    ];
    let make = |base: &Base, name: &str, site: &SiteFiles| {
        let path = folder.path().join(name);
        base.write(Draft::create(&path, ImageFormat::Img).unwrap(), site)
            .unwrap();
        path
    };
    for (number, site) in sites.iter().enumerate() {
        let path = make(&base, &format!("{number}.img"), site);
        // Its block map and checksum fit it, and it is one of ours.
        let image = examine(&path, &Silent).unwrap();
        assert_eq!(
            image.map.image_size,
            fs::metadata(&base_path).unwrap().len()
        );
        let boot = read_boot_partition(fs::File::open(&path).unwrap()).unwrap();
        let found: SiteFiles = boot
            .tree
            .subtree("site")
            .filter_map(|(path, node)| {
                Some((
                    path.strip_prefix("site/")?.to_owned(),
                    node.bytes()?.clone(),
                ))
            })
            .collect();
        assert_eq!(found, *site);
        let original = read_boot_partition(fs::File::open(&base_path).unwrap()).unwrap();
        assert_eq!(boot.bytes("kernel8.img"), original.bytes("kernel8.img"));
        if has_fsck {
            fsck(&path);
        }
        // One made from another device's image is the same, to the last byte.
        for other in 0..number {
            let other = Base::open(&folder.path().join(format!("{other}.img")), TIME).unwrap();
            let again = make(&other, "again.img", site);
            assert!(
                fs::read(&again).unwrap() == fs::read(&path).unwrap(),
                "{number}"
            );
        }
    }
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 5 * 3);
}

/// A file system whose files can share blocks, which goes with the test.
struct Btrfs(PathBuf);

impl Btrfs {
    /// `None`, after saying so, where there can be none.
    fn mount(test: &str, folder: &Path) -> Option<Btrfs> {
        if !available(test, &["mkfs.btrfs", "mount", "umount"]) {
            return None;
        }
        let (file, place) = (folder.join("btrfs"), folder.join("mounted"));
        fs::create_dir(&place).unwrap();
        fs::File::create(&file).unwrap().set_len(256 << 20).unwrap();
        run(folder, "mkfs.btrfs", &["--quiet", "btrfs"]);
        let mounted = std::process::Command::new("mount")
            .args(["-o", "loop"])
            .args([&file, &place])
            .output()
            .unwrap();
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr);
            skip(test, &format!("btrfs cannot be mounted: {}", why.trim()));
            return None;
        }
        Some(Btrfs(place))
    }

    /// How many bytes are free once everything has been written.
    fn free(&self) -> u64 {
        rustix::fs::syncfs(fs::File::open(&self.0).unwrap()).unwrap();
        let found = rustix::fs::statvfs(&self.0).unwrap();
        found.f_bfree * found.f_frsize
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

/// Where a file system shares blocks, ten images take little more room than one, and are the same as elsewhere.
#[test]
fn images_share_what_they_have_in_common() {
    const CONTENTS: usize = 20 << 20;
    const TEST: &str = "images_share_what_they_have_in_common";
    let folder = tempfile::tempdir().unwrap();
    let Some(shared) = Btrfs::mount(TEST, folder.path()) else {
        return;
    };
    let base_path = card::image(&shared.0, "base.img", CONTENTS);
    let elsewhere = card::image(folder.path(), "base.img", CONTENTS);
    let site = site(&[("hostname", 7), ("wpa_supplicant.conf", 300)]);
    let make = |base: &Path, name: &str| {
        let path = base.with_file_name(name);
        let base = Base::open(base, TIME).unwrap();
        base.write(Draft::create(&path, ImageFormat::Img).unwrap(), &site)
            .unwrap();
        path
    };
    let free = shared.free();
    let made: Vec<PathBuf> = (0..10)
        .map(|number| make(&base_path, &format!("{number}.img")))
        .collect();
    let taken = free.saturating_sub(shared.free());
    assert!(taken < CONTENTS as u64, "{taken} bytes");
    let copied = fs::read(make(&elsewhere, "copied.img")).unwrap();
    for path in made {
        assert!(fs::read(&path).unwrap() == copied, "{}", path.display());
    }
}

/// Has the boot partition checked by somebody else.
fn fsck(image: &Path) {
    let mut partition = fs::File::open(image).unwrap();
    partition.seek(SeekFrom::Start(4 << 20)).unwrap();
    let mut bytes = Vec::new();
    partition.take(64 << 20).read_to_end(&mut bytes).unwrap();
    let copy = tempfile::NamedTempFile::new().unwrap();
    fs::write(copy.path(), bytes).unwrap();
    run(
        Path::new("/"),
        "fsck.fat",
        &["-n", copy.path().to_str().unwrap()],
    );
}
