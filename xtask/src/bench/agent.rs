//! `cargo xtask bench agent`: the agent and the recipe it replaces, measured side by side.
//!
//! Builds the agent for this machine as for a board, gets the recipe's programs, and calls the agent's bench, which knows the
//! protocols. The recipe's packages are unpacked beside the build, not installed: installed, they would start serving this
//! machine's network.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::usage::Failure;
use crate::workspace::Workspace;
use crate::{agent, tools};

/// How to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer and shorter measurements: three minutes at most, not twelve
    #[arg(long)]
    quick: bool,
    /// Measurements of each case [default: 5, or 2 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Only this case; may be given several times
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Where all samples go [default: bench/agent.json in the build folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The Debian packages of the recipe, named like their programs.
const RECIPE: [&str; 2] = ["parprouted", "dhcp-helper"];

/// Runs the bench; the table is on stdout.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let shell = Shell::new()?;
    shell.change_dir(&workspace.root);
    tools::provide(&shell)?;
    let folder = workspace.target.join("bench");
    shell.create_dir(&folder)?;
    let recipe = recipe(&shell, &folder.join("recipe"))?;
    let agent = agent::build_for_this_machine(&workspace)?;
    let json = match &args.json {
        Some(path) => std::path::absolute(path)?,
        None => folder.join("agent.json"),
    };
    let mut options = vec!["--json".into(), json.clone().into_os_string()];
    options.extend(args.quick.then(|| "--quick".into()));
    for (option, value) in args
        .runs
        .map(|runs| ("--runs", runs.to_string()))
        .into_iter()
        .chain(args.cases.iter().map(|case| ("--case", case.clone())))
    {
        options.extend([option.into(), value.into()]);
    }
    // The measuring program itself needs no optimisation: it waits for the kernel.
    cmd!(
        shell,
        "cargo bench --quiet --locked --profile dev --package footbridge-agent --bench side_by_side -- --agent {agent} --recipe {recipe} {options...}"
    )
    .quiet()
    .run()
    .context("while measuring")?;
    say!("All samples are in {}", json.display());
    Ok(())
}

/// Returns the folder with the recipe's programs: the system's own, or the ones of its packages, unpacked.
fn recipe(shell: &Shell, folder: &Path) -> Result<PathBuf> {
    let system = Path::new("/usr/sbin");
    let programs = folder.join("usr/sbin");
    for place in [system, &programs] {
        if RECIPE.iter().all(|program| place.join(program).is_file()) {
            return Ok(place.to_path_buf());
        }
    }
    unpack(shell, folder).map_err(|error| {
        Failure::new(
            format!("cannot get the programs to compare with: {error:#}"),
            format!(
                "put {} of your distribution into {}",
                RECIPE.join(" and "),
                programs.display()
            ),
        )
    })?;
    Ok(programs)
}

fn unpack(shell: &Shell, folder: &Path) -> Result<()> {
    say!("Unpacking Debian packages: {}", RECIPE.join(" "));
    shell.create_dir(folder)?;
    let _inside = shell.push_dir(folder);
    let packages = RECIPE;
    cmd!(shell, "apt-get download -q {packages...}")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()?;
    for file in shell.read_dir(folder)? {
        if file.extension().is_some_and(|extension| extension == "deb") {
            cmd!(shell, "dpkg-deb --extract {file} {folder}")
                .quiet()
                .run()?;
        }
    }
    Ok(())
}
