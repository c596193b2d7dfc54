//! Footbridge's image builder.

pub mod tree;
