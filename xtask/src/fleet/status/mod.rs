//! `cargo xtask fleet status`: finds the devices and asks each how it is.
//!
//! ```text
//!  list, names, addresses --> wanted --+--> browse (mDNS), addresses --> ask (TCP) --> answers --+--> rows --> table, JSON
//!                                      +---------------------------------------------------------+
//! ```
//!
//! Whoever answers is believed: nothing in an answer is proved, and nothing but what is shown depends on it.

pub mod ask;
mod browse;
mod search;
mod table;
mod wanted;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use imagegen::fleet::identities::identities;
use imagegen::fleet::list::parse_list;

use super::list::{load, told};
use crate::output;
use crate::usage::Failure;
use search::{Found, search};
use table::{Row, rows};
use wanted::Wanted;

/// Longest list of missing devices in a message.
const NAMED_MAX: usize = 20;

/// Which devices to ask, and for how long.
#[derive(clap::Args)]
pub struct Args {
    /// Names or addresses of devices; without any, all that multicast DNS finds
    #[arg(value_name = "DEVICE")]
    devices: Vec<String>,
    /// List of the devices, a .toml or a .csv; those that do not answer are told
    #[arg(long, value_name = "FILE", conflicts_with = "devices")]
    list: Option<PathBuf>,
    /// Print JSON in place of a table
    #[arg(long)]
    json: bool,
    /// How many seconds to wait for answers at most
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Asks, and prints what was answered. Devices that were named and did not answer are a failure.
pub fn run(args: &Args) -> Result<()> {
    let wanted = match &args.list {
        Some(list) => wanted_of(list)?,
        None => args
            .devices
            .iter()
            .map(|device| Wanted::parse(device))
            .collect::<Result<_>>()?,
    };
    let found = search(&wanted, Duration::from_secs(args.timeout));
    // Who was named is shown alone; beside a list, whoever else is there.
    let others = args.devices.is_empty();
    let rows = rows(&wanted, &found.answers, others);
    let text = match args.json {
        true => table::json(&rows)? + "\n",
        false => table::text(&rows),
    };
    let verdict = verdict(&rows, &found);
    if verdict.is_ok() {
        output::print(text)?;
    } else if args.json || !rows.is_empty() {
        output::print_with_failure(text)?;
    }
    for note in table::other_names(&rows).chain(found.notes.iter().cloned()) {
        say!("note: {note}");
    }
    verdict
}

fn wanted_of(list: &Path) -> Result<Vec<Wanted>> {
    let sources = load(list)?;
    let list = parse_list(&sources).map_err(told)?;
    let identities = identities(&list).map_err(told)?;
    Ok(identities.into_iter().map(Wanted::from).collect())
}

fn verdict(rows: &[Row], found: &Found) -> Result<()> {
    let missing: Vec<&str> = rows
        .iter()
        .filter(|row| row.answer.is_none())
        .map(|row| row.name.as_str())
        .collect();
    if rows.is_empty() {
        let hint = "devices tell of themselves with `[fleet] status = true` in site/footbridge.toml, and only in their own network; \
                    give an address if multicast does not get through";
        let why = found.no_mdns.as_ref();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        return Err(Failure::new(format!("no device answered{why}"), hint).into());
    }
    if missing.is_empty() {
        return Ok(());
    }
    let named = missing[..missing.len().min(NAMED_MAX)].join(", ");
    let more = match missing.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let all = rows.iter().filter(|row| row.listed).count();
    Err(Failure::new(
        format!("{} of {all} devices did not answer: {named}{more}", missing.len()),
        "is it on, is this machine in its network, and is `[fleet] status = true` in its site/footbridge.toml? \
         --timeout waits longer, an address asks without multicast",
    )
    .into())
}
