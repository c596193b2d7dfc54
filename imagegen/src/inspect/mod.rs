//! Reading what a finished image holds, as the board's firmware and kernel would: emulators, `verify`, `diff` and the tests need it, the
//! builder does not.
//!
//! The image may come from anywhere; these readers are bounded and answer garbage with an error.

pub mod config_txt;
pub mod cpio;
pub mod diff;
pub mod fat;
pub mod image;
pub mod model;
pub mod packed;
pub mod squashfs;
pub(crate) mod squashfs_path;
pub mod verify;
mod window;
