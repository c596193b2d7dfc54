//! What the user says about the place a card goes to: network, key, country, name, login. Parsed once, secrets kept off the
//! command line where people let us.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use imagegen::credentials::{Passphrase, Psk, Security, Ssid};
use imagegen::site::address::{StaticAddress, UplinkAddress};
use imagegen::site::agent::AgentOptions;
use imagegen::site::config::parse_site_config;
use imagegen::site::{CountryCode, Hostname, Network, SiteChange, SiteOptions, SshKeys};

use crate::usage::{Failure, UsageError};

/// The longest passphrase file that is read; a key has 64 characters.
const PSK_FILE_MAX: u64 = 1024;

/// As much as is read of a file of SSH keys; one has less than a kilobyte.
const SSH_KEYS_MAX: u64 = 1 << 20;

/// As much as is read of a file that a site.toml names, and of itself.
const CONFIG_MAX: u64 = 1 << 20;

/// The site's settings.
#[derive(Clone, Debug, clap::Args)]
pub struct SiteArgs {
    /// File with the settings, several networks among them (the book shows one: docs/src/configuration.md); options here win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the Wi-Fi network, 1 to 32 bytes
    #[arg(long, value_name = "NAME")]
    ssid: Option<OsString>,
    /// File with the network's passphrase (8 to 63 characters) or key (64 hexadecimal digits)
    #[arg(long, value_name = "FILE", group = "key", requires = "ssid")]
    psk_file: Option<PathBuf>,
    /// `-` to read the passphrase from standard input; a passphrase here can be seen by other users of this machine
    #[arg(long, value_name = "PSK", group = "key", requires = "ssid")]
    psk: Option<OsString>,
    /// The network has no encryption
    #[arg(long, group = "key", requires = "ssid")]
    open: bool,
    /// How the network is secured [default: wpa2]
    #[arg(long, value_enum, conflicts_with = "open", requires = "ssid")]
    security: Option<Protocol>,
    /// Two-letter code of the country the radio is used in, such as DE
    #[arg(long, value_name = "CC")]
    country: Option<String>,
    /// What the device calls itself [default: footbridge]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// File with the SSH public keys that may log in as root; without it there is no SSH server
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// The address of the Wi-Fi side with the length of its network, such as 192.168.1.5/24 [default: by DHCP]
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    address: Option<String>,
    /// The gateway that goes with --address
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    gateway: Option<String>,
    /// A name server that goes with --address; may be given again
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    dns: Vec<String>,
    /// The address of the Wi-Fi side comes from the network
    #[arg(long, conflicts_with = "address")]
    dhcp: bool,
    /// A setting of the bridge, such as dhcp.mode=relay; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

/// How a network with a passphrase is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    /// WPA2, which every radio can
    #[default]
    Wpa2,
    /// WPA3 only; the card then holds the passphrase itself
    Wpa3,
    /// WPA3 where the access point has it, else WPA2; the card then holds the passphrase itself
    Mixed,
}

impl SiteArgs {
    /// The options of a new card; a network has to be named.
    pub fn parse(&self) -> Result<SiteOptions> {
        self.parse_change()?.into_options().ok_or_else(|| {
            let advice = "give --ssid NAME, or --config FILE with a [[network]]";
            UsageError::new("no network is named", advice).into()
        })
    }

    /// Checks everything, reads the files named, and asks for the passphrase where it is needed and not given.
    pub fn parse_change(&self) -> Result<SiteChange> {
        let config = self.config.as_deref().map(load_config).transpose()?;
        let ssid = self.ssid.as_deref().map(|ssid| {
            Ssid::new(ssid.as_bytes()).map_err(|error| {
                let advice = "give the network's name with --ssid NAME";
                UsageError::new(error.to_string(), advice)
            })
        });
        let ssid = ssid.transpose()?;
        let mut named = SiteChange {
            networks: None,
            country: self.country.as_deref().map(country).transpose()?,
            hostname: self.hostname.as_deref().map(hostname).transpose()?,
            ssh_keys: self.ssh_key.as_deref().map(ssh_keys).transpose()?,
            address: self.address()?,
            agent: self.agent()?,
        };
        // Last, so that nobody types a passphrase only to be told of another mistake.
        if let Some(ssid) = ssid {
            named.networks = Some(vec![Network::new(ssid, self.security()?)]);
        }
        Ok(config.unwrap_or_default().overridden_by(named))
    }

    fn address(&self) -> Result<Option<UplinkAddress>> {
        if self.dhcp {
            return Ok(Some(UplinkAddress::Dhcp));
        }
        let Some(address) = &self.address else {
            return Ok(None);
        };
        let parsed = StaticAddress::parse(address, self.gateway.as_deref(), &self.dns);
        let parsed = parsed.map_err(|error| {
            let advice =
                "for example: --address 192.168.1.5/24 --gateway 192.168.1.1 --dns 192.168.1.1";
            UsageError::new(error.to_string(), advice)
        })?;
        Ok(Some(UplinkAddress::Static(parsed)))
    }

    fn agent(&self) -> Result<AgentOptions> {
        let mut options = AgentOptions::default();
        for text in &self.set {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                UsageError::new(
                    format!("`{text}` sets nothing"),
                    "for example: --set dhcp.mode=relay",
                )
            })?;
            let setting = AgentOptions::parse_setting(name.trim(), value.trim());
            let setting =
                setting.map_err(|error| UsageError::new(error.to_string(), error.hint()))?;
            options = options.overridden_by(setting);
        }
        Ok(options)
    }

    fn security(&self) -> Result<Security> {
        if self.open {
            return Ok(Security::Open);
        }
        let psk = match (&self.psk_file, &self.psk) {
            (Some(path), _) if path.as_os_str() == "-" => {
                let advice = "--psk - reads the passphrase from standard input";
                return Err(UsageError::new("`-` is no file", advice).into());
            }
            (Some(path), _) => psk(&read_bounded(path, PSK_FILE_MAX)?)
                .with_context(|| format!("while reading the passphrase in {}", path.display()))?,
            (None, Some(text)) if text == "-" && std::io::stdin().is_terminal() => ask()?,
            (None, Some(text)) if text == "-" => psk(&read_stdin()?)?,
            (None, Some(text)) => psk_on_command_line(text)?,
            (None, None) => ask()?,
        };
        Ok(match self.security.unwrap_or_default() {
            Protocol::Wpa2 => Security::Wpa2(psk),
            Protocol::Wpa3 => Security::Wpa3(passphrase(psk)?),
            Protocol::Mixed => Security::Mixed(passphrase(psk)?),
        })
    }
}

/// Loads a site.toml. Files that it names are looked for beside it.
fn load_config(path: &Path) -> Result<SiteChange> {
    let text = String::from_utf8(read_bounded(path, CONFIG_MAX)?).map_err(|_| {
        Failure::new(
            format!("{} is not text in UTF-8", path.display()),
            "the book shows a whole site.toml (docs/src/configuration.md)",
        )
    })?;
    let beside = path.parent().unwrap_or(Path::new(""));
    let read = |name: &Path| {
        let mut bytes = Vec::new();
        fs::File::open(beside.join(name))
            .and_then(|file| file.take(CONFIG_MAX).read_to_end(&mut bytes))
            .map(|_| bytes)
            .map_err(|error| error.to_string())
    };
    parse_site_config(&text, &read)
        .map_err(|error| UsageError::new(format!("{}, {error}", path.display()), error.hint).into())
}

fn hostname(text: &str) -> Result<Hostname> {
    Hostname::parse(text).map_err(|error| {
        UsageError::new(error.to_string(), "choose another one with --hostname NAME").into()
    })
}

fn country(text: &str) -> Result<CountryCode> {
    CountryCode::parse(text)
        .map_err(|error| UsageError::new(error.to_string(), "for example: --country DE").into())
}

fn ssh_keys(path: &Path) -> Result<SshKeys> {
    let bytes = read_bounded(path, SSH_KEYS_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let advice = "give the public half, usually ~/.ssh/id_ed25519.pub; `ssh-keygen` makes a pair";
    SshKeys::parse(&text)
        .map_err(|error| UsageError::new(format!("{}: {error}", path.display()), advice).into())
}

fn psk(bytes: &[u8]) -> Result<Psk> {
    let advice = "8 to 63 printable ASCII characters, or the key as 64 hexadecimal digits; --open for a network without encryption";
    let psk = Psk::parse_line(bytes).map_err(|error| UsageError::new(error.to_string(), advice))?;
    if let Psk::Passphrase(passphrase) = &psk
        && let Some(doubt) = passphrase.doubt()
    {
        say!("warning: the passphrase {doubt}, which is taken for a part of it");
    }
    Ok(psk)
}

/// WPA3 derives a key anew in each session, from what people type only.
fn passphrase(psk: Psk) -> Result<Passphrase> {
    match psk {
        Psk::Passphrase(passphrase) => Ok(passphrase),
        Psk::Pmk(_) => Err(UsageError::new(
            "64 hexadecimal digits are a key for WPA2; WPA3 needs the passphrase",
            "give the network's passphrase, or --security wpa2",
        )
        .into()),
    }
}

fn psk_on_command_line(text: &OsStr) -> Result<Psk> {
    say!(
        "warning: a passphrase on the command line can be seen by other users of this machine and stays in the shell's \
         history; better: --psk-file FILE, or --psk - to read it from standard input"
    );
    psk(text.as_bytes())
}

fn ask() -> Result<Psk> {
    if !std::io::stdin().is_terminal() {
        let advice = "give --psk-file FILE, --psk - (standard input) or --open";
        return Err(UsageError::new("the network's passphrase is needed", advice).into());
    }
    let typed =
        rpassword::prompt_password("Passphrase of the network (not shown): ").map_err(|error| {
            Failure::new(
                format!("no passphrase was typed: {error}"),
                "type it, or give --psk-file FILE or --open",
            )
        })?;
    psk(typed.as_bytes())
}

fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(PSK_FILE_MAX)
        .read_to_end(&mut bytes)
        .context("while reading standard input")?;
    Ok(bytes)
}

fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(max).read_to_end(&mut bytes))
        .map_err(|error| missing(path, &error))?;
    Ok(bytes)
}

fn missing(path: &Path, error: &std::io::Error) -> UsageError {
    UsageError::new(
        format!("cannot read {}: {error}", path.display()),
        "check the path",
    )
}
