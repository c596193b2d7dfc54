//! From a client's first DISCOVER to its ACK.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _};

use super::Turn;
use crate::rig::{HOST_MAC, Layout, Rig, eventually};
use crate::wire::{Station, dhcp_reply_payload, dhcp_request_frame};

/// udhcpc's wait before it asks again, and how often it does.
const REPEAT: Duration = Duration::from_secs(3);
const TRIES: u32 = 8;

/// The way most clients ask: replies may come to their own hardware address.
pub(super) fn without_flag(turn: &mut Turn<'_>) -> Result<()> {
    let took = lease(turn, Flags::default())?;
    turn.read_time("lease", took);
    Ok(())
}

/// The way some clients ask: replies must come to everybody.
pub(super) fn with_flag(turn: &mut Turn<'_>) -> Result<()> {
    let took = lease(turn, Flags::default().set_broadcast())?;
    turn.read_time("lease-flag", took);
    Ok(())
}

fn lease(turn: &Turn<'_>, flags: Flags) -> Result<Duration> {
    let mut rig = Rig::build(Layout::Cable)?;
    start_server(&mut rig)?;
    let _bridge = rig.start(turn.contender, turn.programs)?;
    let mut client = Client {
        station: Station::open(&rig.hosts, "c0")?,
        flags,
        xid: 0x5eed,
    };
    let start = Instant::now();
    let offer = client.exchange(&[], MessageType::Discover, MessageType::Offer)?;
    let server = offer
        .opts()
        .get(OptionCode::ServerIdentifier)
        .context("the offer names no server")?;
    let wanted = [
        server.clone(),
        DhcpOption::RequestedIpAddress(offer.yiaddr()),
    ];
    client.exchange(&wanted, MessageType::Request, MessageType::Ack)?;
    Ok(start.elapsed())
}

fn start_server(rig: &mut Rig) -> Result<()> {
    let leases = format!(
        "--dhcp-leasefile={}",
        rig.dir.path().join("leases").display()
    );
    let arguments = [
        // In the foreground it changes neither user nor groups, which these namespaces do not let it.
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=0",
        "--interface=r0",
        "--bind-interfaces",
        "--dhcp-authoritative",
        // Its question whether an offered address is free would add its own seconds.
        "--no-ping",
        "--dhcp-range=10.77.8.1,10.77.8.250,255.255.240.0,1h",
        "--dhcp-option=option:router,10.77.0.1",
        "--log-facility=-",
        &leases,
    ]
    .map(str::to_owned);
    rig.start_on_router("dnsmasq", &arguments)?;
    let log = rig.log("dnsmasq");
    eventually("dnsmasq listens", || {
        Ok(std::fs::read_to_string(&log)?.contains("DHCP, IP range"))
    })
}

struct Client {
    station: Station,
    flags: Flags,
    xid: u32,
}

impl Client {
    /// Asks until the reply comes that it asked for.
    fn exchange(
        &mut self,
        options: &[DhcpOption],
        ask: MessageType,
        expected: MessageType,
    ) -> Result<Message> {
        let frame = self.request(options, ask)?;
        for _ in 0..TRIES {
            self.station.send(&frame)?;
            let reply = self.station.await_frame(Instant::now() + REPEAT, |frame| {
                let message =
                    Message::decode(&mut Decoder::new(dhcp_reply_payload(frame)?)).ok()?;
                let ours = message.xid() == self.xid && message.opcode() == Opcode::BootReply;
                (ours && message.opts().msg_type() == Some(expected)).then_some(message)
            })?;
            if let Some(reply) = reply {
                return Ok(reply);
            }
        }
        bail!("no {expected:?} after {TRIES} tries")
    }

    fn request(&self, options: &[DhcpOption], kind: MessageType) -> Result<Vec<u8>> {
        let mut message = Message::default();
        message
            .set_opcode(Opcode::BootRequest)
            .set_xid(self.xid)
            .set_chaddr(&HOST_MAC);
        message.set_flags(self.flags);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        for option in options {
            message.opts_mut().insert(option.clone());
        }
        let mut payload = message.to_vec().context("while writing a DHCP message")?;
        payload.resize(payload.len().max(300), 0);
        Ok(dhcp_request_frame(HOST_MAC, &payload))
    }
}
