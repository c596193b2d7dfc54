//! What an uncompressed kernel module says about itself: its `.modinfo`, the symbols it exports and those it needs.
//!
//! Little-endian ELF of both word sizes, sections only, nothing is relocated.

use std::collections::{BTreeMap, BTreeSet};

use elf::endian::LittleEndian;
use elf::file::Class;
use elf::{ElfBytes, ParseError};
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
        let fields = sections.named(".modinfo").map(strings).unwrap_or_default();
        Ok(Self {
            fields: fields
                .into_iter()
                .map(|field| match field.split_once('=') {
                    Some((key, value)) => (key.to_owned(), value.to_owned()),
                    None => (field, String::new()),
                })
                .collect(),
            exports: sections.exports(),
            imports: sections.imports(),
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

impl From<ParseError> for ElfError {
    fn from(err: ParseError) -> Self {
        match err {
            ParseError::UnsupportedElfEndianness(_) => Self::Endian,
            _ => Self::Damaged,
        }
    }
}

struct Sections<'a> {
    class: Class,
    /// The first section of each name.
    by_name: BTreeMap<&'a [u8], &'a [u8]>,
    /// All symbols but the first, which is none.
    symbols: Vec<Symbol>,
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
        let file = ElfBytes::<LittleEndian>::minimal_parse(bytes)?;
        let (Some(headers), Some(names)) = file.section_headers_with_strtab()? else {
            return Err(ElfError::Damaged);
        };
        let mut by_name = BTreeMap::new();
        for header in headers.iter().skip(1) {
            let name = names.get_raw(header.sh_name as usize)?;
            let (content, _) = file.section_data(&header)?;
            by_name.entry(name).or_insert(content);
        }
        let mut symbols = Vec::new();
        if let Some((table, names)) = file.symbol_table()? {
            for symbol in table.iter().skip(1) {
                let name = names.get_raw(symbol.st_name as usize)?;
                symbols.push(Symbol {
                    name: String::from_utf8_lossy(name).into_owned(),
                    undefined: symbol.is_undefined(),
                });
            }
        }
        Ok(Self {
            class: file.ehdr.class,
            by_name,
            symbols,
        })
    }

    fn named(&self, name: &str) -> Option<&'a [u8]> {
        self.by_name.get(name.as_bytes()).copied()
    }

    /// Exported symbols have a checksum beside them; where a kernel is built without checksums, a list of names is left.
    fn exports(&self) -> Vec<String> {
        let with_checksum: Vec<String> = self
            .symbols
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
    fn imports(&self) -> Vec<String> {
        const RECORD_SIZE: usize = 64;
        let undefined = self
            .symbols
            .iter()
            .filter(|symbol| symbol.undefined && !symbol.name.is_empty());
        let mut imports: Vec<String> = undefined.map(|symbol| symbol.name.clone()).collect();
        let known: BTreeSet<String> = imports.iter().cloned().collect();
        let versions = self.named("__versions").unwrap_or_default();
        let name_at = match self.class {
            Class::ELF32 => 4,
            Class::ELF64 => 8,
        };
        let versioned = versions
            .chunks_exact(RECORD_SIZE)
            .map(|record| String::from_utf8_lossy(until_nul(&record[name_at..])).into_owned());
        imports.extend(versioned.filter(|name| !known.contains(name)));
        imports
    }
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
