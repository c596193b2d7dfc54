//! Cards as people write them: files stand for them, so that no right and no card is needed.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use expect_test::expect;
use imagegen::inspect::packed::open_image_file;
use imagegen::make::disk::{DiskParts, Draft, ImageFormat, Papers, write_disk};
use imagegen::make::fat::FatLabel;
use imagegen::make::squashfs::{SquashfsOptions, write_squashfs};
use imagegen::mbr::PartitionTable;
use imagegen::plan::disk::{DiskLayout, DiskSignature, DiskSizes};
use imagegen::tree::{Node, Tree};

use crate::command::Desk;

/// Puts an image with so many bytes to write on the desk.
pub(crate) fn put_image(desk: &Desk, name: &str, bytes: usize) {
    // No two blocks are the same, and none is the zeros of an empty card.
    let mut file = vec![0xc3; bytes];
    for (number, block) in file.chunks_mut(512).enumerate() {
        let number = (number as u64).to_le_bytes();
        let size = block.len().min(number.len());
        block[..size].copy_from_slice(&number[..size]);
    }
    let mut boot = Tree::new();
    boot.insert("kernel8.img", Node::file(0o644, file)).unwrap();
    let mut root = std::io::Cursor::new(Vec::new());
    write_squashfs(&Tree::new(), &SquashfsOptions::at(0), &mut root).unwrap();
    let root = root.into_inner();
    let sizes = DiskSizes {
        boot: (2 * bytes as u64).max(64 << 20),
        root: root.len() as u64,
    };
    let layout = DiskLayout::new(DiskSignature::derive(b"card"), sizes).unwrap();
    let path = desk.path().join(name);
    let parts = DiskParts {
        boot: &boot,
        boot_label: FatLabel::new("FOOTBRIDGE").unwrap(),
        time: 0,
        root: &root,
    };
    let draft = Draft::create(&path, ImageFormat::of_name(name).unwrap()).unwrap();
    write_disk(draft, &layout, &parts, |_, _| Papers::new()).unwrap();
}

/// Puts an empty card on the desk.
pub(crate) fn put_card(desk: &Desk, size: u64) -> PathBuf {
    let path = desk.put("card", "");
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size)
        .unwrap();
    path
}

fn is_card(path: &Path) -> bool {
    let mut sector = [0; 512];
    let file = fs::File::open(path).unwrap();
    file.read_exact_at(&mut sector, 0).unwrap();
    PartitionTable::decode(&sector).is_ok()
}

/// Whether a card begins with all of an image. What is not mapped of it is zeros, as an empty card is.
fn check_whole(desk: &Desk, image: &str, card: &Path) {
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    let mut image = open_image_file(&desk.path().join(image)).unwrap();
    image.read_to_end(&mut expected).unwrap();
    let card = fs::File::open(card).unwrap();
    card.take(expected.len() as u64)
        .read_to_end(&mut found)
        .unwrap();
    assert!(found == expected, "the card differs from the image");
}

/// What the command said, without sizes that depend on the image's structures and times.
fn without_figures(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("To be written"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_image_is_written_and_read_back() {
    for name in ["x.img", "x.img.zst", "x.img.xz"] {
        let desk = Desk::new();
        put_image(&desk, name, 100_000);
        let card = put_card(&desk, 300 << 20);
        let output = desk
            .command(&["flash", name, "card", "--yes"])
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr.clone()).unwrap();
        let last = told.lines().last().unwrap();
        assert!(
            last.contains("/card: ") && last.contains(" written, all of it read back ("),
            "{told}"
        );
        expect![[r#"
            checking the image
            To be overwritten: DESK/card, a file of 314.6 MB
            writing
            reading back
            exit code 0"#]]
        .assert_eq(&without_figures(&desk.told(&output)));
        check_whole(&desk, name, &card);
        assert_eq!(
            fs::read_dir(desk.path().join("cache/flash"))
                .unwrap()
                .count(),
            0
        );
    }
}

#[test]
fn what_cannot_be_a_card() {
    let desk = Desk::new();
    put_image(&desk, "x.img", 100_000);
    put_card(&desk, 1000);
    let told = |args: &[&str]| desk.run(&[&["flash"], args].concat());
    expect![[r#"
        error: there is no nowhere

        hint: a file that stands for a card has to be there: `truncate -s 4G nowhere` makes one
        exit code 2"#]]
    .assert_eq(&told(&["x.img", "nowhere"]));
    expect![[r#"
        error: there is no /dev/nowhere

        hint: is the card in? `cargo xtask flash IMAGE` lists the disks that images can go on
        exit code 2"#]]
    .assert_eq(&told(&["x.img", "/dev/nowhere"]));
    expect![[r#"
        error: x.img is the image itself

        hint: name the disk that the image is to go on
        exit code 2"#]]
    .assert_eq(&told(&["x.img", "x.img"]));
    expect![[r#"
        checking the image
        error: DESK/card is too small by 75.5 MB: it has 1.0 kB, the image 75.5 MB

        hint: make it as large as a card: truncate -s 4G DESK/card
        exit code 2"#]]
    .assert_eq(&told(&["x.img", "card"]));
    expect![[r#"
        error: DESK/x.img is an image, with its block map beside it, and not a card

        hint: the image comes first and the card second; `cp` copies an image
        exit code 2"#]]
    .assert_eq(&told(&["card", "x.img"]));
    expect![[r#"
        error: cannot read nowhere: No such file or directory (os error 2)

        hint: `cargo xtask image` makes an image and prints its path
        exit code 2"#]]
    .assert_eq(&told(&["nowhere", "card"]));
    fs::write(desk.path().join("x.img.sha256"), "0".repeat(64)).unwrap();
    expect![[r#"
        checking the image
        error: x.img is damaged, or is not the file that x.img.sha256 was written for

        hint: build or copy the image again, and the files beside it with it
        exit code 1"#]]
    .assert_eq(&told(&["x.img", "card"]));
}

#[test]
fn nobody_is_erased_unasked() {
    let desk = Desk::new();
    put_image(&desk, "x.img", 100_000);
    let card = put_card(&desk, 300 << 20);
    expect![[r#"
        checking the image
        To be overwritten: DESK/card, a file of 314.6 MB
        error: nobody is here to be asked whether it may be erased

        hint: if you are sure: --yes
        exit code 2"#]]
    .assert_eq(&without_figures(&desk.run(&["flash", "x.img", "card"])));
    assert!(!is_card(&card));
}

#[test]
fn without_a_disk_the_disks_are_listed() {
    let desk = Desk::new();
    put_image(&desk, "x.img", 100_000);
    let told = desk.run(&["flash", "x.img"]);
    // Which there are is this machine's affair, and so is whether one of them can be named or has to be put in first.
    assert!(told.contains("error: no disk is named\n\nhint: "), "{told}");
    let named = told.starts_with("/dev/");
    let hint = if named {
        "hint: name one of these: cargo xtask flash x.img /dev/NAME\nexit code 2"
    } else {
        "put one in, and run the same command again\nexit code 2"
    };
    assert!(told.ends_with(hint), "{told}");
}

/// How much of the image the journal says is on the card; nothing where there is no journal.
fn journalled(desk: &Desk) -> Option<u64> {
    let mut entries = fs::read_dir(desk.path().join("cache/flash")).ok()?;
    let path = entries.find_map(|entry| {
        let path = entry.ok()?.path();
        (path.extension()? == "toml").then_some(path)
    })?;
    let table: toml::Table = toml::from_str(&fs::read_to_string(path).ok()?).unwrap();
    table["written"].as_integer().unwrap().try_into().ok()
}

/// Starts writing and returns once the journal says that so much is on the card; or the writing has ended by then.
fn started(desk: &Desk, written: u64) -> Child {
    let mut child = desk
        .command(&["flash", "x.img", "card", "--yes"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none()
        && journalled(desk).is_none_or(|there| there < written)
    {
        std::thread::yield_now();
    }
    child
}

/// Wherever it is killed, the card is no card, the journal is whole, and the same command ends what was begun.
#[test]
fn a_killed_run_is_gone_on_with() {
    const BYTES: usize = 100 << 20;
    let desk = Desk::new();
    put_image(&desk, "x.img", BYTES);
    let mut killed = 0;
    let mut went_on = 0;
    for _ in 0..6 {
        let card = put_card(&desk, 300 << 20);
        let moment = RandomState::new().hash_one(()) % BYTES as u64;
        let mut child = started(&desk, moment);
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            check_whole(&desk, "x.img", &card);
            continue;
        }
        killed += 1;
        let there = journalled(&desk);
        assert!(!is_card(&card), "{moment}: {there:?}");
        let told = desk.told(
            &desk
                .command(&["flash", "x.img", "card", "--yes"])
                .output()
                .unwrap(),
        );
        went_on += u32::from(there.is_some_and(|there| there > 16 << 20));
        assert!(told.ends_with("exit code 0"), "{told}");
        check_whole(&desk, "x.img", &card);
        assert_eq!(journalled(&desk), None);
    }
    assert!(
        killed > 0 && went_on > 0,
        "{killed} killed, {went_on} of them after something was written"
    );
}

#[test]
fn an_interruption_says_how_to_go_on() {
    let desk = Desk::new();
    put_image(&desk, "x.img", 100 << 20);
    let card = put_card(&desk, 300 << 20);
    let child = started(&desk, 1);
    let status = Command::new("sh")
        .args(["-c", "kill -INT \"$0\"", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
    let output = child.wait_with_output().unwrap();
    expect![[r#"
        checking the image
        To be overwritten: DESK/card, a file of 314.6 MB
        writing

        interrupted; DESK/card is not whole; the same command goes on where it was
        exit code 130"#]]
    .assert_eq(&without_figures(&desk.told(&output)));
    assert!(!is_card(&card));
    let told = desk.run(&["flash", "x.img", "card", "--yes"]);
    assert!(told.ends_with("exit code 0"), "{told}");
    check_whole(&desk, "x.img", &card);
}

/// `verify` says of a damaged image what `flash` would refuse it for, and `flash` says what it cannot know.
#[test]
fn the_checksum_beside_an_image_is_looked_at() {
    let desk = Desk::new();
    put_image(&desk, "x.img", 100_000);
    put_card(&desk, 300 << 20);
    let finding = "checksum: x.img does not fit the .sha256 beside it\n";
    let verify = ["verify", "x.img", "--board", "pi3"];
    assert!(!desk.run(&verify).contains(finding));
    let image = fs::File::options()
        .write(true)
        .open(desk.path().join("x.img"))
        .unwrap();
    // The last byte of the root's last block, which nothing is in.
    let end = image.metadata().unwrap().len();
    image.write_all_at(b"x", end - 1).unwrap();
    let told = desk.run(&verify);
    assert!(told.contains(finding), "{told}");

    for suffix in [".sha256", ".bmap"] {
        fs::remove_file(desk.path().join(format!("x.img{suffix}"))).unwrap();
    }
    let told = desk.run(&["flash", "x.img", "card", "--yes"]);
    for line in [
        "There is no x.img.sha256: nobody knows whether the image is whole\n",
        "There is no x.img.bmap: all of the image is written, empty blocks too\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
}
