//! The uplink's radio: notifications of the kernel and the supplicant become the engine's news, its wishes go to both.
//!
//! Nothing is polled. The kernel's notifications say when to read the state again, and when to look for a supplicant that may
//! have started; signal and rates are read when somebody asks for the status. Whatever is missing (radios in this kernel, the
//! supplicant, access to it) is quietly absent.
//!
//! Nothing here waits for the radio: hung firmware holds up whoever asks it, so that is a thread's work (`worker`), and what comes
//! of it is told when it comes. (The kernel's lock on all interfaces is beyond that: who changes a route while a driver takes its
//! time to restart one waits for it.)

mod generic_netlink;
mod nl80211;
mod notices;
mod supplicant;
mod worker;

use std::fs;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime;
use tracing::{debug, warn};

use super::ledger::Held;
use super::netlink::Netlink;
use crate::addr::IfIndex;
use crate::engine::{RadioAction, RadioEvent, Stage};

use nl80211::Nl80211;
use notices::{Notice, Notices};
use supplicant::{Heard, Supplicant};
use worker::{Job, Outcome, Worker};

/// Notifications or messages taken from one source in a turn.
const BATCH: usize = 64;

/// The files at which the radio's helpers meet.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// Where the supplicant sends its events.
    pub(crate) supplicant_client: PathBuf,
    /// What tells the service manager to bind the driver anew.
    pub(crate) driver_request: PathBuf,
    /// What tells the service manager to reboot.
    pub(crate) reboot_request: PathBuf,
}

/// The radio of the interface that is watched, if it has one.
pub(crate) struct Radio {
    paths: Paths,
    worker: Worker,
    watched: Option<Watched>,
    /// What was noticed and not looked into.
    noticed: Vec<Notice>,
    /// What the engine has not heard of.
    news: Vec<RadioEvent>,
    /// What was set, and to what, and nobody has noted.
    set: Vec<(Held, i64)>,
    /// Whether a radio may doze, as was read or set last.
    dozing: Option<(IfIndex, bool)>,
}

struct Watched {
    index: IfIndex,
    name: String,
    notices: Notices,
    supplicant: Option<Supplicant>,
    /// Whether it is known to be a radio.
    recognised: bool,
}

impl Radio {
    /// Starts with nothing watched.
    pub(crate) fn new(paths: Paths) -> Radio {
        Radio {
            paths,
            worker: Worker::new(perform),
            watched: None,
            noticed: Vec::new(),
            news: Vec::new(),
            set: Vec::new(),
            dozing: None,
        }
    }

    /// Waits for something to take. A wait given up loses nothing.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        if !self.news.is_empty() || !self.noticed.is_empty() {
            return Ok(());
        }
        let done = tokio::select! {
            done = self.worker.done() => done,
            noticed = noticed(self.watched.as_mut()) => {
                self.noticed.extend(noticed?);
                return Ok(());
            }
        };
        self.take_done(done);
        Ok(())
    }

    /// Takes the news, and has looked into what was noticed.
    pub(crate) fn take(&mut self) -> Vec<RadioEvent> {
        self.take_supplicant();
        if let Some(watched) = &mut self.watched {
            for _ in 0..BATCH {
                match watched.notices.next_waiting(watched.index) {
                    Some(Ok(notices)) => self.noticed.extend(notices),
                    Some(Err(_)) | None => break,
                }
            }
        }
        let noticed = std::mem::take(&mut self.noticed);
        if !noticed.is_empty() {
            self.look_for_supplicant();
        }
        if noticed.contains(&Notice::Changed) {
            self.read();
        }
        std::mem::take(&mut self.news)
    }

    /// Returns whether an interface's radio may doze, as far as anybody knows.
    pub(crate) fn may_doze(&self, index: IfIndex) -> Option<bool> {
        self.dozing
            .filter(|(of, _)| *of == index)
            .map(|(_, dozing)| dozing)
    }

    /// Takes what has been set of the machine's state, and to what.
    pub(crate) fn take_set(&mut self) -> Vec<(Held, i64)> {
        std::mem::take(&mut self.set)
    }

    /// Has the state of the radio read, if there is one; it is told as any news is.
    pub(crate) fn read(&mut self) {
        if let Some(watched) = &self.watched {
            self.worker.ask(Job::Read(watched.index));
        }
    }

    /// Whether the state of a radio is being read.
    pub(crate) fn is_reading(&self) -> bool {
        self.worker.is_reading()
    }

    /// Waits until everything that was to be changed is.
    pub(crate) async fn settle(&mut self) {
        while self.worker.is_changing() {
            let done = self.worker.done().await;
            self.take_done(done);
        }
    }

    /// Begins what the engine wants of the radio. What cannot be done is left to the next stage, or to a person.
    pub(crate) fn perform(&mut self, action: RadioAction) {
        match action {
            RadioAction::Watch { index, name } => self.watch(index, name),
            RadioAction::Unwatch => self.watched = None,
            RadioAction::SetPowerSave { index, on } => {
                self.worker.ask(Job::SetPowerSave { index, on });
                self.read();
            }
            RadioAction::Recover { index, stage } => self.recover(index, stage),
        }
    }

    fn watch(&mut self, index: IfIndex, name: String) {
        self.watched = None;
        self.noticed.clear();
        let notices = match Notices::subscribe() {
            Ok(Some(notices)) => notices,
            Ok(None) => return,
            Err(error) => {
                warn!(%error, "the kernel does not tell about radios");
                return;
            }
        };
        self.watched = Some(Watched {
            index,
            name,
            notices,
            supplicant: None,
            recognised: false,
        });
        self.read();
    }

    fn note(&mut self, job: Job) {
        self.set.extend(job.sets());
        if let Job::SetPowerSave { index, on } = job {
            self.dozing = Some((index, on));
        }
    }

    fn take_done(&mut self, (job, outcome): (Job, Outcome)) {
        let news = match outcome {
            Outcome::Set => {
                self.note(job);
                None
            }
            Outcome::Told(news) => Some(news),
            Outcome::Failed => None,
        };
        let Some(watched) = &mut self.watched else {
            return;
        };
        // What became of another interface is nobody's concern any more.
        if job.index() != watched.index {
            return;
        }
        if let Some(RadioEvent::State {
            state: Some(state), ..
        }) = &news
        {
            self.dozing = state.power_save.map(|dozing| (watched.index, dozing));
        }
        let is_none = matches!(news, Some(RadioEvent::State { state: None, .. }));
        if is_none && !watched.recognised {
            self.watched = None;
            return;
        }
        self.news.extend(news);
        if !std::mem::replace(&mut watched.recognised, true) {
            self.look_for_supplicant();
        }
    }

    /// Sees whether the supplicant is still there, and looks for one if not.
    fn look_for_supplicant(&mut self) {
        let Some(watched) = &mut self.watched else {
            return;
        };
        let had = watched.supplicant.take();
        let attached = had.is_some();
        watched.supplicant = had
            .filter(|supplicant| supplicant.ping().is_ok())
            .or_else(|| {
                let path = Path::new(supplicant::DIRECTORY).join(&watched.name);
                Supplicant::attach(&path, &self.paths.supplicant_client)
                    .inspect_err(|error| debug!(%error, "no supplicant"))
                    .ok()
            });
        if attached != watched.supplicant.is_some() {
            self.news.push(RadioEvent::Attached(!attached));
        }
    }

    fn take_supplicant(&mut self) {
        let Some(watched) = &mut self.watched else {
            return;
        };
        for _ in 0..BATCH {
            let Some(supplicant) = &watched.supplicant else {
                break;
            };
            match supplicant.receive() {
                Ok(Heard::Event(event)) => self.news.push(RadioEvent::Supplicant(event)),
                Ok(Heard::Other) => {}
                Ok(Heard::Nothing) => break,
                Ok(Heard::Ending) | Err(_) => {
                    watched.supplicant = None;
                    self.news.push(RadioEvent::Attached(false));
                }
            }
        }
    }

    fn recover(&mut self, index: Option<IfIndex>, stage: Stage) {
        let done = match (stage, index) {
            (Stage::Reassociate, Some(index)) => self.reassociate(index),
            (Stage::Interface, Some(index)) => {
                self.worker.ask(Job::Restart(index));
                Ok(())
            }
            (Stage::Reassociate | Stage::Interface, None) => Ok(()),
            (Stage::Driver, _) => fs::write(&self.paths.driver_request, ""),
            (Stage::Reboot, _) => fs::write(&self.paths.reboot_request, ""),
        };
        if let Err(error) = done {
            warn!(?stage, %error, "the radio was not recovered");
        }
    }

    fn reassociate(&mut self, index: IfIndex) -> io::Result<()> {
        self.look_for_supplicant();
        let watched = self.watched.as_ref();
        match watched.and_then(|watched| watched.supplicant.as_ref()) {
            Some(supplicant) => supplicant.reassociate(),
            None => {
                self.worker.ask(Job::Disconnect(index));
                Ok(())
            }
        }
    }
}

/// Does a job, in the thread that it is called in, for as long as it takes.
fn perform(job: Job) -> Outcome {
    match job {
        Job::Read(index) => match read(index) {
            Ok(state) => Outcome::Told(state),
            Err(error) => {
                debug!(%error, "the radio does not answer");
                Outcome::Failed
            }
        },
        Job::SetPowerSave { index, on } => match ask(|nl80211| nl80211.set_power_save(index, on)) {
            Ok(()) => Outcome::Set,
            Err(error) => Outcome::Told(RadioEvent::PowerSaveRefused {
                errno: error.raw_os_error().unwrap_or(libc::EIO),
            }),
        },
        Job::Disconnect(index) => {
            let ended = ask(|nl80211| nl80211.disconnect(index));
            outcome_of_stage(Stage::Reassociate, ended)
        }
        Job::Restart(index) => outcome_of_stage(Stage::Interface, restart(index)),
    }
}

fn outcome_of_stage(stage: Stage, done: io::Result<()>) -> Outcome {
    match done {
        Ok(()) => Outcome::Set,
        Err(error) => {
            warn!(?stage, %error, "the radio was not recovered");
            Outcome::Failed
        }
    }
}

fn read(index: IfIndex) -> io::Result<RadioEvent> {
    Ok(RadioEvent::State {
        state: ask(|nl80211| nl80211.read(index))?,
        uptime: uptime()?,
    })
}

fn ask<T>(question: impl FnOnce(&Nl80211) -> io::Result<T>) -> io::Result<T> {
    let nl80211 = Nl80211::open()?.ok_or(io::ErrorKind::NotFound)?;
    question(&nl80211)
}

/// Sets an interface down and up, in a conversation of this thread's own: the driver does its part while the request is sent.
fn restart(index: IfIndex) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let restarted = Netlink::open()?.restart(index).await;
        restarted.map_err(io::Error::other)
    })
}

/// Waits for something to notice, or to receive, on the radio that is watched.
async fn noticed(watched: Option<&mut Watched>) -> io::Result<Vec<Notice>> {
    let Some(watched) = watched else {
        return pending().await;
    };
    tokio::select! {
        notices = watched.notices.next(watched.index) => notices,
        readable = readable(watched.supplicant.as_ref()) => readable.map(|()| Vec::new()),
    }
}

async fn readable(supplicant: Option<&Supplicant>) -> io::Result<()> {
    match supplicant {
        Some(supplicant) => supplicant.readable().await,
        None => pending().await,
    }
}

fn uptime() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split('.').next().and_then(|whole| whole.parse().ok());
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Decodes bytes as whatever they may come as: a notification, attributes, a supplicant's line.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decode_anything(bytes: &[u8]) {
    notices::decode(bytes, IfIndex(2));
    nl80211::decode_anything(bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        supplicant::parse(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_set_is_noted_and_what_was_refused_is_not() {
        let paths = Paths {
            supplicant_client: PathBuf::new(),
            driver_request: PathBuf::new(),
            reboot_request: PathBuf::new(),
        };
        let mut radio = Radio::new(paths);
        radio.worker = Worker::new(|job| match job {
            Job::SetPowerSave { on: true, .. } => {
                Outcome::Told(RadioEvent::PowerSaveRefused { errno: 95 })
            }
            Job::SetPowerSave { on: false, .. } | Job::Restart(_) => Outcome::Set,
            Job::Read(_) | Job::Disconnect(_) => Outcome::Failed,
        });
        let index = IfIndex(2);
        for action in [
            RadioAction::SetPowerSave { index, on: false },
            RadioAction::Recover {
                index: Some(index),
                stage: Stage::Interface,
            },
        ] {
            radio.perform(action);
        }
        radio.settle().await;
        let (dozing, up) = (Held::PowerSave { index: 2 }, Held::Up { index: 2 });
        assert_eq!(radio.take_set(), [(dozing, 0), (up, 1)]);
        radio.perform(RadioAction::SetPowerSave { index, on: true });
        radio.settle().await;
        assert_eq!(radio.take_set(), []);
        assert_eq!(radio.may_doze(index), Some(false));
    }
}
