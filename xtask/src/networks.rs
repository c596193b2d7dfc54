//! The simulated networks that guests of the emulator are booted among: what they are called, how they are secured, and what a card made
//! for each says.
//!
//! Two of them are one network with two kinds of card. The card's file for a network is rendered by the very code that makes cards.
//! The access points' side is the guest's scripts' matter.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use imagegen::board::Board;
use imagegen::credentials::{Passphrase, Psk, Security, Ssid};
use imagegen::plan::site::{SUPPLICANT_FILE, plan_site};
use imagegen::site::{self, CountryCode, SiteOptions};
use imagegen::tree::{Node, Tree};

use crate::image;
use crate::office::Office;
use crate::workspace::Workspace;

/// A network name with all that templates and shells stumble over.
pub const SSID: &str = "Café \"bar\" $x";
/// The name of the network that has WPA3 only.
pub const WPA3_SSID: &str = "Office";
/// The name of the network without encryption.
pub const OPEN_SSID: &str = "Café guests";
/// What all networks with a key have for one.
pub const PASSPHRASE: &str = "correct horse 'battery' \"staple\" $(x) \\";
/// The country that all of them are in.
pub const COUNTRY: &str = "DE";

/// The networks in reach of the guest's radio.
pub struct Networks {
    /// The one the image is made for.
    pub home: Network,
    others: Vec<Network>,
    /// The one whose members a server admits, where it is in the air.
    pub office: Option<Office>,
}

/// A network in the air.
pub struct Network {
    /// What the guest's scripts call it.
    name: &'static str,
    /// What a person says who makes a card for it.
    pub site: SiteOptions,
    ssid: Ssid,
    passphrase: Option<Passphrase>,
}

impl Networks {
    /// Returns them all.
    pub fn new() -> Result<Self> {
        let Psk::Passphrase(passphrase) = Psk::parse(PASSPHRASE.as_bytes())? else {
            bail!("the simulated networks have passphrases");
        };
        let psk = Psk::Passphrase(passphrase.clone());
        let mixed = Security::Mixed(passphrase.clone());
        let some = Some(passphrase.clone());
        Ok(Networks {
            home: Network::new("home", SSID, Security::Wpa2(psk), some.clone())?,
            others: vec![
                Network::new("mixed", SSID, mixed, some.clone())?,
                Network::new("wpa3", WPA3_SSID, Security::Wpa3(passphrase), some)?,
                Network::new("open", OPEN_SSID, Security::Open, None)?,
            ],
            office: None,
        })
    }

    /// Puts what the guest's scripts have to know of each network into their tree.
    pub fn describe(&self, workspace: &Workspace, board: &Board, tree: &mut Tree) -> Result<()> {
        for network in self.others.iter().chain([&self.home]) {
            network.describe(workspace, board, tree)?;
        }
        if let Some(office) = &self.office {
            office.describe(tree)?;
        }
        tree.insert("e2e/country", Node::file(0o644, COUNTRY.as_bytes()))?;
        Ok(())
    }
}

impl Network {
    fn new(
        name: &'static str,
        ssid: &str,
        security: Security,
        passphrase: Option<Passphrase>,
    ) -> Result<Self> {
        let ssid = Ssid::new(ssid)?;
        Ok(Network {
            name,
            site: SiteOptions {
                country: Some(CountryCode::parse(COUNTRY)?),
                ..SiteOptions::joining(site::Network::new(ssid.clone(), security))
            },
            ssid,
            passphrase,
        })
    }

    fn describe(&self, workspace: &Workspace, board: &Board, tree: &mut Tree) -> Result<()> {
        let mut put = |file: &str, contents: Arc<[u8]>| {
            tree.insert(
                format!("e2e/networks/{}/{file}", self.name),
                Node::file(0o600, contents),
            )
        };
        put("ssid", line(&self.ssid.to_hex()))?;
        if let Some(passphrase) = &self.passphrase {
            put("passphrase", line(passphrase.reveal()))?;
        }
        put("wpa_supplicant.conf", self.supplicant(workspace, board)?)?;
        Ok(())
    }

    /// The file of a card that is made for this network.
    fn supplicant(&self, workspace: &Workspace, board: &Board) -> Result<Arc<[u8]>> {
        let files = plan_site(board, &image::overlays(workspace)?, &self.site)?;
        let planned = files.get(SUPPLICANT_FILE);
        planned
            .and_then(|planned| planned.node.bytes().cloned())
            .context("cards have no wpa_supplicant.conf")
    }
}

fn line(text: &str) -> Arc<[u8]> {
    format!("{text}\n").into_bytes().into()
}
