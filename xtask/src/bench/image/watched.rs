//! Running a command and seeing how long it takes, what it says when, and how much memory it and its children have.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::descendants;

/// How often memory is looked at. A look at all processes takes a millisecond or two.
const INTERVAL: Duration = Duration::from_millis(20);

/// The unit of processor times in proc(5), USER_HZ, on every machine but the Alpha.
const TICK: Duration = Duration::from_millis(10);

/// A command that came to its end.
pub struct Finished {
    /// From its start to its end.
    pub took: Duration,
    /// On all processors, with its children.
    pub worked: Duration,
    /// What it said on standard error, and when.
    pub lines: Vec<(Duration, String)>,
}

/// Runs a command to its end, by itself.
pub fn time(command: &mut Command) -> Result<Finished> {
    watch(command, Duration::MAX, |_| ())
}

/// Runs a command to its end and returns the most bytes of memory that it and its children had at the same time.
///
/// What they share is counted for each. A peak that one of them has between two looks is known from the kernel; that of their sum is not.
pub fn weigh(command: &mut Command) -> Result<u64> {
    let mut most = 0;
    watch(command, INTERVAL, |process| {
        let everyone = descendants::of(process).into_iter().chain([process]);
        let memory: Vec<Memory> = everyone.filter_map(memory_of).collect();
        let together = memory.iter().map(|memory| memory.resident).sum();
        let highest = memory.iter().map(|memory| memory.peak).max();
        most = most.max(together).max(highest.unwrap_or(0));
    })?;
    Ok(most)
}

/// Runs a command to its end and looks at its process at every interval.
fn watch(command: &mut Command, interval: Duration, mut look: impl FnMut(u32)) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let worked_before = children_worked()?;
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("while starting {name}"))?;
    let talk = child.stderr.take().context("its talk is not on a pipe")?;
    let heard = listen(talk);
    let mut lines = Vec::new();
    loop {
        match heard.recv_timeout(interval) {
            Ok((at, line)) => lines.push((at - start, line)),
            Err(RecvTimeoutError::Timeout) => look(child.id()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("while running {name}"))?;
    let took = start.elapsed();
    if !status.success() {
        let said: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
        bail!("{name} ended with {status}\n{}", said.join("\n"));
    }
    Ok(Finished {
        took,
        worked: children_worked()?.saturating_sub(worked_before),
        lines,
    })
}

fn listen(talk: impl std::io::Read + Send + 'static) -> Receiver<(Instant, String)> {
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(talk).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send((Instant::now(), line)).is_err() {
                break;
            }
        }
    });
    heard
}

/// Returns the processor time of all children that came to their end, and theirs.
fn children_worked() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("while reading /proc/self/stat")?;
    let ticks = parse_children_ticks(&stat).context("/proc/self/stat is not as proc(5) has it")?;
    Ok(TICK * ticks)
}

/// `cutime` and `cstime`, the fourteenth and fifteenth words after the name, which may hold anything (proc(5)).
fn parse_children_ticks(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut words = after_name.split_ascii_whitespace().skip(13);
    let mut next = || words.next()?.parse::<u32>().ok();
    next()?.checked_add(next()?)
}

/// A process's memory in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    resident: u64,
    peak: u64,
}

/// Returns nothing for a process that has ended.
fn memory_of(process: u32) -> Option<Memory> {
    parse_memory(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

/// `VmHWM:     1234 kB` and `VmRSS:` likewise (proc(5)).
fn parse_memory(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes << 10)
    };
    Some(Memory {
        resident: bytes("VmRSS")?,
        peak: bytes("VmHWM")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status() {
        let status =
            "Name:\tVmRSS\nVmPeak:\t    9000 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let memory = Memory {
            resident: 1 << 20,
            peak: 2 << 20,
        };
        assert_eq!(parse_memory(status), Some(memory));
        assert_eq!(parse_memory("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn processor_time_is_read_from_the_stat() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 200 0 0 11 12 250 50 20 0 1 0 5 6 7";
        assert_eq!(parse_children_ticks(stat), Some(300));
        assert_eq!(parse_children_ticks("7 (a) S 1 7"), None);
    }

    #[test]
    fn what_a_command_and_its_children_say_and_weigh() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let finished = time(&mut shell("echo one >&2; (echo two >&2)")).unwrap();
        let said: Vec<&str> = finished.lines.iter().map(|(_, line)| &**line).collect();
        assert_eq!(said, ["one", "two"]);
        assert!(finished.lines.iter().all(|(at, _)| *at <= finished.took));

        let error = time(&mut shell("echo why >&2; exit 3")).err().unwrap();
        assert!(error.to_string().ends_with("\nwhy"), "{error}");

        // The child holds what it read until it may end; sixteen mebibytes of zeros in a variable are of no shell's own.
        let heavy = "sh -c 'x=$(head -c 16777216 /dev/zero | tr \"\\0\" a); head -c 300000000 /dev/zero >/dev/null; : $x'; true";
        assert!(weigh(&mut shell(heavy)).unwrap() > 16 << 20);
    }
}
