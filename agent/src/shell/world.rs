//! The world as the engine may change it: one method performs one action, and returns when it is done.
//!
//! What the kernel refuses is not an error but news for the engine, kept until the loop fetches it. An interface that went
//! away under an action is not even that: the notification that says so is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use tracing::{debug, info, trace, warn};

use super::fleet_socket::FleetSocket;
use super::ledger::{Entry, Held, Ledger};
use super::netlink::{Netlink, NetlinkError};
use super::packet_socket::{PacketSocket, is_link_gone};
use super::radio::Radio;
use super::service;
use super::sysctl::{ALL, Sysctls};
use super::traffic_socket::Traffic;
use crate::addr::{IfIndex, Side};
use crate::engine::{Action, Change, Link, RadioAction, RadioEvent, Stage, Sysctl};
use crate::hint::Hinted;
use crate::wire::discovery::Protocol;

/// How long the radio is waited for when all else has been given back.
const RADIO_PATIENCE: Duration = Duration::from_secs(2);

/// Everything an action can reach.
pub(crate) struct World {
    netlink: Netlink,
    sysctls: Sysctls,
    ledger: Ledger,
    radio: Radio,
    wired: Option<PacketSocket>,
    uplink: Option<PacketSocket>,
    traffic: Traffic,
    fleet: Option<FleetSocket>,
    refusals: Vec<(Change, i32)>,
}

/// What can be waited for: the packet sockets of both sides, the traffic, the radio and the neighbours who ask how the device is.
pub(crate) struct Sources<'a> {
    pub(crate) wired: Option<&'a PacketSocket>,
    pub(crate) uplink: Option<&'a PacketSocket>,
    pub(crate) traffic: &'a Traffic,
    pub(crate) radio: &'a mut Radio,
    pub(crate) fleet: Option<&'a FleetSocket>,
}

impl World {
    /// Starts with no packet socket open.
    pub(crate) fn new(netlink: Netlink, ledger: Ledger, radio: Radio) -> World {
        World {
            netlink,
            sysctls: Sysctls::new(),
            ledger,
            radio,
            wired: None,
            uplink: None,
            traffic: Traffic::default(),
            fleet: None,
            refusals: Vec::new(),
        }
    }

    /// Returns the request socket, for dumps.
    pub(crate) fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Returns the packet socket of a side, where one is open.
    pub(crate) fn port(&self, side: Side) -> Option<&PacketSocket> {
        match side {
            Side::Wired => self.wired.as_ref(),
            Side::Uplink => self.uplink.as_ref(),
        }
    }

    /// Returns the uplink's radio.
    pub(crate) fn radio(&mut self) -> &mut Radio {
        &mut self.radio
    }

    /// Returns what shows glimpses of the traffic.
    pub(crate) fn traffic(&mut self) -> &mut Traffic {
        &mut self.traffic
    }

    /// Returns what can be waited for.
    pub(crate) fn sources(&mut self) -> Sources<'_> {
        Sources {
            wired: self.wired.as_ref(),
            uplink: self.uplink.as_ref(),
            traffic: &self.traffic,
            radio: &mut self.radio,
            fleet: self.fleet.as_ref(),
        }
    }

    /// Whether the kernel refused something the engine has not heard of.
    pub(crate) fn has_refusals(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// Takes what the kernel refused, with its error numbers.
    pub(crate) fn take_refusals(&mut self) -> Vec<(Change, i32)> {
        std::mem::take(&mut self.refusals)
    }

    /// Sets up what a killed process had set down for a moment. The engine would take it for an interface that was down before.
    pub(crate) async fn end_interruptions(&mut self) -> anyhow::Result<()> {
        let names = self.names().await?;
        for entry in self.ledger.entries().to_vec() {
            if matches!(entry.held, Held::Up { .. }) && entry.previous != 0 {
                info!(?entry, "ending an interruption that a killed process began");
                if let Err(error) = self.give_back(&entry, &names).await {
                    warn!("the interruption goes on: {error:#}");
                }
            }
        }
        Ok(())
    }

    /// Gives back what is still held, by whichever process. All is tried; the first failure is returned.
    pub(crate) async fn release(&mut self) -> anyhow::Result<()> {
        let names = self.names().await?;
        let mut result = Ok(());
        for entry in self.ledger.entries().to_vec() {
            result = result.and(self.give_back(&entry, &names).await);
        }
        let settled = tokio::time::timeout(RADIO_PATIENCE, self.settle_radio()).await;
        result.and(settled.context("the radio did not take back what it had"))
    }

    async fn names(&self) -> anyhow::Result<BTreeMap<IfIndex, String>> {
        let names = self.netlink.names().await;
        names.context("while listing interfaces")
    }

    /// Takes the news from the radio.
    pub(crate) fn take_radio(&mut self) -> Vec<RadioEvent> {
        let news = self.radio.take();
        self.note_radio();
        news
    }

    /// Waits until everything that was to be set of the radio is.
    pub(crate) async fn settle_radio(&mut self) {
        self.radio.settle().await;
        self.note_radio();
    }

    /// Performs one action.
    pub(crate) async fn perform(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::OpenPort {
                side,
                index,
                promiscuous,
                protocols,
            } => return self.open_port(side, index, promiscuous, &protocols),
            Action::ClosePort { side } => {
                self.traffic.close(side);
                *self.port_slot(side) = None;
            }
            Action::OpenStatus { index, address } => self.open_status(index, address),
            Action::CloseStatus => self.fleet = None,
            Action::Send { side, frame } => self.send(side, &frame),
            Action::Apply(change) => return self.apply(change).await,
            Action::Radio(action) => return self.ask_radio(action).await,
            Action::StateChanged { from: _, to } => service::tell_state(to),
            Action::Finished => debug!("the engine has nothing left to do"),
        }
        Ok(())
    }

    fn port_slot(&mut self, side: Side) -> &mut Option<PacketSocket> {
        match side {
            Side::Wired => &mut self.wired,
            Side::Uplink => &mut self.uplink,
        }
    }

    fn open_port(
        &mut self,
        side: Side,
        index: IfIndex,
        promiscuous: bool,
        protocols: &BTreeSet<Protocol>,
    ) -> anyhow::Result<()> {
        let slot = self.port_slot(side);
        // The old membership goes before the new one comes.
        *slot = None;
        match PacketSocket::open(index, promiscuous, protocols) {
            Ok(socket) => {
                *slot = Some(socket);
                self.traffic.open(side, index);
            }
            Err(error) if is_link_gone(&error) => debug!(%side, %index, "the interface went away"),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(error).context(Hinted::new(
                    format!("while opening a packet socket on the {side} side"),
                    "the agent needs CAP_NET_RAW: start it through its service, or as root",
                ));
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("while opening a packet socket on the {side} side"));
            }
        }
        Ok(())
    }

    /// That nobody can be told how the device is, is no reason not to bridge.
    fn open_status(&mut self, index: IfIndex, address: Ipv4Addr) {
        self.fleet = None;
        match FleetSocket::open(index, address) {
            Ok(socket) => self.fleet = Some(socket),
            Err(error) => warn!(%index, %address, %error, "the status is not served on the uplink"),
        }
    }

    /// A frame that cannot be sent is lost, as on any wire: whoever needs it asks again.
    fn send(&self, side: Side, frame: &[u8]) {
        match self.port(side).map(|port| port.send(frame)) {
            Some(Ok(())) => trace!(%side, bytes = frame.len(), "frame sent"),
            Some(Err(error)) => debug!(%side, %error, "frame not sent"),
            None => debug!(%side, "frame not sent: no socket"),
        }
    }

    async fn apply(&mut self, change: Change) -> anyhow::Result<()> {
        let refused = match &change {
            Change::HoldSysctl { sysctl, value } => self.hold_sysctl(*sysctl, *value).await?,
            Change::ReleaseSysctl { sysctl } => self.release_sysctl(*sysctl).await?,
            Change::SetUp(index) => self.set_link(&change, *index, 1).await?,
            Change::SetDown(index) => self.set_link(&change, *index, 0).await?,
            Change::AddAddress { .. }
            | Change::RemoveAddress { .. }
            | Change::AddRoute { .. }
            | Change::RemoveRoute { .. }
            | Change::SetNeighbour { .. }
            | Change::RemoveNeighbour { .. } => {
                errno_of_netlink(self.netlink.apply(&change).await)?
            }
        };
        match refused {
            Some(errno) => {
                debug!(?change, errno, "refused");
                self.refusals.push((change, errno));
            }
            None => debug!(?change, "applied"),
        }
        Ok(())
    }

    async fn hold_sysctl(&mut self, sysctl: Sysctl, value: u8) -> anyhow::Result<Option<i32>> {
        match self.sysctl_name(sysctl).await? {
            Some(name) => errno_of_file(self.sysctls.hold(&mut self.ledger, sysctl, &name, value)),
            None => Ok(None),
        }
    }

    async fn release_sysctl(&mut self, sysctl: Sysctl) -> anyhow::Result<Option<i32>> {
        let name = self.sysctl_name(sysctl).await?;
        let released = self
            .sysctls
            .release(&mut self.ledger, sysctl, name.as_deref());
        errno_of_file(released)
    }

    /// Returns the directory of a sysctl; none if its interface is gone.
    async fn sysctl_name(&self, sysctl: Sysctl) -> anyhow::Result<Option<String>> {
        match sysctl.index {
            None => Ok(Some(ALL.to_owned())),
            Some(index) => {
                let link = self.link(index).await?;
                Ok(link.map(|link| link.name))
            }
        }
    }

    /// Returns an interface, if it exists.
    async fn link(&self, index: IfIndex) -> anyhow::Result<Option<Link>> {
        let link = self.netlink.link(index).await;
        link.with_context(|| format!("while looking interface {index} up"))
    }

    /// Sets an interface up (1) or down (0), after writing down what it was.
    async fn set_link(
        &mut self,
        change: &Change,
        index: IfIndex,
        value: i64,
    ) -> anyhow::Result<Option<i32>> {
        let Some(link) = self.link(index).await? else {
            return Ok(Some(libc::ENODEV));
        };
        let held = Held::Up { index: index.0 };
        let remembered = self.ledger.remember(held.clone(), link.up.into());
        if let Some(errno) = errno_of_file(remembered)? {
            return Ok(Some(errno));
        }
        match errno_of_netlink(self.netlink.apply(change).await)? {
            None => {
                self.note(&held, value);
                Ok(None)
            }
            refused @ Some(_) => Ok(refused),
        }
    }

    /// Has something done to the radio, after writing down what was there before, where that is known.
    async fn ask_radio(&mut self, action: RadioAction) -> anyhow::Result<()> {
        let previous = match action {
            RadioAction::SetPowerSave { index, .. } => {
                let dozing = self.radio.may_doze(index);
                dozing.map(|dozing| (Held::PowerSave { index: index.0 }, dozing.into()))
            }
            RadioAction::Recover {
                index: Some(index),
                stage: Stage::Interface,
            } => {
                let link = self.link(index).await?;
                link.map(|link| (Held::Up { index: index.0 }, link.up.into()))
            }
            RadioAction::Watch { .. } | RadioAction::Unwatch | RadioAction::Recover { .. } => None,
        };
        if let Some((held, previous)) = previous
            && let Err(error) = self.ledger.remember(held, previous)
        {
            warn!(?action, %error, "not done, as it could not be written down");
            return Ok(());
        }
        self.radio.perform(action);
        Ok(())
    }

    fn note_radio(&mut self) {
        for (held, value) in self.radio.take_set() {
            self.note(&held, value);
        }
    }

    /// Notes what was set. An entry too many is given back once more at the end, which does no harm.
    fn note(&mut self, held: &Held, value: i64) {
        if let Err(error) = self.ledger.note(held, value) {
            warn!(?held, %error, "what was given back could not be written down");
        }
    }

    async fn give_back(
        &mut self,
        entry: &Entry,
        names: &BTreeMap<IfIndex, String>,
    ) -> anyhow::Result<()> {
        let name = match entry.held.index() {
            None => Some(ALL),
            Some(index) => names.get(&index).map(String::as_str),
        };
        // What went with its interface needs no giving back.
        if let Some(name) = name {
            let on = entry.previous != 0;
            match entry.held {
                Held::Sysctl { ref setting, .. } => {
                    let restored = self.sysctls.restore(name, setting, entry.previous);
                    restored.with_context(|| format!("while giving {setting} of {name} back"))?;
                }
                Held::Up { index } => {
                    let index = IfIndex(index);
                    let change = if on {
                        Change::SetUp(index)
                    } else {
                        Change::SetDown(index)
                    };
                    let changed = self.netlink.apply(&change).await;
                    changed.with_context(|| format!("while setting {name} up or down again"))?;
                }
                Held::PowerSave { index } => {
                    let index = IfIndex(index);
                    // A driver that refused to change it has nothing to take back.
                    if self.radio.may_doze(index) != Some(on) {
                        self.radio.perform(RadioAction::SetPowerSave { index, on });
                        // Noted when it is done.
                        return Ok(());
                    }
                }
            }
        }
        self.ledger.forget(&entry.held)?;
        Ok(())
    }
}

/// Tells a refusal, which is news for the engine, from a conversation that broke down.
fn errno_of_netlink(result: Result<(), NetlinkError>) -> anyhow::Result<Option<i32>> {
    match result {
        Ok(()) => Ok(None),
        Err(NetlinkError::Refused { errno }) => Ok(Some(errno)),
        Err(error @ NetlinkError::Request(_)) => {
            Err(error).context("while changing the kernel's state")
        }
    }
}

fn errno_of_file(result: io::Result<()>) -> anyhow::Result<Option<i32>> {
    match result.map_err(|error| (error.raw_os_error(), error)) {
        Ok(()) => Ok(None),
        Err((Some(errno), _)) => Ok(Some(errno)),
        Err((None, error)) => Err(error).context("while changing a setting"),
    }
}
