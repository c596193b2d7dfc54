//! The uplink's radio: what is known of it, its power saving, and when its recovery is looked at.
//!
//! An uplink that is no radio leaves everything here empty: nothing is asked for, nothing is due. What the kernel and the
//! supplicant tell is taken as it comes; `recovery` has the stages.

mod recovery;
mod report;
mod words;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::addr::{IfIndex, MacAddr, Side};
use crate::wire::ethernet;

use super::stale_address::Joined;
use super::{Action, BridgeState, Engine, Glimpse, Settings};
use recovery::{Recovery, Signs};

pub use report::RadioReport;
pub(crate) use report::problems;
pub use words::{Association, RadioAction, RadioEvent, RadioState, Stage, SupplicantEvent};

/// What is known of the uplink's radio.
#[derive(Debug, Default)]
pub(crate) struct Radio {
    watched: Option<IfIndex>,
    state: Option<RadioState>,
    /// Name of the network last associated with.
    network: Option<Vec<u8>>,
    /// Whether a supplicant tells us what it does.
    attached: bool,
    /// What the supplicant had trouble with last.
    trouble: Option<SupplicantEvent>,
    power_save: PowerSave,
    /// Time since the machine was started, at a moment.
    uptime: Option<(Duration, Instant)>,
    /// When the association was made: a silence before it is none of the radio's stalling.
    associated_since: Option<Instant>,
    /// When anything was last heard on the uplink.
    heard: Option<Instant>,
    gateway: Gateway,
    recovery: Recovery,
}

/// What was done about the power saving.
#[derive(Debug, Default)]
struct PowerSave {
    /// What is to be given back.
    found: Option<bool>,
    /// Whether it was set for this association already.
    set: bool,
    refused: Option<i32>,
}

/// The gateway of the network as far as a stalled radio is concerned.
#[derive(Clone, Copy, Debug, Default)]
struct Gateway {
    address: Option<Ipv4Addr>,
    /// When it last showed that it is alive.
    alive: Option<Instant>,
    /// Since when it is silent, also over a time in which there is no bridge, and so nobody to ask it.
    silent_since: Option<Instant>,
}

impl Radio {
    /// Has the interface watched that is the uplink now.
    pub(super) fn watch(&mut self, uplink: Option<(IfIndex, &str)>, actions: &mut Vec<Action>) {
        let index = uplink.map(|(index, _)| index);
        if index == self.watched {
            return;
        }
        self.watched = index;
        self.state = None;
        self.attached = false;
        self.power_save = PowerSave::default();
        actions.push(Action::Radio(match uplink {
            Some((index, name)) => RadioAction::Watch {
                index,
                name: name.to_owned(),
            },
            None => RadioAction::Unwatch,
        }));
    }

    /// Takes other settings.
    pub(super) fn configure(&mut self, settings: &Settings, actions: &mut Vec<Action>) {
        self.power_save.set = false;
        self.switch_power_save(settings, actions);
    }

    /// Returns the access point that the radio is associated with.
    pub(super) fn access_point(&self) -> Option<MacAddr> {
        Some(self.state.as_ref()?.association.as_ref()?.bssid)
    }

    /// Returns which network the radio is in.
    pub(super) fn joined(&self) -> Joined {
        match self.state.as_ref().map(|state| &state.association) {
            None => Joined::Unknown,
            Some(None) => Joined::Nothing,
            Some(Some(association)) => Joined::Network(association.ssid.clone()),
        }
    }

    /// Takes what the kernel or the supplicant tells.
    pub(super) fn take(
        &mut self,
        event: RadioEvent,
        settings: &Settings,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        match event {
            RadioEvent::State { state, uptime } => {
                self.uptime = Some((uptime, now));
                self.take_state(state, now);
                self.switch_power_save(settings, actions);
            }
            RadioEvent::Attached(attached) => self.attached = attached,
            RadioEvent::Supplicant(SupplicantEvent::Connected) => self.trouble = None,
            // Whoever refuses a server fails with it as well.
            RadioEvent::Supplicant(SupplicantEvent::Refused)
                if self.trouble == Some(SupplicantEvent::WrongServer) => {}
            // After a failure the supplicant passes the network by for a while, and then says that there is none. Why is worth more.
            RadioEvent::Supplicant(SupplicantEvent::NetworkNotFound)
                if matches!(
                    self.trouble,
                    Some(
                        SupplicantEvent::WrongKey
                            | SupplicantEvent::Refused
                            | SupplicantEvent::WrongServer
                    )
                ) => {}
            RadioEvent::Supplicant(trouble) => {
                if self.trouble.replace(trouble) != Some(trouble) {
                    warn!(?trouble, "the supplicant cannot join the network");
                }
            }
            RadioEvent::PowerSaveRefused { errno } => {
                if self.power_save.refused.replace(errno).is_none() {
                    warn!(errno, "the driver refuses to change power saving");
                }
            }
        }
    }

    fn take_state(&mut self, state: Option<RadioState>, now: Instant) {
        let associated = |state: &Option<RadioState>| -> Option<MacAddr> {
            Some(state.as_ref()?.association.as_ref()?.bssid)
        };
        let (from, to) = (associated(&self.state), associated(&state));
        if from != to {
            // The name of the network and who runs it are nobody's business in a log.
            info!(associated = to.is_some(), "association changed");
            debug!(?from, ?to, "association changed");
            self.power_save.set = false;
            self.associated_since = to.and(
                self.associated_since
                    .filter(|_| from.is_some())
                    .or(Some(now)),
            );
        }
        let name = |state: &Option<RadioState>| -> Option<Vec<u8>> {
            Some(state.as_ref()?.association.as_ref()?.ssid.clone())
        };
        if let (Some(from), Some(to)) = (self.network.as_ref(), name(&state))
            && *from != to
        {
            self.gateway = Gateway::default();
            self.recovery.end();
        }
        self.network = name(&state).or(self.network.take());
        let country = |state: &Option<RadioState>| state.as_ref()?.country.clone();
        let (from, to) = (country(&self.state), country(&state));
        if from != to {
            info!(?from, ?to, "country of the radio changed");
        }
        self.state = state;
    }

    /// Has power saving switched to what the settings say, once for each association: some drivers forget it.
    fn switch_power_save(&mut self, settings: &Settings, actions: &mut Vec<Action>) {
        let wanted = settings.wifi.power_save;
        let Some((index, state)) = self.watched.zip(self.state.as_ref()) else {
            return;
        };
        let Some(found) = state.power_save.filter(|found| *found != wanted) else {
            return;
        };
        if std::mem::replace(&mut self.power_save.set, true) {
            return;
        }
        self.power_save.found.get_or_insert(found);
        actions.push(Action::Radio(RadioAction::SetPowerSave {
            index,
            on: wanted,
        }));
    }

    /// Gives back what was changed.
    pub(super) fn give_back(&mut self, actions: &mut Vec<Action>) {
        if let Some((index, on)) = self.watched.zip(self.power_save.found.take()) {
            actions.push(Action::Radio(RadioAction::SetPowerSave { index, on }));
        }
    }

    /// Something was received on a side, whatever it is.
    pub(super) fn hear(&mut self, side: Side, now: Instant) {
        if side == Side::Uplink {
            self.heard = Some(now);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.recovery.next_deadline()
    }

    fn uptime(&self, now: Instant) -> Duration {
        self.uptime.map_or(Duration::ZERO, |(uptime, at)| {
            uptime + now.saturating_duration_since(at)
        })
    }
}

impl Engine {
    /// Watches the uplink that was found.
    pub(super) fn watch_radio(&mut self, actions: &mut Vec<Action>) {
        if self.state == BridgeState::Stopping {
            self.radio.give_back(actions);
            return;
        }
        let uplink = self
            .interfaces
            .uplink
            .and_then(|index| Some((index, self.mirror.links.get(&index)?.name.as_str())));
        self.radio.watch(uplink, actions);
    }

    /// Takes glimpses of traffic as signs of life: the radio heard what comes in on the uplink, and what comes from where the
    /// gateway was last shows that it forwards, whatever it does not answer.
    pub(super) fn hear_traffic(&mut self, glimpses: &[Glimpse], now: Instant) {
        for glimpse in glimpses {
            self.radio.hear(glimpse.side, now);
        }
        let Some((gateway, mac)) = self.network.gateway().zip(self.network.gateway_mac()) else {
            return;
        };
        let by_gateway = |glimpse: &Glimpse| {
            let frame = ethernet::decode(&glimpse.headers);
            glimpse.side == Side::Uplink && frame.is_ok_and(|frame| frame.source == mac)
        };
        if glimpses.iter().any(by_gateway) {
            self.hosts.gateway.glimpsed(gateway, now);
        }
    }

    /// Looks after the radio: whether it has stalled, and what is to be tried.
    pub(super) fn review_radio(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.radio.state.is_none() && self.radio.recovery.stage().is_none() {
            self.radio.recovery.end();
            return;
        }
        self.heed_gateway();
        let associated_since = self.radio.associated_since;
        let silent_since = self.radio.gateway.silent_since;
        let signs = Signs {
            associated: self
                .radio
                .state
                .as_ref()
                .is_some_and(|state| state.association.is_some()),
            silent_since: silent_since.map(|since| since.max(associated_since.unwrap_or(since))),
            heard: self.radio.heard,
            uptime: self.radio.uptime(now),
            limit: self.settings.wifi.recovery,
        };
        if let Some(stage) = self.radio.recovery.review(signs, now) {
            warn!(?stage, "the radio hears nothing; trying to recover it");
            self.count(match stage {
                Stage::Reassociate => "radio-reassociated",
                Stage::Interface => "radio-interface-restarted",
                Stage::Driver => "radio-driver-reloaded",
                Stage::Reboot => "radio-rebooted",
            });
            let index = self.radio.watched;
            actions.push(Action::Radio(RadioAction::Recover { index, stage }));
        }
    }

    /// Takes over from the gateway's watch (A10) whether it is silent, if it was alive in this network.
    fn heed_gateway(&mut self) {
        let gateway = &mut self.radio.gateway;
        // While there is no bridge, nobody is asked: silence goes on as it was.
        let Some(address) = self.bridge.and_then(|bridge| bridge.gateway) else {
            return;
        };
        if gateway.address != Some(address) {
            *gateway = Gateway {
                address: Some(address),
                ..Gateway::default()
            };
            self.radio.recovery.end();
        }
        let watch = self.hosts.gateway();
        let evidence = self.hosts.find(address).map(|host| host.evidence);
        let alive = evidence.max(watch.last_glimpsed());
        if alive > gateway.alive {
            gateway.alive = alive;
            gateway.silent_since = None;
            if let Some(stage) = self.radio.recovery.stage() {
                info!(?stage, "the gateway is heard again");
            }
            self.radio.recovery.end();
        }
        if gateway.alive.is_some()
            && let Some(since) = watch.silent_since()
        {
            gateway.silent_since.get_or_insert(since);
        }
    }
}
