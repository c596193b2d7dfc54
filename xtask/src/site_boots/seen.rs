//! What a guest's console tells, and whether it is what was expected. Pure.
//!
//! The kit writes `E2E saw WHAT VALUE` a line; the image's init says a fault of `site/` as `footbridge: site/FILE, line N: ...; next: ...`, and
//! other things about a file without a next step.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::fleet::status::ask::{Answer, STATUS_PORT, parse};
use crate::guest::parse_check;
use crate::networks::{OPEN_SSID, SSID, WPA3_SSID};
use crate::office;

/// What is to be seen of a card.
pub struct Expected {
    /// The network that has it as a guest; there is no other. Empty if none has.
    pub network: &'static str,
    /// What it calls itself.
    pub hostname: &'static str,
    /// The SSH key that may log in; without one there is no server.
    pub ssh_key: Option<&'static str>,
    /// Whether it tells machines of its network how it is.
    pub tells: bool,
    /// The address of its Wi-Fi side.
    pub address: Address,
}

/// An address, and the gateway that goes with it.
pub enum Address {
    /// Written on the card.
    Static {
        /// With the length of its network.
        address: &'static str,
        gateway: &'static str,
    },
    /// Given by the network, whose server knows the device's name then.
    Leased {
        /// How it begins.
        subnet: &'static str,
        gateway: &'static str,
    },
    /// None at all.
    None,
}

/// What a card has to tell of its files: the beginnings of lines, all of them.
#[derive(Clone, Copy, Default)]
pub struct Told<'a> {
    /// What is wrong, on the console and in the status.
    pub faults: &'a [String],
    /// What is not, on the console.
    pub notes: &'a [String],
}

/// What a guest told on its console.
pub struct Seen {
    facts: BTreeMap<String, String>,
    /// Checks that failed, with what was seen instead.
    failed: Vec<String>,
    /// Faults of `site/` as the console has them.
    console: Vec<String>,
    /// What else the console says about files of the card.
    notes: Vec<String>,
    /// Faults of `site/` as the status has them.
    status: Vec<String>,
    /// Whether the kit came to its end.
    whole: bool,
}

impl Seen {
    /// Takes a console's lines apart; `whole` is whether the kit came to its end.
    pub fn on(lines: &[String], whole: bool) -> Self {
        let facts: BTreeMap<String, String> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("E2E saw ")?.split_once(' '))
            .map(|(what, value)| (what.to_owned(), value.trim().to_owned()))
            .collect();
        let failed = lines
            .iter()
            .filter_map(|line| parse_check(line))
            .filter(|check| !check.passed)
            .map(|check| format!("{} failed: {}", check.name, check.detail))
            .collect();
        let (console, notes) = lines
            .iter()
            .filter_map(|line| line.strip_prefix("footbridge: "))
            .filter(|said| is_of_a_file(said))
            .map(ToOwned::to_owned)
            .partition(|said| said.contains("; next: "));
        let status = facts.get("status").map_or("", String::as_str);
        Seen {
            status: problems(status)
                .into_iter()
                .filter(|what| is_of_a_file(what))
                .collect(),
            facts,
            failed,
            console,
            notes,
            whole,
        }
    }

    /// Returns what is wrong, a line each: what was expected, and what was seen.
    pub fn judge(&self, expected: &Expected, told: &Told) -> Vec<String> {
        let mut wrong = self.failed.clone();
        if !self.whole {
            wrong.push("the guest ended, or hung, before it had told all".into());
        }
        let mut differs = |what: &str, expected: &dyn fmt::Display, is_right: bool| {
            if !is_right {
                wrong.push(format!(
                    "{what}: expected {expected}, saw `{}`",
                    self.fact(what)
                ));
            }
        };
        let mut equals = |what: &str, value: &str| differs(what, &value, self.fact(what) == value);
        equals("network", expected.network);
        equals("hostname", expected.hostname);
        equals("ssh-keys", expected.ssh_key.unwrap_or_default());
        match &expected.address {
            Address::Static { address, gateway } => {
                equals("address", address);
                equals("gateway", gateway);
                equals("lease-name", "");
            }
            Address::None => ["address", "gateway", "lease-name"]
                .into_iter()
                .for_each(|what| equals(what, "")),
            Address::Leased { subnet, gateway } => {
                equals("gateway", gateway);
                equals("lease-name", expected.hostname);
                let is_one = !self.fact("address").contains(' ');
                let is_there = self.fact("address").starts_with(subnet);
                let wanted = format!("one address {subnet}N");
                differs("address", &wanted, is_one && is_there);
            }
        }
        if expected.ssh_key.is_some() {
            let answers = self.fact("ssh").starts_with("SSH-2.0-");
            differs("ssh", &"the greeting of a server", answers);
        }
        wrong.extend(self.judge_told(expected));
        for (place, lines, wanted) in [
            ("on the console", &self.console, told.faults),
            ("on the console", &self.notes, told.notes),
            ("in the status", &self.status, told.faults),
        ] {
            for beginning in wanted {
                if !lines.iter().any(|line| line.starts_with(beginning)) {
                    wrong.push(format!("{place}: nothing begins with `{beginning}`"));
                }
            }
            for line in lines {
                if !wanted.iter().any(|beginning| line.starts_with(beginning)) {
                    wrong.push(format!("{place}: unexpected: {line}"));
                }
            }
        }
        wrong
    }

    /// Returns what is wrong with what the device tells machines of its network, as `cargo xtask fleet status` reads it.
    fn judge_told(&self, expected: &Expected) -> Vec<String> {
        let said = self.fact("told");
        if !expected.tells {
            let told = (!said.is_empty()).then(|| format!("told: expected nothing, saw `{said}`"));
            return told.into_iter().collect();
        }
        let address = self.fact("address").split('/').next().unwrap_or_default();
        let address = address.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let answer = match parse(said.as_bytes(), SocketAddrV4::new(address, STATUS_PORT)) {
            Ok(answer) => answer,
            Err(why) => return vec![format!("told: {why}: `{said}`")],
        };
        let wanted = Answer {
            name: expected.hostname.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: "bridging".to_owned(),
            uplink: "wlan0".to_owned(),
            ssid: ssid_of(expected.network).map(ToOwned::to_owned),
            problems: problems(self.fact("status")).len() as u64,
            ..answer.clone()
        };
        let mut wrong = Vec::new();
        if answer != wanted {
            wrong.push(format!("told: expected {wanted:?}, saw {answer:?}"));
        }
        if answer.signal_dbm.is_none_or(|signal| signal >= 0) {
            wrong.push(format!("told: no signal in `{said}`"));
        }
        if answer.uptime.is_none_or(|uptime| uptime == 0) {
            wrong.push(format!("told: no uptime in `{said}`"));
        }
        let found = self.fact("found");
        for name in [expected.hostname, "_footbridge"] {
            if !found.contains(name) {
                wrong.push(format!("found: no {name} in `{found}`"));
            }
        }
        wrong
    }

    /// Returns what was seen of the network, in a line.
    pub fn in_short(&self) -> String {
        let tells = match self.fact("told") {
            "" => "",
            _ => ", tells how it is",
        };
        format!(
            "network {}, name {}, address {} by way of {}{tells}",
            self.fact("network"),
            self.fact("hostname"),
            self.fact("address"),
            self.fact("gateway")
        )
    }

    /// Returns what the console told of files.
    pub fn told(&self) -> impl Iterator<Item = &String> {
        self.notes.iter().chain(&self.console)
    }

    fn fact(&self, what: &str) -> &str {
        self.facts.get(what).map_or("", String::as_str)
    }
}

fn is_of_a_file(said: &str) -> bool {
    ["site/", "rpi-preseed.toml"]
        .iter()
        .any(|place| said.starts_with(place))
}

/// Returns the name of a network as devices tell it.
fn ssid_of(network: &str) -> Option<&'static str> {
    let names = [
        ("home", SSID),
        ("wpa3", WPA3_SSID),
        ("open", OPEN_SSID),
        ("office", office::SSID),
    ];
    let of = names.iter().find(|(name, _)| *name == network);
    of.map(|(_, ssid)| *ssid)
}

/// Returns what is wrong by a status in JSON; nothing where that is none.
fn problems(status: &str) -> Vec<String> {
    let status: serde_json::Value = serde_json::from_str(status).unwrap_or_default();
    let problems = status["problems"].as_array().into_iter().flatten();
    problems
        .filter_map(|problem| problem["what"].as_str().map(ToOwned::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected {
        network: "home",
        hostname: "footbridge",
        ssh_key: None,
        tells: false,
        address: Address::Leased {
            subnet: "192.168.77.",
            gateway: "192.168.77.1",
        },
    };

    fn judged(lines: &str, faults: &[&str]) -> Vec<String> {
        let lines: Vec<String> = lines.lines().map(ToOwned::to_owned).collect();
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let told = Told {
            faults: &faults,
            notes: &[],
        };
        Seen::on(&lines, true).judge(&EXPECTED, &told)
    }

    const RIGHT: &str = "E2E saw network home \nE2E saw hostname footbridge \nE2E saw address 192.168.77.130/24 \n\
        E2E saw gateway 192.168.77.1 \nE2E saw lease-name footbridge \n";

    #[test]
    fn what_is_right_and_what_is_told_of_faults() {
        assert!(judged(RIGHT, &[]).is_empty());
        let told = format!(
            "{RIGHT}footbridge: starting\nfootbridge: site/hostname, line 1: not a name; next: name it\n\
             E2E saw status {{\"problems\":[{{\"what\":\"site/hostname, line 1: not a name\",\"next\":\"\"}},{{\"what\":\"no cable\"}}]}}\n"
        );
        assert!(judged(&told, &["site/hostname, line 1: "]).is_empty());
        assert_eq!(
            judged(&told, &[]),
            [
                "on the console: unexpected: site/hostname, line 1: not a name; next: name it",
                "in the status: unexpected: site/hostname, line 1: not a name"
            ]
        );
        assert_eq!(
            judged(RIGHT, &["site/hostname, line 1: "]),
            [
                "on the console: nothing begins with `site/hostname, line 1: `",
                "in the status: nothing begins with `site/hostname, line 1: `"
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_what_was_expected() {
        let lines = RIGHT
            .replace("network home", "network home open")
            .replace("hostname footbridge", "hostname other")
            .replace("77.130/24", "77.130/24 10.0.0.1/8");
        assert_eq!(
            judged(&format!("E2E FAIL bridging 120000 at 9 ms\n{lines}"), &[]),
            [
                "bridging failed: at 9 ms",
                "network: expected home, saw `home open`",
                "hostname: expected footbridge, saw `other`",
                "address: expected one address 192.168.77.N, saw `192.168.77.130/24 10.0.0.1/8`"
            ]
        );
        let nothing = Seen::on(&[], false).judge(&EXPECTED, &Told::default());
        assert_eq!(
            nothing[0],
            "the guest ended, or hung, before it had told all"
        );
        assert_eq!(nothing.len(), 6, "{nothing:?}");
    }

    #[test]
    fn what_is_told_of_files_is_expected_and_whoever_may_log_in() {
        let expected = Expected {
            ssh_key: Some("ssh-ed25519 AAAA me"),
            ..EXPECTED
        };
        let note = ["rpi-preseed.toml: taken over".to_owned()];
        let judged = |lines: &str, notes: &[String]| {
            let lines: Vec<String> = lines.lines().map(ToOwned::to_owned).collect();
            Seen::on(&lines, true).judge(&expected, &Told { faults: &[], notes })
        };
        let lines = format!(
            "{RIGHT}footbridge: rpi-preseed.toml: taken over into site/: hostname\n\
             E2E saw ssh-keys ssh-ed25519 AAAA me \nE2E saw ssh SSH-2.0-dropbear \n"
        );
        assert!(judged(&lines, &note).is_empty());
        assert_eq!(
            judged(RIGHT, &note),
            [
                "ssh-keys: expected ssh-ed25519 AAAA me, saw ``",
                "ssh: expected the greeting of a server, saw ``",
                "on the console: nothing begins with `rpi-preseed.toml: taken over`",
            ]
        );
        assert_eq!(
            judged(&lines, &[]),
            ["on the console: unexpected: rpi-preseed.toml: taken over into site/: hostname"]
        );
    }

    #[test]
    fn what_a_device_tells_is_what_fleet_status_would_show() {
        let expected = Expected {
            tells: true,
            ..EXPECTED
        };
        let judged = |told: &str| {
            let version = env!("CARGO_PKG_VERSION");
            let lines = format!(
                "{RIGHT}E2E saw told {told}\nE2E saw found  _footbridge _tcp local  footbridge \n"
            )
            .replace("VERSION", version);
            let lines: Vec<String> = lines.lines().map(ToOwned::to_owned).collect();
            Seen::on(&lines, true).judge(&expected, &Told::default())
        };
        let right = serde_json::json!({
            "name": "footbridge", "version": "VERSION", "state": "bridging", "uplink": "wlan0",
            "ssid": SSID, "signal_dbm": -30, "uptime": 40, "problems": 0,
        });
        assert!(judged(&right.to_string()).is_empty());
        for (key, value) in [
            ("name", "other".into()),
            ("version", "0.0.0".into()),
            ("state", "waiting-for-cable".into()),
            ("ssid", serde_json::Value::Null),
            ("signal_dbm", serde_json::Value::Null),
            ("uptime", 0.into()),
            ("problems", 1.into()),
            ("uplink", 7.into()),
        ] {
            let mut other = right.clone();
            other[key] = value;
            assert_eq!(judged(&other.to_string()).len(), 1, "{key}");
        }
        assert_eq!(judged("").len(), 1);
    }
}
