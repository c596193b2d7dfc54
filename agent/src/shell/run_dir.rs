//! The run directory: the lock that keeps a second agent out, and the paths of the files kept there.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::hint::Hinted;

/// Where the agent keeps its run-time files unless told otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/footbridge";

/// Returns the path of the status socket in a run directory.
pub fn status_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("status.sock")
}

/// A run directory held by this process, until it is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Creates the directory where it is missing and takes its lock, which the kernel releases however the process ends.
    pub fn hold(path: &Path) -> anyhow::Result<RunDir> {
        std::fs::create_dir_all(path).with_context(|| {
            Hinted::new(
                format!("while creating {}", path.display()),
                "start as root or through the service manager, or give --run-dir DIR",
            )
        })?;
        let lock_path = path.join("lock");
        // Opened without truncation: the file is nothing but a name to lock. A link at the name leads to somebody else's.
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&lock_path)
            .with_context(|| format!("while opening {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(RunDir {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Hinted::new(
                format!(
                    "another agent is running with run directory {}",
                    path.display()
                ),
                "`footbridge status` shows it; a second pair of interfaces needs its own --run-dir",
            )
            .into()),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("while locking {}", lock_path.display()))
            }
        }
    }

    /// Returns the path of the status socket.
    pub fn status_socket(&self) -> PathBuf {
        status_socket(&self.path)
    }

    /// Returns the path of the ledger of what is to be given back.
    pub fn ledger(&self) -> PathBuf {
        self.path.join("ledger.json")
    }

    /// Returns the path of a file with a name.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_at_the_locks_name_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("lock")).unwrap();
        RunDir::hold(dir.path()).unwrap_err();
        assert!(!elsewhere.exists());
    }
}
