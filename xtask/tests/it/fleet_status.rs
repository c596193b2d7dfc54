//! `cargo xtask fleet status` and the agent: both as they are, each device in network and host name namespaces of its own.
//!
//! ```text
//!  this test: the command, br0 192.168.77.1/24 ---+--- up0 192.168.77.11  hall-1, a cable in its other port
//!                                                 +--- up0 192.168.77.12  hall-2, none
//! ```
//!
//! The test runs itself again inside fresh namespaces, so an ordinary user can run it. Where that cannot be, it says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use expect_test::expect;
use serde_json::Value;

use crate::command::Desk;

const INSIDE: &str = "FOOTBRIDGE_TEST_INSIDE";
const TEST: &str = "fleet_status::devices_are_found_and_asked";
const UNSHARE: [&str; 9] = [
    "--user",
    "--map-root-user",
    "--net",
    "--uts",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// How long anything may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(30);

const LIST: &str = "name,board,serial,hostname,ssid,psk-command,address\n\
                    first,pi3,,hall-1,Hall,no-such-program,\n\
                    hall-2,pi3,,,Hall,no-such-program,192.168.77.12/24\n";

#[test]
fn devices_are_found_and_asked() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if let Some(why) = obstacle() {
        assert!(
            std::env::var("REQUIRE_ALL").as_deref() != Ok("1"),
            "{TEST} cannot run: {why}"
        );
        eprintln!("SKIPPED: {TEST}: {why}");
        return;
    }
    let agent = build_agent();
    let run = Command::new("unshare")
        .args(UNSHARE)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(INSIDE, agent)
        .env("PATH", search_path())
        .output()
        .unwrap();
    let (stdout, stderr) = (text(&run.stdout), text(&run.stderr));
    assert!(
        run.status.success() && stdout.contains("1 passed"),
        "inside the namespaces:\n{stdout}\n{stderr}"
    );
}

fn obstacle() -> Option<String> {
    let path = search_path();
    let is_missing = |tool: &&&str| {
        !path
            .split(':')
            .any(|place| Path::new(place).join(tool).is_file())
    };
    let tools = ["unshare", "nsenter", "ip", "busybox", "cat"];
    let missing: Vec<&str> = tools.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        return Some(format!("no {}", missing.join(", ")));
    }
    let probe = Command::new("unshare")
        .args(UNSHARE)
        .arg("true")
        .output()
        .unwrap();
    (!probe.status.success()).then(|| text(&probe.stderr).trim().to_owned())
}

fn search_path() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Builds the agent for this machine, beside the command.
fn build_agent() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "footbridge-agent",
            "--bin",
            "footbridge",
        ])
        .arg("--target-dir")
        .arg(folder.parent().unwrap())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    folder.join("footbridge")
}

/// A device: its namespaces, and the agent in them.
struct Device {
    holder: Child,
    agent: Child,
    run_dir: PathBuf,
}

impl Device {
    fn start(desk: &Desk, hostname: &str, last: u8) -> Device {
        Device::start_as(desk, hostname, hostname, last)
    }

    /// Starts a device whose files here have another name than itself.
    fn start_as(desk: &Desk, hostname: &str, files: &str, last: u8) -> Device {
        let holder = Command::new("unshare")
            .args(["--net", "--uts", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = holder.id();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        eventually("a device's namespaces", || {
            fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other != own)
        });
        ip(&format!(
            "link add up0 netns {pid} type veth peer name p{last}"
        ));
        ip(&format!("link set p{last} master br0 up"));
        let run_dir = desk.path().join(format!("run-{files}"));
        let config = desk.put(
            &format!("{files}.toml"),
            "uplink = \"up0\"\ndownlink = \"down0\"\n[fleet]\nstatus = true\n",
        );
        let enter = |words: &[&str]| {
            let mut command = Command::new("nsenter");
            command
                .args(["--target", &pid.to_string(), "--net", "--uts"])
                .args(words);
            command
        };
        succeed(&mut enter(&["busybox", "hostname", hostname]));
        succeed(&mut enter(&[
            "ip",
            "addr",
            "add",
            &format!("192.168.77.{last}/24"),
            "dev",
            "up0",
        ]));
        succeed(&mut enter(&["ip", "link", "set", "up0", "up"]));
        succeed(&mut enter(&[
            "ip", "link", "add", "down0", "type", "veth", "peer", "name", "cable",
        ]));
        let log = fs::File::create(desk.path().join(format!("{files}.log"))).unwrap();
        let agent = enter(&[])
            .arg(std::env::var_os(INSIDE).unwrap())
            .args(["run", "--log", "debug", "--config"])
            .arg(config)
            .arg("--run-dir")
            .arg(&run_dir)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stderr(log)
            .spawn()
            .unwrap();
        Device {
            holder,
            agent,
            run_dir,
        }
    }

    fn plug_in(&self) {
        let pid = self.holder.id().to_string();
        let enter = [
            "--target", &pid, "--net", "ip", "link", "set", "cable", "up",
        ];
        succeed(Command::new("nsenter").args(enter));
    }

    fn state(&self) -> Option<String> {
        let said = Command::new(std::env::var_os(INSIDE).unwrap())
            .args(["status", "--json", "--run-dir"])
            .arg(&self.run_dir)
            .output()
            .unwrap();
        let status: Value = serde_json::from_slice(&said.stdout).ok()?;
        Some(status["state"].as_str()?.to_owned())
    }

    /// Asks the agent to end.
    fn end(mut self) {
        succeed(Command::new("busybox").args(["kill", "-TERM", &self.agent.id().to_string()]));
        assert!(self.agent.wait().unwrap().success());
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for child in [&mut self.agent, &mut self.holder] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn succeed(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", text(&done.stderr));
}

fn ip(words: &str) {
    succeed(Command::new("ip").args(words.split_whitespace()));
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        // Another process's state is looked at; nobody tells of it.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs the command and returns what it said and how it ended.
fn status(desk: &Desk, words: &[&str]) -> (Option<i32>, String, String) {
    let words = [&["fleet", "status"], words].concat();
    let done = desk.command(&words).output().unwrap();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

/// The table without what differs from run to run: how long this machine has been on, and the problems of a network of veths.
fn shape(table: &str) -> String {
    let lines = table.lines().map(|line| {
        let words: Vec<&str> = line
            .split("  ")
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect();
        let shown = |at: usize| words.get(at).copied().unwrap_or_default();
        format!(
            "{} {} {} {} {}\n",
            shown(0),
            shown(1),
            shown(2),
            shown(3),
            shown(7)
        )
    });
    lines.collect()
}

fn inside() {
    let desk = Desk::new();
    desk.put("fleet.csv", LIST);
    ip("link set lo up");
    ip("link add br0 type bridge mcast_snooping 0");
    ip("addr add 192.168.77.1/24 dev br0");
    ip("link set br0 up");
    let first = Device::start(&desk, "hall-1", 11);
    let second = Device::start(&desk, "hall-2", 12);
    first.plug_in();
    eventually("hall-1 bridges", || {
        first.state().as_deref() == Some("bridging")
    });
    eventually("hall-2 waits", || {
        second.state().as_deref() == Some("waiting-for-cable")
    });

    // By multicast DNS and the addresses of the list; the programs of its secrets are not run.
    let (code, table, told) = status(&desk, &["--list", "fleet.csv", "--timeout", "20"]);
    assert_eq!(code, Some(0), "{table}{told}");
    expect![[r#"
        NAME STATE UPLINK SIGNAL ADDRESS
        first bridging up0 - 192.168.77.11
        hall-2 waiting-for-cable up0 - 192.168.77.12
    "#]]
    .assert_eq(&shape(&table));

    // All there are, without a list.
    let mut found = Value::Null;
    eventually("both are found", || {
        let (_, json, _) = status(&desk, &["--json", "--timeout", "2"]);
        found = serde_json::from_str(&json).unwrap_or_default();
        found["devices"]
            .as_array()
            .is_some_and(|devices| devices.len() == 2)
    });
    assert_eq!(found["devices"][0]["name"], "hall-1");
    assert_eq!(found["devices"][1]["state"], "waiting-for-cable");
    assert_eq!(found["devices"][1]["address"], "192.168.77.12:61067");
    assert_eq!(found["missing"], serde_json::json!([]));

    // By name, and by address without multicast.
    for device in ["hall-1.local", "192.168.77.11"] {
        let (code, table, told) = status(&desk, &[device, "--timeout", "20"]);
        assert_eq!(code, Some(0), "{table}{told}");
        assert_eq!(table.lines().count(), 2, "{table}");
    }

    // Of two with one name the later one takes another, and is found by that.
    let namesake = Device::start_as(&desk, "hall-1", "namesake", 13);
    let mut other_name = None;
    eventually("the namesake has another name", || {
        let (_, json, _) = status(&desk, &["--json", "--timeout", "2"]);
        let found: Value = serde_json::from_str(&json).unwrap_or_default();
        let devices = found["devices"].as_array().cloned().unwrap_or_default();
        let device = devices
            .iter()
            .find(|device| device["address"] == "192.168.77.13:61067");
        let name = device.and_then(|device| device["answers_as"].as_str());
        other_name = name.filter(|name| *name != "hall-1").map(str::to_owned);
        other_name.is_some()
    });
    let other_name = other_name.unwrap();
    assert!(other_name.starts_with("hall-1-"), "{other_name}");
    let (code, table, told) = status(&desk, &[&format!("{other_name}.local"), "--timeout", "20"]);
    assert_eq!(code, Some(0), "{table}{told}");
    assert!(table.contains("192.168.77.13"), "{table}");
    let note = format!("note: hall-1 answers as {other_name}.local\n");
    assert!(told.contains(&note), "{told}");
    let (code, table, told) = status(&desk, &["hall-1", "--timeout", "20"]);
    assert_eq!(code, Some(0), "{table}{told}");
    assert!(table.contains("192.168.77.11"), "{table}");
    namesake.end();

    // One that says goodbye is missing.
    second.end();
    let (code, table, told) = status(&desk, &["--list", "fleet.csv", "--timeout", "3"]);
    assert_eq!(code, Some(1), "{table}{told}");
    assert!(table.contains("hall-2  missing"), "{table}");
    assert!(
        told.contains("error: 1 of 2 devices did not answer: hall-2"),
        "{told}"
    );
    assert!(told.contains("hint: is it on"), "{told}");
    drop(first);
}

#[test]
fn what_is_typed_wrongly_is_told() {
    let desk = Desk::new();
    desk.put("fleet.csv", "name,board\n../x,pi3\n");
    for (words, expected) in [
        (
            &["hall 1"][..],
            expect![[r#"
                error: `hall 1` is neither a name nor an IPv4 address

                hint: for example: hall-1, 10.0.0.11 or 10.0.0.11:61067
                exit code 2"#]],
        ),
        (
            &["--list", "none.csv"],
            expect![[r#"
                error: cannot read none.csv: No such file or directory (os error 2)

                hint: check the path
                exit code 2"#]],
        ),
        (
            &["--list", "fleet.csv"],
            expect![[r#"
                error: the list has 1 mistake:
                  fleet.csv:2: `../x` cannot name a device: a name has 1 to 64 of A-Z, a-z, 0-9, `-`, `_` and `.`, the first of them a letter or a digit
                      `cargo xtask fleet build` checks the whole list

                hint: nothing was made; the book shows whole lists (docs/src/fleet.md)
                exit code 2"#]],
        ),
    ] {
        let words = [&["fleet", "status"], words].concat();
        expected.assert_eq(&desk.run(&words));
    }
}

/// Whoever is at the address: told as missing with the reason, and its words are not shown.
#[test]
fn whoever_answers_in_a_devices_place_is_noted() {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.write_all(b"\x1b[2J{\"name\": \"\x1b[31m\"}");
        }
    });
    let desk = Desk::new();
    let (code, table, told) = status(&desk, &[&address, "--timeout", "2"]);
    assert_eq!(code, Some(1));
    assert!(table.contains("missing"), "{table}");
    assert!(
        told.contains("it does not answer as a device does"),
        "{told}"
    );
    assert!(!format!("{table}{told}").contains('\u{1b}'), "{told:?}");
}
