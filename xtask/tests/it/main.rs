//! The command as people type it: what it says and how it exits when something is wrong, and that nothing half-made is left.
//!
//! No Internet and no packages: everything here ends before an image is built.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod catalogue;
mod command;
mod documents;
mod flash;
mod fleet;
mod fleet_status;
mod interrupted;
mod mirrors;
mod mistakes;
#[path = "../../../imagegen/tests/it/sample.rs"]
mod sample;
mod site;
