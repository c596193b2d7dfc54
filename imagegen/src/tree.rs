//! A file tree in memory: path -> node with mode, owner and content. Every stage between unpacking and writing works on it.
//!
//! It holds three things at every moment: paths are well formed, every parent exists and is a directory, and nothing is
//! put over something else unless the caller says [`Tree::replace`]. Symbolic links are not followed by any method but
//! [`Tree::resolve`]. Nothing here touches a disk; device nodes and hard links do not exist here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// The longest name of one path component, as every file system that is written here has it.
const NAME_MAX: usize = 255;

/// How many symbolic links are followed before a path counts as a loop; Linux' own limit.
const LINKS_MAX: usize = 40;

/// A file tree. Paths are relative to its root, `/`-separated, without a leading slash, `.` or `..`; the root itself is implied (0755 root:root).
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    /// Who brought a path, for those that came by [`Tree::merge`]; told in conflicts and otherwise without effect.
    origins: BTreeMap<String, Arc<str>>,
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

/// Why a tree refused a change or a path.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TreeError {
    /// The path is not one a tree can hold.
    #[error("`{path}` cannot be a path in an image: {fault}")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// Something else is there already.
    #[error("/{path} is there already: {present}{}, and a {new} was to be put there", from(.origin))]
    Conflict {
        /// Where.
        path: String,
        /// What is there.
        present: String,
        /// Who brought it, if that is known.
        origin: Option<Arc<str>>,
        /// What should have been put there.
        new: String,
    },
    /// A parent of the path is a file or a symbolic link.
    #[error("/{path} cannot be put into the image, because /{parent} is a {present}{} and not a directory", from(.origin))]
    Parent {
        /// Where something was to be put.
        path: String,
        /// The parent that is in the way.
        parent: String,
        /// What that is.
        present: String,
        /// Who brought it, if that is known.
        origin: Option<Arc<str>>,
    },
    /// A directory that is to be removed or replaced by something else still has entries.
    #[error("/{path} is a directory that is not empty")]
    NotEmpty {
        /// The directory.
        path: String,
    },
    /// There is nothing at this path.
    #[error("/{path} is not in the image")]
    Missing {
        /// The path.
        path: String,
    },
    /// Following the symbolic links of a path does not end.
    #[error("/{path} leads through more than {LINKS_MAX} symbolic links")]
    LinkLoop {
        /// The path.
        path: String,
    },
}

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PathFault {
    /// It is the empty string, which would be the root.
    #[error("it is empty")]
    Empty,
    /// It begins or ends with a slash or has two in a row.
    #[error("it has an empty component")]
    EmptyComponent,
    /// It has `.` or `..` in it.
    #[error("it has a `.` or `..` component")]
    Dots,
    /// It has a NUL in it.
    #[error("it contains a NUL")]
    Nul,
    /// One of its names is longer than file systems take.
    #[error("a name in it is longer than {NAME_MAX} bytes")]
    NameTooLong,
}

impl Node {
    /// A directory owned by root.
    #[must_use]
    pub fn directory(mode: u16) -> Self {
        Self::of_root(mode, Content::Directory)
    }

    /// A regular file owned by root.
    #[must_use]
    pub fn file(mode: u16, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::of_root(mode, Content::File(bytes.into()))
    }

    /// A symbolic link owned by root; its mode is 0777, as Linux shows it.
    #[must_use]
    pub fn symlink(target: impl Into<String>) -> Self {
        Self::of_root(0o777, Content::Symlink(target.into()))
    }

    /// The same node with another owner and group.
    #[must_use]
    pub fn owned_by(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }

    /// Whether this is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.content == Content::Directory
    }

    /// The bytes, if this is a regular file.
    #[must_use]
    pub fn bytes(&self) -> Option<&Arc<[u8]>> {
        match &self.content {
            Content::File(bytes) => Some(bytes),
            Content::Directory | Content::Symlink(_) => None,
        }
    }

    fn of_root(mode: u16, content: Content) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            content,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Directory => write!(f, "directory")?,
            Content::File(bytes) => write!(f, "file of {} bytes", bytes.len())?,
            Content::Symlink(target) => return write!(f, "symbolic link to {target}"),
        }
        write!(
            f,
            " (mode {:04o}, owner {}:{})",
            self.mode, self.uid, self.gid
        )
    }
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a node where nothing is, making its missing parents (0755 root:root).
    ///
    /// A directory over an equal directory is no change. Everything else over something that is there is an error.
    pub fn insert(&mut self, path: impl Into<String>, node: Node) -> Result<(), TreeError> {
        let path = path.into();
        check_path(&path)?;
        self.ensure_parents(&path)?;
        match self.nodes.get(&path) {
            Some(present) if present.is_directory() && *present == node => Ok(()),
            Some(present) => Err(TreeError::Conflict {
                present: present.to_string(),
                origin: self.origins.get(&path).cloned(),
                new: node.to_string(),
                path,
            }),
            None => {
                self.nodes.insert(path, node);
                Ok(())
            }
        }
    }

    /// Puts a node whether or not something is there, and returns what was.
    ///
    /// A directory over a directory keeps the entries and takes the new mode and owner; anything else over a directory
    /// that has entries is an error.
    pub fn replace(
        &mut self,
        path: impl Into<String>,
        node: Node,
    ) -> Result<Option<Node>, TreeError> {
        let path = path.into();
        check_path(&path)?;
        self.ensure_parents(&path)?;
        if !node.is_directory() && self.has_entries(&path) {
            return Err(TreeError::NotEmpty { path });
        }
        self.origins.remove(&path);
        Ok(self.nodes.insert(path, node))
    }

    /// Removes one node and returns it, or `None` if nothing was there. A directory must be empty.
    pub fn remove(&mut self, path: &str) -> Result<Option<Node>, TreeError> {
        if self.has_entries(path) {
            return Err(TreeError::NotEmpty {
                path: path.to_owned(),
            });
        }
        self.origins.remove(path);
        Ok(self.nodes.remove(path))
    }

    /// Removes a node and everything below it; returns how many nodes that were.
    pub fn remove_subtree(&mut self, path: &str) -> usize {
        let doomed: Vec<String> = self
            .subtree(path)
            .map(|(path, _)| path.to_owned())
            .collect();
        for path in &doomed {
            self.nodes.remove(path);
            self.origins.remove(path);
        }
        doomed.len()
    }

    /// The node at a path, symbolic links not followed.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The bytes of the regular file at a path.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<&Arc<[u8]>> {
        self.get(path)?.bytes()
    }

    /// Whether something is at this path.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// Changes the permission bits of a node.
    pub fn set_mode(&mut self, path: &str, mode: u16) -> Result<(), TreeError> {
        self.existing(path)?.mode = mode;
        Ok(())
    }

    /// Changes the owner and group of a node.
    pub fn set_owner(&mut self, path: &str, uid: u32, gid: u32) -> Result<(), TreeError> {
        let node = self.existing(path)?;
        (node.uid, node.gid) = (uid, gid);
        Ok(())
    }

    /// All nodes in path order; a directory comes before what is in it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// A node and everything below it, in path order.
    pub fn subtree<'a>(
        &'a self,
        path: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        self.nodes
            .get_key_value(path)
            .into_iter()
            .chain(self.below(path))
            .map(|(path, node)| (path.as_str(), node))
    }

    /// The names and nodes directly in a directory (`""` is the root), in name order.
    pub fn entries<'a>(
        &'a self,
        directory: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        let skip = if directory.is_empty() {
            0
        } else {
            directory.len() + 1
        };
        self.below(directory)
            .map(move |(path, node)| (&path[skip..], node))
            .filter(|(name, _)| !name.contains('/'))
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The bytes of all regular files together.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        self.nodes
            .values()
            .filter_map(Node::bytes)
            .map(|bytes| bytes.len() as u64)
            .sum()
    }

    /// Makes the missing parents of a path (0755 root:root).
    pub fn ensure_parents(&mut self, path: &str) -> Result<(), TreeError> {
        check_path(path)?;
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            match self.nodes.get(parent) {
                Some(node) if node.is_directory() => {}
                Some(node) => {
                    return Err(TreeError::Parent {
                        path: path.to_owned(),
                        parent: parent.to_owned(),
                        present: node.to_string(),
                        origin: self.origins.get(parent).cloned(),
                    });
                }
                None => {
                    self.nodes.insert(parent.to_owned(), Node::directory(0o755));
                }
            }
        }
        Ok(())
    }

    /// The path that a process with this tree as its root would reach: every symbolic link on the way is followed, the last one too.
    ///
    /// Components that do not exist are kept as they are, so that the result is also where a new file would land
    /// (`bin/new` is `usr/bin/new` in a merged-usr tree). The root is the empty string. A leading slash is accepted.
    pub fn resolve(&self, path: &str) -> Result<String, TreeError> {
        let mut todo: Vec<String> = components(path);
        let mut done = String::new();
        let up = |path: &mut String| path.truncate(path.rfind('/').unwrap_or(0));
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                up(&mut done);
                continue;
            }
            if !done.is_empty() {
                done.push('/');
            }
            done.push_str(&name);
            let Some(Content::Symlink(target)) = self.get(&done).map(|node| &node.content) else {
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(TreeError::LinkLoop {
                    path: path.to_owned(),
                });
            }
            if target.starts_with('/') {
                done.clear();
            } else {
                up(&mut done);
            }
            todo.extend(components(target));
        }
        Ok(done)
    }

    /// Inserts all of another tree below a directory of this one, by the rules of [`Tree::insert`].
    pub fn graft(&mut self, prefix: &str, other: Self) -> Result<(), TreeError> {
        for (path, node) in other.nodes {
            self.insert(format!("{prefix}/{path}"), node)?;
        }
        Ok(())
    }

    /// Inserts all of another tree into this one, by the rules of [`Tree::insert`]; later conflicts name `origin`.
    pub fn merge(&mut self, origin: &str, other: Self) -> Result<(), TreeError> {
        let origin: Arc<str> = origin.into();
        for (path, node) in other.nodes {
            let directory = node.is_directory();
            self.insert(path.clone(), node)?;
            // Many bring the same directories; who was first says nothing.
            if !directory {
                self.origins.insert(path, Arc::clone(&origin));
            }
        }
        Ok(())
    }

    fn existing(&mut self, path: &str) -> Result<&mut Node, TreeError> {
        self.nodes.get_mut(path).ok_or_else(|| TreeError::Missing {
            path: path.to_owned(),
        })
    }

    fn has_entries(&self, path: &str) -> bool {
        self.below(path).next().is_some()
    }

    /// Everything below a path, without it. `0` is the character after `/`, so this range is exactly `path/...`.
    fn below(&self, path: &str) -> std::collections::btree_map::Range<'_, String, Node> {
        if path.is_empty() {
            return self.nodes.range::<String, _>(..);
        }
        self.nodes.range(format!("{path}/")..format!("{path}0"))
    }
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes
    }
}

impl Eq for Tree {}

/// Checks that a path is one a tree can hold.
pub fn check_path(path: &str) -> Result<(), TreeError> {
    let fault = |fault| {
        Err(TreeError::Path {
            path: path.to_owned(),
            fault,
        })
    };
    if path.is_empty() {
        return fault(PathFault::Empty);
    }
    if path.contains('\0') {
        return fault(PathFault::Nul);
    }
    for name in path.split('/') {
        match name {
            "" => return fault(PathFault::EmptyComponent),
            "." | ".." => return fault(PathFault::Dots),
            _ if name.len() > NAME_MAX => return fault(PathFault::NameTooLong),
            _ => {}
        }
    }
    Ok(())
}

/// The components of a path that still is to be walked, the next one last.
fn components(path: &str) -> Vec<String> {
    path.split('/')
        .rev()
        .filter(|name| !matches!(*name, "" | "."))
        .map(str::to_owned)
        .collect()
}

fn from(origin: &Option<Arc<str>>) -> String {
    origin
        .as_ref()
        .map(|origin| format!(" from {origin}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::new();
        for (path, node) in [
            ("bin", Node::symlink("usr/bin")),
            ("sbin", Node::symlink("/usr/sbin")),
            ("usr/bin/sh", Node::symlink("busybox")),
            ("usr/bin/busybox", Node::file(0o755, *b"box")),
            ("usr/bin-old", Node::directory(0o700)),
            ("loop", Node::symlink("loop2")),
            ("loop2", Node::symlink("/loop")),
            ("up", Node::symlink("../../../usr/./bin/..//bin")),
        ] {
            tree.insert(path, node).expect("no conflicts in the sample");
        }
        tree
    }

    fn listing<'a>(nodes: impl Iterator<Item = (&'a str, &'a Node)>) -> String {
        nodes
            .map(|(path, node)| format!("{path}: {node}\n"))
            .collect()
    }

    #[test]
    fn parents_are_made_and_order_is_by_path() {
        expect![[r#"
            bin: symbolic link to usr/bin
            loop: symbolic link to loop2
            loop2: symbolic link to /loop
            sbin: symbolic link to /usr/sbin
            up: symbolic link to ../../../usr/./bin/..//bin
            usr: directory (mode 0755, owner 0:0)
            usr/bin: directory (mode 0755, owner 0:0)
            usr/bin-old: directory (mode 0700, owner 0:0)
            usr/bin/busybox: file of 3 bytes (mode 0755, owner 0:0)
            usr/bin/sh: symbolic link to busybox
        "#]]
        .assert_eq(&listing(sample().iter()));
    }

    #[test]
    fn subtree_and_entries_do_not_take_neighbours_along() {
        let tree = sample();
        let names = |it: Vec<(&str, &Node)>| {
            it.iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            names(tree.subtree("usr/bin").collect()),
            "usr/bin usr/bin/busybox usr/bin/sh"
        );
        assert_eq!(names(tree.entries("usr").collect()), "bin bin-old");
        assert_eq!(
            names(tree.entries("").collect()),
            "bin loop loop2 sbin up usr"
        );
        assert_eq!(names(tree.entries("bin").collect()), "");
    }

    fn check_refusal(path: &str, node: Node, expected: Expect) {
        let mut tree = sample();
        let before = tree.clone();
        let mut package = Tree::new();
        package
            .insert("usr/bin/su", Node::file(0o4755, *b"su"))
            .expect("an empty tree takes it");
        tree.merge("util-linux", package)
            .expect("nothing there yet");
        let err = tree.insert(path, node).expect_err("it has to be refused");
        expected.assert_eq(&err.to_string());
        tree.remove("usr/bin/su").expect("it is a file");
        assert_eq!(tree, before);
    }

    #[test]
    fn refusals() {
        let file = || Node::file(0o644, *b"x");
        check_refusal(
            "",
            file(),
            expect!["`` cannot be a path in an image: it is empty"],
        );
        check_refusal(
            "/etc",
            file(),
            expect!["`/etc` cannot be a path in an image: it has an empty component"],
        );
        check_refusal(
            "etc//x",
            file(),
            expect!["`etc//x` cannot be a path in an image: it has an empty component"],
        );
        check_refusal(
            "a/../b",
            file(),
            expect!["`a/../b` cannot be a path in an image: it has a `.` or `..` component"],
        );
        check_refusal(
            "a\0",
            file(),
            expect!["`a\0` cannot be a path in an image: it contains a NUL"],
        );
        check_refusal(
            "usr/bin/su",
            file(),
            expect![
                "/usr/bin/su is there already: file of 2 bytes (mode 4755, owner 0:0) from util-linux, and a file of 1 bytes (mode 0644, owner 0:0) was to be put there"
            ],
        );
        check_refusal(
            "usr/bin",
            Node::directory(0o700),
            expect![
                "/usr/bin is there already: directory (mode 0755, owner 0:0), and a directory (mode 0700, owner 0:0) was to be put there"
            ],
        );
        check_refusal(
            "bin/ls",
            file(),
            expect![
                "/bin/ls cannot be put into the image, because /bin is a symbolic link to usr/bin and not a directory"
            ],
        );
    }

    #[test]
    fn names_are_at_most_255_bytes() {
        check_path(&format!("a/{}/b", "n".repeat(255))).expect("this is the limit");
        let path = "n".repeat(256);
        assert_eq!(
            check_path(&path),
            Err(TreeError::Path {
                path,
                fault: PathFault::NameTooLong
            })
        );
    }

    #[test]
    fn equal_directories_merge_and_replace_replaces() {
        let mut tree = sample();
        tree.insert("usr/bin-old", Node::directory(0o700))
            .expect("an equal directory is no conflict");
        let old = tree
            .replace("usr/bin/sh", Node::symlink("dash"))
            .expect("replace is allowed");
        assert_eq!(old, Some(Node::symlink("busybox")));
        tree.replace("usr/bin", Node::directory(0o711))
            .expect("the entries stay");
        assert!(tree.contains("usr/bin/sh"));
        let not_empty = TreeError::NotEmpty {
            path: "usr/bin".into(),
        };
        assert_eq!(
            tree.replace("usr/bin", Node::symlink("x")),
            Err(not_empty.clone())
        );
        assert_eq!(tree.remove("usr/bin"), Err(not_empty));
        assert_eq!(tree.remove("nothing"), Ok(None));
        assert_eq!(tree.remove_subtree("usr/bin"), 3);
        assert!(tree.contains("usr/bin-old"));
        tree.replace("usr", Node::symlink("x"))
            .expect_err("bin-old is in it");
    }

    #[test]
    fn modes_owners_and_sizes() {
        let mut tree = sample();
        assert_eq!(tree.total_size(), 3);
        tree.set_mode("usr/bin/busybox", 0o4755)
            .expect("it is there");
        tree.set_owner("usr/bin/busybox", 1, 2)
            .expect("it is there");
        assert_eq!(
            tree.get("usr/bin/busybox"),
            Some(&Node::file(0o4755, *b"box").owned_by(1, 2))
        );
        assert_eq!(
            tree.set_mode("no", 0),
            Err(TreeError::Missing { path: "no".into() })
        );
    }

    #[test]
    fn graft_puts_a_tree_below_a_directory() {
        let mut tree = Tree::new();
        tree.graft("overlay", sample()).expect("nothing there yet");
        assert_eq!(tree.len(), sample().len() + 1);
        assert!(tree.contains("overlay/usr/bin/busybox"));
    }

    #[test]
    fn resolve_follows_links_inside_the_tree() {
        let tree = sample();
        for (path, expected) in [
            ("bin/sh", Ok("usr/bin/busybox")),
            ("/sbin/init", Ok("usr/sbin/init")),
            ("up/new", Ok("usr/bin/new")),
            ("usr/bin", Ok("usr/bin")),
            ("/", Ok("")),
            ("../etc/./x", Ok("etc/x")),
            (
                "loop/x",
                Err(TreeError::LinkLoop {
                    path: "loop/x".into(),
                }),
            ),
        ] {
            assert_eq!(tree.resolve(path), expected.map(str::to_owned), "{path}");
        }
    }
}
