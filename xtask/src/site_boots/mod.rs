//! `cargo xtask site-boots`: boots cards whose settings came about in each of the ways people have, and sees what becomes of them.
//!
//! Three devices of a fleet's list; an image and a compressed one that `cargo xtask site` changed; one as Raspberry Pi Imager leaves it, which is
//! booted twice; one with the mistakes that people make in a text editor. Each is booted among the same three simulated networks and has to
//! bridge in its own, under its own name and address, or in spite of the mistakes, and say what they are. Two more are for a network whose
//! members a server admits, and a third meets somebody else's of the same name, which it has to refuse. Images are made by the commands that
//! people type.

mod cards;
mod imager;
mod mistakes;
mod seen;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use imagegen::board::Board;
use imagegen::make::disk::ImageFormat;

use crate::guest::{Guest, Heard};
use crate::image::Job;
use crate::networks::Networks;
use crate::office::Office;
use crate::progress::Bars;
use crate::qemu::{self, Boot};
use crate::rig::{self, Errand};
use crate::source::Source;
use crate::usage::{self, UsageError};
use crate::workspace::Workspace;
use crate::{agent, boards, interrupt, tools};
use cards::{Air, CARDS, Card, Desk};
use imager::TakenOver;
use seen::{Expected, Seen, Told};

/// A loaded machine needs about two minutes; more than that many is a hang.
const LIMIT: Duration = Duration::from_secs(900);

/// The cards that `cargo xtask test` boots: one of each way in which settings come about.
const USUAL: &[&str] = &["listed-dhcp", "edited-packed", "mistaken"];

/// Which cards to boot, and as which board.
#[derive(clap::Args)]
pub struct Args {
    /// Board whose images to boot
    #[arg(long, default_value = "virt")]
    board: String,
    /// Boot this card only; may be given again
    #[arg(long, value_name = "NAME")]
    card: Vec<String>,
    #[command(flatten)]
    source: Source,
}

/// Makes the cards and boots one after the other; goes on after a failure, and tells all of them.
pub fn run(args: &Args) -> Result<()> {
    let cards = chosen(&args.card)?;
    let workspace = Workspace::locate()?;
    let board = boards::load(&workspace, &args.board)?;
    let bars = Bars::new();
    let scratch = tempfile::tempdir()?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());
    let mut networks = Networks::new()?;
    if cards.iter().any(|card| card.air != Air::Usual) {
        networks.office = Some(Office::make(scratch.path())?);
    }
    let agent = agent::build(&workspace, &board, &args.source, &bars)?;
    let packed = scratch.path().join("packed.img.zst");
    let job = Job {
        format: ImageFormat::ImgZst,
        agent: Some(&agent),
        ..rig::job(&board, &networks, &args.source, &packed)
    };
    let (outcome, archive) = rig::build(&workspace, &job, &networks, Errand::SiteBoots, &bars)?;
    let desk = Desk {
        folder: scratch.path(),
        board: &board.id,
        packed: &packed,
        agent: &agent,
        time: outcome.prepared.lock.time()?,
    };
    desk.lay_out()?;
    let consoles = workspace.target.join("site-boots");
    fs::create_dir_all(&consoles)
        .with_context(|| format!("while creating {}", consoles.display()))?;

    let mut failed = Vec::new();
    for card in &cards {
        let went_well = try_card(card, &desk, &board, &archive, &consoles);
        if let Err(error) = &went_well {
            say!("FAILED {:<16}{}", card.name, usage::report_text(error));
        }
        if !went_well.unwrap_or(false) {
            failed.push(card.name);
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("of {} cards failed: {}", cards.len(), failed.join(", ")),
    }
}

/// Makes a card and boots it, twice if it is another one after the first time; returns whether it was what is expected.
fn try_card(
    card: &Card,
    desk: &Desk,
    board: &Board,
    archive: &[u8],
    consoles: &Path,
) -> Result<bool> {
    let begin = Instant::now();
    let made = (card.make)(desk).context("while making it")?;
    say!(
        "       {:<16}made in {:.2} s",
        card.name,
        begin.elapsed().as_secs_f64()
    );
    let scratch = tempfile::tempdir_in(desk.folder)?;
    let boot = Boot {
        append: card.air.words(),
        ..Boot::among_networks(&made.image, board, archive)
    };
    let mut trial = Trial {
        expected: &card.expected,
        command: rig::emulator(&boot, scratch.path())?,
        consoles,
    };
    let told = Told {
        faults: &made.faults,
        notes: &made.notes,
    };
    let mut went_well = trial.boot(card.name, &told)?;
    if let Some(taken_over) = &made.taken_over {
        let left = taken_over.look_at(&scratch.path().join(qemu::CARD))?;
        for line in &left {
            say!("FAILED {:<16}{line}", card.name);
        }
        let notes = &[];
        let again = trial.boot(&format!("{}-again", card.name), &Told { notes, ..told })?;
        went_well &= left.is_empty() && again;
    }
    Ok(went_well)
}

/// A card that is about to be booted.
struct Trial<'a> {
    expected: &'a Expected,
    command: Command,
    consoles: &'a Path,
}

impl Trial<'_> {
    /// Boots it and tells what was seen; returns whether it was what is expected.
    fn boot(&mut self, name: &str, told: &Told) -> Result<bool> {
        let console = self.consoles.join(format!("{name}.log"));
        let begin = Instant::now();
        let seen = live(&mut self.command, &console)?;
        let wrong = seen.judge(self.expected, told);
        let verdict = if wrong.is_empty() { "ok" } else { "FAILED" };
        say!(
            "{verdict:<7}{name:<16}booted and looked at in {:>5.1} s  {}",
            begin.elapsed().as_secs_f64(),
            seen.in_short(),
        );
        for line in seen.told().chain(&wrong) {
            say!("       {line}");
        }
        if !wrong.is_empty() {
            say!("       the console is {}", console.display());
        }
        Ok(wrong.is_empty())
    }
}

/// Boots the usual cards for `cargo xtask test`.
pub fn run_default() -> Result<()> {
    if !tools::is_there("site-boots", "qemu-system-aarch64")? {
        return Ok(());
    }
    run(&Args {
        board: "virt".into(),
        card: USUAL.iter().map(ToString::to_string).collect(),
        source: Source::default(),
    })
}

fn chosen(names: &[String]) -> Result<Vec<&'static Card>> {
    if names.is_empty() {
        return Ok(CARDS.iter().collect());
    }
    let find = |name: &String| CARDS.iter().find(|card| card.name == name);
    names
        .iter()
        .map(|name| {
            find(name).ok_or_else(|| {
                let known: Vec<&str> = CARDS.iter().map(|card| card.name).collect();
                let hint = format!("the cards are {}", known.join(", "));
                UsageError::new(format!("there is no card `{name}`"), hint).into()
            })
        })
        .collect()
}

/// Boots a card and listens until its kit has told all; the console goes into a file.
fn live(command: &mut Command, console: &Path) -> Result<Seen> {
    let deadline = Instant::now() + LIMIT;
    let guest = Guest::start(command)?;
    let mut lines = Vec::new();
    let whole = loop {
        match guest.listen(deadline) {
            Heard::Line(line) if line.starts_with("E2E end") => break true,
            Heard::Line(line) => lines.push(line),
            Heard::Nothing | Heard::End => break false,
        }
    };
    fs::write(console, lines.join("\n") + "\n")
        .with_context(|| format!("while writing {}", console.display()))?;
    Ok(Seen::on(&lines, whole))
}

/// A card that was made.
struct Made {
    image: PathBuf,
    /// What it has to find wrong: the beginnings of what it says.
    faults: Vec<String>,
    /// What else it has to say of its files at the first start.
    notes: Vec<String>,
    /// What is looked for on the card after the first start, where that changes it.
    taken_over: Option<TakenOver>,
}

impl Made {
    /// One with nothing to say.
    fn of(image: PathBuf) -> Self {
        Made {
            image,
            faults: Vec::new(),
            notes: Vec::new(),
            taken_over: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_chosen_by_their_names() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            chosen(&names).map(|cards| cards.iter().map(|card| card.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), CARDS.len());
        assert_eq!(names(USUAL).unwrap(), USUAL);
        let error = names(&["mistaken", "mistake"]).unwrap_err();
        assert_eq!(error.to_string(), "there is no card `mistake`");
    }
}
