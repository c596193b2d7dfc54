//! What the root of a card can do with its settings.

use crate::inspect::squashfs_path::has_path;
use crate::make::fat::change::Storage;
use crate::mbr::Partition;

/// What starts the SSH server, in images that have one.
const SSH_UNIT: &str = "etc/systemd/system/ssh.service";

/// Whether an SSH server is on the root partition; nothing if that cannot be read, which is not for an edit of the settings to judge.
pub(super) fn has_ssh_server(storage: &impl Storage, root: &Partition) -> Option<bool> {
    let read_at = |buffer: &mut [u8], at| storage.read_exact_at(buffer, at);
    has_path(read_at, root.offset(), root.size(), SSH_UNIT).ok()
}
