//! What processes use, as the kernel counts it (proc(5)).

use std::fs;
use std::time::Duration;

/// What one process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Its share of memory, pages of several users divided among them (`Pss`).
    pub(crate) memory: u64,
    /// Times its threads went to sleep by themselves, which is how often they were woken.
    pub(crate) sleeps: u64,
    /// Time on a processor, its ended children's included.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// Returns nothing if the process is gone.
    pub(crate) fn load(pid: u32) -> Option<Usage> {
        Some(Usage {
            memory: proportional_memory(pid)?,
            sleeps: sleeps(pid)?,
            cpu: processor_time(pid)?,
        })
    }
}

/// Returns the processes in a network namespace, named as in `Namespace::identity`.
pub(crate) fn in_network(identity: &str) -> Vec<u32> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own && is_in(*pid, identity))
        .collect()
}

/// Ends the processes in a network namespace.
pub(crate) fn kill_in_network(identity: &str) {
    // One that makes another in this moment makes it in the same namespace.
    while let pids @ [_, ..] = &in_network(identity)[..] {
        for pid in pids {
            let _ = std::process::Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}

/// A process that ended but was not waited for has no namespace any more.
fn is_in(pid: u32, identity: &str) -> bool {
    fs::read_link(format!("/proc/{pid}/ns/net"))
        .is_ok_and(|link| link.display().to_string() == identity)
}

fn proportional_memory(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    field(&text, "Pss:").map(|kib| kib * 1024)
}

fn sleeps(pid: u32) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let count = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        field(&text, "voluntary_ctxt_switches:")
    };
    Some(tasks.flatten().filter_map(count).sum())
}

fn processor_time(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in parentheses and may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    // USER_HZ is 100 wherever Linux runs.
    Some(Duration::from_millis(ticks * 10))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
