//! Putting a finished image on a card: which devices there are, which of them may be written to, and the writing itself.
//!
//! ```text
//! IMAGE, .bmap, .sha256 --examine--> Image ─┐
//! /sys, /proc, udev --load_inventory--> Disk ┴─ judge ─ Card::open ─ flash ─ read back ─ first block ─> a card
//! ```
//!
//! Only `write` writes images to a card, and `site` settings. The first block of the disk, which has the partition table, is written last, so that a card is
//! either whole or no card.

pub mod block_map;
pub mod device;
pub mod devices;
pub mod image;
pub mod journal;
mod pieces;
pub mod refusal;
mod root;
pub mod site;
pub mod write;
