//! `cargo xtask soak`: the agent's day of life in minutes, longer than the ordinary tests have time for.
//!
//! The matter is the agent's test of the name; here it is told how long to go on, and from which seed.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::tools;
use crate::workspace::Workspace;

/// How long to go on.
#[derive(clap::Args)]
pub struct Args {
    /// Link flaps, uplink changes, host moves, leases, floods and kills to live through
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// What the order of events follows from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the one test, and shows what it measured.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let shell = Shell::new()?;
    shell.change_dir(&workspace.root);
    tools::provide(&shell)?;
    let _events = shell.push_env("FOOTBRIDGE_SOAK_EVENTS", args.events.to_string());
    let _seed = shell.push_env("FOOTBRIDGE_SOAK_SEED", args.seed.to_string());
    cmd!(
        shell,
        "cargo test --quiet --locked --package footbridge-agent --test it netns::soak -- --nocapture"
    )
    .quiet()
    .run()
    .context("while living through it")
}
