//! The world as the engine may change it: one method performs one action, and returns when it is done.
//!
//! What the kernel refuses is not an error but news for the engine, kept until the loop fetches it. An interface that went
//! away under an action is not even that: the notification that says so is on its way.

use std::collections::BTreeSet;
use std::io;

use anyhow::Context as _;
use tracing::{debug, trace};

use super::netlink::{Netlink, NetlinkError};
use super::packet_socket::{PacketSocket, is_link_gone};
use super::radio::Radio;
use super::service;
use super::sysctl::{ALL, Sysctls};
use super::traffic_socket::Traffic;
use crate::addr::{IfIndex, Side};
use crate::engine::{Action, Change, Sysctl};
use crate::hint::Hinted;
use crate::wire::discovery::Protocol;

/// Everything an action can reach.
pub(crate) struct World {
    netlink: Netlink,
    sysctls: Sysctls,
    radio: Radio,
    wired: Option<PacketSocket>,
    uplink: Option<PacketSocket>,
    traffic: Traffic,
    refusals: Vec<(Change, i32)>,
    finished: bool,
}

/// What can be waited for: the packet sockets of both sides, the traffic and the radio.
pub(crate) struct Sources<'a> {
    pub(crate) wired: Option<&'a PacketSocket>,
    pub(crate) uplink: Option<&'a PacketSocket>,
    pub(crate) traffic: &'a Traffic,
    pub(crate) radio: &'a mut Radio,
}

impl World {
    /// Starts with no packet socket open.
    pub(crate) fn new(netlink: Netlink, sysctls: Sysctls, radio: Radio) -> World {
        World {
            netlink,
            sysctls,
            radio,
            wired: None,
            uplink: None,
            traffic: Traffic::default(),
            refusals: Vec::new(),
            finished: false,
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

    /// Whether the engine gave everything back.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Gives back the sysctls that are still held, by whichever process.
    pub(crate) async fn release_sysctls(&mut self) -> anyhow::Result<()> {
        let names = self
            .netlink
            .names()
            .await
            .context("while listing interfaces")?;
        self.sysctls
            .release_all(&names)
            .context("while giving sysctls back")
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
            Action::Send { side, frame } => self.send(side, &frame),
            Action::Apply(change) => return self.apply(change).await,
            Action::Radio(action) => self.radio.perform(action),
            Action::StateChanged { from: _, to } => service::tell_state(to),
            Action::Finished => self.finished = true,
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
            Change::SetUp(_)
            | Change::SetDown(_)
            | Change::AddAddress { .. }
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
            Some(name) => errno_of_file(self.sysctls.hold(sysctl, &name, value)),
            None => Ok(None),
        }
    }

    async fn release_sysctl(&mut self, sysctl: Sysctl) -> anyhow::Result<Option<i32>> {
        let name = self.sysctl_name(sysctl).await?;
        errno_of_file(self.sysctls.release(sysctl, name.as_deref()))
    }

    /// Returns the directory of a sysctl; none if its interface is gone.
    async fn sysctl_name(&self, sysctl: Sysctl) -> anyhow::Result<Option<String>> {
        match sysctl.index {
            None => Ok(Some(ALL.to_owned())),
            Some(index) => {
                let name = self.netlink.name_of(index).await;
                name.with_context(|| format!("while looking up the name of interface {index}"))
            }
        }
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
        Err((None, error)) => Err(error).context("while changing a sysctl"),
    }
}
