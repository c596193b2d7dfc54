//! Footbridge's image builder.

pub mod board;
pub mod credentials;
pub mod inspect;
pub mod make;
pub mod mbr;
pub mod plan;
pub mod site;
pub mod tree;
