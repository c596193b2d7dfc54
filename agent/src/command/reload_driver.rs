//! `footbridge reload-driver`: the part of a radio's recovery that needs root, for the service manager to start.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::config::{Overrides, load_config};
use crate::hint::Hinted;
use crate::shell::driver::{SYSFS, reload_driver};
use crate::shell::logging::start_logging;

/// Take the driver from the uplink's device and give it back, as unplugging and plugging in would
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file that names the uplink
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the device is remembered in case it loses its interface: for root alone to write
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/run/footbridge-driver/device"
    )]
    memory: PathBuf,
}

/// Binds the driver anew. `journal_stream` is the value of `JOURNAL_STREAM`.
pub fn run(args: &Args, journal_stream: Option<&str>) -> anyhow::Result<()> {
    start_logging(
        Targets::new().with_default(LevelFilter::INFO),
        journal_stream,
    );
    let config = load_config(Some(&args.config), Overrides::default())?;
    reload_driver(Path::new(SYSFS), &config.settings.uplink, &args.memory).with_context(|| {
        Hinted::new(
            "while loading the driver anew",
            "only root may do that, and only to an interface with a device of its own",
        )
    })
}
