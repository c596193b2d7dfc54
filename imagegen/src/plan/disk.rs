//! Where things lie on the disk: sizes, offsets and identities of the two partitions.
//!
//! ```text
//! 0      4 MiB                    4 MiB + boot size                 total
//! | table | 1: FAT32 for firmware | 2: squashfs root, whole 4 MiB   |
//! ```
//!
//! Everything is aligned to 4 MiB, the erase block of usual cards. Rounding an image up to a power of two, which
//! emulated card readers ask for, is not done here: it would only make the image bigger.

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::mbr::{Partition, PartitionKind, PartitionTable, SECTOR_SIZE};

/// Alignment of partitions and of the whole image.
pub const ALIGNMENT: u64 = 4 << 20;

/// The smallest boot partition: below it FAT32 with one sector a cluster would be mistaken for FAT16.
pub const BOOT_SIZE_MIN: u64 = 64 << 20;

/// The boot partition's number.
pub const BOOT_PARTITION: u8 = 1;

/// The root partition's number.
pub const ROOT_PARTITION: u8 = 2;

/// The number that tells this image from others; partitions are found by it, whatever the card reader is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSignature(u32);

/// Where the partitions of an image lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLayout {
    /// Identity of the disk.
    pub signature: DiskSignature,
    /// The FAT partition.
    pub boot: Extent,
    /// The squashfs partition.
    pub root: Extent,
    /// Size of the image in bytes.
    pub total: u64,
}

/// A stretch of the disk in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub size: u64,
}

/// What a layout is made from.
#[derive(Clone, Copy, Debug)]
pub struct DiskSizes {
    /// Size of the boot partition; rounded up to the alignment.
    pub boot: u64,
    /// Bytes of the root file system; the partition is rounded up to the alignment.
    pub root: u64,
}

/// Why there is no such layout.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// The boot partition would be mistaken for FAT16.
    #[error(
        "a boot partition of {size} bytes is too small for FAT32; it takes at least {BOOT_SIZE_MIN}"
    )]
    BootTooSmall {
        /// What was asked for.
        size: u64,
    },
    /// The partition table cannot say it.
    #[error("the image would be larger than the 2 TiB a partition table can describe")]
    TooLarge,
}

impl DiskSignature {
    /// Derives a signature from whatever makes an image what it is.
    #[must_use]
    pub fn derive(seed: &[u8]) -> Self {
        let digest = Sha256::new_with_prefix(b"footbridge disk signature\0")
            .chain_update(seed)
            .finalize();
        let number = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
        // Zero means "no signature" to those who read partition tables.
        Self(number.max(1))
    }

    /// The number as it is in the partition table.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// The name of a partition for `root=PARTUUID=`.
    #[must_use]
    pub fn partuuid(self, partition: u8) -> String {
        format!("{:08x}-{partition:02x}", self.0)
    }

    /// PARTUUID of the boot partition.
    #[must_use]
    pub fn boot_partuuid(self) -> String {
        self.partuuid(BOOT_PARTITION)
    }

    /// PARTUUID of the root partition.
    #[must_use]
    pub fn root_partuuid(self) -> String {
        self.partuuid(ROOT_PARTITION)
    }
}

impl DiskLayout {
    /// Lays the partitions out.
    pub fn new(signature: DiskSignature, sizes: DiskSizes) -> Result<Self, LayoutError> {
        if sizes.boot < BOOT_SIZE_MIN {
            return Err(LayoutError::BootTooSmall { size: sizes.boot });
        }
        let boot = Extent {
            offset: ALIGNMENT,
            size: align(sizes.boot)?,
        };
        let root = Extent {
            offset: boot.end()?,
            size: align(sizes.root.max(1))?,
        };
        let total = root.end()?;
        if total / SECTOR_SIZE > u64::from(u32::MAX) {
            return Err(LayoutError::TooLarge);
        }
        Ok(Self {
            signature,
            boot,
            root,
            total,
        })
    }

    /// The partition table that says the same.
    #[must_use]
    pub fn partition_table(&self) -> PartitionTable {
        PartitionTable {
            signature: self.signature.number(),
            partitions: [
                Some(self.boot.partition(PartitionKind::FAT32_LBA)),
                Some(self.root.partition(PartitionKind::LINUX)),
                None,
                None,
            ],
        }
    }
}

impl Extent {
    /// The first sector, as file systems store it about themselves.
    #[must_use]
    pub fn first_sector(&self) -> u32 {
        u32::try_from(self.offset / SECTOR_SIZE).expect("a layout ends within 32 bits of sectors")
    }

    fn end(&self) -> Result<u64, LayoutError> {
        self.offset
            .checked_add(self.size)
            .ok_or(LayoutError::TooLarge)
    }

    fn partition(&self, kind: PartitionKind) -> Partition {
        let sectors = u32::try_from(self.size / SECTOR_SIZE)
            .expect("a layout ends within 32 bits of sectors");
        Partition {
            kind,
            first_sector: self.first_sector(),
            sectors,
        }
    }
}

fn align(size: u64) -> Result<u64, LayoutError> {
    size.checked_next_multiple_of(ALIGNMENT)
        .ok_or(LayoutError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn layouts() {
        let signature = DiskSignature::derive(b"pi3");
        for (boot, root, expected) in [
            (64 * MIB, 1, Ok((4, 64, 68, 4, 72))),
            (65 * MIB, 4 * MIB, Ok((4, 68, 72, 4, 76))),
            (128 * MIB, 19 * MIB, Ok((4, 128, 132, 20, 152))),
            (64 * MIB, 0, Ok((4, 64, 68, 4, 72))),
            (
                63 * MIB,
                1,
                Err(LayoutError::BootTooSmall { size: 63 * MIB }),
            ),
            (64 * MIB, 2 << 40, Err(LayoutError::TooLarge)),
            (u64::MAX, 1, Err(LayoutError::TooLarge)),
            (64 * MIB, u64::MAX - 9 * MIB, Err(LayoutError::TooLarge)),
        ] {
            let found = DiskLayout::new(signature, DiskSizes { boot, root }).map(|layout| {
                let DiskLayout {
                    boot, root, total, ..
                } = layout;
                (
                    boot.offset / MIB,
                    boot.size / MIB,
                    root.offset / MIB,
                    root.size / MIB,
                    total / MIB,
                )
            });
            assert_eq!(found, expected, "{boot} {root}");
        }
    }

    #[test]
    fn the_signature_depends_on_the_seed_alone() {
        let signature = DiskSignature::derive(b"pi3");
        assert_eq!(signature, DiskSignature::derive(b"pi3"));
        assert_ne!(signature, DiskSignature::derive(b"pi4"));
        let number = signature.number();
        assert_eq!(signature.boot_partuuid(), format!("{number:08x}-01"));
        assert_eq!(signature.root_partuuid(), format!("{number:08x}-02"));
    }
}
