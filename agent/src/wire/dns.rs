//! DNS messages (RFC 1035, 4.1) with the two bits that multicast DNS takes from their classes (RFC 6762, 18.12 and 18.13).
//!
//! ```text
//!  0    2       4           6         8           10           12
//! +----+-------+-----------+---------+-----------+------------+------------------------------------------
//! | id | flags | questions | answers | authority | additional | questions, then records of three sections
//! +----+-------+-----------+---------+-----------+------------+------------------------------------------
//!
//!  question: name | type | unicast:1 class:15
//!  record:   name | type | flush:1   class:15 | ttl (32 bits) | length | data
//! ```
//!
//! Names are read compressed and written whole. Of data, the names in PTR and SRV records are made whole as well, so that data
//! can be compared; other data is bytes.

use std::fmt;
use std::net::Ipv4Addr;

/// Type of an IPv4 address.
pub const TYPE_A: u16 = 1;
/// Type of a pointer to another name.
pub const TYPE_PTR: u16 = 12;
/// Type of texts.
pub const TYPE_TXT: u16 = 16;
/// Type of an IPv6 address.
pub const TYPE_AAAA: u16 = 28;
/// Type of a service's host and port (RFC 2782).
pub const TYPE_SRV: u16 = 33;
/// Type of a statement of which types there are (RFC 6762, 6.1).
pub const TYPE_NSEC: u16 = 47;
/// Stands in a question for all types.
pub const TYPE_ANY: u16 = 255;
/// The class of the Internet.
pub const CLASS_IN: u16 = 1;
/// Stands in a question for all classes.
pub const CLASS_ANY: u16 = 255;

const HEADER_LEN: usize = 12;
const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_AUTHORITATIVE: u16 = 0x0400;
const FLAG_TRUNCATED: u16 = 0x0200;
const OPCODE: u16 = 0x7800;
/// Multicast DNS asks for a unicast answer, or says that it knows all records of a name and type.
const TOP_BIT: u16 = 0x8000;
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 255;
/// Priority, weight and port, which precede the name in a SRV record.
const SRV_NUMBERS: usize = 6;

/// A name, whole, its end included. Letters of ASCII are the same in both cases (RFC 6762, 16).
#[derive(Clone, Debug, Eq)]
pub struct Name(Vec<u8>);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Of what.
    pub name: Name,
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// Whether it may be answered to the asker alone.
    pub unicast: bool,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of what.
    pub name: Name,
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// Whether the sender says that there is no other record of the name and type but its own.
    pub flush: bool,
    /// How long it may be believed, in seconds; zero takes it back.
    pub ttl: u32,
    /// What it says.
    pub data: Vec<u8>,
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Zero in multicast DNS, but for resolvers that speak it from another port.
    pub id: u16,
    /// Whether it answers.
    pub response: bool,
    /// Whether more of it follows.
    pub truncated: bool,
    /// What is asked.
    pub questions: Vec<Question>,
    /// What is answered, or known already.
    pub answers: Vec<Record>,
    /// What the sender is about to claim.
    pub authority: Vec<Record>,
    /// What goes with it.
    pub additional: Vec<Record>,
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// It ends before it says it does.
    #[error("message is shorter than it says")]
    Short,
    /// A name that is too long, or compressed in a way that leads nowhere.
    #[error("message has an impossible name")]
    Name,
    /// Another operation than a query.
    #[error("message is no standard query")]
    Opcode,
}

impl Name {
    /// Parses labels with dots between them; none if one is empty or something is too long.
    pub fn parse(text: &str) -> Option<Name> {
        let mut bytes = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            let length = u8::try_from(label.len()).ok()?;
            if label.is_empty() || label.len() > LONGEST_LABEL {
                return None;
            }
            bytes.push(length);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        (bytes.len() <= LONGEST_NAME).then_some(Name(bytes))
    }

    /// Returns its bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        // The length of a label is no letter.
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.0[..];
        let mut dot = "";
        while let [length, after @ ..] = rest
            && *length > 0
        {
            let (label, after) = after.split_at(usize::from(*length));
            write!(f, "{dot}{}", label.escape_ascii())?;
            (rest, dot) = (after, ".");
        }
        Ok(())
    }
}

impl Record {
    /// Returns an address of a name.
    pub fn a(name: Name, ttl: u32, address: Ipv4Addr) -> Record {
        Record::new(name, TYPE_A, ttl, address.octets().to_vec())
    }

    /// Returns a pointer to another name.
    pub fn ptr(name: Name, ttl: u32, to: &Name) -> Record {
        Record::new(name, TYPE_PTR, ttl, to.0.clone())
    }

    /// Returns a service's host and port.
    pub fn srv(name: Name, ttl: u32, port: u16, host: &Name) -> Record {
        let [high, low] = port.to_be_bytes();
        let data = [&[0, 0, 0, 0, high, low], &host.0[..]].concat();
        Record::new(name, TYPE_SRV, ttl, data)
    }

    /// Returns one text of at most 255 bytes; what is longer is cut.
    pub fn txt(name: Name, ttl: u32, text: &str) -> Record {
        let text = &text.as_bytes()[..text.len().min(255)];
        let data = [&[text.len() as u8], text].concat();
        Record::new(name, TYPE_TXT, ttl, data)
    }

    /// Returns a statement that a name has these types, each less than 256, and no others.
    pub fn nsec(name: Name, ttl: u32, kinds: &[u8]) -> Record {
        let mut bits = [0; 32];
        for kind in kinds {
            bits[usize::from(kind / 8)] |= 0x80 >> (kind % 8);
        }
        let length = bits.iter().rposition(|bits| *bits != 0);
        let bits = &bits[..length.map_or(0, |last| last + 1)];
        let data = [&name.0[..], &[0, bits.len() as u8], bits].concat();
        Record::new(name, TYPE_NSEC, ttl, data)
    }

    fn new(name: Name, kind: u16, ttl: u32, data: Vec<u8>) -> Record {
        Record {
            name,
            kind,
            class: CLASS_IN,
            flush: false,
            ttl,
            data,
        }
    }

    /// Whether both say the same of the same; how long it may be believed aside.
    pub fn says_what(&self, other: &Record) -> bool {
        (self.kind, self.class) == (other.kind, other.class)
            && self.name == other.name
            && same_data(self.kind, &self.data, &other.data)
    }
}

fn same_data(kind: u16, a: &[u8], b: &[u8]) -> bool {
    let numbers = match kind {
        TYPE_PTR => 0,
        TYPE_SRV => SRV_NUMBERS,
        _ => return a == b,
    };
    let (Some((a, host_a)), Some((b, host_b))) =
        (a.split_at_checked(numbers), b.split_at_checked(numbers))
    else {
        return false;
    };
    a == b && host_a.eq_ignore_ascii_case(host_b)
}

/// Decodes a message; what is behind its last record is not looked at.
pub fn decode(bytes: &[u8]) -> Result<Message, DnsError> {
    let mut reader = Reader { bytes, at: 0 };
    let (id, flags) = (reader.number()?, reader.number()?);
    if flags & OPCODE != 0 {
        return Err(DnsError::Opcode);
    }
    let counts = [
        reader.number()?,
        reader.number()?,
        reader.number()?,
        reader.number()?,
    ];
    let [questions, answers, authority, additional] = counts;
    Ok(Message {
        id,
        response: flags & FLAG_RESPONSE != 0,
        truncated: flags & FLAG_TRUNCATED != 0,
        questions: reader.several(questions, Reader::question)?,
        answers: reader.several(answers, Reader::record)?,
        authority: reader.several(authority, Reader::record)?,
        additional: reader.several(additional, Reader::record)?,
    })
}

/// Encodes a message; a response speaks with authority. More of anything than a message can count is left out.
pub fn encode(message: &Message) -> Vec<u8> {
    let response = FLAG_RESPONSE | FLAG_AUTHORITATIVE;
    let flags = if message.response { response } else { 0 }
        | if message.truncated { FLAG_TRUNCATED } else { 0 };
    let sections = [&message.answers, &message.authority, &message.additional];
    let mut bytes = Vec::with_capacity(512);
    put(&mut bytes, message.id);
    put(&mut bytes, flags);
    put(&mut bytes, count(message.questions.len()));
    for section in sections {
        put(&mut bytes, count(section.len()));
    }
    for question in message.questions.iter().take(usize::from(u16::MAX)) {
        bytes.extend(&question.name.0);
        put(&mut bytes, question.kind);
        put(&mut bytes, with_top_bit(question.class, question.unicast));
    }
    for section in sections {
        for record in section.iter().take(usize::from(u16::MAX)) {
            bytes.extend(&record.name.0);
            put(&mut bytes, record.kind);
            put(&mut bytes, with_top_bit(record.class, record.flush));
            bytes.extend(record.ttl.to_be_bytes());
            let data = &record.data[..record.data.len().min(usize::from(u16::MAX))];
            put(&mut bytes, count(data.len()));
            bytes.extend(data);
        }
    }
    bytes
}

fn count(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn put(bytes: &mut Vec<u8>, number: u16) {
    bytes.extend(number.to_be_bytes());
}

fn with_top_bit(class: u16, set: bool) -> u16 {
    (class & !TOP_BIT) | if set { TOP_BIT } else { 0 }
}

/// Reads from the beginning to the end; names may lead back.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DnsError> {
        let end = self.at.checked_add(length).ok_or(DnsError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(DnsError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, DnsError> {
        let taken = self.take(2)?;
        Ok(u16::from_be_bytes([taken[0], taken[1]]))
    }

    fn several<T>(
        &mut self,
        count: u16,
        read: impl Fn(&mut Self) -> Result<T, DnsError>,
    ) -> Result<Vec<T>, DnsError> {
        (0..count).map(|_| read(self)).collect()
    }

    /// Reads a name. Each jump leads to before where the name, or the part of it that jumps, begins, so it comes to an end.
    fn name(&mut self) -> Result<Name, DnsError> {
        const JUMP: u8 = 0xc0;
        let mut name = Vec::new();
        let mut begin = self.at;
        let mut after = None;
        loop {
            let length = self.take(1)?[0];
            match length & JUMP {
                0 => {
                    name.push(length);
                    name.extend(self.take(usize::from(length))?);
                    if name.len() > LONGEST_NAME {
                        return Err(DnsError::Name);
                    }
                    if length == 0 {
                        break;
                    }
                }
                JUMP => {
                    let low = self.take(1)?[0];
                    let to = usize::from(u16::from_be_bytes([length & !JUMP, low]));
                    after.get_or_insert(self.at);
                    if to >= begin || to < HEADER_LEN {
                        return Err(DnsError::Name);
                    }
                    (begin, self.at) = (to, to);
                }
                _ => return Err(DnsError::Name),
            }
        }
        self.at = after.unwrap_or(self.at);
        Ok(Name(name))
    }

    fn question(&mut self) -> Result<Question, DnsError> {
        let name = self.name()?;
        let (kind, class) = (self.number()?, self.number()?);
        Ok(Question {
            name,
            kind,
            class: class & !TOP_BIT,
            unicast: class & TOP_BIT != 0,
        })
    }

    fn record(&mut self) -> Result<Record, DnsError> {
        let name = self.name()?;
        let (kind, class) = (self.number()?, self.number()?);
        let ttl = u32::from(self.number()?) << 16 | u32::from(self.number()?);
        let length = usize::from(self.number()?);
        Ok(Record {
            name,
            kind,
            class: class & !TOP_BIT,
            flush: class & TOP_BIT != 0,
            ttl,
            data: self.data(kind, length)?,
        })
    }

    fn data(&mut self, kind: u16, length: usize) -> Result<Vec<u8>, DnsError> {
        let begin = self.at;
        let bytes = self.take(length)?;
        let numbers = match kind {
            TYPE_PTR => 0,
            TYPE_SRV => SRV_NUMBERS,
            _ => return Ok(bytes.to_vec()),
        };
        let mut inside = Reader {
            bytes: &self.bytes[..self.at],
            at: begin,
        };
        let mut data = inside.take(numbers)?.to_vec();
        data.extend(inside.name()?.0);
        if inside.at != self.at {
            return Err(DnsError::Short);
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn names_have_limits_and_no_case() {
        let label = "x".repeat(63);
        assert_eq!(name("Hall-1.LOCAL"), name("hall-1.local"));
        assert_ne!(name("hall-1.local"), name("hall-2.local"));
        assert_eq!(name("hall-1.local").to_string(), "hall-1.local");
        for refused in ["", "a..b", ".", "a.", &format!("{label}x.local")] {
            assert_eq!(Name::parse(refused), None, "{refused}");
        }
        let longest = [&label[..], &label, &label, &label[..61]].join(".");
        assert_eq!(name(&longest).as_bytes().len(), 255);
        assert_eq!(Name::parse(&format!("{longest}x")), None);
    }

    /// A response as it is on the wire: `hall.local` at 12, and names that lead back to it.
    fn compressed(srv_target: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 0];
        bytes.extend(b"\x04hall\x05local\0\0\x01\x80\x01\0\0\0\x78\0\x04\x0a\0\0\x02");
        bytes.extend(b"\x01s\xc0\x11\0\x21\x80\x01\0\0\0\x78\0");
        bytes.push(6 + srv_target.len() as u8);
        bytes.extend(b"\0\0\0\0\xee\x8b");
        bytes.extend(srv_target);
        bytes
    }

    #[test]
    fn compressed_names_are_made_whole() {
        let message = decode(&compressed(b"\xc0\x0c")).unwrap();
        assert!(message.response && message.answers.iter().all(|answer| answer.flush));
        let mut address = Record::a(name("HALL.local"), 120, Ipv4Addr::new(10, 0, 0, 2));
        let srv = Record::srv(name("s.local"), 120, 61067, &name("Hall.local"));
        assert!(message.answers[0].says_what(&address));
        assert!(message.answers[1].says_what(&srv));
        address.data[3] = 3;
        assert!(!message.answers[0].says_what(&address));
        assert!(!message.answers[1].says_what(&Record::srv(
            name("s.local"),
            120,
            61068,
            &name("hall.local")
        )));
    }

    #[test]
    fn refusals_name_their_reason() {
        let whole = compressed(b"\xc0\x0c");
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), Err(DnsError::Short), "{cut}");
        }
        // To itself, forward, into the header, of a reserved kind; and longer than the record's data says.
        for target in [&b"\xc0\x3a"[..], b"\xc0\xff", b"\xc0\x00", b"\x80\x0c"] {
            let found = decode(&compressed(target));
            assert_eq!(found, Err(DnsError::Name), "{target:?}");
        }
        assert_eq!(decode(&compressed(b"\xc0\x0c\0")), Err(DnsError::Short));
        let mut update = whole.clone();
        update[2] |= 0x28;
        assert_eq!(decode(&update), Err(DnsError::Opcode));
    }

    #[test]
    fn what_types_a_name_has_is_a_row_of_bits() {
        let record = Record::nsec(name("a"), 1, &[TYPE_TXT as u8, TYPE_SRV as u8]);
        assert_eq!(record.data, b"\x01a\0\0\x05\0\0\x80\0\x40");
    }

    fn any_name() -> impl Strategy<Value = Name> {
        proptest::collection::vec("[a-zA-Z0-9_ -]{1,20}", 1..5)
            .prop_map(|labels| name(&labels.join(".")))
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let data = proptest::collection::vec(any::<u8>(), 0..40);
        let numbers = (0u16..0x8000, any::<bool>(), any::<u32>());
        (any_name(), 0u8..6, any_name(), data, numbers).prop_map(
            |(name, kind, other, data, (class, flush, ttl))| {
                let record = match kind {
                    0 => Record::a(name, ttl, Ipv4Addr::LOCALHOST),
                    1 => Record::ptr(name, ttl, &other),
                    2 => Record::srv(name, ttl, class, &other),
                    3 => Record::txt(name, ttl, "txtvers=1"),
                    4 => Record::nsec(name, ttl, &[1, 255]),
                    _ => Record::new(name, 999, ttl, data),
                };
                Record {
                    class,
                    flush,
                    ..record
                }
            },
        )
    }

    prop_compose! {
        fn any_message()(
            (id, response, truncated) in any::<(u16, bool, bool)>(),
            questions in proptest::collection::vec((any_name(), any::<u16>(), 0u16..0x8000, any::<bool>()), 0..4),
            sections in proptest::collection::vec(proptest::collection::vec(any_record(), 0..4), 3),
        ) -> Message {
            let question = |(name, kind, class, unicast)| Question { name, kind, class, unicast };
            Message {
                id,
                response,
                truncated,
                questions: questions.into_iter().map(question).collect(),
                answers: sections[0].clone(),
                authority: sections[1].clone(),
                additional: sections[2].clone(),
            }
        }
    }

    proptest! {
        #[test]
        fn decode_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn decode_undoes_encode(message in any_message()) {
            prop_assert_eq!(decode(&encode(&message)), Ok(message));
        }
    }
}
