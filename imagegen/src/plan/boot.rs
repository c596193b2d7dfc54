//! The boot partition: what the firmware reads there, the command line, and the site's files beside them.

use std::collections::BTreeMap;

use tera::Context;
use thiserror::Error;

use crate::board::{Arch, Board};
use crate::overlays::Overlays;
use crate::plan::disk::DiskSignature;
use crate::plan::overlay::{OverlayPlanError, PlannedNode, render_files};
use crate::plan::site::plan_site;
use crate::site::SiteOptions;

/// Name of the initramfs on the boot partition.
pub const INITRAMFS_FILE: &str = "initramfs.zst";

/// Name of the file with the kernel's command line.
pub const COMMAND_LINE_FILE: &str = "cmdline.txt";

/// 32-bit Arm cuts a longer command line.
pub const COMMAND_LINE_MAX: usize = 1023;

/// What is on the boot partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPlan {
    /// Files of the boot firmware's package.
    pub firmware: Vec<String>,
    /// Name of the kernel.
    pub kernel_file: String,
    /// Device trees, below the kernel package's directory of them; all in one directory here.
    pub device_trees: Vec<String>,
    /// Text files of the boot itself: config.txt and cmdline.txt.
    pub texts: BTreeMap<String, PlannedNode>,
    /// The files of `site/`, by name. They hold the network's key.
    pub site: BTreeMap<String, PlannedNode>,
}

/// Why the boot partition cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BootPlanError {
    /// A file cannot be rendered.
    #[error(transparent)]
    Overlay(#[from] OverlayPlanError),
    /// Two lines, or too long a one.
    #[error(
        "the kernel command line has to be one line of at most {COMMAND_LINE_MAX} bytes, and this has {lines} of {bytes} bytes together"
    )]
    CommandLine {
        /// How many lines there are.
        lines: usize,
        /// And bytes.
        bytes: usize,
    },
}

/// Plans the boot partition.
pub fn plan_boot(
    board: &Board,
    site: &SiteOptions,
    overlays: &Overlays,
    signature: DiskSignature,
) -> Result<BootPlan, BootPlanError> {
    let mut context = Context::new();
    context.insert("board_name", &board.name);
    context.insert("kernel", &board.kernel.boot_file);
    context.insert("initramfs", INITRAMFS_FILE);
    context.insert("arm_64bit", &u8::from(board.arch == Arch::Arm64));
    context.insert("console", &board.console);
    context.insert("boot_partition", &signature.boot_partuuid());
    context.insert("root_partition", &signature.root_partuuid());
    context.insert("country", &site.country.as_ref().map(ToString::to_string));
    let texts = render_files("boot", &overlays.boot, &context)?;
    let command_line = texts
        .get(COMMAND_LINE_FILE)
        .and_then(|file| file.node.bytes());
    let command_line = command_line
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .unwrap_or_default();
    if command_line.lines().count() != 1 || command_line.len() > COMMAND_LINE_MAX {
        return Err(BootPlanError::CommandLine {
            lines: command_line.lines().count(),
            bytes: command_line.len(),
        });
    }
    Ok(BootPlan {
        firmware: board
            .firmware
            .as_ref()
            .map(|firmware| firmware.files.clone())
            .unwrap_or_default(),
        kernel_file: board.kernel.boot_file.clone(),
        device_trees: board.kernel.device_trees.clone(),
        texts,
        site: plan_site(board, overlays, site)?,
    })
}
