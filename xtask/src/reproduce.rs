//! `cargo xtask reproduce`: builds images twice, in circumstances that differ in everything that must not matter, and compares them.
//!
//! ```text
//! here       this user, all processors, umask 022, UTC,                            nothing kept by earlier builds
//! elsewhere  another user (where root runs this), one processor, umask 077, a day  nothing kept by earlier builds; then twice more
//!            later by the clock on the wall, another language, home and cache      from what this build kept: all, and all but the whole
//! ```
//!
//! Packages and the agent are the same; that the agent comes out the same elsewhere is a matter of two checkouts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use imagegen::board::Board;
use imagegen::credentials::{Security, Ssid};
use imagegen::make::disk::{CYCLONEDX, ImageFormat, LICENCES, SPDX};
use imagegen::shell;
use imagegen::site::{CountryCode, Network, SiteOptions};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::progress::Bars;
use crate::source::Source;
use crate::usage::Failure;
use crate::workspace::Workspace;
use crate::{agent, boards, image, interrupt, lock, output, tools};

/// Owns nothing on any system: `nobody`.
const OTHER_USER: u32 = 65_534;

/// A name that no character set has in the same bytes as another.
const SSID: &str = "caf\u{e9} \u{1f310}";

const COUNTRY: &str = "DE";

/// Which images to build.
#[derive(clap::Args)]
pub struct Args {
    /// Board to build for; can be given more than once (default: all that have a lock)
    #[arg(long = "board", value_name = "BOARD")]
    boards: Vec<String>,
    /// What the files are: img, img.zst or img.xz
    #[arg(long, value_name = "FORMAT", default_value_t)]
    format: ImageFormat,
    #[command(flatten)]
    source: Source,
}

/// Where and how an image is built.
struct Circumstances<'a> {
    /// Holds the cache, the home and the images.
    folder: PathBuf,
    user: Option<u32>,
    umask: &'a str,
    zone: &'a str,
    locale: &'a str,
    one_processor: bool,
}

/// What is the same each time.
struct Ingredients<'a> {
    program: &'a Path,
    board: &'a str,
    format: ImageFormat,
    agent: &'a Path,
}

/// Builds each board's image and prints its digest.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let mut printed = Ok(());
    for board in choose(&workspace, &args.boards)? {
        let digest = reproduce(&workspace, &board, args)?;
        // The others are built whether or not anybody reads this.
        printed = printed.and_then(|()| output::print_line(format_args!("{digest}  {}", board.id)));
    }
    printed
}

/// Builds the default board's image for `cargo xtask test`.
pub fn run_default() -> Result<()> {
    run(&Args {
        boards: vec![boards::Choice::default().name],
        format: ImageFormat::Img,
        source: Source::default(),
    })
}

fn choose(workspace: &Workspace, names: &[String]) -> Result<Vec<Board>> {
    if !names.is_empty() {
        return names
            .iter()
            .map(|name| boards::load(workspace, name))
            .collect();
    }
    let mut locked = Vec::new();
    for board in boards::all(workspace)? {
        if lock::find(workspace, board.arch.debian_name())?.is_some() {
            locked.push(board);
        } else if tools::require_all() {
            lock::load(workspace, &board)?;
        } else {
            say!("SKIPPED: {}: there is no lock for {}", board.id, board.arch);
        }
    }
    Ok(locked)
}

/// Returns the digest of the image's file.
fn reproduce(workspace: &Workspace, board: &Board, args: &Args) -> Result<String> {
    let bars = Bars::new();
    let agent = agent::build(workspace, board, &args.source, &bars)?;
    let debs = image::fetch_packages(workspace, board, &args.source, &site()?, &bars)?;
    let scratch = tempfile::tempdir()?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());
    // The other user has to pass, and to run this program.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711))?;
    let program = scratch.path().join("xtask");
    // By its name it may be another by now: the tests build this program as well (proc(5)).
    fs::copy("/proc/self/exe", &program).context("while copying this program")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let here = Circumstances {
        folder: scratch.path().join("here"),
        user: None,
        umask: "022",
        zone: "UTC",
        locale: "C",
        one_processor: false,
    };
    let elsewhere = Circumstances {
        folder: scratch.path().join("else where"),
        user: other_user(&program)?,
        umask: "077",
        zone: "Pacific/Kiritimati",
        locale: "tr_TR.UTF-8",
        one_processor: true,
    };
    let given = scratch.path().join("agent");
    for (from, to) in [
        (agent.clone(), given.clone()),
        (agent::bill_of(&agent), agent::bill_of(&given)),
    ] {
        fs::copy(&from, &to).with_context(|| format!("while copying {}", from.display()))?;
    }
    let ingredients = Ingredients {
        program: &program,
        board: &board.id,
        format: args.format,
        agent: &given,
    };
    let build = |circumstances: &Circumstances<'_>, name: &str| {
        let _step = bars.step(&format!("building the image for {}", board.id));
        circumstances.build(&ingredients, name)
    };
    here.prepare(&debs)?;
    elsewhere.prepare(&debs)?;
    let mut images = vec![
        build(&here, "made")?,
        build(&elsewhere, "made")?,
        build(&elsewhere, "from what was kept")?,
    ];
    fs::remove_dir_all(elsewhere.cache().join("systems"))
        .context("while removing what was kept as a whole")?;
    images.push(build(&elsewhere, "from kept parts")?);
    compare(workspace, board, &images)
}

/// The site of all images; [`Circumstances::build`] says it in options.
fn site() -> Result<SiteOptions> {
    Ok(SiteOptions {
        country: Some(CountryCode::parse(COUNTRY)?),
        ..SiteOptions::joining(Network::new(Ssid::new(SSID)?, Security::Open))
    })
}

/// Only root can be somebody else.
fn other_user(program: &Path) -> Result<Option<u32>> {
    if !rustix::process::geteuid().is_root() {
        return without_other_user("only root can build as another user");
    }
    match as_user(OTHER_USER).arg(program).arg("boards").output() {
        Ok(output) if output.status.success() => Ok(Some(OTHER_USER)),
        Ok(output) => without_other_user(String::from_utf8_lossy(&output.stderr).trim_end()),
        Err(error) => without_other_user(&format!("cannot run setpriv: {error}")),
    }
}

/// Returns a command that runs its arguments as another user, who may read whatever root may: checkouts are often where others cannot look.
fn as_user(user: u32) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"))
        .arg("--clear-groups")
        .args([
            "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search",
        ]);
    command
}

fn without_other_user(reason: &str) -> Result<Option<u32>> {
    if tools::require_all() {
        bail!("{reason}");
    }
    say!("SKIPPED: another user: {reason}");
    Ok(None)
}

impl Circumstances<'_> {
    /// Makes the folders, and fills the cache with packages but with nothing that was made of them.
    fn prepare(&self, debs: &[PathBuf]) -> Result<()> {
        let objects = self.cache().join("packages/objects");
        fs::create_dir_all(&objects)?;
        for deb in debs {
            let copy = objects.join(deb.file_name().unwrap_or_default());
            // Nobody changes a file of the cache, so one may be in two of them where that is possible.
            if fs::hard_link(deb, &copy).is_err() {
                fs::copy(deb, &copy).with_context(|| format!("while copying {}", deb.display()))?;
            }
        }
        let cache = self.cache();
        for folder in [&self.folder, &cache] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
            chown(folder, self.user, self.user)?;
        }
        Ok(())
    }

    fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Builds the image in a process of its own and returns its path.
    fn build(&self, ingredients: &Ingredients, name: &str) -> Result<PathBuf> {
        let output = self
            .folder
            .join(format!("{name}.{}", ingredients.format.extension()));
        let mut command = self.user.map_or_else(|| Command::new("env"), as_user);
        // A process's umask is its own affair; this shell's becomes the builder's.
        command
            .args(["sh", "-c", "umask \"$0\" && exec \"$@\"", self.umask])
            .arg(ingredients.program)
            .args(["image", "--offline", "--board", ingredients.board])
            .args(["--ssid", SSID, "--open", "--country", COUNTRY])
            .arg("--agent")
            .arg(ingredients.agent)
            .arg("--output")
            .arg(&output)
            .current_dir(&self.folder)
            .env("FOOTBRIDGE_CACHE", self.cache())
            .env("HOME", &self.folder)
            .env("TMPDIR", &self.folder)
            .env("TZ", self.zone)
            .env("LC_ALL", self.locale);
        let outcome = self.run(&mut command)?;
        if !outcome.status.success() {
            let said = String::from_utf8_lossy(&outcome.stderr);
            bail!("the build in {} failed:\n{said}", self.folder.display());
        }
        Ok(output)
    }

    /// Which processors a process may use it has from the thread that starts it.
    fn run(&self, command: &mut Command) -> Result<std::process::Output> {
        let start = || {
            if self.one_processor {
                let mut first = CpuSet::new();
                let allowed = rustix::thread::sched_getaffinity(None)?;
                let number = (0..CpuSet::MAX_CPU).find(|number| allowed.is_set(*number));
                first.set(number.unwrap_or_default());
                sched_setaffinity(None, &first)?;
            }
            command.output()
        };
        let outcome = thread::scope(|scope| scope.spawn(start).join());
        let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.context("while starting a build")
    }
}

/// Returns the digest that all images have; keeps two that differ.
fn compare(workspace: &Workspace, board: &Board, images: &[PathBuf]) -> Result<String> {
    let described = |image: &PathBuf| -> Result<(String, [String; 4])> {
        let beside = |suffix: &str| {
            let mut path = image.clone().into_os_string();
            path.push(suffix);
            fs::read_to_string(&path).with_context(|| format!("while reading {path:?}"))
        };
        let digest: String = beside(".sha256")?.chars().take(64).collect();
        let others = [
            beside(".bmap")?,
            beside(CYCLONEDX)?,
            beside(SPDX)?,
            beside(LICENCES)?,
        ];
        Ok((digest, others))
    };
    let [first, others @ ..] = images else {
        bail!("no image was built");
    };
    let expected = described(first)?;
    for other in others {
        if described(other)? != expected {
            let kept = [("here", first), ("elsewhere", other)]
                .map(|(name, image)| keep(workspace, board, name, image));
            let [one, other] = kept;
            return Err(Failure::new(
                format!("two images for {} differ", board.id),
                format!(
                    "`cargo xtask diff {} {}` shows in what",
                    shell::word(&one?),
                    shell::word(&other?)
                ),
            )
            .into());
        }
    }
    Ok(expected.0)
}

fn keep(workspace: &Workspace, board: &Board, name: &str, image: &Path) -> Result<PathBuf> {
    let folder = workspace.target.join("reproduce");
    fs::create_dir_all(&folder)?;
    let end = image.file_name().unwrap_or_default().to_string_lossy();
    let end = end.split_once('.').map_or("img", |(_, end)| end);
    let kept = folder.join(format!("{}-{name}.{end}", board.id));
    fs::copy(image, &kept).with_context(|| format!("while keeping {}", image.display()))?;
    Ok(kept)
}
