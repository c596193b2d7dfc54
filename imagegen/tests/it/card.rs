//! Writing images to files that stand for cards: what is on them after success, after failures, and after going on.

use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use expect_test::{Expect, expect};
use imagegen::card::device::{Card, Destination};
use imagegen::card::devices::Inventory;
use imagegen::card::image::{Image, examine};
use imagegen::card::journal::Mark;
use imagegen::card::refusal::{Wanted, Wish};
use imagegen::card::write::{FlashError, Job, Written, flash};
use imagegen::make::disk::{DiskParts, Draft, ImageFormat, Papers, write_disk};
use imagegen::make::fat::FatLabel;
use imagegen::make::fetch::{Progress, Silent};
use imagegen::make::squashfs::{SquashfsOptions, write_squashfs};
use imagegen::mbr::PartitionTable;
use imagegen::plan::disk::{DiskLayout, DiskSignature, DiskSizes};
use imagegen::tree::{Node, Tree};

use crate::writers::{TIME, noise};

/// What a card has on it before; no image has it anywhere.
const OLD: u8 = 0xa5;

/// Writes an image whose boot partition has that many bytes of noise on it, which are to be written; returns its path.
pub(crate) fn image(folder: &Path, name: &str, bytes: usize) -> PathBuf {
    labelled(folder, name, bytes, "FOOTBRIDGE")
}

fn labelled(folder: &Path, name: &str, bytes: usize, label: &str) -> PathBuf {
    let mut boot = Tree::new();
    boot.insert("kernel8.img", Node::file(0o644, noise(bytes)))
        .unwrap();
    let mut files = Tree::new();
    files
        .insert("file", Node::file(0o644, noise(300_000)))
        .unwrap();
    let mut root = std::io::Cursor::new(Vec::new());
    let options = SquashfsOptions {
        zstd_level: 1,
        ..SquashfsOptions::at(TIME)
    };
    write_squashfs(&files, &options, &mut root).unwrap();
    let root = root.into_inner();
    let sizes = DiskSizes {
        boot: 64 << 20,
        root: root.len() as u64,
    };
    let layout = DiskLayout::new(DiskSignature::derive(b"card"), sizes).unwrap();
    let path = folder.join(name);
    let format = ImageFormat::of_name(name).unwrap();
    let parts = DiskParts {
        boot: &boot,
        boot_label: FatLabel::new(label).unwrap(),
        time: TIME,
        root: &root,
    };
    let draft = Draft::create(&path, format).unwrap();
    write_disk(draft, &layout, &parts, |_, _| Papers::new()).unwrap();
    path
}

/// A file that stands for a card, full of what was on it before.
fn card_file(folder: &Path, size: u64) -> PathBuf {
    let path = folder.join("card");
    fs::write(&path, vec![OLD; usize::try_from(size).unwrap()]).unwrap();
    path
}

/// A table with an image and a card a little larger than it.
struct Table {
    folder: tempfile::TempDir,
    image: PathBuf,
    card: PathBuf,
}

impl Table {
    fn new(name: &str, bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = image(folder.path(), name, bytes);
        let size = examine(&image, &Silent).unwrap().map.image_size;
        let card = card_file(folder.path(), size + 5000);
        Table {
            folder,
            image,
            card,
        }
    }

    fn flash(&self, progress: &dyn Progress) -> Result<Written, FlashError> {
        flash_file(&self.image, &self.card, &self.journals(), progress)
    }

    fn journals(&self) -> PathBuf {
        self.folder.path().join("journals")
    }

    fn has_journal(&self) -> bool {
        fs::read_dir(self.journals()).is_ok_and(|entries| entries.count() > 0)
    }

    /// Whether the card's first sector is a partition table.
    fn is_card(&self) -> bool {
        let mut sector = [0; 512];
        let file = fs::File::open(&self.card).unwrap();
        file.read_exact_at(&mut sector, 0).unwrap();
        PartitionTable::decode(&sector).is_ok()
    }

    /// Every mapped byte is the image's, and every other one is what it was.
    fn check_whole(&self) {
        let image = examine(&self.image, &Silent).unwrap();
        let mut unpacked = imagegen::inspect::packed::open_image_file(&self.image).unwrap();
        let mut expected = vec![OLD; fs::metadata(&self.card).unwrap().len() as usize];
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut unpacked, &mut bytes).unwrap();
        for range in &image.map.ranges {
            let range = range.offset as usize..range.end() as usize;
            expected[range.clone()].copy_from_slice(&bytes[range]);
        }
        assert!(
            fs::read(&self.card).unwrap() == expected,
            "the card differs"
        );
        assert!(self.is_card() && !self.has_journal());
    }
}

pub(crate) fn flash_file(
    image: &Path,
    card: &Path,
    journals: &Path,
    progress: &dyn Progress,
) -> Result<Written, FlashError> {
    let image = examine(image, &Silent).unwrap();
    let card = open(&image, card);
    flash_to(&image, &card, journals, progress)
}

fn open(image: &Image, card: &Path) -> Card {
    let wish = Wish {
        image: Some(Wanted {
            path: &image.path,
            size: image.map.image_size,
        }),
        ..Wish::default()
    };
    let destination = Destination::choose(card, &Inventory::default(), &wish).unwrap();
    Card::open(&destination, || Ok(Inventory::default())).unwrap()
}

/// Each run has a mark of its own.
pub(crate) fn flash_to(
    image: &Image,
    card: &Card,
    journals: &Path,
    progress: &dyn Progress,
) -> Result<Written, FlashError> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let job = Job {
        image,
        card,
        journals,
        mark: Mark::new(&run.to_le_bytes()),
    };
    flash(&job, progress)
}

/// Does something when a step begins.
pub(crate) struct At<F> {
    pub(crate) step: &'static str,
    pub(crate) act: F,
}

impl<F: Fn() + Sync> Progress for At<F> {
    fn started(&self, what: &str, _total: Option<u64>) {
        if what == self.step {
            (self.act)();
        }
    }
    fn advanced(&self, _bytes: u64) {}
    fn finished(&self) {}
}

/// Ends the program, as far as the writing is concerned, at the n-th news of it. Of reading back only its beginning and end are news.
struct EndAt {
    news: AtomicU32,
    last: u32,
    reading: AtomicBool,
}

impl EndAt {
    fn new(last: u32) -> Self {
        EndAt {
            news: AtomicU32::new(0),
            last,
            reading: AtomicBool::new(false),
        }
    }

    fn count(&self) {
        if self.news.fetch_add(1, Ordering::Relaxed) == self.last {
            std::panic::resume_unwind(Box::new("ended"));
        }
    }
}

impl Progress for EndAt {
    fn started(&self, what: &str, _total: Option<u64>) {
        self.reading
            .store(what == "reading back", Ordering::Relaxed);
        self.count();
    }
    fn advanced(&self, _bytes: u64) {
        if !self.reading.load(Ordering::Relaxed) {
            self.count();
        }
    }
    fn finished(&self) {
        self.count();
    }
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn what_is_mapped_is_on_the_card_and_nothing_else_is_touched() {
    for format in ImageFormat::ALL {
        let table = Table::new(&format!("x.{format}"), 3_000_000);
        let map = examine(&table.image, &Silent).unwrap().map;
        assert!(map.mapped() < map.image_size / 2, "{map:?}");
        let written = table.flash(&Silent).unwrap();
        assert_eq!((written.bytes, written.earlier), (map.mapped(), 0));
        table.check_whole();
    }
}

#[test]
fn without_a_map_all_of_the_image_is_written() {
    let table = Table::new("x.img.zst", 3_000_000);
    let mapped = examine(&table.image, &Silent).unwrap().map;
    fs::remove_file(table.folder.path().join("x.img.zst.bmap")).unwrap();
    let written = table.flash(&Silent).unwrap();
    assert_eq!(written.bytes, mapped.image_size);
    table.check_whole();
}

/// The bits are flipped between writing and reading back: in the first range, in the last, and in the middle.
#[test]
fn reading_back_finds_a_flipped_bit() {
    let table = Table::new("x.img", 3_000_000);
    let map = examine(&table.image, &Silent).unwrap().map;
    assert!(map.ranges.len() >= 3);
    for range in &map.ranges {
        for at in [range.offset, range.offset + range.size / 2, range.end() - 1] {
            // The first block is not on the card yet when the rest is read back.
            if at < 4096 {
                continue;
            }
            let flipped = At {
                step: "reading back",
                act: || flip(&table.card, at),
            };
            let err = table.flash(&flipped).unwrap_err();
            assert!(
                matches!(err, FlashError::Mismatch { at, .. } if at == range.offset),
                "{at}: {err}"
            );
            assert!(!table.is_card() && !table.has_journal(), "{at}");
        }
    }
    table.flash(&Silent).unwrap();
    table.check_whole();
}

/// Wherever it ends the card is no card, or whole; and the next run writes only what is not there.
#[test]
fn a_run_that_ended_anywhere_is_gone_on_with() {
    let table = Table::new("x.img", 40_000_000);
    let mut ends = 0;
    let mut went_on = 0;
    for last in 0.. {
        table.refill();
        let end = EndAt::new(last);
        if catch_unwind(AssertUnwindSafe(|| table.flash(&end))).is_ok() {
            break;
        }
        ends += 1;
        assert!(!table.is_card(), "{last}");
        let written = table.flash(&Silent).unwrap();
        went_on += u32::from(written.earlier > 0);
        table.check_whole();
    }
    // Two steps with their beginnings and ends, and news of 16 MiB, twice, and the rest.
    assert_eq!((ends, went_on), (7, 6));
}

impl Table {
    fn refill(&self) {
        let size = fs::metadata(&self.card).unwrap().len();
        card_file(self.folder.path(), size);
    }

    /// Ends a run when everything is written and nothing was read back.
    fn end_before_reading_back(&self) {
        let end = At {
            step: "reading back",
            act: || std::panic::resume_unwind(Box::new("ended")),
        };
        assert!(catch_unwind(AssertUnwindSafe(|| self.flash(&end))).is_err());
        assert!(self.has_journal());
    }
}

#[test]
fn what_an_earlier_run_wrote_is_not_believed() {
    let table = Table::new("x.img", 3_000_000);
    let map = examine(&table.image, &Silent).unwrap().map;
    table.end_before_reading_back();
    flip(&table.card, map.ranges[1].offset + 7);
    let written = table.flash(&Silent).unwrap();
    // It began anew by itself.
    assert_eq!((written.bytes, written.earlier), (map.mapped(), 0));
    table.check_whole();
}

#[test]
fn another_card_or_another_image_begins_anew() {
    let table = Table::new("x.img", 3_000_000);
    let mapped = examine(&table.image, &Silent).unwrap().map.mapped();
    for change in ["card", "image", "journal"] {
        table.refill();
        table.end_before_reading_back();
        match change {
            // Another card of the same size in the same reader.
            "card" => table.refill(),
            "image" => fs::remove_file(table.folder.path().join("x.img.bmap")).unwrap(),
            _ => {
                let entry = fs::read_dir(table.journals()).unwrap().next().unwrap();
                fs::write(entry.unwrap().path(), "written = 7000").unwrap();
            }
        }
        let written = table.flash(&Silent).unwrap();
        assert_eq!(written.earlier, 0, "{change}");
        assert!(written.bytes >= mapped, "{change}");
        table.check_whole();
    }
}

#[test]
fn an_image_that_changes_while_it_is_written_makes_no_card() {
    let table = Table::new("x.img", 3_000_000);
    let map = examine(&table.image, &Silent).unwrap().map;
    let changed = At {
        step: "writing",
        act: || flip(&table.image, map.ranges[1].offset + 100),
    };
    let err = table.flash(&changed).unwrap_err();
    assert!(matches!(err, FlashError::ImageChanged { .. }), "{err}");
    assert!(!table.is_card());
}

#[test]
fn images_that_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let check = |name: &str, expected: Expect| {
        let err = examine(&path(name), &Silent).unwrap_err();
        let cause = std::error::Error::source(&err).map_or(String::new(), |err| format!(": {err}"));
        let place = folder.path().display().to_string();
        let text = format!("{err}{cause}\n{}\n", err.hint()).replace(&place, "HERE");
        expected.assert_eq(&text);
    };
    for name in ["sum.img", "map.img", "own.img", "cut.img.zst", "both.img"] {
        image(folder.path(), name, 100_000);
    }
    let without = |name: &str| fs::remove_file(path(name)).unwrap();

    flip(&path("sum.img"), 5 << 20);
    check(
        "sum.img",
        expect![[r#"
        HERE/sum.img is damaged, or is not the file that HERE/sum.img.sha256 was written for
        build or copy the image again, and the files beside it with it
    "#]],
    );
    without("sum.img.bmap");
    check(
        "sum.img",
        expect![[r#"
        HERE/sum.img is damaged, or is not the file that HERE/sum.img.sha256 was written for
        build or copy the image again, and the files beside it with it
    "#]],
    );

    without("map.img.sha256");
    flip(&path("map.img"), (4 << 20) + 100);
    check(
        "map.img",
        expect![[r#"
        HERE/map.img is damaged, or is not the image that HERE/map.img.bmap was written for: byte 4194304 and after differ
        build or copy the image again, and the files beside it with it; without HERE/map.img.bmap all of the image is written
    "#]],
    );

    flip(&path("own.img.bmap"), 60);
    check(
        "own.img",
        expect![[r#"
        HERE/own.img.bmap is no block map: its own digest does not fit it
        build or copy the image again, and the files beside it with it; without HERE/own.img.bmap all of the image is written
    "#]],
    );

    fs::write(path("both.img.sha256"), "nothing\n").unwrap();
    check(
        "both.img",
        expect![[r#"
        HERE/both.img.sha256 has no SHA-256 checksum in it
        build or copy the image again, and the files beside it with it
    "#]],
    );

    let packed = fs::read(path("cut.img.zst")).unwrap();
    fs::write(path("cut.img.zst"), &packed[..packed.len() / 2]).unwrap();
    without("cut.img.zst.sha256");
    check(
        "cut.img.zst",
        expect![[r#"
            HERE/cut.img.zst is damaged, or is not the image that HERE/cut.img.zst.bmap was written for: byte 71303168 and after differ
            build or copy the image again, and the files beside it with it; without HERE/cut.img.zst.bmap all of the image is written
        "#]],
    );
    without("cut.img.zst.bmap");
    check(
        "cut.img.zst",
        expect![[r#"
        cannot read HERE/cut.img.zst: incomplete frame
        `cargo xtask image` makes an image and prints its path
    "#]],
    );

    labelled(folder.path(), "other.img", 100_000, "OTHER");
    check(
        "other.img",
        expect![[r#"
        HERE/other.img is no Footbridge image: its first partition is not our boot partition
        `cargo xtask image` makes an image and prints its path
    "#]],
    );
    fs::write(path("text.img"), "text").unwrap();
    check(
        "text.img",
        expect![[r#"
        HERE/text.img is no Footbridge image: it does not begin with a partition table
        `cargo xtask image` makes an image and prints its path
    "#]],
    );
    fs::write(path("empty.img"), "").unwrap();
    check(
        "empty.img",
        expect![[r#"
        HERE/empty.img is no Footbridge image: it does not begin with a partition table
        `cargo xtask image` makes an image and prints its path
    "#]],
    );
    fs::create_dir(path("folder")).unwrap();
    check(
        "folder",
        expect![[r#"
        HERE/folder is not a file
        `cargo xtask image` makes an image and prints its path
    "#]],
    );
    check(
        "missing",
        expect![[r#"
        cannot read HERE/missing: No such file or directory (os error 2)
        `cargo xtask image` makes an image and prints its path
    "#]],
    );
}

#[test]
fn a_card_that_is_open_is_not_opened_again() {
    let table = Table::new("x.img", 100_000);
    let image = examine(&table.image, &Silent).unwrap();
    let _card = open(&image, &table.card);
    let destination = Destination::File {
        path: table.card.clone(),
        size: fs::metadata(&table.card).unwrap().len(),
    };
    let err = Card::open(&destination, || Ok(Inventory::default())).unwrap_err();
    assert!(
        err.to_string().ends_with("is in use by another program"),
        "{err}"
    );
}
