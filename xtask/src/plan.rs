//! `cargo xtask plan`: what `image` would do, as text; the same code path up to the point where something is built.

use anyhow::Result;

use crate::site_args::SiteArgs;
use crate::workspace::Workspace;
use crate::{boards, image, output};

/// The image to plan.
#[derive(clap::Args)]
pub struct Args {
    /// Board to plan for
    #[arg(long)]
    board: String,
    #[command(flatten)]
    site: SiteArgs,
}

/// Prints the plan.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let board = boards::load(&workspace, &args.board)?;
    let site = args.site.parse()?;
    let prepared = image::prepare(&workspace, &board, &site)?;
    output::print(prepared.plan)?;
    Ok(())
}
