//! What an uncompressed kernel module says about itself: its `.modinfo`, the symbols it exports and those it needs.
//!
//! Little-endian ELF of both word sizes, sections only, nothing is relocated. Every offset is checked: a module comes
//! from a signed package, but a reader that can panic is not worth the thought.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// What is known of one module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleInfo {
    /// The pairs of `.modinfo` in their order: `alias`, `depends`, `softdep`, `firmware` and so on.
    pub fields: Vec<(String, String)>,
    /// Symbols that other modules can use.
    pub exports: Vec<String>,
    /// Symbols that the kernel or other modules have to provide.
    pub imports: Vec<String>,
}

/// Why a file is not a kernel module.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ElfError {
    /// It begins with something else; a compressed module, for instance.
    #[error("it is no ELF file")]
    NoElf,
    /// It is an ELF file of a big-endian machine.
    #[error("it is not little-endian")]
    Endian,
    /// It refers to bytes it does not have.
    #[error("it is cut off or damaged")]
    Damaged,
}

impl ModuleInfo {
    /// Reads a module.
    pub fn parse(bytes: &[u8]) -> Result<Self, ElfError> {
        let sections = Sections::parse(bytes)?;
        let symbols = sections.symbols()?;
        let fields = sections.named(".modinfo").map(strings).unwrap_or_default();
        Ok(Self {
            fields: fields
                .into_iter()
                .map(|field| match field.split_once('=') {
                    Some((key, value)) => (key.to_owned(), value.to_owned()),
                    None => (field, String::new()),
                })
                .collect(),
            exports: sections.exports(&symbols),
            imports: sections.imports(&symbols),
        })
    }

    /// All values of a field.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(found, _)| found == key)
            .map(|(_, value)| value.as_str())
    }
}

/// Sizes and places that differ between the two word sizes.
struct Class {
    wide: bool,
}

impl Class {
    fn word(&self, bytes: &[u8], at: usize) -> Result<usize, ElfError> {
        let value = if self.wide {
            u64::from_le_bytes(array(bytes, at)?)
        } else {
            u32::from_le_bytes(array(bytes, at)?).into()
        };
        usize::try_from(value).map_err(|_| ElfError::Damaged)
    }

    fn pick(&self, narrow: usize, wide: usize) -> usize {
        if self.wide { wide } else { narrow }
    }
}

struct Sections<'a> {
    class: Class,
    /// The first section of each name.
    by_name: BTreeMap<&'a [u8], &'a [u8]>,
}

struct Symbol {
    name: String,
    undefined: bool,
}

impl<'a> Sections<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        if !bytes.starts_with(b"\x7fELF") {
            return Err(ElfError::NoElf);
        }
        let class = match array::<2>(bytes, 4)? {
            [1, 1] => Class { wide: false },
            [2, 1] => Class { wide: true },
            [_, 2] => return Err(ElfError::Endian),
            _ => return Err(ElfError::Damaged),
        };
        let table = class.word(bytes, class.pick(32, 40))?;
        let entry_size = usize::from(u16::from_le_bytes(array(bytes, class.pick(46, 58))?));
        let count = usize::from(u16::from_le_bytes(array(bytes, class.pick(48, 60))?));
        let names_index = usize::from(u16::from_le_bytes(array(bytes, class.pick(50, 62))?));
        if entry_size < class.pick(40, 64) {
            return Err(ElfError::Damaged);
        }
        let header = |index: usize| {
            let at = index
                .checked_mul(entry_size)
                .and_then(|offset| offset.checked_add(table));
            slice(bytes, at.ok_or(ElfError::Damaged)?, entry_size)
        };
        let names = section_bytes(bytes, &class, header(names_index)?)?;
        let mut by_name = BTreeMap::new();
        for index in 1..count {
            let header = header(index)?;
            let name_at = u32::from_le_bytes(array(header, 0)?) as usize;
            let name = until_nul(names.get(name_at..).ok_or(ElfError::Damaged)?);
            by_name
                .entry(name)
                .or_insert(section_bytes(bytes, &class, header)?);
        }
        Ok(Self { class, by_name })
    }

    fn named(&self, name: &str) -> Option<&'a [u8]> {
        self.by_name.get(name.as_bytes()).copied()
    }

    /// All symbols but the first, which is none.
    fn symbols(&self) -> Result<Vec<Symbol>, ElfError> {
        let (Some(table), Some(names)) = (self.named(".symtab"), self.named(".strtab")) else {
            return Ok(Vec::new());
        };
        let section_at = self.class.pick(14, 6);
        table
            .chunks_exact(self.class.pick(16, 24))
            .skip(1)
            .map(|entry| {
                let name_at = u32::from_le_bytes(array(entry, 0)?) as usize;
                let name = until_nul(names.get(name_at..).ok_or(ElfError::Damaged)?);
                let undefined = array(entry, section_at)? == [0, 0];
                Ok(Symbol {
                    name: String::from_utf8_lossy(name).into_owned(),
                    undefined,
                })
            })
            .collect()
    }

    /// Exported symbols have a checksum beside them; where a kernel is built without checksums, a list of names is left.
    fn exports(&self, symbols: &[Symbol]) -> Vec<String> {
        let with_checksum: Vec<String> = symbols
            .iter()
            .filter_map(|symbol| symbol.name.strip_prefix("__crc_"))
            .map(str::to_owned)
            .collect();
        if with_checksum.is_empty() {
            self.named("__ksymtab_strings")
                .map(strings)
                .unwrap_or_default()
        } else {
            with_checksum
        }
    }

    /// Undefined symbols, then those with a checksum in `__versions` that the symbol table does not name.
    fn imports(&self, symbols: &[Symbol]) -> Vec<String> {
        const RECORD_SIZE: usize = 64;
        let undefined = symbols
            .iter()
            .filter(|symbol| symbol.undefined && !symbol.name.is_empty());
        let mut imports: Vec<String> = undefined.map(|symbol| symbol.name.clone()).collect();
        let known: BTreeSet<String> = imports.iter().cloned().collect();
        let versions = self.named("__versions").unwrap_or_default();
        let name_at = self.class.pick(4, 8);
        let versioned = versions
            .chunks_exact(RECORD_SIZE)
            .map(|record| String::from_utf8_lossy(until_nul(&record[name_at..])).into_owned());
        imports.extend(versioned.filter(|name| !known.contains(name)));
        imports
    }
}

fn section_bytes<'a>(bytes: &'a [u8], class: &Class, header: &[u8]) -> Result<&'a [u8], ElfError> {
    const NO_BITS: u32 = 8;
    if u32::from_le_bytes(array(header, 4)?) == NO_BITS {
        return Ok(&[]);
    }
    slice(
        bytes,
        class.word(header, class.pick(16, 24))?,
        class.word(header, class.pick(20, 32))?,
    )
}

/// The strings of a section in which NULs, one or many, stand between them.
fn strings(bytes: &[u8]) -> Vec<String> {
    let parts = bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn slice(bytes: &[u8], at: usize, len: usize) -> Result<&[u8], ElfError> {
    let end = at.checked_add(len).ok_or(ElfError::Damaged)?;
    bytes.get(at..end).ok_or(ElfError::Damaged)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ElfError> {
    slice(bytes, at, N)?
        .try_into()
        .map_err(|_| ElfError::Damaged)
}
