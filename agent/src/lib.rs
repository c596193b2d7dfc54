//! Footbridge's agent: a layer-3 pseudo-bridge between a station and a wired port.

pub mod addr;
pub mod engine;
pub mod wire;
