//! Doing what a plan says, in two halves: packages come in over `fetch` (the only network) and are unpacked into a [`Tree`](crate::tree::Tree);
//! every writer takes a tree and bytes come out. None runs a program or needs root.

pub mod deb;
pub mod disk;
pub mod fat;
pub mod fetch;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod modules;
pub mod release;
pub mod rootfs;
pub mod squashfs;
