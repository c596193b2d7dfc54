//! Changes of a card's `site/` in place: against fsck.fat, against cuts of the power at every write, and on file systems made to mislead.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use imagegen::card::block_map::parse_block_map;
use imagegen::card::site::{edit_image, load_settings};
use imagegen::inspect::fat::Fat;
use imagegen::inspect::packed::open_image_file;
use imagegen::make::disk::{DiskParts, Draft, ImageFormat, Papers, write_disk};
use imagegen::make::fat::change::{FatChangeError, FileChange, Storage, change_files, read_files};
use imagegen::make::fat::{FatLabel, FatOptions, write_fat32};
use imagegen::make::fetch::{Progress, Silent};
use imagegen::plan::disk::{DiskLayout, DiskSignature, DiskSizes};
use imagegen::sha256::Sha256;
use imagegen::site::edit::show_settings;
use imagegen::site::{CountryCode, Hostname, SiteChange, SshKeys};
use imagegen::tree::{Node, Tree};
use proptest::prelude::*;

use crate::plan::{overlays, plan_for, site};
use crate::readers::{available, run};
use crate::writers::TIME;

const SIZE: u64 = 64 << 20;
const SECTOR: usize = 512;

/// A file system of which every write is kept, in order.
#[derive(Clone)]
struct Recorded {
    base: Vec<u8>,
    writes: Vec<(u64, Vec<u8>)>,
}

impl Storage for Recorded {
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let range = at as usize..at as usize + buffer.len();
        let part = self.base.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let range = at as usize..at as usize + bytes.len();
        let part = self.base.get_mut(range).ok_or(io::ErrorKind::WriteZero)?;
        part.copy_from_slice(bytes);
        self.writes.push((at, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn card() -> Tree {
    let mut tree = Tree::new();
    for (path, contents) in [
        ("cmdline.txt", "console=tty1".into()),
        ("kernel8.img", "kernel ".repeat(1000)),
        ("site/README.txt", "read me".into()),
        ("site/hostname", "attic\n".into()),
        ("site/uplink.network", "[Network]\n".repeat(80)),
        ("site/wpa_supplicant.conf", "psk=old\n".repeat(300)),
    ] {
        tree.insert(path, Node::file(0o644, contents.into_bytes()))
            .unwrap();
    }
    tree
}

fn fat(tree: &Tree) -> Recorded {
    let options = FatOptions {
        size: SIZE,
        first_sector: 8192,
        volume_id: 0x1234_abcd,
        label: FatLabel::new("BOOT").unwrap(),
        time: TIME,
    };
    let mut image = Cursor::new(Vec::new());
    write_fat32(tree, &options, &mut image).unwrap();
    Recorded {
        base: image.into_inner(),
        writes: Vec::new(),
    }
}

fn holds(name: &str, contents: impl Into<Vec<u8>>) -> FileChange {
    FileChange {
        name: name.to_owned(),
        contents: Some(contents.into()),
    }
}

fn gone(name: &str) -> FileChange {
    FileChange {
        name: name.to_owned(),
        contents: None,
    }
}

fn files(card: &Recorded) -> BTreeMap<String, Vec<u8>> {
    read_files(card, 0, "site").unwrap()
}

/// Everything on the card by another reader.
fn everything(card: &Recorded) -> BTreeMap<String, Vec<u8>> {
    let tree = Fat::open(Cursor::new(&card.base), 0)
        .unwrap()
        .tree()
        .unwrap();
    tree.iter()
        .filter_map(|(path, node)| Some((path.to_owned(), node.bytes()?.to_vec())))
        .collect()
}

fn fsck(card: &Recorded) {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("image"), &card.base).unwrap();
    run(scratch.path(), "fsck.fat", &["-n", "image"]);
}

fn several() -> Vec<FileChange> {
    vec![
        holds("ca-01234567.pem", "certificate ".repeat(100)),
        holds("hostname", "cellar\n"),
        holds("wpa_supplicant.conf", "psk=new\n".repeat(400)),
        holds("empty", ""),
        gone("uplink.network"),
    ]
}

#[test]
fn fsck_agrees_with_what_was_changed() {
    if !available("fsck_agrees_with_what_was_changed", &["fsck.fat"]) {
        return;
    }
    let mut card = fat(&card());
    change_files(&mut card, 0, "site", &several(), TIME).unwrap();
    fsck(&card);
    // So many that the directory gets clusters that are not beside its own.
    let many: Vec<FileChange> = (0..60)
        .map(|number| {
            holds(
                &format!("certificate-{number:08}.pem"),
                vec![7; 100 * number],
            )
        })
        .collect();
    change_files(&mut card, 0, "SITE", &many, TIME).unwrap();
    fsck(&card);
    assert_eq!(files(&card).len(), 65);
    let all: Vec<FileChange> = files(&card).keys().map(|name| gone(name)).collect();
    change_files(&mut card, 0, "site", &all, TIME).unwrap();
    fsck(&card);
    assert_eq!(files(&card), BTreeMap::new());
}

#[test]
fn what_was_replaced_is_nowhere_any_more() {
    let mut card = fat(&card());
    change_files(&mut card, 0, "site", &several(), TIME).unwrap();
    let old = b"psk=old";
    assert!(!card.base.windows(old.len()).any(|window| window == old));
}

/// After every single write: each file is as it was or as it is to be, and no other one has changed.
#[test]
fn a_cut_leaves_each_file_old_or_new() {
    let before = fat(&card());
    let mut after = before.clone();
    change_files(&mut after, 0, "site", &several(), TIME).unwrap();
    let (old, new) = (everything(&before), everything(&after));
    let mut cut = before.clone();
    assert!(after.writes.len() > 10);
    for (at, bytes) in &after.writes {
        cut.base[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        let now = everything(&cut);
        for path in old.keys().chain(new.keys()) {
            let found = now.get(path);
            assert!(found == old.get(path) || found == new.get(path), "{path}");
        }
        // Directories' records and tables are written a sector at a time, which a card does whole or not at all.
        assert!(bytes.len() <= SECTOR);
    }
    assert_eq!(everything(&cut), new);
}

#[test]
fn a_full_card_is_left_as_it_was() {
    let mut before = fat(&card());
    let room = SIZE as usize - (2 << 20);
    let error = change_files(
        &mut before,
        0,
        "site",
        &[holds("hostname", vec![1; 70 << 20])],
        TIME,
    );
    assert!(
        matches!(error, Err(FatChangeError::Full { .. })),
        "{error:?}"
    );
    assert_eq!(before.writes, []);
    // And one that is full for one file only.
    let filled = [
        holds("big", vec![1; room]),
        holds("hostname", vec![2; 4 << 20]),
    ];
    let old = everything(&before);
    let error = change_files(&mut before, 0, "site", &filled, TIME);
    assert!(
        matches!(error, Err(FatChangeError::Full { .. })),
        "{error:?}"
    );
    assert_eq!(everything(&before), old);
}

/// Each row points something where it should not.
#[test]
fn misleading_file_systems_are_left_alone() {
    let good = fat(&card());
    let fat_at = 32 * SECTOR;
    let data_at =
        fat_at + 2 * SECTOR * u32::from_le_bytes(good.base[36..40].try_into().unwrap()) as usize;
    type Spoil = fn(&mut [u8]);
    let rows: [(Spoil, &str); 5] = [
        (
            |fat| fat[8..12].copy_from_slice(&2u32.to_le_bytes()),
            "has no end",
        ),
        (
            |fat| {
                (8..4000)
                    .step_by(4)
                    .for_each(|at| fat[at..at + 4].copy_from_slice(&9u32.to_le_bytes()))
            },
            "has no end",
        ),
        (
            |fat| fat[8..12].copy_from_slice(&0x0fff_0000u32.to_le_bytes()),
            "has no end",
        ),
        (
            |fat| fat[8..12].copy_from_slice(&0u32.to_le_bytes()),
            "has no end",
        ),
        (
            |fat| fat[8..12].copy_from_slice(&4u32.to_le_bytes()),
            "in common",
        ),
    ];
    for (spoil, want) in rows {
        let mut bad = good.clone();
        spoil(&mut bad.base[fat_at..]);
        let error = change_files(&mut bad, 0, "site", &several(), TIME).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(bad.writes, []);
    }
    // Files of no size, and all of them have all that is free.
    let mut bad = good.clone();
    let table = &mut bad.base[fat_at..data_at];
    let count = table.len() / 2 / 4;
    let clusters = (good.base.len() - data_at) / SECTOR / usize::from(good.base[13]);
    let free: Vec<usize> = (2..count.min(clusters))
        .filter(|cluster| table[cluster * 4..][..4] == [0; 4])
        .collect();
    for (number, cluster) in free.iter().enumerate() {
        let next = free
            .get(number + 1)
            .map_or(0x0fff_ffff, |next| *next as u32);
        table[cluster * 4..][..4].copy_from_slice(&next.to_le_bytes());
    }
    let root = &bad.base[data_at..data_at + SECTOR];
    let site = root
        .chunks_exact(32)
        .find(|record| record.starts_with(b"SITE "))
        .unwrap();
    let site = usize::from(u16::from_le_bytes([site[26], site[27]])) - 2;
    let site = data_at + site * usize::from(good.base[13]) * SECTOR;
    let first = (free[0] as u32).to_le_bytes();
    let records = bad.base[site..site + SECTOR].chunks_exact_mut(32);
    // Neither parts of long names nor directories.
    for record in records.filter(|record| record[0] != 0 && record[11] & 0x1f == 0) {
        record[20..22].copy_from_slice(&first[2..]);
        record[26..28].copy_from_slice(&first[..2]);
        record[28..32].fill(0);
    }
    let error = read_files(&bad, 0, "site").unwrap_err();
    assert!(error.to_string().contains("larger than it is"), "{error}");
    // A directory that is its own.
    let mut bad = good.clone();
    let root = &mut bad.base[data_at..data_at + SECTOR];
    let site = root
        .chunks_exact_mut(32)
        .find(|record| record.starts_with(b"SITE "))
        .unwrap();
    site[26..28].copy_from_slice(&2u16.to_le_bytes());
    let error = change_files(&mut bad, 0, "site", &several(), TIME).unwrap_err();
    assert!(error.to_string().contains("in common"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any changes, one after the other, against a map; what is not named never changes.
    #[test]
    fn changes_change_what_they_name_and_nothing_else(
        rounds in prop::collection::vec(
            prop::collection::vec((0..12usize, prop::option::of(0..3000usize)), 1..6),
            1..6,
        ),
    ) {
        let mut card = fat(&card());
        let mut model = everything(&card);
        for round in rounds {
            // A name twice in one round has no meaning.
            let round: BTreeMap<usize, Option<usize>> = round.into_iter().collect();
            let changes: Vec<FileChange> = round
                .iter()
                .map(|(name, size)| FileChange {
                    name: ["hostname", "A.TXT", "a long name.pem"][name % 3].to_owned()
                        + ["", "2", "3", "4"][name / 3],
                    contents: size.map(|size| vec![size as u8; size]),
                })
                .collect();
            change_files(&mut card, 0, "site", &changes, TIME).unwrap();
            for FileChange { name, contents } in changes {
                let path = format!("site/{name}");
                match contents {
                    Some(contents) => model.insert(path, contents),
                    None => model.remove(&path),
                };
            }
            prop_assert!(everything(&card) == model);
        }
        if available("changes_change_what_they_name_and_nothing_else", &["fsck.fat"]) {
            fsck(&card);
        }
    }

    #[test]
    fn garbage_does_no_harm(at in 0..SECTOR, bytes in prop::collection::vec(any::<u8>(), 1..40)) {
        let mut card = fat(&card());
        let end = (at + bytes.len()).min(SECTOR);
        card.base[at..end].copy_from_slice(&bytes[..end - at]);
        // Whatever comes of it, it ends, and without a panic.
        drop(change_files(&mut card, 0, "site", &several(), TIME));
    }
}

/// An image of this program's with the files of a real `site/`.
fn image(path: &Path) {
    image_of(path, b"pi3");
}

/// The same with another signature, where that is made of something else.
fn image_of(path: &Path, signature: &[u8]) {
    let mut boot = card();
    for (name, planned) in plan_for("pi3", &site()).boot.site {
        let path = format!("site/{name}");
        boot.remove(&path).unwrap();
        boot.insert(path, planned.node).unwrap();
    }
    let root = vec![9; 1 << 20];
    let sizes = DiskSizes {
        boot: SIZE,
        root: root.len() as u64,
    };
    let layout = DiskLayout::new(DiskSignature::derive(signature), sizes).unwrap();
    let parts = DiskParts {
        boot: &boot,
        boot_label: FatLabel::new("BOOT").unwrap(),
        time: TIME,
        root: &root,
    };
    let format = ImageFormat::of_name(path.to_str().unwrap()).unwrap();
    write_disk(
        Draft::create(path, format).unwrap(),
        &layout,
        &parts,
        |_, _| Papers::new(),
    )
    .unwrap();
}

/// Of every format: the name changes, and what is beside the image describes the new one.
#[test]
fn images_of_every_format_are_changed() {
    let scratch = tempfile::tempdir().unwrap();
    let change = renamed("cellar");
    for format in ImageFormat::ALL {
        let path = scratch.path().join(format!("card.{format}"));
        image(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let before = load_settings(&path).unwrap().site;
        let changed = edit_image(&path, &change, &overlays(), TIME, &Silent).unwrap();
        assert_eq!(changed, ["hostname"]);
        let mut after = load_settings(&path).unwrap().site;
        assert_eq!(
            after
                .insert("hostname".to_owned(), before["hostname"].clone())
                .unwrap(),
            b"cellar\n"
        );
        assert_eq!(after, before);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);

        let beside = |end: &str| fs::read_to_string(format!("{}{end}", path.display())).unwrap();
        let digest = Sha256::of(&fs::read(&path).unwrap());
        assert_eq!(beside(".sha256"), format!("{digest}  card.{format}\n"));
        let map = parse_block_map(&beside(".bmap")).unwrap();
        let mut unpacked = Vec::new();
        io::copy(&mut open_image_file(&path).unwrap(), &mut unpacked).unwrap();
        for range in &map.ranges {
            let part = &unpacked[range.offset as usize..range.end() as usize];
            assert_eq!(Sha256::of(part), range.digest, "{format}");
        }
        // What is not mapped does not reach a card, so all that matters has to be.
        let mut written = vec![0; unpacked.len()];
        for range in &map.ranges {
            let range = range.offset as usize..range.end() as usize;
            written[range.clone()].copy_from_slice(&unpacked[range]);
        }
        assert!(written == unpacked, "{format}");

        assert_eq!(
            edit_image(&path, &change, &overlays(), TIME, &Silent).unwrap(),
            [""; 0]
        );
    }
}

/// Remembers what it was told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn started(&self, what: &str, _total: Option<u64>) {
        self.0.lock().unwrap().push(what.to_owned());
    }
    fn advanced(&self, _bytes: u64) {}
    fn finished(&self) {}
}

/// Gives the device another name.
fn renamed(name: &str) -> SiteChange {
    SiteChange {
        hostname: Some(Hostname::parse(name).unwrap()),
        ..SiteChange::default()
    }
}

/// Edits an image; returns whether all of it was packed anew, and what was said about that.
fn edit(path: &Path, change: &SiteChange) -> Vec<String> {
    let told = Told::default();
    assert!(
        !edit_image(path, change, &overlays(), TIME, &told)
            .unwrap()
            .is_empty()
    );
    told.0.into_inner().unwrap()
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    io::copy(&mut open_image_file(path).unwrap(), &mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Edited in pieces, edited as it is on the card, or packed after the edit: it is the same image, to the byte, and so is what is beside it.
    #[test]
    fn packed_images_are_edited_as_others_are(
        names in prop::collection::vec("[a-z]{1,40}", 1..4),
        keys in 0..200usize,
        country in prop::option::of(prop::sample::select(&["DE", "NZ", "US", "ZW"][..])),
        xz in any::<bool>(),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let format = [ImageFormat::ImgZst, ImageFormat::ImgXz][usize::from(xz)];
        let (plain, packed) = (scratch.path().join("card.img"), scratch.path().join(format!("card.{format}")));
        image(&plain);
        image(&packed);
        let beside = |path: &Path, end: &str| fs::read(format!("{}{end}", path.display())).unwrap();
        for (turn, name) in names.iter().enumerate() {
            let key = format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb0 {}\n", "x".repeat(400));
            let change = SiteChange {
                hostname: Some(Hostname::parse(&format!("{name}{turn}")).unwrap()),
                country: country.map(|code| CountryCode::parse(code).unwrap()),
                // Grows into what was free.
                ssh_keys: (keys > 100).then(|| SshKeys::parse(&key.repeat(keys - turn)).unwrap()),
                ..SiteChange::default()
            };
            edit(&plain, &change);
            prop_assert_eq!(edit(&packed, &change), [""; 0]);
        }
        let edited = fs::read(&plain).unwrap();
        prop_assert!(unpacked(&packed) == edited);
        prop_assert!(beside(&packed, ".bmap") == beside(&plain, ".bmap"));

        let digest = Sha256::of(&fs::read(&packed).unwrap());
        let checksum = format!("{digest}  card.{format}\n");
        prop_assert!(beside(&packed, ".sha256") == checksum.as_bytes());
    }
}

/// Images of other programs, or with a checksum of something else, are unpacked and packed as a whole; from then on they have pieces.
#[test]
fn images_without_pieces_are_packed_anew() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = scratch.path().join("card.img");
    image(&plain);
    let bytes = fs::read(&plain).unwrap();
    edit(&plain, &renamed("cellar"));
    let edited = fs::read(&plain).unwrap();

    let zst = scratch.path().join("one.img.zst");
    fs::write(&zst, zstd::encode_all(&bytes[..], 3).unwrap()).unwrap();
    let xz = scratch.path().join("one.img.xz");
    let mut encoder = liblzma::write::XzEncoder::new(File::create(&xz).unwrap(), 0);
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap();
    let other = scratch.path().join("other.img.zst");
    image(&other);
    fs::write(
        scratch.path().join("other.img.zst.sha256"),
        format!("{}  other.img.zst\n", Sha256::of(b"something else")),
    )
    .unwrap();
    for (path, why) in [
        (&zst, "it was not packed in small pieces"),
        (&xz, "it was not packed in small pieces"),
        (&other, "it is not what its checksum was written for"),
    ] {
        assert_eq!(
            edit(path, &renamed("cellar")),
            [format!("packing all of the image anew: {why}")]
        );
        assert!(unpacked(path) == edited);
        assert_eq!(edit(path, &renamed("attic")), [""; 0]);
    }
}

/// A byte that is wrong in a piece that does not change: it is as wrong afterwards, for nobody has looked, and everybody finds it.
#[test]
fn pieces_that_do_not_change_are_not_looked_at() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("card.img.zst");
    image(&path);
    fs::remove_file(scratch.path().join("card.img.zst.sha256")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // The last frame's checksum comes before the table, in which there are 8 bytes for each frame and 17 others.
    let count = bytes.len() - 9;
    let frames = u32::from_le_bytes(bytes[count..count + 4].try_into().unwrap());
    let last = bytes.len() - 17 - 8 * frames as usize - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let change = renamed("cellar");
    assert_eq!(edit(&path, &change), [""; 0]);
    assert_eq!(load_settings(&path).unwrap().site["hostname"], b"cellar\n");
    assert!(open_image_file(&path).is_err());
}

/// The map of another image of the same size says nothing of which bytes of this one matter, nor of what they are.
#[test]
fn a_block_map_of_another_image_is_not_believed() {
    let scratch = tempfile::tempdir().unwrap();
    for format in ImageFormat::ALL {
        let path = scratch.path().join(format!("card.{format}"));
        let map_path = scratch.path().join(format!("card.{format}.bmap"));
        image(&path);
        let other = scratch.path().join("other.img");
        image_of(&other, b"another");
        fs::copy(scratch.path().join("other.img.bmap"), &map_path).unwrap();
        fs::remove_file(&other).unwrap();
        let told = edit(&path, &renamed("cellar"));
        if format == ImageFormat::Img {
            let said = "the block map is not this image's; the new one has all of the image";
            assert_eq!(told, [said]);
        }
        let edited = unpacked(&path);
        let map = parse_block_map(&fs::read_to_string(&map_path).unwrap()).unwrap();
        assert_eq!(map.mapped(), edited.len() as u64, "{format}");
        let read_at = |part: &mut [u8], at: u64| {
            part.copy_from_slice(&edited[at as usize..][..part.len()]);
            Ok(())
        };
        assert!(map.fits(edited.len() as u64, u64::MAX, read_at).unwrap());
        // And that one is believed.
        assert_eq!(edit(&path, &renamed("attic")), [""; 0]);
    }
}

/// Somebody changed or damaged it since; a new checksum would say that all of it is as it should be.
#[test]
fn an_image_that_its_checksum_does_not_fit_gets_no_new_one() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("card.img");
    image(&path);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let change = renamed("cellar");
    let told = edit(&path, &change);
    assert!(
        matches!(&told[..], [said] if said.starts_with("warning: the image is not what its checksum was written for")),
        "{told:?}"
    );
    assert_eq!(load_settings(&path).unwrap().site["hostname"], b"cellar\n");
    assert!(!scratch.path().join("card.img.sha256").exists());
}

#[test]
fn an_image_that_is_cut_off_is_not_changed() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("card.img");
    image(&path);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let before = fs::read(&path).unwrap();
    let change = renamed("cellar");
    let error = edit_image(&path, &change, &overlays(), TIME, &Silent).unwrap_err();
    assert!(
        error.to_string().starts_with("it is cut off: partition "),
        "{error}"
    );
    assert!(fs::read(&path).unwrap() == before);
    assert!(scratch.path().join("card.img.sha256").exists());
}

/// The country is in two places, and both change.
#[test]
fn the_kernel_is_told_the_country_too() {
    let scratch = tempfile::tempdir().unwrap();
    for format in ImageFormat::ALL {
        let path = scratch.path().join(format!("card.{format}"));
        image(&path);
        for code in ["FR", "DE"] {
            let change = SiteChange {
                country: Some(CountryCode::parse(code).unwrap()),
                ..SiteChange::default()
            };
            let changed = edit_image(&path, &change, &overlays(), TIME, &Silent).unwrap();
            assert_eq!(changed, ["wpa_supplicant.conf", "cmdline.txt"]);
            let settings = load_settings(&path).unwrap();
            let line = format!("console=tty1 cfg80211.ieee80211_regdom={code}");
            assert_eq!(settings.command_line.as_deref(), Some(line.as_bytes()));
            let shown = show_settings(&settings);
            assert!(
                shown.contains(&format!("\n    country={code}\n")),
                "{shown}"
            );
            let said = format!("\ncmdline.txt:\n    cfg80211.ieee80211_regdom={code}\n");
            assert!(shown.ends_with(&said), "{shown}");
        }
        let image = unpacked(&path);
        let boot = Fat::open_image(Cursor::new(&image))
            .unwrap()
            .tree()
            .unwrap();
        let kernel = boot.get("kernel8.img").and_then(Node::bytes);
        let before = card();
        assert_eq!(kernel, before.get("kernel8.img").and_then(Node::bytes));
    }
}

/// The kernel where the root directory is: the edit is refused, and what is beside the image describes it as before.
#[test]
fn a_refused_edit_leaves_what_describes_the_image() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("card.img");
    image(&path);
    let mut bytes = fs::read(&path).unwrap();
    let record = bytes.windows(11).position(|name| name == b"KERNEL8 IMG");
    bytes[record.unwrap() + 26..][..2].copy_from_slice(&2u16.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let described = format!("{}  card.img\n", Sha256::of(&bytes));
    let checksum = scratch.path().join("card.img.sha256");
    fs::write(&checksum, &described).unwrap();
    let change = renamed("cellar");
    let error = edit_image(&path, &change, &overlays(), TIME, &Silent).unwrap_err();
    assert!(
        error.to_string().contains("longer than its clusters"),
        "{error}"
    );
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!(fs::read_to_string(&checksum).unwrap(), described);
    let map = fs::read_to_string(scratch.path().join("card.img.bmap")).unwrap();
    parse_block_map(&map).unwrap();
}

#[test]
fn what_is_no_image_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("letter");
    File::create(&path).unwrap().set_len(4096).unwrap();
    let change = renamed("cellar");
    let error = edit_image(&path, &change, &overlays(), TIME, &Silent).unwrap_err();
    assert!(error.to_string().starts_with("it is no image"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), [0; 4096]);
}
