//! What the service manager and the journal get, and what an idle agent costs.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;

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

#[test]
fn sighup_reads_the_configuration_again_or_leaves_all_as_it_was() {
    in_namespace(|rig| {
        let path = rig.dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let file = rig.dir.path().join("footbridge.toml");
        fs::write(&file, "uplink = \"up0\"\ndownlink = \"nowhere0\"\n").unwrap();
        let log = rig.dir.path().join("agent.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_footbridge"));
        command.arg("run").arg("--config").arg(&file);
        command.arg("--run-dir").arg(rig.run_dir());
        command.env("NOTIFY_SOCKET", &path);
        command.stderr(File::create(&log).unwrap());
        let agent = Agent(command.spawn().unwrap());
        rig.await_state("waiting-for-cable");
        await_messages(&manager, &["READY=1"]);

        fs::write(&file, "uplink = \"up0\"\ndownlnik = \"down0\"\n").unwrap();
        agent.signal("HUP");
        await_messages(&manager, &["RELOADING=1\nMONOTONIC_USEC=", "READY=1"]);
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.contains("did you mean `downlink`?"), "{text}");
        assert_eq!(rig.status().unwrap()["downlink"]["name"], "nowhere0");

        // Nobody writes into this pipe, and the agent does not wait for it.
        fs::remove_file(&file).unwrap();
        let made = Command::new("mkfifo").arg(&file).status();
        assert!(made.unwrap().success());
        agent.signal("HUP");
        await_messages(&manager, &["RELOADING=1\nMONOTONIC_USEC=", "READY=1"]);
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.contains("it is not a regular file"), "{text}");

        fs::remove_file(&file).unwrap();
        fs::write(&file, "uplink = \"up0\"\ndownlink = \"down0\"\n").unwrap();
        agent.signal("HUP");
        rig.await_state("bridging");
        assert_eq!(agent.terminate(), Some(0));
    });
}

#[test]
fn an_agent_without_descriptors_left_does_not_spin() {
    in_namespace(|rig| {
        let agent = rig.start_bridging();
        let socket = rig.run_dir().join("status.sock");
        let pid = agent.0.id();
        let limit = format!("--pid={pid}");
        // Whatever is open stays so; no number below the limit is free.
        let limited = Command::new("prlimit")
            .args([&limit, "--nofile=3:"])
            .status()
            .unwrap();
        assert!(limited.success());
        let idle: Vec<UnixStream> = (0..4)
            .map(|_| UnixStream::connect(&socket).unwrap())
            .collect();
        let log = rig.dir.path().join("agent.log");
        let refusals = || {
            let text = fs::read_to_string(&log).unwrap();
            text.matches("could not be accepted").count()
        };
        // A second apart: a loop that spins has thousands by then.
        eventually("clients are turned away", || refusals() >= 2);
        assert!(refusals() < 10, "{}", refusals());
        drop(idle);
        assert!(
            Command::new("prlimit")
                .args([&limit, "--nofile=1024:"])
                .status()
                .unwrap()
                .success()
        );
        rig.await_state("bridging");
    });
}
