//! `footbridge lay-site`: the part of the system's start that knows what the files of `site/` should look like.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::hint::Hinted;
use crate::site::{Folders, Rule, lay_site};

/// Check a card's settings and lay them over the root, as the start of the system does
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the boot partition is mounted; what Raspberry Pi Imager left on it is taken over
    #[arg(long, value_name = "DIR")]
    boot: PathBuf,
    /// The root that the settings are for
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Which files there are: name, mode and destination, a line each
    #[arg(long, value_name = "FILE")]
    table: PathBuf,
    /// Where to write what is good, and the list of what is wrong
    #[arg(long, value_name = "DIR")]
    layer: PathBuf,
}

/// Lays the files and says on the standard output what is wrong with them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let table = fs::read_to_string(&args.table)
        .with_context(|| format!("while reading {}", args.table.display()))?;
    let rules = Rule::parse_table(&table).ok_or_else(|| {
        Hinted::new(
            format!("{} is no table of files", args.table.display()),
            "each line has a name, a mode in octal digits and a destination",
        )
    })?;
    let folders = Folders {
        boot: &args.boot,
        root: &args.root,
        layer: &args.layer,
    };
    lay_site(folders, &rules, &mut std::io::stdout().lock())
}
