//! The part of the seam that is about the uplink's radio: what the engine is told of it, and what it can ask for.

use std::time::Duration;

use crate::addr::{IfIndex, MacAddr};

/// What the engine is told about the uplink's radio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RadioEvent {
    /// How the radio stands, and how long the machine has been running; no state if the uplink is no radio.
    State {
        /// The radio's state.
        state: Option<RadioState>,
        /// Time since the machine was started.
        uptime: Duration,
    },
    /// Whether a supplicant tells us what it does.
    Attached(bool),
    /// The supplicant told something.
    Supplicant(SupplicantEvent),
    /// The driver did not let the power saving be changed (`errno` is positive).
    PowerSaveRefused {
        /// The kernel's error number.
        errno: i32,
    },
}

/// How a radio stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RadioState {
    /// The association, where there is one.
    pub association: Option<Association>,
    /// The country whose rules are in force; `None` for those of the whole world.
    pub country: Option<String>,
    /// Whether the radio may doze; `None` where the driver cannot tell.
    pub power_save: Option<bool>,
}

/// An association with an access point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// The access point's hardware address.
    pub bssid: MacAddr,
    /// The network's name: up to 32 bytes of anything.
    pub ssid: Vec<u8>,
    /// In MHz.
    pub frequency: Option<u32>,
    /// In dBm.
    pub signal: Option<i8>,
    /// What is sent at, in kbit/s.
    pub tx_rate: Option<u32>,
    /// What is received at, in kbit/s.
    pub rx_rate: Option<u32>,
}

/// What a supplicant tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupplicantEvent {
    /// It joined the network.
    Connected,
    /// The network refuses its key.
    WrongKey,
    /// The network's server refuses who we are, or how we prove it.
    Refused,
    /// We refuse the network's server: its certificate is not one that the settings allow.
    WrongServer,
    /// No access point of the network is in reach.
    NetworkNotFound,
}

/// What the engine can ask of the uplink's radio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RadioAction {
    /// Tell about this interface, and about no other, from now on; its state at once.
    Watch {
        /// The interface.
        index: IfIndex,
        /// Its name.
        name: String,
    },
    /// Tell nothing more.
    Unwatch,
    /// Let the radio doze, or not.
    SetPowerSave {
        /// The interface.
        index: IfIndex,
        /// Whether it may doze.
        on: bool,
    },
    /// A stage of the recovery of a radio that hears nothing.
    Recover {
        /// The interface, if it is there.
        index: Option<IfIndex>,
        /// The stage.
        stage: Stage,
    },
}

/// The stages of recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Associate again.
    Reassociate,
    /// Set the interface down and up.
    Interface,
    /// Bind the driver anew.
    Driver,
    /// Reboot the machine.
    Reboot,
}
