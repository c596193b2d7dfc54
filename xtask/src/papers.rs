//! Has other people's validators judge what lies beside a real image, and provides those validators for the image builder's own tests too.
//!
//! They are Python packages, in an environment of their own in the user's cache; nothing of them is installed on the machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use imagegen::credentials::{Security, Ssid};
use imagegen::make::disk::{CYCLONEDX, ImageFormat, SPDX};
use imagegen::sha256::Sha256;
use imagegen::site::{Network, SiteOptions};
use xshell::{Shell, cmd};

use crate::image::{self, Job};
use crate::progress::Bars;
use crate::source::Source;
use crate::workspace::Workspace;
use crate::{boards, interrupt, tools};

/// Tells the image builder's tests which Python has the validators.
pub const PYTHON: &str = "FOOTBRIDGE_TEST_PYTHON";

/// Who judges CycloneDX, and who SPDX.
const VALIDATORS: [&str; 2] = [
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "spdx-tools==0.8.5",
];

/// Asks them, below the checkout.
const SCRIPT: &str = "imagegen/tests/it/validate.py";

/// Returns a Python that has the validators, fetching them where they are not there; `None`, after saying why, where they cannot be had.
pub fn provide(workspace: &Workspace) -> Result<Option<PathBuf>> {
    if let Some(named) = std::env::var_os(PYTHON) {
        return Ok(Some(named.into()));
    }
    match environment(workspace) {
        Ok(python) => Ok(Some(python)),
        Err(error) if tools::require_all() => {
            Err(error.context("while fetching validators for CycloneDX and SPDX"))
        }
        Err(error) => {
            say!("no validators for CycloneDX and SPDX: {error:#}");
            Ok(None)
        }
    }
}

/// An environment counts once the file is there that is written last.
fn environment(workspace: &Workspace) -> Result<PathBuf> {
    let key = Sha256::of(VALIDATORS.join("\n").as_bytes()).to_string();
    let folder = workspace.cache.join("validators").join(&key[..16]);
    let python = folder.join("bin/python");
    let ready = folder.join("ready");
    if ready.is_file() && python.exists() {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("while removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("while creating {}", folder.display()))?;
    let _unfinished = interrupt::Unfinished::scratch(&folder);
    say!(
        "Fetching Python packages for the tests: {}",
        VALIDATORS.join(" ")
    );
    let shell = Shell::new()?;
    cmd!(shell, "python3 -m venv {folder}")
        .quiet()
        .ignore_stdout()
        .run()
        .context("while making an environment for Python packages (Debian: python3-venv)")?;
    cmd!(
        shell,
        "{python} -m pip install --quiet --disable-pip-version-check {VALIDATORS...}"
    )
    .quiet()
    .ignore_stdout()
    .run()
    .context("while fetching Python packages")?;
    fs::write(&ready, "").with_context(|| format!("while writing {}", ready.display()))?;
    Ok(python)
}

/// Builds the default board's image and has its bills judged, for `cargo xtask test`.
pub fn run_default() -> Result<()> {
    let workspace = Workspace::locate()?;
    let Some(python) = provide(&workspace)? else {
        say!("SKIPPED: the bills of an image: there are no validators");
        return Ok(());
    };
    let board = boards::load(&workspace, &boards::Choice::default().name)?;
    let scratch = tempfile::tempdir()?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());
    let output = scratch.path().join("image.img");
    let job = Job {
        board: &board,
        site: &SiteOptions::joining(Network::new(Ssid::new("network")?, Security::Open)),
        source: &Source::default(),
        output: &output,
        format: ImageFormat::Img,
        agent: None,
    };
    image::build(&workspace, &job, &Bars::new())?;
    judge(&workspace, &python, &output)
}

fn judge(workspace: &Workspace, python: &Path, image: &Path) -> Result<()> {
    let beside = |suffix: &str| {
        let mut path = OsString::from(image);
        path.push(suffix);
        path
    };
    let (cyclonedx, spdx) = (beside(CYCLONEDX), beside(SPDX));
    let script = workspace.root.join(SCRIPT);
    let shell = Shell::new()?;
    let said = cmd!(shell, "{python} {script} {cyclonedx} {spdx}")
        .quiet()
        .read()
        .context("the validators refuse a bill")?;
    if said.is_empty() {
        bail!("the validators looked at nothing");
    }
    say!("{said}");
    Ok(())
}
