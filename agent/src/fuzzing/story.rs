//! The engine as a whole: bytes become a story, told to the model step by step.
//!
//! A step is a few bytes, so that a fuzzer that changes one changes one thing. Few stations and addresses take part, as the
//! interesting happens where they meet; `mutated` frames start out well-formed and are then spoilt.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::addr::{IfIndex, MacAddr, Side};
use crate::engine::model::{
    Model, Told, UPLINK, WIRED, address, dhcp_frame, link, route, station, usual,
};
use crate::engine::{
    Association, DhcpMode, KernelEvent, RadioEvent, RadioState, Settings, SupplicantEvent,
};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::{ethernet, udp};

/// Most steps of a story: as many as a fuzzer can still find its way through.
const MOST_STEPS: usize = 300;

/// Whatever the engine is told, what the model demands holds, and in the end all is given back.
pub(super) fn engine(bytes: &[u8]) {
    let mut story = Story { bytes };
    let Some(settings) = story.settings() else {
        return;
    };
    let prefix = [24, 24, 16, 29][usize::from(story.byte().unwrap_or_default() & 3)];
    let mut model = Model::new(settings);
    model.dump(usual(prefix));
    for _ in 0..MOST_STEPS {
        let Some(told) = story.step() else {
            break;
        };
        model.tell(told);
    }
    model.stop();
}

/// What is left of the bytes.
struct Story<'a> {
    bytes: &'a [u8],
}

impl Story<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn settings(&mut self) -> Option<Settings> {
        let (mode, flags) = (self.byte()?, self.byte()?);
        let mut settings = Settings::new("wlan0", "eth0");
        settings.dhcp.mode = match mode & 3 {
            0 => DhcpMode::Auto,
            1 => DhcpMode::Relay,
            2 => DhcpMode::Broadcast,
            _ => DhcpMode::Clone,
        };
        settings.dhcp.trust_option_82 = flags & 1 != 0;
        if flags & 2 != 0 {
            settings.dhcp.circuit_id = "port 1".to_owned();
        }
        settings.discovery.mdns = flags & 4 == 0;
        settings.wired.bounce = flags & 8 == 0;
        settings.fleet.status = flags & 16 != 0;
        Some(settings)
    }

    fn step(&mut self) -> Option<Told> {
        Some(match self.byte()? % 16 {
            0 | 1 => self.frame(Story::arp)?,
            2 => self.spoilt(Story::arp)?,
            3 | 4 => self.frame(Story::dhcp)?,
            5 => self.spoilt(Story::dhcp)?,
            6 => self.frame(Story::datagram)?,
            7 => self.spoilt(Story::datagram)?,
            8 => self.frame(|story, _| story.raw())?,
            9 => Told::Event(self.event()?),
            10 => Told::Dump,
            11 => Told::RefuseLast([1, 2, 3, 12, 17, 19, 22, 99][usize::from(self.byte()? & 7)]),
            12 => Told::Pass(Duration::from_millis(u64::from(self.number()?) * 2)),
            13 => Told::Stall(Duration::from_millis(u64::from(self.byte()?) * 8)),
            14 => Told::NextDeadline,
            _ => match self.byte()? % 10 {
                0 => Told::Port67Taken,
                1 => Told::Port67Held,
                2 => Told::Report,
                3 | 4 => self.traffic()?,
                other => Told::Radio(self.radio(other)?),
            },
        })
    }

    fn side(&mut self) -> Option<Side> {
        match self.byte()? & 1 {
            0 => Some(Side::Wired),
            _ => Some(Side::Uplink),
        }
    }

    fn traffic(&mut self) -> Option<Told> {
        let (side, mac) = (self.side()?, any_station(self.byte()?));
        let (from, to) = (any_address(self.byte()?), any_address(self.byte()?));
        Some(Told::Traffic(side, mac, from, to))
    }

    fn frame(&mut self, make: impl Fn(&mut Self, Side) -> Option<Vec<u8>>) -> Option<Told> {
        let side = self.side()?;
        Some(Told::Frame(side, make(self, side)?))
    }

    /// A frame with up to four bytes changed, or cut short.
    fn spoilt(&mut self, make: impl Fn(&mut Self, Side) -> Option<Vec<u8>>) -> Option<Told> {
        let Told::Frame(side, mut frame) = self.frame(make)? else {
            return None;
        };
        let how = self.byte()?;
        for _ in 0..how & 3 {
            let (at, change) = (usize::from(self.number()?), self.byte()?);
            let length = frame.len().max(1);
            if let Some(byte) = frame.get_mut(at % length) {
                *byte ^= change;
            }
        }
        if how & 4 != 0 {
            frame.truncate(usize::from(self.byte()?));
        }
        Some(Told::Frame(side, frame))
    }

    fn arp(&mut self, side: Side) -> Option<Vec<u8>> {
        let (flags, mac, spa, tpa) = (self.byte()?, self.byte()?, self.byte()?, self.byte()?);
        let operation = match flags & 1 {
            0 => Operation::Request,
            _ => Operation::Reply,
        };
        let arp = Arp {
            operation,
            sha: any_station(mac),
            spa: any_address(spa),
            tha: MacAddr::zero(),
            tpa: any_address(if flags & 2 == 0 { tpa } else { spa }),
        };
        Some(arp::encode(&arp, destination(side, flags)))
    }

    fn dhcp(&mut self, _side: Side) -> Option<Vec<u8>> {
        let (flags, mac, last) = (self.byte()?, self.byte()?, self.byte()?);
        let (kind, xid) = (1 + (flags >> 4) % 9, flags & 7);
        let client = any_station(mac);
        Some(dhcp_frame(
            client,
            kind,
            xid,
            any_address(last),
            flags & 8 != 0,
        ))
    }

    /// A datagram to one of the ports that something is listening at.
    fn datagram(&mut self, side: Side) -> Option<Vec<u8>> {
        const PORTS: [u16; 8] = [5353, 1900, 3702, 137, 138, 9, 67, 68];
        const GROUPS: [[u8; 4]; 4] = [
            [224, 0, 0, 251],
            [239, 255, 255, 250],
            [10, 0, 0, 255],
            [255, 255, 255, 255],
        ];
        let (flags, mac, from) = (self.byte()?, self.byte()?, self.byte()?);
        let port = PORTS[usize::from(flags & 7)];
        let to = match (flags >> 3) & 7 {
            group @ 0..4 => GROUPS[usize::from(group)].into(),
            other => any_address(other),
        };
        let [a, b, c, d] = to.octets();
        let to_mac = match (a, flags & 0x40) {
            (224..=239, 0) => MacAddr(1, 0, 0x5e, b & 0x7f, c, d),
            _ => destination(side, flags >> 5),
        };
        let from = SocketAddrV4::new(any_address(from), port);
        let payload = self.some_bytes()?;
        udp::encode(
            (any_station(mac), from),
            (to_mac, SocketAddrV4::new(to, port)),
            &payload,
        )
    }

    fn raw(&mut self) -> Option<Vec<u8>> {
        const TYPES: [u16; 4] = [0x0806, 0x0800, 0x0842, 0x88b5];
        let (flags, mac) = (self.byte()?, self.byte()?);
        let payload = self.some_bytes()?;
        let ether_type = TYPES[usize::from(flags & 3)];
        let all = MacAddr::broadcast();
        Some(match flags & 4 {
            0 => ethernet::encode(all, any_station(mac), ether_type, &payload),
            _ => payload,
        })
    }

    fn some_bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(self.number()?).min(self.bytes.len());
        let (bytes, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Some(bytes.to_vec())
    }

    fn event(&mut self) -> Option<KernelEvent> {
        let (what, last) = (self.byte()?, self.byte()?);
        let index = if what & 0x10 == 0 { UPLINK } else { WIRED };
        let (up, carrier) = (what & 0x20 == 0, what & 0x40 == 0);
        Some(match what & 7 {
            0 | 1 => KernelEvent::Link(index, link(index, up, carrier)),
            2 => KernelEvent::LinkGone(index),
            3 => KernelEvent::AddressAdded(address(UPLINK, 2 + last % 3, 24)),
            4 => KernelEvent::AddressRemoved(address(UPLINK, 2 + last % 3, 24)),
            5 => KernelEvent::AddressRemoved(address(WIRED, 2 + last % 3, 32)),
            6 if up => KernelEvent::NeighbourRemoved(WIRED, any_address(last)),
            6 => KernelEvent::HostRouteDisplaced(any_address(last)),
            _ if up && carrier => KernelEvent::RouteAdded(route(UPLINK, 1 + last % 8)),
            _ if up => KernelEvent::RouteReplaced(route(UPLINK, 1 + last % 8)),
            _ => KernelEvent::RouteRemoved(route(UPLINK, 1 + last % 8)),
        })
    }
}

impl Story<'_> {
    fn radio(&mut self, which: u8) -> Option<RadioEvent> {
        let event = match which {
            5 => RadioEvent::Supplicant(SupplicantEvent::WrongKey),
            6 => RadioEvent::Supplicant(SupplicantEvent::Connected),
            7 => RadioEvent::PowerSaveRefused { errno: 95 },
            8 => RadioEvent::Attached(self.byte()? & 1 == 0),
            _ => return self.radio_state(),
        };
        Some(event)
    }

    fn radio_state(&mut self) -> Option<RadioEvent> {
        let (flags, uptime) = (self.byte()?, self.byte()?);
        let association = Association {
            bssid: station(1 + flags % 4),
            ssid: b"home".to_vec(),
            frequency: None,
            signal: Some(-60),
            tx_rate: None,
            rx_rate: None,
        };
        let state = RadioState {
            association: (flags & 8 == 0).then_some(association),
            country: None,
            power_save: (flags & 16 == 0).then_some(flags & 32 == 0),
        };
        Some(RadioEvent::State {
            state: (flags & 64 == 0).then_some(state),
            uptime: Duration::from_secs(u64::from(uptime) * 40),
        })
    }
}

/// One of a dozen stations; the second and third are ours.
fn any_station(number: u8) -> MacAddr {
    station(1 + number % 12)
}

/// An address of the network, none, or one from elsewhere; the second is ours, the first the gateway's.
fn any_address(number: u8) -> Ipv4Addr {
    match number {
        0 => Ipv4Addr::UNSPECIFIED,
        1..=0xef => Ipv4Addr::new(10, 0, 0, number % 16),
        0xf0..=0xfb => Ipv4Addr::new(10, 0, number, number),
        0xfc => Ipv4Addr::BROADCAST,
        0xfd => Ipv4Addr::new(10, 0, 0, 255),
        0xfe => Ipv4Addr::new(224, 0, 0, 251),
        0xff => Ipv4Addr::LOCALHOST,
    }
}

fn destination(side: Side, flags: u8) -> MacAddr {
    let us: IfIndex = match side {
        Side::Wired => WIRED,
        Side::Uplink => UPLINK,
    };
    match flags & 4 {
        0 => MacAddr::broadcast(),
        _ => station(us.0 as u8),
    }
}
