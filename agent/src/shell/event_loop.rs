//! The one loop that joins the engine to the world.
//!
//! ```text
//!  netlink notifications --+                                   +--> netlink requests (awaited)
//!  wired packet socket ----+                                   +--> sysctls, with their ledger
//!  uplink packet socket ---+--> Input --> engine --> Action ---+--> frames out of either side
//!  deadline ---------------+    (now)                          +--> packet sockets opened and closed
//!  SIGTERM, SIGINT --------+                                   +--> log, service manager
//!  status clients ---------+--> report --> one JSON document each
//!  watchdog period --------+--> sign of life
//! ```
//!
//! A turn waits for one of these, reads the clock once, feeds the engine, and performs what comes back in the order it came: a
//! frame that follows a route in the list leaves after the kernel acknowledged the route. What a turn takes from one source is
//! bounded and the sources are polled in random order, so a flood on one starves no other.

use std::fs::File;
use std::future::pending;
use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{debug, error, info, trace, warn};

use super::netlink::{Netlink, Notifications, Notified};
use super::packet_socket::{FRAME_LIMIT, PacketSocket, Received};
use super::port67::{Holding, Port67, hold_port67};
use super::run_dir::RunDir;
use super::service;
use super::status::StatusServer;
use super::sysctl::Sysctls;
use super::world::World;
use crate::addr::Side;
use crate::config::Config;
use crate::engine::{Action, Engine, Input};
use crate::hint::Hinted;

/// Frames or netlink datagrams taken from one source in a turn.
const BATCH: usize = 64;
/// How long everything may take to be given back.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How often port 67 is tried again while another program has it.
const PORT67_RETRY: Duration = Duration::from_secs(5);

/// Runs the bridge until SIGTERM or SIGINT, then gives everything back.
pub async fn run(config: Config, run_dir: &RunDir) -> anyhow::Result<()> {
    let mut stop = StopSignals::install().context("while installing signal handlers")?;
    let mut event_loop = EventLoop::start(config, run_dir)?;
    let served = event_loop.serve(&mut stop).await;
    if let Err(error) = &served {
        // The reason goes out before the tear-down, which may have troubles of its own.
        error!("stopping: {error:#}");
    }
    let given_back = event_loop.give_back(&mut stop).await;
    served.and(given_back)
}

struct EventLoop {
    engine: Engine,
    world: World,
    notifications: Notifications,
    status: StatusServer,
    port67: Option<Port67>,
    port67_retry: Option<Instant>,
    watchdog: Option<Interval>,
    /// Filled by the engine, emptied by `perform`; kept for its capacity.
    actions: Vec<Action>,
    frame: Box<[u8; FRAME_LIMIT]>,
}

/// What ended a wait.
enum Wake {
    Netlink(Notified),
    Frames(Side),
    Client(io::Result<UnixStream>),
    Deadline,
    Watchdog,
    StopAsked,
}

impl EventLoop {
    fn start(config: Config, run_dir: &RunDir) -> anyhow::Result<EventLoop> {
        info!(
            uplink = config.settings.uplink,
            downlink = config.settings.downlink,
            "starting"
        );
        let notifications =
            Notifications::subscribe().context("while subscribing to netlink notifications")?;
        let netlink = Netlink::open().context("while opening a netlink socket")?;
        let ledger = run_dir.sysctl_ledger();
        let sysctls = Sysctls::load(&ledger)
            .with_context(|| format!("while reading {}", ledger.display()))?;
        let socket = run_dir.status_socket();
        let status = StatusServer::listen(&socket)
            .with_context(|| format!("while listening on {}", socket.display()))?;
        Ok(EventLoop {
            engine: Engine::new(config.settings, random_seed()?, Instant::now()),
            world: World::new(netlink, sysctls),
            notifications,
            status,
            port67: None,
            port67_retry: None,
            watchdog: service::watchdog_period().map(watchdog_interval),
            actions: Vec::new(),
            frame: Box::new([0; FRAME_LIMIT]),
        })
    }

    /// Takes the kernel's state, says that it is ready, and turns until the end is asked for.
    async fn serve(&mut self, stop: &mut StopSignals) -> anyhow::Result<()> {
        let now = Instant::now();
        self.try_port67(now).await?;
        self.take_dump(now).await?;
        service::tell_ready();
        while !self.turn(stop).await? {}
        Ok(())
    }

    /// Has the engine give everything back, and then what an earlier process left; a second signal cuts the engine short.
    async fn give_back(&mut self, stop: &mut StopSignals) -> anyhow::Result<()> {
        service::tell_stopping();
        let emptied = match tokio::time::timeout(STOP_PATIENCE, self.empty(stop)).await {
            Ok(emptied) => emptied,
            Err(_) => Err(anyhow::anyhow!(
                "not everything was given back within {STOP_PATIENCE:?}"
            )),
        };
        let released = self.world.release_sysctls().await;
        info!("stopped");
        emptied.and(released)
    }

    async fn empty(&mut self, stop: &mut StopSignals) -> anyhow::Result<()> {
        self.tell(Input::Stop, Instant::now()).await?;
        while !self.world.is_finished() {
            if self.turn(stop).await? {
                anyhow::bail!("told to stop twice, so not everything was given back");
            }
        }
        Ok(())
    }

    /// Waits for something to happen and deals with it. Returns whether the end was asked for.
    async fn turn(&mut self, stop: &mut StopSignals) -> anyhow::Result<bool> {
        let wake = self.wait(stop).await.context("while waiting")?;
        let now = Instant::now();
        for (change, errno) in self.world.take_refusals() {
            self.tell(Input::Refused { change, errno }, now).await?;
        }
        match wake {
            Wake::Netlink(first) => self.take_notifications(first, now).await?,
            Wake::Frames(side) => self.take_frames(side, now).await?,
            Wake::Client(client) => self.answer(client, now)?,
            Wake::Deadline => self.take_deadlines(now).await?,
            Wake::Watchdog => service::tell_alive(),
            Wake::StopAsked => return Ok(true),
        }
        Ok(false)
    }

    async fn wait(&mut self, stop: &mut StopSignals) -> io::Result<Wake> {
        let deadline = self.next_deadline();
        let refused = self.world.has_refusals();
        tokio::select! {
            notified = self.notifications.next() => notified.map(Wake::Netlink),
            ready = frames_waiting(self.world.port(Side::Wired)) => ready.map(|()| Wake::Frames(Side::Wired)),
            ready = frames_waiting(self.world.port(Side::Uplink)) => ready.map(|()| Wake::Frames(Side::Uplink)),
            client = self.status.accept() => Ok(Wake::Client(client)),
            // A refusal is told in the next turn, so that a kernel that always refuses starves nobody either.
            () = std::future::ready(()), if refused => Ok(Wake::Deadline),
            () = passed(deadline) => Ok(Wake::Deadline),
            () = ticked(self.watchdog.as_mut()) => Ok(Wake::Watchdog),
            () = stop.received() => Ok(Wake::StopAsked),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [self.engine.next_deadline(), self.port67_retry];
        deadlines.into_iter().flatten().min()
    }

    async fn take_deadlines(&mut self, now: Instant) -> anyhow::Result<()> {
        if self
            .engine
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.tell(Input::Tick, now).await?;
        }
        if self.port67_retry.is_some_and(|retry| retry <= now) {
            self.try_port67(now).await?;
        }
        Ok(())
    }

    async fn take_dump(&mut self, now: Instant) -> anyhow::Result<()> {
        let state = self.world.netlink().dump().await;
        let state = state.context("while reading the kernel's state")?;
        self.tell(Input::KernelDump(state), now).await
    }

    async fn take_notifications(&mut self, first: Notified, now: Instant) -> anyhow::Result<()> {
        self.take_notified(first, now).await?;
        for _ in 1..BATCH {
            let Some(next) = self.notifications.next_waiting() else {
                break;
            };
            let next = next.context("while receiving netlink notifications")?;
            self.take_notified(next, now).await?;
        }
        Ok(())
    }

    async fn take_notified(&mut self, notified: Notified, now: Instant) -> anyhow::Result<()> {
        match notified {
            Notified::Events(events) => {
                for event in events {
                    debug!(?event, "kernel");
                    self.tell(Input::Kernel(event), now).await?;
                }
                Ok(())
            }
            Notified::Overrun => {
                warn!("netlink notifications were lost; reading the whole state");
                self.take_dump(now).await
            }
        }
    }

    async fn take_frames(&mut self, side: Side, now: Instant) -> anyhow::Result<()> {
        for _ in 0..BATCH {
            // A frame may have made the engine close the socket.
            let Some(port) = self.world.port(side) else {
                break;
            };
            let received = port.receive(&mut self.frame);
            match received.with_context(|| format!("while receiving on the {side} side"))? {
                Received::Frame(length) => {
                    let bytes = &self.frame[..length];
                    trace!(%side, length, "frame received");
                    self.engine
                        .handle(Input::Frame { side, bytes }, now, &mut self.actions);
                    self.perform().await?;
                }
                Received::Oversized => debug!(%side, "frame too long"),
                Received::LinkGone => debug!(%side, "the interface went down or away"),
                Received::Nothing => break,
            }
        }
        Ok(())
    }

    fn answer(&mut self, client: io::Result<UnixStream>, now: Instant) -> anyhow::Result<()> {
        match client {
            Ok(client) => {
                let report = self.engine.report(now);
                let document = serde_json::to_vec(&report).context("while rendering the status")?;
                self.status.answer(client, document);
            }
            Err(error) => debug!(%error, "a status client went away"),
        }
        Ok(())
    }

    async fn try_port67(&mut self, now: Instant) -> anyhow::Result<()> {
        match hold_port67().context(Hinted::new(
            "while opening UDP port 67",
            "the agent needs CAP_NET_BIND_SERVICE: start it through its service, or as root",
        ))? {
            Holding::Held(port67) => {
                self.port67 = Some(port67);
                self.port67_retry = None;
                self.tell(Input::Port67Held, now).await?;
            }
            Holding::Taken => {
                self.port67_retry = Some(now + PORT67_RETRY);
                self.tell(Input::Port67Taken, now).await?;
            }
        }
        Ok(())
    }

    async fn tell(&mut self, input: Input<'_>, now: Instant) -> anyhow::Result<()> {
        self.engine.handle(input, now, &mut self.actions);
        self.perform().await
    }

    async fn perform(&mut self) -> anyhow::Result<()> {
        for action in self.actions.drain(..) {
            self.world.perform(action).await?;
        }
        Ok(())
    }
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn install() -> io::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn frames_waiting(port: Option<&PacketSocket>) -> io::Result<()> {
    match port {
        Some(port) => port.readable().await.map(drop),
        None => pending().await,
    }
}

/// The engine's next deadline, which is the condition itself.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

async fn ticked(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => pending().await,
    }
}

fn watchdog_interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Reads the engine's seed: it has no randomness of its own.
fn random_seed() -> anyhow::Result<u64> {
    let mut seed = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .context("while reading /dev/urandom")?;
    Ok(u64::from_ne_bytes(seed))
}
