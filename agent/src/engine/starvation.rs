//! What a tool that empties a DHCP server's pool can do to the clients beside it: cost them a try or two.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::addr::{MacAddr, Side};

use super::model::{Model, dhcp_frame, station, usual};
use super::{Action, Change, Settings};

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const LEASED: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 9);
/// Where chaddr begins in a frame without IP options.
const CHADDR: usize = 14 + 20 + 8 + 28;

/// A wire with a tool on it that asks some hundred times a second, and a server that answers whatever reaches it.
struct Wire {
    model: Model,
    tool: fn(u32) -> Vec<u8>,
    invented: u32,
}

impl Wire {
    fn new(tool: fn(u32) -> Vec<u8>) -> Wire {
        let mut model = Model::new(Settings::new("wlan0", "eth0"));
        model.dump(usual(16));
        Wire {
            model,
            tool,
            invented: 0,
        }
    }

    fn flood(&mut self, seconds: u32) {
        for _ in 0..seconds * 400 {
            self.model.now += Duration::from_micros(2500);
            self.invented += 1;
            let frame = (self.tool)(self.invented);
            if is_relayed(&self.model.hear(Side::Wired, &frame)) {
                let [_, _, high, low] = self.invented.to_be_bytes();
                let address = Ipv4Addr::new(10, 0, 100 + high, low);
                let mut offer = dhcp_frame(station(1), OFFER, 1, address, true);
                offer[CHADDR..CHADDR + 6].copy_from_slice(&frame[CHADDR..CHADDR + 6]);
                self.model.hear(Side::Uplink, &offer);
            }
        }
    }

    /// Has a client send one message, and says whether it went on.
    fn asks(&mut self, client: MacAddr, kind: u8) -> bool {
        let frame = dhcp_frame(client, kind, 7, LEASED, false);
        is_relayed(&self.model.hear(Side::Wired, &frame))
    }

    /// Lets the server answer the client, and says whether the client has its route.
    fn is_answered(&mut self, client: MacAddr, kind: u8) -> bool {
        let frame = dhcp_frame(client, kind, 7, LEASED, true);
        let actions = self.model.hear(Side::Uplink, &frame);
        let route = |action: &Action| matches!(action, Action::Apply(Change::AddRoute { host, .. }) if *host == LEASED);
        actions.iter().any(route)
    }
}

fn is_relayed(actions: &[Action]) -> bool {
    let to_servers =
        |action: &Action| matches!(action, Action::Send { side, .. } if *side == Side::Uplink);
    actions.iter().any(to_servers)
}

fn invented(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr(6, 0, a, b, c, d)
}

/// A station of its own for each message.
fn many_stations(number: u32) -> Vec<u8> {
    dhcp_frame(invented(number), DISCOVER, 1, LEASED, false)
}

/// One station, and a client of its own for each message.
fn one_station(number: u32) -> Vec<u8> {
    let mut frame = dhcp_frame(station(66), DISCOVER, 1, LEASED, false);
    frame[CHADDR..CHADDR + 6].copy_from_slice(&invented(number).octets());
    frame
}

#[test]
fn a_tool_with_one_station_costs_a_client_nothing() {
    let mut wire = Wire::new(one_station);
    wire.flood(2);
    let client = station(200);
    assert!(wire.asks(client, DISCOVER));
    assert!(!wire.is_answered(client, OFFER));
    assert!(wire.asks(client, REQUEST));
    assert!(wire.is_answered(client, ACK));
}

#[test]
fn a_tool_with_many_stations_costs_a_client_its_first_tries() {
    let mut wire = Wire::new(many_stations);
    wire.flood(3);
    let client = station(200);
    assert!(
        !wire.asks(client, DISCOVER),
        "the second's budget is used up"
    );
    let mut tries = 1;
    loop {
        tries += 1;
        assert!(tries <= 3, "the client asks in vain");
        wire.flood(4);
        if wire.asks(client, DISCOVER) {
            break;
        }
    }
    assert!(!wire.is_answered(client, OFFER));
    assert!(wire.asks(client, REQUEST), "it is in a conversation");
    assert!(wire.is_answered(client, ACK));
    // A host that is known is not kept waiting at all.
    wire.flood(1);
    assert!(wire.asks(client, REQUEST));
    assert!(!wire.is_answered(client, ACK), "its route is there");
}
