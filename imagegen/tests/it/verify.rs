//! `verify` on a small image of the writers' own: clean as it is, and one finding for each thing that is broken.

use std::collections::BTreeSet;
use std::io::{Cursor, Write};

use backhand::{FilesystemReader, FilesystemWriter, NodeHeader};
use expect_test::{Expect, expect};
use flate2::Compression;
use flate2::write::GzEncoder;
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

pub(crate) fn with_a_device(root: Vec<u8>) -> Vec<u8> {
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
            // The files are all there, but not the end of the file system.
            |it| it.patches.push((458, (130_000u32).to_le_bytes().to_vec())),
            expect![[r#"
                partition-extent: partition 1 has 66560000 bytes, and its file system 67108864
            "#]],
        ),
        (
            // Of one sector.
            |it| it.patches.push((474, vec![1, 0, 0, 0])),
            expect![[r#"
                root-unreadable: partition 2 cannot be read: failed to read the squashfs
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
            |it| {
                for name in ["start_x.elf", "fixup_x.dat"] {
                    it.boot(name, "with a camera");
                }
                it.config("[cm3]\nstart_file=start_x.elf\n[pi3+]\nfixup_file=gone.dat\n[all]\n");
            },
            expect![[r#"
                firmware-pair: boot/config.txt has start.elf loaded with gone.dat by: 3 Model B+, 3 Model A+
                firmware-pair: boot/config.txt has start_x.elf loaded with fixup.dat by: Compute Module 3
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
            |it| it.root("etc/x", text("SSID=loud-network\n")),
            expect![[r#"
            secret-in-root: root/etc/x holds the network name of site/
        "#]],
        ),
        (
            |it| {
                it.root(
                    "etc/x",
                    text("network={\n\tssid=6C6F75642D6E6574776F726B\n}\n"),
                )
            },
            expect![[r#"
            secret-in-root: root/etc/x holds the network name of site/
        "#]],
        ),
        (
            |it| {
                it.boot(
                    "site/wpa_supplicant.conf",
                    "identity=\"someone@example.org\"\n",
                );
                it.root("etc/x", text("# identity=someone@example.org\n"));
            },
            expect![[r#"
            secret-in-root: root/etc/x holds the identity of site/
        "#]],
        ),
        (
            |it| {
                it.root(
                    "etc/x",
                    text("-----BEGIN PRIVATE KEY-----\r\nMII\r\n-----END PRIVATE KEY-----\r\n"),
                )
            },
            expect![[r#"
            secret-in-root: root/etc/x holds a private key
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
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(&kernel("6.12.2-arm64")).unwrap();
                it.boot("kernel8.img", packed.finish().unwrap());
            },
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
            |it| it.root("usr/bin/tool", Node::file(0o755, asking("libc.so.6", ""))),
            expect![[r#"
                library: root/usr/bin/tool asks for libc.so.6, which is not there
            "#]],
        ),
        (
            |it| {
                let mut bytes = asking("libc.so.6", "");
                // Where its strings are said to be.
                bytes[64 + 2 * 56 + 8..][..8].fill(0xff);
                it.root("usr/bin/tool", Node::file(0o755, bytes));
            },
            expect![[r#"
                library: root/usr/bin/tool is cut off or damaged
            "#]],
        ),
        (
            |it| {
                for (path, content) in [
                    ("default.target", "[Unit]\nRequires=one.target\n"),
                    (
                        "one.target",
                        "[Unit]\nWants=a.service b@x.service\nWants=\n",
                    ),
                    (
                        "one.target.d/10.conf",
                        "[Unit]\n# Two sockets \\\nWants=d.socket g.service\n",
                    ),
                    ("d.socket", "[Socket]\nAccept=yes\n"),
                    ("d@.service", "[Service]\nExecStart=/usr/bin/d\n"),
                    (
                        "g.service",
                        "[Unit]\nConditionPathExists=/etc/gone\nRequires=h.service\n[Service]\nExecStart=/usr/bin/g\n",
                    ),
                    ("h.service", "[Service]\nExecStart=/usr/bin/h\n"),
                    (
                        "one.target.wants/c.socket",
                        "[Socket]\nListenStream=/run/c\n",
                    ),
                    (
                        "a.service",
                        "[Service]\nExecStartPre=-/usr/bin/not-needed\nExecStart=!/usr/bin/a \\\n  --more\nExecStart=/usr/bin/a2 \\",
                    ),
                    ("b@.service", "[Service]\nExecStart=/usr/bin/tool --of %i\n"),
                    (
                        "b@.service.d/10.conf",
                        "[Service]\nExecStart=\nExecStart=/usr/bin/b\n",
                    ),
                    ("c.service", "[Service]\nExecStart=/usr/bin/c\n"),
                    ("never.service", "[Service]\nExecStart=/usr/bin/never\n"),
                ] {
                    it.root(&format!("usr/lib/systemd/system/{path}"), text(content));
                }
                it.root("usr/lib/systemd/system/c.socket", text("[Socket]\n"));
                it.root(
                    "etc/systemd/system/one.target.d/20.conf",
                    Node::symlink("/dev/null"),
                );
            },
            expect![[r#"
                unit-program: root/usr/lib/systemd/system/a.service starts /usr/bin/a, which is not there
                unit-program: root/usr/lib/systemd/system/a.service starts /usr/bin/a2, which is not there
                unit-program: root/usr/lib/systemd/system/b@.service starts /usr/bin/b, which is not there
                unit-program: root/usr/lib/systemd/system/c.service starts /usr/bin/c, which is not there
                unit-program: root/usr/lib/systemd/system/d@.service starts /usr/bin/d, which is not there
                unit-program: root/usr/lib/systemd/system/h.service starts /usr/bin/h, which is not there
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
            |it| {
                let mut bytes = program(22, 1);
                // Big-endian.
                bytes[5] = 2;
                it.root("usr/bin/footbridge", Node::file(0o755, bytes));
            },
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

/// What programs ask for is looked for where their loader would.
#[test]
fn a_library_is_found_where_the_loader_looks() {
    for (place, directories) in [
        ("usr/lib/aarch64-linux-gnu", ""),
        ("usr/lib", ""),
        ("usr/lib/tool", "/usr/lib/tool"),
        ("usr/lib/tool", "/nowhere:$ORIGIN/../lib/tool"),
        ("usr/lib/tool", "${ORIGIN}/../lib/tool"),
    ] {
        let mut draft = Draft::good();
        let program = asking("libc.so.6", directories);
        draft.root("usr/bin/tool", Node::file(0o755, program));
        draft.root(&format!("{place}/libc.so.6"), Node::symlink("libc-2.so"));
        draft.root(&format!("{place}/libc-2.so"), text("library"));
        assert_eq!(findings(draft).0, "", "{place} {directories}");
    }
}

/// Small files that pretend to be large cost little time and memory.
#[test]
fn hostile_programs_and_units_are_survived() {
    let mut draft = Draft::good();
    let mut bytes = asking(&"x".repeat(1 << 20), "");
    let dynamic = 64 + 2 * 56;
    // The section goes on with the same name for ever.
    bytes[dynamic + 32..dynamic + 64].fill(1);
    draft.root("usr/bin/long-name", Node::file(0o755, bytes));
    let deep = "a/".repeat(1 << 19);
    let units = "usr/lib/systemd/system";
    let many: Vec<String> = (0..100_000).map(|n| format!("a@{n}.service")).collect();
    for (name, content) in [
        (
            "default.target",
            "[Unit]\nWants=b.service c.service\n".to_owned(),
        ),
        (
            "c.service",
            format!("[Unit]\nWants={}\n", many[..5000].join(" ")),
        ),
        (
            "a@.service",
            format!("[Service]\nExecStart=/{}\n", &deep[..60_000]),
        ),
        ("b.service", format!("[Service]\nExecStart=/{deep}\n")),
    ] {
        draft.root(&format!("{units}/{name}"), text(&content));
    }
    let (found, _) = findings(draft);
    expect![[r#"
        library: root/usr/bin/long-name is cut off or damaged
    "#]]
    .assert_eq(&found);
}

/// Units that are masked, or whose conditions are not met, start nothing.
#[test]
fn what_is_not_started_needs_no_program() {
    let mut draft = Draft::good();
    for (path, node) in [
        (
            "usr/lib/systemd/system/default.target",
            text("[Unit]\nWants=a.service b.service c.service d.service e.mount\n"),
        ),
        (
            "usr/lib/systemd/system/a.service",
            text("[Service]\nExecStart=/usr/bin/a\n"),
        ),
        ("etc/systemd/system/a.service", Node::symlink("/dev/null")),
        (
            "usr/lib/systemd/system/b.service",
            text("[Unit]\nConditionFileIsExecutable=/usr/bin/b\n[Service]\nExecStart=/usr/bin/b\n"),
        ),
        (
            "usr/lib/systemd/system/c.service",
            text("[Service]\nExecStart=/run/made/later\n"),
        ),
        (
            "usr/lib/systemd/system/d.service",
            text("[Service]\nExecStart=/usr/bin/footbridge run\n"),
        ),
    ] {
        draft.root(path, node);
    }
    assert_eq!(findings(draft).0, "");
}

/// A program for arm64 that asks its loader for a library, in these directories first.
fn asking(library: &str, directories: &str) -> Vec<u8> {
    const LOADED_AT: u64 = 0x1000;
    let strings = format!("\0{library}\0{directories}\0");
    let (needed, run_path, strings_at) = (
        1,
        library.len() as u64 + 2,
        LOADED_AT + 64 + 2 * 56 + 4 * 16,
    );
    let mut bytes = program(183, 1)[..64].to_vec();
    bytes[56] = 2;
    let total = 64 + 2 * 56 + 4 * 16 + strings.len() as u64;
    for (kind, offset, size) in [(1u32, 0, total), (2, 64 + 2 * 56, 4 * 16)] {
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 4]);
        for word in [
            offset,
            LOADED_AT + offset,
            LOADED_AT + offset,
            size,
            size,
            8,
        ] {
            bytes.extend(word.to_le_bytes());
        }
    }
    for (tag, value) in [(5u64, strings_at), (1, needed), (29, run_path), (0, 0)] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(strings.bytes());
    bytes
}

/// A slot of the partition table.
fn entry(kind: u8, first: u32, sectors: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, kind, 0, 0, 0];
    bytes.extend(first.to_le_bytes());
    bytes.extend(sectors.to_le_bytes());
    bytes
}
