//! The squashfs and cpio writers against unsquashfs, cpio and zstd, and the trees that the tests of all writers share.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use expect_test::expect;
use imagegen::make::initramfs::{InitramfsOptions, write_cpio, write_initramfs};
use imagegen::make::squashfs::{SquashfsOptions, write_squashfs};
use imagegen::tree::{Content, Node, Tree};
use proptest::prelude::*;

use crate::readers::{available, run};
pub(crate) use crate::sample::TIME;

/// What every file system can hold: odd names, odd sizes, many and deep directories.
pub(crate) fn plain_tree() -> Tree {
    let mut tree = Tree::new();
    let mut file =
        |path: &str, bytes: Vec<u8>| tree.insert(path, Node::file(0o644, bytes)).unwrap();
    for size in [
        0, 1, 511, 512, 513, 4096, 131_071, 131_072, 131_073, 1_234_567,
    ] {
        file(&format!("sizes/{size}.bin"), noise(size));
    }
    for number in 0..700 {
        file(
            &format!("many/a name that is not short {number}.txt"),
            number.to_string().into_bytes(),
        );
    }
    file(
        &format!("{}/bottom", ["deeper"; 30].join("/")),
        b"here".to_vec(),
    );
    file(&"n".repeat(200), b"long".to_vec());
    file("names/with several spaces.and.dots", b"1".to_vec());
    file("names/Übergröße €½ 日本語.txt", b"2".to_vec());
    file("names/café [x] {y} 'z' & $HOME;.cfg", b"3".to_vec());
    file("names/UPPER.TXT", b"4".to_vec());
    file("names/lower.txt", b"5".to_vec());
    file("names/.hidden", b"6".to_vec());
    file("names/exactly13long", b"7".to_vec());
    tree.insert("empty directory", Node::directory(0o755))
        .unwrap();
    tree
}

/// What a root file system has besides: owners, modes and links.
fn unix_tree() -> Tree {
    let mut tree = plain_tree();
    for (path, node) in [
        ("bin", Node::symlink("usr/bin")),
        ("dangling", Node::symlink("/no/such/ü file")),
        ("tmp", Node::directory(0o1777)),
        ("usr/bin/su", Node::file(0o4755, *b"su")),
        (
            "usr/bin/write",
            Node::file(0o2755, *b"write").owned_by(0, 5),
        ),
        (
            "usr/libexec/helper",
            Node::file(0o4754, *b"helper").owned_by(0, 100),
        ),
        (
            "var/lib/user",
            Node::directory(0o700).owned_by(65_534, 65_534),
        ),
        (
            "var/lib/user/secret",
            Node::file(0o400, *b"secret").owned_by(65_534, 65_534),
        ),
    ] {
        tree.insert(path, node).unwrap();
    }
    tree
}

/// Bytes that do not compress, the same every time.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Random trees of plain files in which no two names differ only in case.
pub(crate) fn small_trees() -> impl Strategy<Value = Tree> {
    let name = "[a-zé0-9][a-zé0-9 ._-]{0,28}[a-zé0-9]";
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let file = (path, prop::collection::vec(any::<u8>(), 0..2000));
    prop::collection::vec(file, 0..30).prop_map(|files| {
        let mut tree = Tree::new();
        for (path, bytes) in files {
            // A file where another path needs a directory is left out.
            let _ = tree.insert(path, Node::file(0o644, bytes));
        }
        tree
    })
}

fn squashfs(tree: &Tree) -> Vec<u8> {
    let mut image = Cursor::new(Vec::new());
    let options = SquashfsOptions {
        zstd_level: 3,
        ..SquashfsOptions::at(TIME)
    };
    let size = write_squashfs(tree, &options, &mut image).unwrap();
    let image = image.into_inner();
    assert_eq!(image.len() as u64, size);
    assert_eq!(size % 4096, 0);
    image
}

fn cpio(tree: &Tree) -> Vec<u8> {
    let mut archive = Vec::new();
    write_cpio(tree, TIME, &mut archive).unwrap();
    archive
}

/// Everything below a directory, read back from the disk; owners and the execute-only bits root may not give are left out.
fn check_unpacked(directory: &Path, tree: &Tree) {
    for (path, node) in tree.iter() {
        let found = directory.join(path);
        let metadata = fs::symlink_metadata(&found).unwrap_or_else(|err| panic!("{path}: {err}"));
        match &node.content {
            Content::Directory => assert!(metadata.is_dir(), "{path}"),
            Content::File(bytes) => {
                assert_eq!(
                    metadata.permissions().mode() & 0o777,
                    u32::from(node.mode) & 0o777,
                    "{path}"
                );
                assert!(
                    fs::read(&found).unwrap() == **bytes,
                    "{path} has other bytes"
                );
            }
            Content::Symlink(target) => {
                assert_eq!(fs::read_link(&found).unwrap(), Path::new(target), "{path}")
            }
        }
    }
    assert_eq!(count(directory), tree.len());
}

fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            1 + if entry.file_type().unwrap().is_dir() {
                count(&entry.path())
            } else {
                0
            }
        })
        .sum()
}

/// The lines of a listing about paths that have more than a name and bytes.
fn interesting(listing: &str) -> String {
    let wanted = ["bin", "dangling", "tmp", "usr", "var"];
    let top = |line: &str| {
        let path = line
            .split(" -> ")
            .next()
            .unwrap_or(line)
            .rsplit(' ')
            .next()
            .unwrap_or(line);
        path.trim_start_matches("squashfs-root/")
            .split('/')
            .next()
            .unwrap_or("")
            .to_owned()
    };
    let lines = listing
        .lines()
        .filter(|line| wanted.contains(&top(line).as_str()) || top(line) == "squashfs-root");
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn unsquashfs_reads_the_squashfs() {
    if !available("unsquashfs_reads_the_squashfs", &["unsquashfs"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let tree = unix_tree();
    fs::write(scratch.path().join("image"), squashfs(&tree)).unwrap();
    let listing = run(scratch.path(), "unsquashfs", &["-lln", "image"]);
    expect![[r#"
        drwxr-xr-x 0/0                     370 1970-01-01 00:00 squashfs-root
        lrwxrwxrwx 0/0                       7 2026-11-13 12:34 squashfs-root/bin -> usr/bin
        lrwxrwxrwx 0/0                      16 2026-11-13 12:34 squashfs-root/dangling -> /no/such/ü file
        drwxrwxrwt 0/0                       3 2026-11-13 12:34 squashfs-root/tmp
        drwxr-xr-x 0/0                      41 2026-11-13 12:34 squashfs-root/usr
        drwxr-xr-x 0/0                      38 2026-11-13 12:34 squashfs-root/usr/bin
        -rwsr-xr-x 0/0                       2 2026-11-13 12:34 squashfs-root/usr/bin/su
        -rwxr-sr-x 0/5                       5 2026-11-13 12:34 squashfs-root/usr/bin/write
        drwxr-xr-x 0/0                      29 2026-11-13 12:34 squashfs-root/usr/libexec
        -rwsr-xr-- 0/100                     6 2026-11-13 12:34 squashfs-root/usr/libexec/helper
        drwxr-xr-x 0/0                      26 2026-11-13 12:34 squashfs-root/var
        drwxr-xr-x 0/0                      27 2026-11-13 12:34 squashfs-root/var/lib
        drwx------ 65534/65534              29 2026-11-13 12:34 squashfs-root/var/lib/user
        -r-------- 65534/65534               6 2026-11-13 12:34 squashfs-root/var/lib/user/secret
    "#]].assert_eq(&interesting(&listing));
    assert!(!run(scratch.path(), "unsquashfs", &["-s", "image"]).is_empty());
    run(
        scratch.path(),
        "unsquashfs",
        &["-no-progress", "-d", "out", "image"],
    );
    check_unpacked(&scratch.path().join("out"), &tree);
}

#[test]
fn cpio_reads_the_initramfs() {
    if !available("cpio_reads_the_initramfs", &["cpio", "zstd"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let tree = unix_tree();
    let mut compressed = Vec::new();
    write_initramfs(&tree, &InitramfsOptions::at(TIME), &mut compressed).unwrap();
    fs::write(scratch.path().join("archive.zst"), compressed).unwrap();
    let frames = run(scratch.path(), "zstd", &["-lv", "archive.zst"]);
    assert!(frames.contains("# Zstandard Frames: 1\n"), "{frames}");
    assert!(frames.contains("Window Size: 8.00 MiB"), "{frames}");
    run(scratch.path(), "zstd", &["-dq", "archive.zst"]);
    let listing = run(
        scratch.path(),
        "cpio",
        &["-itv", "--numeric-uid-gid", "--quiet", "-F", "archive"],
    );
    expect![[r#"
        lrwxrwxrwx   1 0        0               7 Nov 13 12:34 bin -> usr/bin
        lrwxrwxrwx   1 0        0              16 Nov 13 12:34 dangling -> /no/such/ü file
        drwxrwxrwt   2 0        0               0 Nov 13 12:34 tmp
        drwxr-xr-x   2 0        0               0 Nov 13 12:34 usr
        drwxr-xr-x   2 0        0               0 Nov 13 12:34 usr/bin
        -rwsr-xr-x   1 0        0               2 Nov 13 12:34 usr/bin/su
        -rwxr-sr-x   1 0        5               5 Nov 13 12:34 usr/bin/write
        drwxr-xr-x   2 0        0               0 Nov 13 12:34 usr/libexec
        -rwsr-xr--   1 0        100             6 Nov 13 12:34 usr/libexec/helper
        drwxr-xr-x   2 0        0               0 Nov 13 12:34 var
        drwxr-xr-x   2 0        0               0 Nov 13 12:34 var/lib
        drwx------   2 65534    65534           0 Nov 13 12:34 var/lib/user
        -r--------   1 65534    65534           6 Nov 13 12:34 var/lib/user/secret
    "#]]
    .assert_eq(&interesting(&listing));
    fs::create_dir(scratch.path().join("out")).unwrap();
    let args = ["-idm", "--no-preserve-owner", "--quiet", "-F", "../archive"];
    run(&scratch.path().join("out"), "cpio", &args);
    check_unpacked(&scratch.path().join("out"), &tree);
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let tree = unix_tree();
    assert!(squashfs(&tree) == squashfs(&tree));
    assert!(cpio(&tree) == cpio(&tree));
}

#[test]
fn options_a_squashfs_cannot_have() {
    for (zstd_level, block_size, expected) in [
        (
            3,
            5000,
            expect!["a squashfs block is a power of two from 4 KiB to 1 MiB, not 5000 bytes"],
        ),
        (
            3,
            2 << 20,
            expect!["a squashfs block is a power of two from 4 KiB to 1 MiB, not 2097152 bytes"],
        ),
        (23, 4096, expect!["a zstd level is 1 to 22, not 23"]),
    ] {
        let options = SquashfsOptions {
            time: 0,
            zstd_level,
            block_size,
        };
        let err = write_squashfs(&Tree::new(), &options, Cursor::new(Vec::new())).unwrap_err();
        expected.assert_eq(&err.to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn backhand_reads_back_any_squashfs(tree in small_trees()) {
        let image = squashfs(&tree);
        let filesystem = backhand::FilesystemReader::from_reader(Cursor::new(image)).unwrap();
        let mut found = Tree::new();
        for node in filesystem.files() {
            let path = node.fullpath.to_str().unwrap().trim_start_matches('/').to_owned();
            let content = match &node.inner {
                backhand::InnerNode::Dir(_) if path.is_empty() => continue,
                backhand::InnerNode::Dir(_) => Content::Directory,
                backhand::InnerNode::File(file) => {
                    let mut bytes = Vec::new();
                    std::io::Read::read_to_end(&mut filesystem.file(file).reader(), &mut bytes).unwrap();
                    Content::File(bytes.into())
                }
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(node.header.mtime, TIME);
            let header = node.header;
            found.insert(path, Node { mode: header.permissions, uid: header.uid, gid: header.gid, content }).unwrap();
        }
        prop_assert_eq!(found, tree);
    }
}
