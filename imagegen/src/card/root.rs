//! What the root of a card can do with its settings.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crate::inspect::squashfs::has_path;
use crate::make::fat::change::Storage;
use crate::mbr::Partition;

/// What starts the SSH server, in images that have one.
const SSH_UNIT: &str = "etc/systemd/system/ssh.service";

/// Whether an SSH server is on the root partition; nothing if that cannot be read, which is not for an edit of the settings to judge.
pub(super) fn has_ssh_server(storage: &(impl Storage + Sync), root: &Partition) -> Option<bool> {
    let disk = Disk { storage, at: 0 };
    has_path(BufReader::new(disk), root.offset(), SSH_UNIT).ok()
}

/// A disk that is read like a file.
struct Disk<'a, S> {
    storage: &'a S,
    at: u64,
}

impl<S: Storage> Read for Disk<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.storage.read_exact_at(buffer, self.at) {
            Ok(()) => {
                self.at += buffer.len() as u64;
                Ok(buffer.len())
            }
            // Near its end, so many bytes are not there at a time.
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof && buffer.len() > 1 => {
                let half = buffer.len() / 2;
                self.read(&mut buffer[..half])
            }
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(err) => Err(err),
        }
    }
}

impl<S: Storage> Seek for Disk<'_, S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            // How long it is does not matter to who reads a file system.
            SeekFrom::End(_) => None,
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
