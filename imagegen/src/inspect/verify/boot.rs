//! Checks of the boot partition: what the boot loader of each model looks for, and whether it fits together.

use std::collections::BTreeMap;

use super::{Check, Seen, Subject, seen};
use crate::device_tree::read_strings;
use crate::inspect::config_txt::{AUTOBOOT_MAX, Machine, choose_partition};
use crate::inspect::model::Loader;
use crate::plan::disk::{BOOT_PARTITION, ROOT_PARTITION};

/// 32-bit Arm cuts a longer command line (the kernel's `COMMAND_LINE_SIZE` is 1024 there).
const COMMAND_LINE_MAX: usize = 1023;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "firmware-missing",
        why: "without its firmware a board shows nothing at all",
        next: "name the file under [firmware] in the board's description",
        look: firmware_missing,
    },
    Check {
        id: "firmware-pair",
        why: "start*.elf and fixup*.dat are made for each other; one alone starts with the wrong memory, or not at all",
        next: "put both files of the pair on the boot partition, or neither",
        look: |subject| {
            let mut findings = lonely_firmware(subject);
            findings.extend(mixed_firmware(subject));
            findings
        },
    },
    Check {
        id: "kernel-missing",
        why: "the boot loader stops where the kernel is not found",
        next: "let kernel= in config.txt and the file's name agree",
        look: |subject| subject.missing(|boot| vec![boot.kernel.clone()]),
    },
    Check {
        id: "kernel-width",
        why: "a processor started with 64 bits runs no 32-bit kernel, nor the other way",
        next: "let arm_64bit= in config.txt and the kernel agree",
        look: kernel_width,
    },
    Check {
        id: "device-tree-missing",
        why: "without its device tree the kernel knows neither card nor radio",
        next: "name it under device-trees in the board's description, or set upstream_kernel= in config.txt",
        look: |subject| subject.missing(|boot| boot.device_trees.clone()),
    },
    Check {
        id: "device-tree-model",
        why: "another model's device tree describes hardware that is not there",
        next: "take the device tree of that name from the kernel's package",
        look: device_tree_models,
    },
    Check {
        id: "initramfs-missing",
        why: "the root is found and laid out by the initramfs",
        next: "let the initramfs line of config.txt and the file's name agree",
        look: |subject| subject.missing(|boot| boot.initramfs.clone()),
    },
    Check {
        id: "command-line-missing",
        why: "the command line says where the root is",
        next: "let cmdline= in config.txt and the file's name agree",
        look: |subject| subject.missing(|boot| vec![boot.cmdline.clone()]),
    },
    Check {
        id: "command-line-length",
        why: "boot loaders take one line, and 32-bit kernels cut it after 1023 bytes without a word",
        next: "shorten it to one line; units are masked by links in the root",
        look: command_line_length,
    },
    Check {
        id: "command-line-partitions",
        why: "the initramfs looks for the partitions by these ids, and restarts the board when there are none",
        next: "let root= and boot= be the disk's signature with the partition's number",
        look: command_line_partitions,
    },
    Check {
        id: "autoboot-length",
        why: "boot loaders read no more than the first 512 bytes of it",
        next: "shorten autoboot.txt",
        look: autoboot_length,
    },
    Check {
        id: "autoboot-partition",
        why: "the boot loader takes everything from the partition it is sent to, and the files are on another",
        next: "take boot_partition= out of autoboot.txt",
        look: autoboot_partition,
    },
];

fn firmware_missing(subject: &Subject<'_>) -> Vec<Seen> {
    let loader = |path: &str| {
        let from_card = subject.models_that(|choice| {
            choice
                .model
                .is_some_and(|model| model.loader == Loader::Card)
        });
        let present = subject.boot().is_none_or(|boot| boot.bytes(path).is_some());
        (!from_card.is_empty() && !present).then(|| {
            let what = format!("is not there; loaded by: {}", from_card.join(", "));
            seen(format!("boot/{path}"), what)
        })
    };
    let start = subject.missing(|boot| boot.start.clone().into_iter().collect());
    loader("bootcode.bin").into_iter().chain(start).collect()
}

/// How the names of the two halves begin and end: `start4cd.elf` goes with `fixup4cd.dat`.
const HALVES: [[&str; 2]; 2] = [["start", ".elf"], ["fixup", ".dat"]];

/// The name of the other half.
fn other_half(
    name: &str,
    [begin, end]: [&str; 2],
    [other_begin, other_end]: [&str; 2],
) -> Option<String> {
    let lower = name.to_lowercase();
    let variant = lower.strip_prefix(begin)?.strip_suffix(end)?;
    Some(format!("{other_begin}{variant}{other_end}"))
}

/// Pairs that a model would load, and that are none.
fn mixed_firmware(subject: &Subject<'_>) -> Vec<Seen> {
    let mut mixed: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for choice in &subject.choices {
        let (Some(start), Some(fixup)) = (&choice.boot.start, &choice.boot.fixup) else {
            continue;
        };
        let right = other_half(start, HALVES[0], HALVES[1]);
        // Where it is a file with a name of its own, nobody knows more than whether it is there.
        let is_right = match right {
            Some(right) => fixup.eq_ignore_ascii_case(&right),
            None => subject
                .boot()
                .is_none_or(|boot| boot.bytes(fixup).is_some()),
        };
        if !is_right {
            mixed.entry((start, fixup)).or_default().push(&choice.name);
        }
    }
    mixed
        .into_iter()
        .map(|((start, fixup), models)| {
            let what = format!("has {start} loaded with {fixup} by: {}", models.join(", "));
            seen("boot/config.txt", what)
        })
        .collect()
}

fn lonely_firmware(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(boot) = subject.boot() else {
        return Vec::new();
    };
    let mut lonely = Vec::new();
    for (half, other) in [(HALVES[0], HALVES[1]), (HALVES[1], HALVES[0])] {
        for (name, _) in boot.tree.entries("") {
            let other = other_half(name, half, other);
            if let Some(other) = other.filter(|other| boot.bytes(other).is_none()) {
                let what = format!("is there without {other}");
                lonely.push(seen(format!("boot/{name}"), what));
            }
        }
    }
    // The start file of a model is missing in its own right; that is another check's.
    lonely.retain(|seen| {
        let is_other_half = |start: &str| seen.what == format!("is there without {start}");
        !subject
            .choices
            .iter()
            .filter_map(|choice| choice.boot.start.as_deref())
            .any(is_other_half)
    });
    lonely
}

/// Bits of a kernel's processor, by the magic numbers of Linux's Image (arch/arm64) and zImage (arch/arm); gzip is an Image packed.
fn kernel_bits(kernel: &[u8]) -> Option<u8> {
    let at = |offset: usize, magic: &[u8]| {
        kernel
            .get(offset..offset + magic.len())
            .is_some_and(|bytes| bytes == magic)
    };
    if at(0x38, b"ARM\x64") || at(0, &[0x1f, 0x8b]) {
        Some(64)
    } else if at(0x24, &0x016f_2818u32.to_le_bytes()) {
        Some(32)
    } else {
        None
    }
}

fn kernel_width(subject: &Subject<'_>) -> Vec<Seen> {
    let mut findings = Vec::new();
    for choice in &subject.choices {
        let bytes = subject
            .boot()
            .and_then(|boot| boot.bytes(&choice.boot.kernel));
        let wanted = if choice.boot.is_64bit { 64 } else { 32 };
        let what = match bytes.map(kernel_bits) {
            None => continue,
            Some(Some(bits)) if bits == wanted => continue,
            Some(Some(bits)) => format!("is for {bits} bits, and started with {wanted}"),
            Some(None) => "is no kernel for Arm".to_owned(),
        };
        let finding = seen(format!("boot/{}", choice.boot.kernel), what);
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

fn device_tree_models(subject: &Subject<'_>) -> Vec<Seen> {
    let mut findings = Vec::new();
    for choice in &subject.choices {
        let (Some(model), Some(boot)) = (choice.model, subject.boot()) else {
            continue;
        };
        for path in &choice.boot.device_trees {
            let Some(bytes) = boot.bytes(path) else {
                continue;
            };
            let names = read_strings(bytes, "", "compatible");
            let what = match names {
                None => "is no device tree".to_owned(),
                Some(names)
                    if names
                        .iter()
                        .any(|name| model.compatible.contains(&name.as_str())) =>
                {
                    continue;
                }
                Some(names) => format!("is for {}, not {}", names.join(", "), choice.name),
            };
            findings.push(seen(format!("boot/{path}"), what));
        }
    }
    findings
}

/// The command lines that models load, once each.
fn command_lines(subject: &Subject<'_>) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for choice in &subject.choices {
        let text = subject
            .boot()
            .and_then(|boot| boot.text(&choice.boot.cmdline));
        if let Some(text) = text {
            lines.push((format!("boot/{}", choice.boot.cmdline), text));
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

fn command_line_length(subject: &Subject<'_>) -> Vec<Seen> {
    command_lines(subject)
        .into_iter()
        .filter_map(|(place, text)| {
            let (lines, bytes) = (text.lines().count(), text.trim_end().len());
            let good = lines == 1 && bytes <= COMMAND_LINE_MAX;
            (!good).then(|| {
                seen(
                    place,
                    format!("has {lines} lines of {bytes} bytes together"),
                )
            })
        })
        .collect()
}

fn command_line_partitions(subject: &Subject<'_>) -> Vec<Seen> {
    let signature = subject.image.table.signature;
    if signature == 0 {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (place, text) in command_lines(subject) {
        for (key, number) in [("root", ROOT_PARTITION), ("boot", BOOT_PARTITION)] {
            let wanted = format!("{key}=PARTUUID={signature:08x}-{number:02x}");
            if !text.split_whitespace().any(|word| word == wanted) {
                findings.push(seen(place.clone(), format!("does not say {wanted}")));
            }
        }
    }
    findings
}

fn autoboot_length(subject: &Subject<'_>) -> Vec<Seen> {
    subject
        .boot()
        .and_then(|boot| boot.bytes("autoboot.txt"))
        .filter(|bytes| bytes.len() > AUTOBOOT_MAX)
        .map(|bytes| seen("boot/autoboot.txt", format!("has {} bytes", bytes.len())))
        .into_iter()
        .collect()
}

fn autoboot_partition(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(autoboot) = subject.boot().and_then(|boot| boot.text("autoboot.txt")) else {
        return Vec::new();
    };
    let mut sent: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for choice in &subject.choices {
        let partition = choose_partition(&autoboot, &Machine::of(choice.model));
        sent.entry(partition).or_default().push(&choice.name);
    }
    sent.remove(&u32::from(BOOT_PARTITION));
    sent.iter()
        .map(|(partition, models)| {
            let what = format!("sends to partition {partition}: {}", models.join(", "));
            seen("boot/autoboot.txt", what)
        })
        .collect()
}
