//! A small image of the writers' own in which `verify` finds nothing: for tests that break it, compare it or publish it.
//!
//! xtask's tests include this file, so it leans on nothing beside it.

use std::fs::File;
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::path::Path;

use imagegen::board::{Board, load_boards};
use imagegen::inspect::model::{Model, model_named};
use imagegen::make::fat::{FatLabel, FatOptions, write_fat32};
use imagegen::make::image::BOOT_LABEL;
use imagegen::make::initramfs::{InitramfsOptions, write_initramfs};
use imagegen::make::modules::{KernelLists, ModuleIndex};
use imagegen::make::squashfs::{SquashfsOptions, write_squashfs};
use imagegen::plan::disk::{DiskLayout, DiskSignature, DiskSizes};
use imagegen::tree::{Node, Tree};

/// Time of everything in it: 13 November 2026, 12:34:56.
pub(crate) const TIME: u32 = 1_794_573_296;

/// The kernel's.
pub(crate) const RELEASE: &str = "6.12.1-arm64";

/// An image before it is written.
pub(crate) struct Draft {
    pub(crate) boot: Tree,
    pub(crate) initramfs: Tree,
    pub(crate) root: Tree,
    /// Done to the squashfs.
    pub(crate) change_root: fn(Vec<u8>) -> Vec<u8>,
    /// Done to the disk.
    pub(crate) patches: Vec<(usize, Vec<u8>)>,
    pub(crate) size_change: i64,
}

/// A file of the root or the boot partition.
pub(crate) fn text(content: &str) -> Node {
    Node::file(0o644, content.as_bytes())
}

impl Draft {
    /// One that could start a `pi3`, as far as `verify` can tell.
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
                "network={\n\tssid=6c6f75642d6e6574776f726b\n\tpsk=0123456789abcdef\n}\n",
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

    /// Writes it to a file without a name.
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
            label: FatLabel::new(BOOT_LABEL).unwrap(),
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
}

/// The board it is for.
fn pi3() -> Board {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards");
    load_boards(&boards).unwrap().remove("pi3").unwrap()
}

fn models() -> Vec<&'static Model> {
    let names = pi3().models;
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
    for file in pi3().radio.firmware.values().flatten() {
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
pub(crate) fn kernel(release: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x40];
    bytes[0x38..0x3c].copy_from_slice(b"ARM\x64");
    bytes.extend(format!("Linux version %s (%s)\0Linux version {release} (someone)").bytes());
    bytes
}

/// As much of a 64-bit ELF file as is looked at: one program header.
pub(crate) fn program(machine: u16, kind: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20] = 1;
    bytes[32..34].copy_from_slice(&64u16.to_le_bytes());
    bytes[54..58].copy_from_slice(&[56, 0, 1, 0]);
    bytes[64..68].copy_from_slice(&kind.to_le_bytes());
    bytes
}

/// `/ { compatible = "..."; };`
pub(crate) fn device_tree(compatible: &str) -> Vec<u8> {
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
