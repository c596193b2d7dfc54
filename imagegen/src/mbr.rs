//! The classic partition table in the first sector of a disk: four primaries, a disk signature, no boot code.
//!
//! Not GPT, because the Pi 3's boot ROM does not read it. Extended partitions are not followed.

use thiserror::Error;

/// The unit of everything in a partition table.
pub const SECTOR_SIZE: u64 = 512;

const SIGNATURE_AT: usize = 440;
const TABLE_AT: usize = 446;
const ENTRY_SIZE: usize = 16;
const BOOT_MAGIC: [u8; 2] = [0x55, 0xaa];

/// A partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionTable {
    /// The number that names this disk; with a partition's number it makes the PARTUUID.
    pub signature: u32,
    /// The four slots.
    pub partitions: [Option<Partition>; 4],
}

/// One primary partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it says is in it.
    pub kind: PartitionKind,
    /// The first sector.
    pub first_sector: u32,
    /// How many sectors it has; at least one.
    pub sectors: u32,
}

/// The type byte of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionKind(pub u8);

impl PartitionKind {
    /// FAT32, addressed by sector number: what the firmware looks for.
    pub const FAT32_LBA: Self = Self(0x0c);
    /// Anything Linux reads.
    pub const LINUX: Self = Self(0x83);
}

/// Why a sector is not a partition table.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MbrError {
    /// It does not end in 55 AA.
    #[error("the first sector has no boot signature, so this is no disk image")]
    NoMagic,
    /// A partition has no sectors or ends beyond what 32 bits can say.
    #[error("partition {number} has an impossible extent")]
    Extent {
        /// The partition, counted from 1.
        number: usize,
    },
}

impl Partition {
    /// Where it begins, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        u64::from(self.first_sector) * SECTOR_SIZE
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.sectors) * SECTOR_SIZE
    }
}

impl PartitionTable {
    /// The sector this table is on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; SECTOR_SIZE as usize] {
        let mut sector = [0; SECTOR_SIZE as usize];
        sector[SIGNATURE_AT..SIGNATURE_AT + 4].copy_from_slice(&self.signature.to_le_bytes());
        for (slot, partition) in self.partitions.iter().enumerate() {
            if let Some(partition) = partition {
                let at = TABLE_AT + slot * ENTRY_SIZE;
                sector[at..at + ENTRY_SIZE].copy_from_slice(&encode_entry(partition));
            }
        }
        sector[510..].copy_from_slice(&BOOT_MAGIC);
        sector
    }

    /// Reads the table out of the first sector of a disk.
    pub fn decode(sector: &[u8; SECTOR_SIZE as usize]) -> Result<Self, MbrError> {
        if sector[510..] != BOOT_MAGIC {
            return Err(MbrError::NoMagic);
        }
        let mut table = Self {
            signature: le32(sector, SIGNATURE_AT),
            ..Self::default()
        };
        for slot in 0..4 {
            let at = TABLE_AT + slot * ENTRY_SIZE;
            let kind = PartitionKind(sector[at + 4]);
            let (first_sector, sectors) = (le32(sector, at + 8), le32(sector, at + 12));
            if kind.0 == 0 {
                continue;
            }
            if sectors == 0 || first_sector.checked_add(sectors).is_none() {
                return Err(MbrError::Extent { number: slot + 1 });
            }
            table.partitions[slot] = Some(Partition {
                kind,
                first_sector,
                sectors,
            });
        }
        Ok(table)
    }

    /// The first partition of a kind.
    #[must_use]
    pub fn first(&self, kind: PartitionKind) -> Option<Partition> {
        self.partitions
            .iter()
            .flatten()
            .find(|partition| partition.kind == kind)
            .copied()
    }
}

/// ```text
///  0       1       4      5       8              12
///  | active | CHS first | kind | CHS last | first sector | sectors |
/// ```
fn encode_entry(partition: &Partition) -> [u8; ENTRY_SIZE] {
    let last = partition
        .first_sector
        .saturating_add(partition.sectors.saturating_sub(1));
    let mut entry = [0; ENTRY_SIZE];
    entry[1..4].copy_from_slice(&cylinder_head_sector(partition.first_sector));
    entry[4] = partition.kind.0;
    entry[5..8].copy_from_slice(&cylinder_head_sector(last));
    entry[8..12].copy_from_slice(&partition.first_sector.to_le_bytes());
    entry[12..].copy_from_slice(&partition.sectors.to_le_bytes());
    entry
}

/// The old address of a sector on the customary disk of 255 heads and 63 sectors a track; FE FF FF beyond its reach.
fn cylinder_head_sector(sector: u32) -> [u8; 3] {
    const HEADS: u32 = 255;
    const PER_TRACK: u32 = 63;
    let cylinder = sector / (HEADS * PER_TRACK);
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    let head = sector / PER_TRACK % HEADS;
    let number = sector % PER_TRACK + 1;
    // head < 255, number <= 63 and the two parts of the cylinder fit their bits, so no cast cuts.
    [
        head as u8,
        (number | (cylinder >> 2 & 0xc0)) as u8,
        (cylinder & 0xff) as u8,
    ]
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn old_addresses() {
        for (sector, expected) in [
            (0, [0, 1, 0]),
            (2048, [0x20, 0x21, 0]),
            (8192, [0x82, 0x03, 0]),
            (1023 * 255 * 63 + 254 * 63 + 62, [0xfe, 0xff, 0xff]),
            (u32::MAX, [0xfe, 0xff, 0xff]),
        ] {
            assert_eq!(cylinder_head_sector(sector), expected, "{sector}");
        }
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(signature: u32, kind in 1u8.., first_sector in 1u32..1 << 30, sectors in 1u32..1 << 30) {
            let partition = Partition { kind: PartitionKind(kind), first_sector, sectors };
            let table = PartitionTable { signature, partitions: [None, Some(partition), None, Some(partition)] };
            prop_assert_eq!(PartitionTable::decode(&table.encode()), Ok(table));
        }

        #[test]
        fn decode_survives_garbage(bytes in prop::collection::vec(any::<u8>(), 510)) {
            let mut sector = [0; 512];
            sector[..510].copy_from_slice(&bytes);
            prop_assert_eq!(PartitionTable::decode(&sector), Err(MbrError::NoMagic));
            sector[510..].copy_from_slice(&BOOT_MAGIC);
            let _ = PartitionTable::decode(&sector);
        }
    }
}
