//! A file tree in memory: absolute path -> node with mode, owner and content. Every stage between unpacking and writing works on it.
//!
//! Inserting over something that is already there is an error unless the caller says `replace`; nothing here touches a disk.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A file tree. Paths are relative to its root, `/`-separated, without a leading slash, `.` or `..`; the root itself is implied (0755 root:root).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Permission bits, including suid, sgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A regular file; shared, because overlays and plans refer to the same bytes.
    File(Arc<[u8]>),
    /// A symbolic link and its target as stored.
    Symlink(String),
}
