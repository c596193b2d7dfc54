//! What the service manager and the journal get, and what an idle agent costs.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};

use super::in_namespace;
use super::rig::{Agent, PATIENCE, eventually};

fn await_messages(manager: &UnixDatagram, wanted: &[&str]) {
    let mut wanted = wanted.to_vec();
    eventually("the service manager hears it all", || {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        wanted.retain(|message| !buffer[..length].starts_with(message.as_bytes()));
        wanted.is_empty()
    });
}

#[test]
fn the_service_manager_hears_of_start_life_and_end() {
    in_namespace(|rig| {
        let path = rig.dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = rig.agent_command();
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000");
        let agent = Agent(command.spawn().unwrap());
        // What the bridge does and that it is ready may come in either order.
        await_messages(&manager, &["READY=1", "STATUS=Bridging", "WATCHDOG=1"]);
        await_messages(&manager, &["WATCHDOG=1"]);
        assert_eq!(agent.terminate(), Some(0));
        await_messages(&manager, &["STOPPING=1"]);
    });
}

#[test]
fn the_journal_gets_priorities_and_no_times() {
    in_namespace(|rig| {
        let path = rig.dir.path().join("journal");
        let journal = File::create(&path).unwrap();
        let meta = journal.metadata().unwrap();
        let mut command = rig.agent_command();
        command.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()));
        let agent = Agent(command.stderr(journal).spawn().unwrap());
        rig.await_state("bridging");
        assert_eq!(agent.terminate(), Some(0));
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("<6>starting uplink=\"up0\" downlink=\"down0\"\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
    });
}

#[test]
fn clients_that_do_not_read_hold_nobody_up() {
    in_namespace(|rig| {
        let _agent = rig.start_bridging();
        let socket = rig.run_dir().join("status.sock");
        let idle: Vec<UnixStream> = (0..32)
            .map(|_| UnixStream::connect(&socket).unwrap())
            .collect();
        rig.await_state("bridging");
        drop(idle);
    });
}

#[test]
fn an_idle_agent_is_small() {
    in_namespace(|rig| {
        let agent = rig.start_bridging();
        let status = fs::read_to_string(format!("/proc/{}/status", agent.0.id())).unwrap();
        let resident = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        eprintln!("MEASURED idle {resident}");
        let kilobytes: u64 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kilobytes < 32 << 10, "{resident}");
        eventually("the agent is still there", || rig.status().is_some());
    });
}
