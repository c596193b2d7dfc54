//! Runs the built command in a folder of its own, with an empty cache, and shows what came of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder with an empty cache.
pub(crate) struct Desk {
    folder: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Desk {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a file on the desk.
    pub(crate) fn put(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// The command, to be run on the desk.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(args)
            .current_dir(self.path())
            .env("FOOTBRIDGE_CACHE", self.path().join("cache"))
            .env_remove("FOOTBRIDGE_MIRROR")
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .env_remove("ALL_PROXY")
            .env_remove("all_proxy")
            .stdin(Stdio::null());
        command
    }

    /// Runs the command; returns its exit code and what it said.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        self.told(&self.command(args).output().unwrap())
    }

    /// Exit code, stdout and stderr as one text, without what differs from run to run.
    pub(crate) fn told(&self, output: &Output) -> String {
        let text = format!(
            "{}{}exit code {}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            output
                .status
                .code()
                .map_or("none".to_owned(), |code| code.to_string())
        );
        let mut lines: Vec<&str> = text.lines().collect();
        // Steps end with the time they took.
        lines.retain(|line| !line.ends_with(" s)"));
        lines
            .join("\n")
            .replace(&self.path().display().to_string(), "DESK")
    }

    /// The names on the desk, hidden ones included.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}
