//! Footbridge's image builder.

pub mod board;
pub mod credentials;
pub mod site;
pub mod tree;
