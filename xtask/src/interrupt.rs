//! Ctrl-C and its kin: ends what the program started, removes what is unfinished, says so, and ends the program with exit code 130.
//!
//! Signals come to the process as a whole, so what is to be removed is kept for the process as a whole: a global, as what is drawn on the
//! terminal is (`progress`).
//! Whatever SIGKILL leaves is found by its free lock the next time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::descendants;

/// What shells report for a program that SIGINT ended.
const EXIT_CODE: i32 = 130;

static UNFINISHED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// What an interruption finds unfinished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file on its way to its destination.
    File {
        /// Where it grows.
        partial: PathBuf,
        /// Where it will be.
        destination: PathBuf,
    },
    /// Something for the time being.
    Scratch(PathBuf),
    /// Something that stays as it is and can be gone on with, in words.
    Resumable(String),
}

/// Something that an interruption removes for as long as this value lives.
#[must_use]
pub struct Unfinished(Entry);

impl Unfinished {
    /// Names a file that will be moved to its destination when it is complete.
    pub fn file(partial: &Path, destination: &Path) -> Self {
        Self::add(Entry::File {
            partial: partial.to_owned(),
            destination: destination.to_owned(),
        })
    }

    /// Names a file or a folder that nobody needs once the program has ended.
    pub fn scratch(path: &Path) -> Self {
        Self::add(Entry::Scratch(path.to_owned()))
    }

    /// Says what is left as it is, and how to go on with it.
    pub fn resumable(what: String) -> Self {
        Self::add(Entry::Resumable(what))
    }

    fn add(entry: Entry) -> Self {
        hold().push(entry.clone());
        Unfinished(entry)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        hold().retain(|entry| *entry != self.0);
    }
}

/// Returns the list of unfinished things: nobody is interrupted while it is held, and it is never given back once somebody is.
pub fn hold() -> MutexGuard<'static, Vec<Entry>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches for signals from here on.
pub fn watch() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("while asking for signals")?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            end(&hold());
        }
    });
    Ok(())
}

fn end(unfinished: &[Entry]) -> ! {
    descendants::end();
    let mut said = false;
    for entry in unfinished {
        match entry {
            Entry::File {
                partial,
                destination,
            } => {
                // If it is not there it has its final name already.
                if fs::remove_file(partial).is_ok() {
                    say!("\ninterrupted; {} was not written", destination.display());
                    said = true;
                }
            }
            // What is still being written there stays; it is in a folder for such things.
            Entry::Scratch(path) => {
                drop(fs::remove_dir_all(path).or_else(|_| fs::remove_file(path)));
            }
            Entry::Resumable(what) => {
                say!("\ninterrupted; {what}");
                said = true;
            }
        }
    }
    if !said {
        say!("\ninterrupted");
    }
    // `test` may have gone on to its next check.
    descendants::end();
    std::process::exit(EXIT_CODE)
}
