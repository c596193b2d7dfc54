//! Patches on a DHCP message's original bytes (rule D1): whatever is not named here reaches the other side as it was.
//!
//! An option is added before the end mark of the options area, at the cost of the padding behind it where there is some, and
//! taken out of whatever area it is in; what is left of the area moves up, and padding fills the rest. So a message grows by
//! no more than it must, and never beyond what one frame carries.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::dhcp::{CHADDR, Dhcp, FLAGS, GIADDR, HOPS, OPTIONS, Walk, XID};

/// Length below which old clients drop a BOOTP message (RFC 1542, section 2.1).
const MIN_LEN: usize = 300;
/// Length up to which a message fits an unfragmented datagram on Ethernet.
const MAX_LEN: usize = 1500 - 28;

/// A message that is being patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    bytes: Vec<u8>,
    areas: Vec<Range<usize>>,
}

/// An option does not fit the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for another option")]
pub struct NoRoom;

impl Patch {
    /// Returns a copy to patch.
    pub fn new(message: &Dhcp<'_>) -> Patch {
        Patch {
            bytes: message.bytes().to_vec(),
            areas: message.areas().collect(),
        }
    }

    /// Returns the patched bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Counts one more relay.
    #[must_use]
    pub fn one_more_hop(mut self) -> Patch {
        self.bytes[HOPS] = self.bytes[HOPS].saturating_add(1);
        self
    }

    /// Names the relay.
    #[must_use]
    pub fn with_giaddr(self, giaddr: Ipv4Addr) -> Patch {
        self.with(GIADDR, &giaddr.octets())
    }

    /// Gives the message another transaction identifier.
    #[must_use]
    pub fn with_xid(self, xid: u32) -> Patch {
        self.with(XID, &xid.to_be_bytes())
    }

    /// Replaces all flags.
    #[must_use]
    pub fn with_flags(self, flags: u16) -> Patch {
        self.with(FLAGS, &flags.to_be_bytes())
    }

    /// Replaces the whole hardware address field.
    #[must_use]
    pub fn with_chaddr(self, chaddr: [u8; 16]) -> Patch {
        self.with(CHADDR, &chaddr)
    }

    /// Pads to the length that every client accepts.
    #[must_use]
    pub fn padded(mut self) -> Patch {
        self.bytes.resize(self.bytes.len().max(MIN_LEN), 0);
        self
    }

    /// Adds an option behind those that are there.
    pub fn add_option(&mut self, code: u8, value: &[u8]) -> Result<(), NoRoom> {
        let length = u8::try_from(value.len()).map_err(|_| NoRoom)?;
        let mut option = vec![code, length];
        option.extend(value);
        let at = OPTIONS + end_of(&self.bytes[OPTIONS..]);
        let behind = at + 1;
        let padding = self.bytes.get(behind..).map_or(0, |rest| {
            rest.iter().rev().take_while(|byte| **byte == 0).count()
        });
        let kept = self.bytes.len() - padding.min(option.len());
        if kept + option.len() > MAX_LEN {
            return Err(NoRoom);
        }
        self.bytes.truncate(kept);
        self.bytes.splice(at..at, option);
        self.areas[0].end = self.bytes.len();
        Ok(())
    }

    /// Takes every option of a code out.
    pub fn remove_option(&mut self, code: u8) {
        for area in &self.areas {
            remove_from(&mut self.bytes[area.clone()], code);
        }
    }

    fn with(mut self, at: usize, value: &[u8]) -> Patch {
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self
    }
}

fn end_of(area: &[u8]) -> usize {
    let mut walk = Walk::new(area);
    while let Ok(Some(_)) = walk.next() {}
    walk.at
}

fn remove_from(area: &mut [u8], code: u8) {
    while let Some(found) = find(area, code) {
        let length = found.len();
        area.copy_within(found.end.., found.start);
        let left = area.len() - length;
        area[left..].fill(0);
    }
}

fn find(area: &[u8], code: u8) -> Option<Range<usize>> {
    let mut walk = Walk::new(area);
    while let Ok(Some(option)) = walk.next() {
        if option.code == code {
            return Some(option.all);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::{self, DhcpOption, OptionCode};
    use dhcproto::{Decodable, Decoder};
    use proptest::prelude::*;

    use super::super::dhcp::{CLIENT_IDENTIFIER, RELAY_INFORMATION, decode};
    use super::*;

    fn message(options: &[u8], length: usize) -> Vec<u8> {
        let mut bytes = vec![0; OPTIONS];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
        bytes[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        bytes.extend(options);
        bytes.resize(bytes.len().max(length), 0);
        bytes
    }

    fn patch(bytes: &[u8]) -> Patch {
        Patch::new(&decode(bytes).unwrap())
    }

    #[test]
    fn d1_only_hops_and_giaddr_change() {
        let bytes = message(&[53, 1, 1, 224, 2, 9, 9, 255], 0);
        let patched = patch(&bytes)
            .one_more_hop()
            .with_giaddr([10, 0, 0, 2].into());
        let patched = patched.into_bytes();
        let theirs = v4::Message::decode(&mut Decoder::new(&patched)).unwrap();
        assert_eq!((theirs.hops(), theirs.giaddr()), (1, [10, 0, 0, 2].into()));
        let changed: Vec<usize> = (0..bytes.len())
            .filter(|&at| bytes[at] != patched[at])
            .collect();
        assert_eq!(changed, [3, 24, 27]);
    }

    #[test]
    fn d4_a_short_reply_is_padded() {
        let bytes = message(&[53, 1, 2, 255], 0);
        assert_eq!(patch(&bytes).padded().into_bytes().len(), 300);
    }

    #[test]
    fn d9_a_mask_is_taken_off_again() {
        let bytes = message(&[53, 1, 1, 255], 300);
        let masked = patch(&bytes)
            .with_xid(0xdead_beef)
            .with_flags(0x8000)
            .with_chaddr([9; 16]);
        let masked = masked.into_bytes();
        let theirs = v4::Message::decode(&mut Decoder::new(&masked)).unwrap();
        assert_eq!(
            (theirs.xid(), theirs.flags().broadcast()),
            (0xdead_beef, true)
        );
        let chaddr = decode(&bytes).unwrap().chaddr();
        let restored = patch(&masked).with_xid(0).with_flags(0).with_chaddr(chaddr);
        assert_eq!(restored.into_bytes(), bytes);
    }

    #[test]
    fn d2_an_added_option_takes_the_place_of_padding() {
        for (options, length, grown) in [
            (&[53, 1, 1, 255][..], 300, 300),
            (&[53, 1, 1, 255], 246, 247),
            (&[53, 1, 1, 255], 0, 247),
            (&[53, 1, 1], 0, 246),
        ] {
            let bytes = message(options, length);
            let mut added = patch(&bytes);
            assert_eq!(added.add_option(RELAY_INFORMATION, &[7]), Ok(()));
            let added = added.into_bytes();
            assert_eq!(added.len(), grown, "{options:?} {length}");
            assert_eq!(added[OPTIONS..][..6], [53, 1, 1, 82, 1, 7]);
            let theirs = v4::Message::decode(&mut Decoder::new(&added)).unwrap();
            assert!(
                theirs
                    .opts()
                    .get(OptionCode::RelayAgentInformation)
                    .is_some()
                    || added.len() == 246
            );
            assert!(decode(&added).unwrap().has_relay_information());
        }
    }

    #[test]
    fn d2_an_option_that_does_not_fit_is_not_added() {
        let mut options: Vec<u8> = [224, 200].into_iter().chain([7; 200]).collect();
        options = options.repeat(6);
        options.push(255);
        let bytes = message(&options, 0);
        let mut full = patch(&bytes);
        assert_eq!(full.add_option(CLIENT_IDENTIFIER, &[0; 60]), Err(NoRoom));
        assert_eq!(full.add_option(CLIENT_IDENTIFIER, &[0; 256]), Err(NoRoom));
        assert_eq!(full.into_bytes(), bytes);
    }

    #[test]
    fn d2_a_removed_option_leaves_the_others_in_every_area() {
        let mut bytes = message(&[82, 1, 7, 52, 1, 3, 82, 1, 7, 53, 1, 2, 255], 300);
        bytes[108..115].copy_from_slice(&[51, 2, 0, 0, 82, 0, 255]);
        bytes[44..51].copy_from_slice(&[82, 0, 51, 2, 14, 16, 255]);
        let mut stripped = patch(&bytes);
        stripped.remove_option(RELAY_INFORMATION);
        let stripped = stripped.into_bytes();
        assert_eq!(stripped.len(), bytes.len());
        assert_eq!(stripped[OPTIONS..][..9], [52, 1, 3, 53, 1, 2, 255, 0, 0]);
        let view = decode(&stripped).unwrap();
        assert!(!view.has_relay_information());
        assert_eq!(view.lease_time(), Some(3600));
    }

    #[test]
    fn an_identifier_that_was_added_is_read_by_others() {
        let bytes = message(&[53, 1, 1, 255], 300);
        let mut added = patch(&bytes);
        added
            .add_option(CLIENT_IDENTIFIER, &[1, 2, 0, 0, 0, 0, 7])
            .unwrap();
        let theirs = v4::Message::decode(&mut Decoder::new(&added.into_bytes())).unwrap();
        let identifier = theirs.opts().get(OptionCode::ClientIdentifier);
        assert_eq!(
            identifier,
            Some(&DhcpOption::ClientIdentifier(vec![1, 2, 0, 0, 0, 0, 7]))
        );
    }

    proptest! {
        #[test]
        fn what_is_added_is_removed_again(
            options in proptest::collection::vec((1u8..50, proptest::collection::vec(any::<u8>(), 0..30)), 0..10),
            value in proptest::collection::vec(any::<u8>(), 0..80),
            length in 0usize..700,
        ) {
            let mut area: Vec<u8> = vec![53, 1, 1];
            for (code, value) in options.iter().filter(|(code, _)| *code != 50) {
                area.extend([*code, value.len() as u8]);
                area.extend(value);
            }
            area.push(255);
            let bytes = message(&area, length);
            let mut patched = patch(&bytes);
            patched.add_option(RELAY_INFORMATION, &value).unwrap();
            prop_assert!(decode(&patched.clone().into_bytes()).unwrap().has_relay_information());
            patched.remove_option(RELAY_INFORMATION);
            let mut left = patched.into_bytes();
            prop_assert!(left.len() >= bytes.len());
            prop_assert!(left[bytes.len()..].iter().all(|byte| *byte == 0));
            left.truncate(bytes.len());
            prop_assert_eq!(left, bytes);
        }
    }
}
