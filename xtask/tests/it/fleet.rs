//! Lists of devices as people type them: what is told of a wrong one, a thousand devices, and cards written one after the other, with the
//! program ended in between. Files stand for cards, and a small image for a board's.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use expect_test::expect;
use imagegen::fleet::bundle::decode_bundle;
use imagegen::fleet::ledger::{Event, State, parse_ledger};
use imagegen::inspect::image::read_boot_partition;
use imagegen::sha256::Sha256;

use crate::command::Desk;
use crate::flash::{put_card, put_image};

const LIST: &str = "name,board,serial,ssid,psk-file,address\nhall-1,pi3,10000000abcdef01,Hall,hall.psk,10.0.0.11/24\nhall-2,pi3,,Hall,hall.psk,\nshop,pi3,,Shop,hall.psk,\n";

/// A desk with a list of three devices and what was made for them; a small image stands for the board's.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.put("fleet.csv", LIST);
    desk.put("hall.psk", "open sesame\n");
    build(&desk);
    desk
}

/// What is typed for the bundles of a list without the boards' images.
fn bundles(list: &str) -> [&str; 6] {
    ["fleet", "build", list, "--output", "out", "--bundles-only"]
}

fn build(desk: &Desk) {
    let told = desk.run(&bundles("fleet.csv"));
    assert!(
        told.starts_with("out\n") && told.ends_with("exit code 0"),
        "{told}"
    );
    put_image(desk, "out/base-pi3.img", 3_000_000);
    let image = fs::read(desk.path().join("out/base-pi3.img")).unwrap();
    let digest = Sha256::of(&image).to_string();
    let manifest = desk.path().join("out/fleet.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    json["images"] = serde_json::json!({ "pi3": { "sha256": digest, "time": 1_794_573_296 } });
    fs::write(manifest, json.to_string()).unwrap();
}

fn flash_command(desk: &Desk, card: &str) -> Command {
    desk.command(&[
        "fleet",
        "flash",
        "fleet.csv",
        "--output",
        "out",
        card,
        "--yes",
    ])
}

fn events(desk: &Desk) -> Vec<Event> {
    let bytes = fs::read(desk.path().join("out/ledger.jsonl")).unwrap_or_default();
    parse_ledger(&bytes).unwrap().0
}

fn states(desk: &Desk) -> Vec<(String, State)> {
    events(desk)
        .into_iter()
        .map(|event| (event.device, event.state))
        .collect()
}

/// A card's name of its host, once it is whole.
fn hostname(card: &PathBuf) -> Option<String> {
    let boot = read_boot_partition(fs::File::open(card).unwrap()).ok()?;
    boot.text("site/hostname")
}

#[test]
fn every_mistake_is_told_before_anything_is_made() {
    let desk = Desk::new();
    desk.put(
        "fleet.csv",
        "name,board,ssid,psk-file\na,pi33,x,none\n../b,pi3,,\n",
    );
    expect![[r#"
        error: the list has 3 mistakes:
          fleet.csv:2: board `pi33` does not exist
              did you mean `pi3`? the boards are: arm64, pi2, pi3, pi4, pi5, virt, zero-2-w, zero-w
          fleet.csv:2: cannot read none: No such file or directory (os error 2)
              check the path; it begins where this file is
          fleet.csv:3: `../b` cannot name a device: a name has 1 to 64 of A-Z, a-z, 0-9, `-`, `_` and `.`, the first of them a letter or a digit
              it names files; what people call the device goes into hostname

        hint: nothing was made; the book shows whole lists (docs/src/fleet.md)
        exit code 2"#]].assert_eq(&desk.run(&["fleet", "build", "fleet.csv", "--output", "out"]));
    assert_eq!(desk.names(), ["fleet.csv"]);
    desk.put("fleet.csv", "name,board,ssid,psk\na,pi3,x,open sesame\n");
    let told = desk.run(&bundles("fleet.csv"));
    assert!(
        told.contains("chmod o= fleet.csv") && told.ends_with("exit code 2"),
        "{told}"
    );
    assert!(!told.contains("sesame"), "{told}");
    expect![[r#"
        error: cannot read none.csv: No such file or directory (os error 2)

        hint: check the path
        exit code 2"#]]
    .assert_eq(&desk.run(&["fleet", "flash", "none.csv", "card"]));
}

/// Each program runs once for the whole list, without a shell, and what it prints is neither an argument nor told.
#[test]
fn programs_print_secrets() {
    let desk = Desk::new();
    let program = desk.put(
        "secret",
        "#!/bin/sh\necho \"$@\" >>runs\necho 'open sesame'\necho more\n",
    );
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let list = format!(
        "[defaults]\nboard = \"pi3\"\n[[defaults.network]]\nssid = \"Hall\"\npsk-command = [\"{}\", \"$HOME; *\"]\n\n[[device]]\nname = \"a\"\n[[device]]\nname = \"b\"\n",
        program.display()
    );
    desk.put("fleet.toml", list);
    let told = desk.run(&bundles("fleet.toml"));
    assert!(
        told.ends_with("exit code 0") && !told.contains("sesame"),
        "{told}"
    );
    assert_eq!(
        fs::read_to_string(desk.path().join("runs")).unwrap(),
        "$HOME; *\n"
    );
    let bundle = fs::read(desk.path().join("out/a.site")).unwrap();
    let files = decode_bundle(&bundle).unwrap();
    let supplicant = String::from_utf8_lossy(&files["wpa_supplicant.conf"]).into_owned();
    // The key of the network, not the passphrase.
    let pmk = "psk=";
    assert!(
        supplicant.contains(pmk) && !supplicant.contains("sesame"),
        "{supplicant}"
    );
    let mode = fs::metadata(desk.path().join("out/a.site"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    desk.put("secret", "#!/bin/sh\nexit 3\n");
    let told = desk.run(&bundles("fleet.toml"));
    assert!(
        told.contains("gave no secret: exit status: 3") && told.ends_with("exit code 2"),
        "{told}"
    );
}

/// Time and memory are told, and only memory is judged, for time depends on what else the machine does.
#[test]
fn a_thousand_devices_take_no_more_memory_than_a_hundred() {
    let mut peaks = Vec::new();
    for count in [100, 1000] {
        let desk = Desk::new();
        desk.put("hall.psk", "open sesame\n");
        let mut list = "name,board,mac,ssid,psk-file,address,country\n".to_owned();
        for number in 0..count {
            let (high, low) = (number / 250, number % 250 + 1);
            // Twenty houses, so twenty keys.
            writeln!(
                list,
                "device-{number},pi3,b8:27:eb:00:{high:02x}:{low:02x},House {},hall.psk,10.0.{high}.{low}/16,DE",
                number % 20
            )
            .unwrap();
        }
        desk.put("fleet.csv", list);
        let begin = Instant::now();
        let mut child = desk
            .command(&bundles("fleet.csv"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let peak = peak_of(&mut child);
        let took = begin.elapsed();
        println!(
            "{count} devices: {:.2} s, at most {peak} KiB",
            took.as_secs_f64()
        );
        peaks.push(peak);
        let bundles = fs::read_dir(desk.path().join("out")).unwrap();
        let bundles = bundles.filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            path.extension()
                .is_some_and(|extension| extension == "site")
        });
        assert_eq!(bundles.count(), count);
    }
    assert!(peaks[1] < peaks[0] + (16 << 10), "{peaks:?}");
}

/// Waits for a program; returns the most memory that it had, in KiB.
fn peak_of(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(now.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return peak;
        }
        std::thread::yield_now();
    }
}

#[test]
fn cards_are_written_one_after_the_other() {
    let desk = desk();
    let names = ["hall-1", "hall-2", "shop"];
    for (number, name) in names.into_iter().enumerate() {
        let card = put_card(&desk, 300 << 20);
        let output = flash_command(&desk, "card").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        assert!(told.contains(&format!("Device: {name} (pi3")), "{told}");
        assert!(told.contains(&format!("{number} of 3 are done")), "{told}");
        assert_eq!(hostname(&card), Some(format!("{name}\n")));
    }
    let expected: Vec<_> = names
        .iter()
        .flat_map(|name| [State::Started, State::Done].map(|state| ((*name).to_owned(), state)))
        .collect();
    assert_eq!(states(&desk), expected);
    let first = &events(&desk)[0];
    assert_eq!(first.serial.as_deref(), Some("10000000abcdef01"));
    assert!(first.card.ends_with("/card"), "{}", first.card);
    let bundle = fs::read(desk.path().join("out/hall-1.site")).unwrap();
    assert_eq!(first.bundle, Sha256::of(&bundle).to_string());
    let left: Vec<_> = fs::read_dir(desk.path().join("out/work"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");

    let told = desk.told(&flash_command(&desk, "card").output().unwrap());
    expect![[r#"
        3 of 3 devices have their cards
        exit code 0"#]]
    .assert_eq(&told);
    // One by its name, though it has a card.
    let told = desk.run(&[
        "fleet",
        "flash",
        "fleet.csv",
        "--output",
        "out",
        "card",
        "--yes",
        "--device",
        "shop",
    ]);
    assert!(told.ends_with("exit code 0"), "{told}");
    assert_eq!(states(&desk).len(), 8);
    let told = desk.run(&[
        "fleet",
        "flash",
        "fleet.csv",
        "--output",
        "out",
        "card",
        "--yes",
        "--device",
        "shpo",
    ]);
    expect![[r#"
        error: there is no device `shpo` in the list

        hint: did you mean `shop`?
        exit code 2"#]]
    .assert_eq(&told);
    // A list that says something else now.
    desk.put("fleet.csv", LIST.replace("shop", "store"));
    let told = desk.told(&flash_command(&desk, "card").output().unwrap());
    expect![[r#"
        error: the list has changed since out/fleet.json was made

        hint: cargo xtask fleet build fleet.csv
        exit code 2"#]]
    .assert_eq(&told);
}

/// Killed when it says a certain thing, which may be at any moment after; the next run writes exactly the device that was begun.
#[test]
fn a_killed_run_is_made_good_by_the_next() {
    let moments = [
        "Device: ",
        "checking the image",
        "To be overwritten",
        "writing",
        "reading back",
        "hall-1 is done",
    ];
    for moment in moments {
        let desk = desk();
        let card = put_card(&desk, 300 << 20);
        let mut child = flash_command(&desk, "card")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().starts_with(moment)),
            "{moment}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        let before = states(&desk);
        let done = before.contains(&("hall-1".to_owned(), State::Done));
        if !done {
            let output = flash_command(&desk, "card").output().unwrap();
            assert!(
                output.status.success(),
                "{moment}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        assert_eq!(hostname(&card).as_deref(), Some("hall-1\n"), "{moment}");
        let after = states(&desk);
        assert_eq!(after[..before.len()], before[..], "{moment}");
        assert!(
            after.iter().all(|(name, _)| name == "hall-1"),
            "{moment} {after:?}"
        );
        assert_eq!(
            after.last(),
            Some(&("hall-1".to_owned(), State::Done)),
            "{moment}"
        );
        let output = flash_command(&desk, "card").output().unwrap();
        assert!(output.status.success(), "{moment}");
        assert_eq!(hostname(&card).as_deref(), Some("hall-2\n"), "{moment}");
    }
}

#[test]
fn whole_images_where_they_are_wanted() {
    let desk = desk();
    let told = desk.run(&["fleet", "images", "fleet.csv", "--output", "out"]);
    expect![[r#"
        out/hall-1.img
        out/hall-2.img
        out/shop.img
        making images
        exit code 0"#]]
    .assert_eq(&told);
    for name in ["hall-1", "hall-2", "shop"] {
        let image = desk.path().join(format!("out/{name}.img"));
        assert_eq!(hostname(&image), Some(format!("{name}\n")));
        assert!(desk.path().join(format!("out/{name}.img.bmap")).exists());
    }
    let told = desk.run(&[
        "fleet",
        "images",
        "fleet.csv",
        "--output",
        "out",
        "--device",
        "shop",
    ]);
    assert!(told.starts_with("out/shop.img\n"), "{told}");
}

/// What an earlier build left is told, for whoever puts it on a card gets old settings.
#[test]
fn files_of_an_earlier_list_are_told() {
    let desk = desk();
    desk.run(&["fleet", "images", "fleet.csv", "--output", "out"]);
    let without_hall_2: Vec<&str> = LIST
        .lines()
        .filter(|line| !line.starts_with("hall-2"))
        .collect();
    desk.put(
        "fleet.csv",
        without_hall_2.join("\n").replace("Shop", "Shop floor"),
    );
    let told = desk.run(&bundles("fleet.csv"));
    expect![[r#"
        out
        making bundles
        note: in out are files of devices that are no longer in the list, with their keys; remove them: hall-2.site, hall-2.img
        note: in out are files with earlier settings; `cargo xtask fleet images` makes them anew: shop.img
        exit code 0"#]]
    .assert_eq(&told);
    let told = desk.run(&bundles("fleet.csv"));
    assert!(!told.contains("note"), "{told}");
}
