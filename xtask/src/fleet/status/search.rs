//! The search: whoever is found is asked once, some at a time, until all who are wanted have answered or the time is over.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::ask::{Answer, STATUS_PORT, ask, plain};
use super::browse::Browser;
use super::wanted::Wanted;

/// Devices that are asked at a time.
const WORKERS: usize = 256;

/// Most that are asked at all: whoever answers on the network may say that there are any number of devices.
const ASKED_MAX: usize = 20_000;

/// Most hosts that are looked for by their names, after a while.
const LOOKED_FOR_MAX: usize = 64;

/// Most notes about those who were found and are no devices.
const NOTES_MAX: usize = 20;

/// What happens in a search.
pub enum Event {
    /// Somebody may be there, found by a name or without one.
    Found(SocketAddrV4, Option<String>),
    /// Somebody was asked.
    Asked(SocketAddrV4, Result<Box<Answer>, String>),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Found {
    /// Answers in the order that they came in.
    pub answers: Vec<Answer>,
    /// Why some who were found gave none.
    pub notes: Vec<String>,
    /// Why multicast DNS was of no use.
    pub no_mdns: Option<String>,
}

/// Looks for devices: for those that are wanted, or for all if none is.
pub fn search(wanted: &[Wanted], patience: Duration) -> Found {
    let deadline = Instant::now() + patience;
    let (events, happened) = channel();
    let mut search = Search {
        missing: wanted.iter().collect(),
        endless: wanted.is_empty(),
        found: Found::default(),
        asked: BTreeMap::new(),
        jobs: start_workers(&events, deadline),
    };
    let by_address = !wanted.is_empty() && wanted.iter().all(|wanted| wanted.hostname.is_none());
    let mut browser = None;
    if !by_address {
        match Browser::start(&events) {
            Ok(started) => browser = Some(started),
            Err(error) => {
                let note = format!("multicast DNS cannot be used here: {error}");
                search.found.notes.push(note.clone());
                search.found.no_mdns = Some(note);
            }
        }
    }
    for wanted in wanted {
        match (wanted.address, &wanted.hostname) {
            (Some(address), _) => search.ask(address, None),
            (None, Some(name)) if name.contains('.') => resolve(name.clone(), &events),
            (None, _) => {}
        }
    }
    let half_time = deadline - patience / 2;
    search.listen(&happened, half_time);
    if let Some(browser) = &browser {
        for name in search.missing_names() {
            browser.look_for(&name, patience / 2, &events);
        }
    }
    search.listen(&happened, deadline);
    search.found
}

struct Search<'a> {
    /// Those who are wanted and have not answered.
    missing: Vec<&'a Wanted>,
    /// Whether there may always be one more.
    endless: bool,
    found: Found,
    /// Who was asked, and the name that led there, where one did.
    asked: BTreeMap<SocketAddrV4, Option<String>>,
    jobs: Sender<SocketAddrV4>,
}

impl Search<'_> {
    /// Takes what happens, until a moment or until there is nothing left to wait for.
    fn listen(&mut self, happened: &Receiver<Event>, until: Instant) {
        while self.endless || !self.missing.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match happened.recv_timeout(left) {
                Ok(Event::Found(address, name)) => self.ask(address, name),
                Ok(Event::Asked(address, Ok(mut answer))) => {
                    answer.answers_as = self.asked.get(&address).cloned().flatten();
                    self.missing.retain(|wanted| !wanted.is_surely(&answer));
                    self.found.answers.push(*answer);
                }
                Ok(Event::Asked(address, Err(why))) => self.note(address, &why),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Asks who has not been asked. A name that turns up later is theirs all the same.
    fn ask(&mut self, address: SocketAddrV4, name: Option<String>) {
        if let Some(known) = self.asked.get_mut(&address) {
            let Some(name) = name else { return };
            *known = Some(name.clone());
            let mut answers = self.found.answers.iter_mut();
            if let Some(answer) = answers.find(|answer| answer.from == address) {
                answer.answers_as = Some(name);
                self.missing.retain(|wanted| !wanted.is_surely(answer));
            }
        } else if self.asked.len() < ASKED_MAX {
            self.asked.insert(address, name);
            // The workers are there as long as this is.
            let _ = self.jobs.send(address);
        }
    }

    fn note(&mut self, address: SocketAddrV4, why: &str) {
        if self.found.notes.len() < NOTES_MAX {
            self.found.notes.push(format!("{address}: {}", plain(why)));
        }
    }

    fn missing_names(&self) -> Vec<String> {
        let names = self.missing.iter();
        let names = names.filter_map(|wanted| wanted.hostname.clone());
        let names = names.filter(|name| !name.contains('.'));
        names.take(LOOKED_FOR_MAX).collect()
    }
}

/// Starts those who ask; they end with the sender of their jobs.
fn start_workers(events: &Sender<Event>, deadline: Instant) -> Sender<SocketAddrV4> {
    let (jobs, waiting) = channel::<SocketAddrV4>();
    let waiting = Arc::new(Mutex::new(waiting));
    for _ in 0..WORKERS {
        let (waiting, events) = (Arc::clone(&waiting), events.clone());
        thread::spawn(move || {
            loop {
                let next = waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .recv();
                let Ok(address) = next else {
                    return;
                };
                if events
                    .send(Event::Asked(address, ask(address, deadline).map(Box::new)))
                    .is_err()
                {
                    return;
                }
            }
        });
    }
    jobs
}

/// Looks a name up as this machine looks up any; it may take as long as it likes, as nobody waits for it alone.
fn resolve(name: String, events: &Sender<Event>) {
    let events = events.clone();
    thread::spawn(move || {
        let found = (name.as_str(), STATUS_PORT).to_socket_addrs();
        for address in found.into_iter().flatten() {
            if let SocketAddr::V4(address) = address
                && events
                    .send(Event::Found(address, Some(name.clone())))
                    .is_err()
            {
                return;
            }
        }
    });
}
