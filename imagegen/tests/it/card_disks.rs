//! Which disks may be written to: made-up machines, and loop devices of this one where it lets us have them.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect;
use imagegen::card::device::{Card, Destination, OpenError, choose_disk};
use imagegen::card::devices::{DeviceNumber, Disk, DiskPartition, Inventory, load_inventory};
use imagegen::card::image::{Image, examine};
use imagegen::card::refusal::{Bytes, Refusal, Wanted, Wish, judge};
use imagegen::card::write::FlashError;
use imagegen::inspect::image::read_image;
use imagegen::make::fetch::Silent;
use imagegen::mbr::PartitionTable;

use crate::card::{At, flash_to, image};
use crate::readers::{available, run, skip};

/// A machine that is nothing but files below a folder.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Machine(tempfile::tempdir().unwrap());
        machine.put("proc/self/mountinfo", "");
        machine.put("proc/swaps", "Filename Type Size Used Priority\n");
        fs::create_dir_all(machine.0.path().join("sys/block")).unwrap();
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn add(&self, path: &str, text: &str) {
        let old = fs::read_to_string(self.0.path().join(path)).unwrap();
        self.put(path, &format!("{old}{text}\n"));
    }

    /// A disk of 16 GB at a place among the devices.
    fn disk(&self, place: &str, number: &str) {
        let name = place.rsplit('/').next().unwrap();
        for (file, text) in [
            ("dev", number),
            ("size", "31116288"),
            ("removable", "0"),
            ("ro", "0"),
        ] {
            self.put(&format!("sys/devices/{place}/{file}"), &format!("{text}\n"));
        }
        fs::create_dir_all(self.0.path().join(format!("sys/devices/{place}/holders"))).unwrap();
        let link = self.0.path().join("sys/block").join(name);
        symlink(format!("../devices/{place}"), link).unwrap();
    }

    fn partition(&self, disk: &str, name: &str, index: &str, number: &str) {
        for (file, text) in [("dev", number), ("size", "524288"), ("partition", index)] {
            self.put(
                &format!("sys/block/{disk}/{name}/{file}"),
                &format!("{text}\n"),
            );
        }
    }

    fn mount(&self, number: &str, source: &str, at: &str) {
        let line = format!("40 1 {number} / {at} rw,relatime shared:1 - ext4 {source} rw");
        self.add("proc/self/mountinfo", &line);
    }

    fn inventory(&self) -> Inventory {
        load_inventory(self.0.path()).unwrap()
    }

    /// A card in a reader, with two partitions.
    fn with_card() -> Self {
        let machine = Machine::new();
        let usb = "pci0000:00/0000:00:14.0/usb1/1-2";
        machine.disk(
            &format!("{usb}/1-2:1.0/host6/target6:0:0/6:0:0:0/block/sdb"),
            "8:16",
        );
        machine.put(&format!("sys/devices/{usb}/idVendor"), "0bda\n");
        machine.put(&format!("sys/devices/{usb}/serial"), "201506301013\n");
        machine.put("sys/block/sdb/device/vendor", "Generic-\n");
        machine.put("sys/block/sdb/device/model", "SD/MMC          \n");
        machine.put("sys/block/sdb/removable", "1\n");
        machine.partition("sdb", "sdb1", "1", "8:17");
        machine.partition("sdb", "sdb2", "2", "8:18");
        machine.put(
            "run/udev/data/b8:17",
            "S:disk/by-label/bootfs\nE:ID_FS_TYPE=vfat\nE:ID_FS_LABEL=bootfs\n",
        );
        machine.put("run/udev/data/b8:18", "E:ID_FS_TYPE=ext4\n");
        machine
    }
}

fn describe(disk: &Disk) -> String {
    let mut text = format!(
        "{} {} {} {} model {:?} serial {:?} removable {} read-only {}\n",
        disk.name,
        disk.number,
        Bytes(disk.size),
        disk.transport,
        disk.model,
        disk.serial,
        disk.removable,
        disk.read_only,
    );
    for partition in &disk.partitions {
        text.push_str(&format!(
            "  {} {} {} {} {:?} {:?}\n",
            partition.index,
            partition.name,
            partition.number,
            Bytes(partition.size),
            partition.contents.kind,
            partition.contents.label
        ));
    }
    text.extend(disk.uses.iter().map(|found| format!("  {found:?}\n")));
    text
}

#[test]
fn what_is_known_of_disks() {
    let machine = Machine::with_card();
    machine.disk(
        "pci0000:00/0000:00:17.0/ata3/host2/target2:0:0/2:0:0:0/block/sda",
        "8:0",
    );
    machine.put("sys/block/sda/device/vendor", "ATA\n");
    machine.put("sys/block/sda/device/model", "Samsung SSD 860\n");
    machine.partition("sda", "sda10", "10", "8:10");
    machine.partition("sda", "sda2", "2", "8:2");
    fs::create_dir(machine.0.path().join("sys/block/sda/sda2/holders")).unwrap();
    machine.put("sys/block/sda/sda2/holders/dm-0", "");
    machine.disk("virtual/block/dm-0", "253:0");
    machine.put("sys/block/dm-0/dm/name", "luks-home\n");
    machine.disk("platform/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0", "179:0");
    machine.put("sys/block/mmcblk0/device/type", "SD\n");
    machine.put("sys/block/mmcblk0/device/name", "SC16G\n");
    machine.put("sys/block/mmcblk0/device/cid", "035344534331364780\n");
    machine.partition("mmcblk0", "mmcblk0p1", "1", "179:1");
    machine.mount("179:1", "/dev/mmcblk0p1", "/media/My\\040Card");
    machine.disk("platform/mmc_host/mmc1/mmc1:0001/block/mmcblk1", "179:8");
    machine.put("sys/block/mmcblk1/device/type", "MMC\n");
    machine.disk("pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1", "259:0");
    machine.put("sys/block/nvme0n1/device/model", "WD Blue\n");
    machine.put("sys/block/nvme0n1/device/serial", "2134\n");
    machine.add("proc/swaps", "/dev/nvme0n1 partition 1000 0 -2");
    let text: String = machine.inventory().disks.iter().map(describe).collect();
    expect![[r#"
        dm-0 253:0 15.9 GB virtual model None serial None removable false read-only false
        mmcblk0 179:0 15.9 GB SD slot model Some("SC16G") serial Some("035344534331364780") removable false read-only false
          1 mmcblk0p1 179:1 268.4 MB None None
          Use { device: "mmcblk0p1", purpose: Mount("/media/My Card") }
        mmcblk1 179:8 15.9 GB eMMC model None serial None removable false read-only false
        nvme0n1 259:0 15.9 GB NVMe model Some("WD Blue") serial Some("2134") removable false read-only false
          Use { device: "nvme0n1", purpose: Swap }
        sda 8:0 15.9 GB SATA model Some("ATA Samsung SSD 860") serial None removable false read-only false
          2 sda2 8:2 268.4 MB None None
          10 sda10 8:10 268.4 MB None None
          Use { device: "sda2", purpose: Held("luks-home") }
        sdb 8:16 15.9 GB USB model Some("Generic- SD/MMC") serial Some("201506301013") removable true read-only false
          1 sdb1 8:17 268.4 MB Some("vfat") Some("bootfs")
          2 sdb2 8:18 268.4 MB Some("ext4") None
    "#]].assert_eq(&text);
}

fn wish(size: u64) -> Wish<'static> {
    Wish {
        image: Some(Wanted {
            path: Path::new("/images/x.img"),
            size,
        }),
        fixed_disks: false,
    }
}

#[test]
fn why_disks_are_refused() {
    type Change = fn(&Machine);
    let cases: [(&str, Change); 17] = [
        ("nothing", |_| {}),
        ("mounted", |machine| {
            machine.mount("8:17", "/dev/sdb1", "/media/boot\\040fs")
        }),
        ("by another number", |machine| {
            machine.mount("0:44", "/dev/sdb2", "/mnt/btrfs")
        }),
        ("the system, and something else", |machine| {
            machine.mount("8:17", "/dev/sdb1", "/media/x");
            machine.mount("8:18", "/dev/sdb2", "/");
        }),
        ("firmware of the system", |machine| {
            machine.mount("8:17", "/dev/sdb1", "/boot/firmware")
        }),
        ("the whole disk", |machine| {
            machine.mount("8:16", "/dev/sdb", "/usr")
        }),
        ("swap", |machine| {
            machine.add("proc/swaps", "/dev/sdb2 partition 1000 0 -2")
        }),
        ("logical volume", |machine| {
            machine.put("sys/block/sdb/sdb2/holders/dm-3", "");
            machine.disk("virtual/block/dm-3", "253:3");
            machine.put("sys/block/dm-3/dm/name", "vg-root\n");
        }),
        ("RAID of whole disks", |machine| {
            machine.put("sys/block/sdb/holders/md127", "")
        }),
        ("shown by a loop device", |machine| {
            machine.disk("virtual/block/loop3", "7:3");
            machine.put("sys/block/loop3/loop/backing_file", "/dev/sdb1\n");
        }),
        ("locked", |machine| machine.put("sys/block/sdb/ro", "1\n")),
        ("no card", |machine| {
            machine.put("sys/block/sdb/size", "0\n")
        }),
        ("small", |machine| {
            machine.put("sys/block/sdb/size", "65535\n")
        }),
        ("just large enough", |machine| {
            machine.put("sys/block/sdb/size", "65536\n")
        }),
        ("disc", |machine| {
            machine.put("sys/block/sdb/device/type", "5\n")
        }),
        ("a USB disk says it is fixed", |machine| {
            machine.put("sys/block/sdb/removable", "0\n")
        }),
        ("shows the image", |machine| {
            machine.put("sys/block/sdb/loop/backing_file", "/images/x.img\n")
        }),
    ];
    let mut text = String::new();
    for (name, change) in cases {
        let machine = Machine::with_card();
        change(&machine);
        let inventory = machine.inventory();
        let disk = inventory
            .disks
            .iter()
            .find(|disk| disk.name == "sdb")
            .unwrap();
        text.push_str(&format!(
            "{name}: {}",
            verdict(judge(disk, &wish(65536 * 512)))
        ));
    }
    expect![[r#"
        nothing: may be written to
        mounted: sdb is in use: sdb1 is mounted at /media/boot fs
            look at what is there; if it may go: umount '/media/boot fs'
        by another number: sdb is in use: sdb2 is mounted at /mnt/btrfs
            look at what is there; if it may go: umount /mnt/btrfs
        the system, and something else: sdb is a disk of this system: sdb2 is mounted at /
            `cargo xtask flash IMAGE` lists the disks that images can go on
        firmware of the system: sdb is a disk of this system: sdb1 is mounted at /boot/firmware
            `cargo xtask flash IMAGE` lists the disks that images can go on
        the whole disk: sdb is a disk of this system: sdb is mounted at /usr
            `cargo xtask flash IMAGE` lists the disks that images can go on
        swap: sdb is a disk of this system: memory is swapped out to sdb2
            `cargo xtask flash IMAGE` lists the disks that images can go on
        logical volume: sdb is in use: sdb2 is part of vg-root
            if it is the right disk, stop vg-root first (cryptsetup, vgchange, mdadm)
        RAID of whole disks: sdb is in use: sdb is part of md127
            if it is the right disk, stop md127 first (cryptsetup, vgchange, mdadm)
        shown by a loop device: sdb is in use: sdb1 is part of loop3
            if it is the right disk, detach loop3 first: losetup -d /dev/loop3
        locked: sdb is write-protected
            the small switch on the card's side locks it; a worn-out card locks itself
        no card: there is nothing in sdb
            put a card in
        small: sdb is too small by 512 bytes: it has 33.6 MB, the image 33.6 MB
            take a larger card
        just large enough: may be written to
        disc: sdb is a drive for optical discs
            `cargo xtask flash IMAGE` lists the disks that images can go on
        a USB disk says it is fixed: may be written to
        shows the image: /dev/sdb is the image itself
            name the disk that the image is to go on
    "#]]
    .assert_eq(&text);
}

fn verdict<T>(result: Result<T, Refusal>) -> String {
    match result {
        Ok(_) => "may be written to\n".to_owned(),
        Err(refusal) => format!("{refusal}\n    {}\n", refusal.hint()),
    }
}

#[test]
fn built_in_disks_only_when_they_are_asked_for() {
    let machine = Machine::new();
    machine.disk(
        "pci0000:00/0000:00:17.0/ata3/host2/target2:0:0/2:0:0:0/block/sda",
        "8:0",
    );
    machine.disk("pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1", "259:0");
    machine.disk("platform/mmc_host/mmc1/mmc1:0001/block/mmcblk1", "179:8");
    machine.disk("pci0000:00/0000:00:02.0/virtio1/block/vda", "254:0");
    machine.disk("virtual/block/zram0", "252:0");
    let mut text = String::new();
    for disk in machine.inventory().disks {
        let allowed = Wish {
            fixed_disks: true,
            ..wish(1000)
        };
        assert_eq!(judge(&disk, &allowed), Ok(()), "{}", disk.name);
        text.push_str(&verdict(judge(&disk, &wish(1000))));
    }
    expect![[r#"
        mmcblk1 is built into this machine (eMMC), not a card or a stick
            `cargo xtask flash IMAGE` lists the disks that images can go on; if you do mean a built-in disk, --fixed-disk allows it
        nvme0n1 is built into this machine (NVMe), not a card or a stick
            `cargo xtask flash IMAGE` lists the disks that images can go on; if you do mean a built-in disk, --fixed-disk allows it
        sda is built into this machine (SATA), not a card or a stick
            `cargo xtask flash IMAGE` lists the disks that images can go on; if you do mean a built-in disk, --fixed-disk allows it
        vda is built into this machine (other), not a card or a stick
            `cargo xtask flash IMAGE` lists the disks that images can go on; if you do mean a built-in disk, --fixed-disk allows it
        zram0 is built into this machine (virtual), not a card or a stick
            `cargo xtask flash IMAGE` lists the disks that images can go on; if you do mean a built-in disk, --fixed-disk allows it
    "#]].assert_eq(&text);
    machine.mount("259:0", "/dev/nvme0n1", "/");
    let inventory = machine.inventory();
    let disk = inventory
        .disks
        .iter()
        .find(|disk| disk.name == "nvme0n1")
        .unwrap();
    let allowed = Wish {
        fixed_disks: true,
        ..wish(1000)
    };
    assert!(matches!(judge(disk, &allowed), Err(Refusal::System { .. })));
}

#[test]
fn partitions_and_what_is_no_disk() {
    let machine = Machine::with_card();
    let choose = |path: &str, minor| {
        let number = DeviceNumber { major: 8, minor };
        verdict(choose_disk(
            Path::new(path),
            number,
            &machine.inventory(),
            &wish(1000),
        ))
    };
    let text = [
        choose("/dev/disk/by-label/bootfs", 17),
        choose("/dev/sdb", 16),
        choose("/dev/sdz", 99),
    ]
    .concat();
    expect![[r#"
        /dev/sdb1 is a partition; an image goes on the whole disk
            if you mean all of that disk: /dev/sdb
        may be written to
        /dev/sdz is neither a disk nor a file
            `cargo xtask flash IMAGE` lists the disks that images can go on
    "#]]
    .assert_eq(&text);
}

#[test]
fn names_that_stand_for_no_card() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("x.img"), [0; 2000]).unwrap();
    fs::hard_link(at("x.img"), at("same.img")).unwrap();
    symlink("x.img", at("link.img")).unwrap();
    fs::write(at("small"), [0; 1990]).unwrap();
    fs::write(at("enough"), [0; 2000]).unwrap();
    let image = at("x.img");
    let wish = Wish {
        image: Some(Wanted {
            path: &image,
            size: 2000,
        }),
        fixed_disks: false,
    };
    let machine = Machine::new();
    machine.disk("virtual/block/loop3", "7:3");
    machine.put(
        "sys/block/loop3/loop/backing_file",
        at("shown").to_str().unwrap(),
    );
    fs::write(at("shown"), [0; 2000]).unwrap();
    let inventory = machine.inventory();
    let mut text = String::new();
    for path in [
        at("x.img"),
        at("same.img"),
        at("link.img"),
        at("small"),
        at("enough"),
        at("shown"),
        at("missing"),
        folder.path().to_owned(),
        "/dev/null".into(),
        "/dev/no-such-disk".into(),
    ] {
        text.push_str(&verdict(Destination::choose(&path, &inventory, &wish)));
    }
    let place = folder.path().display().to_string();
    expect![[r#"
        HERE/x.img is the image itself
            name the disk that the image is to go on
        HERE/same.img is the image itself
            name the disk that the image is to go on
        HERE/link.img is the image itself
            name the disk that the image is to go on
        HERE/small is too small by 10 bytes: it has 2.0 kB, the image 2.0 kB
            make it as large as a card: truncate -s 4G HERE/small
        may be written to
        HERE/shown is what /dev/loop3 shows
            write to /dev/loop3, or detach it: losetup -d /dev/loop3
        there is no HERE/missing
            a file that stands for a card has to be there: `truncate -s 4G HERE/missing` makes one
        HERE is neither a disk nor a file
            `cargo xtask flash IMAGE` lists the disks that images can go on
        /dev/null is neither a disk nor a file
            `cargo xtask flash IMAGE` lists the disks that images can go on
        there is no /dev/no-such-disk
            is the card in? `cargo xtask flash IMAGE` lists the disks that images can go on
    "#]]
    .assert_eq(&text.replace(&place, "HERE"));
}

/// A loop device that goes with the test.
struct Loop {
    node: PathBuf,
    file: PathBuf,
}

impl Loop {
    /// `None`, after saying so, where there can be none.
    fn attach(test: &str, folder: &Path, size: u64, options: &[&str]) -> Option<Loop> {
        if !available(
            test,
            &["losetup", "blockdev", "addpart", "mkfs.ext4", "mkswap"],
        ) {
            return None;
        }
        let file = folder.join("shown");
        let opened = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file);
        opened.unwrap().set_len(size).unwrap();
        let output = Command::new("losetup")
            .args(options)
            .args(["--find", "--show", "--partscan"])
            .arg(&file)
            .output()
            .unwrap();
        if !output.status.success() {
            skip(test, "loop devices are root's, and not in every container");
            return None;
        }
        let node = String::from_utf8(output.stdout).unwrap().trim().into();
        Some(Loop { node, file })
    }

    fn name(&self) -> &str {
        self.node.file_name().unwrap().to_str().unwrap()
    }

    fn partitions(&self) -> Vec<DiskPartition> {
        let mut disks = real().unwrap().disks.into_iter();
        let disk = disks.find(|disk| disk.name == self.name());
        disk.unwrap().partitions
    }

    fn choose(&self, image: &Image) -> Result<Destination, Refusal> {
        choose(&self.node, image)
    }

    fn open(&self, image: &Image) -> Card {
        Card::open(&self.choose(image).unwrap(), real).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.node)
            .status();
    }
}

fn real() -> std::io::Result<Inventory> {
    load_inventory(Path::new("/"))
}

fn choose(path: &Path, image: &Image) -> Result<Destination, Refusal> {
    let path_of_image = fs::canonicalize(&image.path).unwrap();
    let wish = Wish {
        image: Some(Wanted {
            path: &path_of_image,
            size: image.map.image_size,
        }),
        fixed_disks: false,
    };
    Destination::choose(path, &real().unwrap(), &wish)
}

#[test]
fn an_image_goes_on_a_loop_device() {
    let folder = tempfile::tempdir().unwrap();
    let image = examine(&image(folder.path(), "x.img.zst", 3_000_000), &Silent).unwrap();
    let test = "an_image_goes_on_a_loop_device";
    let Some(device) = Loop::attach(test, folder.path(), 200 << 20, &[]) else {
        return;
    };
    let card = device.open(&image);
    flash_to(&image, &card, &folder.path().join("journals"), &Silent).unwrap();
    card.reread_partitions();
    drop(card);
    let found = read_image(fs::File::open(&device.node).unwrap()).unwrap();
    assert!(found.boot.is_ok() && found.root.is_ok(), "{found:?}");
    let shown = choose(&device.file, &image);
    assert!(matches!(shown, Err(Refusal::Shown { .. })), "{shown:?}");

    let node = device.node.to_str().unwrap();
    let mut partitions = device.partitions();
    run(folder.path(), "blockdev", &["--rereadpt", node]);
    assert_eq!(device.partitions(), partitions, "they had to be read again");
    if partitions.is_empty() {
        // This kernel reads no partition tables, and is told of one.
        run(folder.path(), "addpart", &[node, "1", "8192", "131072"]);
        partitions = device.partitions();
    }
    assert_eq!(partitions[0].size, 64 << 20);
    assert_eq!(
        choose(&partitions[0].node(), &image).unwrap_err(),
        Refusal::Partition {
            partition: partitions[0].node(),
            whole: device.node.clone(),
        }
    );
}

#[test]
fn loop_devices_in_use_are_refused_and_the_kernel_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let image = examine(&image(folder.path(), "x.img", 100_000), &Silent).unwrap();
    let test = "loop_devices_in_use_are_refused_and_the_kernel_agrees";
    let Some(device) = Loop::attach(test, folder.path(), 200 << 20, &[]) else {
        return;
    };
    let node = device.node.to_str().unwrap();
    let free = device.choose(&image).unwrap();
    let busy = |what: &str| {
        let err = Card::open(&free, real).unwrap_err();
        assert!(matches!(err, OpenError::Busy(_)), "{what}: {err}");
    };

    fs::create_dir(folder.path().join("at")).unwrap();
    run(folder.path(), "mkfs.ext4", &["-q", node]);
    run(folder.path(), "mount", &[node, "at"]);
    let mounted = device.choose(&image);
    busy("mounted");
    run(folder.path(), "umount", &["at"]);
    assert!(
        matches!(mounted, Err(Refusal::Mounted { .. })),
        "{mounted:?}"
    );

    run(folder.path(), "mkswap", &[node]);
    run(folder.path(), "swapon", &[node]);
    let swap = device.choose(&image);
    busy("swap");
    run(folder.path(), "swapoff", &[node]);
    assert!(matches!(swap, Err(Refusal::Swap { .. })), "{swap:?}");

    let card = device.open(&image);
    busy("opened by another");
    drop(card);

    // The card was taken out and another put in.
    run(folder.path(), "losetup", &["--detach", node]);
    let other = folder.path().join("other");
    fs::File::create(&other)
        .unwrap()
        .set_len(200 << 20)
        .unwrap();
    run(folder.path(), "losetup", &[node, other.to_str().unwrap()]);
    let err = Card::open(&free, real).unwrap_err();
    assert!(matches!(err, OpenError::Changed(_)), "{err}");
}

#[test]
fn loop_devices_that_cannot_be_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), "x.img", 100_000);
    let image = examine(&path, &Silent).unwrap();
    let test = "loop_devices_that_cannot_be_written_to";
    let Some(device) = Loop::attach(test, folder.path(), 200 << 20, &["--read-only"]) else {
        return;
    };
    assert_eq!(
        device.choose(&image),
        Err(Refusal::ReadOnly(device.name().into()))
    );
    drop(device);

    let Some(device) = Loop::attach(test, folder.path(), 10 << 20, &[]) else {
        return;
    };
    assert!(matches!(
        device.choose(&image),
        Err(Refusal::TooSmall { .. })
    ));
    drop(device);

    fs::rename(&path, folder.path().join("shown")).unwrap();
    let mut shown = image;
    shown.path = folder.path().join("shown");
    let Some(device) = Loop::attach(test, folder.path(), 200 << 20, &[]) else {
        return;
    };
    assert_eq!(
        device.choose(&shown),
        Err(Refusal::Image(device.node.clone()))
    );
}

/// A loop device whose file became shorter answers as a pulled card does, whose size is nothing.
#[test]
fn a_pulled_card_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let image = examine(&image(folder.path(), "x.img", 40_000_000), &Silent).unwrap();
    let test = "a_pulled_card_is_gone_on_with";
    let Some(device) = Loop::attach(test, folder.path(), 200 << 20, &[]) else {
        return;
    };
    let journals = folder.path().join("journals");
    let resize = |size| {
        let file = fs::File::options().write(true).open(&device.file);
        file.unwrap().set_len(size).unwrap();
        let node = device.node.to_str().unwrap();
        run(folder.path(), "losetup", &["--set-capacity", node]);
    };
    let pulled = At {
        step: "writing",
        act: || resize(24 << 20),
    };
    let card = device.open(&image);
    let err = flash_to(&image, &card, &journals, &pulled).unwrap_err();
    let FlashError::Gone { written, total, .. } = err else {
        panic!("{err}");
    };
    assert!(written > 4096 && written < total, "{written} of {total}");
    assert!(err.hint().contains("goes on where it was"));
    drop(card);

    let mut sector = [0; 512];
    resize(200 << 20);
    fs::File::open(&device.file)
        .unwrap()
        .read_exact_at(&mut sector, 0)
        .unwrap();
    assert!(PartitionTable::decode(&sector).is_err());
    let card = device.open(&image);
    let done = flash_to(&image, &card, &journals, &Silent).unwrap();
    assert!(done.earlier > 0, "{done:?}");
    assert_eq!(done.bytes + done.earlier, image.map.mapped());
}
