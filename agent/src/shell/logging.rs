//! Logs on stderr: for a person with times and colours, for the journal with priorities, because it knows the time itself.

use std::fmt;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;

use thiserror::Error;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Why text does not say how much to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("use one of trace, debug, info, warn, error, off")]
pub struct NotALevel;

/// Starts logging what `targets` let through. `journal_stream` is the value of `JOURNAL_STREAM`.
pub fn start_logging(targets: Targets, journal_stream: Option<&str>) {
    let targets = targets
        // These two speak of every attribute they do not know, and of every message at their lower levels.
        .with_target("netlink_packet_route", LevelFilter::ERROR)
        .with_target("netlink_proto", LevelFilter::ERROR);
    let registry = tracing_subscriber::registry().with(targets);
    if journal_stream.is_some_and(stderr_is_journal) {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .event_format(JournalFormat);
        registry.with(lines).init();
    } else {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false);
        registry.with(lines).init();
    }
}

/// Parses how much to say: `trace`, `debug`, `info`, `warn`, `error` or `off`, or a list such as `info,footbridge_agent=debug`.
pub fn parse_targets(level: &str) -> Result<Targets, NotALevel> {
    // On its own `Targets` takes a misspelt level for the name of a module.
    let parsed = if level.contains('=') {
        level.parse().ok()
    } else {
        level
            .parse::<LevelFilter>()
            .ok()
            .map(|level| Targets::new().with_default(level))
    };
    parsed.ok_or(NotALevel)
}

/// `JOURNAL_STREAM` is inherited by children whose stderr was redirected, so it only counts if it names the stderr at hand.
fn stderr_is_journal(journal_stream: &str) -> bool {
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| journal_stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// `<priority>message key=value`, the form the journal reads from a service's stderr (sd-daemon(3)).
struct JournalFormat;

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
