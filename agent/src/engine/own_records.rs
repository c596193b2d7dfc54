//! What the device says of itself in multicast DNS (RFC 6763): that there is a service, and where.
//!
//! ```text
//!  _services._dns-sd._udp.local   PTR  _footbridge._tcp.local            which kinds of services there are
//!  _footbridge._tcp.local         PTR  hall-1._footbridge._tcp.local     shared: every device has one
//!  hall-1._footbridge._tcp.local  SRV  hall-1.local:61067                unique, and so are all that follow
//!  hall-1._footbridge._tcp.local  TXT  txtvers=1
//!  hall-1.local                   A    10.0.0.11
//!  both names                     NSEC no other types (RFC 6762, 6.1)
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::addr::MacAddr;
use crate::wire::dns::{self, Name, Question, Record};

use super::fleet::STATUS_PORT;

/// How long records with a host's name or address may be believed, in seconds, and all others (RFC 6762, 10).
const HOST_TTL: u32 = 120;
const OTHER_TTL: u32 = 4500;
const SERVICE: &str = "_footbridge._tcp.local";
const SERVICE_TYPES: &str = "_services._dns-sd._udp.local";
/// What a device is called that has no name to be called by.
const NAMELESS: &str = "footbridge";
/// Longest label of a name (RFC 1035, 2.3.4).
const LONGEST_LABEL: usize = 63;

/// One of the device's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Own {
    Types,
    Service,
    Srv,
    Txt,
    Address,
    /// Of the service's own name there are no records but those.
    NoOtherOfService,
    /// Of the host's name neither.
    NoOtherOfHost,
}

impl Own {
    pub(crate) const ALL: [Own; 7] = [
        Own::Types,
        Own::Service,
        Own::Srv,
        Own::Txt,
        Own::Address,
        Own::NoOtherOfService,
        Own::NoOtherOfHost,
    ];

    /// Whether others have records of the same name and type, so that all of them would answer at once.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Own::Types | Own::Service)
    }
}

/// The device's names, and what they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnRecords {
    types: Name,
    service: Name,
    pub(crate) instance: Name,
    pub(crate) host: Name,
    address: Ipv4Addr,
}

impl OwnRecords {
    /// Returns the records of a device. Its names are what it calls itself; where others have that name (`rank` 1), with the end
    /// of its hardware address, which no other has; and where even that is taken, with a number.
    pub(crate) fn new(hostname: &str, mac: MacAddr, rank: u32, address: Ipv4Addr) -> OwnRecords {
        let label = label(hostname, mac, rank);
        let name = |text: &str| {
            Name::parse(text).expect("a label that fits, and two or three that are known")
        };
        OwnRecords {
            types: name(SERVICE_TYPES),
            service: name(SERVICE),
            instance: name(&format!("{label}.{SERVICE}")),
            host: name(&format!("{label}.local")),
            address,
        }
    }

    /// Returns a record, as it is said to a group.
    pub(crate) fn record(&self, own: Own) -> Record {
        let (host, instance) = (&self.host, &self.instance);
        let record = match own {
            Own::Types => Record::ptr(self.types.clone(), OTHER_TTL, &self.service),
            Own::Service => Record::ptr(self.service.clone(), OTHER_TTL, instance),
            Own::Srv => Record::srv(instance.clone(), HOST_TTL, STATUS_PORT, host),
            Own::Txt => Record::txt(instance.clone(), OTHER_TTL, "txtvers=1"),
            Own::Address => Record::a(host.clone(), HOST_TTL, self.address),
            Own::NoOtherOfService => {
                let kinds = [dns::TYPE_TXT as u8, dns::TYPE_SRV as u8];
                Record::nsec(instance.clone(), HOST_TTL, &kinds)
            }
            Own::NoOtherOfHost => Record::nsec(host.clone(), HOST_TTL, &[dns::TYPE_A as u8]),
        };
        Record {
            flush: !own.is_shared(),
            ..record
        }
    }

    /// Whether the name is the device's alone.
    pub(crate) fn is_own_name(&self, name: &Name) -> bool {
        *name == self.host || *name == self.instance
    }

    /// Returns what answers a question.
    pub(crate) fn answers(&self, question: &Question) -> BTreeSet<Own> {
        if ![dns::CLASS_IN, dns::CLASS_ANY].contains(&question.class) {
            return BTreeSet::new();
        }
        let says_none = |own: &Own| matches!(own, Own::NoOtherOfService | Own::NoOtherOfHost);
        let of_name = |own: &Own| self.record(*own).name == question.name;
        let of_kind =
            |own: &Own| question.kind == dns::TYPE_ANY || self.record(*own).kind == question.kind;
        let (none, some): (BTreeSet<Own>, BTreeSet<Own>) =
            Own::ALL.into_iter().filter(of_name).partition(says_none);
        let some: BTreeSet<Own> = some.into_iter().filter(of_kind).collect();
        if some.is_empty() { none } else { some }
    }

    /// Takes off what an asker knows already, for at least half of its time (RFC 6762, 7.1).
    pub(crate) fn forget_known(&self, known: &[Record], answers: &mut BTreeSet<Own>) {
        let knows = |ours: &Record| {
            let mut known = known.iter();
            known.any(|theirs| theirs.ttl >= ours.ttl / 2 && theirs.says_what(ours))
        };
        answers.retain(|own| !knows(&self.record(*own)));
    }

    /// Returns what whoever is told this will ask for next.
    pub(crate) fn additional(&self, answers: &BTreeSet<Own>) -> BTreeSet<Own> {
        let mut all = answers.clone();
        if all.contains(&Own::Service) {
            all.extend([Own::Srv, Own::Txt]);
        }
        if all.contains(&Own::Srv) {
            all.extend([Own::Address, Own::NoOtherOfService]);
        }
        if all.contains(&Own::Address) {
            all.insert(Own::NoOtherOfHost);
        }
        &all - answers
    }

    /// Whether a record that somebody else has says something else of a name that is ours alone. While the name is not ours yet
    /// (`probing`), any other record of it does.
    pub(crate) fn is_contradicted(&self, theirs: &Record, probing: bool) -> bool {
        // What is taken back is claimed by nobody; that there are no other types is no claim either.
        if !self.is_own_name(&theirs.name) || theirs.ttl == 0 || theirs.kind == dns::TYPE_NSEC {
            return false;
        }
        let ours = Own::ALL.into_iter().map(|own| self.record(own));
        let ours: Vec<Record> = ours.filter(|ours| ours.name == theirs.name).collect();
        let of_kind = ours.iter().any(|ours| ours.kind == theirs.kind);
        (of_kind || probing) && !ours.iter().any(|ours| ours.says_what(theirs))
    }

    /// Returns what is claimed while it is asked whether the names are free.
    pub(crate) fn claims(&self) -> Vec<Record> {
        let claims = [Own::Srv, Own::Txt, Own::Address].map(|own| self.record(own));
        claims
            .map(|claim| Record {
                flush: false,
                ..claim
            })
            .into()
    }

    /// Whether another's claims on one of our names, made at the same time, win (RFC 6762, 8.2): the records of each name are put
    /// in order of class, type and data, and the later ones win.
    pub(crate) fn loses_to(&self, theirs: &[Record]) -> bool {
        let of = |name: &Name, records: &[Record]| {
            let of_name = records.iter().filter(|record| record.name == *name);
            let mut keys: Vec<(u16, u16, Vec<u8>)> = of_name
                .map(|record| (record.class, record.kind, record.data.clone()))
                .collect();
            keys.sort();
            keys
        };
        let claims = self.claims();
        [&self.host, &self.instance].into_iter().any(|name| {
            let theirs = of(name, theirs);
            !theirs.is_empty() && of(name, &claims) < theirs
        })
    }
}

/// Returns the first part of a host's name as a label of letters, digits and hyphens.
fn label(hostname: &str, mac: MacAddr, rank: u32) -> String {
    let first = hostname.split('.').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let mut label: String = first.chars().map(plain).collect();
    if label.trim_matches('-').is_empty() || label == "localhost" {
        label = NAMELESS.to_owned();
    }
    let MacAddr(_, _, _, a, b, c) = mac;
    let suffix = match rank {
        0 => String::new(),
        1 => format!("-{a:02x}{b:02x}{c:02x}"),
        _ => format!("-{a:02x}{b:02x}{c:02x}-{rank}"),
    };
    label.truncate(LONGEST_LABEL - suffix.len());
    label + &suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr(2, 0, 0, 0xab, 0xc, 2);

    fn records(address: u8) -> OwnRecords {
        OwnRecords::new("hall-1", MAC, 0, Ipv4Addr::new(10, 0, 0, address))
    }

    #[test]
    fn whatever_a_device_calls_itself_becomes_a_label() {
        let long = "x".repeat(64);
        let cases = [
            ("hall-1", 0, "hall-1"),
            ("hall-1.example.org", 0, "hall-1"),
            ("hall-1", 1, "hall-1-ab0c02"),
            ("hall-1", 7, "hall-1-ab0c02-7"),
            ("", 0, "footbridge"),
            ("(none)", 0, "-none-"),
            ("localhost", 2, "footbridge-ab0c02-2"),
            ("Küche\u{1b}[31m", 0, "K-che--31m"),
            (&long, 0, &long[..63]),
            (
                &long,
                u32::MAX,
                &format!("{}-ab0c02-4294967295", &long[..45]),
            ),
        ];
        for (hostname, rank, expected) in cases {
            assert_eq!(label(hostname, MAC, rank), expected);
            OwnRecords::new(hostname, MAC, rank, Ipv4Addr::LOCALHOST);
        }
    }

    #[test]
    fn the_later_claims_win_and_equal_ones_are_no_quarrel() {
        let (lower, higher) = (records(2), records(3));
        assert!(lower.loses_to(&higher.claims()));
        assert!(!higher.loses_to(&lower.claims()));
        assert!(!lower.loses_to(&lower.claims()));
        assert!(!lower.loses_to(&[]));
        // A list that is the beginning of another's comes before it.
        assert!(!lower.loses_to(&lower.claims()[2..]));
        let mut more = lower.claims();
        more.push(Record::a(lower.host.clone(), 120, Ipv4Addr::BROADCAST));
        assert!(lower.loses_to(&more));
    }

    #[test]
    fn only_what_others_say_of_our_names_contradicts_us() {
        let ours = records(2);
        let other = records(3).record(Own::Address);
        let aaaa = Record {
            kind: dns::TYPE_AAAA,
            ..other.clone()
        };
        let cases = [
            (ours.record(Own::Address), false, false),
            (ours.record(Own::Srv), false, false),
            (records(3).record(Own::Service), false, false),
            (records(3).record(Own::NoOtherOfHost), false, false),
            (
                Record {
                    ttl: 0,
                    ..other.clone()
                },
                false,
                false,
            ),
            (other, true, true),
            (aaaa, false, true),
        ];
        for (theirs, settled, probing) in cases {
            assert_eq!(ours.is_contradicted(&theirs, false), settled, "{theirs:?}");
            assert_eq!(ours.is_contradicted(&theirs, true), probing, "{theirs:?}");
        }
    }
}
