//! `cargo xtask boards`, and how every command finds its board.

use anyhow::{Context, Result};
use imagegen::board::{Board, load_boards};
use imagegen::lock::Lock;

use crate::usage::UsageError;
use crate::workspace::Workspace;
use crate::{lock, output};

/// Nothing to choose.
#[derive(clap::Args)]
pub struct Args {}

/// The board of a command that can do without being told.
#[derive(clap::Args)]
pub struct Choice {
    /// Board to build for
    #[arg(long = "board", value_name = "BOARD", default_value = DEFAULT)]
    pub name: String,
}

impl Default for Choice {
    fn default() -> Self {
        Choice {
            name: DEFAULT.into(),
        }
    }
}

/// The board that is built where none is named.
const DEFAULT: &str = "pi3";

/// Lists the boards.
pub fn run(_args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    for board in all(&workspace)? {
        output::print_line(describe(&board))?;
        // Other commands say what is wrong with a lock, and name this one for the list.
        let line = match lock::find(&workspace, board.arch.debian_name()) {
            Ok(lock) => reservation(lock.as_ref()),
            Err(_) => Some("the lock of its packages cannot be read"),
        };
        if let Some(line) = line {
            output::print_line(format_args!("    but     {line}"))?;
        }
    }
    Ok(())
}

/// What is to be known of a board's packages before it is chosen.
fn reservation(lock: Option<&Lock>) -> Option<&'static str> {
    match lock {
        None => Some("its packages are not chosen yet: `cargo xtask lock` has to do that first"),
        Some(lock) if !lock.has_security() => Some(
            "its packages were chosen without security updates; `cargo xtask lock` takes them in where the mirror has them",
        ),
        Some(_) => None,
    }
}

fn describe(board: &Board) -> String {
    let wpa3 = if board.radio.wpa3 {
        ""
    } else {
        "; not known to join WPA3 networks"
    };
    let gadget = match board.wired.gadget {
        true => "; with --gadget, the computer that its USB port is plugged into",
        false => "",
    };
    format!(
        "{:<10} {} ({})\n    models  {}\n    radio   {}{wpa3}\n    wired   {}{gadget}\n    tested  {}",
        board.id,
        board.name,
        board.arch,
        board.models.join(", "),
        board.radio.about,
        board.wired.about,
        board.tested,
    )
}

/// Returns the board of that name; an unknown one is the user's mistake, and the nearest name is suggested.
pub fn load(workspace: &Workspace, name: &str) -> Result<Board> {
    let boards = all(workspace)?;
    let names: Vec<String> = boards.iter().map(|board| board.id.clone()).collect();
    boards
        .into_iter()
        .find(|board| board.id == name)
        .ok_or_else(|| unknown(name, &names).into())
}

/// Returns the board as a network card of the computer that its USB port is plugged into.
pub fn as_gadget(board: &Board) -> Result<Board> {
    board.as_gadget().ok_or_else(|| {
        UsageError::new(
            format!(
                "the board `{}` cannot be a network card of another computer",
                board.id
            ),
            "leave out --gadget; `cargo xtask boards` says which can",
        )
        .into()
    })
}

/// Returns all boards, by name.
pub fn all(workspace: &Workspace) -> Result<Vec<Board>> {
    let folder = workspace.boards();
    let boards =
        load_boards(&folder).with_context(|| format!("while reading {}", folder.display()))?;
    Ok(boards.into_values().collect())
}

fn unknown(name: &str, known: &[String]) -> UsageError {
    let nearest = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let suggestion = nearest
        .filter(|candidate| strsim::jaro_winkler(candidate, name) > 0.7)
        .map_or_else(String::new, |candidate| {
            format!("did you mean `{candidate}`? ")
        });
    UsageError::new(
        format!("board `{name}` does not exist"),
        format!("{suggestion}the boards are: {}", known.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::unknown;
    use crate::usage::report_text;

    #[test]
    fn unknown_boards_get_a_suggestion() {
        let known = ["pi3", "zero-w"].map(String::from);
        for (name, hint) in [
            ("pi33", "did you mean `pi3`? the boards are: pi3, zero-w"),
            (
                "zerow",
                "did you mean `zero-w`? the boards are: pi3, zero-w",
            ),
            ("beagle", "the boards are: pi3, zero-w"),
        ] {
            let text = report_text(&unknown(name, &known).into());
            assert_eq!(
                text,
                format!("error: board `{name}` does not exist\n\nhint: {hint}")
            );
        }
    }
}
