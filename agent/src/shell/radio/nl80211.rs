//! The kernel's side of a radio: what it is associated with, and the few things the agent may have it do.
//!
//! Facts come from four answers: the interface (is it a station at all?), the scan table (which network, on which frequency), the
//! station entry of the access point (signal and rates) and the regulatory domain. A driver that lacks one of them leaves its
//! fields empty. Decoding is apart from asking; the numbers are those of linux/nl80211.h.

use std::io;

use super::generic_netlink::{
    Conversation, Family, Manner, attribute, attribute_u16, attribute_u32,
};
use crate::addr::{IfIndex, MacAddr};
use crate::engine::{Association, RadioState};

const GET_INTERFACE: u8 = 5;
const GET_STATION: u8 = 17;
const GET_REG: u8 = 31;
const GET_SCAN: u8 = 32;
const DISCONNECT: u8 = 48;
const SET_POWER_SAVE: u8 = 61;
const GET_POWER_SAVE: u8 = 62;

const ATTR_WIPHY: u16 = 1;
pub(super) const ATTR_IFINDEX: u16 = 3;
const ATTR_IFTYPE: u16 = 5;
const ATTR_MAC: u16 = 6;
const ATTR_STA_INFO: u16 = 21;
const ATTR_REG_ALPHA2: u16 = 33;
const ATTR_BSS: u16 = 47;
const ATTR_REASON_CODE: u16 = 54;
const ATTR_PS_STATE: u16 = 93;

const STATION_SIGNAL: u16 = 7;
const STATION_TX_RATE: u16 = 8;
const STATION_RX_RATE: u16 = 14;
const RATE: u16 = 1;
const RATE_32: u16 = 5;

const BSS_BSSID: u16 = 1;
const BSS_FREQUENCY: u16 = 2;
const BSS_ELEMENTS: u16 = 6;
const BSS_STATUS: u16 = 9;
const BSS_ASSOCIATED: u32 = 1;
const ELEMENT_SSID: u8 = 0;
const LONGEST_SSID: usize = 32;

const TYPE_STATION: u32 = 2;
/// IEEE 802.11 reason 3: the station is leaving.
const REASON_LEAVING: u16 = 3;

/// A conversation with the kernel about radios.
pub(super) struct Nl80211 {
    conversation: Conversation,
    pub(super) family: Family,
}

impl Nl80211 {
    /// Opens a conversation; `None` if this kernel knows of no radios.
    pub(super) fn open() -> io::Result<Option<Nl80211>> {
        let conversation = Conversation::open()?;
        match conversation.family("nl80211") {
            Ok(family) => Ok(Some(Nl80211 {
                conversation,
                family,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads everything about an interface; `None` if it is no station.
    pub(super) fn read(&self, index: IfIndex) -> io::Result<Option<RadioState>> {
        let on = index.0.to_ne_bytes();
        let on = (ATTR_IFINDEX, &on[..]);
        let mut wiphy = None;
        match self.ask(GET_INTERFACE, Manner::Single, &[on], |attributes| {
            wiphy = decode_station_interface(attributes)
        }) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(wiphy) = wiphy else {
            return Ok(None);
        };
        let mut power_save = None;
        let asked = self.ask(GET_POWER_SAVE, Manner::Single, &[on], |attributes| {
            power_save = decode_power_save(attributes)
        });
        optional(asked)?;
        let mut country = None;
        let wiphy = (ATTR_WIPHY, &wiphy.to_ne_bytes()[..]);
        let asked = self.ask(GET_REG, Manner::Single, &[wiphy], |attributes| {
            country = decode_country(attributes)
        });
        optional(asked)?;
        Ok(Some(RadioState {
            association: self.association(on)?,
            country,
            power_save,
        }))
    }

    fn association(&self, on: (u16, &[u8])) -> io::Result<Option<Association>> {
        let mut found = None;
        let asked = self.ask(GET_SCAN, Manner::Dump, &[on], |attributes| {
            found = found.take().or_else(|| decode_associated_bss(attributes));
        });
        optional(asked)?;
        let Some(mut association) = found else {
            return Ok(None);
        };
        let bssid = association.bssid.octets();
        let asked = self.ask(
            GET_STATION,
            Manner::Single,
            &[on, (ATTR_MAC, &bssid)],
            |attributes| decode_station(attributes, &mut association),
        );
        optional(asked)?;
        Ok(Some(association))
    }

    /// Lets the radio doze, or not.
    pub(super) fn set_power_save(&self, index: IfIndex, on: bool) -> io::Result<()> {
        let index = index.0.to_ne_bytes();
        let state = u32::from(on).to_ne_bytes();
        let attributes = [(ATTR_IFINDEX, &index[..]), (ATTR_PS_STATE, &state[..])];
        self.ask(SET_POWER_SAVE, Manner::Single, &attributes, |_| {})
    }

    /// Ends the association; whoever made it makes it anew.
    pub(super) fn disconnect(&self, index: IfIndex) -> io::Result<()> {
        let index = index.0.to_ne_bytes();
        let reason = REASON_LEAVING.to_ne_bytes();
        let attributes = [(ATTR_IFINDEX, &index[..]), (ATTR_REASON_CODE, &reason[..])];
        self.ask(DISCONNECT, Manner::Single, &attributes, |_| {})
    }

    fn ask(
        &self,
        command: u8,
        manner: Manner,
        attributes: &[(u16, &[u8])],
        take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.conversation
            .ask(self.family.id, manner, command, attributes, take)
    }
}

/// Takes an answer that a driver may not have.
fn optional(asked: io::Result<()>) -> io::Result<()> {
    match asked.map_err(|error| (error.raw_os_error(), error)) {
        // The association may end, and the interface go down, between two questions; hung firmware answers EIO or not in time.
        Err((
            Some(
                libc::EOPNOTSUPP
                | libc::ENOENT
                | libc::EINVAL
                | libc::ENODEV
                | libc::ENETDOWN
                | libc::ENOTCONN
                | libc::EIO
                | libc::ETIMEDOUT
                | libc::EBUSY,
            ),
            _,
        ))
        | Ok(()) => Ok(()),
        Err((_, error)) => Err(error),
    }
}

/// Returns the number of the radio, if the interface is a station.
fn decode_station_interface(attributes: &[u8]) -> Option<u32> {
    let kind = attribute_u32(attributes, ATTR_IFTYPE)?;
    (kind == TYPE_STATION).then(|| attribute_u32(attributes, ATTR_WIPHY))?
}

fn decode_power_save(attributes: &[u8]) -> Option<bool> {
    attribute_u32(attributes, ATTR_PS_STATE).map(|state| state != 0)
}

/// Returns the country in force. The world's own domains ("00" and others in digits) are none.
fn decode_country(attributes: &[u8]) -> Option<String> {
    let alpha2 = attribute(attributes, ATTR_REG_ALPHA2)?.get(..2)?;
    let is_country = alpha2.iter().all(u8::is_ascii_uppercase);
    is_country.then(|| String::from_utf8_lossy(alpha2).into_owned())
}

fn decode_associated_bss(attributes: &[u8]) -> Option<Association> {
    let bss = attribute(attributes, ATTR_BSS)?;
    if attribute_u32(bss, BSS_STATUS)? != BSS_ASSOCIATED {
        return None;
    }
    let elements = attribute(bss, BSS_ELEMENTS).unwrap_or_default();
    Some(Association {
        bssid: MacAddr::from(*attribute(bss, BSS_BSSID)?.first_chunk::<6>()?),
        ssid: decode_ssid(elements).unwrap_or_default(),
        frequency: attribute_u32(bss, BSS_FREQUENCY),
        signal: None,
        tx_rate: None,
        rx_rate: None,
    })
}

/// Finds the network's name among the elements of a beacon, which is whatever somebody sent.
fn decode_ssid(mut elements: &[u8]) -> Option<Vec<u8>> {
    while let [kind, length, rest @ ..] = elements {
        let value = rest.get(..usize::from(*length))?;
        if *kind == ELEMENT_SSID {
            return (value.len() <= LONGEST_SSID).then(|| value.to_vec());
        }
        elements = &rest[value.len()..];
    }
    None
}

fn decode_station(attributes: &[u8], association: &mut Association) {
    let info = attribute(attributes, ATTR_STA_INFO).unwrap_or_default();
    let signal = attribute(info, STATION_SIGNAL).and_then(<[u8]>::first);
    association.signal = signal.map(|signal| signal.cast_signed());
    association.tx_rate = attribute(info, STATION_TX_RATE).and_then(decode_rate);
    association.rx_rate = attribute(info, STATION_RX_RATE).and_then(decode_rate);
}

/// Decodes attributes as each thing they may be about.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn decode_anything(attributes: &[u8]) {
    decode_station_interface(attributes);
    decode_power_save(attributes);
    decode_country(attributes);
    decode_ssid(attributes);
    if let Some(mut association) = decode_associated_bss(attributes) {
        assert!(association.ssid.len() <= LONGEST_SSID);
        decode_station(attributes, &mut association);
    }
}

/// Returns a rate in kbit/s; the kernel counts in hundreds.
fn decode_rate(rate: &[u8]) -> Option<u32> {
    let narrow = || attribute_u16(rate, RATE).map(u32::from);
    attribute_u32(rate, RATE_32)
        .or_else(narrow)
        .map(|hundreds| hundreds.saturating_mul(100))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::shell::radio::generic_netlink::{Message, decode_family, messages};

    /// Decodes each answer of a name in the recording.
    fn recorded<T>(name: &str, mut decode: impl FnMut(&[u8]) -> T) -> Vec<T> {
        let lines = include_str!("recorded.txt").lines();
        let mut words = lines.filter_map(|line| line.split_once(' '));
        let (_, hex) = words.find(|(found, _)| *found == name).unwrap();
        let digits: Vec<u8> = hex
            .chars()
            .map(|digit| digit.to_digit(16).unwrap() as u8)
            .collect();
        let bytes: Vec<u8> = digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect();
        let content = |message| match message {
            Message::Content { attributes, .. } => Some(decode(attributes)),
            Message::Verdict { .. } | Message::Done => None,
        };
        messages(&bytes).filter_map(content).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn what_a_kernel_answered() {
        let family = recorded("family", decode_family).remove(0).unwrap();
        assert_eq!(family.id, 34);
        let groups = ["mlme", "regulatory", "scan"].map(|name| family.group(name));
        assert_eq!(groups, [Some(22), Some(21), Some(20)]);
        let wiphy = recorded("interface", decode_station_interface);
        assert_eq!(wiphy, [Some(0)]);
        assert_eq!(recorded("power-save", decode_power_save), [Some(false)]);
        assert_eq!(
            recorded("regulatory", decode_country),
            [Some("DE".to_owned())]
        );
        let mut found = recorded("scan", decode_associated_bss);
        assert_eq!(found.remove(0), None, "the access point left behind");
        let mut association = found.remove(0).unwrap();
        recorded("station", |attributes| {
            decode_station(attributes, &mut association)
        });
        assert_eq!(association.ssid, "Café \"bar\" $x".as_bytes());
        association.ssid.clear();
        expect![[r#"
            Association {
                bssid: 02:00:00:00:02:00,
                ssid: [],
                frequency: Some(
                    2437,
                ),
                signal: Some(
                    -30,
                ),
                tx_rate: Some(
                    6000,
                ),
                rx_rate: Some(
                    54000,
                ),
            }
        "#]]
        .assert_debug_eq(&association);
    }

    #[test]
    fn names_of_networks() {
        let long = [&[0, 33][..], &[b'x'; 33]].concat();
        let cases = [
            (&b"\x01\x02ab\x00\x04home"[..], Some(&b"home"[..])),
            (b"\x00\x00", Some(b"")),
            (b"\x00\x05home", None),
            (b"\x01\x02ab\x00", None),
            (b"", None),
            (&long, None),
        ];
        for (elements, expected) in cases {
            assert_eq!(decode_ssid(elements).as_deref(), expected, "{elements:?}");
        }
    }

    #[test]
    fn countries() {
        let country = |alpha2: &[u8]| {
            let attribute = [&[7, 0, 33, 0][..], alpha2, &[0, 0]].concat();
            decode_country(&attribute)
        };
        assert_eq!(country(b"GB").as_deref(), Some("GB"));
        for world in [b"00", b"98", b"99"] {
            assert_eq!(country(world), None);
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode_station_interface(&bytes), decode_power_save(&bytes), decode_country(&bytes));
            let _ = (decode_associated_bss(&bytes), decode_ssid(&bytes), decode_rate(&bytes));
        }
    }
}
