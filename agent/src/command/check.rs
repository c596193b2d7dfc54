//! `footbridge check`: says whether a configuration file would be accepted.

use std::io::Write as _;
use std::path::PathBuf;

use crate::config::check_config;

/// Check a configuration file without starting anything
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Checks the file and says which interfaces it joins.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let config = check_config(&args.config)?;
    let (uplink, downlink) = (&config.settings.uplink, &config.settings.downlink);
    writeln!(
        std::io::stdout(),
        "{}: good: joins {downlink} to the network of {uplink}",
        args.config.display()
    )?;
    Ok(())
}
