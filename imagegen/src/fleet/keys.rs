//! The keys of a fleet's networks: derived once for each network and passphrase, however many devices join it, by all processors.
//!
//! PBKDF2 is slow on purpose (IEEE 802.11, annex J.4: 4096 rounds); a thousand devices of one house have one key.

use std::collections::BTreeSet;
use std::convert::Infallible;

use super::Fleet;
use crate::credentials::{Pmk, Psk, Security, Ssid};
use crate::make::parallel;

/// Puts the key in place of the passphrase wherever a network wants only that. WPA3 works with the passphrase itself.
pub fn derive_keys(fleet: &mut Fleet) {
    let networks = fleet
        .devices
        .iter()
        .flat_map(|device| &device.site.networks);
    let wanted: BTreeSet<(&[u8], &str)> = networks
        .filter_map(|network| Some((network.ssid.as_bytes(), passphrase_of(&network.security)?)))
        .collect();
    let wanted: Vec<(Vec<u8>, String)> = wanted
        .into_iter()
        .map(|(ssid, passphrase)| (ssid.to_vec(), passphrase.to_owned()))
        .collect();
    let derive = |(ssid, passphrase): (Vec<u8>, String)| {
        let pmk = derive(&ssid, &passphrase);
        Ok::<_, Infallible>(((ssid, passphrase), pmk))
    };
    let Ok(derived) = parallel::map(wanted, derive);
    let networks = fleet
        .devices
        .iter_mut()
        .flat_map(|device| &mut device.site.networks);
    for network in networks {
        let Some(passphrase) = passphrase_of(&network.security) else {
            continue;
        };
        let wanted = (network.ssid.as_bytes(), passphrase);
        let found = derived
            .binary_search_by(|((ssid, passphrase), _)| (&ssid[..], &passphrase[..]).cmp(&wanted));
        if let Some(pmk) = found.ok().and_then(|at| derived[at].1.clone()) {
            network.security = Security::Wpa2(Psk::Pmk(pmk));
        }
    }
}

fn passphrase_of(security: &Security) -> Option<&str> {
    match security {
        Security::Wpa2(Psk::Passphrase(passphrase)) => Some(passphrase.reveal()),
        Security::Wpa2(Psk::Pmk(_))
        | Security::Open
        | Security::Wpa3(_)
        | Security::Mixed(_)
        | Security::Enterprise(_) => None,
    }
}

fn derive(ssid: &[u8], passphrase: &str) -> Option<Pmk> {
    let ssid = Ssid::new(ssid).ok()?;
    Some(Psk::parse(passphrase.as_bytes()).ok()?.to_pmk(&ssid))
}
