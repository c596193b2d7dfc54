//! `verify` on a small image of the writers' own: clean as it is, and one finding for each thing that is broken.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Cursor, Seek, SeekFrom, Write};

use backhand::{FilesystemReader, FilesystemWriter, NodeHeader};
use expect_test::{Expect, expect};
use imagegen::inspect::image::{Image, read_image};
use imagegen::inspect::model::{Model, model_named};
use imagegen::inspect::verify::{check_ids, verify};
use imagegen::make::fat::{FatLabel, FatOptions, write_fat32};
use imagegen::make::initramfs::{InitramfsOptions, write_initramfs};
use imagegen::make::modules::{KernelLists, ModuleIndex};
use imagegen::make::squashfs::{SquashfsOptions, write_squashfs};
use imagegen::plan::disk::{DiskLayout, DiskSignature, DiskSizes};
use imagegen::tree::{Node, Tree};

use crate::plan::{board, boards};
use crate::writers::TIME;

const RELEASE: &str = "6.12.1-arm64";
const BOOT_SECTOR: usize = 4 << 20;

/// An image before it is written.
pub(crate) struct Draft {
    pub(crate) boot: Tree,
    pub(crate) initramfs: Tree,
    pub(crate) root: Tree,
    /// Done to the squashfs.
    change_root: fn(Vec<u8>) -> Vec<u8>,
    /// Done to the disk.
    patches: Vec<(usize, Vec<u8>)>,
    size_change: i64,
}

fn text(content: &str) -> Node {
    Node::file(0o644, content.as_bytes())
}

impl Draft {
    pub(crate) fn good() -> Self {
        let signature = DiskSignature::derive(b"verify");
        let mut boot = Tree::new();
        let command_line = format!(
            "console=tty1 root=PARTUUID={} boot=PARTUUID={} quiet\n",
            signature.root_partuuid(),
            signature.boot_partuuid()
        );
        for (path, content) in [
            ("bootcode.bin", "boot code"),
            ("start.elf", "start"),
            ("fixup.dat", "fixup"),
            (
                "config.txt",
                "arm_64bit=1\nkernel=kernel8.img\ninitramfs initramfs.zst followkernel\nupstream_kernel=1\n",
            ),
            ("cmdline.txt", &command_line),
            (
                "site/wpa_supplicant.conf",
                "network={\n\tssid=\"loud-network\"\n\tpsk=0123456789abcdef\n}\n",
            ),
            ("site/authorized_keys", "ssh-ed25519 AAAAloudkey me\n"),
        ] {
            boot.insert(path, text(content)).unwrap();
        }
        boot.insert("kernel8.img", Node::file(0o644, kernel(RELEASE)))
            .unwrap();
        for model in models() {
            for name in model.device_trees {
                boot.insert(*name, Node::file(0o644, device_tree(model.compatible[0])))
                    .unwrap();
            }
        }
        Self {
            boot,
            initramfs: good_initramfs(),
            root: good_root(),
            change_root: |bytes| bytes,
            patches: Vec::new(),
            size_change: 0,
        }
    }

    pub(crate) fn write(mut self) -> File {
        let mut initramfs = Vec::new();
        let options = InitramfsOptions {
            zstd_level: 1,
            ..InitramfsOptions::at(TIME)
        };
        write_initramfs(&self.initramfs, &options, &mut initramfs).unwrap();
        if !self.boot.contains("initramfs.zst") {
            self.boot
                .insert("initramfs.zst", Node::file(0o644, initramfs))
                .unwrap();
        }
        let root = (self.change_root)(squashfs(&self.root));
        let sizes = DiskSizes {
            boot: 64 << 20,
            root: root.len() as u64,
        };
        let layout = DiskLayout::new(DiskSignature::derive(b"verify"), sizes).unwrap();
        let mut boot = Cursor::new(Vec::new());
        let options = FatOptions {
            size: layout.boot.size,
            first_sector: layout.boot.first_sector(),
            volume_id: 1,
            label: FatLabel::new("BOOT").unwrap(),
            time: TIME,
        };
        // What is behind the used part stays a hole.
        let used = write_fat32(&self.boot, &options, &mut boot).unwrap();
        let boot = boot.into_inner();

        let mut file = tempfile::tempfile().unwrap();
        let mut write = |at: u64, bytes: &[u8]| {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(bytes).unwrap();
        };
        write(0, &layout.partition_table().encode());
        write(layout.boot.offset, &boot[..used as usize]);
        write(layout.root.offset, &root);
        for (at, bytes) in &self.patches {
            write(*at as u64, bytes);
        }
        file.set_len(layout.total.checked_add_signed(self.size_change).unwrap())
            .unwrap();
        file
    }

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

fn models() -> Vec<&'static Model> {
    let names = board("pi3").models;
    names
        .iter()
        .map(|name| model_named(name).unwrap())
        .collect()
}

fn squashfs(tree: &Tree) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let options = SquashfsOptions {
        zstd_level: 1,
        ..SquashfsOptions::at(TIME)
    };
    write_squashfs(tree, &options, &mut bytes).unwrap();
    bytes.into_inner()
}

fn good_initramfs() -> Tree {
    let mut tree = Tree::new();
    for (path, node) in [
        ("init", Node::file(0o755, *b"#!/bin/sh")),
        ("bin/busybox", Node::file(0o755, *b"box")),
        ("bin/sh", Node::symlink("busybox")),
        ("etc/modules", text("vfat\n")),
        ("etc/site-files", text("hostname 0644 etc/hostname\n")),
    ] {
        tree.insert(path, node).unwrap();
    }
    add_modules(&mut tree, "lib");
    tree
}

fn good_root() -> Tree {
    let mut tree = Tree::new();
    for (path, node) in [
        ("etc/machine-id", text("")),
        ("etc/resolv.conf", Node::symlink("/run/resolve/resolv.conf")),
        ("etc/name", Node::symlink("hostname")),
        ("etc/masked.service", Node::symlink("/dev/null")),
        (
            "etc/shadow",
            Node::file(0o600, *b"root:*:20000::::::\nother:!:20000::::::\n"),
        ),
        ("bin", Node::symlink("usr/bin")),
        ("tmp", Node::directory(0o1777)),
        ("usr/bin/footbridge", Node::file(0o755, program(183, 1))),
        ("usr/lib/firmware/regulatory.db", text("countries")),
        ("usr/lib/firmware/regulatory.db.p7s", text("signature")),
    ] {
        tree.insert(path, node).unwrap();
    }
    for file in board("pi3").radio.firmware.values().flatten() {
        tree.insert(format!("usr/lib/firmware/{file}"), text("firmware"))
            .unwrap();
    }
    add_modules(&mut tree, "usr/lib");
    tree
}

/// A kernel with one module, which is built in.
fn add_modules(tree: &mut Tree, lib: &str) {
    let directory = format!("{lib}/modules/{RELEASE}");
    let lists = KernelLists {
        order: "",
        builtin: "kernel/fs/fat/vfat.ko\n",
        builtin_modinfo: &[],
    };
    let index = ModuleIndex::build([], &lists).unwrap();
    index.write_into(tree, &directory).unwrap();
    for (name, content) in [
        ("modules.order", ""),
        ("modules.builtin", lists.builtin),
        ("modules.builtin.modinfo", ""),
    ] {
        tree.replace(format!("{directory}/{name}"), text(content))
            .unwrap();
    }
}

/// As much of an arm64 Image as is looked at.
fn kernel(release: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x40];
    bytes[0x38..0x3c].copy_from_slice(b"ARM\x64");
    bytes.extend(format!("Linux version %s (%s)\0Linux version {release} (someone)").bytes());
    bytes
}

/// As much of a 64-bit ELF file as is looked at: one program header.
fn program(machine: u16, kind: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32..34].copy_from_slice(&64u16.to_le_bytes());
    bytes[54..58].copy_from_slice(&[56, 0, 1, 0]);
    bytes[64..68].copy_from_slice(&kind.to_le_bytes());
    bytes
}

/// `/ { compatible = "..."; };`
fn device_tree(compatible: &str) -> Vec<u8> {
    let strings = b"compatible\0";
    let value = format!("{compatible}\0brcm,bcm2837\0");
    let mut structure = Vec::new();
    for word in [1, 0, 3, value.len() as u32, 0] {
        structure.extend(word.to_be_bytes());
    }
    structure.extend(value.bytes());
    structure.resize(structure.len().next_multiple_of(4), 0);
    for word in [2u32, 9] {
        structure.extend(word.to_be_bytes());
    }
    let at = 40 + 16;
    let header = [
        0xd00d_feed,
        at + structure.len() + strings.len(),
        at,
        at + structure.len(),
        40,
        17,
        16,
        0,
        strings.len(),
        structure.len(),
    ];
    let mut bytes: Vec<u8> = header
        .iter()
        .flat_map(|word| (*word as u32).to_be_bytes())
        .collect();
    bytes.extend([0; 16]);
    bytes.extend(structure);
    bytes.extend(strings);
    bytes
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
