//! What keeps Debian's packages from starting the services that they bring: a program that is asked first, and says no.
//!
//! See /usr/share/doc/init-system-helpers/README.policy-rc.d.gz. A machine that has such a program has its own policy, which stays.
//! One that a killed run left is known by its text.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::interrupt::Unfinished;

/// Where Debian looks for it.
pub const START_POLICY: &str = "/usr/sbin/policy-rc.d";
/// 101 forbids whatever is to be done.
const TEXT: &str = "#!/bin/sh
# Of Footbridge's `cargo xtask test`, which removes this file once it has installed what it needs.
exit 101
";

/// A policy by which nothing is started, removed with the value, or when the program is interrupted.
#[must_use]
pub struct StartPolicy {
    path: PathBuf,
    _unfinished: Unfinished,
}

impl StartPolicy {
    /// Puts one there; `None` if the machine has its own.
    pub fn put(path: &Path) -> io::Result<Option<StartPolicy>> {
        let mut options = fs::File::options();
        match options.write(true).create_new(true).mode(0o755).open(path) {
            Ok(mut file) => file.write_all(TEXT.as_bytes())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read(path)? != TEXT.as_bytes() {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(Some(StartPolicy {
            path: path.to_owned(),
            _unfinished: Unfinished::scratch(path),
        }))
    }
}

impl Drop for StartPolicy {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            // An interruption was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => say!("{} stays: {error}", self.path.display()),
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn nothing_is_started_as_long_as_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy-rc.d");
        for left in [false, true] {
            if left {
                fs::write(&path, TEXT).unwrap();
            }
            let policy = StartPolicy::put(&path).unwrap();
            assert!(policy.is_some(), "{left}");
            if !left {
                let asked = Command::new("sh").arg(&path).status();
                assert_eq!(asked.unwrap().code(), Some(101));
            }
            drop(policy);
            assert!(!path.exists(), "{left}");
        }
    }

    #[test]
    fn a_policy_of_the_machines_own_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy-rc.d");
        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        assert!(StartPolicy::put(&path).unwrap().is_none());
        assert_eq!(fs::read_to_string(path).unwrap(), "#!/bin/sh\nexit 0\n");
    }
}
