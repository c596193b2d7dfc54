//! Putting a finished image on a card.

pub mod block_map;
