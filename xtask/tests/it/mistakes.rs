//! What people type wrongly: exit code 2, what is wrong, and what to type next.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use expect_test::{Expect, expect};

use crate::command::Desk;

fn check(desk: &Desk, args: &[&str], expected: Expect) {
    expected.assert_eq(&desk.run(args));
}

/// Whoever reads may have had enough, and nobody fails for that.
#[test]
fn a_result_that_nobody_reads() {
    let desk = Desk::new();
    let mut boards = desk.command(&["boards"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = boards.stdout(writer).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn a_result_that_there_is_no_room_for() {
    let desk = Desk::new();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = desk.command(&["boards"]).stdout(full).output().unwrap();
    expect![[r#"
        error: the result cannot be written: No space left on device (os error 28)

        hint: make room where standard output leads, or have it lead elsewhere
        exit code 1"#]]
    .assert_eq(&desk.told(&output));
}

#[test]
fn no_command_shows_the_commands() {
    let told = Desk::new().run(&[]);
    assert!(told.contains("Usage: cargo xtask <COMMAND>"), "{told}");
    assert!(
        told.contains("Build a flashable image for a board"),
        "{told}"
    );
    assert!(told.ends_with("exit code 2"), "{told}");
}

#[test]
fn an_unknown_board() {
    for command in ["image", "plan"] {
        check(
            &Desk::new(),
            &[command, "--board", "pi33", "--ssid", "x", "--open"],
            expect![[r#"
                error: board `pi33` does not exist

                hint: did you mean `pi3`? the boards are: arm64, pi2, pi3, pi4, pi5, virt, zero-2-w, zero-w
                exit code 2"#]],
        );
    }
}

/// It is said before anything is fetched or compiled, and nothing is left behind.
#[test]
fn boards_whose_architecture_has_no_lock() {
    let expected = expect![[r#"
        error: there is no lock for armel, which the board `zero-w` is

        hint: `cargo xtask lock` writes it from the signed lists of a mirror
        exit code 1"#]];
    let site = ["--ssid", "x", "--open"];
    let desk = Desk::new();
    for args in [
        &["e2e"][..],
        &[&["plan"], &site[..]].concat(),
        &[&["image", "--output", "card.img"], &site[..]].concat(),
    ] {
        expected.assert_eq(&desk.run(&[args, &["--board", "zero-w"]].concat()));
        assert_eq!(desk.names(), [""; 0], "{args:?}");
    }
}

#[test]
fn architectures_to_lock_without_security_that_no_board_has() {
    expect![[r#"
        error: no board is arm46

        hint: the boards' architectures are: arm64, armel, armhf
        exit code 2"#]]
    .assert_eq(&Desk::new().run(&["lock", "--check", "--without-security", "arm46"]));
}

#[test]
fn network_names_of_impossible_lengths() {
    let image = |ssid| Desk::new().run(&["image", "--board", "pi3", "--ssid", ssid, "--open"]);
    expect![[r#"
        error: the network name is empty; an SSID has 1 to 32 bytes

        hint: give the network's name with --ssid NAME
        exit code 2"#]]
    .assert_eq(&image(""));
    expect![[r#"
        error: the network name has 33 bytes; an SSID has at most 32 (a letter outside ASCII takes two bytes or more)

        hint: give the network's name with --ssid NAME
        exit code 2"#]].assert_eq(&image(&"x".repeat(33)));
}

#[test]
fn countries_that_are_none() {
    let image = |country| {
        let network = ["--ssid", "x", "--open", "--country", country];
        Desk::new().run(&[&["image", "--board", "pi3"], &network[..]].concat())
    };
    expect![[r#"
        error: `UK` is no country code; did you mean `GB`?

        hint: for example: --country DE
        exit code 2"#]]
    .assert_eq(&image("uk"));
    expect![[r#"
        error: the kernel knows no rules for a country `ZZ`; without one, radios use what is allowed everywhere

        hint: for example: --country DE
        exit code 2"#]]
    .assert_eq(&image("ZZ"));
}

/// What editors and other files' habits put around a passphrase.
#[test]
fn passphrase_files_that_have_more_than_a_passphrase() {
    let desk = Desk::new();
    let told = |contents: &[u8]| {
        desk.put("psk", contents);
        let network = ["--ssid", "x", "--psk-file", "psk", "--offline"];
        let told = desk.run(&[&["image", "--board", "pi3"], &network[..]].concat());
        told.lines().next().unwrap_or_default().to_owned()
    };
    for (contents, expected) in [
        (
            &b"open sesame\nmore\n"[..],
            "error: while reading the passphrase in psk: there are several lines, and a passphrase is one",
        ),
        (
            b"\xff\xfeo\0p\0e\0n\0",
            "error: while reading the passphrase in psk: the text is in UTF-16; a passphrase is read as ASCII or UTF-8",
        ),
        (
            b"\"open sesame\"\n",
            "warning: the passphrase begins and ends with a double quote, which is taken for a part of it",
        ),
        (
            b" open sesame\n",
            "warning: the passphrase begins or ends with a blank, which is taken for a part of it",
        ),
    ] {
        assert_eq!(told(contents), expected);
    }
    desk.put("-", "");
    let told = desk.run(&["image", "--board", "pi3", "--ssid", "x", "--psk-file", "-"]);
    assert!(
        told.contains("hint: --psk - reads the passphrase"),
        "{told}"
    );
}

/// The passphrase itself is never repeated.
#[test]
fn passphrases_of_impossible_lengths() {
    for (passphrase, expected) in [
        (
            "",
            expect![[r#"
            error: while reading the passphrase in psk: the passphrase has 0 characters; Wi-Fi wants 8 to 63

            hint: 8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits; --open for a network without encryption
            exit code 2"#]],
        ),
        (
            "sevenzz",
            expect![[r#"
            error: while reading the passphrase in psk: the passphrase has 7 characters; Wi-Fi wants 8 to 63

            hint: 8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits; --open for a network without encryption
            exit code 2"#]],
        ),
        (
            &*"z".repeat(64),
            expect![[r#"
            error: while reading the passphrase in psk: 64 characters are taken for the key itself, and these are not all hexadecimal digits; a passphrase has at most 63

            hint: 8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits; --open for a network without encryption
            exit code 2"#]],
        ),
        (
            &*"z".repeat(5000),
            expect![[r#"
                error: while reading the passphrase in psk: the passphrase has more than 64 characters; Wi-Fi wants 8 to 63, or the key itself as 64 hexadecimal digits

                hint: 8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits; --open for a network without encryption
                exit code 2"#]],
        ),
        (
            "sevenzzé",
            expect![[r#"
            error: while reading the passphrase in psk: the character at position 8 of the passphrase is not printable ASCII, which Wi-Fi wants

            hint: 8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits; --open for a network without encryption
            exit code 2"#]],
        ),
    ] {
        let desk = Desk::new();
        desk.put("psk", passphrase);
        let told = desk.run(&[
            "image",
            "--board",
            "pi3",
            "--ssid",
            "x",
            "--psk-file",
            "psk",
        ]);
        assert!(!told.contains("zz"), "{told}");
        expected.assert_eq(&told);
    }
}

#[test]
fn a_passphrase_on_the_command_line_warns() {
    let told = Desk::new().run(&["image", "--board", "pi3", "--ssid", "x", "--psk", "sevenzz"]);
    assert!(!told.contains("sevenzz"));
    expect![[r#"
        warning: a passphrase on the command line can be seen by other users of this machine and stays in the shell's history; better: --psk-file FILE, or --psk - to read it from standard input
        error: the passphrase has 7 characters; Wi-Fi wants 8 to 63

        hint: 8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits; --open for a network without encryption
        exit code 2"#]].assert_eq(&told);
}

#[test]
fn wpa3_where_it_does_not_fit() {
    let desk = Desk::new();
    desk.put("psk", "0".repeat(64));
    let network = ["image", "--board", "pi3", "--ssid", "x"];
    let key = ["--security", "wpa3", "--psk-file", "psk"];
    check(
        &desk,
        &[&network[..], &key].concat(),
        expect![[r#"
            error: 64 hexadecimal digits are a key for WPA2; WPA3 needs the passphrase

            hint: give the network's passphrase, or --security wpa2
            exit code 2"#]],
    );
    desk.put("psk", "open sesame");
    let told = desk.run(&[&network[..], &key, &["--offline"]].concat());
    let warning = "warning: no radio of the board `pi3` is known to join WPA3 networks, and many fail; with --security mixed";
    assert!(told.starts_with(warning), "{told}");
    let open = ["--security", "wpa3", "--open"];
    let told = desk.run(&[&network[..], &open].concat());
    assert!(told.contains("cannot be used with '--open'"), "{told}");
}

#[test]
fn a_passphrase_that_nobody_can_be_asked_for() {
    check(
        &Desk::new(),
        &["image", "--board", "pi3", "--ssid", "x"],
        expect![[r#"
            error: the network's passphrase is needed

            hint: give --psk-file FILE, --psk - (standard input) or --open
            exit code 2"#]],
    );
}

#[test]
fn files_that_are_not_there() {
    let desk = Desk::new();
    let site = ["image", "--board", "pi3", "--ssid", "x"];
    for (more, expected) in [
        (
            &["--psk-file", "none"][..],
            expect![[r#"
            error: cannot read none: No such file or directory (os error 2)

            hint: check the path
            exit code 2"#]],
        ),
        (
            &["--psk-file", "."],
            expect![[r#"
            error: cannot read .: Is a directory (os error 21)

            hint: check the path
            exit code 2"#]],
        ),
        (
            &["--open", "--ssh-key", "none"],
            expect![[r#"
            error: cannot read none: No such file or directory (os error 2)

            hint: check the path
            exit code 2"#]],
        ),
        (
            &["--open", "--ssh-key", "/dev/zero"],
            expect![[r#"
            error: /dev/zero: line 1 is no SSH public key; it would begin with ssh-ed25519, ecdsa-sha2-nistp256 or ssh-rsa

            hint: give the public half, usually ~/.ssh/id_ed25519.pub; `ssh-keygen` makes a pair
            exit code 2"#]],
        ),
    ] {
        check(&desk, &[&site, more].concat(), expected);
    }
    check(
        &desk,
        &["qemu", "none.img"],
        expect![[r#"
        error: cannot read none.img: No such file or directory (os error 2)

        hint: `cargo xtask image` makes an image and prints its path
        exit code 2"#]],
    );
    desk.put("empty.img", "");
    check(
        &desk,
        &["qemu", "empty.img"],
        expect![[r#"
            error: empty.img is no image: it is too short for a partition table

            hint: `cargo xtask image` makes an image and prints its path
            exit code 2"#]],
    );
}

#[test]
fn a_private_key_is_not_taken_for_a_public_one() {
    let desk = Desk::new();
    desk.put("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n");
    let told = desk.run(&[
        "image",
        "--board",
        "pi3",
        "--ssid",
        "x",
        "--open",
        "--ssh-key",
        "id",
    ]);
    assert!(!told.contains("c2VjcmV0"), "{told}");
    expect![[r#"
        error: id: this is a private key; give the file beside it that ends in .pub

        hint: give the public half, usually ~/.ssh/id_ed25519.pub; `ssh-keygen` makes a pair
        exit code 2"#]]
    .assert_eq(&told);
}

#[test]
fn what_is_typed_does_not_command_the_terminal() {
    let red = "\u{1b}[31mred";
    check(
        &Desk::new(),
        &["image", "--board", red, "--ssid", "x", "--open"],
        expect![[r#"
            error: board `\u{1b}[31mred` does not exist

            hint: the boards are: arm64, pi2, pi3, pi4, pi5, virt, zero-2-w, zero-w
            exit code 2"#]],
    );
    check(
        &Desk::new(),
        &[
            "image",
            "--board",
            "pi3",
            "--ssid",
            "x",
            "--open",
            "--hostname",
            red,
        ],
        expect![[r#"
            error: `\u{1b}[31mred` is no host name; it has 1 to 63 letters, digits and hyphens, and no hyphen at either end

            hint: choose another one with --hostname NAME
            exit code 2"#]],
    );
}

#[test]
fn places_where_no_image_can_be() {
    let desk = Desk::new();
    desk.put("file", "");
    for (output, expected) in [
        (
            ".",
            expect![[r#"
            error: . is not a file

            hint: name a file to be made: --output FILE; an imager puts it on a card
            exit code 2"#]],
        ),
        (
            "/dev/null",
            expect![[r#"
            error: /dev/null is not a file

            hint: name a file to be made: --output FILE; an imager puts it on a card
            exit code 2"#]],
        ),
        (
            "folder/",
            expect![[r#"
            error: folder/ is a folder

            hint: name a file to be made: --output FILE.img, .img.zst or .img.xz
            exit code 2"#]],
        ),
        (
            "card.img.gz",
            expect![[r#"
            error: card.img.gz is not named like an image

            hint: name a file to be made: --output FILE.img, .img.zst or .img.xz
            exit code 2"#]],
        ),
        (
            "file/card.img",
            expect![[r#"
            error: cannot create file: File exists (os error 17)

            hint: check the path, or write elsewhere with --output FILE
            exit code 1"#]],
        ),
        (
            "/proc/none/card.img",
            expect![[r#"
            error: cannot create /proc/none: No such file or directory (os error 2)

            hint: check the path, or write elsewhere with --output FILE
            exit code 1"#]],
        ),
    ] {
        let args = [
            "image", "--board", "pi3", "--ssid", "x", "--open", "--output", output,
        ];
        check(&desk, &args, expected);
    }
    assert_eq!(desk.names(), ["file"]);
}

/// Root may write anywhere, so the command runs as somebody else: as a user without powers in a namespace of its own.
#[test]
fn a_folder_without_permission() {
    let desk = Desk::new();
    let locked = desk.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    let unshare = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-user=1000", program]);
        command
    };
    if !unshare("true")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        let why = "SKIPPED: a_folder_without_permission: unshare gives no user namespace";
        assert!(std::env::var_os("REQUIRE_ALL").is_none(), "{why}");
        eprintln!("{why}");
        return;
    }
    let args = "image --board pi3 --ssid x --open --output locked/card.img";
    let output = unshare(env!("CARGO_BIN_EXE_xtask"))
        .args(args.split(' '))
        .current_dir(desk.path())
        .env("FOOTBRIDGE_CACHE", desk.path().join("cache"))
        .output()
        .unwrap();
    expect![[r#"
        error: failed to create a temporary file in locked: permission denied

        hint: check the permissions there, or write elsewhere with --output FILE
        exit code 1"#]]
    .assert_eq(&desk.told(&output));
}

/// What others put into the cache would become part of images.
#[test]
fn a_cache_that_everybody_may_write_to() {
    let desk = Desk::new();
    let cache = desk.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o1777)).unwrap();
    check(
        &desk,
        &["plan", "--board", "pi3", "--ssid", "x", "--open"],
        expect![[r#"
            error: others may write to the cache DESK/cache

            hint: name a folder of your own with FOOTBRIDGE_CACHE, or take the permission away
            exit code 2"#]],
    );
}

/// To the fuzzer no time at all means for ever, and a life without events proves nothing.
#[test]
fn nothing_at_all_is_no_amount() {
    for args in [
        "fuzz agent --seconds 0",
        "soak --events 0",
        "bench agent --runs 0",
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let told = Desk::new().run(&args);
        assert!(told.contains("error: invalid value '0' for"), "{told}");
        assert!(told.ends_with("exit code 2"), "{told}");
    }
}

#[test]
fn images_that_are_none() {
    let desk = Desk::new();
    desk.put("notes.txt", "x".repeat(600));
    for args in [
        &["verify", "notes.txt"][..],
        &["diff", "notes.txt", "notes.txt"],
        &["qemu", "notes.txt"],
    ] {
        let told = desk.run(args);
        assert!(told.starts_with("error: notes.txt is no image: "), "{told}");
        assert!(told.ends_with("exit code 2"), "{told}");
    }
    check(
        &desk,
        &["verify", "none.img"],
        expect![[r#"
        error: cannot read none.img: No such file or directory (os error 2)

        hint: `cargo xtask image` makes an image and prints its path
        exit code 2"#]],
    );
}

#[test]
fn formats_of_images() {
    let image = |more: &[&str]| {
        let args = ["image", "--board", "pi3", "--ssid", "x", "--open"];
        Desk::new().run(&[&args, more].concat())
    };
    expect![[r#"
        error: invalid value 'zip' for '--format <FORMAT>': `zip` is no format of an image; they are img, img.zst and img.xz

        For more information, try '--help'.
        exit code 2"#]].assert_eq(&image(&["--format", "zip"]));
    expect![[r#"
        error: card.img would be named like img and be img.xz

        hint: leave out --format, or name the file .img.xz
        exit code 2"#]]
    .assert_eq(&image(&["--format", "img.xz", "--output", "card.img"]));
}
