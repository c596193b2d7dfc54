//! Names in a FAT directory: which ones it can hold, the 8.3 alias each one needs, and the records of long names.
//!
//! Every entry has an 8.3 name of the upper-case ASCII set. A name that is not such a name by itself is stored a second
//! time, in UTF-16, in records before the entry; the 8.3 name is then an alias nobody should see.

use std::collections::{BTreeMap, BTreeSet};

/// Size of every record in a directory.
pub(super) const RECORD_SIZE: usize = 32;

/// UTF-16 units in one long-name record.
const UNITS_PER_RECORD: usize = 13;

/// What no name may contain.
const FORBIDDEN: &str = "\"*/:<>?\\|";

/// What an 8.3 name may contain besides letters and digits.
const SHORT_PUNCTUATION: &[u8] = b"$%'-_@~`!(){}^#&";

/// An 8.3 name as it is stored: filled up with spaces, no dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShortName(pub(super) [u8; 11]);

/// A name as a directory stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredName {
    pub(super) short: ShortName,
    /// The records that go before the entry, in the order they are stored; none if the short name says it all.
    pub(super) long: Vec<[u8; RECORD_SIZE]>,
}

/// What keeps a name out of a FAT directory.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameFault {
    /// A character that is not allowed.
    #[error("it contains {0:?}")]
    Character(char),
    /// Trailing dots and spaces are dropped by those who read them.
    #[error("it ends with a dot or a space")]
    Ending,
    /// Upper and lower case are the same there.
    #[error("it differs from `{0}` only in upper and lower case")]
    Case(String),
    /// The name takes more than 255 UTF-16 units.
    #[error("it is too long")]
    TooLong,
    /// So many names are alike that there are no aliases left.
    #[error("there are too many names like it")]
    Aliases,
}

/// Stores the names of one directory; the answer is in the same order.
pub(super) fn store_names(names: &[&str]) -> Result<Vec<StoredName>, (String, NameFault)> {
    check_names(names)?;
    let bases: Vec<ShortBase> = names.iter().map(|name| ShortBase::of(name)).collect();
    // Whoever is an 8.3 name keeps it; aliases are made around them.
    let mut taken: BTreeSet<ShortName> = bases
        .iter()
        .filter(|base| base.exact)
        .map(ShortBase::whole)
        .collect();
    let mut counters = BTreeMap::new();
    names
        .iter()
        .zip(&bases)
        .map(|(name, base)| {
            let short = if base.exact {
                base.whole()
            } else {
                free_alias(base, &mut taken, &mut counters)
                    .ok_or_else(|| ((*name).to_owned(), NameFault::Aliases))?
            };
            let long = if short.text() == *name {
                Vec::new()
            } else {
                long_records(name, short)
            };
            Ok(StoredName { short, long })
        })
        .collect()
}

/// The record count of a name is known without its neighbours: an entry, and the long name unless it is an 8.3 name.
pub(super) fn record_count(name: &str) -> usize {
    let base = ShortBase::of(name);
    if base.exact && base.whole().text() == name {
        1
    } else {
        1 + units(name).div_ceil(UNITS_PER_RECORD)
    }
}

fn check_names(names: &[&str]) -> Result<(), (String, NameFault)> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in names {
        let fault = |fault| Err(((*name).to_owned(), fault));
        if let Some(c) = name
            .chars()
            .find(|c| c.is_control() || FORBIDDEN.contains(*c))
        {
            return fault(NameFault::Character(c));
        }
        if name.ends_with(['.', ' ']) {
            return fault(NameFault::Ending);
        }
        if units(name) > 255 {
            return fault(NameFault::TooLong);
        }
        if let Some(other) = seen.insert(name.to_uppercase(), name) {
            return fault(NameFault::Case(other.to_owned()));
        }
    }
    Ok(())
}

fn units(name: &str) -> usize {
    name.encode_utf16().count()
}

impl ShortName {
    /// What this name reads as.
    pub(super) fn text(self) -> String {
        let part = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .trim_end_matches(' ')
                .to_owned()
        };
        let (base, extension) = (part(&self.0[..8]), part(&self.0[8..]));
        if extension.is_empty() {
            base
        } else {
            format!("{base}.{extension}")
        }
    }

    /// Ties long-name records to their entry.
    fn checksum(self) -> u8 {
        self.0
            .iter()
            .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
    }
}

/// What an alias is made from.
#[derive(Debug)]
struct ShortBase {
    base: Vec<u8>,
    extension: Vec<u8>,
    /// Nothing but case was lost, so the alias needs no number.
    exact: bool,
}

impl ShortBase {
    fn of(name: &str) -> Self {
        let trimmed = name.trim_start_matches(['.', ' ']);
        let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
        let (mut base, base_exact) = short_bytes(base);
        let (mut extension, extension_exact) = short_bytes(extension);
        let exact = base_exact
            && extension_exact
            && trimmed == name
            && (1..=8).contains(&base.len())
            && extension.len() <= 3;
        base.truncate(8);
        extension.truncate(3);
        Self {
            base,
            extension,
            exact,
        }
    }

    fn whole(&self) -> ShortName {
        self.with_tail("")
    }

    fn with_tail(&self, tail: &str) -> ShortName {
        let kept = self.base.len().min(8 - tail.len());
        let mut bytes = [b' '; 11];
        bytes[..kept].copy_from_slice(&self.base[..kept]);
        bytes[kept..kept + tail.len()].copy_from_slice(tail.as_bytes());
        bytes[8..8 + self.extension.len()].copy_from_slice(&self.extension);
        ShortName(bytes)
    }
}

/// Upper-cases what an 8.3 name can hold and says whether that was all.
fn short_bytes(part: &str) -> (Vec<u8>, bool) {
    let mut exact = true;
    let mut bytes = Vec::new();
    for c in part.chars() {
        match u8::try_from(c) {
            Ok(b' ' | b'.') => exact = false,
            Ok(byte) if byte.is_ascii_alphanumeric() || SHORT_PUNCTUATION.contains(&byte) => {
                bytes.push(byte.to_ascii_uppercase());
            }
            _ => {
                exact = false;
                bytes.push(b'_');
            }
        }
    }
    (bytes, exact)
}

/// The first free `BASE~N`. The counters make a directory of thousands of like names cheap.
fn free_alias(
    base: &ShortBase,
    taken: &mut BTreeSet<ShortName>,
    counters: &mut BTreeMap<ShortName, u32>,
) -> Option<ShortName> {
    let counter = counters.entry(base.with_tail("~")).or_insert(0);
    while *counter < 999_999 {
        *counter += 1;
        let alias = base.with_tail(&format!("~{counter}"));
        if taken.insert(alias) {
            return Some(alias);
        }
    }
    None
}

/// ```text
///  0      1              11     12   13         14              26   28
///  | seq  | 5 UTF-16     | 0x0f | 0  | checksum | 6 UTF-16      | 0  | 2 UTF-16 |
/// ```
/// The last part of the name comes first and has 0x40 in its number. A name that ends inside a record has a NUL after
/// it and FFFF after that.
fn long_records(name: &str, short: ShortName) -> Vec<[u8; RECORD_SIZE]> {
    const LAST: u8 = 0x40;
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(UNITS_PER_RECORD) {
        units.push(0);
        units.resize(units.len().next_multiple_of(UNITS_PER_RECORD), 0xffff);
    }
    let mut records: Vec<[u8; RECORD_SIZE]> = (1u8..)
        .zip(units.chunks(UNITS_PER_RECORD))
        .map(|(number, chunk)| {
            let mut record = [0; RECORD_SIZE];
            record[0] = number;
            record[11] = 0x0f;
            record[13] = short.checksum();
            let places = (1..11)
                .step_by(2)
                .chain((14..26).step_by(2))
                .chain((28..32).step_by(2));
            for (at, unit) in places.zip(chunk) {
                record[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
            record
        })
        .collect();
    if let Some(last) = records.last_mut() {
        last[0] |= LAST;
    }
    records.reverse();
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(names: &[&str]) -> Vec<String> {
        let stored = store_names(names).expect("names that can be stored");
        for (name, stored) in names.iter().zip(&stored) {
            assert_eq!(record_count(name), stored.long.len() + 1, "{name}");
        }
        stored.iter().map(|name| name.short.text()).collect()
    }

    #[test]
    fn aliases_are_unique_and_numbered_around_real_names() {
        for (names, expected) in [
            (
                &["README.TXT", "config.txt", "a"][..],
                &["README.TXT", "CONFIG.TXT", "A"][..],
            ),
            (
                &["bcm2710-rpi-3-b.dtb", "bcm2710-rpi-3-b-plus.dtb"],
                &["BCM271~1.DTB", "BCM271~2.DTB"],
            ),
            (
                &["BCM271~1.DTB", "bcm2710-rpi-3-b.dtb"],
                &["BCM271~1.DTB", "BCM271~2.DTB"],
            ),
            (
                &[".profile", "a.b.c", "Café"],
                &["PROFIL~1", "AB~1.C", "CAF_~1"],
            ),
            (
                &["name with spaces.jpeg", "+", "…"],
                &["NAMEWI~1.JPE", "_~1", "_~2"],
            ),
            (&["...x", " y"], &["X~1", "Y~1"]),
        ] {
            assert_eq!(aliases(names), expected);
        }
    }

    #[test]
    fn ten_thousand_like_names() {
        let names: Vec<String> = (0..10_000)
            .map(|n| format!("some long name {n}.txt"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let unique: BTreeSet<String> = aliases(&names).into_iter().collect();
        assert_eq!(unique.len(), names.len());
        assert!(unique.contains("SOM~9999.TXT"));
        assert!(unique.contains("SO~10000.TXT"));
    }

    #[test]
    fn refusals() {
        for (names, name, fault) in [
            (&["a:b"][..], "a:b", NameFault::Character(':')),
            (&["a\nb"], "a\nb", NameFault::Character('\n')),
            (&["dot."], "dot.", NameFault::Ending),
            (&["space "], "space ", NameFault::Ending),
            (
                &["README", "readme"],
                "readme",
                NameFault::Case("README".into()),
            ),
        ] {
            assert_eq!(store_names(names), Err((name.to_owned(), fault)));
        }
    }
}
