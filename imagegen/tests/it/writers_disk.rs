//! The whole disk image: other people's partition tools, and what is left behind when writing fails.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use expect_test::expect;
use imagegen::inspect::fat::Fat;
use imagegen::make::disk::{self, DiskError, DiskParts, Draft, ImageFormat, Papers};
use imagegen::make::fat::FatLabel;
use imagegen::make::squashfs::{SquashfsOptions, write_squashfs};
use imagegen::plan::disk::{DiskLayout, DiskSignature, DiskSizes};
use imagegen::tree::{Node, Tree};

use crate::readers::{available, run, skip};
use crate::writers::{TIME, noise, plain_tree};

fn root() -> Vec<u8> {
    let mut root = Cursor::new(Vec::new());
    write_squashfs(
        &plain_tree(),
        &SquashfsOptions {
            zstd_level: 1,
            ..SquashfsOptions::at(TIME)
        },
        &mut root,
    )
    .unwrap();
    root.into_inner()
}

fn layout(root: &[u8]) -> DiskLayout {
    let sizes = DiskSizes {
        boot: 64 << 20,
        root: root.len() as u64,
    };
    DiskLayout::new(DiskSignature::derive(b"pi3"), sizes).unwrap()
}

fn parts<'a>(boot: &'a Tree, root: &'a [u8]) -> DiskParts<'a> {
    DiskParts {
        boot,
        boot_label: FatLabel::new("BOOT").unwrap(),
        time: TIME,
        root,
    }
}

fn write_disk(path: &Path, layout: &DiskLayout, parts: &DiskParts<'_>) -> Result<(), DiskError> {
    let draft = Draft::create(path, ImageFormat::Img)?;
    disk::write_disk(draft, layout, parts, |_, _| Papers::new())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A complete image in a folder of its own.
const ALL: [&str; 3] = ["card.img", "card.img.bmap", "card.img.sha256"];

#[test]
fn partition_tools_and_readers_agree_with_the_image() {
    if !available(
        "partition_tools_and_readers_agree_with_the_image",
        &["sfdisk", "fsck.fat", "mdir", "unsquashfs"],
    ) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (boot, root) = (plain_tree(), root());
    write_disk(
        &scratch.path().join("card.img"),
        &layout(&root),
        &parts(&boot, &root),
    )
    .unwrap();
    run(scratch.path(), "sfdisk", &["--verify", "card.img"]);
    expect![[r#"
        {
           "partitiontable": {
              "label": "dos",
              "id": "0xc02d45e7",
              "device": "card.img",
              "unit": "sectors",
              "sectorsize": 512,
              "partitions": [
                 {
                    "node": "card.img1",
                    "start": 8192,
                    "size": 131072,
                    "type": "c"
                 },{
                    "node": "card.img2",
                    "start": 139264,
                    "size": 8192,
                    "type": "83"
                 }
              ]
           }
        }
    "#]]
    .assert_eq(&run(scratch.path(), "sfdisk", &["--json", "card.img"]));
    let image = fs::read(scratch.path().join("card.img")).unwrap();
    fs::write(scratch.path().join("boot.fat"), &image[4 << 20..68 << 20]).unwrap();
    run(scratch.path(), "fsck.fat", &["-n", "boot.fat"]);
    assert!(run(scratch.path(), "mdir", &["-i", "card.img@@4M", "::/names"]).contains("café [x]"));
    run(
        scratch.path(),
        "unsquashfs",
        &["-o", "71303168", "-lls", "card.img"],
    );
}

#[test]
fn an_image_is_private_sparse_and_the_same_every_time() {
    let scratch = tempfile::tempdir().unwrap();
    let (boot, root) = (plain_tree(), root());
    let path = scratch.path().join("card.img");
    write_disk(&path, &layout(&root), &parts(&boot, &root)).unwrap();
    let first = fs::read(&path).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), layout(&root).total);
    let used = metadata.blocks() * 512;
    assert!(
        used < boot.total_size() + root.len() as u64 + (2 << 20),
        "{used} bytes on the disk"
    );
    write_disk(&path, &layout(&root), &parts(&boot, &root)).unwrap();
    assert!(first == fs::read(&path).unwrap());
    assert_eq!(names(scratch.path()), ALL);
    assert_eq!(
        Fat::open_image(Cursor::new(first)).unwrap().tree().unwrap(),
        boot
    );
}

#[test]
fn a_link_to_an_image_stays_a_link() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("real")).unwrap();
    fs::write(scratch.path().join("real/card.img"), "old").unwrap();
    symlink("real/card.img", scratch.path().join("link.img")).unwrap();
    let root = noise(5000);
    write_disk(
        &scratch.path().join("link.img"),
        &layout(&root),
        &parts(&Tree::new(), &root),
    )
    .unwrap();
    assert!(
        fs::symlink_metadata(scratch.path().join("link.img"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(
        fs::metadata(scratch.path().join("real/card.img"))
            .unwrap()
            .len(),
        layout(&root).total
    );
}

#[test]
fn a_failure_leaves_the_old_image_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("card.img");
    fs::write(&path, "old").unwrap();
    let root = noise(5000);
    let mut linked = Tree::new();
    linked.insert("link", Node::symlink("x")).unwrap();
    let too_large = noise(5 << 20);
    for (boot, content, expected) in [
        (&linked, &root, expect!["failed to make the boot partition"]),
        (
            &Tree::new(),
            &too_large,
            expect![
                "the root file system of 5242880 bytes does not fit its partition of 4194304 bytes"
            ],
        ),
    ] {
        let err = write_disk(&path, &layout(&root), &parts(boot, content)).unwrap_err();
        expected.assert_eq(&err.to_string());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(scratch.path()), ["card.img"]);
    }
}

/// Where the inner run of the next test finds a file system of 2 MiB.
const SMALL_FILE_SYSTEM: &str = "FOOTBRIDGE_TEST_SMALL_FILE_SYSTEM";

/// Runs itself again in namespaces of its own, where an ordinary user may mount a tmpfs.
#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let test = "a_full_disk_is_said_and_leaves_nothing";
    if let Some(directory) = std::env::var_os(SMALL_FILE_SYSTEM) {
        return fill_up(Path::new(&directory));
    }
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-e",
            "-c",
            script,
        ]);
        command
    };
    if !unshare("true")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return skip(test, "unshare gives no user namespace");
    }
    let scratch = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=2m none \"$DIR\"; exec \"$EXE\" --exact \"$NAME\"";
    let output = unshare(script)
        .env("DIR", scratch.path())
        .env("EXE", std::env::current_exe().unwrap())
        .env("NAME", format!("writers_disk::{test}"))
        .env(SMALL_FILE_SYSTEM, scratch.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{stdout}"
    );
}

fn fill_up(directory: &Path) {
    let path = directory.join("card.img");
    fs::write(&path, "old").unwrap();
    let root = noise(3 << 20);
    let err = write_disk(&path, &layout(&root), &parts(&Tree::new(), &root)).unwrap_err();
    let expected = format!(
        "no space left in {}: the image takes up to 75497472 bytes",
        directory.display()
    );
    assert_eq!(err.to_string(), expected);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(directory), ["card.img"]);
}

#[test]
fn what_is_not_a_file_is_not_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let root = noise(5000);
    let write = |path: &Path| {
        write_disk(path, &layout(&root), &parts(&Tree::new(), &root))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        write(Path::new("/dev/null")),
        "/dev/null is not a regular file, so no image is written there"
    );
    assert!(write(scratch.path()).ends_with("is not a regular file, so no image is written there"));
    assert!(
        write(&scratch.path().join("none/card.img"))
            .starts_with("failed to create a temporary file in ")
    );
    assert!(names(scratch.path()).is_empty());
}

/// A killed build leaves its temporary file without a lock; one under way holds it.
#[test]
fn a_build_removes_what_killed_builds_left_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("card.img");
    let running = Draft::create(&path, ImageFormat::Img).unwrap();
    let others = [
        ".card.img.ABCDEFG.part",
        ".card.img.ABCDEF.partial",
        ".card.img.old.part",
        ".other.img.ABCDEF.part",
    ];
    for name in others.iter().chain(&[".card.img.ABCDEF.part"]) {
        fs::write(scratch.path().join(name), "x").unwrap();
    }
    fs::create_dir(scratch.path().join(".card.img.folder.part")).unwrap();
    symlink("card.img", scratch.path().join(".card.img.linked.part")).unwrap();

    let root = noise(5000);
    write_disk(&path, &layout(&root), &parts(&Tree::new(), &root)).unwrap();
    let names_of_running = running
        .paths()
        .map(|path| path.file_name().unwrap().to_str().unwrap());
    let mut expected: Vec<&str> = others
        .into_iter()
        .chain(ALL)
        .chain(names_of_running)
        .collect();
    expected.extend([".card.img.folder.part", ".card.img.linked.part"]);
    expected.sort();
    assert_eq!(names(scratch.path()), expected);
}

#[test]
fn what_spoke_of_an_older_image_is_replaced_too() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ALL {
        fs::write(scratch.path().join(name), "old").unwrap();
    }
    let root = noise(5000);
    let path = scratch.path().join("card.img");
    write_disk(&path, &layout(&root), &parts(&Tree::new(), &root)).unwrap();
    for name in ALL {
        assert!(
            fs::read(scratch.path().join(name)).unwrap() != b"old",
            "{name}"
        );
    }
    fs::remove_file(scratch.path().join("card.img.bmap")).unwrap();
    fs::create_dir(scratch.path().join("card.img.bmap")).unwrap();
    let err = write_disk(&path, &layout(&root), &parts(&Tree::new(), &root)).unwrap_err();
    assert!(
        err.to_string()
            .ends_with("card.img.bmap is not a regular file, so no image is written there"),
        "{err}"
    );
    assert_eq!(names(scratch.path()), ALL);
}

#[test]
fn bmaptool_and_sha256sum_agree_with_every_format() {
    let programs = ["bmaptool", "sha256sum", "zstd", "xz"];
    if !available("bmaptool_and_sha256sum_agree_with_every_format", &programs) {
        return;
    }
    let (boot, root) = (plain_tree(), root());
    let mut images = Vec::new();
    for format in ImageFormat::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let name = format!("card.{format}");
        let draft = Draft::create(&scratch.path().join(&name), format).unwrap();
        disk::write_disk(draft, &layout(&root), &parts(&boot, &root), |_, _| {
            Papers::new()
        })
        .unwrap();
        let beside = [".bmap", ".sha256"].map(|end| format!("{name}{end}"));
        assert_eq!(
            names(scratch.path()),
            [&[name.clone()][..], &beside].concat()
        );
        assert_eq!(
            run(
                scratch.path(),
                "sha256sum",
                &["--check", "--strict", &beside[1]]
            ),
            format!("{name}: OK\n")
        );
        // A card on which something else was before.
        let card = scratch.path().join("card");
        fs::write(&card, vec![0xff; layout(&root).total as usize]).unwrap();
        run(scratch.path(), "bmaptool", &["copy", &name, "card"]);
        let written = fs::read(&card).unwrap();
        assert_eq!(
            Fat::open_image(Cursor::new(&written))
                .unwrap()
                .tree()
                .unwrap(),
            boot
        );
        fs::write(scratch.path().join("boot.fat"), &written[4 << 20..68 << 20]).unwrap();
        run(scratch.path(), "fsck.fat", &["-n", "boot.fat"]);
        let root_at = layout(&root).root.offset as usize;
        assert!(written[root_at..][..root.len()] == root, "{format}");
        let unpack = match format {
            ImageFormat::Img => None,
            ImageFormat::ImgZst => Some("zstd"),
            ImageFormat::ImgXz => Some("xz"),
        };
        if let Some(program) = unpack {
            run(scratch.path(), program, &["-dk", &name]);
        }
        let map = fs::read_to_string(scratch.path().join(&beside[0])).unwrap();
        images.push((map, fs::read(scratch.path().join("card.img")).unwrap()));
    }
    assert!(images.iter().all(|image| image == &images[0]));
}
