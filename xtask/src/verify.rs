//! `cargo xtask verify`: looks through a finished image for what keeps a board from starting, or what should never be on a card.

use std::path::{Path, PathBuf};

use anyhow::Result;
use imagegen::board::Board;
use imagegen::card::image::{ImageFault, compare_checksum};
use imagegen::inspect::image::{Image, Unreadable, read_image};
use imagegen::inspect::packed::open_image_file;
use imagegen::inspect::verify::{Finding, check_ids, is_for, verify};
use serde_json::json;

use crate::boards;
use crate::output;
use crate::usage::{Failure, UsageError, without_controls};
use crate::workspace::Workspace;

/// The check that is not of the image's content.
const CHECKSUM_CHECK: &str = "checksum";

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
    let mut findings = verify(&image, &board);
    let checksum = checksum(&args.image)?;
    if let Checksum::Misfit(finding) = &checksum {
        findings.push(finding.clone());
    }
    let text = if args.json {
        as_json(&args.image, &board, &findings)?
    } else {
        without_controls(&as_text(&board, &findings, &checksum))
    };
    if findings.is_empty() {
        return output::print(text);
    }
    output::print_with_failure(text)?;
    let count = findings.len();
    Err(Failure::new(
        format!(
            "{count} finding{} in {}",
            if count == 1 { "" } else { "s" },
            args.image.display()
        ),
        "each finding says what to do next",
    )
    .into())
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

/// What the checksum beside an image says of it.
enum Checksum {
    None,
    Fits,
    Misfit(Finding),
}

fn checksum(path: &Path) -> Result<Checksum> {
    match compare_checksum(path) {
        Ok(true) => Ok(Checksum::Fits),
        Ok(false) => Ok(Checksum::None),
        Err(fault @ (ImageFault::Checksum { .. } | ImageFault::ChecksumSyntax(_))) => {
            Ok(Checksum::Misfit(Finding {
                id: CHECKSUM_CHECK,
                place: path.display().to_string(),
                what: "does not fit the .sha256 beside it".to_owned(),
                why: "bytes that no check looks at may be damaged: `flash` refuses such an image",
                next: match fault {
                    ImageFault::ChecksumSyntax(_) => "copy the .sha256 again, or take it away",
                    _ => "copy or build the image again, and the files beside it with it",
                },
            }))
        }
        Err(fault) => Err(anyhow::Error::from(fault)),
    }
}

/// Returns the board that an image is for.
fn guess(boards: Vec<Board>, image: &Image) -> Result<Board> {
    let say = "say which one it is for: --board BOARD; `cargo xtask boards` lists them";
    let boot = image.boot.as_ref().map_err(|why| {
        UsageError::new(
            format!("the boot partition cannot be read, by which boards are told apart: {why}"),
            say,
        )
    })?;
    let board = boards.into_iter().find(|board| is_for(boot, board));
    board.ok_or_else(|| {
        UsageError::new("the device trees in the image are those of no board", say).into()
    })
}

fn as_text(board: &Board, findings: &[Finding], checksum: &Checksum) -> String {
    if findings.is_empty() {
        let checksum = match checksum {
            Checksum::Fits => "the .sha256 beside it fits",
            Checksum::None | Checksum::Misfit(_) => "there is no .sha256 beside it",
        };
        return format!(
            "{}: {} checks, nothing found; {checksum}\n",
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
        "checks": check_ids().chain([CHECKSUM_CHECK]).collect::<Vec<_>>(),
        "findings": findings,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&report)?))
}
