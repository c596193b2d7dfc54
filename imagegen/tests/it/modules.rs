//! The module index against the real depmod, on modules made up here and, where one is at hand, on those of a real kernel.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use expect_test::expect;
use imagegen::make::deb::unpack_deb;
use imagegen::make::kernel::take_kernel;
use imagegen::make::modules::{KernelLists, ModuleIndex, ModuleInfo};
use imagegen::tree::{Node, Tree};
use proptest::prelude::*;

use crate::readers::{available, run, skip};

/// Names a kernel's package (`linux-image-….deb`) whose modules are compared besides the made-up ones.
const REAL_KERNEL: &str = "FOOTBRIDGE_TEST_KERNEL";

/// Bytes the package may unpack to.
const KERNEL_MAX: u64 = 4 << 30;

const VERSION: &str = "6.12.0-test";

/// A module to be made.
#[derive(Clone, Debug, Default)]
struct Recipe<'a> {
    info: &'a [&'a str],
    exports: &'a [&'a str],
    imports: &'a [&'a str],
}

/// A relocatable ELF with just the sections that matter; `wide` is the 64-bit format.
fn elf(recipe: &Recipe<'_>, wide: bool) -> Vec<u8> {
    let mut strtab = vec![0];
    let mut symtab = vec![0; if wide { 24 } else { 16 }];
    let crcs = recipe
        .exports
        .iter()
        .map(|name| (format!("__crc_{name}"), 0xfff1u16));
    let undefined = recipe.imports.iter().map(|name| ((*name).to_owned(), 0));
    for (name, section) in crcs.chain(undefined) {
        symtab.extend((strtab.len() as u32).to_le_bytes());
        if wide {
            symtab.extend([0x10, 0]);
            symtab.extend(section.to_le_bytes());
            symtab.extend([0; 16]);
        } else {
            symtab.extend([0; 8]);
            symtab.extend([0x10, 0]);
            symtab.extend(section.to_le_bytes());
        }
        strtab.extend(name.as_bytes());
        strtab.push(0);
    }
    let modinfo: Vec<u8> = recipe
        .info
        .iter()
        .flat_map(|field| [field.as_bytes(), b"\0"].concat())
        .collect();
    let sections = [
        ("", 0u32, vec![]),
        (".modinfo", 1, modinfo),
        (".symtab", 2, symtab),
        (".strtab", 3, strtab),
        (".shstrtab", 3, vec![]),
    ];
    assemble(sections.to_vec(), wide)
}

fn assemble(mut sections: Vec<(&str, u32, Vec<u8>)>, wide: bool) -> Vec<u8> {
    let names: Vec<u8> = sections
        .iter()
        .flat_map(|(name, ..)| [name.as_bytes(), b"\0"].concat())
        .collect();
    sections.last_mut().unwrap().2 = names;
    let word = |value: usize| {
        if wide {
            (value as u64).to_le_bytes().to_vec()
        } else {
            (value as u32).to_le_bytes().to_vec()
        }
    };
    let header_size = if wide { 64 } else { 52 };
    let mut body = Vec::new();
    let mut headers = Vec::new();
    let mut name_at = 0u32;
    for (name, kind, bytes) in &sections {
        body.resize(body.len().next_multiple_of(8), 0);
        headers.extend(name_at.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        headers.extend(
            [
                word(0),
                word(0),
                word(header_size + body.len()),
                word(bytes.len()),
            ]
            .concat(),
        );
        // link, info, alignment, entry size
        headers.extend(if *kind == 2 { 3u32 } else { 0 }.to_le_bytes());
        headers.extend(0u32.to_le_bytes());
        headers.extend(
            [
                word(1),
                word(if *kind == 2 {
                    if wide { 24 } else { 16 }
                } else {
                    0
                }),
            ]
            .concat(),
        );
        body.extend(bytes);
        name_at += name.len() as u32 + 1;
    }
    body.resize(body.len().next_multiple_of(8), 0);
    let mut file = b"\x7fELF".to_vec();
    file.extend([if wide { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(1u16.to_le_bytes());
    file.extend(if wide { 183u16 } else { 40 }.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend([word(0), word(0), word(header_size + body.len())].concat());
    file.extend(0u32.to_le_bytes());
    for half in [
        header_size,
        0,
        0,
        if wide { 64 } else { 40 },
        sections.len(),
        sections.len() - 1,
    ] {
        file.extend((half as u16).to_le_bytes());
    }
    assert_eq!(file.len(), header_size);
    [file, body, headers].concat()
}

fn sample() -> Vec<(&'static str, Recipe<'static>)> {
    let recipe = |info, exports, imports| Recipe {
        info,
        exports,
        imports,
    };
    vec![
        (
            "kernel/net/rfkill/rfkill.ko",
            recipe(
                &["alias=devname:rfkill", "alias=char-major-10-242"],
                &["rfkill_alloc"],
                &["printk"],
            ),
        ),
        (
            "kernel/net/wireless/cfg80211.ko",
            recipe(
                &["alias=net-pf-16-proto-16-family-nl80211", "depends=rfkill"],
                &["wiphy_new", "wiphy_free"],
                &["rfkill_alloc"],
            ),
        ),
        (
            "kernel/drivers/net/brcm-fmac.ko",
            recipe(
                &[
                    "alias=sdio:c*v02D0dA9A6*",
                    "alias=of:N*T*Cbrcm,bcm4329-fmac",
                    "alias=pci:v000014E4d000043[A-C]-sv*",
                    "alias=broken[",
                    "alias=broken]",
                    "softdep=post: brcm-late",
                    "firmware=brcm/brcmfmac43430-sdio.bin",
                ],
                &["brcmf_fwvid"],
                &["wiphy_free", "wiphy_new", "brcmu_pktq", "module_layout"],
            ),
        ),
        (
            "kernel/drivers/net/brcmutil.ko",
            recipe(&[], &["brcmu_pktq"], &[]),
        ),
        (
            "kernel/drivers/net/brcm-late.ko",
            recipe(&["weakdep=crc-soft"], &[], &["brcmf_fwvid"]),
        ),
        (
            "kernel/lib/crc-soft.ko",
            recipe(&["alias=crypto-crc32c", "alias=crc32c"], &[], &[]),
        ),
        (
            "kernel/lib/crc-fast.ko",
            recipe(&["alias=crypto-crc32c", "softdep=pre: user"], &[], &[]),
        ),
        (
            "kernel/fs/user.ko",
            recipe(
                &[
                    "softdep=pre: crypto-crc32c nothing-such post: brcmutil",
                    "alias=fs-user",
                ],
                &[],
                &[],
            ),
        ),
    ]
}

const LISTS: KernelLists<'_> = KernelLists {
    order: "kernel/fs/user.ko\nkernel/gone.ko\nkernel/lib/crc-soft.ko\nkernel/lib/crc-fast.ko\nkernel/net/rfkill/rfkill.ko\n\
            kernel/net/wireless/cfg80211.ko\nkernel/drivers/net/brcmutil.ko\nkernel/drivers/net/brcm-fmac.ko\n\
            kernel/drivers/net/brcm-late.ko\n",
    builtin: "kernel/fs/ext4/ext4.ko\nkernel/drivers/mmc/core/mmc-block.ko\n",
    builtin_modinfo: b"ext4.license=GPL\0ext4.alias=fs-ext4\0ext4.alias=fs-ext3\0mmc_block.alias=mmc:block\0x.alias=fs-ext4\0",
};

fn build(recipes: &[(&str, Recipe<'_>)], wide: bool) -> ModuleIndex {
    let files: Vec<(&str, Vec<u8>)> = recipes
        .iter()
        .map(|(path, recipe)| (*path, elf(recipe, wide)))
        .collect();
    ModuleIndex::build(
        files.iter().map(|(path, bytes)| (*path, bytes.as_slice())),
        &LISTS,
    )
    .unwrap()
}

/// Runs depmod on a root with `lib/modules/VERSION` and compares what it wrote.
fn compare_with_depmod(root: &Path, version: &str, index: &ModuleIndex) {
    run(root, "depmod", &["-b", root.to_str().unwrap(), version]);
    for (name, ours) in index.files() {
        let Ok(theirs) = fs::read(root.join("lib/modules").join(version).join(name)) else {
            // Older versions know no weak dependencies.
            assert_eq!(name, "modules.weakdep");
            continue;
        };
        // This one is in the order of a hash table.
        if name == "modules.symbols" {
            assert_eq!(sorted_lines(&ours), sorted_lines(&theirs));
        } else if ours != theirs {
            let at = ours
                .iter()
                .zip(&theirs)
                .take_while(|(one, other)| one == other)
                .count();
            panic!(
                "{name} differs from byte {at} on; {} and {} bytes",
                ours.len(),
                theirs.len()
            );
        }
    }
}

fn sorted_lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = String::from_utf8_lossy(bytes)
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[test]
fn depmod_agrees_about_made_up_modules() {
    if !available("depmod_agrees_about_made_up_modules", &["depmod"]) {
        return;
    }
    for wide in [true, false] {
        let scratch = tempfile::tempdir().unwrap();
        let kernel = scratch.path().join("lib/modules").join(VERSION);
        for (path, recipe) in sample() {
            fs::create_dir_all(kernel.join(path).parent().unwrap()).unwrap();
            fs::write(kernel.join(path), elf(&recipe, wide)).unwrap();
        }
        fs::write(kernel.join("modules.order"), LISTS.order).unwrap();
        fs::write(kernel.join("modules.builtin"), LISTS.builtin).unwrap();
        fs::write(
            kernel.join("modules.builtin.modinfo"),
            LISTS.builtin_modinfo,
        )
        .unwrap();
        compare_with_depmod(scratch.path(), VERSION, &build(&sample(), wide));
    }
}

/// The package of a kernel with the sample's modules, each with the `depends` that the kernel's build would give it.
fn packaged() -> Tree {
    let owner = |symbol: &str| {
        let mut owners = sample().into_iter();
        owners.find_map(|(path, recipe)| recipe.exports.contains(&symbol).then(|| name_of(path)))
    };
    let mut tree = Tree::new();
    let mut put = |path: String, bytes: &[u8]| {
        tree.insert(path, Node::file(0o644, bytes)).unwrap();
    };
    let directory = format!("usr/lib/modules/{VERSION}");
    for (path, recipe) in sample() {
        let owners: Vec<&str> = recipe
            .imports
            .iter()
            .filter_map(|name| owner(name))
            .collect();
        let depends = format!("depends={}", owners.join(","));
        let info = [recipe.info, &[&depends]].concat();
        let module = elf(
            &Recipe {
                info: &info,
                ..recipe
            },
            true,
        );
        put(format!("{directory}/{path}.xz"), &xz(&module));
    }
    put(format!("boot/vmlinuz-{VERSION}"), b"kernel");
    put(format!("{directory}/modules.order"), LISTS.order.as_bytes());
    put(
        format!("{directory}/modules.builtin"),
        LISTS.builtin.as_bytes(),
    );
    put(
        format!("{directory}/modules.builtin.modinfo"),
        LISTS.builtin_modinfo,
    );
    tree
}

fn name_of(path: &str) -> &str {
    path.rsplit('/')
        .next()
        .unwrap()
        .strip_suffix(".ko")
        .unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1)
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

#[test]
fn a_kernel_finds_what_modules_need_as_the_index_of_all_does() {
    let all = build(&sample(), true);
    let kernel = take_kernel(&packaged(), VERSION).unwrap();
    for (path, recipe) in sample() {
        let name = name_of(path).to_owned();
        let found = kernel.load_order(std::slice::from_ref(&name)).unwrap();
        let paths: Vec<&String> = found.iter().map(|(path, _)| path).collect();
        assert_eq!(
            paths,
            all.closure(&[&name]).unwrap().iter().collect::<Vec<_>>()
        );
        let (last, bytes) = found.last().unwrap();
        assert_eq!(last, path);
        assert_eq!(ModuleInfo::parse(bytes).unwrap().exports, recipe.exports);
    }
    let unknown = kernel.load_order(&["nothing-such".to_owned()]).unwrap_err();
    expect!["failed to index the kernel's modules"].assert_eq(&unknown.to_string());
}

#[test]
fn a_kernel_reads_only_what_may_be_needed() {
    let mut package = packaged();
    let damaged = format!("usr/lib/modules/{VERSION}/kernel/drivers/damaged.ko.xz");
    package
        .insert(damaged, Node::file(0o644, *b"no xz"))
        .unwrap();
    let kernel = take_kernel(&package, VERSION).unwrap();
    let reads = |name: &str| kernel.load_order(&[name.to_owned()]).is_ok();
    assert!(reads("brcm-fmac") && reads("mmc-block"));
    assert!(!reads("damaged"));
    // It names an alias as needed first, and any module might have that.
    assert!(!reads("user"));
}

#[test]
fn depmod_agrees_about_a_real_kernel() {
    let test = "depmod_agrees_about_a_real_kernel";
    let Some(package) = std::env::var_os(REAL_KERNEL) else {
        return skip(test, &format!("{REAL_KERNEL} names no kernel package"));
    };
    if !available(test, &["depmod"]) {
        return;
    }
    let mut unpacked = Tree::new();
    unpack_deb(
        &fs::read(package).unwrap(),
        KERNEL_MAX,
        &mut unpacked,
        |_| true,
    )
    .unwrap();
    let (version, _) = unpacked.entries("usr/lib/modules").next().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let kernel = scratch.path().join("lib/modules").join(version);
    let modules = decompressed(&unpacked, &format!("usr/lib/modules/{version}"));
    for (path, node) in modules.iter() {
        let target = kernel.join(path.strip_prefix("m/").unwrap_or(""));
        match node.bytes() {
            Some(bytes) => fs::write(target, bytes).unwrap(),
            None => fs::create_dir_all(target).unwrap(),
        }
    }
    let index = ModuleIndex::of_tree(&modules, "m").unwrap();
    assert!(index.paths().count() > 100, "no kernel has so few modules");
    compare_with_depmod(scratch.path(), version, &index);
}

/// The modules of a kernel below `m/`, and the lists beside them.
fn decompressed(tree: &Tree, directory: &str) -> Tree {
    let mut modules = Tree::new();
    for (path, node) in tree.subtree(directory) {
        let path = path.replacen(directory, "m", 1);
        let node = match (path.strip_suffix(".xz"), node.bytes()) {
            (Some(_), Some(bytes)) => {
                let mut plain = Vec::new();
                liblzma::read::XzDecoder::new(&bytes[..])
                    .read_to_end(&mut plain)
                    .unwrap();
                Node::file(0o644, plain)
            }
            _ if path.ends_with("/build") || path.ends_with("/source") => continue,
            _ => node.clone(),
        };
        modules.insert(path.trim_end_matches(".xz"), node).unwrap();
    }
    modules
}

#[test]
fn closure_is_in_the_order_of_loading() {
    let index = build(&sample(), true);
    let closure = |names: &[&str]| match index.closure(names) {
        Ok(paths) => paths
            .iter()
            .map(|path| path.rsplit('/').next().unwrap())
            .collect::<Vec<_>>()
            .join(" "),
        Err(err) => err.to_string(),
    };
    for (names, expected) in [
        (
            &["brcm_late"][..],
            expect!["rfkill.ko cfg80211.ko brcmutil.ko brcm-fmac.ko brcm-late.ko"],
        ),
        (
            &["cfg80211", "brcmutil", "rfkill"],
            expect!["rfkill.ko cfg80211.ko brcmutil.ko"],
        ),
        (&["user"], expect!["crc-soft.ko crc-fast.ko user.ko"]),
        (&["ext4", "mmc_block", "mmc-block"], expect![""]),
        (&["squashfs"], expect!["this kernel has no module squashfs"]),
    ] {
        expected.assert_eq(&closure(names));
    }
}

#[test]
fn a_subset_is_as_if_the_others_had_never_been() {
    let index = build(&sample(), true);
    let paths = index.closure(&["cfg80211"]).unwrap();
    let few: Vec<_> = sample()
        .into_iter()
        .filter(|(path, _)| paths.iter().any(|kept| kept == path))
        .collect();
    assert_eq!(few.len(), 2);
    assert_eq!(
        index.subset(&paths).unwrap().files(),
        build(&few, true).files()
    );
    assert_eq!(
        index
            .info("brcm_fmac")
            .unwrap()
            .values("firmware")
            .collect::<Vec<_>>(),
        ["brcm/brcmfmac43430-sdio.bin"]
    );
}

#[test]
fn a_tree_is_read_and_indexed_in_place() {
    let mut tree = Tree::new();
    for (path, recipe) in sample() {
        tree.insert(
            format!("usr/lib/modules/{VERSION}/{path}"),
            Node::file(0o644, elf(&recipe, true)),
        )
        .unwrap();
    }
    let directory = format!("usr/lib/modules/{VERSION}");
    tree.insert(
        format!("{directory}/modules.order"),
        Node::file(0o644, LISTS.order.as_bytes()),
    )
    .unwrap();
    let index = ModuleIndex::of_tree(&tree, &directory).unwrap();
    index.write_into(&mut tree, &directory).unwrap();
    let dep = tree.bytes(&format!("{directory}/modules.dep")).unwrap();
    expect![[r#"
        kernel/fs/user.ko:
        kernel/lib/crc-soft.ko:
        kernel/lib/crc-fast.ko:
        kernel/net/rfkill/rfkill.ko:
        kernel/net/wireless/cfg80211.ko: kernel/net/rfkill/rfkill.ko
        kernel/drivers/net/brcmutil.ko:
        kernel/drivers/net/brcm-fmac.ko: kernel/drivers/net/brcmutil.ko kernel/net/wireless/cfg80211.ko kernel/net/rfkill/rfkill.ko
        kernel/drivers/net/brcm-late.ko: kernel/drivers/net/brcm-fmac.ko kernel/drivers/net/brcmutil.ko kernel/net/wireless/cfg80211.ko kernel/net/rfkill/rfkill.ko
    "#]].assert_eq(&String::from_utf8_lossy(dep));
}

fn check_refusal(recipes: &[(&str, Recipe<'_>)], expected: expect_test::Expect) {
    let files: BTreeMap<&str, Vec<u8>> = recipes
        .iter()
        .map(|(path, recipe)| (*path, elf(recipe, true)))
        .collect();
    let modules = files.iter().map(|(path, bytes)| (*path, bytes.as_slice()));
    expected.assert_eq(&ModuleIndex::build(modules, &LISTS).unwrap_err().to_string());
}

#[test]
fn refusals() {
    let needs = |exports, imports| Recipe {
        info: &[],
        exports,
        imports,
    };
    check_refusal(
        &[
            ("kernel/a.ko", needs(&["a"], &["b"])),
            ("kernel/b.ko", needs(&["b"], &["a"])),
            ("kernel/c.ko", needs(&[], &[])),
        ],
        expect!["kernel modules depend on each other in a circle: a, b"],
    );
    check_refusal(
        &[
            ("kernel/a-b.ko", needs(&[], &[])),
            ("kernel/x/a_b.ko", needs(&[], &[])),
        ],
        expect!["kernel/a-b.ko and kernel/x/a_b.ko are both called a_b"],
    );
    for (bytes, expected) in [
        (
            &b"\xfd7zXZ\0"[..],
            expect!["kernel/a.ko is not a kernel module: it is no ELF file"],
        ),
        (
            b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0",
            expect!["kernel/a.ko is not a kernel module: it is not little-endian"],
        ),
        (
            b"\x7fELF\x02\x01\x01",
            expect!["kernel/a.ko is not a kernel module: it is cut off or damaged"],
        ),
    ] {
        let err = ModuleIndex::build([("kernel/a.ko", bytes)], &LISTS).unwrap_err();
        expected.assert_eq(&err.to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_the_reader_panic(
        wide: bool,
        which in 0usize..8,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut: prop::sample::Index,
        whole: bool,
    ) {
        let mut bytes = elf(&sample()[which].1, wide);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        if ModuleInfo::parse(&bytes).is_ok() {
            let index = ModuleIndex::build([("kernel/a.ko", bytes.as_slice())], &LISTS).unwrap();
            let _ = index.files();
            index.closure(&["a"]).unwrap();
        }
    }

    #[test]
    fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ModuleInfo::parse(&[&b"\x7fELF\x02\x01"[..], &bytes].concat());
        let _ = ModuleInfo::parse(&bytes);
    }
}
