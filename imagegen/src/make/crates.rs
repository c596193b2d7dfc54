//! Finds out what a program was linked from: which crates cargo says it built for the target, what their manifests and the lock file say of
//! them, and the licences that lie with their sources.
//!
//! Cargo's messages are the truth about features and targets; crates for build scripts and macros run on the building machine, are built
//! for that, and are not among them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::agent::{Crate, Library};
use crate::sha256::Sha256;

/// How names of files with licences begin.
const NOTICES: [&str; 6] = [
    "COPYING",
    "COPYRIGHT",
    "LICENCE",
    "LICENSE",
    "NOTICE",
    "UNLICENSE",
];

/// No licence is longer.
const NOTICE_MAX: u64 = 1 << 20;

/// The notice of the C library that is linked with the musl targets.
const MUSL: &str = include_str!("crates/musl.txt");

/// Where a toolchain has the notices of the standard library.
const OF_STANDARD_LIBRARY: &str = "share/doc/rust/COPYRIGHT-library.html";

/// Why the crates are not known.
#[derive(Debug, Error)]
pub enum CratesError {
    /// A message that is none of cargo's.
    #[error("cargo's message {line} cannot be read")]
    Message {
        /// Its number, from 1.
        line: usize,
        /// Why.
        #[source]
        err: serde_json::Error,
    },
    /// A package id without name or version.
    #[error("cargo's package id `{0}` has no name and version")]
    PackageId(String),
    /// The lock file or a manifest is not TOML, or not as cargo writes it.
    #[error("failed to understand {}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        err: Box<toml::de::Error>,
    },
    /// A file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        err: io::Error,
    },
}

/// A library that was built for the target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Linked {
    name: String,
    version: String,
    manifest: PathBuf,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct LockFile {
    #[serde(default)]
    package: Vec<LockedCrate>,
}

#[derive(Deserialize)]
struct LockedCrate {
    name: String,
    version: String,
    checksum: Option<Sha256>,
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Deserialize)]
struct Manifest {
    package: Option<Package>,
    workspace: Option<Workspace>,
}

#[derive(Deserialize)]
struct Package {
    license: Option<Stated>,
}

#[derive(Deserialize)]
struct Workspace {
    package: Option<Package>,
}

/// A value, or a word that the workspace has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stated {
    Here(String),
    InWorkspace {
        #[expect(dead_code, reason = "that it is there says all")]
        workspace: bool,
    },
}

/// Loads what there is to know about the crates of a build: `messages` are those of `cargo build --message-format=json`, `folder` is where
/// it put what is for the target, `lock_file` is the workspace's `Cargo.lock`.
pub fn load_crates(
    messages: &str,
    folder: &Path,
    lock_file: &Path,
) -> Result<Vec<Crate>, CratesError> {
    let linked = parse_messages(messages, folder)?;
    let lock: LockFile = parse_toml(lock_file, &read(lock_file)?)?;
    let crates = linked.iter().map(|this| {
        let source = load_source(&this.manifest)?;
        let locked = lock
            .package
            .iter()
            .find(|locked| locked.name == this.name && locked.version == this.version);
        Ok(Crate {
            name: this.name.clone(),
            version: this.version.clone(),
            checksum: locked.and_then(|locked| locked.checksum),
            licence: source.licence,
            notices: source.notices,
            needs: locked
                .map(|locked| needs(locked, &linked))
                .unwrap_or_default(),
        })
    });
    crates.collect()
}

/// Says what the compiler adds to a program; `sysroot` is its folder, `compiler` what it calls itself. The targets' C library is musl.
pub fn load_libraries(sysroot: &Path, compiler: &str) -> Vec<Library> {
    // A toolchain without documents links the same library.
    let notices = fs::read_to_string(sysroot.join(OF_STANDARD_LIBRARY)).ok();
    let notices = notices.map(|page| ("COPYRIGHT-library".to_owned(), text_of_page(&page)));
    vec![
        Library {
            name: "musl".to_owned(),
            version: None,
            licence: "MIT".to_owned(),
            notices: BTreeMap::from([("COPYRIGHT".to_owned(), MUSL.to_owned())]),
        },
        Library {
            name: "rust-std".to_owned(),
            version: compiler.split_whitespace().nth(1).map(str::to_owned),
            licence: "MIT OR Apache-2.0".to_owned(),
            notices: notices.into_iter().collect(),
        },
    ]
}

fn parse_messages(messages: &str, folder: &Path) -> Result<BTreeSet<Linked>, CratesError> {
    let mut linked = BTreeSet::new();
    for (number, line) in messages.lines().enumerate() {
        let message: Message = serde_json::from_str(line).map_err(|err| CratesError::Message {
            line: number + 1,
            err,
        })?;
        let (Some(id), Some(manifest)) = (message.package_id, message.manifest_path) else {
            continue;
        };
        let for_target = message
            .filenames
            .iter()
            .any(|file| file.starts_with(folder));
        if message.reason == "compiler-artifact" && for_target {
            let (name, version) =
                parse_package_id(&id).ok_or_else(|| CratesError::PackageId(id.clone()))?;
            linked.insert(Linked {
                name,
                version,
                manifest,
            });
        }
    }
    Ok(linked)
}

/// `registry+ADDRESS#name@version`, or `path+file:///…/name#version` where the folder has the package's name.
fn parse_package_id(id: &str) -> Option<(String, String)> {
    let (place, fragment) = id.rsplit_once('#')?;
    let (name, version) = fragment
        .split_once('@')
        .unwrap_or((place.rsplit('/').next()?, fragment));
    (!name.is_empty() && version.starts_with(|first: char| first.is_ascii_digit()))
        .then(|| (name.to_owned(), version.to_owned()))
}

/// A dependency in a lock file is a name, and a version too where there are several.
fn needs(locked: &LockedCrate, linked: &BTreeSet<Linked>) -> BTreeSet<(String, String)> {
    let found = locked.dependencies.iter().filter_map(|dependency| {
        let mut words = dependency.split_whitespace();
        let (name, version) = (words.next()?, words.next());
        let needed = linked.iter().find(|other| {
            other.name == name && version.is_none_or(|version| other.version == version)
        })?;
        Some((needed.name.clone(), needed.version.clone()))
    });
    found.collect()
}

/// What lies with the source of a crate.
struct Source {
    licence: Option<String>,
    notices: BTreeMap<String, String>,
}

fn load_source(manifest: &Path) -> Result<Source, CratesError> {
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let stated = load_manifest(manifest)?
        .package
        .and_then(|package| package.license);
    match stated {
        Some(Stated::InWorkspace { .. }) => of_workspace(folder),
        stated => Ok(Source {
            licence: here(stated),
            notices: load_notices(folder)?,
        }),
    }
}

/// The licence of a workspace's own crate is stated, and lies, in the folder of the workspace.
fn of_workspace(folder: &Path) -> Result<Source, CratesError> {
    for folder in folder.ancestors() {
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            continue;
        }
        if let Some(workspace) = load_manifest(&manifest)?.workspace {
            return Ok(Source {
                licence: here(workspace.package.and_then(|package| package.license)),
                notices: load_notices(folder)?,
            });
        }
    }
    Ok(Source {
        licence: None,
        notices: BTreeMap::new(),
    })
}

fn here(stated: Option<Stated>) -> Option<String> {
    match stated {
        Some(Stated::Here(licence)) => Some(licence),
        Some(Stated::InWorkspace { .. }) | None => None,
    }
}

fn load_manifest(path: &Path) -> Result<Manifest, CratesError> {
    parse_toml(path, &read(path)?)
}

fn load_notices(folder: &Path) -> Result<BTreeMap<String, String>, CratesError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |err| CratesError::Read { path, err }
    };
    let mut notices = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let upper = name.to_uppercase();
        let is_notice = NOTICES.iter().any(|start| upper.starts_with(start));
        let metadata = fs::metadata(&path).map_err(failed(&path))?;
        if is_notice && metadata.is_file() && metadata.len() <= NOTICE_MAX {
            let bytes = fs::read(&path).map_err(failed(&path))?;
            notices.insert(
                name.into_owned(),
                String::from_utf8_lossy(&bytes).into_owned(),
            );
        }
    }
    Ok(notices)
}

fn read(path: &Path) -> Result<String, CratesError> {
    fs::read_to_string(path).map_err(|err| CratesError::Read {
        path: path.to_owned(),
        err,
    })
}

fn parse_toml<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, CratesError> {
    toml::from_str(text).map_err(|err| CratesError::Syntax {
        path: path.to_owned(),
        err: Box::new(err),
    })
}

/// Takes the mark-up out of a page that is nearly all text.
fn text_of_page(page: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        rest = tag.split_once('>').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    for (entity, letter) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&#x2f;", "/"),
        ("&#x2F;", "/"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ] {
        text = text.replace(entity, letter);
    }
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.dedup_by(|line, before| line.trim().is_empty() && before.trim().is_empty());
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ids_old_and_new() {
        let both = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        for (id, expected) in [
            (
                "registry+https://example.org/index#libc@0.2.1",
                both("libc", "0.2.1"),
            ),
            (
                "path+file:///home/me/agent#its-name@0.1.0",
                both("its-name", "0.1.0"),
            ),
            ("path+file:///home/me/agent#0.1.0", both("agent", "0.1.0")),
            ("path+file:///home/me/agent", None),
            ("x#y", None),
        ] {
            assert_eq!(parse_package_id(id), expected, "{id}");
        }
    }

    #[test]
    fn only_what_was_built_for_the_target_counts() {
        let artifact = |id: &str, file: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"r#{id}","manifest_path":"/m/{id}","filenames":["{file}"]}}"#
            )
        };
        let messages = [
            artifact("libc@1.0.0", "/out/board/release/deps/liblibc.rlib"),
            artifact("libc@1.0.0", "/out/release/build/libc/build-script"),
            artifact("macros@1.0.0", "/out/release/deps/libmacros.so"),
            r#"{"reason":"build-script-executed","package_id":"r#libc@1.0.0"}"#.to_owned(),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ]
        .join("\n");
        let linked = parse_messages(&messages, Path::new("/out/board")).unwrap();
        let names: Vec<&str> = linked.iter().map(|this| this.name.as_str()).collect();
        assert_eq!(names, ["libc"]);
        let err = parse_messages("{}\nnone", Path::new("/")).unwrap_err();
        assert!(matches!(err, CratesError::Message { line: 1, .. }), "{err}");
    }

    #[test]
    fn crates_with_their_licences_and_what_they_need_of_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "Cargo.toml",
            "[workspace]\n[workspace.package]\nlicense = \"MIT\"",
        );
        write("LICENSE-MIT", "as you like");
        write(
            "agent/Cargo.toml",
            "[package]\nname = \"agent\"\nlicense.workspace = true",
        );
        write(
            "one/Cargo.toml",
            "[package]\nname = \"one\"\nlicense = \"ISC\"",
        );
        write("one/copying.md", "copy");
        write("one/src/LICENSE", "not at the top");
        write(
            "two/Cargo.toml",
            "[package]\nname = \"two\"\nlicense-file = \"X\"",
        );
        let digest = "0".repeat(64);
        write(
            "Cargo.lock",
            &format!(
                "[[package]]\nname = \"agent\"\nversion = \"0.1.0\"\ndependencies = [\"one 1.0.0\", \"macros\"]\n\n[[package]]\nname = \"one\"\nversion = \"1.0.0\"\nchecksum = \"{digest}\"\ndependencies = [\"two\"]\n\n[[package]]\nname = \"one\"\nversion = \"2.0.0\"\n"
            ),
        );
        let message = |name: &str, version: &str| {
            let manifest = folder.path().join(name).join("Cargo.toml");
            serde_json::json!({
                "reason": "compiler-artifact",
                "package_id": format!("r#{name}@{version}"),
                "manifest_path": manifest,
                "filenames": ["/out/x"],
            })
            .to_string()
        };
        let messages = [
            message("two", "3.0.0"),
            message("one", "1.0.0"),
            message("agent", "0.1.0"),
        ]
        .join("\n");
        let lock = folder.path().join("Cargo.lock");
        let crates = load_crates(&messages, Path::new("/out"), &lock).unwrap();
        let shown: String = crates
            .iter()
            .map(|this| {
                let notices: Vec<&String> = this.notices.keys().collect();
                let (licence, checked) = (&this.licence, this.checksum.is_some());
                format!(
                    "{} {licence:?} {notices:?} {checked} {:?}\n",
                    this.name, this.needs
                )
            })
            .collect();
        expect_test::expect![[r#"
            agent Some("MIT") ["LICENSE-MIT"] false {("one", "1.0.0")}
            one Some("ISC") ["copying.md"] true {("two", "3.0.0")}
            two None [] false {}
        "#]]
        .assert_eq(&shown);
    }

    #[test]
    fn a_page_as_text() {
        let page = "<html>\n<p>The &amp;lt; &quot;licence&quot;</p>\n\n\n<!-- no -->\n<pre>a <b>x</b></pre>\n";
        assert_eq!(text_of_page(page), "The &lt; \"licence\"\n\na x");
    }
}
