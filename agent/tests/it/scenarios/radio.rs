//! The notation of the uplink's radio.
//!
//! ```text
//! 1.0 radio associated [to=AP] [in=home] [signal=-60] [power-save] [country=DE | world] [uptime=S]     else 1 day up, in Germany
//! 1.0 radio alone | none                           not associated; no radio at all
//! 1.0 radio power-save-refused errno=95
//! 1.0 supplicant attached | detached | connected | wrong-key | not-found
//! ```

use std::time::Duration;

use footbridge_agent::engine::{
    Association, RadioAction, RadioEvent, RadioReport, RadioState, SupplicantEvent,
};

use super::script::{Names, parse};

pub(super) fn radio(words: &[&str], names: &Names) -> RadioEvent {
    let given = |key: &str| {
        words
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let association = Association {
        bssid: names.mac_of(given("to").unwrap_or("access-point")),
        ssid: given("in").unwrap_or("home").as_bytes().to_vec(),
        frequency: Some(2412),
        signal: given("signal").map(parse),
        tx_rate: Some(65_000),
        rx_rate: Some(58_500),
    };
    let state = RadioState {
        association: (words[0] == "associated").then_some(association),
        country: (!words.contains(&"world")).then(|| given("country").unwrap_or("DE").to_owned()),
        power_save: Some(words.contains(&"power-save")),
    };
    match words[0] {
        "associated" | "alone" | "none" => RadioEvent::State {
            state: (words[0] != "none").then_some(state),
            uptime: Duration::from_secs(given("uptime").map_or(86_400, parse)),
        },
        "power-save-refused" => RadioEvent::PowerSaveRefused {
            errno: parse(given("errno").unwrap()),
        },
        other => panic!("no such radio: {other}"),
    }
}

pub(super) fn supplicant(word: &str) -> RadioEvent {
    match word {
        "attached" => RadioEvent::Attached(true),
        "detached" => RadioEvent::Attached(false),
        "connected" => RadioEvent::Supplicant(SupplicantEvent::Connected),
        "wrong-key" => RadioEvent::Supplicant(SupplicantEvent::WrongKey),
        "refused" => RadioEvent::Supplicant(SupplicantEvent::Refused),
        "wrong-server" => RadioEvent::Supplicant(SupplicantEvent::WrongServer),
        "not-found" => RadioEvent::Supplicant(SupplicantEvent::NetworkNotFound),
        other => panic!("no such supplicant: {other}"),
    }
}

/// Returns the line for an action; that the uplink is watched goes without saying.
pub(super) fn render(action: &RadioAction) -> Option<String> {
    match action {
        RadioAction::Watch { .. } | RadioAction::Unwatch => None,
        RadioAction::SetPowerSave { index, on } => Some(format!("power save of {index} = {on}")),
        RadioAction::Recover { index, stage } => {
            let index = index.map_or("-".to_owned(), |index| index.to_string());
            Some(format!("recover {index}: {stage:?}"))
        }
    }
}

pub(super) fn describe(report: &RadioReport) -> String {
    serde_json::to_string(report).unwrap()
}
