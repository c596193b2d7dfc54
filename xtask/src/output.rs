//! The one way to the terminal: results to standard output, talk to standard error.
//!
//! Whoever reads a result may have had enough (`| head`), which ends the command and is no failure. Talk that nobody can hear ends nothing.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use anyhow::Result;

use crate::usage::Failure;

/// Tells something on standard error, in a line of its own.
macro_rules! say {
    ($($words:tt)*) => { $crate::output::tell(format_args!("{}\n", format_args!($($words)*))) };
}

/// Tells something on standard error, without ending the line.
macro_rules! say_on {
    ($($words:tt)*) => { $crate::output::tell(format_args!($($words)*)) };
}

/// The reader of the result has gone.
#[derive(Debug)]
pub struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the result")
    }
}

impl std::error::Error for ReaderGone {}

/// Writes a result, or a part of it.
pub fn print(result: impl fmt::Display) -> Result<()> {
    let mut output = io::stdout().lock();
    write!(output, "{result}")
        .and_then(|()| output.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => ReaderGone.into(),
            _ => Failure::new(
                format!("the result cannot be written: {error}"),
                "make room where standard output leads, or have it lead elsewhere",
            )
            .into(),
        })
}

/// Writes what goes with a failure, which stands though nobody reads it.
pub fn print_with_failure(result: impl fmt::Display) -> Result<()> {
    match print(result) {
        Err(error) if error.is::<ReaderGone>() => Ok(()),
        printed => printed,
    }
}

/// Writes a result in a line of its own.
pub fn print_line(result: impl fmt::Display) -> Result<()> {
    print(format_args!("{result}\n"))
}

/// Writes to standard error, whether or not anybody can read it.
pub fn tell(words: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(words);
}
