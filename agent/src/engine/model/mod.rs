//! A model of what the engine may do, whatever it is told, for property tests and fuzzing.
//!
//! It tells the engine a story, step by step, and after each step checks what holds always: tables stay bounded, timers move
//! on, nobody is answered for whom nobody vouched, and the kernel's state is what is wanted.

mod kernel;

mod witness;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::addr::MacAddr;
use crate::wire::arp::{Arp, Operation};
use crate::wire::discovery::Heard;

use super::dhcp_transactions::MOST_TRANSACTIONS;
use super::discovery::{MOST_FRAGMENTED, MOST_RECENT};
use super::kernel_state::Ours;
use super::questions::{MOST_QUESTIONS, MOST_SILENT};
use super::responder::MOST_WAITING;
use super::table::MOST_PER_SIDE;
use super::*;

use kernel::Kernel;
use witness::{Witness, arp_of};

/// Most frames that one frame may lead to: an answer for each of those who wait, and for a move an announcement and a host's
/// bearings.
const MOST_FOR_ONE: usize = 16;

pub(crate) const UPLINK: IfIndex = IfIndex(2);
pub(crate) const WIRED: IfIndex = IfIndex(3);

pub(crate) fn station(number: u8) -> MacAddr {
    MacAddr(2, 0, 0, 0, 0, number)
}

pub(crate) fn link(index: IfIndex, up: bool, carrier: bool) -> Link {
    Link {
        name: if index == UPLINK { "wlan0" } else { "eth0" }.to_owned(),
        mac: Some(station(index.0 as u8)),
        up,
        carrier,
    }
}

pub(crate) fn address(index: IfIndex, last: u8, prefix: u8) -> Address {
    Address {
        index,
        address: Ipv4Addr::new(10, 0, 0, last),
        prefix,
        ours: prefix == 32,
    }
}

pub(crate) fn route(index: IfIndex, gateway: u8) -> Route {
    Route {
        index,
        destination: (Ipv4Addr::UNSPECIFIED, 0),
        metric: 0,
        gateway: Some(Ipv4Addr::new(10, 0, 0, gateway)),
        ours: false,
    }
}

pub(crate) fn usual(prefix: u8) -> KernelState {
    KernelState {
        links: [
            (UPLINK, link(UPLINK, true, true)),
            (WIRED, link(WIRED, true, true)),
        ]
        .into(),
        addresses: [address(UPLINK, 2, prefix)].into(),
        routes: [route(UPLINK, 1)].into(),
        neighbours: BTreeMap::new(),
    }
}

/// One step of a story.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Dump,
    Event(KernelEvent),
    Frame(Side, Vec<u8>),
    /// A glimpse of traffic: a station of a side sends a packet from one address to another through us.
    Traffic(Side, MacAddr, Ipv4Addr, Ipv4Addr),
    /// The change asked for last was refused.
    RefuseLast(i32),
    Radio(RadioEvent),
    Port67Taken,
    Port67Held,
    /// Somebody asked for the status.
    Report,
    /// Time passes, and everything due in it is done in its moment.
    Pass(Duration),
    /// Time passes in which the process does not run.
    Stall(Duration),
    NextDeadline,
}

/// An engine, and everything that is known about it without asking it.
pub(crate) struct Model {
    pub(crate) engine: Engine,
    pub(crate) now: Instant,
    last_change: Option<Change>,
    kernel: Kernel,
    witness: Witness,
}

impl Model {
    pub(crate) fn new(settings: Settings) -> Model {
        let now = test_clock();
        Model {
            engine: Engine::new(settings, [7; RANDOM_BYTES]),
            now,
            last_change: None,
            kernel: Kernel::default(),
            witness: Witness::default(),
        }
    }

    /// Tells one step and checks what has to hold after it.
    pub(crate) fn tell(&mut self, told: Told) {
        match told {
            Told::Dump => self.dump(usual(24)),
            Told::Event(event) => {
                self.kernel.happen(&event);
                self.handle(Input::Kernel(event));
            }
            Told::Frame(side, bytes) => drop(self.hear(side, &bytes)),
            Told::Traffic(side, station, from, to) => {
                self.witness.glimpse(side, (from, station), self.now);
                let glimpse = glimpse(side, station, from, to);
                self.handle(Input::Traffic(&[glimpse]));
            }
            Told::RefuseLast(errno) => {
                if let Some(change) = self.last_change.take() {
                    self.kernel.refused = true;
                    self.handle(Input::Refused { change, errno });
                }
            }
            Told::Radio(event) => drop(self.handle(Input::Radio(event))),
            Told::Port67Taken => drop(self.handle(Input::Port67Taken)),
            Told::Port67Held => drop(self.handle(Input::Port67Held)),
            Told::Report => {
                let report = serde_json::to_string(&self.engine.report(self.now));
                report.expect("the status has a form");
                let report = self.engine.fleet_report(self.now, None);
                let report = serde_json::to_string(&report).expect("it has a form, too");
                assert!(report.len() < 2048, "{report}");
            }
            Told::Pass(time) => self.pass(time),
            Told::Stall(time) => {
                self.now += time;
                self.tick();
            }
            Told::NextDeadline => {
                let due = self.engine.next_deadline();
                self.now = due.map_or(self.now, |due| due.max(self.now));
                self.tick();
            }
        }
        self.check_bounds();
    }

    /// Gives the engine the whole of the kernel's state, and time for the loop guard's verdict.
    pub(crate) fn dump(&mut self, state: KernelState) {
        self.kernel.become_dump(&state);
        self.handle(Input::KernelDump(state));
        self.pass(loop_guard::VERDICT);
    }

    /// Gives the engine a frame, and returns what it does.
    pub(crate) fn hear(&mut self, side: Side, bytes: &[u8]) -> Vec<Action> {
        let ours = self.engine.bridge.map(|bridge| bridge.address);
        self.witness.hear(side, bytes, ours, self.now);
        let actions = self.handle(Input::Frame { side, bytes });
        let sent = |action: &&Action| matches!(action, Action::Send { .. });
        let sent = actions.iter().filter(sent).count();
        assert!(sent <= MOST_FOR_ONE, "{sent} frames for one");
        self.check_passed_on(side, bytes, &actions);
        actions
    }

    /// M2, M3, M4: what is passed on is what was heard, once, on the other side.
    fn check_passed_on(&self, side: Side, heard: &[u8], actions: &[Action]) {
        let mut left = 1;
        for action in actions {
            let Action::Send { side: to, frame } = action else {
                continue;
            };
            if discovery_of(frame).is_none() || self.is_our_own(*to, frame) {
                continue;
            }
            let bridge = self.engine.bridge.expect("nothing is passed on otherwise");
            let ours = bridge.port(side.other()).mac;
            let heard = discovery_of(heard).expect("nobody said what is passed on");
            assert_eq!(*to, side.other(), "an echo");
            assert_eq!(*frame, heard.encode(ours), "M3, M4");
            left -= 1;
            assert!(left >= 0, "twice");
        }
    }

    /// Whether the device itself says it: on the uplink, in its own name and with its own address, while it tells of itself.
    fn is_our_own(&self, side: Side, frame: &[u8]) -> bool {
        let Some(Heard::Message(message)) = discovery_of(frame) else {
            return false;
        };
        let presence = self.engine.presence.filter(|_| side == Side::Uplink);
        presence.is_some_and(|presence| {
            let source = message.datagram.map(|datagram| *datagram.source.ip());
            frame[6..12] == presence.mac.octets() && source == Some(presence.address)
        })
    }

    /// Asks the engine to end: all has to be given back.
    pub(crate) fn stop(mut self) {
        let actions = self.handle(Input::Stop);
        assert_eq!(actions.last(), Some(&Action::Finished));
        assert_eq!(self.engine.next_deadline(), None);
        assert!(self.kernel.ports.is_empty(), "{:?}", self.kernel.ports);
        assert_eq!(self.kernel.status, None);
        self.kernel.check(&Ours::default());
        assert_eq!(self.handle(Input::Tick), [], "it has ended");
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.engine.next_deadline().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.tick();
        }
        self.now = end;
        self.tick();
    }

    fn tick(&mut self) {
        self.handle(Input::Tick);
        let next = self.engine.next_deadline();
        let moves_on = next.is_none_or(|due| due > self.now);
        assert!(moves_on, "a deadline stays in the past");
    }

    fn handle(&mut self, input: Input<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        let network = self.engine.network.number;
        let before = self.engine.bridge.map(|bridge| bridge.address);
        self.engine.handle(input, self.now, &mut actions);
        if network != self.engine.network.number {
            self.witness.forget();
        }
        for (at, action) in actions.iter().enumerate() {
            self.kernel.perform(action);
            if let Action::Apply(change) = action {
                let again = actions[..at].contains(action);
                assert!(!again, "{change:?} is asked for twice");
                self.last_change = Some(change.clone());
            }
        }
        self.check_sent(&actions, before);
        self.note_questions(&actions);
        actions
    }

    fn note_questions(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::Send { side, frame } = action
                && let Some(arp) = arp_of(frame)
                && arp.operation == Operation::Request
                && arp.spa != arp.tpa
            {
                self.witness.see_question(*side, arp.tpa);
            }
        }
    }

    /// Checks that the tables are bounded and the kernel is as the engine wants it.
    pub(crate) fn check_bounds(&self) {
        let engine = &self.engine;
        let wanted = engine.wanted();
        let missing = engine.mirror.missing(&wanted);
        assert_eq!(missing, [], "the kernel's state is not what is wanted");
        self.kernel.check(&wanted);
        for side in [Side::Wired, Side::Uplink] {
            let hosts = engine.hosts.iter();
            let hosts = hosts.filter(|(_, host)| host.place.side == side);
            assert!(hosts.count() <= MOST_PER_SIDE);
        }
        let (questions, silent) = engine.proxy_arp.sizes();
        assert!(questions <= MOST_QUESTIONS && silent <= MOST_SILENT);
        assert!(engine.dhcp_relay.size() <= MOST_TRANSACTIONS);
        let (recent, fragmented) = engine.discovery.sizes();
        assert!(recent <= MOST_RECENT && fragmented <= MOST_FRAGMENTED);
        assert!(engine.responder.size() <= MOST_WAITING);
        let present = engine
            .presence
            .map(|presence| (presence.index, presence.address));
        assert_eq!(self.kernel.status, present, "where the status is served");
        if let Some(bridge) = engine.bridge {
            let mut hosts = engine.hosts.iter();
            let gateway = hosts.find(|(ip, _)| Some(*ip) == bridge.gateway);
            let stays = gateway.is_none_or(|(_, host)| host.place.side == Side::Uplink);
            assert!(stays, "A10: the gateway is on the wire");
            let ours = engine.hosts.find(bridge.address);
            assert!(ours.is_none(), "our own address is nobody's");
        }
    }

    /// Checks every ARP packet that is sent; `before` is the address we had when the turn began, which may end the bridge.
    fn check_sent(&self, actions: &[Action], before: Option<Ipv4Addr>) {
        for action in actions {
            let Action::Send { side, frame } = action else {
                continue;
            };
            match arp_of(frame) {
                Some(arp) if arp.operation == Operation::Request => {
                    self.check_request(*side, &arp, before);
                }
                Some(arp) => self.check_reply(*side, &arp),
                None => self.check_bearings(*side, frame),
            }
        }
    }

    /// A4, A6: we ask in our own name or nobody's, and announce only who answered us on the other side.
    fn check_request(&self, side: Side, arp: &Arp, before: Option<Ipv4Addr>) {
        let ours = [before, self.engine.bridge.map(|bridge| bridge.address)];
        let announced = arp.spa == arp.tpa && self.witness.proves(arp.spa, side.other(), self.now);
        let own_name = arp.spa.is_unspecified() || ours.contains(&Some(arp.spa));
        assert!(own_name || announced, "{arp:?} on {side}: A4, A6");
    }

    /// A4, A6: what we say of another station on its own side is no question, is for one station alone, and somebody vouches
    /// for it.
    fn check_bearings(&self, side: Side, frame: &[u8]) {
        let mut of_itself = frame.to_vec();
        if let Some(sha) = frame.get(22..28) {
            of_itself[6..12].copy_from_slice(sha);
        }
        if let Some(arp) = arp_of(&of_itself) {
            assert_eq!(arp.spa, arp.tpa, "{arp:?} on {side}: A4");
            assert!(frame[0] & 1 == 0, "{arp:?} on {side}: for everybody");
            let vouched = self.witness.vouches(arp.spa, side, self.now);
            assert!(vouched, "{arp:?} on {side}: nobody vouches for it");
        }
    }

    /// A2, A3: whoever is answered for showed itself on the other side, for a probe at this very moment, and whoever is
    /// answered asked, and is not the host itself.
    fn check_reply(&self, side: Side, arp: &Arp) {
        let (beyond, now) = (side.other(), self.now);
        let vouched = self.witness.vouches(arp.spa, beyond, now);
        assert!(vouched, "{arp:?} on {side}: nobody vouches for it");
        let live = self.witness.hears(arp.spa, beyond, now);
        assert!(live || !arp.tpa.is_unspecified(), "{arp:?} on {side}: A3");
        let asked = self.witness.was_asked(side, arp.tha, arp.spa);
        assert!(asked, "{arp:?} on {side}: nobody asked");
        let known = self.engine.hosts.verified(arp.spa, beyond, now);
        let own = known.is_some_and(|place| place.mac == arp.tha);
        assert!(!own || live, "{arp:?} on {side}: its own address");
    }
}

fn glimpse(side: Side, source: MacAddr, from: Ipv4Addr, to: Ipv4Addr) -> Glimpse {
    let us = station(if side == Side::Wired { 3 } else { 2 });
    let ends = [from.octets(), to.octets()].concat();
    let header = [&[0x45; 12][..], &ends].concat();
    let frame = ethernet::encode(us, source, ethernet::TYPE_IPV4, &header);
    let mut headers = [0; wire::ipv4::HEADERS];
    headers.copy_from_slice(&frame[..wire::ipv4::HEADERS]);
    Glimpse { side, headers }
}

pub(crate) fn dhcp_frame(
    client: MacAddr,
    kind: u8,
    xid: u8,
    yiaddr: Ipv4Addr,
    reply: bool,
) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..8].copy_from_slice(&[if reply { 2 } else { 1 }, 1, 6, 0, 0, 0, 0, xid]);
    message[16..20].copy_from_slice(&yiaddr.octets());
    if reply {
        message[24..28].copy_from_slice(&[10, 0, 0, 2]);
    }
    message[28..34].copy_from_slice(&client.octets());
    message[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    message.extend([53, 1, kind, 51, 4, 0, 0, 0, 60, 50, 4]);
    message.extend(yiaddr.octets());
    message.push(255);
    let to = if reply {
        Ipv4Addr::new(10, 0, 0, 2)
    } else {
        Ipv4Addr::BROADCAST
    };
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 67);
    let to = (MacAddr::broadcast(), SocketAddrV4::new(to, 67));
    udp::encode((client, from), to, &message).expect("the message is short")
}

fn discovery_of(bytes: &[u8]) -> Option<Heard<'_>> {
    let frame = ethernet::decode(bytes).ok()?;
    wire::discovery::decode(&frame).ok()?
}
