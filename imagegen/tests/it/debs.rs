//! Unpacking `.deb` files: what honest packages need, and what hostile ones try.

use std::io::Write;

use expect_test::{Expect, expect};
use imagegen::make::deb::{read_changelog, read_control, unpack_deb};
use imagegen::tree::{Content, Node, Tree};
use proptest::prelude::*;
use tar::EntryType;

use crate::readers::{available, run};

/// An entry of a tar archive, written as it is: honest tools would refuse most of these.
pub(crate) struct Raw {
    path: String,
    kind: EntryType,
    mode: u32,
    target: String,
    pub(crate) bytes: Vec<u8>,
}

fn raw(path: &str, kind: EntryType) -> Raw {
    Raw {
        path: path.to_owned(),
        kind,
        mode: 0o755,
        target: String::new(),
        bytes: Vec::new(),
    }
}

pub(crate) fn directory(path: &str) -> Raw {
    raw(path, EntryType::Directory)
}

pub(crate) fn file(path: &str, text: &str) -> Raw {
    Raw {
        bytes: text.into(),
        mode: 0o644,
        ..raw(path, EntryType::Regular)
    }
}

pub(crate) fn link(kind: EntryType, path: &str, target: &str) -> Raw {
    Raw {
        target: target.to_owned(),
        ..raw(path, kind)
    }
}

pub(crate) fn symlink(path: &str, target: &str) -> Raw {
    link(EntryType::Symlink, path, target)
}

fn tar_of(entries: &[Raw]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(entry.bytes.len() as u64);
        for (field, text) in [(0, &entry.path), (157, &entry.target)] {
            let text = text.as_bytes();
            header.as_mut_bytes()[field..field + text.len()].copy_from_slice(text);
        }
        header.set_cksum();
        builder.append(&header, &entry.bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn ar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        writeln!(
            archive,
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`",
            0,
            0,
            0,
            100_644,
            bytes.len()
        )
        .unwrap();
        archive.extend_from_slice(bytes);
        archive.extend(vec![b'\n'; bytes.len() % 2]);
    }
    archive
}

fn deb_with(data_name: &str, data: &[u8]) -> Vec<u8> {
    let control = tar_of(&[
        directory("./"),
        file("./control", "Package: hello\nVersion: 1\n"),
        file("./postinst", "#!/bin/sh\n"),
        file("./triggers", "activate-noawait ldconfig\n"),
    ]);
    ar_of(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", &xz(&control)),
        (data_name, data),
    ])
}

pub(crate) fn deb_of(entries: &[Raw]) -> Vec<u8> {
    deb_with("data.tar.xz", &xz(&tar_of(entries)))
}

const LIMIT: u64 = 1 << 20;

fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", chain(cause)));
    format!("{error}{}", cause.unwrap_or_default())
}

fn show(tree: &Tree) -> String {
    let line = |(path, node): (&str, &Node)| match &node.content {
        Content::Directory => format!("{path}/ {:o}", node.mode),
        Content::File(bytes) => format!(
            "{path} {:o} {:?}",
            node.mode,
            String::from_utf8_lossy(bytes)
        ),
        Content::Symlink(target) => format!("{path} -> {target}"),
    };
    tree.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Unpacks into a merged-usr tree and shows the result or the reason.
fn outcome(deb: &[u8], filter: impl Fn(&str) -> bool) -> String {
    let mut tree = Tree::new();
    tree.insert("usr/bin", Node::directory(0o755)).unwrap();
    tree.insert("bin", Node::symlink("usr/bin")).unwrap();
    tree.insert("out", Node::symlink("../../..")).unwrap();
    match unpack_deb(deb, LIMIT, &mut tree, filter) {
        Ok(()) => show(&tree),
        Err(error) => chain(&error),
    }
}

fn check(entries: &[Raw], expected: Expect) {
    expected.assert_eq(&outcome(&deb_of(entries), |_| true));
}

#[test]
fn files_directories_and_links() {
    let entries = [
        directory("./"),
        directory("./usr/"),
        directory("./usr/bin/"),
        file("./usr/bin/tool", "run"),
        link(EntryType::Link, "./usr/bin/other-tool", "./usr/bin/tool"),
        symlink("./usr/bin/alias", "tool"),
        symlink("./usr/bin/absolute", "/usr/bin/tool"),
    ];
    check(
        &entries,
        expect![[r#"
        bin -> usr/bin
        out -> ../../..
        usr/ 755
        usr/bin/ 755
        usr/bin/absolute -> /usr/bin/tool
        usr/bin/alias -> tool
        usr/bin/other-tool 644 "run"
        usr/bin/tool 644 "run""#]],
    );
    let plain = deb_with("data.tar", &tar_of(&entries));
    let zstd = deb_with(
        "data.tar.zst",
        &zstd::encode_all(&tar_of(&entries)[..], 3).unwrap(),
    );
    let expected = outcome(&deb_of(&entries), |_| true);
    assert_eq!(outcome(&plain, |_| true), expected);
    assert_eq!(outcome(&zstd, |_| true), expected);
}

#[test]
fn paths_through_links_of_the_tree_stay_in_the_tree() {
    check(
        &[directory("./bin/"), file("./bin/tool", "run")],
        expect![[r#"
        bin -> usr/bin
        out -> ../../..
        usr/ 755
        usr/bin/ 755
        usr/bin/tool 644 "run""#]],
    );
    check(
        &[file("./out/etc/shadow", "")],
        expect![[r#"
        bin -> usr/bin
        etc/ 755
        etc/shadow 644 ""
        out -> ../../..
        usr/ 755
        usr/bin/ 755"#]],
    );
    check(
        &[symlink("./a", "b"), symlink("./b", "a"), file("./a/x", "")],
        expect![
            "the package does not fit into the image: /a leads through more than 40 symbolic links"
        ],
    );
    check(
        &[file("./a", ""), file("./a/x", "")],
        expect![
            "the package does not fit into the image: /a/x cannot be put into the image, because /a is a file of 0 bytes (mode 0644, owner 0:0) and not a directory"
        ],
    );
}

#[test]
fn a_filter_sees_the_place_and_leaves_the_rest() {
    let deb = deb_of(&[
        file("./bin/tool", "run"),
        directory("./usr/share/"),
        file("./usr/share/manual", "read"),
        link(EntryType::Link, "./usr/share/tool", "./usr/bin/tool"),
    ]);
    expect![[r#"
        bin -> usr/bin
        out -> ../../..
        usr/ 755
        usr/bin/ 755
        usr/bin/tool 644 "run""#]]
    .assert_eq(&outcome(&deb, |path| path == "usr/bin/tool"));
    expect![[r#"
        bin -> usr/bin
        out -> ../../..
        usr/ 755
        usr/bin/ 755
        usr/share/ 755
        usr/share/tool 644 "run""#]]
    .assert_eq(&outcome(&deb, |path| path == "usr/share/tool"));
}

#[test]
fn hard_links_share_their_bytes() {
    let mut tree = Tree::new();
    let deb = deb_of(&[file("./a", "long"), link(EntryType::Link, "./b", "./a")]);
    unpack_deb(&deb, LIMIT, &mut tree, |_| true).unwrap();
    let [a, b] = ["a", "b"].map(|path| tree.bytes(path).unwrap());
    assert!(std::sync::Arc::ptr_eq(a, b));
}

#[test]
fn hostile_paths() {
    check(
        &[file("/etc/shadow", "")],
        expect!["the package has the path `/etc/shadow`, which is absolute"],
    );
    check(
        &[file("./../etc/shadow", "")],
        expect!["the package has the path `./../etc/shadow`, which leads out of the tree"],
    );
    check(
        &[file("./usr/../../etc/shadow", "")],
        expect!["the package has the path `./usr/../../etc/shadow`, which leads out of the tree"],
    );
    check(
        &[file("./usr//x", "")],
        expect!["the package has the path `./usr//x`, which has an empty component"],
    );
    check(
        &[file("./usr/./x", "")],
        expect!["the package has the path `./usr/./x`, which has an empty component"],
    );
    check(
        &[file("./x", ""), file("x", "")],
        expect!["the package has the path `x`, which is in it twice"],
    );
    check(
        &[directory("./x"), directory("./x/")],
        expect!["the package has the path `x`, which is in it twice"],
    );
}

#[test]
fn hostile_links() {
    check(
        &[symlink("./usr/bin/x", "../../../etc/shadow")],
        expect![
            "the package has the link usr/bin/x -> ../../../etc/shadow, which leads out of the tree"
        ],
    );
    check(
        &[symlink("./x", "/../etc/shadow")],
        expect!["the package has the link x -> /../etc/shadow, which leads out of the tree"],
    );
    check(
        &[symlink("./x", "")],
        expect!["the package has the link x -> , which has no usable target"],
    );
    check(
        &[link(EntryType::Link, "./x", "/etc/shadow")],
        expect!["the package has the path `/etc/shadow`, which is absolute"],
    );
    check(
        &[link(EntryType::Link, "./x", "../etc/shadow")],
        expect!["the package has the path `../etc/shadow`, which leads out of the tree"],
    );
    check(
        &[link(EntryType::Link, "./x", "./y"), file("./y", "")],
        expect![
            "the package has the link x -> y, which is a hard link to nothing that came before it in the package"
        ],
    );
    check(
        &[link(EntryType::Link, "./x", "./bin")],
        expect![
            "the package has the link x -> bin, which is a hard link to nothing that came before it in the package"
        ],
    );
    check(
        &[directory("./d"), link(EntryType::Link, "./x", "./d")],
        expect![
            "the package has the link x -> d, which is a hard link to something that is not a file"
        ],
    );
    check(
        &[link(EntryType::Link, "./x", "./x")],
        expect![
            "the package has the link x -> x, which is a hard link to nothing that came before it in the package"
        ],
    );
}

#[test]
fn other_kinds_of_nodes() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        check(
            &[raw("./dev/x", kind)],
            expect!["the package has /dev/x, which is neither a file, a directory nor a link"],
        );
    }
}

#[test]
fn what_is_there_already_is_not_replaced() {
    check(
        &[file("./bin", "")],
        expect![
            "the package does not fit into the image: /bin is there already: symbolic link to usr/bin, and a file of 0 bytes (mode 0644, owner 0:0) was to be put there"
        ],
    );
    check(
        &[symlink("./bin", "usr/bin")],
        expect![[r#"
        bin -> usr/bin
        out -> ../../..
        usr/ 755
        usr/bin/ 755"#]],
    );
    check(
        &[symlink("./bin", "usr/sbin")],
        expect![
            "the package does not fit into the image: /bin is there already: symbolic link to usr/bin, and a symbolic link to usr/sbin was to be put there"
        ],
    );
}

#[test]
fn decompression_bombs() {
    let zeros = vec![0; 64 << 20];
    let bomb = [Raw {
        bytes: zeros.clone(),
        ..file("./x", "")
    }];
    check(
        &bomb,
        expect!["data.tar.xz unpacks to more than the 1048576 bytes that are allowed for it"],
    );
    let zstd = zstd::encode_all(&tar_of(&bomb)[..], 3).unwrap();
    assert!(zstd.len() < 1 << 16);
    expect!["data.tar.zst unpacks to more than the 1048576 bytes that are allowed for it"]
        .assert_eq(&outcome(&deb_with("data.tar.zst", &zstd), |_| false));
    // Behind the end of the archive, where no entry tells of it.
    let mut behind = tar_of(&[file("./x", "")]);
    behind.extend(zeros);
    expect!["data.tar.xz unpacks to more than the 1048576 bytes that are allowed for it"]
        .assert_eq(&outcome(&deb_with("data.tar.xz", &xz(&behind)), |_| true));
}

#[test]
fn decompression_bombs_in_the_control_part() {
    let bomb = [Raw {
        bytes: vec![0; 80 << 20],
        ..file("./md5sums", "")
    }];
    let tar = tar_of(&bomb);
    let data = xz(&tar_of(&[]));
    let told = |name: &str, control: &[u8]| {
        let deb = ar_of(&[
            ("debian-binary", b"2.0\n"),
            (name, control),
            ("data.tar.xz", &data),
        ]);
        chain(&read_control(&deb).unwrap_err())
    };
    expect!["control.tar.xz unpacks to more than the 67108864 bytes that are allowed for it"]
        .assert_eq(&told("control.tar.xz", &xz(&tar)));
    let zstd = zstd::encode_all(&tar[..], 3).unwrap();
    expect!["control.tar.zst unpacks to more than the 67108864 bytes that are allowed for it"]
        .assert_eq(&told("control.tar.zst", &zstd));
    // Debian has not packed with gzip since 2013, so that nothing here unpacks it.
    expect!["failed to read control.tar.gz: its compression is not supported"]
        .assert_eq(&told("control.tar.gz", b"\x1f\x8b\x08"));
}

#[test]
fn changelogs_of_maintainers() {
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let told = |files: &[(&str, Vec<u8>)]| {
        let entry = |(name, bytes): &(&str, Vec<u8>)| {
            let mut entry = file(&format!("./usr/share/doc/hello/{name}"), "");
            entry.bytes.clone_from(bytes);
            entry
        };
        let deb = deb_of(&files.iter().map(entry).collect::<Vec<_>>());
        match read_changelog(&deb, LIMIT, "hello") {
            Ok(text) => text.unwrap_or("none".to_owned()),
            Err(error) => chain(&error),
        }
    };
    let both = [
        ("changelog.gz", gzip(b"upstream's")),
        ("changelog.Debian.gz", gzip(b"Debian's")),
    ];
    expect!["Debian's"].assert_eq(&told(&both));
    expect!["upstream's"].assert_eq(&told(&both[..1]));
    expect!["none"].assert_eq(&told(&[("copyright", Vec::new())]));
    let bomb = [("changelog.gz", gzip(&vec![b'x'; 40 << 20]))];
    expect!["usr/share/doc/hello/changelog.gz unpacks to more than the 33554432 bytes that are allowed for it"].assert_eq(&told(&bomb));
    expect!["failed to read usr/share/doc/hello/changelog.gz: invalid gzip header"]
        .assert_eq(&told(&[("changelog.gz", b"no gzip at all".to_vec())]));
}

/// A link counts from the root of the tree, as it will in the image: the file is in the tree's own /etc, or nowhere.
#[test]
fn a_file_through_a_link_of_the_same_package() {
    check(
        &[symlink("./d", "/etc"), file("./d/passwd", "inside")],
        expect![[r#"
            bin -> usr/bin
            d -> /etc
            etc/ 755
            etc/passwd 644 "inside"
            out -> ../../..
            usr/ 755
            usr/bin/ 755"#]],
    );
    check(
        &[
            file("./etc/passwd", "first"),
            symlink("./d", "/etc"),
            file("./d/passwd", "second"),
        ],
        expect!["the package has the path `etc/passwd`, which is in it twice"],
    );
    check(
        &[symlink("./d", "../../.."), file("./d/passwd", "")],
        expect!["the package has the link d -> ../../.., which leads out of the tree"],
    );
}

#[test]
fn outer_archives_that_are_none() {
    let data = xz(&tar_of(&[]));
    let version: (&str, &[u8]) = ("debian-binary", b"2.0\n");
    let control: (&str, &[u8]) = ("control.tar.xz", &data);
    let data: (&str, &[u8]) = ("data.tar.xz", &data);
    let honest = deb_of(&[file("./x", "text")]);
    for (deb, expected) in [
        (
            ar_of(&[version, control, data]),
            expect![[r#"
            bin -> usr/bin
            out -> ../../..
            usr/ 755
            usr/bin/ 755"#]],
        ),
        (
            Vec::new(),
            expect!["not a Debian package: it is no ar archive"],
        ),
        (
            b"!<arch>\n".to_vec(),
            expect!["not a Debian package: its members are []"],
        ),
        (
            ar_of(&[version, data, control]),
            expect![[
                r#"not a Debian package: its members are ["debian-binary", "data.tar.xz", "control.tar.xz"]"#
            ]],
        ),
        (
            ar_of(&[version, control]),
            expect![[
                r#"not a Debian package: its members are ["debian-binary", "control.tar.xz"]"#
            ]],
        ),
        (
            ar_of(&[version, control, data, data]),
            expect![[
                r#"not a Debian package: its members are ["debian-binary", "control.tar.xz", "data.tar.xz", "data.tar.xz"]"#
            ]],
        ),
        (
            ar_of(&[("debian-binary", b"3.0\n"), control, data]),
            expect!["not a Debian package: it has an unknown format version"],
        ),
        (
            ar_of(&[version, control, ("data.tar.bz2", b"")]),
            expect!["failed to read data.tar.bz2: its compression is not supported"],
        ),
        (
            ar_of(&[version, control, ("data.tar.xz", b"no xz at all")]),
            expect!["failed to read data.tar.xz: stream/file format not recognized"],
        ),
        (
            honest[..honest.len() - 20].to_vec(),
            expect!["not a Debian package: its ar archive is damaged"],
        ),
        (
            ar_of(&[
                version,
                control,
                ("data.tar.xz", &data.1[..data.1.len() - 20]),
            ]),
            expect!["failed to read data.tar.xz: premature eof"],
        ),
    ] {
        expected.assert_eq(&outcome(&deb, |_| true));
    }
}

#[test]
fn the_control_part() {
    let control = read_control(&deb_of(&[])).unwrap();
    assert_eq!(control.field("Package"), Some("hello"));
    let scripts: Vec<(&str, &str)> = control.scripts().collect();
    assert_eq!(scripts, [("postinst", "#!/bin/sh\n")]);
    assert_eq!(control.files["triggers"], "activate-noawait ldconfig\n");
}

/// Somebody else's writer, with names that need more than a tar header has room for.
#[test]
fn packages_made_by_dpkg_deb() {
    if !available("packages_made_by_dpkg_deb", &["dpkg-deb"]) {
        return;
    }
    let scratch = tempfile::TempDir::new().unwrap();
    let long = format!("usr/share/{}/{}", "d".repeat(120), "f".repeat(140));
    let root = scratch.path().join("root");
    std::fs::create_dir_all(root.join(&long).parent().unwrap()).unwrap();
    std::fs::create_dir(root.join("DEBIAN")).unwrap();
    std::fs::write(root.join(&long), "text").unwrap();
    std::fs::hard_link(root.join(&long), root.join("usr/copy")).unwrap();
    let control = "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: greets\n";
    std::fs::write(root.join("DEBIAN/control"), control).unwrap();
    for compression in ["-Zxz", "-Zzstd", "-Znone"] {
        let arguments = [
            "--root-owner-group",
            compression,
            "--build",
            "root",
            "hello.deb",
        ];
        run(scratch.path(), "dpkg-deb", &arguments);
        let path = scratch.path().join("hello.deb");
        let deb = std::fs::read(path).unwrap();
        let mut tree = Tree::new();
        unpack_deb(&deb, LIMIT, &mut tree, |_| true).unwrap();
        for path in [&long, "usr/copy"] {
            assert_eq!(
                tree.bytes(path).map(|bytes| &bytes[..]),
                Some(&b"text"[..]),
                "{path}"
            );
        }
        assert_eq!(read_control(&deb).unwrap().field("Package"), Some("hello"));
    }
}

proptest! {
    #[test]
    fn damaged_packages_do_no_harm(flips in proptest::collection::vec((0_usize..6000, any::<u8>()), 1..6)) {
        let tar = tar_of(&[directory("./usr"), file("./usr/x", "text"), symlink("./y", "usr/x"), link(EntryType::Link, "./z", "./usr/x")]);
        let mut deb = deb_with("data.tar", &tar);
        for (place, value) in flips {
            let place = place % deb.len();
            deb[place] = value;
        }
        let _ = outcome(&deb, |_| true);
        let _ = read_control(&deb);
    }
}
