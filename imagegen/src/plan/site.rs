//! The files of `site/`: a card's options, rendered from `overlays/site/`. The same for a new image and for the change of one.
//!
//! Templates hold what a file says for every site. Settings of the bridge and a static address are put into the rendered text by the code
//! that also puts them into a file a person has edited.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tera::Context;

use crate::board::Board;
use crate::credentials::Security;
use crate::credentials::enterprise::{Enterprise, Proof};
use crate::overlays::Overlays;
use crate::plan::overlay::{OverlayPlanError, PlannedNode, interfaces, render_files};
use crate::site::address::UplinkAddress;
use crate::site::{CountryCode, Network, SiteOptions};
use crate::tree::Node;

/// Name of the supplicant's file.
pub const SUPPLICANT_FILE: &str = "wpa_supplicant.conf";

/// Name of the file with the uplink's address.
pub const UPLINK_FILE: &str = "uplink.network";

/// Name of the bridge's settings.
pub const AGENT_FILE: &str = "footbridge.toml";

/// Name of the file with the host's name.
pub const HOSTNAME_FILE: &str = "hostname";

/// Name of the file with the keys that may log in.
pub const SSH_KEYS_FILE: &str = "authorized_keys";

/// Renders the files of `site/`, by name. Those that a choice leaves without contents are left out.
pub fn plan_site(
    board: &Board,
    overlays: &Overlays,
    site: &SiteOptions,
) -> Result<BTreeMap<String, PlannedNode>, OverlayPlanError> {
    let mut context = interfaces(board);
    let keys = site.ssh_keys.as_ref().map(|keys| keys.lines());
    context.insert("hostname", &site.hostname.to_string());
    context.insert("ssh_keys", &keys.unwrap_or_default());
    context.insert("country", &site.country.as_ref().map(ToString::to_string));
    insert_networks(&mut context, &site.networks);
    let mut files = render_files("site", &overlays.site, &context)?;
    if site.ssh_keys.is_none() {
        files.remove(SSH_KEYS_FILE);
    }
    if site.address != UplinkAddress::Dhcp {
        edit(&mut files, UPLINK_FILE, |text| site.address.edit(text))?;
    }
    if !site.agent.is_empty() {
        edit(&mut files, AGENT_FILE, |text| site.agent.edit(text))?;
    }
    for (name, bytes) in credential_files(&site.networks) {
        let planned = PlannedNode {
            node: Node::file(0o644, bytes),
            source: "credentials".to_owned(),
        };
        files.insert(name, planned);
    }
    Ok(files)
}

/// Renders the supplicant's file for networks alone.
pub fn render_supplicant(
    overlays: &Overlays,
    networks: &[Network],
    country: Option<&CountryCode>,
) -> Result<String, OverlayPlanError> {
    let mut context = Context::new();
    context.insert("country", &country.map(ToString::to_string));
    insert_networks(&mut context, networks);
    let template = format!("{SUPPLICANT_FILE}.tera");
    let files = overlays.site.get_key_value(&template);
    let files = files.map(|(name, bytes)| (name.clone(), bytes.clone()));
    let rendered = render_files("site", &files.into_iter().collect(), &context)?;
    let bytes = rendered
        .get(SUPPLICANT_FILE)
        .and_then(|file| file.node.bytes());
    let bytes = bytes.ok_or(OverlayPlanError::Stale {
        table: "site",
        path: template,
    })?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Returns the certificates and keys of networks, as files of `site/`, by name.
pub fn credential_files(networks: &[Network]) -> BTreeMap<String, Arc<[u8]>> {
    let mut files = BTreeMap::new();
    for network in networks {
        let Security::Enterprise(enterprise) = &network.security else {
            continue;
        };
        let authority = &enterprise.authority;
        files.insert(authority.file_name(AUTHORITY), authority.pem().clone());
        if let Proof::Tls {
            certificate, key, ..
        } = &enterprise.proof
        {
            files.insert(
                certificate.file_name(CERTIFICATE),
                certificate.pem().clone(),
            );
            files.insert(key.file_name(), key.reveal_pem().clone());
        }
    }
    files
}

const AUTHORITY: &str = "ca";
const CERTIFICATE: &str = "certificate";

/// Changes the text of a rendered file.
fn edit<E: std::error::Error>(
    files: &mut BTreeMap<String, PlannedNode>,
    name: &str,
    change: impl Fn(&str) -> Result<String, E>,
) -> Result<(), OverlayPlanError> {
    let planned = files.get_mut(name).ok_or_else(|| OverlayPlanError::Stale {
        table: "site",
        path: name.to_owned(),
    })?;
    let text = String::from_utf8_lossy(planned.node.bytes().map_or(&[], |bytes| bytes));
    let text = change(&text).map_err(|error| OverlayPlanError::Template {
        path: format!("site/{name}"),
        reason: error.to_string(),
    })?;
    planned.node = Node::file(0o644, text.into_bytes());
    Ok(())
}

fn insert_networks(context: &mut Context, networks: &[Network]) {
    let networks: Vec<NetworkText> = networks.iter().map(NetworkText::of).collect();
    context.insert("networks", &networks);
    context.insert("sae", &networks.iter().any(|network| network.sae));
}

/// The words of wpa_supplicant's file for a network.
#[derive(Serialize)]
struct NetworkText<'a> {
    ssid_hex: String,
    ssid_printable: String,
    hidden: bool,
    priority: u8,
    key_mgmt: &'static str,
    sae: bool,
    pmk: Option<String>,
    passphrase: Option<&'a str>,
    /// Protection of management frames: 1 where the access point has it, 2 always.
    ieee80211w: Option<u8>,
    eap: Option<EapText<'a>>,
}

impl<'a> NetworkText<'a> {
    fn of(network: &'a Network) -> Self {
        let plain = NetworkText {
            ssid_hex: network.ssid.to_hex(),
            ssid_printable: network.ssid.to_printable(),
            hidden: network.hidden,
            priority: network.priority,
            key_mgmt: "NONE",
            sae: false,
            pmk: None,
            passphrase: None,
            ieee80211w: None,
            eap: None,
        };
        match &network.security {
            Security::Open => plain,
            Security::Wpa2(psk) => NetworkText {
                key_mgmt: "WPA-PSK",
                pmk: Some(psk.to_pmk(&network.ssid).reveal_hex()),
                ..plain
            },
            Security::Wpa3(passphrase) => NetworkText {
                key_mgmt: "SAE",
                sae: true,
                passphrase: Some(passphrase.reveal()),
                ieee80211w: Some(2),
                ..plain
            },
            Security::Mixed(passphrase) => NetworkText {
                key_mgmt: "SAE WPA-PSK",
                sae: true,
                passphrase: Some(passphrase.reveal()),
                ieee80211w: Some(1),
                ..plain
            },
            Security::Enterprise(enterprise) => NetworkText {
                key_mgmt: "WPA-EAP WPA-EAP-SHA256",
                ieee80211w: Some(1),
                eap: Some(EapText::of(enterprise)),
                ..plain
            },
        }
    }
}

/// The words for a network with a server. wpa_supplicant takes a quoted value to its last quote and knows no escapes in it.
#[derive(Serialize)]
struct EapText<'a> {
    method: &'static str,
    identity: &'a str,
    anonymous_identity: Option<&'a str>,
    password: Option<&'a str>,
    ca: String,
    server_name: Option<&'a str>,
    certificate: Option<String>,
    key: Option<String>,
    key_password: Option<&'a str>,
    phase2: Option<&'static str>,
}

impl<'a> EapText<'a> {
    fn of(enterprise: &'a Enterprise) -> Self {
        let common = EapText {
            method: "TLS",
            identity: enterprise.identity.as_str(),
            anonymous_identity: None,
            password: None,
            ca: enterprise.authority.file_name(AUTHORITY),
            server_name: enterprise.server_name.as_ref().map(|name| name.as_str()),
            certificate: None,
            key: None,
            key_password: None,
            phase2: None,
        };
        match &enterprise.proof {
            Proof::Tls {
                certificate,
                key,
                key_password,
            } => EapText {
                certificate: Some(certificate.file_name(CERTIFICATE)),
                key: Some(key.file_name()),
                key_password: key_password.as_ref().map(|password| password.reveal()),
                ..common
            },
            Proof::Peap {
                password,
                anonymous_identity,
            } => EapText {
                method: "PEAP",
                anonymous_identity: anonymous_identity.as_ref().map(|name| name.as_str()),
                password: Some(password.reveal()),
                phase2: Some("auth=MSCHAPV2"),
                ..common
            },
        }
    }
}
