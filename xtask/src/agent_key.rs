//! What the agent's program was built from, as a digest beside it: while that is the same, cargo need not be asked, which takes longer to
//! look at everything than the rest of a rebuild does.
//!
//! Contents count, not times. Crates from elsewhere are in the lock file with their digests; the compiler is known by where it is, and by
//! the size and time of its program.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use imagegen::sha256::Sha256;

/// Files of the workspace that tell cargo how to build.
const OF_WORKSPACE: [&str; 3] = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];

/// Variables that tell cargo or the compiler how to build begin so.
const VARIABLES: [&str; 7] = [
    "CARGO_BUILD_",
    "CARGO_INCREMENTAL",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CARGO_UNSTABLE_",
    "RUSTC",
    "RUSTUP_TOOLCHAIN",
];

/// What a program is built from, beside the source.
pub struct Build<'a> {
    /// The workspace.
    pub root: &'a Path,
    /// cargo's own folder, which may have settings.
    pub cargo_home: Option<&'a Path>,
    /// The compiler's folder.
    pub sysroot: &'a Path,
    /// What cargo is called with.
    pub arguments: &'a [String],
    /// The environment.
    pub variables: Vec<(OsString, OsString)>,
}

/// The digest of what a program was built from, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentKey(String);

impl AgentKey {
    /// Takes the digest of the files and of what else is given.
    pub fn of(build: &Build) -> Result<Self> {
        let mut digests = Vec::new();
        let mut add = |name: &[u8], contents: &[u8]| {
            digests.extend(Sha256::of(name).0);
            digests.extend(Sha256::of(contents).0);
        };
        for path in files(build)? {
            let contents =
                fs::read(&path).with_context(|| format!("while reading {}", path.display()))?;
            add(path.as_os_str().as_bytes(), &contents);
        }
        for argument in build.arguments {
            add(b"argument", argument.as_bytes());
        }
        for (name, value) in &build.variables {
            if matters(name) {
                add(name.as_bytes(), value.as_bytes());
            }
        }
        let compiler = build.sysroot.join("bin/rustc");
        let found = fs::metadata(&compiler)
            .with_context(|| format!("while looking at {}", compiler.display()))?;
        let identity = format!("{} {} {}", found.size(), found.mtime(), found.mtime_nsec());
        add(compiler.as_os_str().as_bytes(), identity.as_bytes());
        Ok(Self(Sha256::of(&digests).to_string()))
    }

    /// Whether a program was built from this, and is as it was then.
    pub fn is_of(&self, program: &Path) -> bool {
        let noted = fs::read_to_string(beside(program));
        matches!((noted, self.note(program)), (Ok(noted), Ok(note)) if noted == note)
    }

    /// Notes that a program was built from this.
    pub fn keep(&self, program: &Path) -> io::Result<()> {
        fs::write(beside(program), self.note(program)?)
    }

    fn note(&self, program: &Path) -> io::Result<String> {
        Ok(format!("{} {}\n", self.0, Sha256::of(&fs::read(program)?)))
    }
}

fn beside(program: &Path) -> PathBuf {
    program.with_extension("built-from")
}

fn matters(name: &OsStr) -> bool {
    VARIABLES
        .iter()
        .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

/// The agent's source and everything with settings for cargo, in order.
fn files(build: &Build) -> Result<Vec<PathBuf>> {
    let agent = build.root.join("agent");
    let mut files = entries(&agent)?;
    files.retain(|path| path.is_file());
    let mut folders = vec![agent.join("src")];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    let of_cargo = build
        .root
        .ancestors()
        .map(|folder| folder.join(".cargo"))
        .chain(build.cargo_home.map(Path::to_owned));
    let settings =
        of_cargo.flat_map(|folder| ["config", "config.toml"].map(|name| folder.join(name)));
    let of_workspace = OF_WORKSPACE.map(|name| build.root.join(name));
    files.extend(settings.chain(of_workspace).filter(|path| path.is_file()));
    files.sort();
    files.dedup();
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    read().with_context(|| format!("while reading {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("Cargo.toml", "[workspace]"),
            ("Cargo.lock", ""),
            ("agent/Cargo.toml", "[package]"),
            ("agent/layout.ld", "SECTIONS"),
            ("agent/src/main.rs", "fn main() {}"),
            ("agent/src/wire/arp.rs", ""),
            ("agent/tests/it/main.rs", ""),
            ("sysroot/bin/rustc", "compiler"),
            ("program", "ELF"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn key(root: &Path, argument: &str, variables: &[(&str, &str)]) -> AgentKey {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        AgentKey::of(&Build {
            root,
            cargo_home: None,
            sysroot: &root.join("sysroot"),
            arguments: &[argument.to_owned()],
            variables: variables.collect(),
        })
        .unwrap()
    }

    #[test]
    fn whatever_the_program_is_built_from_is_in_the_key() {
        let root = workspace();
        let before = key(root.path(), "a", &[]);
        assert_eq!(key(root.path(), "a", &[("HOME", "/root")]), before);
        assert_ne!(key(root.path(), "b", &[]), before);
        assert_ne!(
            key(root.path(), "a", &[("CARGO_PROFILE_RELEASE_LTO", "off")]),
            before
        );
        for (path, counts) in [
            ("agent/src/wire/arp.rs", true),
            ("agent/src/wire/new.rs", true),
            ("agent/layout.ld", true),
            ("agent/build.rs", true),
            ("agent/tests/it/main.rs", false),
            ("Cargo.lock", true),
            (".cargo/config.toml", true),
            ("sysroot/bin/rustc", true),
            ("README.md", false),
        ] {
            let root = workspace();
            let before = key(root.path(), "a", &[]);
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "something else").unwrap();
            let after = key(root.path(), "a", &[]);
            assert_eq!(after != before, counts, "{}", path.display());
        }
    }

    #[test]
    fn a_program_is_known_by_the_note_beside_it() {
        let root = workspace();
        let program = root.path().join("program");
        let one = key(root.path(), "a", &[]);
        assert!(!one.is_of(&program), "nothing is noted yet");
        one.keep(&program).unwrap();
        assert!(one.is_of(&program));
        assert!(!key(root.path(), "b", &[]).is_of(&program));
        fs::write(&program, "damaged").unwrap();
        assert!(!one.is_of(&program));
    }
}
