//! The uplink's radio: notifications of the kernel and the supplicant become the engine's news, its wishes go to both.
//!
//! Nothing is polled. The kernel's notifications say when to read the state again, and when to look for a supplicant that may
//! have started; signal and rates are read when somebody asks for the status. Whatever is missing (radios in this kernel, the
//! supplicant, access to it) is quietly absent.
//!
//! Questions go to a thread of their own: hung firmware holds up whoever asks it, and that must not be the event loop.

mod generic_netlink;
mod nl80211;
mod notices;
mod supplicant;

use std::fs;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{debug, warn};

use super::netlink::Netlink;
use crate::addr::IfIndex;
use crate::engine::{RadioAction, RadioEvent, Stage};

use nl80211::Nl80211;
use notices::{Notice, Notices};
use supplicant::{Heard, Supplicant};

/// How long firmware may take to answer before the loop goes on without.
const PATIENCE: Duration = Duration::from_millis(500);
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
    watched: Option<Watched>,
    /// What was noticed and not looked into.
    noticed: Vec<Notice>,
    /// What the engine has not heard of.
    news: Vec<RadioEvent>,
}

struct Watched {
    index: IfIndex,
    name: String,
    notices: Notices,
    supplicant: Option<Supplicant>,
}

impl Radio {
    /// Starts with nothing watched.
    pub(crate) fn new(paths: Paths) -> Radio {
        Radio {
            paths,
            watched: None,
            noticed: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Waits for something to take. A wait given up loses nothing.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        if !self.news.is_empty() || !self.noticed.is_empty() {
            return Ok(());
        }
        let Some(watched) = &mut self.watched else {
            return pending().await;
        };
        tokio::select! {
            notices = watched.notices.next(watched.index) => {
                self.noticed.extend(notices?);
                Ok(())
            }
            readable = readable(watched.supplicant.as_ref()) => readable,
        }
    }

    /// Takes the news, after looking into what was noticed.
    pub(crate) async fn take(&mut self) -> Vec<RadioEvent> {
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
            self.news.extend(self.read().await);
        }
        std::mem::take(&mut self.news)
    }

    /// Reads the state of the radio; `None` if there is none, or it does not answer.
    pub(crate) async fn read(&self) -> Option<RadioEvent> {
        let index = self.watched.as_ref()?.index;
        let state = in_thread(move |nl80211| nl80211.read(index)).await;
        let state = state
            .inspect_err(|error| debug!(%error, "the radio does not answer"))
            .ok()?;
        let uptime = uptime()
            .inspect_err(|error| debug!(%error, "the uptime is unknown"))
            .ok()?;
        Some(RadioEvent::State { state, uptime })
    }

    /// Does what the engine wants of the radio. What cannot be done is left to the next stage, or to a person.
    pub(crate) async fn perform(&mut self, action: RadioAction, netlink: &Netlink) {
        match action {
            RadioAction::Watch { index, name } => self.watch(index, name).await,
            RadioAction::Unwatch => self.watched = None,
            RadioAction::SetPowerSave { index, on } => {
                let set = in_thread(move |nl80211| nl80211.set_power_save(index, on)).await;
                let refused = set.err().map(|error| RadioEvent::PowerSaveRefused {
                    errno: error.raw_os_error().unwrap_or(libc::EIO),
                });
                self.news.extend(refused);
                self.news.extend(self.read().await);
            }
            RadioAction::Recover { index, stage } => self.recover(index, stage, netlink).await,
        }
    }

    async fn watch(&mut self, index: IfIndex, name: String) {
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
        });
        match self.read().await {
            Some(RadioEvent::State { state: None, .. }) => self.watched = None,
            state => {
                self.news.extend(state);
                self.look_for_supplicant();
            }
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

    async fn recover(&mut self, index: Option<IfIndex>, stage: Stage, netlink: &Netlink) {
        let done = match (stage, index) {
            (Stage::Reassociate, Some(index)) => self.reassociate(index).await,
            (Stage::Interface, Some(index)) => {
                netlink.restart(index).await.map_err(io::Error::other)
            }
            (Stage::Reassociate | Stage::Interface, None) => Ok(()),
            (Stage::Driver, _) => fs::write(&self.paths.driver_request, ""),
            (Stage::Reboot, _) => fs::write(&self.paths.reboot_request, ""),
        };
        if let Err(error) = done {
            warn!(?stage, %error, "the radio was not recovered");
        }
    }

    async fn reassociate(&mut self, index: IfIndex) -> io::Result<()> {
        self.look_for_supplicant();
        let watched = self.watched.as_ref();
        match watched.and_then(|watched| watched.supplicant.as_ref()) {
            Some(supplicant) => supplicant.reassociate(),
            // Whoever made the association makes it anew.
            None => in_thread(move |nl80211| nl80211.disconnect(index).map(Some))
                .await
                .map(drop),
        }
    }
}

/// Has the kernel asked about radios by a thread of its own, which may take longer than anybody waits for it.
async fn in_thread<T: Send + 'static>(
    ask: impl FnOnce(&Nl80211) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let asking = tokio::task::spawn_blocking(move || {
        let nl80211 = Nl80211::open()?.ok_or(io::ErrorKind::NotFound)?;
        ask(&nl80211)
    });
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(asked) => asked.map_err(io::Error::other)?,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
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
