//! Generic netlink: the frame of a request, the cutting of replies, and the one socket that carries a conversation.
//!
//! ```text
//!  0        4      6       8          12        16      17        18       20
//!  | length | type | flags | sequence | port id | command | version | unused | attributes: (length, type, value, padding) ...
//! ```
//!
//! The kernel answers a generic request before `send` returns, so nothing here waits: an answer that is not there is an error.
//! See the kernel's Documentation/userspace-api/netlink/intro.rst.

use std::io;

use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};

const HEADER: usize = 20;
/// The fixed address of the family that knows the others, its one command, and its attributes.
const CONTROL: u16 = 0x10;
const CONTROL_GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const MULTICAST_GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;

const FLAG_REQUEST: u16 = 0x001;
const FLAG_ACK: u16 = 0x004;
const FLAG_DUMP: u16 = 0x300;
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
/// The two upper bits of an attribute's type say how it is coded.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// The kernel packs a dump into datagrams of at most this size.
pub(super) const DATAGRAM_LIMIT: usize = 32 << 10;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The request was refused; 0 stands for an acknowledgement.
    Verdict { errno: i32 },
    /// The end of a dump.
    Done,
    /// A family's own.
    Content { command: u8, attributes: &'a [u8] },
}

/// Cuts a datagram into messages. What does not fit ends it.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk::<4>()?) as usize;
        let message = rest.get(..length)?;
        let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
        let found = match kind {
            TYPE_ERROR => Message::Verdict {
                errno: i32::from_ne_bytes(*message.get(16..)?.first_chunk()?).saturating_neg(),
            },
            TYPE_DONE => Message::Done,
            _ => Message::Content {
                command: *message.get(16)?,
                attributes: message.get(HEADER..)?,
            },
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(found)
    })
}

/// Cuts attributes. What does not fit ends them.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & ATTRIBUTE_TYPE;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Returns the value of the first attribute of a type.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// Returns a 16-bit attribute.
pub(super) fn attribute_u16(bytes: &[u8], wanted: u16) -> Option<u16> {
    Some(u16::from_ne_bytes(
        *attribute(bytes, wanted)?.first_chunk()?,
    ))
}

/// Returns a 32-bit attribute.
pub(super) fn attribute_u32(bytes: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(
        *attribute(bytes, wanted)?.first_chunk()?,
    ))
}

/// What a request asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// One thing done, or told.
    Single,
    /// Everything there is.
    Dump,
}

fn encode(family: u16, manner: Manner, command: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let flags = match manner {
        Manner::Single => FLAG_REQUEST | FLAG_ACK,
        Manner::Dump => FLAG_REQUEST | FLAG_DUMP,
    };
    let mut bytes = vec![0; HEADER];
    bytes[4..6].copy_from_slice(&family.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[16] = command;
    for (kind, value) in attributes {
        let length =
            u16::try_from(4 + value.len()).expect("the requests of this program are short");
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(bytes.len()).expect("the requests of this program are short");
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

/// A family of this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) id: u16,
    groups: Vec<(String, u32)>,
}

impl Family {
    /// Returns the number of a multicast group.
    pub(super) fn group(&self, name: &str) -> Option<u32> {
        let mut groups = self.groups.iter();
        groups.find_map(|(known, id)| (known == name).then_some(*id))
    }
}

pub(super) fn decode_family(attributes_: &[u8]) -> Option<Family> {
    let groups = attribute(attributes_, MULTICAST_GROUPS).unwrap_or_default();
    let group = |(_, group): (u16, &[u8])| {
        let name = attribute(group, GROUP_NAME)?;
        let name = String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name));
        Some((name.into_owned(), attribute_u32(group, GROUP_ID)?))
    };
    Some(Family {
        id: attribute_u16(attributes_, FAMILY_ID)?,
        groups: attributes(groups).filter_map(group).collect(),
    })
}

/// A socket for requests.
pub(super) struct Conversation {
    socket: Socket,
}

impl Conversation {
    /// Opens the socket.
    pub(super) fn open() -> io::Result<Conversation> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Conversation { socket })
    }

    /// Returns a family by its name.
    pub(super) fn family(&self, name: &str) -> io::Result<Family> {
        let name = [name.as_bytes(), &[0]].concat();
        let mut family = None;
        self.ask(
            CONTROL,
            Manner::Single,
            CONTROL_GET_FAMILY,
            &[(FAMILY_NAME, &name)],
            |attributes| family = decode_family(attributes),
        )?;
        family.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Makes a request and hands each message of the reply's attributes to `take`.
    pub(super) fn ask(
        &self,
        family: u16,
        manner: Manner,
        command: u8,
        attributes: &[(u16, &[u8])],
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.socket
            .send(&encode(family, manner, command, attributes), 0)?;
        let mut datagram = Vec::with_capacity(DATAGRAM_LIMIT);
        loop {
            datagram.clear();
            self.socket.recv(&mut datagram, 0)?;
            for message in messages(&datagram) {
                match message {
                    Message::Content { attributes, .. } => take(attributes),
                    Message::Done | Message::Verdict { errno: 0 } => return Ok(()),
                    Message::Verdict { errno } => {
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_cut_as_it_was_put_together() {
        let bytes = encode(28, Manner::Single, 5, &[(3, &[1, 2, 3, 4]), (4, b"abc")]);
        assert_eq!(bytes.len(), 36);
        let found: Vec<_> = messages(&bytes).collect();
        let [
            Message::Content {
                command: 5,
                attributes: inner,
            },
        ] = found[..]
        else {
            panic!("{found:?}");
        };
        let found: Vec<_> = attributes(inner).collect();
        assert_eq!(found, [(3, &[1, 2, 3, 4][..]), (4, &b"abc"[..])]);
    }

    #[test]
    fn the_kernel_knows_the_family_of_families() {
        let control = Conversation::open().unwrap().family("nlctrl").unwrap();
        assert_eq!(control.id, CONTROL);
        assert!(control.group("notify").is_some(), "{control:?}");
    }

    #[test]
    fn a_family_that_does_not_exist() {
        let error = Conversation::open()
            .unwrap()
            .family("nonsense")
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    proptest! {
        #[test]
        fn cutting_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                if let Message::Content { attributes: inner, .. } = message {
                    let _ = decode_family(inner);
                }
            }
            prop_assert!(attributes(&bytes).count() <= 50);
        }
    }
}
