//! What the kernel tells about radios without being asked: associations made and lost, the country's rules, scans.

use std::io;

use futures_util::FutureExt as _;
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

use super::generic_netlink::{DATAGRAM_LIMIT, Message, attribute, messages};
use super::nl80211::{ATTR_IFINDEX, Nl80211};
use crate::addr::IfIndex;

/// What a notification is about, as far as anybody here wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The association, or what is allowed in this country, changed.
    Changed,
    /// A scan began: a supplicant may be there.
    Scan,
}

/// The notifications.
pub(super) struct Notices {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl Notices {
    /// Subscribes; `None` if this kernel knows of no radios.
    pub(super) fn subscribe() -> io::Result<Option<Notices>> {
        let Some(nl80211) = Nl80211::open()? else {
            return Ok(None);
        };
        let mut socket = TokioSocket::new(NETLINK_GENERIC)?;
        let inner = socket.socket_mut();
        inner.bind(&SocketAddr::new(0, 0))?;
        for group in ["mlme", "regulatory", "scan"] {
            if let Some(id) = nl80211.family.group(group) {
                inner.add_membership(id)?;
            }
        }
        Ok(Some(Notices {
            socket,
            datagram: Vec::with_capacity(DATAGRAM_LIMIT),
        }))
    }

    /// Waits for a datagram, which may hold nothing of interest. A wait given up loses nothing.
    pub(super) async fn next(&mut self, index: IfIndex) -> io::Result<Vec<Notice>> {
        self.datagram.clear();
        match self.socket.recv(&mut self.datagram).await {
            Ok(()) => Ok(decode(&self.datagram, index)),
            // Some were lost: reading the state makes up for it.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(vec![Notice::Changed]),
            Err(error) => Err(error),
        }
    }

    /// Receives a datagram without waiting; `None` if there is none.
    pub(super) fn next_waiting(&mut self, index: IfIndex) -> Option<io::Result<Vec<Notice>>> {
        self.next(index).now_or_never()
    }
}

pub(super) fn decode(datagram: &[u8], index: IfIndex) -> Vec<Notice> {
    let notice = |message| match message {
        Message::Content {
            command,
            attributes,
        } => notice(command, attributes, index),
        Message::Verdict { .. } | Message::Done => None,
    };
    messages(datagram).filter_map(notice).collect()
}

/// Decodes one notification; `None` if it is about another interface or of no interest.
fn notice(command: u8, attributes: &[u8], index: IfIndex) -> Option<Notice> {
    const NEW_STATION: u8 = 19;
    const DEL_STATION: u8 = 20;
    const TRIGGER_SCAN: u8 = 33;
    const REG_CHANGE: u8 = 36;
    const CONNECT: u8 = 46;
    const ROAM: u8 = 47;
    const DISCONNECT: u8 = 48;
    const CH_SWITCH_NOTIFY: u8 = 88;
    const WIPHY_REG_CHANGE: u8 = 113;
    let ours = attribute(attributes, ATTR_IFINDEX) == Some(&index.0.to_ne_bytes());
    match command {
        REG_CHANGE | WIPHY_REG_CHANGE => Some(Notice::Changed),
        NEW_STATION | DEL_STATION | CONNECT | ROAM | DISCONNECT | CH_SWITCH_NOTIFY if ours => {
            Some(Notice::Changed)
        }
        TRIGGER_SCAN if ours => Some(Notice::Scan),
        _ => None,
    }
}
