//! The device among its neighbours: found by multicast DNS on the uplink, telling those how it is, and not there for whoever is on the
//! wire or beyond the network.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use footbridge_agent::engine::STATUS_PORT;
use footbridge_agent::wire::dns::{self, Message, Name, Question, Record};
use serde_json::Value;

use super::in_namespace;
use super::namespace::Namespace;
use super::rig::{Agent, BOX, CLIENT_MAC, PATIENCE, PRINTER, ROUTER, Rig, eventually};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

/// Starts an agent that tells of itself, and waits until it bridges.
fn start(rig: &Rig) -> Agent {
    let config = rig.dir.path().join("footbridge.toml");
    std::fs::write(&config, "[fleet]\nstatus = true\n").unwrap();
    let mut command = rig.agent_command();
    let log = std::fs::File::create(rig.dir.path().join("agent.log")).unwrap();
    command.arg("--config").arg(config).stderr(log);
    let agent = Agent(command.spawn().unwrap());
    rig.await_state("bridging");
    agent
}

/// What a client of a namespace reads, or why it cannot.
pub(super) fn read_status(place: &Namespace) -> std::io::Result<String> {
    place.inside(|| {
        let address = SocketAddrV4::new(BOX.parse().unwrap(), STATUS_PORT);
        let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    })
}

/// Asks as a simple resolver does, and returns what comes back before the patience ends.
fn resolve(
    place: &Namespace,
    address: &str,
    name: &str,
    kind: u16,
    patience: Duration,
) -> Option<Message> {
    place.inside(|| {
        let address: Ipv4Addr = address.parse().unwrap();
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket2::SockRef::from(&socket)
            .set_multicast_if_v4(&address)
            .unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        let query = Message {
            id: 7,
            questions: vec![Question {
                name: Name::parse(name).unwrap(),
                kind,
                class: dns::CLASS_IN,
                unicast: false,
            }],
            ..Message::default()
        };
        socket.send_to(&dns::encode(&query), (GROUP, 5353)).unwrap();
        let mut buffer = [0; 9000];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        assert_eq!(from.to_string(), format!("{BOX}:5353"));
        Some(dns::decode(&buffer[..length]).unwrap())
    })
}

#[test]
fn neighbours_find_the_device_and_are_told_how_it_is() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let agent = start(rig);
        let mut found = None;
        eventually("the device is found", || {
            let service = "_footbridge._tcp.local";
            found = resolve(
                &rig.router,
                ROUTER,
                service,
                dns::TYPE_PTR,
                Duration::from_secs(1),
            );
            found.is_some()
        });
        let found = found.unwrap();
        assert_eq!((found.id, found.answers.len()), (7, 1));
        let kind = |kind: u16| found.additional.iter().find(|record| record.kind == kind);
        let srv: &Record = kind(dns::TYPE_SRV).unwrap();
        assert_eq!(srv.data[4..6], STATUS_PORT.to_be_bytes());
        let address: Ipv4Addr = BOX.parse().unwrap();
        assert_eq!(kind(dns::TYPE_A).unwrap().data, address.octets());

        let document = read_status(&rig.router).unwrap();
        let status: Value = serde_json::from_str(&document).unwrap();
        assert_eq!(status["state"], "bridging");
        assert_eq!(
            (&status["uplink"], &status["address"]),
            (&"up0".into(), &BOX.into())
        );
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert!(status["uptime"].as_u64().is_some(), "{document}");
        // Who is on the wire is nobody's business.
        eventually("the router reaches the printer", || {
            rig.router.pings(PRINTER)
        });
        let document = read_status(&rig.router).unwrap();
        assert!(
            !document.contains(PRINTER) && !document.contains(CLIENT_MAC),
            "{document}"
        );
        assert_eq!(agent.terminate(), Some(0));
    });
}

#[test]
fn on_the_wire_the_device_is_not_there() {
    in_namespace(|rig| {
        rig.make_client_a_printer();
        let _agent = start(rig);
        eventually("the printer reaches the device", || rig.client.pings(BOX));
        let refused = read_status(&rig.client).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        eventually("the device is found", || {
            let service = "_footbridge._tcp.local";
            resolve(
                &rig.router,
                ROUTER,
                service,
                dns::TYPE_PTR,
                Duration::from_secs(1),
            )
            .is_some()
        });
        // The question crosses to the uplink, where there is no other device; the answer would come at once.
        let service = "_footbridge._tcp.local";
        let found = resolve(
            &rig.client,
            PRINTER,
            service,
            dns::TYPE_PTR,
            Duration::from_secs(2),
        );
        assert_eq!(found, None);
        assert!(rig.counter("discovery-passed-on") > 0);
    });
}

#[test]
fn clients_that_come_too_often_or_from_elsewhere_are_turned_away() {
    in_namespace(|rig| {
        let _agent = start(rig);
        // An address beyond the network, with a way back.
        rig.router.ip("addr add 10.9.9.9/32 dev lo");
        rig.router.ip("link set lo up");
        super::rig::ip("route add 10.9.9.9/32 via 192.168.77.1 dev up0");
        let elsewhere = rig.router.inside(|| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let from = SocketAddrV4::new(Ipv4Addr::new(10, 9, 9, 9), 0);
            socket.bind(&from.into()).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let to = SocketAddrV4::new(BOX.parse().unwrap(), STATUS_PORT);
            socket.connect(&to.into()).unwrap();
            let mut said = Vec::new();
            let read = TcpStream::from(socket).read_to_end(&mut said);
            (read.is_ok() || said.is_empty(), said)
        });
        assert_eq!(elsewhere, (true, Vec::new()));
        let told = (0..20).filter(|_| read_status(&rig.router).is_ok_and(|said| !said.is_empty()));
        let told = told.count();
        assert!(told >= 1, "none was told");
        eventually("some were refused", || {
            rig.counter("fleet-client-refused") >= 2
        });
        // Those who connect and read nothing keep nobody from being told.
        let idle: Vec<TcpStream> = rig.router.inside(|| {
            let address = SocketAddrV4::new(BOX.parse().unwrap(), STATUS_PORT);
            (0..64)
                .filter_map(|_| {
                    TcpStream::connect_timeout(&address.into(), Duration::from_secs(1)).ok()
                })
                .collect()
        });
        assert!(!idle.is_empty());
        eventually("a client is told beside idle ones", || {
            read_status(&rig.router).is_ok_and(|said| !said.is_empty())
        });
    });
}
