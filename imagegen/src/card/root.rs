//! What the root of a card can do with its settings.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crate::inspect::squashfs::has_path;
use crate::make::fat::change::Storage;
use crate::mbr::Partition;

/// What starts the SSH server, in images that have one.
const SSH_UNIT: &str = "etc/systemd/system/ssh.service";

/// Whether an SSH server is on the root partition; nothing if that cannot be read, which is not for an edit of the settings to judge.
pub(super) fn has_ssh_server(storage: &(impl Storage + Sync), root: &Partition) -> Option<bool> {
    let disk = Disk {
        storage,
        at: 0,
        end: root.offset() + root.size(),
    };
    has_path(BufReader::new(disk), root.offset(), SSH_UNIT).ok()
}

/// A disk that is read like a file, up to where a partition ends.
struct Disk<'a, S> {
    storage: &'a S,
    at: u64,
    end: u64,
}

impl<S: Storage> Read for Disk<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.at);
        let size = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.storage.read_exact_at(&mut buffer[..size], self.at)?;
        self.at += size as u64;
        Ok(size)
    }
}

impl<S: Storage> Seek for Disk<'_, S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
