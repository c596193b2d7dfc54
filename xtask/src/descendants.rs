//! The processes that a process started, and those that they started: cargo and its compilers, QEMU.
//!
//! A terminal sends Ctrl-C to everyone in its foreground, but `kill` and service managers send their signal to one process, whose
//! children would go on without it. They stay in this program's process group, because QEMU reads the terminal; so they are found
//! by their parents (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};

/// How often the descendants are asked to end before they are made to, and the time between.
const REQUESTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// A process, as its parent's entry in the map of all.
struct Process {
    parent: u32,
    /// It has ended and waits for its parent to take note.
    ended: bool,
}

/// Ends all descendants of this process and returns when there is none, or after a second.
pub fn end() {
    // Whose parent ends first becomes a child of this process, not of process 1. Older kernels do without.
    let _ = set_child_subreaper(Some(getpid()));
    for request in 0..=REQUESTS {
        let living = of(std::process::id());
        if living.is_empty() {
            return;
        }
        let signal = if request < REQUESTS {
            Signal::TERM
        } else {
            Signal::KILL
        };
        for pid in living.into_iter().filter_map(to_pid) {
            // It may have ended by itself, which is as good.
            let _ = kill_process(pid, signal);
        }
        // Of a descendant that is no child, nobody tells that it ended.
        std::thread::sleep(PAUSE);
    }
}

/// Returns a process's descendants that have not ended.
pub fn of(ancestor: u32) -> Vec<u32> {
    living(&processes(), ancestor)
}

fn to_pid(process: u32) -> Option<Pid> {
    i32::try_from(process).ok().and_then(Pid::from_raw)
}

fn living(processes: &BTreeMap<u32, Process>, ancestor: u32) -> Vec<u32> {
    let living = processes.iter().filter(|(_, process)| !process.ended);
    living
        .map(|(&number, _)| number)
        .filter(|&number| descends(processes, number, ancestor))
        .collect()
}

fn descends(processes: &BTreeMap<u32, Process>, mut number: u32, ancestor: u32) -> bool {
    // A process that took the number of one that ended while they were read could close a circle.
    for _ in 0..processes.len() {
        match processes.get(&number) {
            Some(process) if process.parent == ancestor => return true,
            Some(process) => number = process.parent,
            None => return false,
        }
    }
    false
}

/// All processes there are.
fn processes() -> BTreeMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| {
            let number = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
            Some((number, parse_process(&stat)?))
        })
        .collect()
}

/// `NUMBER (NAME) STATE PARENT ...`, where the name may hold anything.
fn parse_process(stat: &str) -> Option<Process> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut words = after_name.split_ascii_whitespace();
    Some(Process {
        ended: matches!(words.next()?, "Z" | "X"),
        parent: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_hold_anything() {
        for (stat, expected) in [
            ("12 (sh) S 7 12 12 0 -1", Some((7, false))),
            ("12 (sh) Z 7 12 12 0 -1", Some((7, true))),
            ("12 (a) S 9 (b) R 7 12", Some((7, false))),
            ("12 (sh", None),
            ("12 (sh) S", None),
            ("", None),
        ] {
            let parsed = parse_process(stat).map(|process| (process.parent, process.ended));
            assert_eq!(parsed, expected, "{stat}");
        }
    }

    #[test]
    fn descent() {
        let processes =
            [(2, 1), (3, 2), (4, 3), (5, 1), (6, 7), (7, 6), (8, 3)].map(|(number, parent)| {
                (
                    number,
                    Process {
                        parent,
                        ended: number == 8,
                    },
                )
            });
        assert_eq!(living(&BTreeMap::from(processes), 2), [3, 4]);
    }
}
