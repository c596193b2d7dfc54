//! `cargo xtask fuzz agent`: libFuzzer on the agent's decoders and its engine, with the toolchain everything is built with.
//!
//! The compiler's coverage pass needs no nightly; libFuzzer itself is compiled by a C++ compiler. What is found stays in the
//! build folder: the corpus, which the next run goes on from, and the input of a crash, to be kept as a seed with the mend.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::usage::UsageError;
use crate::workspace::Workspace;

/// Has the compiler count edges and compared values the way libFuzzer reads them.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What to fuzz, and for how long.
#[derive(clap::Args)]
pub struct Args {
    /// What is fuzzed
    #[arg(value_enum)]
    what: What,
    /// One target; otherwise each in turn
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    Agent,
}

/// Builds the programs and runs them, one after the other.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let folder = match args.what {
        What::Agent => workspace.root.join("agent/fuzz"),
    };
    let targets = chosen(&folder, args.target.as_deref())?;
    let programs = build(&workspace, &folder)?;
    for target in targets {
        say!("\n== {target}");
        fuzz(&workspace, &folder, &programs.join(&target), args.seconds)
            .with_context(|| format!("while fuzzing {target}"))?;
    }
    Ok(())
}

/// Returns an error unless the programs are formatted and compile: being no part of the workspace, nothing else looks at them.
pub fn check(workspace: &Workspace) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(workspace.root.join("agent/fuzz"));
    cmd!(shell, "cargo fmt --check").quiet().run()?;
    // Nothing is linked, so the fuzzer, which takes a C++ compiler and a while, may be said to be somewhere already.
    let _fuzzer = shell.push_env("CUSTOM_LIBFUZZER_PATH", "/nonexistent/libfuzzer.a");
    // What the lints compiled is there.
    let out = &workspace.target;
    cmd!(
        shell,
        "cargo check --quiet --locked --bins --target-dir {out}"
    )
    .quiet()
    .run()?;
    Ok(())
}

/// Returns the target of the name, or all: each has a folder of seeds.
fn chosen(folder: &Path, named: Option<&str>) -> Result<Vec<String>> {
    let seeds = folder.join("seeds");
    let entries =
        fs::read_dir(&seeds).with_context(|| format!("while reading {}", seeds.display()))?;
    let mut all = Vec::new();
    for entry in entries {
        all.push(entry?.file_name().to_string_lossy().into_owned());
    }
    all.sort();
    match named {
        None => Ok(all),
        Some(name) if all.iter().any(|target| target == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(UsageError::new(
            format!("there is no target `{name}`"),
            format!("the targets are {}", all.join(", ")),
        )
        .into()),
    }
}

/// Builds all programs and returns their folder. Naming the machine's own target keeps the flags from build scripts.
fn build(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let shell = Shell::new()?;
    shell.change_dir(folder);
    let host = cmd!(shell, "rustc --print host-tuple").quiet().read()?;
    let out = workspace.target.join("fuzz");
    let _coverage = shell.push_env("RUSTFLAGS", COVERAGE);
    cmd!(
        shell,
        "cargo build --release --locked --target {host} --target-dir {out}"
    )
    .quiet()
    .run()
    .context("while building the programs; libFuzzer needs a C++ compiler (Debian: g++)")?;
    Ok(out.join(host).join("release"))
}

fn fuzz(workspace: &Workspace, folder: &Path, program: &Path, seconds: u32) -> Result<()> {
    let name = program.file_name().context("a program has a name")?;
    let corpus = workspace.target.join("fuzz/corpus").join(name);
    fs::create_dir_all(&corpus).with_context(|| format!("while creating {}", corpus.display()))?;
    let seeds = folder.join("seeds").join(name);
    let artifacts = format!("{}-crash-", corpus.display());
    let seconds = seconds.to_string();
    let shell = Shell::new()?;
    cmd!(
        shell,
        "{program} -max_total_time={seconds} -max_len=1500 -timeout=10 -print_final_stats=1 -artifact_prefix={artifacts} {corpus} {seeds}"
    )
    .quiet()
    .run()?;
    Ok(())
}
