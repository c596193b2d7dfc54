//! Trees as folders, for programs that are not ours.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use imagegen::tree::{Content, Node, Tree};

/// Writes a tree's directories, files and links below a folder, with their modes.
pub fn write_tree(tree: &Tree, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("while creating {}", folder.display()))?;
    for (path, node) in tree.iter() {
        let place = folder.join(path);
        write_node(node, &place).with_context(|| format!("while writing {}", place.display()))?;
    }
    Ok(())
}

fn write_node(node: &Node, place: &Path) -> std::io::Result<()> {
    match &node.content {
        Content::Symlink(target) => return symlink(target, place),
        Content::Directory => fs::create_dir_all(place)?,
        Content::File(bytes) => fs::write(place, bytes)?,
    }
    fs::set_permissions(place, fs::Permissions::from_mode(node.mode.into()))
}
