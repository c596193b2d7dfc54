//! Other values for a few properties of a device tree, where an emulated machine has less than the board it stands for.
//!
//! Format: Devicetree Specification 0.4, chapter 5, "Flattened Devicetree". Nodes and properties are neither added nor taken away.
//!
//! ```text
//! | header, 40 bytes | reserved memory, to a pair of zeros | structure: a stream of 32-bit tokens | strings: names of properties |
//! ```

use thiserror::Error;

use crate::board::DeviceTreeEdit;

const MAGIC: u32 = 0xd00d_feed;
const HEADER_SIZE: usize = 40;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOTHING: u32 = 4;
const END: u32 = 9;

/// Why a device tree cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceTreeError {
    /// The bytes are no device tree.
    #[error("that is no device tree")]
    Malformed,
    /// There is nothing to be edited.
    #[error("the device tree has no property {property} at {node}")]
    Missing {
        /// The node.
        node: String,
        /// The property.
        property: String,
    },
}

/// Returns the device tree with the edit made.
pub fn edit_device_tree(bytes: &[u8], edit: &DeviceTreeEdit) -> Result<Vec<u8>, DeviceTreeError> {
    let cells = edit.cells.iter().map(|(name, cells)| {
        let value = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        (name, value)
    });
    let strings = edit.strings.iter().map(|(name, strings)| {
        let value = strings
            .iter()
            .flat_map(|text| [text.as_bytes(), b"\0"].concat());
        (name, value.collect())
    });
    let mut tree = bytes.to_vec();
    for (property, value) in cells.chain(strings) {
        let value: Vec<u8> = value;
        tree = set_property(&tree, &edit.node, property, &value)?;
    }
    Ok(tree)
}

/// Returns the strings of a property; the root node is the empty path. Nothing if the bytes are no device tree, or it has no such property.
#[must_use]
pub fn read_strings(bytes: &[u8], node: &str, property: &str) -> Option<Vec<String>> {
    let tree = Parts::parse(bytes)?;
    let (start, end) = tree.find(node, property)??;
    let value = str::from_utf8(&tree.structure[start..end]).ok()?;
    Some(value.split_terminator('\0').map(str::to_owned).collect())
}

fn set_property(
    bytes: &[u8],
    node: &str,
    property: &str,
    value: &[u8],
) -> Result<Vec<u8>, DeviceTreeError> {
    let tree = Parts::parse(bytes).ok_or(DeviceTreeError::Malformed)?;
    let place = tree
        .find(node, property)
        .ok_or(DeviceTreeError::Malformed)?;
    let (start, end) = place.ok_or_else(|| DeviceTreeError::Missing {
        node: node.to_owned(),
        property: property.to_owned(),
    })?;
    // The length stands two words before the value.
    let mut structure = tree.structure[..start - 8].to_vec();
    structure.extend(length(value));
    structure.extend(&tree.structure[start - 4..start]);
    structure.extend(value);
    structure.resize(structure.len().next_multiple_of(4), 0);
    structure.extend(&tree.structure[end.next_multiple_of(4)..]);
    Ok(Parts {
        structure: &structure,
        ..tree
    }
    .assemble())
}

/// The blocks of a device tree.
struct Parts<'a> {
    header: &'a [u8],
    reserved: &'a [u8],
    structure: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Parts<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let field = |number: usize| Some(word(bytes, number * 4)? as usize);
        let block = |start: usize, size: usize| bytes.get(start..start.checked_add(size)?);
        if word(bytes, 0)? != MAGIC {
            return None;
        }
        let reserved = bytes.get(field(4)?..)?;
        let pairs = reserved.chunks_exact(16).position(|pair| pair == [0; 16])?;
        Some(Parts {
            header: block(0, HEADER_SIZE)?,
            reserved: &reserved[..(pairs + 1) * 16],
            structure: block(field(2)?, field(9)?)?,
            strings: block(field(3)?, field(8)?)?,
        })
    }

    /// Returns where in the structure a property's value lies; the outer `None` means that the structure makes no sense.
    fn find(&self, node: &str, property: &str) -> Option<Option<(usize, usize)>> {
        let mut path = Vec::new();
        let mut at = 0;
        loop {
            let token = word(self.structure, at)?;
            at += 4;
            match token {
                BEGIN_NODE => {
                    let name = text(self.structure, at)?;
                    path.push(name);
                    at = (at + name.len() + 1).next_multiple_of(4);
                }
                END_NODE => {
                    path.pop()?;
                }
                PROPERTY => {
                    let size = word(self.structure, at)? as usize;
                    let name = text(self.strings, word(self.structure, at + 4)? as usize)?;
                    let (start, end) = (at + 8, (at + 8).checked_add(size)?);
                    self.structure.get(start..end)?;
                    if name == property && path.join("/") == node {
                        return Some(Some((start, end)));
                    }
                    at = end.next_multiple_of(4);
                }
                NOTHING => {}
                END => return Some(None),
                _ => return None,
            }
        }
    }

    fn assemble(&self) -> Vec<u8> {
        let structure_at = HEADER_SIZE + self.reserved.len();
        let strings_at = structure_at + self.structure.len();
        let total = strings_at + self.strings.len();
        let mut bytes = self.header.to_vec();
        let places = [
            (1, total),
            (2, structure_at),
            (3, strings_at),
            (4, HEADER_SIZE),
        ];
        for (field, place) in places {
            bytes[field * 4..][..4].copy_from_slice(&(place as u32).to_be_bytes());
        }
        bytes[36..40].copy_from_slice(&length(self.structure));
        for block in [self.reserved, self.structure, self.strings] {
            bytes.extend(block);
        }
        bytes
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    str::from_utf8(&rest[..end]).ok()
}

fn length(bytes: &[u8]) -> [u8; 4] {
    (bytes.len() as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// `/ { reg = <1>; soc { reg = <1 2 3>; names = "a", "b"; }; reg-after = <7>; };`
    fn sample() -> Vec<u8> {
        let strings = b"reg\0names\0";
        let mut structure = Vec::new();
        let begin = |structure: &mut Vec<u8>, name: &[u8]| {
            structure.extend(BEGIN_NODE.to_be_bytes());
            structure.extend(name);
            structure.resize((structure.len() + 1).next_multiple_of(4), 0);
        };
        let property = |structure: &mut Vec<u8>, name: u32, value: &[u8]| {
            structure.extend(PROPERTY.to_be_bytes());
            structure.extend(length(value));
            structure.extend(name.to_be_bytes());
            structure.extend(value);
            structure.resize(structure.len().next_multiple_of(4), 0);
        };
        begin(&mut structure, b"");
        property(&mut structure, 0, &[0, 0, 0, 1]);
        begin(&mut structure, b"soc");
        property(&mut structure, 0, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        property(&mut structure, 4, b"a\0b\0b\0");
        structure.extend(END_NODE.to_be_bytes());
        structure.extend(END_NODE.to_be_bytes());
        structure.extend(END.to_be_bytes());
        let mut header = MAGIC.to_be_bytes().to_vec();
        header.resize(HEADER_SIZE, 0);
        header[32..36].copy_from_slice(&length(strings));
        Parts {
            header: &header,
            reserved: &[0; 16],
            structure: &structure,
            strings,
        }
        .assemble()
    }

    fn edit(node: &str) -> DeviceTreeEdit {
        DeviceTreeEdit {
            node: node.to_owned(),
            cells: BTreeMap::from([("reg".to_owned(), vec![9])]),
            strings: BTreeMap::from([("names".to_owned(), vec!["long name".to_owned()])]),
        }
    }

    fn value<'a>(tree: &'a [u8], node: &str, property: &str) -> &'a [u8] {
        let parts = Parts::parse(tree).unwrap();
        let (start, end) = parts.find(node, property).unwrap().unwrap();
        &parts.structure[start..end]
    }

    #[test]
    fn values_become_shorter_or_longer_and_all_else_stays() {
        let edited = edit_device_tree(&sample(), &edit("/soc")).unwrap();
        assert_eq!(value(&edited, "/soc", "reg"), [0, 0, 0, 9]);
        assert_eq!(value(&edited, "/soc", "names"), b"long name\0");
        assert_eq!(value(&edited, "", "reg"), [0, 0, 0, 1]);
        assert_eq!(word(&edited, 4), Some(edited.len() as u32));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let missing = |node: &str| {
            edit_device_tree(&sample(), &edit(node))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            missing("/axi"),
            "the device tree has no property reg at /axi"
        );
        assert_eq!(missing(""), "the device tree has no property names at ");
        assert_eq!(
            edit_device_tree(b"MZ", &edit("/soc")),
            Err(DeviceTreeError::Malformed)
        );
    }

    proptest! {
        #[test]
        fn damaged_trees_are_refused_without_a_panic(place in 0usize..200, byte: u8) {
            let mut damaged = sample();
            let place = place % damaged.len();
            damaged[place] = byte;
            let _ = edit_device_tree(&damaged, &edit("/soc"));
        }
    }
}
