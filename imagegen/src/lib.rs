//! Footbridge's image builder.

pub mod board;
pub mod credentials;
mod deb822;
pub mod index;
pub mod inspect;
pub mod make;
pub mod mbr;
pub mod mirror;
pub mod overlays;
pub mod plan;
pub mod recipe;
pub mod relation;
pub mod resolve;
pub mod sha256;
pub mod site;
pub mod tree;
