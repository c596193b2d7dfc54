//! What people are shown of the radio, and what is wrong with it as far as the agent can know.

use serde::Serialize;

use super::{Radio, Stage, SupplicantEvent};
use crate::engine::doctor::Problem;
use crate::engine::{Engine, Settings};

/// A signal below this (in dBm) carries a network badly.
const WEAK_SIGNAL: i8 = -75;

/// The uplink's radio.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RadioReport {
    /// Whether it is associated with an access point.
    pub associated: bool,
    /// The access point's hardware address.
    pub bssid: Option<String>,
    /// The network's name; bytes that are no text are replaced.
    pub ssid: Option<String>,
    /// How strong the access point is received, in dBm.
    pub signal_dbm: Option<i8>,
    /// What is sent at, in kbit/s.
    pub tx_bitrate: Option<u32>,
    /// What is received at, in kbit/s.
    pub rx_bitrate: Option<u32>,
    /// In MHz.
    pub frequency: Option<u32>,
    /// The country whose rules are in force; none means the rules of the whole world.
    pub country: Option<String>,
    /// Whether it may doze; none where the driver cannot tell.
    pub power_save: Option<bool>,
    /// Whether a supplicant tells the agent of its troubles.
    pub supplicant: bool,
    /// The stage of recovery last tried, while the gateway has not answered since.
    pub recovery: Option<Stage>,
}

impl RadioReport {
    pub(crate) fn new(radio: &Radio) -> Option<RadioReport> {
        let state = radio.state.as_ref()?;
        let association = state.association.as_ref();
        Some(RadioReport {
            associated: association.is_some(),
            bssid: association.map(|a| a.bssid.to_string()),
            ssid: association.map(|a| printable(&a.ssid)),
            signal_dbm: association.and_then(|a| a.signal),
            tx_bitrate: association.and_then(|a| a.tx_rate),
            rx_bitrate: association.and_then(|a| a.rx_rate),
            frequency: association.and_then(|a| a.frequency),
            country: state.country.clone(),
            power_save: state.power_save,
            supplicant: radio.attached,
            recovery: radio.recovery.stage(),
        })
    }
}

/// A network's name is whatever its owner typed: control characters would reach the terminal of who looks at it, and marks that
/// turn the direction of text would rearrange what stands around it.
fn printable(ssid: &[u8]) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    String::from_utf8_lossy(ssid).replace(|c: char| c.is_control() || turns(c), "\u{fffd}")
}

/// Returns what is wrong with the radio.
pub(crate) fn problems(engine: &Engine) -> Vec<Problem> {
    let Engine {
        radio, settings, ..
    } = engine;
    let Some(state) = &radio.state else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    if state.association.is_none() || radio.trouble.is_some_and(comes_after_association) {
        problems.extend(radio.trouble.and_then(trouble));
    }
    problems.extend(radio.recovery.stage().map(|stage| stalled(stage, settings)));
    problems.extend(weak_signal(radio));
    problems.extend(power_save(radio, settings));
    if state.country.is_none() {
        problems.push(Problem::new(
            "the radio knows no country, and keeps to what is allowed everywhere",
            "give `country=` in site/wpa_supplicant.conf: without it, many channels are closed",
        ));
    }
    problems
}

/// Keys are agreed on, and servers asked, by those who are associated.
fn comes_after_association(trouble: SupplicantEvent) -> bool {
    match trouble {
        SupplicantEvent::WrongKey | SupplicantEvent::Refused | SupplicantEvent::WrongServer => true,
        SupplicantEvent::Connected | SupplicantEvent::NetworkNotFound => false,
    }
}

fn trouble(event: SupplicantEvent) -> Option<Problem> {
    match event {
        SupplicantEvent::Connected => None,
        SupplicantEvent::WrongKey => Some(Problem::new(
            "the Wi-Fi network refuses the key",
            "correct the key in site/wpa_supplicant.conf and start again",
        )),
        SupplicantEvent::Refused => Some(Problem::new(
            "the server of the Wi-Fi network does not admit this device",
            "correct identity and password, or certificate and key, in site/, and ask who runs the network whether they are still good",
        )),
        SupplicantEvent::WrongServer => Some(Problem::new(
            "the server of the Wi-Fi network is not the one it should be",
            "see to `ca_cert` and `domain_suffix_match` in site/wpa_supplicant.conf; if they are right, somebody else uses the network's name",
        )),
        SupplicantEvent::NetworkNotFound => Some(Problem::new(
            "the Wi-Fi network is not in reach",
            "check its name in site/wpa_supplicant.conf, its access point and the distance; 5 GHz needs a board that has it",
        )),
    }
}

fn stalled(stage: Stage, settings: &Settings) -> Problem {
    let tried = match stage {
        Stage::Reassociate => "associating again",
        Stage::Interface => "setting the interface down and up",
        Stage::Driver => "loading its driver anew",
        Stage::Reboot => "rebooting",
    };
    Problem::new(
        format!("the radio of {} may have stalled", settings.uplink),
        format!("wait while the agent recovers it in stages, lately by {tried}"),
    )
}

fn weak_signal(radio: &Radio) -> Option<Problem> {
    let signal = radio.state.as_ref()?.association.as_ref()?.signal?;
    (signal < WEAK_SIGNAL).then(|| {
        Problem::new(
            format!("the access point is received weakly ({signal} dBm)"),
            "move the board nearer to it, or out of its metal case",
        )
    })
}

fn power_save(radio: &Radio, settings: &Settings) -> Option<Problem> {
    let on = radio.state.as_ref()?.power_save? && !settings.wifi.power_save;
    let refused = radio
        .power_save
        .refused
        .map_or_else(String::new, |errno| format!(" (error {errno})"));
    (on && radio.power_save.set).then(|| {
        Problem::new(
            format!(
                "{} saves power although it is told not to{refused}, so answers take a tenth of a second",
                settings.uplink
            ),
            "see the log, and whether another program switches power saving on",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_networks_name_commands_no_terminal() {
        let cases: [(&[u8], &str); 4] = [
            ("Café \"bar\"".as_bytes(), "Café \"bar\""),
            (
                b"\x1b[31mred\r\n\x07",
                "\u{fffd}[31mred\u{fffd}\u{fffd}\u{fffd}",
            ),
            (
                "a\u{9b}b\u{202e}c\u{2069}".as_bytes(),
                "a\u{fffd}b\u{fffd}c\u{fffd}",
            ),
            (b"\xff\0", "\u{fffd}\u{fffd}"),
        ];
        for (ssid, expected) in cases {
            assert_eq!(printable(ssid), expected, "{ssid:?}");
        }
    }
}
