//! Checks of the partition table and of the file systems as such.

use super::{Check, Seen, Subject, seen};
use crate::mbr::{Partition, PartitionKind};
use crate::plan::disk::{ALIGNMENT, BOOT_PARTITION, ROOT_PARTITION};

/// Below it a FAT is no FAT32, whatever its boot sector says (Microsoft, "FAT: General Overview of On-Disk Format").
const FAT32_CLUSTERS_MIN: u32 = 65_525;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "partition-type",
        why: "boot loaders look for a FAT32 of type 0x0c in a classic partition table; those of the 3 know no GPT",
        next: "write the image anew with `cargo xtask image`",
        look: types,
    },
    Check {
        id: "partition-alignment",
        why: "a card erases in blocks of up to 4 MiB; what straddles two is slow to write and wears the card",
        next: "write the image anew; partitions begin at multiples of 4 MiB",
        look: alignment,
    },
    Check {
        id: "partition-extent",
        why: "what lies beyond the end of the image or the partition, or in two partitions at once, is not what is said of it",
        next: "the image may be cut off: compare its .sha256, or build it anew",
        look: extents,
    },
    Check {
        id: "disk-signature",
        why: "the initramfs finds its partitions by the disk's signature, and zero means that there is none",
        next: "write the image anew with `cargo xtask image`",
        look: signature,
    },
    Check {
        id: "boot-unreadable",
        why: "a board starts from files on the boot partition",
        next: "the image may be damaged: compare its .sha256, or build it anew",
        look: |subject| unreadable(subject.image.boot.as_ref().err(), BOOT_PARTITION),
    },
    Check {
        id: "root-unreadable",
        why: "the kernel mounts the root as a squashfs",
        next: "the image may be damaged: compare its .sha256, or build it anew",
        look: |subject| unreadable(subject.image.root.as_ref().err(), ROOT_PARTITION),
    },
    Check {
        id: "fat-cluster-count",
        why: "a file system with fewer clusters is read as FAT16 by boot loaders that count",
        next: "make the boot partition larger, or its clusters smaller",
        look: clusters,
    },
];

fn partitions<'a>(subject: &'a Subject<'_>) -> impl Iterator<Item = (usize, &'a Partition)> {
    let slots = subject.image.table.partitions.iter().enumerate();
    slots.filter_map(|(slot, partition)| Some((slot + 1, partition.as_ref()?)))
}

fn types(subject: &Subject<'_>) -> Vec<Seen> {
    let wanted = |number: usize| match u8::try_from(number) {
        Ok(BOOT_PARTITION) => Some(PartitionKind::FAT32_LBA),
        Ok(ROOT_PARTITION) => Some(PartitionKind::LINUX),
        _ => None,
    };
    let wrong = |(number, partition): (usize, &Partition)| {
        let wanted = wanted(number).filter(|wanted| *wanted != partition.kind)?;
        let what = format!(
            "is of type {:#04x}, not {:#04x}",
            partition.kind.0, wanted.0
        );
        Some(seen(format!("partition {number}"), what))
    };
    partitions(subject).filter_map(wrong).collect()
}

fn alignment(subject: &Subject<'_>) -> Vec<Seen> {
    partitions(subject)
        .filter(|(_, partition)| partition.offset() % ALIGNMENT != 0)
        .map(|(number, partition)| {
            seen(
                format!("partition {number}"),
                format!("begins at byte {}", partition.offset()),
            )
        })
        .collect()
}

fn extents(subject: &Subject<'_>) -> Vec<Seen> {
    let end = |partition: &Partition| partition.offset() + partition.size();
    let beyond = partitions(subject)
        .filter(|(_, partition)| end(partition) > subject.image.size)
        .map(|(number, partition)| {
            let what = format!(
                "ends at byte {}, and the image at {}",
                end(partition),
                subject.image.size
            );
            seen(format!("partition {number}"), what)
        });
    let overlapping = partitions(subject).flat_map(|(number, partition)| {
        partitions(subject)
            .filter(move |(other, _)| *other > number)
            .filter(move |(_, other)| {
                other.offset() < end(partition) && partition.offset() < end(other)
            })
            .map(move |(other, _)| {
                seen(
                    format!("partition {other}"),
                    format!("overlaps partition {number}"),
                )
            })
    });
    let too_long = partitions(subject)
        .filter(|(number, _)| *number == usize::from(BOOT_PARTITION))
        .filter_map(|(number, partition)| {
            let size = subject.boot()?.size;
            let what = format!("has {} bytes, and its file system {size}", partition.size());
            (size > partition.size()).then(|| seen(format!("partition {number}"), what))
        });
    beyond.chain(overlapping).chain(too_long).collect()
}

fn signature(subject: &Subject<'_>) -> Vec<Seen> {
    match subject.image.table.signature {
        0 => vec![seen("partition table", "has no signature")],
        _ => Vec::new(),
    }
}

fn unreadable(why: Option<&super::Unreadable>, number: u8) -> Vec<Seen> {
    why.map(|why| {
        seen(
            format!("partition {number}"),
            format!("cannot be read: {why}"),
        )
    })
    .into_iter()
    .collect()
}

fn clusters(subject: &Subject<'_>) -> Vec<Seen> {
    subject
        .boot()
        .filter(|boot| boot.clusters < FAT32_CLUSTERS_MIN)
        .map(|boot| {
            let what = format!(
                "has {} clusters, and FAT32 begins at {FAT32_CLUSTERS_MIN}",
                boot.clusters
            );
            seen(format!("partition {BOOT_PARTITION}"), what)
        })
        .into_iter()
        .collect()
}
