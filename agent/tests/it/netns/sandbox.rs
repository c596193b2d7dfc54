//! What the agent asks of the kernel in a whole life, against what the unit lets it have.
//!
//! The agent runs under strace: every system call has to be among those that the unit's filter allows, and nothing but its run
//! directory and the settings below /proc/sys/net/ipv4/conf is opened for writing, made, renamed or removed.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use super::fleet::read_status;
use super::in_namespace;
use super::rig::{Agent, PRINTER, Rig, eventually};
use crate::skip::{missing_tools, skip};
use crate::unit_file::UNIT;

const TEST: &str = "netns::sandbox::the_unit_allows_what_the_agent_does_and_little_else";

#[test]
fn the_unit_allows_what_the_agent_does_and_little_else() {
    let missing = missing_tools(&["strace", "systemd-analyze"]);
    if !missing.is_empty() {
        return skip(TEST, &format!("no {}", missing.join(", ")));
    }
    in_namespace(|rig| {
        rig.start_dhcp_server();
        rig.make_client_a_printer();
        let calls = traced_life(rig);
        let allowed = allowed_calls();
        let used: BTreeSet<&str> = calls.iter().map(|call| name(call)).collect();
        let refused: Vec<&&str> = used
            .iter()
            .filter(|call| !allowed.contains(**call))
            .collect();
        assert!(refused.is_empty(), "the unit refuses {refused:?}");
        eprintln!(
            "MEASURED system calls: {} used of {} allowed",
            used.len(),
            allowed.len()
        );
        no_outgoing_frame_is_copied(&calls);
        let run_dir = rig.run_dir().display().to_string();
        let own = [run_dir.as_str(), "/proc/sys/net/ipv4/conf/"];
        for call in calls.iter().filter(|call| writes(call)) {
            let paths = call.split('"').skip(1).step_by(2);
            for path in paths.filter(|path| path.starts_with('/')) {
                let inside = own.iter().any(|own| path.starts_with(own));
                assert!(inside, "{call}");
            }
        }
    });
}

/// Has an agent under strace find a host, give a lease, answer for its status to both who may ask, and end; returns its system calls.
fn traced_life(rig: &mut Rig) -> Vec<String> {
    let log = rig.dir.path().join("calls");
    let agent = rig.agent_command();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s", "300", "-o"]).arg(&log);
    command.arg(agent.get_program()).args(agent.get_args());
    let config = rig.dir.path().join("footbridge.toml");
    fs::write(&config, "[fleet]\nstatus = true\n").unwrap();
    command.arg("--config").arg(config);
    command
        .env_remove("NOTIFY_SOCKET")
        .env_remove("JOURNAL_STREAM");
    // strace ends with the agent, and hands SIGTERM on to it.
    let strace = Agent(command.stderr(Stdio::null()).spawn().unwrap());
    rig.await_state("bridging");
    eventually("the router reaches the printer", || {
        rig.router.pings(PRINTER)
    });
    rig.lease();
    assert!(!read_status(&rig.router).unwrap().is_empty());
    rig.client.ip("link set c0 down");
    rig.await_state("waiting-for-cable");
    let agent = fs::read_to_string(&log).unwrap();
    let agent = agent.split_whitespace().next().unwrap().to_owned();
    assert!(
        rig.router
            .run(&["sh", "-c", &format!("kill -TERM {agent}")])
            .status
            .success()
    );
    let mut strace = strace;
    eventually("the agent ends", || strace.0.try_wait().unwrap().is_some());
    let text = fs::read_to_string(&log).unwrap();
    // `PID name(arguments) = result`; signals and ends are no calls, and the halves of interrupted calls name them as well.
    let calls = text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    calls
        .map(|(_, call)| call.trim_start().trim_start_matches("<... ").to_owned())
        .filter(|call| call.starts_with(|first: char| first.is_ascii_lowercase() || first == '_'))
        .collect()
}

/// Every packet socket says that it does not want the frames that leave.
fn no_outgoing_frame_is_copied(calls: &[String]) {
    let count = |words: [&str; 2]| {
        let calls = calls.iter();
        calls
            .filter(|call| words.iter().all(|word| call.contains(word)))
            .count()
    };
    let opened = count(["socket(AF_PACKET", " = "]);
    let told = count(["PACKET_IGNORE_OUTGOING, [1]", " = 0"]);
    assert!(opened > 0 && told == opened, "{told} of {opened}");
}

fn name(call: &str) -> &str {
    call.split(['(', ' ']).next().unwrap()
}

/// Whether a call may change a file or a directory.
fn writes(call: &str) -> bool {
    let opened = ["O_WRONLY", "O_RDWR", "O_CREAT"];
    match name(call) {
        "open" | "openat" => opened.iter().any(|flag| call.contains(flag)),
        "unlink" | "unlinkat" | "rename" | "renameat" | "renameat2" | "mkdir" | "mkdirat"
        | "rmdir" | "symlink" | "symlinkat" | "link" | "linkat" | "truncate" | "chmod"
        | "fchmodat" | "chown" | "fchownat" | "mknod" | "mknodat" => !call.contains("EEXIST"),
        _ => false,
    }
}

/// Expands the unit's `SystemCallFilter=` lines: sets and calls that are allowed, then those that are not after all.
fn allowed_calls() -> BTreeSet<String> {
    let unit = fs::read_to_string(UNIT).unwrap();
    let mut allowed = BTreeSet::new();
    for line in unit.lines() {
        let Some(filter) = line.strip_prefix("SystemCallFilter=") else {
            continue;
        };
        let (denies, words) = match filter.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, filter),
        };
        for word in words.split_whitespace() {
            let calls = expand(word);
            if denies {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    // What a service needs to come to life is allowed to each.
    allowed.extend(expand("@default"));
    allowed
}

fn expand(word: &str) -> BTreeSet<String> {
    if !word.starts_with('@') {
        return [word.to_owned()].into();
    }
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", word])
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let lines = text.lines().skip(1).map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .flat_map(expand)
        .collect()
}
