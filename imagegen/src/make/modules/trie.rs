//! The index files `modules.*.bin`: a radix tree from keys to values, as libkmod reads it.
//!
//! ```text
//! | magic | version | offset of root |      all numbers are big-endian, 4 bytes
//! node: | prefix NUL |  first  last  child offset × (last - first + 1)  |  count  ( priority  value NUL ) × count |
//! ```
//! The top bits of an offset say which of the three parts its node has. Children are written before their parents.

use std::collections::BTreeMap;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;

/// Keys and their values, to become an index file.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Values with their priorities, lowest first.
    values: BTreeMap<Vec<u8>, Vec<(u32, String)>>,
}

impl Index {
    /// Adds a value. The reader tries lower priorities first and, among equal ones, what came last.
    ///
    /// The format has no keys beyond ASCII and no NUL in anything; such a key is left out, as nobody can ask for it.
    pub(super) fn insert(&mut self, key: &str, value: &str, priority: u32) {
        if !key.is_ascii() || key.contains('\0') || value.contains('\0') {
            return;
        }
        let values = self.values.entry(key.into()).or_default();
        let at = values.partition_point(|(present, _)| *present < priority);
        values.insert(at, (priority, value.to_owned()));
    }

    /// The bytes of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let entries: Vec<Entry<'_>> = self
            .values
            .iter()
            .map(|(key, values)| (key.as_slice(), values.as_slice()))
            .collect();
        let mut out = Vec::new();
        out.extend(MAGIC.to_be_bytes());
        out.extend(VERSION.to_be_bytes());
        out.extend([0; 4]);
        // The root has no prefix, even where all keys begin alike.
        let root = write_node(&entries, 0, 0, &mut out);
        out[8..12].copy_from_slice(&root.to_be_bytes());
        out
    }
}

type Entry<'a> = (&'a [u8], &'a [(u32, String)]);

/// Writes the node of sorted keys that agree in their first `start + prefix` bytes, of which the parents have `start`.
fn write_node(entries: &[Entry<'_>], start: usize, prefix: usize, out: &mut Vec<u8>) -> u32 {
    let depth = start + prefix;
    let (own, below) = match entries.first() {
        Some((key, values)) if key.len() == depth => (*values, &entries[1..]),
        _ => (&[][..], entries),
    };
    let children: BTreeMap<u8, u32> = below
        .chunk_by(|(one, _), (other, _)| one[depth] == other[depth])
        .map(|group| {
            let common = common_prefix(group, depth + 1);
            (group[0].0[depth], write_node(group, depth + 1, common, out))
        })
        .collect();

    let mut offset =
        u32::try_from(out.len()).unwrap_or(u32::MAX) & !(HAS_PREFIX | HAS_VALUES | HAS_CHILDREN);
    if prefix > 0 {
        out.extend(&entries[0].0[start..depth]);
        out.push(0);
        offset |= HAS_PREFIX;
    }
    if let (Some((first, _)), Some((last, _))) =
        (children.first_key_value(), children.last_key_value())
    {
        out.extend([*first, *last]);
        for byte in *first..=*last {
            out.extend(children.get(&byte).copied().unwrap_or(0).to_be_bytes());
        }
        offset |= HAS_CHILDREN;
    }
    if !own.is_empty() {
        write_values(own, out);
        offset |= HAS_VALUES;
    }
    offset
}

/// How many bytes from `start` on all keys of a sorted group have in common.
fn common_prefix(group: &[Entry<'_>], start: usize) -> usize {
    let (Some((first, _)), Some((last, _))) = (group.first(), group.last()) else {
        return 0;
    };
    first[start..]
        .iter()
        .zip(&last[start..])
        .take_while(|(one, other)| one == other)
        .count()
}

fn write_values(values: &[(u32, String)], out: &mut Vec<u8>) {
    out.extend(
        u32::try_from(values.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    for (priority, value) in values {
        out.extend(priority.to_be_bytes());
        out.extend(value.as_bytes());
        out.push(0);
    }
}
