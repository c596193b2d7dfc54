//! Boots an image among simulated Wi-Fi networks and reports each check with its time.
//!
//! The image is the one a user would flash; only a second archive behind its initramfs differs, which carries the rig
//! (see `rig.rs` and `xtask/kit/`). Checks run inside the guest and are reported on its console, a line each.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use imagegen::board::Board;

use crate::guest::{Guest, Heard, parse_check};
use crate::networks::Networks;
use crate::progress::Bars;
use crate::qemu::Boot;
use crate::rig::{self, Errand};
use crate::source::Source;
use crate::workspace::Workspace;
use crate::{boards, interrupt, tools};

/// A loaded machine needs about three minutes; ten times that is a hang.
const LIMIT: Duration = Duration::from_secs(1800);

/// Which board to check.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    board: boards::Choice,
    /// Check the image for the board as a network card of the computer that its USB port is plugged into
    #[arg(long)]
    gadget: bool,
    /// Check the board's kernel and root on the machine that stands in for another board, such as virt
    #[arg(long, value_name = "BOARD")]
    on: Option<String>,
    #[command(flatten)]
    source: Source,
    /// Print the guest's whole console
    #[arg(long)]
    console: bool,
}

/// Builds, boots, checks.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let board = choose(&workspace, args)?;
    let bars = Bars::new();
    let scratch = tempfile::tempdir()?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());
    let output = scratch.path().join("image.img");
    let networks = Networks::new()?;
    let job = rig::job(&board, &networks, &args.source, &output);
    let (_, archive) = rig::build(&workspace, &job, &networks, Errand::Checks, &bars)?;
    let boot = Boot::among_networks(&output, &board, &archive);
    let mut command = rig::emulator(&boot, scratch.path())?;
    follow(&Guest::start(&mut command)?, args.console)
}

fn choose(workspace: &Workspace, args: &Args) -> Result<Board> {
    let mut board = boards::load(workspace, &args.board.name)?;
    if let Some(machine) = &args.on {
        board = board.on_machine_of(&boards::load(workspace, machine)?);
    }
    if args.gadget {
        board = boards::as_gadget(&board)?;
    }
    Ok(board)
}

/// Runs the default board's checks for `cargo xtask test`.
pub fn run_default() -> Result<()> {
    if !tools::is_there("e2e", "qemu-system-aarch64")? {
        return Ok(());
    }
    run(&Args {
        board: boards::Choice::default(),
        gadget: false,
        on: None,
        source: Source::default(),
        console: false,
    })
}

/// Prints each check as it is reported; returns an error unless the guest came to its end with all of them passed.
fn follow(guest: &Guest, console: bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let mut failed = Vec::new();
    let mut passed = 0;
    let mut ended = false;
    let mut tail = Vec::new();
    loop {
        let line = match guest.listen(deadline) {
            Heard::Line(line) => line,
            Heard::End => break,
            Heard::Nothing => bail!("the guest has not ended after {} s", LIMIT.as_secs()),
        };
        if console {
            say!("{line}");
        }
        if let Some(check) = parse_check(&line) {
            let verdict = if check.passed { "ok" } else { "FAILED" };
            say!(
                "{verdict:<7}{:<30}{:>8.2} s  {}",
                check.name,
                check.took.as_secs_f64(),
                check.detail
            );
            if check.passed {
                passed += 1
            } else {
                failed.push(check.name)
            }
        } else if line.starts_with("E2E end") {
            ended = true;
        } else if let Some(talk) = line.strip_prefix("E2E ") {
            say!("       {talk}");
        }
        tail.push(line);
    }
    if !ended {
        let tail = tail[tail.len().saturating_sub(40)..].join("\n");
        bail!("the guest ended before its checks did; its last words:\n{tail}");
    }
    if failed.is_empty() && passed > 0 {
        Ok(())
    } else {
        bail!("{passed} checks passed, failed: {}", failed.join(", "))
    }
}
