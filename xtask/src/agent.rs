//! Cross-builds the agent as a static binary for a board.
//!
//! The standard library of the board's target comes from rustup where its server can be reached. Elsewhere it is built once
//! from the distribution's copy of its source and kept in the cache, with the C library's start files from musl-dev. No C
//! compiler for the target is needed either way: rust-lld links.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use imagegen::agent::AgentBill;
use imagegen::board::Board;
use imagegen::make::crates::{load_crates, load_libraries};
use xshell::{Shell, cmd};

use crate::agent_key::{AgentKey, Build};
use crate::source::{Security, Source, Std};
use crate::usage::Failure;
use crate::{boards, interrupt, lock, output, progress::Bars, workspace::Workspace};

/// Which board to build for.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    board: boards::Choice,
    #[command(flatten)]
    source: Source,
}

/// Symbols of the unwinder that the standard library's backtraces refer to. The agent aborts on panic, so any address does.
const UNWINDER: &[&str] = &[
    "_Unwind_Backtrace",
    "_Unwind_GetIP",
    "_Unwind_GetCFA",
    "_Unwind_FindEnclosingFunction",
    "_Unwind_VRS_Get",
];

/// The crate of the agent.
const PACKAGE: &str = "footbridge-agent";

/// Builds the agent and prints the path of the binary.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let board = boards::load(&workspace, &args.board.name)?;
    let binary = build(&workspace, &board, &args.source, &Bars::new())?;
    output::print_line(binary.display())?;
    Ok(())
}

/// Builds the agent for the board's target and returns the path of the binary.
pub fn build(
    workspace: &Workspace,
    board: &Board,
    source: &Source,
    bars: &Bars,
) -> Result<PathBuf> {
    let shell = Shell::new()?;
    shell.change_dir(&workspace.root);
    let target = board.arch.rust_target();
    let sysroot = sysroot(&shell)?;
    let flags = match source.std {
        Std::Rustup => {
            add_rustup_target(&shell, &sysroot, target, source.offline)?;
            rustup_flags()
        }
        Std::Auto => match add_rustup_target(&shell, &sysroot, target, source.offline) {
            Ok(()) => rustup_flags(),
            Err(why) => debian_flags(&shell, workspace, board, source, bars).with_context(|| {
                format!("while making the standard library of the distribution's source, because {why:#}")
            })?,
        },
        Std::Debian => debian_flags(&shell, workspace, board, source, bars)
            .context("while making the standard library of the distribution's source")?,
    };
    compile(&shell, workspace, &sysroot, target, flags, Some(bars))
}

/// Builds the agent for this machine the way it is built for boards, where rustup has the means; else as cargo does by itself.
pub fn build_for_this_machine(workspace: &Workspace) -> Result<PathBuf> {
    let shell = Shell::new()?;
    shell.change_dir(&workspace.root);
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let sysroot = sysroot(&shell)?;
    if add_rustup_target(&shell, &sysroot, &target, false).is_ok() {
        return compile(&shell, workspace, &sysroot, &target, rustup_flags(), None);
    }
    say!("rustup has no {target}: the agent is linked dynamically, unlike on a board");
    cmd!(
        shell,
        "cargo build --quiet --locked --release --package footbridge-agent --bin footbridge"
    )
    .quiet()
    .run()
    .context("while building the agent")?;
    Ok(std::path::absolute(
        workspace.target.join("release/footbridge"),
    )?)
}

/// Has cargo build the agent, unless its program is there and was built from the same.
fn compile(
    shell: &Shell,
    workspace: &Workspace,
    sysroot: &Path,
    target: &str,
    mut flags: Vec<String>,
    bars: Option<&Bars>,
) -> Result<PathBuf> {
    flags.push(remap(&workspace.root, "footbridge"));
    flags.extend(layout(&workspace.root));
    flags.extend(cargo_home().map(|home| remap(&home, "cargo")));
    let output = workspace.target.join("agent");
    let binary = output.join(target).join("release/footbridge");
    let key = AgentKey::of(&Build {
        root: &workspace.root,
        cargo_home: cargo_home().as_deref(),
        sysroot,
        arguments: &[&flags[..], &[target.to_owned()]].concat(),
        variables: std::env::vars_os().collect(),
    })?;
    if key.is_of(&binary) && load_bill(&binary).is_ok() {
        return Ok(binary);
    }
    let _step = bars.map(|bars| bars.step(&format!("building the agent for {target}")));
    let messages = cmd!(
        shell,
        "cargo build --quiet --locked --release --package {PACKAGE} --bin footbridge --target {target} --target-dir {output} --message-format json-render-diagnostics"
    )
    // With --target these reach only code for the board; the separator is cargo's, so that paths may hold spaces.
    .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
    .quiet()
    .read()
    .map_err(|error| {
        Failure::new(
            format!("cannot build the agent: {error}"),
            format!(
                "cargo says above why; it works in {}, which needs some 300 MB",
                output.display()
            ),
        )
    })?;
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    let compiler = cmd!(shell, "rustc -V").quiet().read()?;
    let contents = AgentBill {
        name: PACKAGE.to_owned(),
        target: target.to_owned(),
        crates: load_crates(
            &messages,
            &output.join(target),
            &workspace.root.join("Cargo.lock"),
        )?,
        libraries: load_libraries(sysroot, &compiler),
        compiler,
    };
    let bill = bill_of(&binary);
    fs::write(&bill, contents.encode())
        .with_context(|| format!("while writing {}", bill.display()))?;
    key.keep(&binary)
        .with_context(|| format!("while noting what {} was built from", binary.display()))?;
    Ok(binary)
}

/// Returns where it says what a program of the agent was linked from: beside the program.
pub fn bill_of(program: &Path) -> PathBuf {
    program.with_extension("bill.json")
}

/// Loads what a program of the agent was linked from.
pub fn load_bill(program: &Path) -> Result<AgentBill> {
    let path = bill_of(program);
    let while_reading = || format!("while reading {}", path.display());
    let text = fs::read_to_string(&path).with_context(while_reading)?;
    AgentBill::parse(&text).with_context(while_reading)
}

fn sysroot(shell: &Shell) -> Result<PathBuf> {
    Ok(cmd!(shell, "rustc --print sysroot").quiet().read()?.into())
}

/// Leaves out tables that nobody reads and puts apart what seldom runs; the script says why.
fn layout(root: &Path) -> [String; 2] {
    let script = root.join("agent/layout.ld");
    [
        format!("-Clink-arg=-T{}", script.display()),
        "-Clink-arg=--no-eh-frame-hdr".to_owned(),
    ]
}

fn remap(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}=/{to}", from.display())
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

/// rustup's musl targets bring their own start files and C library.
fn rustup_flags() -> Vec<String> {
    [
        "-Clinker=rust-lld",
        "-Clink-self-contained=yes",
        "-Crelocation-model=static",
    ]
    .map(String::from)
    .to_vec()
}

fn add_rustup_target(shell: &Shell, sysroot: &Path, target: &str, offline: bool) -> Result<()> {
    let libraries = sysroot.join("lib/rustlib");
    if libraries.join(target).join("lib").is_dir() {
        return Ok(());
    }
    if offline {
        bail!(
            "the standard library for {target} is not installed, and --offline forbids fetching it"
        );
    }
    let asked = cmd!(shell, "rustup --quiet target add {target}")
        .quiet()
        .ignore_stdout()
        .ignore_status()
        .output();
    let why = match asked {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Failure::new(
        format!("rustup has not given the standard library for {target}: {why}"),
        format!("`rustup target add {target}` by hand, or --std debian, which makes it of the distribution's source"),
    )
    .into())
}

/// The link arguments that stand for rustup's self-contained folder.
fn debian_flags(
    shell: &Shell,
    workspace: &Workspace,
    board: &Board,
    source: &Source,
    bars: &Bars,
) -> Result<Vec<String>> {
    let std = standard_library(shell, workspace, board, source, bars)?;
    let native = std.join("native");
    let mut flags = vec![
        format!("--sysroot={}", std.join("sysroot").display()),
        "-Clinker=rust-lld".into(),
        "-Clink-self-contained=no".into(),
        "-Crelocation-model=static".into(),
        format!("-Lnative={}", native.display()),
    ];
    flags.extend(
        ["crt1.o", "crti.o", "crtn.o"]
            .map(|file| format!("-Clink-arg={}", native.join(file).display())),
    );
    flags.extend(
        UNWINDER
            .iter()
            .map(|symbol| format!("-Clink-arg=--defsym={symbol}=sched_yield")),
    );
    Ok(flags)
}

/// Returns the cached standard library for the board's target, building it first where it is not there.
///
/// It is built in a temporary folder and moved into place whole, so an interrupted build leaves nothing that looks finished.
fn standard_library(
    shell: &Shell,
    workspace: &Workspace,
    board: &Board,
    source: &Source,
    bars: &Bars,
) -> Result<PathBuf> {
    let target = board.arch.rust_target();
    let version = rustc_version(shell)?;
    let finished = workspace
        .cache
        .join("std")
        .join(format!("{version}-{target}"));
    if finished.is_dir() {
        return Ok(finished);
    }
    let parent = finished
        .parent()
        .context("the cache folder has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("while creating {}", parent.display()))?;
    let scratch = tempfile::Builder::new().prefix("std-").tempdir_in(parent)?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());

    source.unpack_standard_library(
        workspace,
        board.arch.debian_name(),
        &version,
        Security::of(lock::find(workspace, board.arch.debian_name())?.as_ref()),
        scratch.path(),
        bars,
    )?;
    let library = scratch
        .path()
        .join("usr/src")
        .join(format!("rustc-{version}"))
        .join("library");
    let built = scratch.path().join("built");
    build_std(shell, &library, target, &built, bars)?;

    let ready = scratch.path().join("ready");
    assemble_sysroot(shell, &built, target, &ready)?;
    assemble_native(scratch.path(), &ready)?;
    match fs::rename(&ready, &finished) {
        Err(error) if !finished.is_dir() => {
            Err(error).with_context(|| format!("while creating {}", finished.display()))
        }
        _ => Ok(finished),
    }
}

fn rustc_version(shell: &Shell) -> Result<String> {
    let text = cmd!(shell, "rustc -vV").quiet().read()?;
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    release
        .map(String::from)
        .context("rustc -vV names no release")
}

/// Compiles `std` with the stable compiler; only the standard library itself may use unstable features, hence the switch.
fn build_std(
    shell: &Shell,
    library: &Path,
    target: &str,
    output: &Path,
    bars: &Bars,
) -> Result<()> {
    let _step = bars.step(&format!("building the standard library for {target}"));
    let _folder = shell.push_dir(library.join("std"));
    let mut flags = vec![
        "-Zforce-unstable-if-unmarked".to_string(),
        "-Cembed-bitcode=yes".into(),
    ];
    flags.push(remap(library, "rust/library"));
    flags.extend(cargo_home().map(|home| remap(&home, "cargo")));
    cmd!(
        shell,
        "cargo build --quiet --release --locked --target {target} --target-dir {output}"
    )
    .env("RUSTC_BOOTSTRAP", "1")
    .env("__CARGO_DEFAULT_LIB_METADATA", "footbridge")
    .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
    .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "z")
    .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
    .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
    .quiet()
    .ignore_stderr()
    .run()
    .context("while building the standard library")
}

fn assemble_sysroot(shell: &Shell, built: &Path, target: &str, ready: &Path) -> Result<()> {
    let libraries = ready.join("sysroot/lib/rustlib");
    let destination = libraries.join(target).join("lib");
    fs::create_dir_all(&destination)?;
    for entry in fs::read_dir(built.join(target).join("release/deps"))? {
        let path = entry?.path();
        if let (Some("rlib"), Some(name)) =
            (path.extension().and_then(|e| e.to_str()), path.file_name())
        {
            fs::copy(&path, destination.join(name))?;
        }
    }
    // Build scripts and procedural macros of the agent's dependencies run on this machine.
    let host = cmd!(shell, "rustc --print host-tuple").quiet().read()?;
    let toolchain = sysroot(shell)?;
    std::os::unix::fs::symlink(
        toolchain.join("lib/rustlib").join(&host),
        libraries.join(&host),
    )?;
    Ok(())
}

/// Collects the C library's start files and archive, and an empty archive for the unwinder that `std` names.
fn assemble_native(scratch: &Path, ready: &Path) -> Result<()> {
    let native = ready.join("native");
    fs::create_dir_all(&native)?;
    for entry in fs::read_dir(scratch.join("usr/lib"))? {
        let folder = entry?.path();
        for file in ["crt1.o", "crti.o", "crtn.o", "libc.a"] {
            let from = folder.join(file);
            fs::copy(&from, native.join(file))
                .with_context(|| format!("while copying {}", from.display()))?;
        }
    }
    fs::write(native.join("libunwind.a"), "!<arch>\n")
        .context("while writing the empty unwinder archive")
}
