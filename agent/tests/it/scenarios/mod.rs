//! Stories told to the engine under a virtual clock, each a text file beside this one.
//!
//! An unindented line is an input: a time in seconds and what happens (`script.rs` has the notation). Before it is handled,
//! every deadline up to its time is. The indented lines under it are what the engine wanted done since the line before, with
//! the time where it was a timer. `UPDATE_EXPECT=1 cargo test` rewrites them, and the difference is the review.

mod dhcp_talk;
mod discovery_talk;
mod radio;
mod render;
mod script;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use expect_test::expect_file;
use footbridge_agent::addr::Side;
use footbridge_agent::engine::{Action, BridgeState, Engine, Input, RANDOM_BYTES, Settings};

use render::{is_loop_arp, is_loop_probe, render};
use script::{Echo, Event, Names};

/// More turns than any story takes: a timer that does not move on is a bug, not an endless test.
const MOST_TICKS: usize = 10_000;

/// What is chance elsewhere is the same in every story.
const CHANCE: [u8; RANDOM_BYTES] = {
    let mut bytes = [0; RANDOM_BYTES];
    bytes[24] = 1;
    bytes
};

struct Story {
    engine: Engine,
    names: Names,
    start: Instant,
    now: Duration,
    /// The loop guard's frames are shown in the stories about it, and would be noise in all others.
    shows_loop_probes: bool,
    /// The frames sent, for those that come back.
    sent: Vec<(Side, Vec<u8>)>,
    told: String,
}

impl Story {
    fn new(name: &str) -> Story {
        let start = Instant::now();
        Story {
            engine: Engine::new(Settings::new("wlan0", "eth0"), CHANCE),
            names: Names::default(),
            start,
            now: Duration::ZERO,
            shows_loop_probes: name.starts_with("loop_"),
            sent: Vec::new(),
            told: String::new(),
        }
    }

    fn tell(&mut self, line: &str) {
        if line.trim().is_empty() || line.starts_with('#') {
            self.say(line);
            return;
        }
        let (time, event) = self.names.parse(line);
        self.run_until(time);
        self.say(line);
        match event {
            Event::Wait => {}
            Event::Status => self.say_status(),
            Event::Counters(prefix) => self.say_counters(&prefix),
            Event::Settings(settings) => self.engine = Engine::new(settings, CHANCE),
            Event::Kernel(inputs) => {
                for input in inputs {
                    self.handle(input, "");
                }
            }
            Event::Frame(side, bytes) => self.handle(
                Input::Frame {
                    side,
                    bytes: &bytes,
                },
                "",
            ),
            Event::Client(address) => self.serve(address),
            Event::Traffic(glimpse) => self.handle(Input::Traffic(&[glimpse]), ""),
            Event::Input(input) => self.handle(input, ""),
            Event::Echo(echo) => {
                let bytes = self.echo(&echo);
                let side = echo.came;
                let bytes = &bytes;
                self.handle(Input::Frame { side, bytes }, "");
            }
            Event::Bridging(dump) => {
                self.handle(Input::KernelDump(dump), "");
                self.settle();
            }
        }
    }

    /// Has the loop guard's verdict fall before the story goes on.
    fn settle(&mut self) {
        while self.engine.report(self.start).state != BridgeState::Bridging {
            self.start = self.engine.next_deadline().unwrap() - self.now;
            self.handle(Input::Tick, "");
        }
    }

    /// Returns a loop probe sent earlier.
    fn echo(&self, echo: &Echo) -> Vec<u8> {
        let probes = self.sent.iter().rev().filter(|(side, frame)| {
            *side == echo.left
                && if echo.arp {
                    is_loop_arp(frame)
                } else {
                    is_loop_probe(frame)
                }
        });
        let (_, frame) = probes.into_iter().nth(usize::from(echo.old)).unwrap();
        frame.clone()
    }

    fn run_until(&mut self, time: Duration) {
        for _ in 0..MOST_TICKS {
            match self.engine.next_deadline() {
                Some(due) if due <= self.start + time => {
                    self.now = self.now.max(due - self.start);
                    let stamp = format!("{:.3} ", self.now.as_secs_f64());
                    self.handle(Input::Tick, &stamp);
                }
                Some(_) | None => {
                    self.now = time;
                    return;
                }
            }
        }
        panic!("the engine's timers do not move on at {:?}", self.now);
    }

    fn handle(&mut self, input: Input<'_>, stamp: &str) {
        let mut actions: Vec<Action> = Vec::new();
        self.engine
            .handle(input, self.start + self.now, &mut actions);
        for action in &actions {
            if let Action::Send { side, frame } = action {
                self.sent.push((*side, frame.clone()));
            }
        }
        for line in render(&actions, &self.names, self.shows_loop_probes) {
            self.say(&format!("    {stamp}{line}"));
        }
    }

    fn say_status(&mut self) {
        let report = self.engine.report(self.start + self.now);
        self.say(&format!(
            "    state {}",
            serde_json::to_value(report.state).unwrap()
        ));
        if let Some(radio) = &report.radio {
            self.say(&format!("    radio {}", radio::describe(radio)));
        }
        if !report.dhcp.servers.is_empty() {
            self.say(&format!("    dhcp {}", dhcp_talk::describe(&report.dhcp)));
        }
        for host in report.hosts {
            let mac = self.names.name_of(host.mac.parse().unwrap());
            let lease = host
                .lease_end
                .map(|s| format!(" lease={s}"))
                .unwrap_or_default();
            self.say(&format!(
                "    host {} {mac} {} {} {} age={}{lease}",
                host.ip, host.side, host.source, host.state, host.age
            ));
        }
        for problem in report.problems {
            self.say(&format!("    problem: {problem}"));
        }
    }

    fn serve(&mut self, client: Ipv4Addr) {
        let now = self.start + self.now;
        let line = match self.engine.admits(client, now) {
            true => {
                let uptime = Some(Duration::from_secs(3600) + self.now);
                let mut report = self.engine.fleet_report(now, uptime);
                report.version = "VERSION";
                serde_json::to_string(&report).unwrap()
            }
            false => "refused".to_owned(),
        };
        self.say(&format!("    {line}"));
    }

    fn say_counters(&mut self, prefix: &str) {
        let report = self.engine.report(self.start + self.now);
        for (name, count) in report.counters {
            if name.starts_with(prefix) {
                self.say(&format!("    {name} {count}"));
            }
        }
    }

    fn say(&mut self, line: &str) {
        self.told.push_str(line);
        self.told.push('\n');
    }
}

#[test]
fn every_story_is_told_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/scenarios");
    let mut told = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let mut story = Story::new(path.file_stem().unwrap().to_str().unwrap());
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.starts_with("    ")) {
            story.tell(line);
        }
        expect_file![path].assert_eq(&story.told);
        told += 1;
    }
    assert!(told > 20, "only {told} stories were found");
}
