//! `cargo xtask test`: everything that is checked, in the order in which it fails fastest.
//!
//! Format, lints, the fuzzer's programs, documentation, licences; unit, property, network-namespace and image tests; an image built twice and
//! compared; then the image itself in an emulator against a simulated radio, and cards whose settings came about in other ways.
//! `REQUIRE_ALL=1` turns every check that cannot run into a failure.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::progress::Bars;
use crate::source::{Security, Source, choose_beside};
use crate::{boards, e2e, fuzz, papers, reproduce, site_boots, tools, workspace::Workspace};

/// Tells the image builder's tests where a kernel's package is.
const REAL_KERNEL: &str = "FOOTBRIDGE_TEST_KERNEL";

/// Which tests to run.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the boots in the emulator
    #[arg(long)]
    no_e2e: bool,
}

struct Outcome {
    name: &'static str,
    took: Duration,
    error: Option<anyhow::Error>,
}

/// Runs all checks, goes on after a failure, and reports every one of them at the end.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let shell = Shell::new()?;
    shell.change_dir(&workspace.root);
    tools::provide(&shell)?;

    let mut outcomes = vec![
        check("format", || {
            Ok(cmd!(shell, "cargo fmt --all --check").quiet().run()?)
        }),
        check("lints", || {
            Ok(cmd!(
                shell,
                "cargo clippy --quiet --workspace --all-targets --locked -- -D warnings"
            )
            .quiet()
            .run()?)
        }),
        check("fuzz programs", || fuzz::check(&workspace)),
        check("documentation", || {
            let _warnings = shell.push_env("RUSTDOCFLAGS", "-D warnings");
            Ok(
                cmd!(shell, "cargo doc --quiet --workspace --no-deps --locked")
                    .quiet()
                    .run()?,
            )
        }),
        check("licences", || licences(&shell)),
        check("tests", || {
            let _kernel = real_kernel(&workspace)?.map(|path| shell.push_env(REAL_KERNEL, path));
            let _python =
                papers::provide(&workspace)?.map(|path| shell.push_env(papers::PYTHON, path));
            Ok(cmd!(shell, "cargo test --quiet --workspace --locked")
                .quiet()
                .run()?)
        }),
        check("reproduce", reproduce::run_default),
        check("bills", papers::run_default),
    ];
    if args.no_e2e {
        say!("SKIPPED: e2e, site-boots: left out by --no-e2e");
    } else {
        outcomes.push(check("e2e", e2e::run_default));
        outcomes.push(check("site-boots", site_boots::run_default));
    }
    summarise(&outcomes)
}

/// Fetches the kernel package of the default board, whose modules the tests compare with depmod's view; it is in the cache after any
/// build. `None` where it cannot be had: the test that wants it says that it was skipped.
fn real_kernel(workspace: &Workspace) -> Result<Option<PathBuf>> {
    if let Some(named) = std::env::var_os(REAL_KERNEL) {
        return Ok(Some(named.into()));
    }
    match fetch_kernel(workspace) {
        Ok(path) => Ok(Some(path)),
        Err(error) if tools::require_all() => Err(error.context("while fetching a kernel")),
        Err(error) => {
            say!("no real kernel for the tests: {error:#}");
            Ok(None)
        }
    }
}

fn fetch_kernel(workspace: &Workspace) -> Result<PathBuf> {
    let board = boards::load(workspace, "pi3")?;
    let bars = Bars::new();
    let source = Source::default();
    let fetcher = source.fetcher(workspace, &bars)?;
    let offer = source.offer(&fetcher, board.arch.debian_name(), Security::Wanted)?;
    // What people call the kernel's package only depends on the one of the day.
    let meta = &board.kernel.package;
    let chosen = choose_beside(&offer, &[meta], BTreeSet::new())?;
    let kernel = chosen
        .packages
        .values()
        .find(|package| package.name != *meta && package.name.starts_with("linux-image-"))
        .with_context(|| format!("{meta} depends on no kernel"))?;
    Ok(fetcher.fetch_deb(kernel)?)
}

fn check(name: &'static str, body: impl FnOnce() -> Result<()>) -> Outcome {
    say!("\n== {name}");
    let begin = Instant::now();
    let error = body().err();
    Outcome {
        name,
        took: begin.elapsed(),
        error,
    }
}

/// Returns an error unless every dependency may be used under a licence of the list in deny.toml.
fn licences(shell: &Shell) -> Result<()> {
    let denylist: toml::Table = toml::from_str(&shell.read_file("deny.toml")?)?;
    let allowed: Vec<String> = denylist["licenses"]["allow"].clone().try_into()?;
    // What is built for other systems is not used.
    let host = cmd!(shell, "rustc --print host-tuple").quiet().read()?;
    let metadata = cmd!(
        shell,
        "cargo metadata --format-version 1 --locked --filter-platform {host}"
    )
    .quiet()
    .read()?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let mut refused = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let licence = package["license"].as_str().unwrap_or("none stated");
        if !is_allowed(licence, &allowed) {
            refused.push(format!(
                "{}: {licence}",
                package["name"].as_str().unwrap_or("?")
            ));
        }
    }
    if refused.is_empty() {
        Ok(())
    } else {
        bail!("licences not in deny.toml's list: {}", refused.join(", "))
    }
}

/// Evaluates an SPDX expression: every term joined by AND needs an allowed alternative joined by OR.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" AND ").all(|term| {
        term.split(" OR ")
            .any(|licence| allowed.iter().any(|a| a == licence.trim()))
    })
}

fn summarise(outcomes: &[Outcome]) -> Result<()> {
    say!("");
    for outcome in outcomes {
        let verdict = if outcome.error.is_some() {
            "FAILED"
        } else {
            "ok"
        };
        say!(
            "{:<14} {:>6.1} s  {verdict}",
            outcome.name,
            outcome.took.as_secs_f64()
        );
    }
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| {
            outcome
                .error
                .as_ref()
                .map(|error| format!("{}: {error:#}", outcome.name))
        })
        .collect();
    say!(
        "\n{} passed, {} failed",
        outcomes.len() - failed.len(),
        failed.len()
    );
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("{}", failed.join("\n       "))
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn licence_expressions() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(String::from);
        for (expression, expected) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("none stated", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
        }
    }
}
