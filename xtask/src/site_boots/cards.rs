//! The cards that are booted: how each is made, with the commands that people type, and what it has to become of it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use imagegen::card::site::load_settings;
use imagegen::fleet::base::Base;
use imagegen::make::disk::{Draft, ImageFormat};
use toml::Value;

use super::Made;
use super::imager;
use super::mistakes::make_mistakes;
use super::seen::{Address, Expected};
use crate::networks::{COUNTRY, OPEN_SSID, PASSPHRASE, SSID, WPA3_SSID};
use crate::office;

/// A card, and what is to be seen when it is booted.
pub struct Card {
    /// What it is called.
    pub name: &'static str,
    /// Makes its image.
    pub make: fn(&Desk) -> Result<Made>,
    /// What it is booted among.
    pub air: Air,
    /// What is to be seen.
    pub expected: Expected,
}

/// What is in the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Air {
    /// `home`, `wpa3` and `open`.
    Usual,
    /// The network whose members a server admits.
    Office,
    /// Another one that is called the same, with a server that somebody else vouches for.
    Impostor,
}

impl Air {
    /// Returns what the kit is told of it, on the kernel's command line.
    pub fn words(self) -> &'static str {
        match self {
            Air::Usual => "",
            Air::Office => "e2e.air=office",
            Air::Impostor => "e2e.air=impostor",
        }
    }
}

/// All of them.
pub const CARDS: &[Card] = &[
    Card {
        name: "listed-static",
        make: |desk| desk.listed("counter"),
        air: Air::Usual,
        expected: Expected {
            network: "home",
            hostname: "bar-counter",
            ssh_key: None,
            tells: true,
            address: Address::Static {
                address: "192.168.77.55/24",
                gateway: "192.168.77.1",
            },
        },
    },
    Card {
        name: "listed-dhcp",
        make: |desk| desk.listed("office-3"),
        air: Air::Usual,
        expected: Expected {
            network: "wpa3",
            hostname: "office-3",
            ssh_key: None,
            tells: true,
            address: Address::Leased {
                subnet: "10.88.3.",
                gateway: "10.88.3.1",
            },
        },
    },
    Card {
        name: "listed-open",
        make: |desk| desk.listed("lobby"),
        air: Air::Usual,
        expected: Expected {
            network: "open",
            hostname: "lobby-screen",
            ssh_key: None,
            tells: true,
            address: Address::Static {
                address: "172.16.44.9/24",
                gateway: "172.16.44.1",
            },
        },
    },
    Card {
        name: "edited",
        make: edited,
        air: Air::Usual,
        expected: Expected {
            network: "open",
            hostname: "moved",
            ssh_key: None,
            tells: true,
            address: Address::Leased {
                subnet: "172.16.44.",
                gateway: "172.16.44.1",
            },
        },
    },
    Card {
        name: "edited-packed",
        make: edited_packed,
        air: Air::Usual,
        expected: Expected {
            network: "wpa3",
            hostname: "moved-too",
            ssh_key: None,
            tells: false,
            address: Address::Static {
                address: "10.88.3.77/24",
                gateway: "10.88.3.1",
            },
        },
    },
    Card {
        name: "imager",
        make: imager::make,
        air: Air::Usual,
        expected: Expected {
            network: "home",
            hostname: imager::HOSTNAME,
            ssh_key: Some(imager::SSH_KEY),
            tells: false,
            address: Address::Leased {
                subnet: "192.168.77.",
                gateway: "192.168.77.1",
            },
        },
    },
    // Its own network is the one without a mistake; what is mistaken is as if nobody had said anything, and tells nothing of itself.
    Card {
        name: "mistaken",
        make: mistaken,
        air: Air::Usual,
        expected: Expected {
            network: "home",
            hostname: "footbridge",
            ssh_key: None,
            tells: false,
            address: Address::Leased {
                subnet: "192.168.77.",
                gateway: "192.168.77.1",
            },
        },
    },
    Card {
        name: "peap",
        make: |desk| member(desk, &by_password()),
        air: Air::Office,
        expected: MEMBER,
    },
    Card {
        name: "eap-tls",
        make: |desk| member(desk, &by_certificate()),
        air: Air::Office,
        expected: MEMBER,
    },
    Card {
        name: "impostor",
        make: |desk| member(desk, &by_password()),
        air: Air::Impostor,
        expected: Expected {
            network: "",
            hostname: "clerk",
            ssh_key: None,
            tells: false,
            address: Address::None,
        },
    },
];

/// A member of the network with a server, however it proves that it is one.
const MEMBER: Expected = Expected {
    network: "office",
    hostname: "clerk",
    ssh_key: None,
    tells: true,
    address: Address::Leased {
        subnet: "10.60.5.",
        gateway: "10.60.5.1",
    },
};

/// The folder in which commands are typed, and what is there to begin with.
pub struct Desk<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// The board that all cards are for.
    pub board: &'a str,
    /// A compressed image for the network `home`, with its address by DHCP.
    pub packed: &'a Path,
    /// The agent's program.
    pub agent: &'a Path,
    /// The time of everything on an image, seconds since 1970.
    pub time: u32,
}

impl Desk<'_> {
    /// Writes the list of devices and the passphrase, and has the bundles and their image made.
    pub fn lay_out(&self) -> Result<()> {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let (board, home, wpa3, open) = (
            self.board,
            quoted(SSID),
            quoted(WPA3_SSID),
            quoted(OPEN_SSID),
        );
        let list = format!(
            "name,board,country,hostname,ssid,security,psk-file,address,gateway,dns\n\
             counter,{board},{COUNTRY},bar-counter,{home},wpa2,passphrase,192.168.77.55/24,192.168.77.1,192.168.77.1\n\
             office-3,{board},{COUNTRY},,{wpa3},wpa3,passphrase,dhcp,,\n\
             lobby,{board},{COUNTRY},lobby-screen,{open},open,,172.16.44.9/24,172.16.44.1,\n"
        );
        self.put("fleet.csv", &list)?;
        self.put("passphrase", &format!("{PASSPHRASE}\n"))?;
        let build: [&OsStr; 7] = [
            "fleet".as_ref(),
            "build".as_ref(),
            "fleet.csv".as_ref(),
            "--output".as_ref(),
            "made".as_ref(),
            "--agent".as_ref(),
            self.agent.as_ref(),
        ];
        self.run(&build)
    }

    /// Writes a file there.
    pub fn put(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.folder.join(name), text).with_context(|| format!("while writing {name}"))
    }

    /// Runs this program as it is typed, in the folder.
    pub fn run(&self, words: &[impl AsRef<OsStr>]) -> Result<()> {
        // By its name it may be another by now: the tests build this program as well (proc(5)).
        let outcome = Command::new("/proc/self/exe")
            .args(words)
            .current_dir(self.folder)
            .output()
            .context("while starting this program")?;
        if outcome.status.success() {
            return Ok(());
        }
        let words: Vec<_> = words
            .iter()
            .map(|word| word.as_ref().to_string_lossy())
            .collect();
        let said = String::from_utf8_lossy(&outcome.stderr);
        bail!("`cargo xtask {}` failed:\n{said}", words.join(" "))
    }

    /// The image of a device, as `fleet images` makes it.
    fn listed(&self, device: &str) -> Result<Made> {
        self.run(&[
            "fleet",
            "images",
            "fleet.csv",
            "--output",
            "made",
            "--device",
            device,
        ])?;
        Ok(Made::of(
            self.folder.join("made").join(format!("{device}.img")),
        ))
    }
}

/// A device's image, with its static address, moved to a network that has neither a key nor that address.
fn edited(desk: &Desk) -> Result<Made> {
    let made = desk.listed("counter")?;
    let image = made.image.to_string_lossy();
    desk.run(&[
        "site",
        &image,
        "--ssid",
        OPEN_SSID,
        "--open",
        "--dhcp",
        "--hostname",
        "moved",
    ])?;
    Ok(made)
}

/// A compressed image, with its address by DHCP, moved to a network where it has a static one.
fn edited_packed(desk: &Desk) -> Result<Made> {
    let image = desk.packed.to_string_lossy();
    desk.run(&[
        "site",
        &image,
        "--ssid",
        WPA3_SSID,
        "--security",
        "wpa3",
        "--psk-file",
        "passphrase",
        "--address",
        "10.88.3.77/24",
        "--gateway",
        "10.88.3.1",
        "--hostname",
        "moved-too",
    ])?;
    Ok(Made::of(desk.packed.to_owned()))
}

/// A device's image, with its static address, moved to the network with a server.
fn member(desk: &Desk, proof: &str) -> Result<Made> {
    let made = desk.listed("counter")?;
    let [ssid, server] = [office::SSID, office::SERVER_NAME].map(Value::from);
    let config = format!(
        "country = \"{COUNTRY}\"\nhostname = \"clerk\"\n\n[[network]]\nssid = {ssid}\nca-file = \"{}\"\nserver-name = {server}\n{proof}\n\
         [uplink]\naddress = \"dhcp\"\n",
        office::AUTHORITY,
    );
    desk.put("office.toml", &config)?;
    let image = made.image.to_string_lossy();
    desk.run(&["site", &image, "--config", "office.toml"])?;
    Ok(made)
}

fn by_password() -> String {
    let [identity, anonymous, password] = [
        office::IDENTITY,
        office::ANONYMOUS_IDENTITY,
        office::PASSWORD,
    ]
    .map(Value::from);
    format!(
        "security = \"peap\"\nidentity = {identity}\nanonymous-identity = {anonymous}\npassword = {password}\n"
    )
}

fn by_certificate() -> String {
    format!(
        "security = \"eap-tls\"\nidentity = \"{}\"\ncertificate-file = \"{}\"\nkey-file = \"{}\"\nkey-password-file = \"{}\"\n",
        office::MACHINE,
        office::MEMBER,
        office::MEMBER_KEY,
        office::MEMBER_KEY_PASSWORD,
    )
}

/// A device's image after somebody made mistakes in each file of its `site/`.
fn mistaken(desk: &Desk) -> Result<Made> {
    let right = desk.listed("counter")?.image;
    let mut site = load_settings(&right)?.site;
    let faults = make_mistakes(&mut site)?;
    let site = site
        .into_iter()
        .map(|(name, bytes)| (name, bytes.into()))
        .collect();
    let image = desk.folder.join("mistaken.img");
    let draft = Draft::create(&image, ImageFormat::Img)?;
    Base::open(&right, desk.time)?.write(draft, &site)?;
    Ok(Made {
        faults,
        ..Made::of(image)
    })
}
