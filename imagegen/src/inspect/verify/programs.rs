//! Checks of what runs: the agent is a program for the board, programs have the libraries they ask the loader for, and units that the
//! system starts have their programs.
//!
//! Libraries that a program opens by itself (`dlopen`) are not looked for: it goes on without them.

use elf::abi::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRTAB, EM_AARCH64, EM_ARM, PT_DYNAMIC, PT_INTERP, PT_LOAD,
};
use elf::dynamic::DynamicTable;
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::{ElfBytes, ParseError};

use super::root::{MOUNTED, tree};
use super::units::{PATH_MAX, Units};
use super::{Check, Seen, Subject, seen};
use crate::board::Arch;
use crate::make::rootfs::AGENT_PATH;
use crate::tree::Tree;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "agent",
        why: "the agent is what makes the board a bridge; it has no libraries to lean on",
        next: "build it with `cargo xtask agent`",
        look: agent,
    },
    Check {
        id: "library",
        why: "a program without one of its libraries is not started at all",
        next: "take the library's path out of [remove] in overlay.toml, or add its package",
        look: libraries,
    },
    Check {
        id: "unit-program",
        why: "a unit whose program is missing fails at each start, and so does what needs it",
        next: "mask the unit in overlay.toml, or keep its program",
        look: unit_programs,
    },
];

/// Entries of a program's dynamic section; glibc's largest users have some fifty.
const ENTRIES_MAX: usize = 256;

/// A program or library of any architecture that boards may have, all of which are little-endian.
type Elf<'a> = ElfBytes<'a, LittleEndian>;

fn agent(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(tree) = tree(subject) else {
        return Vec::new();
    };
    let what = match tree.get(AGENT_PATH) {
        None => Some("is not there".to_owned()),
        Some(node) if node.mode & 0o111 != 0o111 => Some("is not executable".to_owned()),
        Some(node) => node
            .bytes()
            .and_then(|bytes| agent_fault(bytes, subject.board.arch)),
    };
    what.map(|what| seen(format!("root/{AGENT_PATH}"), what))
        .into_iter()
        .collect()
}

/// What keeps an ELF file from being a static program of an architecture.
fn agent_fault(bytes: &[u8], arch: Arch) -> Option<String> {
    if !bytes.starts_with(b"\x7fELF") {
        return Some("is no program".to_owned());
    }
    let foreign = format!("is a program for another processor than {arch}");
    let program = match Elf::minimal_parse(bytes) {
        Ok(program) if is_for(&program, arch) => program,
        Ok(_) | Err(ParseError::UnsupportedElfEndianness(_)) => return Some(foreign),
        Err(_) => return Some("is cut off or damaged".to_owned()),
    };
    let mut segments = program.segments().into_iter().flatten();
    segments
        .any(|segment| segment.p_type == PT_INTERP)
        .then(|| "needs libraries to be started; it has to be static".to_owned())
}

fn is_for(program: &Elf<'_>, arch: Arch) -> bool {
    let wanted = match arch {
        Arch::Arm64 => (Class::ELF64, EM_AARCH64),
        Arch::Armhf | Arch::Armel => (Class::ELF32, EM_ARM),
    };
    (program.ehdr.class, program.ehdr.e_machine) == wanted
}

fn libraries(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(tree) = tree(subject) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (path, bytes) in tree
        .iter()
        .filter_map(|(path, node)| Some((path, node.bytes()?)))
        // The agent must not ask for any, which is a check of its own.
        .filter(|(path, _)| *path != AGENT_PATH)
    {
        // What is for another processor is firmware, and loaded by it.
        let Some(program) = Elf::minimal_parse(bytes)
            .ok()
            .filter(|program| is_for(program, subject.board.arch))
        else {
            continue;
        };
        let place = format!("root/{path}");
        match Wanted::of(&program, bytes) {
            Err(_) => findings.push(seen(place, "is cut off or damaged")),
            Ok(wanted) => findings.extend(
                wanted
                    .missing(tree, path, subject.board.arch)
                    .map(|name| seen(&place, format!("asks for {name}, which is not there"))),
            ),
        }
    }
    findings
}

/// What a program asks the loader for (System V gABI, "Dynamic Section").
#[derive(Default)]
struct Wanted {
    /// The loader itself.
    interpreter: Option<String>,
    libraries: Vec<String>,
    /// Directories to look into before the usual ones.
    directories: Vec<String>,
}

impl Wanted {
    fn of(program: &Elf<'_>, bytes: &[u8]) -> Result<Self, ParseError> {
        let mut wanted = Self::default();
        let segments: Vec<_> = program.segments().into_iter().flatten().collect();
        let segment = |kind| segments.iter().find(|segment| segment.p_type == kind);
        if let Some(segment) = segment(PT_INTERP) {
            wanted.interpreter = Some(text(program.segment_data(segment)?)?);
        }
        let Some(dynamic) = segment(PT_DYNAMIC) else {
            return Ok(wanted);
        };
        let dynamic = program.segment_data(dynamic)?;
        let entries = DynamicTable::new(LittleEndian, program.ehdr.class, dynamic);
        let entries: Vec<_> = entries.iter().take(ENTRIES_MAX).collect();
        let Some(strings) = entries.iter().find(|entry| entry.d_tag == DT_STRTAB) else {
            return Ok(wanted);
        };
        // Told as an address in memory; a loaded segment says where in the file that is.
        let strings = segments
            .iter()
            .filter(|segment| segment.p_type == PT_LOAD)
            .find_map(|segment| {
                let inside = strings.d_ptr().checked_sub(segment.p_vaddr)?;
                let at = segment.p_offset.checked_add(inside)?;
                let bytes = bytes.get(usize::try_from(at).ok()?..)?;
                (inside < segment.p_filesz).then_some(bytes)
            })
            .ok_or(ParseError::BadOffset(strings.d_ptr()))?;
        let string = |at: u64| {
            let rest = usize::try_from(at).ok().and_then(|at| strings.get(at..));
            text(rest.ok_or(ParseError::BadOffset(at))?)
        };
        for entry in entries {
            match entry.d_tag {
                DT_NEEDED => wanted.libraries.push(string(entry.d_val())?),
                DT_RPATH | DT_RUNPATH => {
                    let list = string(entry.d_val())?;
                    wanted
                        .directories
                        .extend(list.split(':').map(str::to_owned));
                }
                _ => {}
            }
        }
        Ok(wanted)
    }

    /// Of these, what a tree does not have for the program at a path.
    fn missing(self, tree: &Tree, path: &str, arch: Arch) -> impl Iterator<Item = String> {
        let origin = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let own = self.directories.iter().map(|directory| {
            let directory = directory.replace("${ORIGIN}", "$ORIGIN");
            directory.replace("$ORIGIN", &format!("/{origin}"))
        });
        let usual = ["lib", "usr/lib"]
            .into_iter()
            .flat_map(|lib| [format!("{lib}/{}", arch.multiarch()), lib.to_owned()]);
        // A library in a folder of its program's own is found by the program's list, and so is its neighbour.
        let beside = self.interpreter.is_none().then(|| origin.to_owned());
        let directories: Vec<String> = own.chain(usual).chain(beside).collect();
        let is_there = move |name: &str| {
            if name.contains('/') {
                return has_file(tree, name);
            }
            let mut places = directories.iter();
            places.any(|directory| has_file(tree, &format!("{directory}/{name}")))
        };
        self.interpreter
            .into_iter()
            .chain(self.libraries)
            .filter(move |name| !is_there(name))
    }
}

/// The text before the first NUL; it is a path or a list of paths.
fn text(bytes: &[u8]) -> Result<String, ParseError> {
    let bytes = &bytes[..bytes.len().min(PATH_MAX)];
    let end = bytes.iter().position(|byte| *byte == 0);
    let end = end.ok_or(ParseError::BadOffset(PATH_MAX as u64))?;
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

fn has_file(tree: &Tree, path: &str) -> bool {
    let end = tree.resolve(path);
    end.is_ok_and(|end| tree.bytes(&end).is_some())
}

fn unit_programs(subject: &Subject<'_>) -> Vec<Seen> {
    let Some(tree) = tree(subject) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for unit in Units::of(tree).started() {
        let missing = unit
            .programs
            .into_iter()
            .filter(|program| {
                !MOUNTED
                    .iter()
                    .any(|top| program.starts_with(&format!("/{top}/")))
            })
            .filter(|program| !has_file(tree, program));
        findings.extend(missing.map(|program| {
            seen(
                format!("root/{}", unit.path),
                format!("starts {program}, which is not there"),
            )
        }));
    }
    findings
}
