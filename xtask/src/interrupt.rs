//! Ctrl-C and its kin: ends what the program started, removes what is unfinished, says so, and ends the program with exit code 130.
//!
//! Signals come to the process as a whole, so what is to be removed is kept for the process as a whole: the one global of this program.
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

/// A file on its way to its destination, or something for the time being.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    partial: PathBuf,
    destination: Option<PathBuf>,
}

/// Something that an interruption removes for as long as this value lives.
#[must_use]
pub struct Unfinished(Entry);

impl Unfinished {
    /// Names a file that will be moved to its destination when it is complete.
    pub fn file(partial: &Path, destination: &Path) -> Self {
        Self::add(Entry {
            partial: partial.to_owned(),
            destination: Some(destination.to_owned()),
        })
    }

    /// Names a file or a folder that nobody needs once the program has ended.
    pub fn scratch(path: &Path) -> Self {
        Self::add(Entry {
            partial: path.to_owned(),
            destination: None,
        })
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
    for Entry {
        partial,
        destination,
    } in unfinished
    {
        match destination {
            // If it is not there it has its final name already.
            Some(destination) if fs::remove_file(partial).is_ok() => {
                eprintln!("\ninterrupted; {} was not written", destination.display());
                said = true;
            }
            Some(_) => {}
            // What is still being written there stays; it is in a folder for such things.
            None => drop(fs::remove_dir_all(partial).or_else(|_| fs::remove_file(partial))),
        }
    }
    if !said {
        eprintln!("\ninterrupted");
    }
    // `test` may have gone on to its next check.
    descendants::end();
    std::process::exit(EXIT_CODE)
}
