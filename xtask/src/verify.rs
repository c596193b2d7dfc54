//! `cargo xtask verify`: looks through a finished image for what keeps a board from starting, or what should never be on a card.

use std::path::{Path, PathBuf};

use anyhow::Result;
use imagegen::board::Board;
use imagegen::inspect::image::{Image, Unreadable, read_image};
use imagegen::inspect::packed::open_image_file;
use imagegen::inspect::verify::{Finding, check_ids, is_for, verify};
use serde_json::json;

use crate::boards;
use crate::output;
use crate::usage::{Failure, UsageError};
use crate::workspace::Workspace;

/// What to look at.
#[derive(clap::Args)]
pub struct Args {
    /// Image to look at, compressed or not
    image: PathBuf,
    /// Board it was built for (default: the one whose device trees it has)
    #[arg(long)]
    board: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Prints what is wrong with an image; an error if anything is.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let image = open(&args.image)?;
    let board = match &args.board {
        Some(name) => boards::load(&workspace, name)?,
        None => guess(boards::all(&workspace)?, &image)?,
    };
    let findings = verify(&image, &board);
    let text = if args.json {
        as_json(&args.image, &board, &findings)?
    } else {
        as_text(&board, &findings)
    };
    output::print(text)?;
    match findings.len() {
        0 => Ok(()),
        count => Err(Failure::new(
            format!(
                "{count} finding{} in {}",
                if count == 1 { "" } else { "s" },
                args.image.display()
            ),
            "each finding says what to do next",
        )
        .into()),
    }
}

/// Reads an image; what is none was named by mistake.
pub fn open(path: &Path) -> Result<Image> {
    let hint = "`cargo xtask image` makes an image and prints its path";
    let file = open_image_file(path).map_err(|error| {
        UsageError::new(format!("cannot read {}: {error}", path.display()), hint)
    })?;
    let image = read_image(file).map_err(|error| {
        let why = Unreadable::of_error(&error);
        UsageError::new(format!("{} is no image: {why}", path.display()), hint)
    })?;
    Ok(image)
}

/// Returns the board that an image is for.
fn guess(boards: Vec<Board>, image: &Image) -> Result<Board> {
    let board = boards.into_iter().find(|board| is_for(image, board));
    board.ok_or_else(|| {
        UsageError::new(
            "the device trees in the image are those of no board",
            "say which one it is for: --board BOARD; `cargo xtask boards` lists them",
        )
        .into()
    })
}

fn as_text(board: &Board, findings: &[Finding]) -> String {
    if findings.is_empty() {
        return format!(
            "{}: {} checks, nothing found\n",
            board.id,
            check_ids().count()
        );
    }
    findings
        .iter()
        .map(|finding| {
            let Finding {
                id,
                place,
                what,
                why,
                next,
            } = finding;
            format!("{id}: {place} {what}\n    why   {why}\n    next  {next}\n")
        })
        .collect()
}

fn as_json(path: &Path, board: &Board, findings: &[Finding]) -> Result<String> {
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "id": finding.id,
                "place": finding.place,
                "what": finding.what,
                "why": finding.why,
                "next": finding.next,
            })
        })
        .collect();
    let report = json!({
        "image": path.display().to_string(),
        "board": board.id,
        "checks": check_ids().collect::<Vec<_>>(),
        "findings": findings,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&report)?))
}
