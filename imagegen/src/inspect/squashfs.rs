//! Reads a squashfs into a tree, as the kernel would mount it.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use backhand::{BackhandError, FilesystemReader, InnerNode};
use thiserror::Error;

use crate::tree::{Content, Node, Tree, TreeError};

/// A root has no larger files all together; a small image that pretends to is not unpacked.
const CONTENT_MAX: u64 = 4 << 30;

/// A file system that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Directories, files and links.
    pub tree: Tree,
    /// What is none of these, by path: "a character device" and so on.
    pub oddities: Vec<(String, &'static str)>,
}

/// Why a squashfs could not be read.
#[derive(Debug, Error)]
pub enum SquashfsReadError {
    /// It is none, or it is damaged.
    #[error("failed to read the squashfs")]
    Damaged(#[source] BackhandError),
    /// The content of a file is damaged.
    #[error("failed to read /{path} in the squashfs")]
    File {
        /// Which one.
        path: String,
        /// Why.
        #[source]
        err: io::Error,
    },
    /// A name that is no text.
    #[error("the squashfs has a name that is not UTF-8: {0}")]
    Name(String),
    /// A name that cannot be a path.
    #[error("the squashfs has a name that cannot be")]
    Path(#[from] TreeError),
    /// More than any root has.
    #[error("the files in the squashfs are larger than {} GiB", CONTENT_MAX >> 30)]
    TooLarge,
}

/// Reads when the squashfs that begins at an offset was made, in seconds since 1970 (superblock, `mkfs_time`).
pub fn read_time(mut source: impl Read + Seek, offset: u64) -> io::Result<u32> {
    const MAGIC: &[u8; 4] = b"hsqs";
    let mut head = [0; 12];
    source.seek(SeekFrom::Start(offset))?;
    source.read_exact(&mut head)?;
    let [m0, m1, m2, m3, .., t0, t1, t2, t3] = head;
    match [m0, m1, m2, m3] == *MAGIC {
        true => Ok(u32::from_le_bytes([t0, t1, t2, t3])),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Reads a squashfs.
pub fn read_squashfs(source: impl BufRead + Seek + Send) -> Result<Found, SquashfsReadError> {
    let filesystem = FilesystemReader::from_reader(source).map_err(SquashfsReadError::Damaged)?;
    let mut found = Found::default();
    let mut room = CONTENT_MAX;
    for node in filesystem.files() {
        let path = node
            .fullpath
            .to_str()
            .ok_or_else(|| SquashfsReadError::Name(node.fullpath.to_string_lossy().into_owned()))?
            .trim_start_matches('/')
            .to_owned();
        if path.is_empty() {
            continue;
        }
        let content = match &node.inner {
            InnerNode::Dir(_) => Content::Directory,
            InnerNode::File(file) => {
                let size = file.file_len() as u64;
                room = room.checked_sub(size).ok_or(SquashfsReadError::TooLarge)?;
                let mut bytes = Vec::new();
                filesystem
                    .file(file)
                    .reader()
                    .take(size)
                    .read_to_end(&mut bytes)
                    .map_err(|err| SquashfsReadError::File {
                        path: path.clone(),
                        err,
                    })?;
                Content::File(bytes.into())
            }
            InnerNode::Symlink(link) => Content::Symlink(link.link.to_string_lossy().into_owned()),
            InnerNode::CharacterDevice(_) => {
                found.oddities.push((path, "a character device"));
                continue;
            }
            InnerNode::BlockDevice(_) => {
                found.oddities.push((path, "a block device"));
                continue;
            }
            InnerNode::NamedPipe => {
                found.oddities.push((path, "a named pipe"));
                continue;
            }
            InnerNode::Socket => {
                found.oddities.push((path, "a socket"));
                continue;
            }
        };
        let node = Node {
            mode: node.header.permissions,
            uid: node.header.uid,
            gid: node.header.gid,
            content,
        };
        // Not `insert`, which takes a directory it had to make for the parent of another one for a conflict.
        found.tree.replace(path, node)?;
    }
    Ok(found)
}
