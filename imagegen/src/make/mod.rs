//! Doing what a plan says, in two halves: packages come in over `fetch` (the only network) and are unpacked into a [`Tree`](crate::tree::Tree);
//! every writer takes a tree and bytes come out. None runs a program or needs root.
//!
//! What makes the bytes of an image reads no clock, no environment and no file: those modules deny clippy's list of such calls.

pub mod cache;
pub mod crates;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod deb;
pub mod disk;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod fat;
pub mod fetch;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod identity;
pub mod image;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod initramfs;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod kept;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod kernel;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod licences;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod modules;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod parallel;
pub mod release;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod rootfs;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod squashfs;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod system;
