//! What the service manager hears: ready, a line of status, signs of life, and the end (sd_notify(3)).
//!
//! Without a service manager every message goes nowhere, and that is fine.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

use crate::engine::BridgeState;

/// Returns how often a sign of life is due: half of what the service manager allows, if it watches at all.
pub(crate) fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Tells that the kernel's state is known and the sockets are open.
pub(crate) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that the configuration is being read again; `tell_ready` ends that.
pub(crate) fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(moment) => tell(&[NotifyState::Reloading, moment]),
        Err(error) => debug!(%error, "the service manager is not told"),
    }
}

/// Tells that the event loop turns.
pub(crate) fn tell_alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Tells that the end was asked for.
pub(crate) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells what the bridge does, in a line `systemctl status` shows.
pub(crate) fn tell_state(state: BridgeState) {
    tell(&[NotifyState::Status(match state {
        BridgeState::WaitingForUplink => "Waiting for the uplink",
        BridgeState::WaitingForCable => "Waiting for a cable",
        BridgeState::Bridging => "Bridging",
        BridgeState::Loop => "Stopped: both ports are on one segment",
        BridgeState::Stopping => "Giving everything back",
    })]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager did not hear");
    }
}
