//! `cargo xtask bench`: our products and what they replace, measured side by side. Each file is a bench.

pub mod agent;
pub mod boot;
pub mod flash;
mod folder;
pub mod image;
mod results;

use anyhow::Result;

/// What to measure.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Measure parprouted with dhcp-helper, and the agent, in the same namespaces
    Agent(agent::Args),
    /// Measure mmdebstrap with mksquashfs, mtools and sfdisk, and the image builder, on the same packages
    Image(image::Args),
    /// Boot an image, and the same packages as Debian sets them up, until they bridge
    Boot(boot::Args),
    /// Write images with dd, with bmaptool and with `flash` to the same disk
    Flash(flash::Args),
}

/// Runs the bench; the table is on stdout.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Agent(args) => agent::run(args),
        Bench::Image(args) => image::run(args),
        Bench::Boot(args) => boot::run(args),
        Bench::Flash(args) => flash::run(args),
    }
}
