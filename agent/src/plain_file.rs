//! Reads a small file that anybody may have put there, without waiting.
//!
//! A pipe at the file's name would stop the one loop until somebody writes to it, a device or a huge file for as long as it lasts.
//! So only a regular file is read, and of a bounded size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Returns what a regular file of at most `limit` bytes holds. Anything else is an error (`InvalidInput`, `FileTooLarge`).
pub(crate) fn read_plain_file(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    // Opening a pipe waits for its writer otherwise. The standard library adds O_CLOEXEC itself.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        let reason = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    read_bounded(file, limit)
}

/// Returns what is read until the end, of at most `limit` bytes; more is an error (`FileTooLarge`).
pub(crate) fn read_bounded(file: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let reason = format!("it is longer than {} KiB", limit >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LIMIT: usize = 2048;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let kind = |path: &Path| read_plain_file(path, LIMIT).unwrap_err().kind();
        assert_eq!(kind(&path), io::ErrorKind::NotFound);
        for length in [0, 1, LIMIT] {
            fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(read_plain_file(&path, LIMIT).unwrap().len(), length);
        }
        fs::write(&path, vec![b'x'; LIMIT + 1]).unwrap();
        assert_eq!(kind(&path), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(dir.path()), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Path::new("/dev/zero")), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let error = read_plain_file(&path, LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }
}
