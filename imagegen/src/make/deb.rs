//! Unpacks a `.deb` into a [`Tree`] and reads its control part (deb(5)). No script runs and nothing touches a disk.
//!
//! A package is hostile until proven otherwise: paths and links that lead out of the tree, device nodes, duplicates, members out of order
//! and more bytes than announced are refused. A path through a symbolic link of the tree (`bin -> usr/bin`) is followed inside the tree.
//! Hard links become copies that share their bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;

use liblzma::stream::{MtStreamBuilder, Stream};
use tar::EntryType;

use crate::make::parallel::processors;
use crate::tree::{Content, Node, Tree, TreeError};

/// The control part of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The text of the `control` file.
    pub control: String,
    /// The other files by name: maintainer scripts, `conffiles`, `triggers`, `md5sums` and so on.
    pub files: BTreeMap<String, String>,
}

/// Why a package was refused.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The outer archive is not as deb(5) says.
    #[error("not a Debian package: {0}")]
    Outer(String),
    /// The control or data part cannot be read.
    #[error("failed to read {member}")]
    Member {
        /// The part's name.
        member: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It unpacks to more than it may.
    #[error("{member} unpacks to more than the {limit} bytes that are allowed for it")]
    TooLarge {
        /// The part's name.
        member: String,
        /// The bound.
        limit: u64,
    },
    /// A path that no package may have.
    #[error("the package has the path `{path}`, which {fault}")]
    Path {
        /// The path, as well as it can be shown.
        path: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A link that no package may have.
    #[error("the package has the link {path} -> {target}, which {fault}")]
    Link {
        /// Where the link is.
        path: String,
        /// Where it leads.
        target: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A kind of node that no package may have.
    #[error("the package has /{path}, which is neither a file, a directory nor a link")]
    Kind {
        /// Where.
        path: String,
    },
    /// The tree has something else there.
    #[error("the package does not fit into the image")]
    Tree(#[from] TreeError),
}

/// Bytes that a control part may unpack to; Debian's largest have a few megabytes of checksums.
const CONTROL_MAX: u64 = 64 << 20;

/// Bytes that a changelog may unpack to; the kernel's has five megabytes.
const CHANGELOG_MAX: u64 = 32 << 20;

/// Memory for an xz decoder: the dictionary of `xz -9` and some.
const XZ_MEMORY_MAX: u64 = 256 << 20;

/// Each thread holds a piece of a package, packed and unpacked; Debian's have up to 24 MiB.
const XZ_THREADS_MAX: u32 = 4;

/// The files of a package, decompressed and in no tree yet: the part of unpacking that takes long and needs nothing but the package.
#[derive(Debug)]
pub struct Files {
    entries: Vec<Entry>,
}

/// Unpacks the files of a package. `limit` bounds the bytes of its data part ([`crate::index::Package::unpack_limit`]); `filter` is asked for
/// every path (`usr/bin/x`, links followed) whether to take it.
pub fn unpack_deb(
    deb: &[u8],
    limit: u64,
    tree: &mut Tree,
    filter: impl Fn(&str) -> bool,
) -> Result<(), DebError> {
    read_files(&decompress_data(deb, limit)?)?.place(tree, filter)
}

/// Decompresses the data part of a package, an archive of its files. `limit` bounds its bytes.
pub fn decompress_data(deb: &[u8], limit: u64) -> Result<Vec<u8>, DebError> {
    parse_outer(deb)?.data.decompress(limit)
}

/// Reads the files of a package from its decompressed data part.
pub fn read_files(data: &[u8]) -> Result<Files, DebError> {
    let mut entries = Vec::new();
    for_each_entry("data.tar", data, |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(Files { entries })
}

impl Files {
    /// Returns those files whose path, as it is in the package, is wanted.
    #[must_use]
    pub fn select(&self, wanted: impl Fn(&str) -> bool) -> Self {
        let entries = self.entries.iter().filter(|entry| wanted(&entry.path));
        Files {
            entries: entries.cloned().collect(),
        }
    }

    /// Puts the files into a tree; `filter` is asked for every path (`usr/bin/x`, links followed) whether to take it.
    pub fn place(self, tree: &mut Tree, filter: impl Fn(&str) -> bool) -> Result<(), DebError> {
        let mut placing = Placing {
            tree,
            filter,
            files: BTreeMap::new(),
            seen: BTreeSet::new(),
        };
        self.entries
            .into_iter()
            .try_for_each(|entry| placing.take(entry))
    }
}

/// Reads the control part of a package.
pub fn read_control(deb: &[u8]) -> Result<Control, DebError> {
    let parts = parse_outer(deb)?;
    let mut files = BTreeMap::new();
    let control = parts.control.decompress(CONTROL_MAX)?;
    for_each_entry("control.tar", &control, |entry| {
        if entry.kind == EntryType::Regular {
            let text = String::from_utf8_lossy(&entry.bytes).into_owned();
            files.insert(entry.path.clone(), text);
        }
        Ok(())
    })?;
    let control = files
        .remove("control")
        .ok_or_else(|| DebError::Outer("it has no control file".to_owned()))?;
    Ok(Control { control, files })
}

/// Reads the changelog of a package's maintainers; none if the package leaves it to another one of the same source. `limit` is as for
/// [`unpack_deb`].
pub fn read_changelog(deb: &[u8], limit: u64, package: &str) -> Result<Option<String>, DebError> {
    // A package without an upstream of its own has only the second name; in any other that one is upstream's.
    let paths = ["changelog.Debian.gz", "changelog.gz"]
        .map(|name| format!("usr/share/doc/{package}/{name}"));
    let mut tree = Tree::new();
    unpack_deb(deb, limit, &mut tree, |path| {
        paths.iter().any(|wanted| wanted == path)
    })?;
    for path in &paths {
        if let Some(packed) = tree.bytes(path) {
            return gunzip(path, packed).map(Some);
        }
    }
    Ok(None)
}

fn gunzip(path: &str, packed: &[u8]) -> Result<String, DebError> {
    let mut text = Vec::new();
    let mut unpacked = Bounded {
        inner: flate2::read::MultiGzDecoder::new(packed),
        left: CHANGELOG_MAX,
    };
    unpacked
        .read_to_end(&mut text)
        .map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => DebError::TooLarge {
                member: path.to_owned(),
                limit: CHANGELOG_MAX,
            },
            _ => DebError::Member {
                member: path.to_owned(),
                source,
            },
        })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Control {
    /// Returns the maintainer scripts by name.
    pub fn scripts(&self) -> impl Iterator<Item = (&str, &str)> {
        const NAMES: [&str; 5] = ["config", "postinst", "postrm", "preinst", "prerm"];
        let files = self.files.iter();
        files
            .filter(|(name, _)| NAMES.contains(&name.as_str()))
            .map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Returns a field of the `control` file.
    pub fn field(&self, name: &str) -> Option<&str> {
        crate::deb822::stanzas(&self.control).next()?.field(name)
    }
}

/// The two compressed parts of a package.
struct Parts<'a> {
    control: Part<'a>,
    data: Part<'a>,
}

struct Part<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

/// Insists on exactly the three members of deb(5), in their order.
fn parse_outer(deb: &[u8]) -> Result<Parts<'_>, DebError> {
    let refuse = |text: &str| DebError::Outer(text.to_owned());
    let mut rest = deb
        .strip_prefix(b"!<arch>\n")
        .ok_or_else(|| refuse("it is no ar archive"))?;
    let mut members = Vec::new();
    while !rest.is_empty() {
        members.push(take_member(&mut rest).ok_or_else(|| refuse("its ar archive is damaged"))?);
    }
    let names: Vec<&str> = members.iter().map(|member| member.name).collect();
    match <[Part<'_>; 3]>::try_from(members) {
        Ok([version, control, data])
            if version.name == "debian-binary"
                && control.name.starts_with("control.tar")
                && data.name.starts_with("data.tar") =>
        {
            if version.bytes.starts_with(b"2.") {
                Ok(Parts { control, data })
            } else {
                Err(refuse("it has an unknown format version"))
            }
        }
        _ => Err(DebError::Outer(format!("its members are {names:?}"))),
    }
}

/// Takes one ar member: a header of 60 bytes (name in 0..16, size in 48..58, then two magic bytes), the content, and a padding byte to an
/// even offset.
fn take_member<'a>(rest: &mut &'a [u8]) -> Option<Part<'a>> {
    let (header, body) = rest.split_at_checked(60)?;
    if &header[58..60] != b"`\n" {
        return None;
    }
    let name = std::str::from_utf8(&header[..16]).ok()?.trim_end();
    let size: usize = std::str::from_utf8(&header[48..58])
        .ok()?
        .trim_end()
        .parse()
        .ok()?;
    let (bytes, body) = body.split_at_checked(size)?;
    *rest = if size % 2 == 1 {
        body.get(1..).unwrap_or(&[])
    } else {
        body
    };
    Some(Part {
        name: name.strip_suffix('/').unwrap_or(name),
        bytes,
    })
}

/// An entry of a part's tar archive, with its path checked.
#[derive(Clone, Debug)]
struct Entry {
    /// Without a leading `./`; empty for the root.
    path: String,
    kind: EntryType,
    mode: u16,
    uid: u32,
    gid: u32,
    target: String,
    bytes: Arc<[u8]>,
}

impl Part<'_> {
    /// Reads to the last byte, which lets the decompressor check its own sums.
    fn decompress(&self, limit: u64) -> Result<Vec<u8>, DebError> {
        let fault = |source: io::Error| match source.kind() {
            io::ErrorKind::FileTooLarge => DebError::TooLarge {
                member: self.name.to_owned(),
                limit,
            },
            _ => member_error(self.name, source),
        };
        let mut bytes = Vec::new();
        let mut bounded = Bounded {
            inner: self.decoder().map_err(fault)?,
            left: limit,
        };
        bounded.read_to_end(&mut bytes).map_err(fault)?;
        Ok(bytes)
    }

    fn decoder(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self.name.rsplit_once(".tar").map(|(_, end)| end) {
            Some(".xz") => Box::new(liblzma::read::XzDecoder::new_stream(
                self.bytes,
                xz_stream()?,
            )),
            Some(".zst") => Box::new(zstd::Decoder::with_buffer(self.bytes)?),
            Some("") => Box::new(self.bytes),
            _ => return Err(io::Error::other("its compression is not supported")),
        })
    }
}

fn member_error(name: &str, source: io::Error) -> DebError {
    DebError::Member {
        member: name.to_owned(),
        source,
    }
}

/// Hands out the entries of a decompressed part.
fn for_each_entry(
    name: &str,
    part: &[u8],
    mut take: impl FnMut(Entry) -> Result<(), DebError>,
) -> Result<(), DebError> {
    let fault = |source| member_error(name, source);
    let mut archive = tar::Archive::new(part);
    for entry in archive.entries().map_err(fault)? {
        let mut entry = entry.map_err(fault)?;
        let mut parsed = parse_entry(&entry, &fault)?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(fault)?;
        if bytes.len() as u64 != entry.size() {
            return Err(fault(io::ErrorKind::UnexpectedEof.into()));
        }
        parsed.bytes = bytes.into();
        take(parsed)?;
    }
    Ok(())
}

/// Large packages are compressed in pieces that several processors can work on; where that would take too much memory, one does.
fn xz_stream() -> io::Result<Stream> {
    let threads = u32::try_from(processors()).unwrap_or(u32::MAX);
    let stream = MtStreamBuilder::new()
        .threads(threads.min(XZ_THREADS_MAX))
        .memlimit_threading(XZ_MEMORY_MAX)
        .memlimit_stop(XZ_MEMORY_MAX)
        .decoder()?;
    Ok(stream)
}

/// Ends in an error of the kind `FileTooLarge` where [`Read::take`] would pretend the end of the file.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(count)
    }
}

fn parse_entry<R: Read>(
    entry: &tar::Entry<'_, R>,
    fault: &impl Fn(io::Error) -> DebError,
) -> Result<Entry, DebError> {
    let header = entry.header();
    let path = check_path(&entry.path_bytes())?;
    let target = entry.link_name_bytes().unwrap_or_default();
    let target = String::from_utf8(target.into_owned()).map_err(|error| DebError::Link {
        path: path.clone(),
        target: String::from_utf8_lossy(error.as_bytes()).into_owned(),
        fault: "is not UTF-8",
    })?;
    let id = |value: io::Result<u64>| {
        let value = value.map_err(fault)?;
        u32::try_from(value).map_err(|error| fault(io::Error::other(error)))
    };
    Ok(Entry {
        kind: header.entry_type(),
        mode: (header.mode().map_err(fault)? & 0o7777) as u16,
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        bytes: Arc::from([]),
        path,
        target,
    })
}

/// Takes off the `./` and the trailing slash that tar writes, and insists on a path that stays in the tree.
fn check_path(bytes: &[u8]) -> Result<String, DebError> {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    let refuse = |fault| DebError::Path {
        path: shown.clone(),
        fault,
    };
    let path = std::str::from_utf8(bytes).map_err(|_| refuse("is not UTF-8"))?;
    if path.starts_with('/') {
        return Err(refuse("is absolute"));
    }
    let path = path.strip_prefix("./").unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() || path == "." {
        return Ok(String::new());
    }
    for name in path.split('/') {
        match name {
            ".." => return Err(refuse("leads out of the tree")),
            "" | "." => return Err(refuse("has an empty component")),
            _ => {}
        }
    }
    Ok(path.to_owned())
}

struct Placing<'a, F> {
    tree: &'a mut Tree,
    filter: F,
    /// Every path of the package.
    seen: BTreeSet<String>,
    /// Its files, for hard links to them; also those that the filter did not take.
    files: BTreeMap<String, Node>,
}

impl<F: Fn(&str) -> bool> Placing<'_, F> {
    fn take(&mut self, entry: Entry) -> Result<(), DebError> {
        if entry.path.is_empty() {
            return Ok(());
        }
        let path = resolve_parent(self.tree, &entry.path)?;
        if !self.seen.insert(path.clone()) {
            return Err(DebError::Path {
                path,
                fault: "is in it twice",
            });
        }
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => self.put_file(path, entry),
            EntryType::Directory => self.put_directory(path, &entry),
            EntryType::Symlink => self.put_symlink(path, &entry),
            EntryType::Link => self.put_hard_link(path, &entry),
            _ => Err(DebError::Kind { path }),
        }
    }

    fn put_file(&mut self, path: String, entry: Entry) -> Result<(), DebError> {
        let node = file_node(entry);
        if (self.filter)(&path) {
            self.tree.insert(path.clone(), node.clone())?;
        }
        self.files.insert(path, node);
        Ok(())
    }

    /// Packages share directories: the first one's mode stays, as with dpkg. A link to a directory is as good as one.
    fn put_directory(&mut self, path: String, entry: &Entry) -> Result<(), DebError> {
        let present = self.tree.resolve(&path)?;
        let exists = self.tree.get(&present).is_some_and(Node::is_directory);
        if !exists && (self.filter)(&path) {
            let node = Node::directory(entry.mode).owned_by(entry.uid, entry.gid);
            self.tree.insert(path, node)?;
        }
        Ok(())
    }

    fn put_symlink(&mut self, path: String, entry: &Entry) -> Result<(), DebError> {
        if let Some(fault) = symlink_fault(&path, &entry.target) {
            return Err(DebError::Link {
                path,
                target: entry.target.clone(),
                fault,
            });
        }
        let node = Node::symlink(entry.target.clone()).owned_by(entry.uid, entry.gid);
        if (self.filter)(&path) && self.tree.get(&path) != Some(&node) {
            self.tree.insert(path, node)?;
        }
        Ok(())
    }

    fn put_hard_link(&mut self, path: String, entry: &Entry) -> Result<(), DebError> {
        let target = check_path(entry.target.as_bytes())?;
        let target = resolve_parent(self.tree, &target)?;
        if path == target || !self.seen.contains(&target) {
            return Err(DebError::Link {
                path,
                target,
                fault: "is a hard link to nothing that came before it in the package",
            });
        }
        let wanted = (self.filter)(&path);
        match self.files.get(&target).cloned() {
            Some(node) => {
                if wanted {
                    self.tree.insert(path.clone(), node.clone())?;
                }
                self.files.insert(path, node);
                Ok(())
            }
            None if wanted => Err(DebError::Link {
                path,
                target,
                fault: "is a hard link to something that is not a file",
            }),
            None => Ok(()),
        }
    }
}

fn file_node(entry: Entry) -> Node {
    Node {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        content: Content::File(entry.bytes),
    }
}

/// Follows the links of the tree on the way to a path, but not the path itself.
fn resolve_parent(tree: &Tree, path: &str) -> Result<String, DebError> {
    let Some((parent, name)) = path.rsplit_once('/') else {
        return Ok(path.to_owned());
    };
    let parent = tree.resolve(parent)?;
    Ok(if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    })
}

/// On the device the root directory is its own parent, so a link can hardly do harm; but an honest package has none that climbs over it.
fn symlink_fault(path: &str, target: &str) -> Option<&'static str> {
    if target.is_empty() || target.contains('\0') {
        return Some("has no usable target");
    }
    let mut depth = if target.starts_with('/') {
        0
    } else {
        path.matches('/').count()
    };
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return Some("leads out of the tree"),
            },
            _ => depth += 1,
        }
    }
    None
}
