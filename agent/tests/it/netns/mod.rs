//! The agent in a kernel of its own: a router, the box and a wired host, each in a network namespace, with other people's
//! DHCP server, DHCP client and probes.
//!
//! A test runs itself again inside fresh user, network, mount and process namespaces, so an ordinary user can run it, tests do
//! not see each other, and whatever a test leaves behind ends with it. Where that cannot be, the test says so and is skipped.

mod avahi;
mod discovery;
pub(crate) mod dnsmasq;
mod fleet;
mod flood;
mod homecoming;
mod loops;
mod moves;
pub(crate) mod namespace;
mod overrun;
mod packet_socket;
mod prober;
pub(crate) mod rig;
mod sandbox;
mod service;
mod soak;
mod supervision;
mod tear_down;
mod traffic;

use std::any::Any;
use std::process::Command;
use std::sync::{PoisonError, RwLock};

use rig::Rig;

use crate::skip::{missing_tools, search_path, skip};

/// Set inside the namespaces.
const INSIDE: &str = "FOOTBRIDGE_TEST_INSIDE";
const TOOLS: [&str; 9] = [
    "unshare", "nsenter", "ip", "dnsmasq", "busybox", "arping", "cat", "sh", "true",
];
/// `--kill-child` ends the inside with the outside; the inside being the first process of its namespace, all else ends with it.
const UNSHARE: [&str; 8] = [
    "--user",
    "--map-root-user",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// Whether other tests of this program may run at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Company {
    Welcome,
    /// For tests that load the machine as much as it lets them, or are about how soon something happens under such a load.
    None,
}

/// Held by what runs inside namespaces, by one in need of peace alone.
static PEACE: RwLock<()> = RwLock::new(());

/// Runs `body` in namespaces of its own. To be called with a closure, directly from the test: its type names the test.
fn in_namespace<F: FnOnce(&mut Rig)>(body: F) {
    in_company(body, Company::Welcome);
}

/// The same while no other test of this file's runs.
fn alone_in_namespace<F: FnOnce(&mut Rig)>(body: F) {
    in_company(body, Company::None);
}

fn in_company<F: FnOnce(&mut Rig)>(body: F, company: Company) {
    if std::env::var_os(INSIDE).is_some() {
        body(&mut Rig::build());
        return;
    }
    // `it::netns::traffic::some_test::{{closure}}` is `netns::traffic::some_test` to the test harness.
    let path = std::any::type_name::<F>();
    let test = path
        .trim_start_matches("it::")
        .trim_end_matches("::{{closure}}");
    if let Some(reason) = obstacle() {
        return skip(test, &reason);
    }
    let said = run_inside(test, &[], company);
    // What a test measured is for whoever runs it.
    for line in said.lines().filter(|line| line.starts_with("MEASURED")) {
        eprintln!("{line}");
    }
}

/// Returns why there can be no namespaces here, if so.
pub(crate) fn obstacle() -> Option<String> {
    let missing = missing_tools(&TOOLS);
    if !missing.is_empty() {
        return Some(format!("no {}", missing.join(", ")));
    }
    let mut probe = Command::new("unshare");
    let output = probe.args(UNSHARE).arg("true").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| said.trim().to_owned())
}

/// Runs a test of this program again in namespaces of its own, and returns what it wrote to stderr.
pub(crate) fn run_inside(test: &str, environment: &[(&str, &str)], company: Company) -> String {
    // A test that failed while it held the lock has nothing to do with the next one.
    let _place: Box<dyn Any> = match company {
        Company::Welcome => Box::new(PEACE.read().unwrap_or_else(PoisonError::into_inner)),
        Company::None => Box::new(PEACE.write().unwrap_or_else(PoisonError::into_inner)),
    };
    let run = Command::new("unshare")
        .args(UNSHARE)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .envs(environment.iter().copied())
        .env("PATH", search_path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&run.stdout);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(
        run.status.success() && stdout.contains("1 passed"),
        "inside the namespaces:\n{stdout}\n{stderr}"
    );
    stderr.into_owned()
}
