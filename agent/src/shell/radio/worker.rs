//! What hung firmware may hold up: done by a thread, one job after the other, so that the event loop need not wait for it.
//!
//! ```text
//!  ask --> waiting, one of a kind --> running, one at all --> done
//! ```
//!
//! More threads would be of no use: the kernel lets no two of them at one radio. Of the waiting jobs of a kind only the last is
//! of interest, so nothing piles up behind one that takes for ever.

use std::collections::VecDeque;
use std::future::pending;
use std::mem::discriminant;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tracing::debug;

use crate::addr::IfIndex;
use crate::engine::RadioEvent;
use crate::shell::ledger::Held;

/// Something to be done with the radio of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Read its state.
    Read(IfIndex),
    /// Let it doze, or not.
    SetPowerSave { index: IfIndex, on: bool },
    /// End its association; whoever made it makes it anew.
    Disconnect(IfIndex),
    /// Set the interface down, and up again.
    Restart(IfIndex),
}

impl Job {
    /// Returns the interface.
    pub(super) fn index(self) -> IfIndex {
        match self {
            Job::Read(index)
            | Job::SetPowerSave { index, on: _ }
            | Job::Disconnect(index)
            | Job::Restart(index) => index,
        }
    }

    /// Returns what of the machine's state the job sets, and to what.
    pub(super) fn sets(self) -> Option<(Held, i64)> {
        let IfIndex(index) = self.index();
        match self {
            Job::SetPowerSave { index: _, on } => Some((Held::PowerSave { index }, on.into())),
            Job::Restart(_) => Some((Held::Up { index }, 1)),
            Job::Read(_) | Job::Disconnect(_) => None,
        }
    }

    fn is_reading(self) -> bool {
        match self {
            Job::Read(_) => true,
            Job::SetPowerSave { .. } | Job::Disconnect(_) | Job::Restart(_) => false,
        }
    }
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// What was to be set is set.
    Set,
    /// There is something to tell: an answer, or a refusal.
    Told(RadioEvent),
    /// Nothing came of it.
    Failed,
}

type Perform = dyn Fn(Job) -> Outcome + Send + Sync;

/// The thread's jobs.
pub(super) struct Worker {
    perform: Arc<Perform>,
    running: Option<(Job, JoinHandle<Outcome>)>,
    waiting: VecDeque<Job>,
}

impl Worker {
    /// Starts with nothing to do; `perform` does a job.
    pub(super) fn new(perform: impl Fn(Job) -> Outcome + Send + Sync + 'static) -> Worker {
        Worker {
            perform: Arc::new(perform),
            running: None,
            waiting: VecDeque::new(),
        }
    }

    /// Has a job done after those that were asked for before.
    pub(super) fn ask(&mut self, job: Job) {
        self.waiting
            .retain(|other| discriminant(other) != discriminant(&job));
        self.waiting.push_back(job);
        self.go_on();
    }

    /// Whether a radio's state is being read, or will be.
    pub(super) fn is_reading(&self) -> bool {
        self.jobs().any(Job::is_reading)
    }

    /// Whether anything is being changed, or will be.
    pub(super) fn is_changing(&self) -> bool {
        self.jobs().any(|job| !job.is_reading())
    }

    fn jobs(&self) -> impl Iterator<Item = Job> {
        let running = self.running.iter().map(|(job, _)| *job);
        running.chain(self.waiting.iter().copied())
    }

    /// Waits until a job is done. A wait given up loses nothing.
    pub(super) async fn done(&mut self) -> (Job, Outcome) {
        let Some((job, thread)) = &mut self.running else {
            return pending().await;
        };
        let job = *job;
        let outcome = thread.await;
        self.running = None;
        self.go_on();
        let outcome = outcome.inspect_err(|error| debug!(?job, %error, "the thread ended early"));
        (job, outcome.unwrap_or(Outcome::Failed))
    }

    fn go_on(&mut self) {
        if self.running.is_none()
            && let Some(job) = self.waiting.pop_front()
        {
            let perform = Arc::clone(&self.perform);
            let thread = tokio::task::spawn_blocking(move || perform(job));
            self.running = Some((job, thread));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const WLAN0: IfIndex = IfIndex(2);

    /// A worker whose jobs end when they are released, and tell the interface's number when they do.
    fn worker() -> (Worker, Sender<()>) {
        let (release, released) = channel();
        let released: Mutex<Receiver<()>> = Mutex::new(released);
        let worker = Worker::new(move |job| {
            // Gone with the test.
            let _ = released.lock().unwrap().recv();
            let errno = job.index().0.cast_signed();
            Outcome::Told(RadioEvent::PowerSaveRefused { errno })
        });
        (worker, release)
    }

    #[tokio::test]
    async fn jobs_are_done_in_their_order_and_of_a_kind_only_the_last() {
        let (mut worker, release) = worker();
        assert!(!worker.is_changing() && !worker.is_reading());
        let doze = |on| Job::SetPowerSave { index: WLAN0, on };
        for job in [
            doze(false),
            Job::Read(WLAN0),
            doze(true),
            Job::Read(IfIndex(3)),
            Job::Restart(WLAN0),
            doze(false),
            Job::Read(WLAN0),
        ] {
            worker.ask(job);
        }
        assert!(worker.is_changing() && worker.is_reading());
        let mut done = Vec::new();
        while worker.is_changing() || worker.is_reading() {
            release.send(()).unwrap();
            done.push(worker.done().await.0);
        }
        let order = [
            doze(false),
            Job::Restart(WLAN0),
            doze(false),
            Job::Read(WLAN0),
        ];
        assert_eq!(done, order);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_job_who_does_not_want_to() {
        let (mut worker, release) = worker();
        worker.ask(Job::Read(WLAN0));
        tokio::select! {
            biased;
            done = worker.done() => panic!("{done:?}"),
            () = std::future::ready(()) => {}
        }
        // Giving the wait up lost neither the job nor its news.
        release.send(()).unwrap();
        let told = Outcome::Told(RadioEvent::PowerSaveRefused { errno: 2 });
        assert_eq!(worker.done().await, (Job::Read(WLAN0), told));
    }
}
