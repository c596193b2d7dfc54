//! The notation of a story's outputs: one line for each action, frames decoded.

use footbridge_agent::addr::{IfIndex, Side};
use footbridge_agent::engine::{Action, Change, Sysctl};
use footbridge_agent::wire::arp::{self, Operation};
use footbridge_agent::wire::ethernet::{self, Frame};
use footbridge_agent::wire::{dhcp, udp};

use super::script::Names;

/// Returns the lines for the actions; held and released settings of one interface share a line.
pub(super) fn render(actions: &[Action], names: &Names) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for action in actions {
        let line = match action {
            Action::OpenPort {
                side,
                index,
                promiscuous,
            } => format!(
                "open {side} {index}{}",
                if *promiscuous { " promiscuous" } else { "" }
            ),
            Action::ClosePort { side } => format!("close {side}"),
            Action::StateChanged { from, to } => format!("state {from:?} -> {to:?}"),
            Action::Finished => "finished".to_owned(),
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
        };
        lines.push(line);
    }
    lines
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
        ethernet::TYPE_ARP => render_arp(&frame),
        _ => render_dhcp(&frame),
    };
    // Every frame leaves with its side's own address; the usual ones go without saying.
    match names.name_of(frame.source) {
        source if source == us => format!("to {to}: {said}"),
        source => format!("from {source} to {to}: {said}"),
    }
}

fn render_arp(frame: &Frame<'_>) -> String {
    let arp = arp::decode(frame).unwrap();
    match arp.operation {
        Operation::Request if arp.spa == arp.tpa => format!("announce {}", arp.spa),
        Operation::Request if arp.spa.is_unspecified() => format!("probe {}", arp.tpa),
        Operation::Request => format!("who-has {} tell {}", arp.tpa, arp.spa),
        Operation::Reply => format!("{} is-at us (for {})", arp.spa, arp.tpa),
    }
}

fn render_dhcp(frame: &Frame<'_>) -> String {
    let datagram = udp::decode(frame).unwrap();
    let message = dhcp::decode(datagram.payload).unwrap();
    format!(
        "dhcp {:?} {} -> {} xid={} hops={} giaddr={} yiaddr={}{} ({} octets)",
        message.message_type(),
        datagram.source,
        datagram.destination,
        message.xid(),
        message.hops(),
        message.giaddr(),
        message.yiaddr(),
        if message.broadcast_flag() {
            " broadcast"
        } else {
            ""
        },
        datagram.payload.len(),
    )
}
