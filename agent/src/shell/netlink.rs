//! The kernel's interfaces, addresses, routes and neighbours, over route netlink (RFC 3549).
//!
//! Two sockets: one receives notifications at the event loop's own pace, so that a flood of them waits in the kernel (and, at
//! worst, is lost there, which is answered with a full dump); the other carries requests and their acknowledgements. A change
//! is done when `apply` returns: the kernel has acknowledged it.
//!
//! The kernel tells of lost notifications before it hands out those that were waiting, which are older than any dump made then;
//! and it loses whatever comes until none of them is left, without another word. So they are discarded before the dump.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, RawFd};

use futures_util::{FutureExt as _, TryStreamExt as _};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup};
use thiserror::Error;
use tracing::debug;

use super::kernel_message::{
    decode_address, decode_event, decode_link, decode_neighbour, decode_route, encode_address,
    encode_neighbour, encode_route,
};
use super::socket_option::set_option;
use crate::addr::{IfIndex, MacAddr};
use crate::engine::{Address, Change, KernelEvent, KernelState, Link, Route};

/// Receive buffer asked for; a start of many interfaces at once fits.
const RECEIVE_BUFFER: libc::c_int = 1 << 20;
/// More datagrams than fit that buffer: what is waiting when this many were discarded came in the meantime.
const DISCARD_BATCH: usize = 1 << 13;
/// The kernel packs notifications into datagrams of at most this size.
const DATAGRAM_LIMIT: usize = 32 << 10;

/// Why the kernel could not be asked or changed.
#[derive(Debug, Error)]
pub(crate) enum NetlinkError {
    /// The kernel said no (`errno` is positive).
    #[error("the kernel refused: {}", io::Error::from_raw_os_error(*errno))]
    Refused {
        /// The kernel's error number.
        errno: i32,
    },
    /// The conversation itself failed.
    #[error("netlink request failed")]
    Request(#[source] rtnetlink::Error),
}

impl From<rtnetlink::Error> for NetlinkError {
    fn from(error: rtnetlink::Error) -> NetlinkError {
        match error {
            rtnetlink::Error::NetlinkError(message) => NetlinkError::Refused {
                errno: message.raw_code().abs(),
            },
            other => NetlinkError::Request(other),
        }
    }
}

/// The notifications.
pub(crate) struct Notifications {
    socket: TokioSocket,
    datagram: Vec<u8>,
    /// Whether the kernel loses notifications without telling.
    losing: bool,
}

/// What the notifications say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notified {
    /// Changes, in order; possibly none the engine is to see.
    Events(Vec<KernelEvent>),
    /// The kernel could not keep them all: only a dump tells how things stand.
    Overrun,
}

impl Notifications {
    /// Subscribes. To be done before the first dump, so that nothing falls between the two.
    pub(crate) fn subscribe() -> io::Result<Notifications> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        make_room(socket.as_raw_fd())?;
        let inner = socket.socket_mut();
        inner.bind(&SocketAddr::new(0, 0))?;
        for group in [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Neigh,
        ] {
            inner.add_membership(group as u32)?;
        }
        Ok(Notifications {
            socket,
            datagram: Vec::with_capacity(DATAGRAM_LIMIT),
            losing: false,
        })
    }

    /// Waits for a datagram. A wait given up loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<Notified> {
        if self.losing {
            return Ok(Notified::Overrun);
        }
        self.datagram.clear();
        match self.socket.recv(&mut self.datagram).await {
            Ok(()) => Ok(Notified::Events(decode_datagram(&self.datagram))),
            Err(error) if is_overrun(&error) => {
                self.losing = true;
                Ok(Notified::Overrun)
            }
            Err(error) => Err(error),
        }
    }

    /// Discards what is waiting. If more came than can be discarded at a time, the next thing notified is an overrun again.
    pub(crate) fn discard_waiting(&mut self) -> io::Result<()> {
        for _ in 0..DISCARD_BATCH {
            self.datagram.clear();
            // Past the runtime, which calls a socket empty when a task has read enough in its opinion.
            match self.socket.socket_ref().recv(&mut self.datagram, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.losing = false;
                    break;
                }
                Err(error) if !is_overrun(&error) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Receives a datagram without waiting; `None` if there is none.
    pub(crate) fn next_waiting(&mut self) -> Option<io::Result<Notified>> {
        self.next().now_or_never()
    }
}

/// Asks for the receive buffer. More than the administrator's limit for everybody is only for who may administer the network,
/// which those that may only in a namespace of their own are not.
fn make_room(socket: RawFd) -> io::Result<()> {
    let room = |name| set_option(socket, libc::SOL_SOCKET, name, RECEIVE_BUFFER);
    match room(libc::SO_RCVBUFFORCE) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => room(libc::SO_RCVBUF),
        result => result,
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Decodes what one datagram says; a message that cannot be read is left out.
pub(crate) fn decode_datagram(mut bytes: &[u8]) -> Vec<KernelEvent> {
    let mut events = Vec::new();
    // Each message says its own length and starts at a multiple of four.
    while let Some(length) = bytes
        .first_chunk::<4>()
        .map(|length| u32::from_ne_bytes(*length) as usize)
    {
        let Some(message) = bytes.get(..length).filter(|_| length >= 16) else {
            break;
        };
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
            Ok(message) => {
                if let NetlinkPayload::InnerMessage(inner) = &message.payload {
                    events.extend(decode_event(inner, message.header.flags));
                }
            }
            Err(error) => debug!(%error, "a notification could not be read"),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    events
}

/// The request socket.
pub(crate) struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens the socket; replies are received by a task of the current runtime.
    pub(crate) fn open() -> io::Result<Netlink> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// Reads everything the engine is to know.
    pub(crate) async fn dump(&self) -> Result<KernelState, NetlinkError> {
        Ok(KernelState {
            links: self.dump_links().await?,
            addresses: self.dump_addresses().await?,
            routes: self.dump_routes().await?,
            neighbours: self.dump_neighbours().await?,
        })
    }

    /// Returns an interface as it is at present, if it exists.
    pub(crate) async fn link(&self, index: IfIndex) -> Result<Option<Link>, NetlinkError> {
        let reply = self
            .handle
            .link()
            .get()
            .match_index(index.0)
            .execute()
            .try_next()
            .await;
        match reply.map_err(NetlinkError::from) {
            Ok(message) => Ok(message.as_ref().and_then(decode_link).map(|(_, link)| link)),
            Err(NetlinkError::Refused {
                errno: libc::ENODEV,
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the present names of all interfaces.
    pub(crate) async fn names(&self) -> Result<BTreeMap<IfIndex, String>, NetlinkError> {
        let links = self.dump_links().await?;
        Ok(links
            .into_iter()
            .map(|(index, link)| (index, link.name))
            .collect())
    }

    /// Makes a change and waits for the kernel's word, which the engine judges.
    ///
    /// Sysctls are files, not netlink: they are no part of this.
    pub(crate) async fn apply(&self, change: &Change) -> Result<(), NetlinkError> {
        let handle = &self.handle;
        let done = match *change {
            Change::SetUp(index) => {
                let up = LinkUnspec::new_with_index(index.0).up().build();
                handle.link().set(up).execute().await
            }
            Change::SetDown(index) => {
                let down = LinkUnspec::new_with_index(index.0).down().build();
                handle.link().set(down).execute().await
            }
            Change::AddAddress { index, address } => {
                let mut request = handle.address().add(index.0, address.into(), 32).replace();
                *request.message_mut() = encode_address(index, address);
                request.execute().await
            }
            Change::RemoveAddress { index, address } => {
                handle
                    .address()
                    .del(encode_address(index, address))
                    .execute()
                    .await
            }
            Change::AddRoute {
                index,
                host,
                source,
            } => {
                let route = encode_route(index, host, Some(source));
                handle.route().add(route).replace().execute().await
            }
            Change::RemoveRoute { index, host } => {
                handle
                    .route()
                    .del(encode_route(index, host, None))
                    .execute()
                    .await
            }
            Change::SetNeighbour { index, host, mac } => {
                let mut request = handle.neighbours().add(index.0, host.into()).replace();
                *request.message_mut() = encode_neighbour(index, host, Some(mac));
                request.execute().await
            }
            Change::RemoveNeighbour { index, host } => {
                handle
                    .neighbours()
                    .del(encode_neighbour(index, host, None))
                    .execute()
                    .await
            }
            Change::HoldSysctl { .. } | Change::ReleaseSysctl { .. } => Ok(()),
        };
        done.map_err(NetlinkError::from)
    }

    /// Sets an interface down, and up again at once.
    pub(crate) async fn restart(&self, index: IfIndex) -> Result<(), NetlinkError> {
        let link = || LinkUnspec::new_with_index(index.0);
        for change in [link().down().build(), link().up().build()] {
            self.handle.link().set(change).execute().await?;
        }
        Ok(())
    }

    async fn dump_links(&self) -> Result<BTreeMap<IfIndex, Link>, NetlinkError> {
        let messages: Vec<_> = self.handle.link().get().execute().try_collect().await?;
        Ok(messages.iter().filter_map(decode_link).collect())
    }

    async fn dump_addresses(&self) -> Result<BTreeSet<Address>, NetlinkError> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        let messages: Vec<_> = request.execute().try_collect().await?;
        Ok(messages.iter().filter_map(decode_address).collect())
    }

    async fn dump_routes(&self) -> Result<BTreeSet<Route>, NetlinkError> {
        let mut filter = RouteMessage::default();
        filter.header.address_family = AddressFamily::Inet;
        let messages: Vec<_> = self
            .handle
            .route()
            .get(filter)
            .execute()
            .try_collect()
            .await?;
        Ok(messages.iter().filter_map(decode_route).collect())
    }

    async fn dump_neighbours(
        &self,
    ) -> Result<BTreeMap<(IfIndex, Ipv4Addr), MacAddr>, NetlinkError> {
        let request = self
            .handle
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Inet);
        let messages: Vec<_> = request.execute().try_collect().await?;
        Ok(messages
            .iter()
            .filter_map(decode_neighbour)
            .filter_map(|(index, host, mac)| Some(((index, host), mac?)))
            .collect())
    }
}
