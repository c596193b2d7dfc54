//! The recipe people follow (parprouted and dhcp-helper) and Footbridge side by side: the same machines, the same minute.
//!
//! `cargo xtask bench agent` builds the release binary, finds the recipe's programs and calls this. Everything happens inside
//! user, network, mount and process namespaces of its own, and each measurement has fresh machines (`rig.rs`). Cases that mostly
//! wait run beside each other; those that count microseconds run alone. The table goes to stdout, everything else to the file.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own, whose output is its purpose"
)]

mod cases;
mod contender;
mod crowd;
mod kernel;
mod namespace;
mod process;
mod results;
mod rig;
mod wire;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use serde_json::json;

use cases::{CASES, Case, METRICS, Turn};
use contender::{Contender, Programs};
use results::Results;

/// Set inside the namespaces.
const INSIDE: &str = "FOOTBRIDGE_BENCH_INSIDE";
/// Measurements that wait at a time; each has a handful of interfaces and processes.
const BESIDE_EACH_OTHER: usize = 8;

/// Measure the recipe and Footbridge side by side
#[derive(Clone, Debug, clap::Parser)]
struct Args {
    /// Fewer and shorter measurements
    #[arg(long)]
    quick: bool,
    /// Measurements of each case [default: 5, or 2 with --quick]
    #[arg(long)]
    runs: Option<u32>,
    /// Only this case; may be given several times
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Where to write all samples
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The agent's binary
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_footbridge"))]
    agent: PathBuf,
    /// Where the recipe's programs are
    #[arg(long, value_name = "DIR", default_value = "/usr/sbin")]
    recipe: PathBuf,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if std::env::var_os(INSIDE).is_some() {
        measure(&args)
    } else {
        enter()
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again as the first process of its own namespaces: whatever it starts ends with it.
fn enter() -> Result<ExitCode> {
    let status = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(std::env::current_exe().context("while finding this program")?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .context("while starting unshare, of Debian's package util-linux")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn measure(args: &Args) -> Result<ExitCode> {
    let programs = programs(args)?;
    let cases = chosen(&args.cases)?;
    let runs = args.runs.unwrap_or(if args.quick { 2 } else { 5 });
    let start = Instant::now();
    let mut turns = turns(&cases, runs);
    let waiting: Vec<_> = turns.extract_if(.., |(case, _)| case.waits).collect();
    let results = Mutex::new(Results::default());
    let failures = Mutex::new(0);
    let run = |(case, contender): &(&Case, Contender)| {
        let mut turn = Turn {
            contender: *contender,
            programs: &programs,
            quick: args.quick,
            readings: Vec::new(),
        };
        let begin = Instant::now();
        let outcome = (case.measure)(&mut turn);
        eprintln!(
            "{:>5.1} s  {} {}",
            begin.elapsed().as_secs_f64(),
            case.name,
            contender.name()
        );
        if let Err(error) = outcome {
            eprintln!("FAILED: {} {}: {error:#}", case.name, contender.name());
            *failures.lock().expect("nobody panicked") += 1;
        }
        let mut results = results.lock().expect("nobody panicked");
        for (metric, value) in turn.readings {
            results.add(metric, *contender, value);
        }
    };
    turns.iter().for_each(run);
    let queue = Mutex::new(waiting.iter());
    std::thread::scope(|scope| {
        for _ in 0..BESIDE_EACH_OTHER {
            scope.spawn(|| {
                while let Some(turn) = { queue.lock().expect("nobody panicked").next() } {
                    run(turn);
                }
            });
        }
    });
    let results = results.into_inner().expect("nobody panicked");
    let failures = failures.into_inner().expect("nobody panicked");
    print!("{}", results.table(METRICS));
    eprintln!(
        "{runs} runs each, {:.0} s, {failures} failed",
        start.elapsed().as_secs_f64()
    );
    if let Some(path) = &args.json {
        let document = json!({ "runs": runs, "quick": args.quick, "machine": machine(), "metrics": results.json(METRICS) });
        std::fs::write(path, serde_json::to_string_pretty(&document)? + "\n")
            .with_context(|| format!("while writing {}", path.display()))?;
    }
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Contenders take turns, so that what the machine does besides meets both.
fn turns<'a>(cases: &[&'a Case], runs: u32) -> Vec<(&'a Case, Contender)> {
    let mut turns = Vec::new();
    for case in cases {
        for _ in 0..runs {
            turns.extend(case.contenders.iter().map(|contender| (*case, *contender)));
        }
    }
    turns
}

fn chosen(names: &[String]) -> Result<Vec<&'static Case>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| CASES.iter().all(|case| case.name != **name))
    {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        bail!(
            "case `{unknown}` does not exist; there are {}",
            known.join(", ")
        );
    }
    Ok(CASES
        .iter()
        .filter(|case| names.is_empty() || names.iter().any(|name| name == case.name))
        .collect())
}

fn programs(args: &Args) -> Result<Programs> {
    let programs = Programs {
        footbridge: args.agent.clone(),
        parprouted: args.recipe.join("parprouted"),
        dhcp_helper: args.recipe.join("dhcp-helper"),
    };
    for program in [
        &programs.footbridge,
        &programs.parprouted,
        &programs.dhcp_helper,
    ] {
        if !program.is_file() {
            bail!(
                "{} does not exist; `cargo xtask bench agent` gets it",
                program.display()
            );
        }
    }
    Ok(programs)
}

fn machine() -> serde_json::Value {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    json!({ "kernel": kernel.trim(), "processors": processors, "architecture": std::env::consts::ARCH })
}
