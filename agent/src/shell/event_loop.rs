//! The one loop that joins the engine to the world.
//!
//! ```text
//!  netlink notifications --+                                   +--> netlink requests (awaited)
//!  wired packet socket ----+                                   +--> sysctls, after the ledger
//!  uplink packet socket ---+--> Input --> engine --> Action ---+--> frames out of either side
//!  glimpses of traffic ----+
//!  radio, supplicant ------+                                   +--> the radio, its supplicant
//!  deadline ---------------+    (now)                          +--> packet sockets opened and closed
//!  signals, configuration -+                                   +--> log, service manager
//!  status clients ---------+--> report --> one JSON document each
//!  neighbours, if wanted --+--> fleet report --> one each
//!  watchdog period --------+--> sign of life
//! ```
//!
//! A turn waits for one of these, reads the clock once, feeds the engine, and performs what comes back in the order it came: a
//! frame that follows a route in the list leaves after the kernel acknowledged the route. What a turn takes from one source is
//! bounded and the sources are polled in random order, so a flood on one starves no other.

use std::fs::File;
use std::future::pending;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{debug, error, info, trace, warn};

use super::clients::Clients;
use super::device;
use super::fleet_socket::FleetSocket;
use super::ledger::Ledger;
use super::netlink::{Netlink, Notifications, Notified};
use super::packet_socket::{FRAME_LIMIT, PacketSocket, Received};
use super::port67::{Holding, Port67, hold_port67};
use super::radio::{self, Radio};
use super::run_dir::RunDir;
use super::service;
use super::signals::{Asked, Signals};
use super::start_pages;
use super::status::StatusServer;
use super::world::World;
use crate::addr::Side;
use crate::config::{Config, ConfigSource};
use crate::engine::{
    Action, Change, Engine, Input, KernelEvent, Problem, RANDOM_BYTES, is_done_already,
};
use crate::hint::{self, Hinted};

/// Frames or netlink datagrams taken from one source in a turn.
const BATCH: usize = 64;
/// How long everything may take to be given back.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How often port 67 is tried again while another program has it.
const PORT67_RETRY: Duration = Duration::from_secs(5);

/// How long no status client is accepted after one could not be.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// Runs the bridge until SIGTERM or SIGINT, then gives everything back. `problems` are shown for as long as it runs.
pub async fn run(
    source: ConfigSource,
    run_dir: &RunDir,
    problems: Vec<Problem>,
) -> anyhow::Result<()> {
    let mut signals = Signals::install().context("while installing signal handlers")?;
    let mut event_loop = EventLoop::start(source, run_dir, problems)?;
    let served = event_loop.serve(&mut signals).await;
    if let Err(error) = &served {
        // The reason goes out before the tear-down, which may have troubles of its own.
        error!("stopping: {error:#}");
    }
    let given_back = event_loop.give_back().await;
    served.and(given_back)
}

struct EventLoop {
    source: ConfigSource,
    /// What was wrong before the start.
    problems: Vec<Problem>,
    engine: Engine,
    world: World,
    notifications: Notifications,
    status: StatusServer,
    status_clients: Clients<UnixStream>,
    /// Those who ask on the uplink.
    fleet_clients: Clients<TcpStream>,
    /// Until when no status client is accepted, and none on the uplink: neighbours do not keep the owner from asking.
    status_pause: Option<Instant>,
    fleet_pause: Option<Instant>,
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
    FleetClient(io::Result<(TcpStream, Ipv4Addr)>),
    Traffic,
    Radio,
    Deadline,
    Watchdog,
    Asked(Asked),
}

impl EventLoop {
    fn start(
        source: ConfigSource,
        run_dir: &RunDir,
        problems: Vec<Problem>,
    ) -> anyhow::Result<EventLoop> {
        let config = load(&source)?;
        info!(
            uplink = config.settings.uplink,
            downlink = config.settings.downlink,
            "starting"
        );
        let notifications =
            Notifications::subscribe().context("while subscribing to netlink notifications")?;
        let netlink = Netlink::open().context("while opening a netlink socket")?;
        let ledger = run_dir.ledger();
        let ledger = Ledger::load(&ledger).with_context(|| {
            Hinted::new(
                format!("while reading {}", ledger.display()),
                "remove it if it is not the agent's, or give another --run-dir DIR",
            )
        })?;
        let socket = run_dir.status_socket();
        let status = StatusServer::listen(&socket).with_context(|| {
            Hinted::new(
                format!("while listening on {}", socket.display()),
                "remove what is there if it is not the agent's, or give another --run-dir DIR",
            )
        })?;
        Ok(EventLoop {
            source,
            problems,
            engine: Engine::new(config.settings, random_bytes()?),
            world: World::new(netlink, ledger, Radio::new(radio_paths(run_dir))),
            notifications,
            status,
            status_clients: Clients::default(),
            fleet_clients: Clients::default(),
            status_pause: None,
            fleet_pause: None,
            port67: None,
            port67_retry: None,
            watchdog: service::watchdog_period().map(watchdog_interval),
            actions: Vec::new(),
            frame: Box::new([0; FRAME_LIMIT]),
        })
    }

    /// Takes the kernel's state, says that it is ready, and turns until the end is asked for.
    async fn serve(&mut self, signals: &mut Signals) -> anyhow::Result<()> {
        self.world.end_interruptions().await?;
        let now = Instant::now();
        self.try_port67(now).await?;
        self.take_dump(now).await?;
        service::tell_ready();
        start_pages::give_back();
        while !self.turn(signals).await? {}
        Ok(())
    }

    /// Has the engine give everything back, and then what an earlier process left.
    async fn give_back(&mut self) -> anyhow::Result<()> {
        service::tell_stopping();
        let emptied = match tokio::time::timeout(STOP_PATIENCE, self.empty()).await {
            Ok(emptied) => emptied,
            Err(_) => Err(anyhow::anyhow!(
                "not everything was given back within {STOP_PATIENCE:?}"
            )),
        };
        let released = self.world.release().await;
        info!("stopped");
        emptied.and(released)
    }

    async fn empty(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.tell_refusals(now).await?;
        self.tell(Input::Stop, now).await?;
        let kept = kept(self.world.take_refusals());
        for (change, errno) in &kept {
            warn!(?change, errno, "not given back");
        }
        self.world.settle_radio().await;
        if kept.is_empty() {
            return Ok(());
        }
        Err(Hinted::new(
            format!("the kernel refused to take {} changes back", kept.len()),
            "the log names them; the agent's next run takes them back, and so does a reboot",
        )
        .into())
    }

    /// Waits for something to happen and deals with it. Returns whether the end was asked for.
    async fn turn(&mut self, signals: &mut Signals) -> anyhow::Result<bool> {
        let wake = self.wait(signals).await.context("while waiting")?;
        let now = Instant::now();
        self.tell_refusals(now).await?;
        match wake {
            Wake::Netlink(first) => self.take_notifications(first, now).await?,
            Wake::Frames(side) => self.take_frames(side, now).await?,
            Wake::Client(client) => self.admit(client, now)?,
            Wake::FleetClient(client) => self.admit_fleet(client, now)?,
            Wake::Traffic => {
                let glimpses = self.world.traffic().look(now);
                self.tell(Input::Traffic(&glimpses), now).await?;
            }
            Wake::Radio => self.take_radio(now).await?,
            Wake::Deadline => self.take_deadlines(now).await?,
            Wake::Watchdog => service::tell_alive(),
            Wake::Asked(Asked::Reload) => self.reload(now).await?,
            Wake::Asked(Asked::Stop) => return Ok(true),
        }
        Ok(false)
    }

    async fn wait(&mut self, signals: &mut Signals) -> io::Result<Wake> {
        // What is ready is only looked at when this task gives way; a source that always is would never let the others be seen.
        tokio::task::yield_now().await;
        let deadline = self.next_deadline();
        let refused = self.world.has_refusals();
        let sources = self.world.sources();
        tokio::select! {
            notified = self.notifications.next() => notified.map(Wake::Netlink),
            ready = frames_waiting(sources.wired) => ready.map(|()| Wake::Frames(Side::Wired)),
            ready = frames_waiting(sources.uplink) => ready.map(|()| Wake::Frames(Side::Uplink)),
            ready = sources.traffic.ready() => ready.map(|()| Wake::Traffic),
            ready = sources.radio.ready() => ready.map(|()| Wake::Radio),
            client = self.status.accept(), if self.status_pause.is_none() => Ok(Wake::Client(client)),
            client = fleet_client(sources.fleet), if self.fleet_pause.is_none() => Ok(Wake::FleetClient(client)),
            // A refusal is told in the next turn, so that a kernel that always refuses starves nobody either.
            () = std::future::ready(()), if refused => Ok(Wake::Deadline),
            () = passed(deadline) => Ok(Wake::Deadline),
            () = ticked(self.watchdog.as_mut()) => Ok(Wake::Watchdog),
            asked = signals.next() => Ok(Wake::Asked(asked)),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let own = [
            self.port67_retry,
            self.status_pause,
            self.fleet_pause,
            self.answers_due(),
        ];
        let deadlines = own.into_iter().chain([self.engine.next_deadline()]);
        deadlines.flatten().min()
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
        self.status_pause = self.status_pause.filter(|until| *until > now);
        self.fleet_pause = self.fleet_pause.filter(|until| *until > now);
        if self.answers_due().is_some_and(|due| due <= now) {
            self.answer(now)?;
        }
        Ok(())
    }

    async fn take_dump(&mut self, now: Instant) -> anyhow::Result<()> {
        let state = self.world.netlink().dump().await;
        let state = state.context("while reading the kernel's state")?;
        self.tell(Input::KernelDump(state), now).await
    }

    async fn take_notifications(&mut self, first: Notified, now: Instant) -> anyhow::Result<()> {
        let mut notified = first;
        let mut taken = 0;
        loop {
            match notified {
                Notified::Events(events) => self.take_events(events, now).await?,
                // Dumps are large: where one overrun follows the other, the turns of others come between.
                Notified::Overrun => return self.start_over(now).await,
            }
            taken += 1;
            // Nothing is received that this turn would not deal with: it would be lost.
            if taken == BATCH {
                return Ok(());
            }
            let Some(next) = self.notifications.next_waiting() else {
                return Ok(());
            };
            notified = next.context("while receiving netlink notifications")?;
        }
    }

    async fn take_events(&mut self, events: Vec<KernelEvent>, now: Instant) -> anyhow::Result<()> {
        for event in events {
            debug!(?event, "kernel");
            self.tell(Input::Kernel(event), now).await?;
        }
        Ok(())
    }

    /// Reads the whole state, after what is older. Should notifications be lost meanwhile, the next turn starts over again.
    async fn start_over(&mut self, now: Instant) -> anyhow::Result<()> {
        warn!("netlink notifications were lost; reading the whole state");
        let discarded = self.notifications.discard_waiting();
        discarded.context("while discarding netlink notifications")?;
        self.take_dump(now).await
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

    async fn take_radio(&mut self, now: Instant) -> anyhow::Result<()> {
        for event in self.world.take_radio() {
            debug!(?event, "radio");
            self.tell(Input::Radio(event), now).await?;
        }
        if self.answers_due().is_some() && !self.world.radio().is_reading() {
            self.answer(now)?;
        }
        Ok(())
    }

    /// Has a status client wait until the radio's state is read, if there is a radio.
    fn admit(&mut self, client: io::Result<UnixStream>, now: Instant) -> anyhow::Result<()> {
        match client {
            Ok(client) => {
                self.status_clients.admit(client, now);
                self.read_radio(now)
            }
            // Where descriptors ran out, the client is still waiting, and would be found waiting again at once.
            Err(error) => {
                debug!(%error, "a status client could not be accepted");
                self.status_pause = Some(now + STATUS_PAUSE);
                Ok(())
            }
        }
    }

    /// The same for one on the uplink, if it is to be told anything at all.
    fn admit_fleet(
        &mut self,
        client: io::Result<(TcpStream, Ipv4Addr)>,
        now: Instant,
    ) -> anyhow::Result<()> {
        match client {
            Ok((client, from)) if self.engine.admits(from, now) => {
                self.fleet_clients.admit(client, now);
                self.read_radio(now)
            }
            Ok((_, from)) => {
                debug!(%from, "a client on the uplink is not told");
                Ok(())
            }
            Err(error) => {
                debug!(%error, "a client on the uplink could not be accepted");
                self.fleet_pause = Some(now + STATUS_PAUSE);
                Ok(())
            }
        }
    }

    fn read_radio(&mut self, now: Instant) -> anyhow::Result<()> {
        self.world.radio().read();
        if !self.world.radio().is_reading() {
            self.answer(now)?;
        }
        Ok(())
    }

    /// Returns when the first of those who wait for the radio get what there is.
    fn answers_due(&self) -> Option<Instant> {
        let due = [self.status_clients.due(), self.fleet_clients.due()];
        due.into_iter().flatten().min()
    }

    /// Tells all who wait how things stand.
    fn answer(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.status_clients.due().is_some() {
            let mut report = self.engine.report(now);
            // What was wrong before explains much of what is wrong now.
            report.problems.splice(..0, self.problems.iter().cloned());
            let document = serde_json::to_vec(&report).context("while rendering the status")?;
            self.status_clients.answer(&document);
        }
        if self.fleet_clients.due().is_some() {
            let mut report = self.engine.fleet_report(now, device::uptime());
            report.problems += self.problems.len();
            let document = serde_json::to_vec(&report).context("while rendering the status")?;
            self.fleet_clients.answer(&document);
        }
        Ok(())
    }

    /// Reads the configuration again; one that is refused changes nothing.
    async fn reload(&mut self, now: Instant) -> anyhow::Result<()> {
        service::tell_reloading();
        match load(&self.source) {
            Ok(config) => {
                info!("the configuration was read again");
                self.tell(Input::Configured(config.settings), now).await?;
            }
            Err(error) => {
                let hint = hint::hint_of(&error).unwrap_or_default();
                error!(hint, "the configuration stays as it was: {error:#}");
            }
        }
        service::tell_ready();
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

    async fn tell_refusals(&mut self, now: Instant) -> anyhow::Result<()> {
        for (change, errno) in self.world.take_refusals() {
            self.tell(Input::Refused { change, errno }, now).await?;
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

/// Returns what of the refusals at the end leaves something of ours behind. What is in the ledger is tried again after this.
fn kept(mut refusals: Vec<(Change, i32)>) -> Vec<(Change, i32)> {
    refusals.retain(|(change, errno)| match change {
        Change::RemoveAddress { .. }
        | Change::RemoveRoute { .. }
        | Change::RemoveNeighbour { .. } => !is_done_already(change, *errno),
        Change::SetUp(_)
        | Change::SetDown(_)
        | Change::HoldSysctl { .. }
        | Change::ReleaseSysctl { .. }
        | Change::AddAddress { .. }
        | Change::AddRoute { .. }
        | Change::SetNeighbour { .. } => false,
    });
    refusals
}

fn radio_paths(run_dir: &RunDir) -> radio::Paths {
    radio::Paths {
        supplicant_client: run_dir.file("supplicant-client.sock"),
        driver_request: run_dir.file("reload-driver"),
        reboot_request: run_dir.file("reboot"),
    }
}

/// Reads the configuration, and which device it is for, where somebody will be told.
fn load(source: &ConfigSource) -> anyhow::Result<Config> {
    let mut config = source.load()?;
    if config.settings.fleet.status {
        config.settings.fleet.device = device::load_device();
    }
    Ok(config)
}

async fn fleet_client(socket: Option<&FleetSocket>) -> io::Result<(TcpStream, Ipv4Addr)> {
    match socket {
        Some(socket) => socket.accept().await,
        None => pending().await,
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

/// Reads what the engine's secrets are made of: it has no randomness of its own.
fn random_bytes() -> anyhow::Result<[u8; RANDOM_BYTES]> {
    let mut bytes = [0; RANDOM_BYTES];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("while reading /dev/urandom")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::addr::IfIndex;

    #[test]
    fn what_is_gone_or_in_the_ledger_is_not_kept() {
        let index = IfIndex(3);
        let host = Ipv4Addr::new(10, 0, 0, 7);
        let route = Change::RemoveRoute { index, host };
        let refusals = vec![
            (route.clone(), libc::ESRCH),
            (route.clone(), libc::EPERM),
            (Change::SetDown(index), libc::EPERM),
        ];
        assert_eq!(kept(refusals), [(route, libc::EPERM)]);
    }
}
