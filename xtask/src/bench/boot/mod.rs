//! `cargo xtask bench boot`: how long an image takes to bridge, beside the same packages as Debian sets them up.
//!
//! Both boot on the same emulated machine among the same simulated networks, in turns, each time from the same state.

mod debian;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use imagegen::board::{Arch, Board, Bus, Emulator};
use xshell::Shell;

use self::debian::Parts;
use super::results::{Contender, Goal, Measure, Results, Unit};
use crate::guest::{Check, Guest, Heard, parse_check};
use crate::networks::Networks;
use crate::progress::Bars;
use crate::qemu::Boot;
use crate::rig::{self, Errand};
use crate::source::Source;
use crate::usage::UsageError;
use crate::workspace::Workspace;
use crate::{boards, interrupt, output, tools};

/// What to boot, and how often.
#[derive(clap::Args)]
pub struct Args {
    /// Board whose image to boot: one on a virtual machine
    #[arg(long, default_value = "virt")]
    board: String,
    /// Boots of each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Where all samples go [default: bench/boot.json in the build folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

const BRIDGING: Measure = Measure {
    name: "kernel's start to bridging",
    unit: Unit::Seconds,
    goal: Goal::Ratio(0.5),
    limits: "By the guest's clock. Firmware and the loading of kernel and initramfs are left out: Debian's is several times as large. The \
             simulated radio and its networks are set up by the guest itself, which is part of the time of both. The recipe is the Debian \
             system, at a start after its first: the image's packages in the versions that the mirror had when it was set up, and what \
             mmdebstrap's smallest variant has beside them.",
};
const SERVICES: Measure = Measure {
    name: "of which until services start",
    unit: Unit::Seconds,
    goal: Goal::None,
    limits: "Until a service that waits for nothing of its own runs its first line.",
};

/// All measures, in the table's order.
const MEASURES: [&Measure; 2] = [&BRIDGING, &SERVICES];

/// What the kit tells of until the guest bridges, from the moment it is started (`xtask/kit/power-cuts`).
const CHECKS: [&str; 3] = ["set-up", "site-is-whole", "bridging"];
/// A guest that takes longer until then hangs.
const BOOT_LIMIT: Duration = Duration::from_secs(900);
/// The kit says in less what it saw of a failure.
const REST_LIMIT: Duration = Duration::from_secs(60);

/// Boots, and prints the table.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let board = boards::load(&workspace, &args.board)?;
    let emulator = emulator(&board)?;
    let shell = Shell::new()?;
    tools::provide_debian(&shell)?;
    let scratch = tempfile::tempdir()?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());
    let json = match &args.json {
        Some(path) => std::path::absolute(path)?,
        None => workspace.target.join("bench/boot.json"),
    };
    let bars = Bars::new();

    let output = scratch.path().join("image.img");
    let networks = Networks::new()?;
    let job = rig::job(&board, &networks, &args.source, &output);
    let (outcome, kit) = rig::build(&workspace, &job, &networks, Errand::PowerCuts, &bars)?;
    let parts = Parts {
        workspace: &workspace,
        job: &job,
        outcome: &outcome,
        kit: &kit,
    };
    let debian = parts.set_up(emulator, &scratch.path().join("debian"), &bars)?;

    let mut results = Results::default();
    let places = ["ours", "theirs"].map(|name| scratch.path().join(name));
    for place in &places {
        fs::create_dir(place).with_context(|| format!("while creating {}", place.display()))?;
    }
    for run in 1..=args.runs {
        say!("boot {run} of {}", args.runs);
        let boot = Boot::among_networks(&output, &board, &kit);
        let mut ours = rig::emulator(&boot, &places[0])?;
        let mut theirs = debian.command(&places[1])?;
        for (contender, command) in [
            (Contender::Recipe, &mut theirs),
            (Contender::Footbridge, &mut ours),
        ] {
            let times = time(command).with_context(|| format!("while booting {contender:?}"))?;
            results.add(&BRIDGING, contender, times.bridging.as_secs_f64());
            results.add(&SERVICES, contender, times.services.as_secs_f64());
        }
    }
    results.keep(&MEASURES, &args.board, &json)?;
    output::print(results.table(&MEASURES))
}

fn emulator(board: &Board) -> Result<&Emulator> {
    let virtual_machine = board
        .emulator
        .as_ref()
        .filter(|emulator| emulator.bus == Bus::Virtio && board.arch == Arch::Arm64);
    virtual_machine.ok_or_else(|| {
        UsageError::new(
            format!("a Debian system for `{}` cannot be booted here", board.id),
            "its machine has to be a virtual one: --board virt",
        )
        .into()
    })
}

/// When a guest came how far, after its kernel's start.
struct Times {
    services: Duration,
    bridging: Duration,
}

/// Boots until the guest bridges and a client behind it is reached, and cuts its power.
fn time(command: &mut Command) -> Result<Times> {
    Times::of(&listen(command, "E2E bridging", BOOT_LIMIT)?)
}

impl Times {
    /// A check that did not come through would be missing from the sum.
    fn of(checks: &[Check]) -> Result<Self> {
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        let [until @ .., bridging] = checks.get(..CHECKS.len()).unwrap_or_default() else {
            bail!("the kit told of {names:?} alone");
        };
        if names[..CHECKS.len()] != CHECKS {
            bail!("the kit told of {names:?}, which do not begin with {CHECKS:?}");
        }
        let moment = parse_moment(&bridging.detail)
            .with_context(|| format!("no moment: {}", bridging.detail))?;
        let since_services: Duration = until.iter().map(|check| check.took).sum();
        Ok(Times {
            services: moment.saturating_sub(since_services + bridging.took),
            bridging: moment,
        })
    }
}

/// `at 12345 ms after boot`.
fn parse_moment(detail: &str) -> Option<Duration> {
    let number = detail.strip_prefix("at ")?.strip_suffix(" ms after boot")?;
    Some(Duration::from_millis(number.parse().ok()?))
}

/// Boots a guest and returns the checks that it reported until it said the word; one that failed ends everything.
fn listen(command: &mut Command, word: &str, limit: Duration) -> Result<Vec<Check>> {
    let deadline = Instant::now() + limit;
    let guest = Guest::start(command)?;
    let mut checks = Vec::new();
    let mut last = String::new();
    loop {
        match guest.listen(deadline) {
            Heard::Line(line) => match of_kit(&line) {
                Some(said) if said == word => return Ok(checks),
                said => match said.and_then(parse_check) {
                    Some(check) if check.passed => checks.push(check),
                    Some(check) => {
                        tell_rest(&guest);
                        bail!("{} failed: {}", check.name, check.detail);
                    }
                    None => last = line,
                },
            },
            Heard::Nothing => bail!("the guest is stuck; its last word: {last}"),
            Heard::End => bail!("the guest ended; its last word: {last}"),
        }
    }
}

/// Shows what the kit has to say of a failure, which ends the guest.
fn tell_rest(guest: &Guest) {
    let deadline = Instant::now() + REST_LIMIT;
    while let Heard::Line(line) = guest.listen(deadline) {
        if let Some(said) = of_kit(&line) {
            say!("{said}");
        }
    }
}

/// What the kit says in a line of the console; a Debian system asks there who logs in, and ends no line after that.
fn of_kit(line: &str) -> Option<&str> {
    line.rfind("E2E ").map(|at| &line[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_all_checks_until_bridging() {
        let console = [
            "E2E ok set-up 2000 a radio",
            "device login: E2E ok site-is-whole 10 # edit 1",
            "E2E ok bridging 5000 at 12345 ms after boot",
            "E2E ok client-lease 3000 192.0.2.1",
        ];
        let heard: Vec<Check> = console
            .iter()
            .filter_map(|line| parse_check(of_kit(line)?))
            .collect();
        let times = Times::of(&heard).unwrap();
        assert_eq!(times.bridging, Duration::from_millis(12_345));
        assert_eq!(times.services, Duration::from_millis(5335));
        for missing in 0..CHECKS.len() {
            let mut fewer: Vec<Check> = console
                .iter()
                .filter_map(|line| parse_check(of_kit(line)?))
                .collect();
            fewer.remove(missing);
            assert!(Times::of(&fewer).is_err(), "{missing}");
        }
        assert!(Times::of(&[]).is_err());
    }

    #[test]
    fn the_kits_moments_are_understood() {
        assert_eq!(
            parse_moment("at 12345 ms after boot"),
            Some(Duration::from_millis(12345))
        );
        assert_eq!(parse_moment("soon"), None);
    }
}
