//! Doing what a plan says. Every writer takes a [`Tree`](crate::tree::Tree) and bytes come out; none runs a program or needs root.

pub mod disk;
pub mod fat;
pub mod initramfs;
pub mod squashfs;
