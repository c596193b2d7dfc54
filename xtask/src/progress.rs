//! Progress bars on stderr, and the library's warnings between them; plain lines where stderr is no terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use imagegen::make::fetch::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::Level;

use crate::usage::without_controls;

/// The bars that are drawn now, which a warning is not to be written into.
static DRAWN: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// The bars of one command.
pub struct Bars {
    all: MultiProgress,
    terminal: bool,
    /// What the library said it began and has not ended.
    fetching: Mutex<Option<Step>>,
}

/// A step under way; its bar goes with it.
pub struct Step {
    bar: ProgressBar,
}

/// A warning of the library's, on its way to stderr.
struct Warning;

/// Has the library's warnings look as this program's own.
pub fn show_warnings() {
    tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_ansi(false)
        .with_level(false)
        .with_target(false)
        .without_time()
        .with_writer(|| Warning)
        .init();
}

/// A whole one comes at once.
impl Write for Warning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = without_controls(&String::from_utf8_lossy(bytes));
        let say = || say!("warning: {}", text.trim());
        let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match drawn {
            Some(bars) => bars.suspend(say),
            None => say(),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Bars {
    /// Starts with none.
    pub fn new() -> Self {
        let all = MultiProgress::new();
        *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(all.clone());
        Bars {
            all,
            terminal: io::stderr().is_terminal(),
            fetching: Mutex::new(None),
        }
    }

    /// Shows a step whose length is not known.
    pub fn step(&self, what: &str) -> Step {
        self.say(what);
        let bar = self
            .all
            .add(ProgressBar::new_spinner().with_message(what.to_string()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Step { bar }
    }

    /// Bars are drawn on terminals only; elsewhere a line says what begins.
    fn say(&self, what: &str) {
        if !self.terminal {
            say!("{what}");
        }
    }

    fn replace(&self, step: Option<Step>) {
        *self.fetching.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// Shows a step of a known number of bytes.
    fn bytes(&self, what: &str, total: u64) -> Step {
        let style = ProgressStyle::with_template(
            "{msg:40!} [{bar:30}] {bytes:>10}/{total_bytes} {bytes_per_sec}",
        )
        .expect("the template is a constant with known keys");
        self.say(what);
        let bar = self.all.add(
            ProgressBar::new(total)
                .with_style(style)
                .with_message(what.to_string()),
        );
        Step { bar }
    }
}

impl Progress for Bars {
    fn started(&self, what: &str, total: Option<u64>) {
        let step = match total {
            Some(total) => self.bytes(what, total),
            None => self.step(what),
        };
        self.replace(Some(step));
    }

    fn advanced(&self, bytes: u64) {
        let fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(step) = fetching.as_ref() {
            step.bar.inc(bytes);
        }
    }

    fn finished(&self) {
        self.replace(None);
    }

    fn noted(&self, what: &str) {
        self.all.suspend(|| say!("{what}"));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
