//! Loads a list of devices, and runs the programs that print its secrets: without a shell, each once, and only when nothing else is wrong.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{self, Stdio};

use anyhow::{Context, Result};
use imagegen::board::{Board, load_boards};
use imagegen::fleet::Fleet;
use imagegen::fleet::check::{Command, check, check_all_but_commands};
use imagegen::fleet::list::{LoadError, Problem, Sources, load_sources, parse_list};

use crate::usage::UsageError;
use crate::workspace::Workspace;

/// As much as is read of a file that a list names.
const FILE_MAX: u64 = 1 << 20;

/// As much as is read of what a program prints.
const PRINTED_MAX: u64 = 64 << 10;

/// A list without a mistake.
pub struct Checked {
    /// The devices.
    pub fleet: Fleet,
    /// The boards there are.
    pub boards: BTreeMap<String, Board>,
}

/// Reads the files of a list.
pub fn load(path: &Path) -> Result<Sources> {
    load_sources(path).map_err(|error| {
        let hint = match &error {
            LoadError::Read { .. } | LoadError::TooLarge(_) => "check the path",
            LoadError::NotText { .. } => "save it as UTF-8",
            LoadError::Kind(_) => "name it FLEET.toml or FLEET.csv, whichever it is",
        };
        UsageError::new(format!("{:#}", anyhow::Error::from(error)), hint).into()
    })
}

/// Checks a list whole; all mistakes are told at once.
pub fn checked(workspace: &Workspace, sources: &Sources) -> Result<Checked> {
    let folder = workspace.boards();
    let boards =
        load_boards(&folder).with_context(|| format!("while reading {}", folder.display()))?;
    let list = parse_list(sources).map_err(told)?;
    let commands = check_all_but_commands(&list, &boards, &read).map_err(told)?;
    let printed: BTreeMap<Command, Result<Vec<u8>, String>> = commands
        .into_iter()
        .map(|command| {
            let printed = run(&command);
            (command, printed)
        })
        .collect();
    let say = |command: &Command| match printed.get(command) {
        Some(printed) => printed.clone(),
        None => Err("it was not run".to_owned()),
    };
    let fleet = check(&list, &boards, &read, &say).map_err(told)?;
    Ok(Checked { fleet, boards })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes))
        .map(|_| bytes)
        .map_err(|error| error.to_string())
}

/// What it prints goes nowhere but here; what it asks and says goes to the terminal.
fn run(command: &Command) -> Result<Vec<u8>, String> {
    let (program, arguments) = command.words().split_first().ok_or("it has no name")?;
    let mut child = process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut printed = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(PRINTED_MAX)
            .read_to_end(&mut printed)
            .map_err(|error| error.to_string())?;
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() {
        Ok(printed)
    } else {
        Err(status.to_string())
    }
}

/// Makes the mistakes in a list one error.
pub fn told(problems: Vec<Problem>) -> anyhow::Error {
    let count = problems.len();
    let mistakes = if count == 1 {
        "1 mistake"
    } else {
        &format!("{count} mistakes")
    };
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("  {problem}\n      {}", problem.hint))
        .collect();
    UsageError::new(
        format!("the list has {mistakes}:\n{}", lines.join("\n")),
        "nothing was made; the book shows whole lists (docs/src/fleet.md)",
    )
    .into()
}
