//! `cargo xtask image`: from a board and a network's name to a flashable file.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use imagegen::board::Board;
use imagegen::credentials::Security;
use imagegen::lock::Lock;
use imagegen::make::cache::{CACHE_SIZE_MAX, KEPT_SIZE_MAX, KeptCache, SystemCache};
use imagegen::make::disk::{Draft, ImageFormat, LICENCES};
use imagegen::make::image::{Built, Debs, ImageInputs, load_kernel, make_image, make_system};
use imagegen::make::kernel::Kernel;
use imagegen::make::system::{System, SystemKey};
use imagegen::overlays::{Overlays, load_overlays};
use imagegen::plan::{Plan, PlanInputs, features_of, plan};
use imagegen::resolve::Resolution;
use imagegen::sbom::NonFree;
use imagegen::site::{Network, SiteOptions};

use crate::agent;
use crate::progress::Bars;
use crate::site_args::SiteArgs;
use crate::source::Source;
use crate::usage::{Failure, UsageError};
use crate::workspace::Workspace;
use crate::{boards, interrupt, lock, origin, output};

/// The image to build.
#[derive(clap::Args)]
pub struct Args {
    /// Board to build for; `cargo xtask boards` lists them
    #[arg(long)]
    board: String,
    /// Make the board a network card of the computer that its USB port is plugged into
    #[arg(long)]
    gadget: bool,
    #[command(flatten)]
    site: SiteArgs,
    /// Where to write the image (default: target/images/footbridge-BOARD.img); what describes it goes beside it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the file is: img, img.zst or img.xz (default: what its name says, or img)
    #[arg(long, value_name = "FORMAT")]
    format: Option<ImageFormat>,
    /// The agent's program, where it was built before
    #[arg(long, value_name = "FILE", hide = true)]
    agent: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

/// Everything known before anything is built.
pub struct Prepared {
    /// The lock of the board's architecture.
    pub lock: Lock,
    /// The packages chosen of it.
    pub resolution: Resolution,
    /// What the image will hold.
    pub plan: Plan,
}

/// Builds the image and prints its path.
pub fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let workspace = Workspace::locate()?;
    let board = boards::load(&workspace, &args.board)?;
    let board = if args.gadget {
        boards::as_gadget(&board)?
    } else {
        board
    };
    let output = match &args.output {
        Some(path) => path.clone(),
        None => workspace.target.join("images").join(format!(
            "footbridge-{}.{}",
            board.id,
            args.format.unwrap_or_default()
        )),
    };
    let format = format_of(&output, args.format)?;
    check_output(&output)?;
    let site = args.site.parse()?;
    warn_of_wpa3(&board, &site);
    let bars = Bars::new();
    let job = Job {
        board: &board,
        site: &site,
        source: &args.source,
        output: &output,
        format,
        agent: args.agent.as_deref(),
    };
    let outcome = build(&workspace, &job, &bars)?;
    say!("{}", summary(&outcome, begin.elapsed().as_secs_f64()));
    if let Some(line) = non_free(&outcome.image.non_free, &output) {
        say!("{line}");
    }
    output::print_line(output.display())?;
    Ok(())
}

fn warn_of_wpa3(board: &Board, site: &SiteOptions) {
    let is_wpa3 = |network: &Network| matches!(network.security, Security::Wpa3(_));
    if site.networks.iter().any(is_wpa3) && !board.radio.wpa3 {
        say!(
            "warning: no radio of the board `{}` is known to join WPA3 networks, and many fail; with --security mixed it joins by WPA2 where the network has that",
            board.id
        );
    }
}

/// Plans the image from the lock; fetches and builds nothing.
pub fn prepare(workspace: &Workspace, board: &Board, site: &SiteOptions) -> Result<Prepared> {
    let overlays = overlays(workspace)?;
    let lock = lock::load(workspace, board)?;
    let request = overlays.recipe.request(board, &features_of(board, site));
    let resolution = lock.resolve(&request).map_err(|error| {
        Failure::new(
            format!("the lock for {} has not all packages: {error}", board.arch),
            "`cargo xtask lock` makes it anew",
        )
    })?;
    let plan = plan(&PlanInputs {
        board,
        site,
        resolution: &resolution,
        overlays: &overlays,
    })?;
    Ok(Prepared {
        lock,
        resolution,
        plan,
    })
}

/// What to build, and from what.
pub struct Job<'a> {
    /// The board.
    pub board: &'a Board,
    /// The site.
    pub site: &'a SiteOptions,
    /// Where packages come from.
    pub source: &'a Source,
    /// Where the image goes.
    pub output: &'a Path,
    /// What its file is.
    pub format: ImageFormat,
    /// The agent's program; it is built where it is not given.
    pub agent: Option<&'a Path>,
}

/// An image, and what it came of.
pub struct Outcome {
    /// What was known before.
    pub prepared: Prepared,
    /// The agent's program.
    pub agent: Arc<[u8]>,
    /// The image.
    pub image: Built,
}

/// Plans and builds the image.
pub fn build(workspace: &Workspace, job: &Job, bars: &Bars) -> Result<Outcome> {
    let draft = begin(job)?;
    let _unfinished: Vec<_> = draft
        .paths()
        .enumerate()
        .map(|(number, path)| match number {
            0 => interrupt::Unfinished::file(path, job.output),
            _ => interrupt::Unfinished::scratch(path),
        })
        .collect();
    let prepared = prepare(workspace, job.board, job.site)?;
    if !prepared.lock.has_security() {
        say!(
            "warning: the packages of {} were chosen without security updates; `cargo xtask lock` takes them in where the mirror has them",
            job.board.arch
        );
    }
    let agent = match job.agent {
        Some(path) => path.to_owned(),
        None => agent::build(workspace, job.board, job.source, bars)?,
    };
    let origin = origin::of(workspace, job, agent::load_bill(&agent)?)?;
    let agent = fs::read(&agent).with_context(|| format!("while reading {}", agent.display()))?;
    let agent: Arc<[u8]> = agent.into();
    let inputs = inputs(&prepared, &agent)?;
    let system = system(workspace, job.source, &prepared, &inputs, bars)?;
    let image = make_image(&prepared.plan, &system, &inputs, &origin, draft, bars)?;
    Ok(Outcome {
        prepared,
        agent,
        image,
    })
}

/// Returns the kernel of an image, which has modules that the image has not.
pub fn kernel(
    workspace: &Workspace,
    source: &Source,
    outcome: &Outcome,
    bars: &Bars,
) -> Result<Kernel> {
    let prepared = &outcome.prepared;
    let debs = fetch(workspace, source, prepared, bars)?;
    let inputs = inputs(prepared, &outcome.agent)?;
    Ok(load_kernel(
        &prepared.plan,
        &inputs,
        &debs,
        &kept(workspace),
    )?)
}

fn inputs<'a>(prepared: &'a Prepared, agent: &Arc<[u8]>) -> Result<ImageInputs<'a>> {
    Ok(ImageInputs {
        resolution: &prepared.resolution,
        agent: agent.clone(),
        time: prepared.lock.time()?,
    })
}

/// Takes what does not depend on the site from the cache, or makes it and keeps it there.
fn system(
    workspace: &Workspace,
    source: &Source,
    prepared: &Prepared,
    inputs: &ImageInputs,
    bars: &Bars,
) -> Result<System> {
    let cache = SystemCache::new(&workspace.cache.join("systems"), CACHE_SIZE_MAX);
    let key = SystemKey::of(&prepared.plan, inputs);
    if let Some(system) = cache.load(key) {
        return Ok(system);
    }
    let debs = fetch(workspace, source, prepared, bars)?;
    let system = make_system(&prepared.plan, inputs, &debs, &kept(workspace), bars)?;
    cache.keep(key, &system);
    Ok(system)
}

fn kept(workspace: &Workspace) -> KeptCache {
    KeptCache::new(&workspace.cache.join("results"), KEPT_SIZE_MAX)
}

/// Fetches the packages; returns the path of each by its name.
fn fetch(workspace: &Workspace, source: &Source, prepared: &Prepared, bars: &Bars) -> Result<Debs> {
    let chosen = &prepared.resolution.packages;
    let packages: Vec<_> = chosen.values().collect();
    let fetcher = source.fetcher_for(workspace, &prepared.lock, bars)?;
    let paths = fetcher.fetch_debs(&packages)?;
    Ok(chosen.keys().cloned().zip(paths).collect())
}

/// Fetches the packages of a board's image and returns their paths.
pub fn fetch_packages(
    workspace: &Workspace,
    board: &Board,
    source: &Source,
    site: &SiteOptions,
    bars: &Bars,
) -> Result<Vec<PathBuf>> {
    let prepared = prepare(workspace, board, site)?;
    Ok(fetch(workspace, source, &prepared, bars)?
        .into_values()
        .collect())
}

/// Loads the repository's own files.
pub fn overlays(workspace: &Workspace) -> Result<Overlays> {
    let folder = workspace.overlays();
    load_overlays(&folder).with_context(|| format!("while reading {}", folder.display()))
}

/// Makes sure that there can be an image of that name before minutes go into it.
fn begin(job: &Job) -> Result<Draft> {
    let parent = job
        .output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        fs::create_dir_all(parent).map_err(|error| {
            Failure::new(
                format!("cannot create {}: {error}", parent.display()),
                "check the path, or write elsewhere with --output FILE",
            )
        })?;
        say!("made the folder {}", parent.display());
    }
    Ok(Draft::create(job.output, job.format)?)
}

/// A name that speaks of another format than the one asked for would mislead whoever gets the file.
fn format_of(output: &Path, asked: Option<ImageFormat>) -> Result<ImageFormat> {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    match (asked, ImageFormat::of_name(&name)) {
        (Some(asked), Some(named)) if asked != named => Err(UsageError::new(
            format!(
                "{} would be named like {named} and be {asked}",
                output.display()
            ),
            format!("leave out --format, or name the file .{asked}"),
        )
        .into()),
        (asked, named) => Ok(asked.or(named).unwrap_or_default()),
    }
}

/// What exists and is no file was named by mistake, and so was what is named like something else.
fn check_output(output: &Path) -> Result<()> {
    const OTHERS: [&str; 7] = ["zip", "gz", "bz2", "7z", "rar", "tar", "iso"];
    let advice = "name a file to be made: --output FILE.img, .img.zst or .img.xz";
    if output.as_os_str().as_bytes().ends_with(b"/") {
        return Err(UsageError::new(format!("{} is a folder", output.display()), advice).into());
    }
    let extension = output.extension().unwrap_or_default();
    if OTHERS
        .iter()
        .any(|other| extension.eq_ignore_ascii_case(other))
    {
        return Err(UsageError::new(
            format!("{} is not named like an image", output.display()),
            advice,
        )
        .into());
    }
    match fs::metadata(output) {
        Ok(metadata) if !metadata.is_file() => Err(UsageError::new(
            format!("{} is not a file", output.display()),
            "name a file to be made: --output FILE; an imager puts it on a card",
        )
        .into()),
        _ => Ok(()),
    }
}

/// Names what is not free software, and where its licences are.
fn non_free(packages: &[NonFree], output: &Path) -> Option<String> {
    let names: Vec<String> = packages
        .iter()
        .map(|package| format!("{} {}", package.name, package.version))
        .collect();
    let licences = format!("{}{LICENCES}", output.display());
    (!names.is_empty()).then(|| {
        format!(
            "not free software in it: {}; licences in {licences}",
            names.join(", ")
        )
    })
}

fn summary(outcome: &Outcome, seconds: f64) -> String {
    let built = &outcome.image;
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    format!(
        "image {}, of which root {}, initramfs {}, boot files {}; agent {}; {seconds:.1} s",
        mib(built.image_size),
        mib(built.root_size),
        mib(built.initramfs_size),
        mib(built.boot_size),
        mib(outcome.agent.len() as u64),
    )
}
