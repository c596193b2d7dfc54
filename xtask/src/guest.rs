//! A guest of the emulator: its console, line by line, and the checks that the kit inside reports there.
//!
//! What the checks are is the business of `xtask/kit/`; what follows from them that of whoever started the guest.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A running guest. Its end is the value's: as if somebody had cut its power.
pub struct Guest {
    emulator: Child,
    lines: Receiver<String>,
}

/// What came of waiting for a guest's next line.
pub enum Heard {
    /// A line of its console.
    Line(String),
    /// Nothing until the deadline.
    Nothing,
    /// The guest has ended.
    End,
}

/// One check's outcome, as the guest reported it.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Whether it passed.
    pub passed: bool,
    /// Which one.
    pub name: String,
    /// The time since the one before, by the guest's clock.
    pub took: Duration,
    /// What was seen.
    pub detail: String,
}

impl Guest {
    /// Starts what `qemu::Boot` prepared, its console on a pipe.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut emulator = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("while starting QEMU")?;
        let console = emulator
            .stdout
            .take()
            .context("QEMU's console is not on a pipe")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                    break;
                }
            }
        });
        Ok(Guest { emulator, lines })
    }

    /// Waits for the next line of the console.
    pub fn listen(&self, deadline: Instant) -> Heard {
        let patience = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(patience) {
            Ok(line) => Heard::Line(line),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.emulator.kill());
        drop(self.emulator.wait());
    }
}

/// Parses `E2E ok NAME MILLISECONDS DETAIL`; no other line is a check.
pub fn parse_check(line: &str) -> Option<Check> {
    let mut words = line.strip_prefix("E2E ")?.splitn(4, ' ');
    let passed = match words.next()? {
        "ok" => true,
        "FAIL" => false,
        _ => return None,
    };
    let name = words.next()?.to_string();
    let took = Duration::from_millis(words.next()?.parse().ok()?);
    Some(Check {
        passed,
        name,
        took,
        detail: words.next().unwrap_or_default().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_lines() {
        let check = |passed, name: &str, ms, detail: &str| {
            Some(Check {
                passed,
                name: name.into(),
                took: Duration::from_millis(ms),
                detail: detail.into(),
            })
        };
        for (line, expected) in [
            (
                "E2E ok ping 120 192.168.77.100",
                check(true, "ping", 120, "192.168.77.100"),
            ),
            (
                "E2E FAIL tcp 30000 a b c",
                check(false, "tcp", 30000, "a b c"),
            ),
            ("E2E ok bare 5", check(true, "bare", 5, "")),
            ("E2E begin 4000", None),
            ("E2E ok ping soon", None),
            ("[    1.0] E2E ok ping 1", None),
        ] {
            assert_eq!(parse_check(line), expected, "{line}");
        }
    }
}
