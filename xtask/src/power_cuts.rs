//! `cargo xtask power-cuts`: boots one card again and again and cuts the power at moments that nobody chose.
//!
//! The emulator is killed: what the guest had not written to the card by then is lost, as it is on a board. Every other boot is cut
//! on its way up; the ones between have to reach bridging by themselves, with the card as it was found, and are cut while they bridge
//! and while the card's site files are being replaced. The moments follow from a seed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::guest::{Guest, Heard, parse_check};
use crate::networks::Networks;
use crate::progress::Bars;
use crate::qemu::{self, Boot};
use crate::rig::{self, Errand};
use crate::source::Source;
use crate::workspace::Workspace;
use crate::{boards, interrupt, output};

/// A guest that takes longer to bridge hangs: a loaded machine needs about one minute.
const LIMIT: Duration = Duration::from_secs(600);
/// How long after it bridges a guest may live on. The kit replaces the site's files several times in that time.
const LONGEST_LIFE: Duration = Duration::from_secs(10);

/// How often to cut the power, and of what.
#[derive(clap::Args)]
pub struct Args {
    /// Board whose image to boot
    #[arg(long, default_value = "virt")]
    board: String,
    /// Boots, each of which ends by a cut
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    boots: u32,
    /// What the moments follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    source: Source,
}

/// When the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// So long after it was switched on.
    Starting(Duration),
    /// So long after the guest bridged.
    Bridging(Duration),
}

/// Builds the image, and boots it until all cuts are made or one of them did harm.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let board = boards::load(&workspace, &args.board)?;
    let bars = Bars::new();
    let scratch = tempfile::tempdir()?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());
    let output = scratch.path().join("image.img");
    let networks = Networks::new()?;
    let job = rig::job(&board, &networks, &args.source, &output);
    let (_, archive) = rig::build(&workspace, &job, &networks, Errand::PowerCuts, &bars)?;
    let boot = Boot::among_networks(&output, &board, &archive);
    let mut command = rig::emulator(&boot, scratch.path())?;
    cut_all(args, &mut command).inspect_err(|_| {
        keep(&scratch.path().join(qemu::CARD), &workspace.target);
    })
}

fn cut_all(args: &Args, command: &mut Command) -> Result<()> {
    let usual = live(command, Cut::Bridging(Duration::ZERO)).context("at the first boot")?;
    say!("bridging {:.1} s after the power came", usual.as_secs_f64());
    let mut times = Vec::new();
    for (number, cut) in (1..=args.boots).zip(cuts(args.seed, usual)) {
        let took = live(command, cut).with_context(|| format!("at boot {number}, {cut:?}"))?;
        match cut {
            Cut::Starting(after) => {
                say!("boot {number}: cut after {:.2} s", after.as_secs_f64());
            }
            Cut::Bridging(after) => {
                say!(
                    "boot {number}: bridging after {:.2} s, cut {:.2} s later",
                    took.as_secs_f64(),
                    after.as_secs_f64()
                );
                times.push(took);
            }
        }
    }
    times.sort();
    if let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) {
        output::print_line(format_args!(
            "{} cuts; {} boots after one reached bridging, in {:.1} s (median), {:.1} s (worst)",
            args.boots,
            times.len(),
            median.as_secs_f64(),
            worst.as_secs_f64()
        ))?;
    }
    Ok(())
}

/// Returns moments without end: one on the way up, one of bridging, and so on.
fn cuts(seed: u64, usual: Duration) -> impl Iterator<Item = Cut> {
    (0u64..).map(move |number| {
        let part = chance(seed, number);
        match number % 2 {
            0 => Cut::Starting(usual.mul_f64(part)),
            _ => Cut::Bridging(LONGEST_LIFE.mul_f64(part)),
        }
    })
}

/// Returns a number from 0 up to 1 that looks like chance (SplitMix64).
fn chance(seed: u64, number: u64) -> f64 {
    let mut z = seed.wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

/// Boots the card and cuts the power. Returns the time until the guest bridged, or until it was cut.
fn live(command: &mut Command, cut: Cut) -> Result<Duration> {
    let start = Instant::now();
    let guest = Guest::start(command)?;
    let mut bridging = None;
    let mut words = Vec::new();
    loop {
        let deadline = match (cut, bridging) {
            (Cut::Starting(after), _) => start + after,
            (Cut::Bridging(_), None) => start + LIMIT,
            (Cut::Bridging(after), Some(at)) => at + after,
        };
        match guest.listen(deadline) {
            Heard::Line(line) => {
                if line == "E2E bridging" {
                    bridging.get_or_insert_with(Instant::now);
                }
                let failed = parse_check(&line).filter(|check| !check.passed);
                words.push(line);
                if let Some(check) = failed {
                    bail!("{} failed: {}\n{}", check.name, check.detail, tail(&words));
                }
            }
            Heard::Nothing => match (cut, bridging) {
                (Cut::Bridging(_), None) => bail!("it does not bridge\n{}", tail(&words)),
                (Cut::Bridging(_), Some(at)) => return Ok(at - start),
                (Cut::Starting(after), _) => return Ok(after),
            },
            Heard::End => bail!("the guest ended by itself\n{}", tail(&words)),
        }
    }
}

fn tail(words: &[String]) -> String {
    words[words.len().saturating_sub(40)..].join("\n")
}

/// Keeps the card that did not boot, for whoever wants to know why.
fn keep(card: &Path, target: &Path) {
    let kept = target.join("power-cut-card.img");
    match fs::copy(card, &kept) {
        Ok(_) => say!("the card as it was found is {}", kept.display()),
        Err(error) => say!("the card could not be kept: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_follow_from_the_seed_and_are_spread() {
        let usual = Duration::from_secs(20);
        let some = |seed| cuts(seed, usual).take(200).collect::<Vec<_>>();
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        let mut early = 0;
        for (number, cut) in some(1).into_iter().enumerate() {
            match cut {
                Cut::Starting(after) => {
                    assert!(number % 2 == 0 && after < usual);
                    early += usize::from(after < usual / 2);
                }
                Cut::Bridging(after) => assert!(number % 2 == 1 && after < LONGEST_LIFE),
            }
        }
        assert!(
            (30..=70).contains(&early),
            "{early} of 100 in the first half"
        );
    }
}
