//! `cargo xtask bench image`: the image builder and what people make images with by hand, measured side by side.
//!
//! The recipe is the script `xtask/recipe/image`. It gets the same packages, in the same versions, from a repository on this disk, and its
//! image is compared with Footbridge's, file by file, before anything is measured. Footbridge is measured as the program `cargo xtask`
//! runs, from its start to its end.

mod contenders;
mod ingredients;
mod watched;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use imagegen::make::disk::ImageFormat;
use xshell::Shell;

use self::contenders::Contenders;
use super::results::{Contender, Goal, Measure, Results, Unit};
use crate::source::Source;
use crate::workspace::Workspace;
use crate::{boards, interrupt, output, tools};

/// How to measure.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    board: boards::Choice,
    /// One measurement of each case, and no xz
    #[arg(long)]
    quick: bool,
    /// Measurements of each case [default: 3, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Only this case; may be given several times [default: all but cold]
    #[arg(long = "case", value_name = "NAME", value_enum)]
    cases: Vec<Case>,
    /// Where all samples go [default: bench/image.json in the build folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    /// A build of the whole image, with the packages fetched and nothing else kept, and one after a build of another image
    Build,
    /// A build after another one that differs in the network's name alone
    Rebuild,
    /// The memory of the whole build
    Memory,
    /// The sizes of the image, as it is and compressed
    Size,
    /// A build with no package fetched; fetches some 130 MB each time
    Cold,
}

impl Case {
    /// What the mirror is not asked for without being told.
    const DEFAULT: [Self; 4] = [Self::Build, Self::Rebuild, Self::Memory, Self::Size];
}

const BUILD: Measure = Measure {
    name: "full build, packages fetched",
    unit: Unit::Seconds,
    goal: Goal::Ratio(0.2),
    limits: "The agent is compiled before, for both. The recipe unpacks only: neither runs maintainer scripts, and its packages come \
             without relations to look at. It writes no checksum and no block map, and does not wait for the disk, all of which Footbridge does.",
};
const AGAIN: Measure = Measure {
    name: "full build, after another one",
    unit: Unit::Seconds,
    goal: Goal::Ratio(0.2),
    limits: "The other one has a shell to log in to, so it has other packages and another root. Nothing is there of the image as a whole, but \
             most of its packages were unpacked, and most blocks of its root compressed, for that one. The recipe keeps nothing.",
};
const PROCESSOR: Measure = Measure {
    name: "processor time of it",
    unit: Unit::Seconds,
    goal: Goal::None,
    limits: "Of all processors together, which tells more than the clock when the machine has other work.",
};
const REBUILD: Measure = Measure {
    name: "rebuild, another network's name",
    unit: Unit::Seconds,
    goal: Goal::AtMost(1.0),
    limits: "With cargo's look at the agent's sources, but not at the builder's, which `cargo xtask` takes before. The recipe has nothing \
             to compare: people would edit its image.",
};
const MEMORY: Measure = Measure {
    name: "memory of the full build",
    unit: Unit::Bytes,
    goal: Goal::AtMost(600e6),
    limits: "The most that the command and its children had resident at the same time, looked at every 20 ms; what they share is counted \
             for each. mksquashfs takes what it finds.",
};
const COLD: Measure = Measure {
    name: "full build, nothing fetched",
    unit: Unit::Seconds,
    goal: Goal::None,
    limits: "The standard library for the board's target is there.",
};
const FETCHING: Measure = Measure {
    name: "of which fetching",
    unit: Unit::Seconds,
    goal: Goal::None,
    limits: "From the command's word that it fetches to its next one.",
};
const FETCHED: Measure = Measure {
    name: "bytes fetched",
    unit: Unit::Bytes,
    goal: Goal::None,
    limits: "The packages; lists are not read.",
};
const PLAIN: Measure = Measure {
    name: "size as .img",
    unit: Unit::Bytes,
    goal: Goal::None,
    limits: "The recipe's partitions are as large as Footbridge's, because it is told to make them so.",
};
const ZSTD: Measure = Measure {
    name: "size as .img.zst",
    unit: Unit::Bytes,
    goal: Goal::AtMost(32e6),
    limits: "Both with the same level.",
};
const XZ: Measure = Measure {
    name: "size as .img.xz",
    unit: Unit::Bytes,
    goal: Goal::AtMost(32e6),
    limits: "Both with the same preset.",
};

/// All measures, in the table's order.
const MEASURES: [&Measure; 11] = [
    &BUILD, &PROCESSOR, &AGAIN, &REBUILD, &MEMORY, &PLAIN, &ZSTD, &XZ, &COLD, &FETCHING, &FETCHED,
];

/// Measures, and prints the table.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let board = boards::load(&workspace, &args.board.name)?;
    let shell = Shell::new()?;
    shell.change_dir(&workspace.root);
    tools::provide_recipe(&shell)?;
    let scratch = tempfile::tempdir()?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());
    let json = match &args.json {
        Some(path) => std::path::absolute(path)?,
        None => workspace.target.join("bench/image.json"),
    };

    let contenders = Contenders::prepare(&workspace, &board, &args.source, scratch.path())?;
    let results = measure(args, &contenders)?;
    results.keep(&MEASURES, &args.board.name, &json)?;
    output::print(results.table(&MEASURES))
}

fn measure(args: &Args, contenders: &Contenders) -> Result<Results> {
    let runs = args.runs.unwrap_or(if args.quick { 1 } else { 3 });
    let cases: &[Case] = match args.cases.is_empty() {
        true => &Case::DEFAULT,
        false => &args.cases,
    };
    let mut results = Results::default();
    for case in cases {
        for run in 1..=runs {
            say!("{case:?} {run} of {runs}");
            match case {
                Case::Build => build(contenders, &mut results)?,
                Case::Rebuild => rebuild(contenders, run, &mut results)?,
                Case::Memory => memory(contenders, &mut results)?,
                Case::Cold => cold(contenders, &mut results)?,
                // Bytes do not vary.
                Case::Size if run > 1 => {}
                Case::Size => size(contenders, args.quick, &mut results)?,
            }
        }
    }
    Ok(results)
}

fn build(contenders: &Contenders, results: &mut Results) -> Result<()> {
    let recipe = contenders.recipe(watched::time)?;
    let ours = contenders.fresh()?.build(watched::time)?;
    let mut again = contenders.fresh()?;
    again.with_ssh = true;
    again.build(watched::time)?;
    again.with_ssh = false;
    let again = again.build(watched::time)?;
    results.add(&AGAIN, Contender::Recipe, recipe.took.as_secs_f64());
    results.add(&AGAIN, Contender::Footbridge, again.took.as_secs_f64());
    for (contender, finished) in [(Contender::Recipe, recipe), (Contender::Footbridge, ours)] {
        results.add(&BUILD, contender, finished.took.as_secs_f64());
        results.add(&PROCESSOR, contender, finished.worked.as_secs_f64());
    }
    Ok(())
}

fn rebuild(contenders: &Contenders, run: u32, results: &mut Results) -> Result<()> {
    let mut ours = contenders.fresh()?;
    ours.build(watched::time)?;
    ours.ssid = format!("another network {run}");
    let rebuilt = ours.build(watched::time)?;
    results.add(&REBUILD, Contender::Footbridge, rebuilt.took.as_secs_f64());
    Ok(())
}

fn memory(contenders: &Contenders, results: &mut Results) -> Result<()> {
    let recipe = contenders.recipe(watched::weigh)?;
    results.add(&MEMORY, Contender::Recipe, recipe as f64);
    let ours = contenders.fresh()?;
    results.add(
        &MEMORY,
        Contender::Footbridge,
        ours.build(watched::weigh)? as f64,
    );
    Ok(())
}

fn size(contenders: &Contenders, quick: bool, results: &mut Results) -> Result<()> {
    for (measure, format) in [
        (&PLAIN, ImageFormat::Img),
        (&ZSTD, ImageFormat::ImgZst),
        (&XZ, ImageFormat::ImgXz),
    ] {
        if quick && format == ImageFormat::ImgXz {
            continue;
        }
        let recipe = contenders.recipe_packed(format)?;
        results.add(measure, Contender::Recipe, size_of(&recipe)?);
        let mut ours = contenders.fresh()?;
        ours.format = format;
        ours.build(watched::time)?;
        results.add(measure, Contender::Footbridge, size_of(&ours.output())?);
    }
    Ok(())
}

fn cold(contenders: &Contenders, results: &mut Results) -> Result<()> {
    let ours = contenders.without_packages()?;
    let finished = ours.build(watched::time)?;
    let lines = &finished.lines;
    let fetching = lines
        .iter()
        .position(|(_, line)| line.starts_with("fetching "))
        .context("nothing was fetched")?;
    let until = lines.get(fetching + 1).map_or(finished.took, |(at, _)| *at);
    let until = until - lines[fetching].0;
    results.add(&COLD, Contender::Footbridge, finished.took.as_secs_f64());
    results.add(&FETCHING, Contender::Footbridge, until.as_secs_f64());
    results.add(
        &FETCHED,
        Contender::Footbridge,
        ours.packages_size()? as f64,
    );
    Ok(())
}

fn size_of(path: &Path) -> Result<f64> {
    let metadata =
        fs::metadata(path).with_context(|| format!("while reading {}", path.display()))?;
    Ok(metadata.len() as f64)
}
