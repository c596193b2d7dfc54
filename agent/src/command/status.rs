//! `footbridge status`: asks the running agent how things stand, and shows it as a table or as the JSON it is.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use crate::hint::Hinted;
use crate::shell::run_dir::{DEFAULT_RUN_DIR, status_socket};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Show what the running agent does
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// The run directory of the agent
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
}

/// Asks the agent and prints its answer.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let document = ask(&status_socket(&args.run_dir))?;
    let text = if args.json {
        document
    } else {
        let report = serde_json::from_str(&document).context("while reading the agent's answer")?;
        render(&report)
    };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

fn ask(socket: &Path) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        Hinted::new(
            format!("while connecting to {}", socket.display()),
            "is the agent running, and may this user ask it? Try `systemctl status footbridge`, or sudo",
        )
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut document = String::new();
    stream.read_to_string(&mut document).with_context(|| {
        Hinted::new(
            "while reading the agent's answer",
            "the agent did not answer in time: see `journalctl -u footbridge`",
        )
    })?;
    if document.is_empty() {
        let busy = Hinted::new("the agent serves too many status clients", "try again");
        return Err(busy.into());
    }
    Ok(document)
}

/// The part of the document the table shows. Fields of a newer agent are ignored.
#[derive(Debug, Deserialize)]
struct Shown {
    state: String,
    uplink: ShownInterface,
    downlink: ShownInterface,
    radio: Option<ShownRadio>,
    dhcp: Option<ShownDhcp>,
    hosts: Vec<ShownHost>,
    #[serde(default)]
    problems: Vec<ShownProblem>,
}

#[derive(Debug, Deserialize)]
struct ShownProblem {
    what: String,
    next: String,
}

#[derive(Debug, Deserialize)]
struct ShownInterface {
    name: String,
    index: Option<u32>,
    carrier: bool,
    mac: Option<String>,
    addresses: Vec<String>,
    gateway: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ShownRadio {
    associated: bool,
    ssid: Option<String>,
    bssid: Option<String>,
    signal_dbm: Option<i8>,
    tx_bitrate: Option<u32>,
    frequency: Option<u32>,
    country: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ShownDhcp {
    mode: String,
    remembered: Option<String>,
    servers: Vec<ShownDhcpServer>,
}

#[derive(Debug, Deserialize)]
struct ShownDhcpServer {
    ip: String,
    way: String,
}

#[derive(Debug, Deserialize)]
struct ShownHost {
    ip: String,
    mac: String,
    side: String,
    source: String,
    state: String,
    age: u64,
    lease_end: Option<u64>,
}

fn render(report: &Shown) -> String {
    let mut text = format!("state     {}\n", describe_state(&report.state));
    for (label, interface) in [("uplink", &report.uplink), ("downlink", &report.downlink)] {
        let _ = writeln!(text, "{label:<9} {}", describe_interface(interface));
    }
    if let Some(radio) = &report.radio {
        let _ = writeln!(text, "radio     {}", describe_radio(radio));
    }
    if let Some(dhcp) = &report.dhcp {
        let _ = writeln!(text, "dhcp      {}", describe_dhcp(dhcp));
    }
    text.push_str(&problem_list(&report.problems));
    for (side, title) in [("wired", "ON THE WIRE"), ("uplink", "ON THE UPLINK")] {
        let hosts: Vec<&ShownHost> = report.hosts.iter().filter(|h| h.side == side).collect();
        if !hosts.is_empty() {
            let _ = writeln!(text, "\n{title}: {}", hosts.len());
            text.push_str(&host_table(&hosts));
        }
    }
    text
}

fn describe_state(state: &str) -> &str {
    match state {
        "bridging" => "bridging: hosts on the wire are members of the network",
        "waiting-for-uplink" => "waiting for the uplink: no network to be a member of",
        "waiting-for-cable" => "waiting for the cable: nothing is plugged in",
        "loop" => "loop: both ports are on one network, nothing is served",
        "stopping" => "stopping",
        newer => newer,
    }
}

fn problem_list(problems: &[ShownProblem]) -> String {
    if problems.is_empty() {
        return "problems  none\n".to_owned();
    }
    let mut text = format!("problems  {}\n", problems.len());
    for ShownProblem { what, next } in problems {
        let _ = write!(text, "  ! {what}\n    next: {next}\n");
    }
    text
}

fn describe_interface(interface: &ShownInterface) -> String {
    let mut words = vec![interface.name.clone()];
    words.push(match (interface.index, interface.carrier) {
        (None, _) => "missing".to_owned(),
        (Some(_), false) => "no carrier".to_owned(),
        (Some(_), true) => "carrier".to_owned(),
    });
    words.extend(interface.mac.clone());
    words.extend(interface.addresses.iter().cloned());
    words.extend(
        interface
            .gateway
            .as_ref()
            .map(|gateway| format!("gateway {gateway}")),
    );
    words.join("  ")
}

fn describe_dhcp(dhcp: &ShownDhcp) -> String {
    let way = dhcp.remembered.as_deref().unwrap_or("nobody answered yet");
    let servers = dhcp.servers.iter();
    let servers = servers.map(|server| format!("  {} by {}", server.ip, server.way));
    format!("mode {}  {way}{}", dhcp.mode, servers.collect::<String>())
}

fn describe_radio(radio: &ShownRadio) -> String {
    let mut words = vec![match radio.associated {
        true => "associated".to_owned(),
        false => "not associated".to_owned(),
    }];
    words.extend(radio.ssid.as_ref().map(|ssid| format!("\"{ssid}\"")));
    words.extend(radio.bssid.clone());
    words.extend(radio.frequency.map(|mhz| format!("{mhz} MHz")));
    words.extend(radio.signal_dbm.map(|dbm| format!("{dbm} dBm")));
    let rate = radio.tx_bitrate;
    words.extend(rate.map(|kbit| format!("{} Mbit/s", kbit / 1000)));
    words.extend(radio.country.clone());
    words.join("  ")
}

fn host_table(hosts: &[&ShownHost]) -> String {
    let header = ["ADDRESS", "MAC", "SOURCE", "STATE", "SEEN", "LEASE"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(header)
        .chain(hosts.iter().map(|host| host_row(host)))
        .collect();
    let widths: [usize; 6] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].len())
            .max()
            .unwrap_or_default()
    });
    let mut text = String::new();
    for row in &rows {
        let mut line = "  ".to_owned();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn host_row(host: &ShownHost) -> [String; 6] {
    [
        host.ip.clone(),
        host.mac.clone(),
        host.source.clone(),
        host.state.clone(),
        format!("{} ago", duration_words(host.age)),
        host.lease_end.map_or_else(
            || "-".to_owned(),
            |seconds| format!("{} left", duration_words(seconds)),
        ),
    ]
}

fn duration_words(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_table_lines_up() {
        let report: Shown = serde_json::from_str(
            r#"{"state": "bridging", "counters": {"arp": 3}, "problems": [{"what": "port 67 is taken", "next": "stop dnsmasq"}],
                "uplink": {"name": "wlan0", "index": 3, "carrier": true, "mac": "02:00:00:00:00:01",
                           "addresses": ["192.168.1.2/24"], "gateway": "192.168.1.1"},
                "downlink": {"name": "eth0", "index": null, "carrier": false, "mac": null, "addresses": [], "gateway": null},
                "radio": {"associated": true, "ssid": "home", "bssid": "02:00:00:00:00:aa", "signal_dbm": -61, "tx_bitrate": 65000,
                          "rx_bitrate": null, "frequency": 2412, "country": "DE", "power_save": false},
                "hosts": [
                  {"ip": "192.168.1.50", "mac": "02:00:00:00:00:50", "side": "wired", "source": "dhcp", "state": "verified",
                   "age": 4, "lease_end": 43000},
                  {"ip": "192.168.1.1", "mac": "02:00:00:00:00:99", "side": "uplink", "source": "arp", "state": "verified",
                   "age": 300, "lease_end": null}]}"#,
        )
        .unwrap();
        expect![[r#"
            state     bridging: hosts on the wire are members of the network
            uplink    wlan0  carrier  02:00:00:00:00:01  192.168.1.2/24  gateway 192.168.1.1
            downlink  eth0  missing
            radio     associated  "home"  02:00:00:00:00:aa  2412 MHz  -61 dBm  65 Mbit/s  DE
            problems  1
              ! port 67 is taken
                next: stop dnsmasq

            ON THE WIRE: 1
              ADDRESS       MAC                SOURCE  STATE     SEEN     LEASE
              192.168.1.50  02:00:00:00:00:50  dhcp    verified  4 s ago  11 h left

            ON THE UPLINK: 1
              ADDRESS      MAC                SOURCE  STATE     SEEN       LEASE
              192.168.1.1  02:00:00:00:00:99  arp     verified  5 min ago  -
        "#]]
        .assert_eq(&render(&report));
    }
}
