//! The three machines:
//!
//! ```text
//!  router                 box (where the test runs)             client
//!  r0 192.168.77.1/24 --- up0 192.168.77.2/24   down0 --------- c0
//!  02:..:01               02:..:02              02:..:03        02:..:04
//! ```
//!
//! The router's and the client's namespaces are held by a process each, and named by its id.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dnsmasq;
use super::namespace::Namespace;

pub(crate) const ROUTER: &str = "192.168.77.1";
pub(crate) const BOX: &str = "192.168.77.2";
pub(crate) const PRINTER: &str = "192.168.77.50";
pub(crate) const UPLINK_MAC: &str = "02:00:00:00:00:02";
pub(crate) const CLIENT_MAC: &str = "02:00:00:00:00:04";

/// How long anything may take that is bound to happen; a loaded machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) router: Namespace,
    pub(crate) client: Namespace,
    pub(crate) dir: tempfile::TempDir,
    /// How much agents say.
    pub(crate) log_level: &'static str,
    children: Vec<Child>,
}

impl Rig {
    pub(crate) fn build() -> Rig {
        // IPv6 would add addresses and routes at times of its own.
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let rig = Rig {
            router: Namespace::hold(),
            client: Namespace::hold(),
            dir: tempfile::tempdir().unwrap(),
            log_level: "debug",
            children: Vec::new(),
        };
        ip("link set lo up");
        ip(
            "link add up0 address 02:00:00:00:00:02 type veth peer name r0 address 02:00:00:00:00:01",
        );
        ip(&format!("link set r0 netns {}", rig.router.pid()));
        ip("link set up0 up");
        rig.router.ip("link set r0 up");
        rig.router.ip("addr add 192.168.77.1/24 dev r0");
        ip("addr add 192.168.77.2/24 dev up0");
        ip("route add default via 192.168.77.1 dev up0");
        rig.plug_client();
        ip("link set down0 up");
        rig
    }

    /// Makes the pair of interfaces between the box and the client, and leaves it to the agent to set its end up.
    pub(crate) fn plug_client(&self) {
        ip(
            "link add down0 address 02:00:00:00:00:03 type veth peer name c0 address 02:00:00:00:00:04",
        );
        ip(&format!("link set c0 netns {}", self.client.pid()));
        self.client.ip("link set lo up");
        self.client.ip("link set c0 up");
    }

    /// Gives the client a fixed address, as a printer has, without a word on the wire.
    pub(crate) fn make_client_a_printer(&self) {
        self.client.ip("addr add 192.168.77.50/24 dev c0");
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Returns the names of the files in the run directory.
    pub(super) fn run_files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.run_dir()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Returns the command that starts the agent, for a test to add to.
    pub(crate) fn agent_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_footbridge"));
        command
            .args([
                "run",
                "--uplink",
                "up0",
                "--downlink",
                "down0",
                "--log",
                self.log_level,
            ])
            .arg("--run-dir")
            .arg(self.run_dir())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM");
        command
    }

    /// Starts the agent, its log in `agent.log`.
    pub(crate) fn start_agent(&self) -> Agent {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("agent.log"))
            .unwrap();
        Agent(self.agent_command().stderr(log).spawn().unwrap())
    }

    /// Starts the agent and waits until it bridges.
    pub(crate) fn start_bridging(&self) -> Agent {
        let agent = self.start_agent();
        self.await_state("bridging");
        agent
    }

    /// Returns the agent's status, once it answers.
    pub(crate) fn status(&self) -> Option<Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_footbridge"))
            .args(["status", "--json", "--run-dir"])
            .arg(self.run_dir())
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Returns how often the agent counted something.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let status = self.status().unwrap_or_default();
        status["counters"][name].as_u64().unwrap_or_default()
    }

    pub(crate) fn await_state(&self, state: &str) {
        eventually(&format!("the agent is {state}"), || {
            self.status().is_some_and(|status| status["state"] == state)
        });
    }

    /// Starts a program of the router's, its output in `NAME.log`, and leaves it running.
    pub(crate) fn start_on_router(&mut self, name: &str, arguments: &[&str]) {
        let log = File::create(self.dir.path().join(format!("{name}.log"))).unwrap();
        let child = self
            .router
            .command(arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
    }

    /// Starts the router's DHCP server.
    pub(crate) fn start_dhcp_server(&mut self) {
        dnsmasq::start(self, &[dnsmasq::POOL, dnsmasq::ROUTER, "--log-dhcp"]);
    }

    /// Returns the address of the rig's network that the client holds, if it holds one.
    pub(crate) fn client_address(&self) -> Option<String> {
        let line = self.client.ip("-4 -o addr show dev c0");
        let address = line.split_whitespace().nth(3)?.split('/').next()?;
        address
            .starts_with("192.168.77.")
            .then(|| address.to_owned())
    }

    /// Has the client ask for a lease, without the broadcast flag; returns how long it took.
    pub(crate) fn lease(&self) -> Duration {
        let script = self.dir.path().join("udhcpc.sh");
        let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
                    ip addr add \"$ip/$mask\" dev \"$interface\"\nip route add default via \"$router\"\n";
        write_script(&script, text);
        let script = script.display().to_string();
        let start = Instant::now();
        let output = self.client.run(&[
            "busybox", "udhcpc", "-i", "c0", "-f", "-q", "-n", "-t", "5", "-T", "4", "-s", &script,
        ]);
        assert!(output.status.success(), "no lease: {}", text_of(&output));
        start.elapsed()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for name in ["agent.log", "dnsmasq.log"] {
                let log = fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
                eprintln!("--- {name}\n{log}");
            }
            for command in ["addr", "route show table all", "neigh"] {
                eprintln!(
                    "--- ip {command}\n{}",
                    text_of(&run(&words(&format!("ip {command}"))))
                );
            }
        }
    }
}

/// A running agent; killed with the value.
pub(crate) struct Agent(pub(crate) Child);

impl Agent {
    /// Sends the agent a signal.
    pub(super) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.0.id());
        assert!(run(&["sh", "-c", &kill]).status.success());
    }

    /// Asks the agent to end, and says how it did.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        let mut status = None;
        eventually("the agent ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Kills the agent, which hears nothing of it.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything of the box's network that has to be as it was, once the agent is gone.
pub(crate) fn network_state() -> BTreeMap<String, String> {
    let mut state = sysctls();
    for command in ["ip -4 addr", "ip -4 route show table all", "ip -d link"] {
        state.insert(command.to_owned(), succeed(run(&words(command))));
    }
    // Neighbours the kernel found for itself come and go; ours carry a protocol.
    let neighbours = succeed(run(&words("ip -4 neigh")));
    let ours: Vec<&str> = neighbours
        .lines()
        .filter(|line| line.contains(" proto "))
        .collect();
    state.insert("neighbours with a protocol".to_owned(), ours.join("\n"));
    state
}

/// All of net.ipv4.conf by path.
pub(crate) fn sysctls() -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for interface in fs::read_dir("/proc/sys/net/ipv4/conf").unwrap() {
        for setting in fs::read_dir(interface.unwrap().path()).unwrap() {
            let path = setting.unwrap().path();
            if let Ok(value) = fs::read_to_string(&path) {
                values.insert(path.display().to_string(), value);
            }
        }
    }
    values
}

/// Returns how many frames the box has sent on both sides.
pub(super) fn frames_sent() -> u64 {
    let sent = ["up0", "down0"].map(|port| {
        let text = ip(&format!("-s -j link show {port}"));
        let links: Value = serde_json::from_str(&text).unwrap();
        links[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
    });
    sent.iter().sum()
}

/// Runs `ip` in the box.
pub(crate) fn ip(arguments: &str) -> String {
    succeed(run(&words(&format!("ip {arguments}"))))
}

/// Runs `ip` in the box for many commands, one a line.
pub(super) fn ip_batch(commands: &str) {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = ip.stdin.take().unwrap();
    stdin.write_all(commands.as_bytes()).unwrap();
    drop(stdin);
    assert!(ip.wait().unwrap().success());
}

/// Waits for a condition, and fails if it does not come.
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(
        comes_within(PATIENCE, condition),
        "waited {PATIENCE:?} in vain until {what}"
    );
}

/// Waits for a condition for some time, and returns whether it came.
pub(crate) fn comes_within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() >= time {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    true
}

pub(super) fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

pub(super) fn run(arguments: &[&str]) -> Output {
    Command::new(arguments[0])
        .args(&arguments[1..])
        .output()
        .unwrap()
}

pub(super) fn succeed(output: Output) -> String {
    assert!(output.status.success(), "{}", text_of(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn text_of(output: &Output) -> String {
    let text = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) fn write_script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
