//! The FAT32 writer against fsck.fat, mtools and our own reader, and that reader against garbage.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use expect_test::{Expect, expect};
use imagegen::inspect::fat::Fat;
use imagegen::make::fat::{FatLabel, FatOptions, write_fat32};
use imagegen::tree::{Content, Node, Tree};
use proptest::prelude::*;

use crate::readers::{available, run};
use crate::writers::{TIME, noise, plain_tree, small_trees};

const SIZE: u64 = 64 << 20;

fn options() -> FatOptions {
    FatOptions {
        size: SIZE,
        first_sector: 8192,
        volume_id: 0x1234_abcd,
        label: FatLabel::new("BOOT").unwrap(),
        time: TIME,
    }
}

fn fat(tree: &Tree) -> Vec<u8> {
    let mut image = Cursor::new(Vec::new());
    write_fat32(tree, &options(), &mut image).unwrap();
    let image = image.into_inner();
    assert_eq!(image.len() as u64, SIZE);
    image
}

fn check_copied(directory: &Path, tree: &Tree) {
    for (path, node) in tree.iter() {
        match &node.content {
            Content::File(bytes) => {
                let found =
                    fs::read(directory.join(path)).unwrap_or_else(|err| panic!("{path}: {err}"));
                assert!(found == **bytes, "{path} has other bytes");
            }
            _ => assert!(directory.join(path).is_dir(), "{path}"),
        }
    }
}

#[test]
fn fsck_and_mtools_read_the_fat() {
    if !available(
        "fsck_and_mtools_read_the_fat",
        &["fsck.fat", "mdir", "mcopy"],
    ) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let tree = plain_tree();
    fs::write(scratch.path().join("image"), fat(&tree)).unwrap();
    let verdict = run(scratch.path(), "fsck.fat", &["-n", "-v", "image"]);
    for fact in [
        "512 bytes per logical sector",
        "512 bytes per cluster",
        "32 reserved sectors",
        "2 FATs, 32 bit entries",
        "8192 hidden sectors",
        "Root directory start at cluster 2",
    ] {
        assert!(verdict.contains(fact), "{fact}: {verdict}");
    }
    let listing = trim_lines(&run(scratch.path(), "mdir", &["-i", "image", "::/names"]));
    expect![[r#"
         Volume in drive : is BOOT
         Volume Serial Number is 1234-ABCD
        Directory for ::/names

        .            <DIR>     2026-11-13  12:34
        ..           <DIR>     2026-11-13  12:34
        HIDDEN~1             1 2026-11-13  12:34  .hidden
        UPPER    TXT         1 2026-11-13  12:34
        CAF__X~1 CFG         1 2026-11-13  12:34  café [x] {y} 'z' & $HOME;.cfg
        EXACTL~1             1 2026-11-13  12:34  exactly13long
        LOWER    TXT         1 2026-11-13  12:34  lower.txt
        WITHSE~1 DOT         1 2026-11-13  12:34  with several spaces.and.dots
        _BERGR~1 TXT         1 2026-11-13  12:34  Übergröße €½ 日本語.txt
                9 files                   7 bytes
                                 63 951 872 bytes free

    "#]]
    .assert_eq(&listing);
    fs::create_dir(scratch.path().join("out")).unwrap();
    run(
        scratch.path(),
        "mcopy",
        &["-s", "-n", "-i", "image", "::/", "out/"],
    );
    check_copied(&scratch.path().join("out"), &tree);
}

fn trim_lines(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[test]
fn an_empty_and_a_full_fat_pass_fsck() {
    if !available("an_empty_and_a_full_fat_pass_fsck", &["fsck.fat"]) {
        return;
    }
    let mut full = Tree::new();
    // 129,000-odd clusters less the one of the root directory.
    full.insert("a", Node::file(0o644, noise(512 * (clusters() - 1))))
        .unwrap();
    for tree in [Tree::new(), full] {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("image"), fat(&tree)).unwrap();
        run(scratch.path(), "fsck.fat", &["-n", "image"]);
    }
}

fn clusters() -> usize {
    let sectors = SIZE as usize / 512;
    let fat_sectors = (sectors - 32 + 2).div_ceil(130);
    sectors - 32 - 2 * fat_sectors
}

#[test]
fn our_reader_reads_it_back() {
    let tree = plain_tree();
    let mut fat = Fat::open(Cursor::new(fat(&tree)), 0).unwrap();
    assert_eq!(fat.tree().unwrap(), tree);
    assert_eq!(fat.read("NAMES/LOWER.TXT").unwrap(), b"5");
    assert_eq!(fat.read("names/withse~1.dot").unwrap(), b"1");
    assert_eq!(fat.list("names").unwrap().len(), 7);
    for (path, expected) in [
        (
            "names/none",
            expect!["the boot partition has no /names/none"],
        ),
        (
            "names",
            expect![
                "/names on the boot partition is not what it should be, a file where a directory is or the other way"
            ],
        ),
        (
            "names/lower.txt/x",
            expect![
                "/names/lower.txt/x on the boot partition is not what it should be, a file where a directory is or the other way"
            ],
        ),
    ] {
        expected.assert_eq(&fat.read(path).unwrap_err().to_string());
    }
}

#[test]
fn the_same_tree_gives_the_same_fat_wherever_it_comes_from() {
    assert!(fat(&plain_tree()) == fat(&plain_tree()));
}

fn check_refusal(nodes: &[(&str, Node)], expected: Expect) {
    let mut tree = Tree::new();
    for (path, node) in nodes {
        tree.insert(*path, node.clone()).unwrap();
    }
    let err = write_fat32(&tree, &options(), Cursor::new(Vec::new())).unwrap_err();
    expected.assert_eq(&err.to_string());
}

#[test]
fn refusals() {
    let file = |size| Node::file(0o644, vec![0; size]);
    check_refusal(
        &[("d/l", Node::symlink("x"))],
        expect!["/d/l is a symbolic link, which a FAT file system does not have"],
    );
    check_refusal(
        &[("d/a?", file(1))],
        expect!["`a?` in /d cannot be stored on a FAT file system: it contains '?'"],
    );
    check_refusal(
        &[("d/Ä", file(1)), ("d/ä", file(1))],
        expect![
            "`ä` in /d cannot be stored on a FAT file system: it differs from `Ä` only in upper and lower case"
        ],
    );
    check_refusal(
        &[("a.", file(1))],
        expect!["`a.` in / cannot be stored on a FAT file system: it ends with a dot or a space"],
    );
    check_refusal(
        &[("a", file(512 * clusters()))],
        expect![
            "the boot files do not fit: the FAT partition of 67108864 bytes is 512 bytes too small"
        ],
    );
    check_refusal(
        &[("a", file(65 << 20))],
        expect![
            "the boot files do not fit: the FAT partition of 67108864 bytes is 2098688 bytes too small"
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back(tree in small_trees()) {
        prop_assert_eq!(Fat::open(Cursor::new(fat(&tree)), 0).unwrap().tree().unwrap(), tree);
    }

    #[test]
    fn damage_is_an_error_or_other_files_and_never_a_panic(
        damage in prop::collection::vec((0usize..1 << 22, any::<u8>()), 1..200),
        low in prop::collection::vec((0usize..512, any::<u8>()), 0..8),
        length in 0usize..1 << 22,
    ) {
        let mut image = fat(&plain_tree());
        image.truncate(length.max(1 << 16));
        for (at, byte) in damage.into_iter().chain(low) {
            if let Some(place) = image.get_mut(at) {
                *place = byte;
            }
        }
        if let Ok(mut fat) = Fat::open(Cursor::new(image), 0) {
            let _ = fat.tree();
            let _ = fat.read("names/lower.txt");
        }
    }
}
