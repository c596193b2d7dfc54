//! `footbridge run`: the agent in the foreground.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::runtime::{self, Runtime};
use tracing::warn;
use tracing_subscriber::filter::Targets;

use crate::config::{ConfigSource, Overrides};
use crate::shell::event_loop;
use crate::shell::logging::{parse_targets, start_logging};
use crate::shell::run_dir::{DEFAULT_RUN_DIR, RunDir};
use crate::site::{Fault, load_faults};

/// Bridge two interfaces until SIGTERM or SIGINT
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The interface that is a member of the network
    #[arg(long, value_name = "NAME")]
    uplink: Option<String>,
    /// The interface whose hosts are to become members
    #[arg(long, value_name = "NAME")]
    downlink: Option<String>,
    /// A configuration file; what is given on the command line wins over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the start of the system found wrong with the card's settings, to be shown by `footbridge status`
    #[arg(long, value_name = "FILE")]
    site_faults: Option<PathBuf>,
    /// Where the lock, the status socket and the ledger of what is to be given back live
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
    /// How much to say: error, warn, info, debug, trace
    #[arg(
        long,
        value_name = "LEVEL",
        env = "FOOTBRIDGE_LOG",
        default_value = "info",
        value_parser = parse_targets
    )]
    log: Targets,
}

/// Runs the agent. `journal_stream` is the value of `JOURNAL_STREAM`.
pub fn run(args: Args, journal_stream: Option<&str>) -> anyhow::Result<()> {
    start_logging(args.log, journal_stream);
    let overrides = Overrides {
        uplink: args.uplink,
        downlink: args.downlink,
    };
    let path = args.config;
    let source = ConfigSource { path, overrides };
    // A mistake is told before anything is touched.
    source.load()?;
    let faults = args.site_faults.as_deref().map(tell_faults);
    let problems = faults.iter().flatten().map(Fault::to_problem).collect();
    let run_dir = RunDir::hold(&args.run_dir)?;
    // One thread: everything the bridge does is waiting.
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("while starting the runtime")?;
    block_on(runtime, event_loop::run(source, &run_dir, problems))
}

/// Reads what is wrong with the card's settings and logs it. A list that cannot be read keeps nobody from bridging.
fn tell_faults(path: &Path) -> Vec<Fault> {
    let faults = load_faults(path).unwrap_or_else(|error| {
        warn!(%error, path = %path.display(), "what is wrong with the card's settings cannot be read");
        Vec::new()
    });
    for fault in &faults {
        warn!("{fault}");
    }
    faults
}

/// Runs `work` to its end. A thread that hung firmware holds up is not waited for: the end of the process is the end of it.
fn block_on<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_does_not_return_is_not_waited_for() {
        let runtime = runtime::Builder::new_current_thread().build();
        let (release, held) = mpsc::channel::<()>();
        let (began, beginning) = mpsc::channel();
        let done = block_on(runtime.unwrap(), async move {
            tokio::task::spawn_blocking(move || {
                began.send(()).unwrap();
                held.recv()
            });
            beginning.recv().unwrap();
            7
        });
        assert_eq!(done, 7);
        drop(release);
    }
}
