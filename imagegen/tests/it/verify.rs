//! `verify` on a small image of the writers' own: clean as it is, and one finding for each thing that is broken.

use std::collections::BTreeSet;
use std::io::Cursor;

use backhand::{FilesystemReader, FilesystemWriter, NodeHeader};
use expect_test::{Expect, expect};
use imagegen::inspect::image::{Image, read_image};
use imagegen::inspect::model::model_named;
use imagegen::inspect::verify::{check_ids, verify};
use imagegen::tree::Node;

use crate::plan::{board, boards};
use crate::sample::{Draft, RELEASE, TIME, device_tree, kernel, program, text};

const BOOT_SECTOR: usize = 4 << 20;

impl Draft {
    pub(crate) fn read(self) -> Image {
        read_image(self.write()).unwrap()
    }

    fn initramfs(&mut self, path: &str, node: Node) {
        self.initramfs.replace(path, node).unwrap();
    }

    pub(crate) fn root(&mut self, path: &str, node: Node) {
        self.root.replace(path, node).unwrap();
    }

    pub(crate) fn boot(&mut self, path: &str, content: impl AsRef<[u8]>) {
        self.boot
            .replace(path, Node::file(0o644, content.as_ref()))
            .unwrap();
    }

    fn config(&mut self, more: &str) {
        let bytes = self.boot.bytes("config.txt").unwrap().to_vec();
        self.boot("config.txt", [&bytes, more.as_bytes()].concat());
    }
}

fn with_a_device(root: Vec<u8>) -> Vec<u8> {
    let filesystem = FilesystemReader::from_reader(Cursor::new(root)).unwrap();
    let mut writer = FilesystemWriter::from_fs_reader(&filesystem).unwrap();
    writer
        .push_char_device(0x0103, "console", NodeHeader::new(0o600, 0, 0, TIME))
        .unwrap();
    let mut bytes = Cursor::new(Vec::new());
    writer.write(&mut bytes).unwrap();
    bytes.into_inner()
}

fn findings(draft: Draft) -> (String, BTreeSet<&'static str>) {
    let found = verify(&draft.read(), &board("pi3"));
    let lines = found
        .iter()
        .map(|finding| format!("{}: {} {}\n", finding.id, finding.place, finding.what));
    (
        lines.collect(),
        found.iter().map(|finding| finding.id).collect(),
    )
}

#[test]
fn a_good_image_is_clean() {
    assert_eq!(findings(Draft::good()).0, "");
}

#[test]
fn every_model_of_every_board_is_known() {
    for (id, board) in boards() {
        for name in board.models.iter().filter(|_| id != "virt") {
            let model = model_named(name).unwrap_or_else(|| panic!("{id}: {name}"));
            let has = |file: &str| {
                let mut paths = board.kernel.device_trees.iter();
                paths.any(|path| path.rsplit('/').next() == Some(file))
            };
            assert!(
                model.device_trees.iter().all(|file| has(file)),
                "{id}: {name}"
            );
        }
    }
}

/// What to break, and what is found then.
type Case = (fn(&mut Draft), Expect);

/// Each check finds what is broken for it, and no other finds anything.
#[test]
fn each_break_is_found_once() {
    let cases: Vec<Case> = vec![
        (
            |it| it.patches.push((450, vec![0x0b])),
            expect![[r#"
            partition-type: partition 1 is of type 0x0b, not 0x0c
        "#]],
        ),
        (
            |it| it.patches.push((466, vec![0x0f])),
            expect![[r#"
            partition-type: partition 2 is of type 0x0f, not 0x83
        "#]],
        ),
        (
            // A third partition, in the gap before the first.
            |it| it.patches.push((478, entry(0x83, 1 << 11, 1))),
            expect![[r#"
                partition-alignment: partition 3 begins at byte 1048576
            "#]],
        ),
        (
            |it| it.size_change = -512,
            expect![[r#"
            partition-extent: partition 2 ends at byte 75497472, and the image at 75496960
        "#]],
        ),
        (
            |it| it.patches.push((478, entry(0x83, 4 << 11, 1))),
            expect![[r#"
                partition-extent: partition 3 overlaps partition 1
            "#]],
        ),
        (
            |it| it.patches.push((440, vec![0; 4])),
            expect![[r#"
            disk-signature: partition table has no signature
        "#]],
        ),
        (
            |it| it.patches.push((BOOT_SECTOR + 510, vec![0, 0])),
            expect![[r#"
                boot-unreadable: partition 1 cannot be read: the boot partition is no FAT32: it has no boot signature
            "#]],
        ),
        (
            |it| it.change_root = |_| vec![0; 4096],
            expect![[r#"
                root-unreadable: partition 2 cannot be read: failed to read the squashfs
            "#]],
        ),
        (
            // Fewer sectors of one sector a cluster.
            |it| {
                it.patches
                    .push((BOOT_SECTOR + 32, 60_000u32.to_le_bytes().to_vec()))
            },
            expect![[r#"
                fat-cluster-count: partition 1 has 57950 clusters, and FAT32 begins at 65525
            "#]],
        ),
        (
            |it| drop(it.boot.remove("bootcode.bin")),
            expect![[r#"
            firmware-missing: boot/bootcode.bin is not there; loaded by: 3 Model B, 3 Model B+, 3 Model A+, Compute Module 3, Zero 2 W
        "#]],
        ),
        (
            |it| drop(it.boot.remove("start.elf")),
            expect![[r#"
            firmware-missing: boot/start.elf is not there; loaded by: 3 Model B, 3 Model B+, 3 Model A+, Compute Module 3, Zero 2 W
        "#]],
        ),
        (
            |it| drop(it.boot.remove("fixup.dat")),
            expect![[r#"
            firmware-pair: boot/start.elf is there without fixup.dat
        "#]],
        ),
        (
            |it| it.boot("start_cd.elf", "cut down"),
            expect![[r#"
            firmware-pair: boot/start_cd.elf is there without fixup_cd.dat
        "#]],
        ),
        (
            |it| it.config("[pi3+]\nkernel=other.img\n[all]\n"),
            expect![[r#"
                kernel-missing: boot/other.img is not there; loaded by: 3 Model B+, 3 Model A+
            "#]],
        ),
        (
            |it| it.config("arm_64bit=0\nkernel=KERNEL8.img\n"),
            expect![[r#"
                kernel-width: boot/KERNEL8.img is for 64 bits, and started with 32
            "#]],
        ),
        (
            |it| it.boot("kernel8.img", "Linux version 6.12.1-arm64 (x)"),
            expect![[r#"
                kernel-width: boot/kernel8.img is no kernel for Arm
            "#]],
        ),
        (
            |it| drop(it.boot.remove("bcm2837-rpi-3-b.dtb")),
            expect![[r#"
                device-tree-missing: boot/bcm2837-rpi-3-b.dtb is not there; loaded by: 3 Model B
            "#]],
        ),
        (
            |it| it.boot("bcm2837-rpi-3-b.dtb", device_tree("raspberrypi,4-model-b")),
            expect![[r#"
                device-tree-model: boot/bcm2837-rpi-3-b.dtb is for raspberrypi,4-model-b, brcm,bcm2837, not 3 Model B
            "#]],
        ),
        (
            |it| it.boot("bcm2837-rpi-3-b.dtb", "text"),
            expect![[r#"
            device-tree-model: boot/bcm2837-rpi-3-b.dtb is no device tree
        "#]],
        ),
        (
            |it| it.config("[cm3]\ninitramfs other\n"),
            expect![[r#"
            initramfs-missing: boot/other is not there; loaded by: Compute Module 3
        "#]],
        ),
        (
            |it| it.config("[cm3]\ncmdline=other\n"),
            expect![[r#"
            command-line-missing: boot/other is not there; loaded by: Compute Module 3
        "#]],
        ),
        (
            |it| {
                let line =
                    String::from_utf8_lossy(it.boot.bytes("cmdline.txt").unwrap()).into_owned();
                it.boot(
                    "cmdline.txt",
                    format!("{} {}", line.trim(), "x".repeat(1000)),
                );
            },
            expect![[r#"
                command-line-length: boot/cmdline.txt has 1 lines of 1071 bytes together
            "#]],
        ),
        (
            |it| {
                let line =
                    String::from_utf8_lossy(it.boot.bytes("cmdline.txt").unwrap()).into_owned();
                it.boot("cmdline.txt", line.replace("-02", "-03"));
            },
            expect![[r#"
                command-line-partitions: boot/cmdline.txt does not say root=PARTUUID=acd24c1d-02
            "#]],
        ),
        (
            |it| it.boot("autoboot.txt", "#".repeat(513)),
            expect![[r#"
            autoboot-length: boot/autoboot.txt has 513 bytes
        "#]],
        ),
        (
            |it| it.boot("autoboot.txt", "boot_partition=2"),
            expect![[r#"
                autoboot-partition: boot/autoboot.txt sends to partition 2: 3 Model B, 3 Model B+, 3 Model A+, Compute Module 3, Zero 2 W
            "#]],
        ),
        (
            |it| it.boot("initramfs.zst", "no archive"),
            expect![[r#"
                initramfs-unreadable: boot/initramfs.zst cannot be read: the initramfs is no cpio archive at byte 0: it ends before its trailer
            "#]],
        ),
        (
            |it| drop(it.initramfs.remove("init")),
            expect![[r#"
            initramfs-init: initramfs/init is not there
        "#]],
        ),
        (
            |it| it.initramfs("init", text("#!/bin/sh")),
            expect![[r#"
            initramfs-init: initramfs/init is not executable
        "#]],
        ),
        (
            |it| it.initramfs("bin/mount", Node::symlink("toybox")),
            expect![[r#"
                initramfs-links: initramfs/bin/mount leads to toybox, which is not there
            "#]],
        ),
        (
            |it| it.initramfs("etc/modules", text("vfat missing-one\n")),
            expect![[r#"
                initramfs-modules: initramfs/etc/modules names missing_one, which is neither a file nor built in
            "#]],
        ),
        (
            |it| it.root("etc/link", Node::symlink("../nowhere")),
            expect![[r#"
                dangling-link: root/etc/link leads to ../nowhere, which is not there
            "#]],
        ),
        (
            |it| it.root("etc/link", Node::symlink("link")),
            expect![[r#"
                dangling-link: root/etc/link leads to link, and round in circles
            "#]],
        ),
        (
            |it| it.root("etc/key", text("-----BEGIN PRIVATE KEY-----\nabc\n")),
            expect![[r#"
                secret-in-root: root/etc/key holds a private key
            "#]],
        ),
        (
            |it| it.root("etc/x", text("psk is 0123456789abcdef!")),
            expect![[r#"
                secret-in-root: root/etc/x holds the key of site/
            "#]],
        ),
        (
            |it| it.root("etc/x", text("loud-network")),
            expect![[r#"
            secret-in-root: root/etc/x holds the network name of site/
        "#]],
        ),
        (
            |it| it.root("etc/x", text("AAAAloudkey")),
            expect![[r#"
            secret-in-root: root/etc/x holds the SSH key of site/
        "#]],
        ),
        (
            |it| it.root("etc/shadow", text("root:$y$j9T$x:1::::::\nguest::1::::::")),
            expect![[r#"
                password-in-root: root/etc/shadow has a password of root
                password-in-root: root/etc/shadow lets guest in without a password
            "#]],
        ),
        (
            |it| it.root("etc/ssh/ssh_host_rsa_key.pub", text("ssh-rsa")),
            expect![[r#"
                ssh-host-key: root/etc/ssh/ssh_host_rsa_key.pub is a host key
            "#]],
        ),
        (
            |it| it.root("etc/machine-id", text("0123\n")),
            expect![[r#"
                machine-id: root/etc/machine-id holds an id
            "#]],
        ),
        (
            |it| it.root("usr/bin/su", Node::file(0o4755, *b"su")),
            expect![[r#"
                set-id: root/usr/bin/su has mode 4755
            "#]],
        ),
        (
            |it| it.root("etc/open", Node::file(0o666, *b"")),
            expect![[r#"
                world-writable: root/etc/open has mode 0666
            "#]],
        ),
        (
            |it| it.root("srv", Node::directory(0o777)),
            expect![[r#"
            world-writable: root/srv has mode 0777
        "#]],
        ),
        (
            |it| it.change_root = with_a_device,
            expect![[r#"
            device-node: root/console is a character device
        "#]],
        ),
        (
            |it| it.boot("kernel8.img", kernel("6.12.2-arm64")),
            expect![[r#"
                kernel-release: root/usr/lib/modules has modules of 6.12.1-arm64, and boot/kernel8.img is 6.12.2-arm64
                kernel-release: initramfs/lib/modules has modules of 6.12.1-arm64, and boot/kernel8.img is 6.12.2-arm64
            "#]],
        ),
        (
            |it| {
                it.root(
                    &format!("usr/lib/modules/{RELEASE}/modules.dep"),
                    text("a: b\n"),
                )
            },
            expect![[r#"
                module-index: root/usr/lib/modules/6.12.1-arm64/modules.dep does not agree with the modules
            "#]],
        ),
        (
            |it| {
                drop(
                    it.root
                        .remove(&format!("usr/lib/modules/{RELEASE}/modules.alias.bin")),
                )
            },
            expect![[r#"
                module-index: root/usr/lib/modules/6.12.1-arm64/modules.alias.bin is not there
            "#]],
        ),
        (
            |it| {
                it.root(
                    &format!("usr/lib/modules/{RELEASE}/kernel/x.ko"),
                    text("no ELF"),
                )
            },
            expect![[r#"
                module-index: root/usr/lib/modules/6.12.1-arm64 kernel/x.ko is not a kernel module: it is no ELF file
            "#]],
        ),
        (
            |it| drop(it.root.remove("usr/bin/footbridge")),
            expect![[r#"
                agent: root/usr/bin/footbridge is not there
            "#]],
        ),
        (
            |it| it.root("usr/bin/footbridge", Node::file(0o644, program(183, 1))),
            expect![[r#"
                agent: root/usr/bin/footbridge is not executable
            "#]],
        ),
        (
            |it| it.root("usr/bin/footbridge", Node::file(0o755, program(62, 1))),
            expect![[r#"
                agent: root/usr/bin/footbridge is a program for another processor than arm64
            "#]],
        ),
        (
            |it| it.root("usr/bin/footbridge", Node::file(0o755, program(183, 3))),
            expect![[r#"
                agent: root/usr/bin/footbridge needs libraries to be started; it has to be static
            "#]],
        ),
        (
            |it| it.root("usr/bin/footbridge", Node::file(0o755, *b"#!/bin/sh")),
            expect![[r#"
                agent: root/usr/bin/footbridge is no program
            "#]],
        ),
        (
            |it| {
                drop(
                    it.root
                        .remove("usr/lib/firmware/brcm/brcmfmac43430-sdio.bin"),
                )
            },
            expect![[r#"
                radio-firmware: root/usr/lib/firmware/brcm/brcmfmac43430-sdio.bin is not there
            "#]],
        ),
        (
            |it| drop(it.root.remove("usr/lib/firmware/regulatory.db")),
            expect![[r#"
                radio-firmware: root/usr/lib/firmware/regulatory.db is not there
            "#]],
        ),
    ];
    let (mut covered, mut not_one) = (BTreeSet::new(), Vec::new());
    for (break_it, expected) in cases {
        let mut draft = Draft::good();
        break_it(&mut draft);
        let (lines, ids) = findings(draft);
        expected.assert_eq(&lines);
        if ids.len() != 1 {
            not_one.push(lines);
        }
        covered.extend(ids);
    }
    assert_eq!(not_one, [""; 0]);
    assert_eq!(covered, check_ids().collect());
}

/// A slot of the partition table.
fn entry(kind: u8, first: u32, sectors: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, kind, 0, 0, 0];
    bytes.extend(first.to_le_bytes());
    bytes.extend(sectors.to_le_bytes());
    bytes
}
