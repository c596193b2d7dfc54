//! The notation of a story's outputs: one line for each action, frames decoded.

use std::collections::BTreeSet;

use footbridge_agent::addr::{IfIndex, MacAddr, Side};
use footbridge_agent::engine::{Action, Change, Sysctl};
use footbridge_agent::wire::arp::{self, ArpError, Operation};
use footbridge_agent::wire::discovery::Protocol;
use footbridge_agent::wire::ethernet::{self, Frame};
use footbridge_agent::wire::loop_probe;

use super::dhcp_talk;
use super::discovery_talk;
use super::radio;
use super::script::Names;

/// Returns the lines for the actions; held and released settings of one interface share a line.
pub(super) fn render(actions: &[Action], names: &Names, loop_probes: bool) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for action in actions {
        let line = match action {
            Action::OpenPort {
                side,
                index,
                promiscuous,
                protocols,
            } => format!(
                "open {side} {index}{}{}",
                if *promiscuous { " promiscuous" } else { "" },
                render_protocols(protocols)
            ),
            Action::ClosePort { side } => format!("close {side}"),
            Action::OpenStatus { index, address } => {
                format!("serve status at {address} of {index}")
            }
            Action::CloseStatus => "serve status no longer".to_owned(),
            Action::StateChanged { from, to } => format!("state {from:?} -> {to:?}"),
            Action::Finished => "finished".to_owned(),
            Action::Send { frame, .. }
                if !loop_probes && (is_loop_probe(frame) || is_loop_arp(frame)) =>
            {
                continue;
            }
            Action::Send { side, frame } => {
                format!("send {side} {}", render_frame(*side, frame, names))
            }
            Action::Apply(Change::HoldSysctl { sysctl, value }) => {
                let (prefix, item) = (
                    format!("hold {}", interface(sysctl)),
                    format!(" {}={value}", sysctl.setting),
                );
                append(&mut lines, prefix, &item);
                continue;
            }
            Action::Apply(Change::ReleaseSysctl { sysctl }) => {
                let prefix = format!("release {}", interface(sysctl));
                append(&mut lines, prefix, &format!(" {}", sysctl.setting));
                continue;
            }
            Action::Apply(change) => render_change(change, names),
            Action::Radio(action) => match radio::render(action) {
                Some(line) => line,
                None => continue,
            },
        };
        lines.push(line);
    }
    lines
}

pub(super) fn is_loop_probe(frame: &[u8]) -> bool {
    loop_probe::decode(&ethernet::decode(frame).unwrap()).is_some()
}

/// Whether a frame of ours is the ARP form of a loop probe: no other ARP request of ours names a target's hardware address.
pub(super) fn is_loop_arp(frame: &[u8]) -> bool {
    let arp = arp::decode(&ethernet::decode(frame).unwrap());
    arp.is_ok_and(|arp| arp.operation == Operation::Request && !arp.tha.is_zero())
}

/// All of them go without saying.
fn render_protocols(protocols: &BTreeSet<Protocol>) -> String {
    let names: Vec<String> = protocols.iter().map(Protocol::to_string).collect();
    match protocols.len() == Protocol::ALL.len() {
        true => String::new(),
        false => format!(" hearing {}", names.join(", ")),
    }
}

fn append(lines: &mut Vec<String>, prefix: String, item: &str) {
    match lines.last_mut() {
        Some(last) if last.starts_with(&format!("{prefix} ")) => last.push_str(item),
        Some(_) | None => lines.push(prefix + item),
    }
}

fn interface(sysctl: &Sysctl) -> String {
    sysctl
        .index
        .map_or("all".to_owned(), |index: IfIndex| index.to_string())
}

fn render_change(change: &Change, names: &Names) -> String {
    match *change {
        Change::SetUp(index) => format!("set {index} up"),
        Change::SetDown(index) => format!("set {index} down"),
        Change::AddAddress { index, address } => format!("address {index} + {address}"),
        Change::RemoveAddress { index, address } => format!("address {index} - {address}"),
        Change::AddRoute {
            index,
            host,
            source,
        } => format!("route {index} + {host} from {source}"),
        Change::RemoveRoute { index, host } => format!("route {index} - {host}"),
        Change::SetNeighbour { index, host, mac } => {
            format!("neighbour {index} + {host} {}", names.name_of(mac))
        }
        Change::RemoveNeighbour { index, host } => format!("neighbour {index} - {host}"),
        Change::HoldSysctl { .. } | Change::ReleaseSysctl { .. } => {
            unreachable!("they are gathered by the caller")
        }
    }
}

fn render_frame(side: Side, bytes: &[u8], names: &Names) -> String {
    let frame = ethernet::decode(bytes).unwrap();
    let us = match side {
        Side::Wired => "us-wired",
        Side::Uplink => "us-uplink",
    };
    let to = names.name_of(frame.destination);
    let said = match frame.ether_type {
        ethernet::TYPE_ARP => render_arp(&frame, names),
        loop_probe::TYPE_LOOP_PROBE => "loop probe".to_owned(),
        _ => discovery_talk::render(names, &frame)
            .unwrap_or_else(|| dhcp_talk::render(&frame, names)),
    };
    // Every frame leaves with its side's own address; the usual ones go without saying.
    match names.name_of(frame.source) {
        source if source == us => format!("to {to}: {said}"),
        source => format!("from {source} to {to}: {said}"),
    }
}

fn render_arp(frame: &Frame<'_>, names: &Names) -> String {
    let arp = match arp::decode(frame) {
        Ok(arp) => arp,
        // Only what is said of another station bears its hardware address (see `bearings`).
        Err(ArpError::SenderMismatch) => {
            let source = MacAddr::from(<[u8; 6]>::try_from(&frame.payload[8..14]).unwrap());
            let arp = arp::decode(&Frame { source, ..*frame }).unwrap();
            assert_eq!((arp.operation, arp.spa), (Operation::Request, arp.tpa));
            return format!("announce {} at {}", arp.spa, names.name_of(arp.sha));
        }
        Err(error) => panic!("{error}"),
    };
    match arp.operation {
        Operation::Request if arp.spa == arp.tpa => format!("announce {}", arp.spa),
        Operation::Request if !arp.tha.is_zero() => format!("loop probe in ARP for {}", arp.tpa),
        Operation::Request if arp.spa.is_unspecified() => format!("probe {}", arp.tpa),
        Operation::Request => format!("who-has {} tell {}", arp.tpa, arp.spa),
        Operation::Reply => format!("{} is-at us (for {})", arp.spa, arp.tpa),
    }
}
