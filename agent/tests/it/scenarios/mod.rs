//! Stories told to the engine under a virtual clock, each a text file beside this one.
//!
//! An unindented line is an input: a time in seconds and what happens (`script.rs` has the notation). Before it is handled,
//! every deadline up to its time is. The indented lines under it are what the engine wanted done since the line before, with
//! the time where it was a timer. `UPDATE_EXPECT=1 cargo test` rewrites them, and the difference is the review.

mod render;
mod script;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use expect_test::expect_file;
use footbridge_agent::engine::{Action, Engine, Input, Settings};

use render::render;
use script::{Event, Names};

/// More turns than any story takes: a timer that does not move on is a bug, not an endless test.
const MOST_TICKS: usize = 10_000;

struct Story {
    engine: Engine,
    names: Names,
    start: Instant,
    now: Duration,
    told: String,
}

impl Story {
    fn new() -> Story {
        let start = Instant::now();
        Story {
            engine: Engine::new(Settings::new("wlan0", "eth0"), 1, start),
            names: Names::default(),
            start,
            now: Duration::ZERO,
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
            Event::Input(input) => self.handle(input, ""),
        }
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
        for line in render(&actions, &self.names) {
            self.say(&format!("    {stamp}{line}"));
        }
    }

    fn say_status(&mut self) {
        let report = self.engine.report(self.start + self.now);
        self.say(&format!(
            "    state {}",
            serde_json::to_value(report.state).unwrap()
        ));
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
        let mut story = Story::new();
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.starts_with("    ")) {
            story.tell(line);
        }
        expect_file![path].assert_eq(&story.told);
        told += 1;
    }
    assert!(told > 20, "only {told} stories were found");
}
