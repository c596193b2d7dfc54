//! Boots an image in QEMU the way the board's firmware would: what `config.txt` on its FAT partition names is what runs.
//!
//! The image itself is the SD card, as a copy, so that a boot never changes the file that will be flashed. QEMU wants cards
//! whose size is a power of two.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use imagegen::board::{Board, Bus, Emulator};
use imagegen::device_tree::edit_device_tree;
use imagegen::inspect::config_txt::{self, choose_boot, choose_partition};
use imagegen::inspect::image::{BootPartition, read_boot_partition};
use imagegen::inspect::model::model_of_device_tree;
use imagegen::inspect::packed::open_image_file;
use imagegen::plan::disk::BOOT_PARTITION;

use crate::{
    boards, interrupt, tools,
    usage::{Failure, UsageError},
    workspace::Workspace,
};

/// The card of a boot, in its scratch folder.
pub const CARD: &str = "card.img";

/// Which image to boot, and as which board.
#[derive(clap::Args)]
pub struct Args {
    /// Image to boot
    image: PathBuf,
    /// Board the image was built for
    #[arg(long, default_value = "pi3")]
    board: String,
    /// Words to add to the kernel's command line
    #[arg(long, value_name = "WORDS")]
    append: Option<String>,
}

/// One boot.
pub struct Boot<'a> {
    /// The image.
    pub image: &'a Path,
    /// The board it was built for.
    pub board: &'a Board,
    /// A cpio archive to put behind the image's initramfs.
    pub second_initramfs: &'a [u8],
    /// Words to add to the kernel's command line.
    pub append: &'a str,
    /// Whether the emulated board has a wired port.
    pub wired_port: bool,
}

/// What firmware loads into memory.
pub struct Load {
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its first root: one archive or several.
    pub initramfs: Vec<u8>,
    /// The board's description, unless the machine makes its own.
    pub device_tree: Option<Vec<u8>>,
    /// What the kernel is told.
    pub command_line: String,
}

/// A machine of the emulator, and what is plugged into it.
pub struct Machine<'a> {
    /// Which one.
    pub emulator: &'a Emulator,
    /// The file that is its disk.
    pub disk: &'a Path,
    /// Whether it has a wired port.
    pub wired_port: bool,
}

/// Boots the image with its console on the terminal.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let board = boards::load(&workspace, &args.board)?;
    let scratch = tempfile::tempdir()?;
    let _unfinished = interrupt::Unfinished::scratch(scratch.path());
    let boot = Boot {
        image: &args.image,
        board: &board,
        second_initramfs: &[],
        append: args.append.as_deref().unwrap_or_default(),
        wired_port: true,
    };
    let mut command = boot.prepare(scratch.path())?;
    say!("The console is this terminal; Ctrl-A X ends the emulator.");
    let status = command
        .args(["-serial", "mon:stdio"])
        .status()
        .context("while starting QEMU")?;
    if status.success() {
        Ok(())
    } else {
        bail!("QEMU ended with {status}")
    }
}

impl<'a> Boot<'a> {
    /// One of a rig's guests, whose wired port leads to another part of the same guest.
    pub fn among_networks(image: &'a Path, board: &'a Board, archive: &'a [u8]) -> Self {
        Boot {
            image,
            board,
            second_initramfs: archive,
            append: "",
            wired_port: false,
        }
    }

    /// Lays out what the firmware would load in `scratch` and returns the command that boots it.
    ///
    /// The console is the next `-serial` the caller adds.
    pub fn prepare(&self, scratch: &Path) -> Result<Command> {
        let mut load = self.load()?;
        load.add_initramfs(self.second_initramfs);
        // QEMU's watchdog resets the machine as soon as it is armed.
        load.command_line = format!(
            "{} systemd.watchdog_sec=0 {}",
            load.command_line.trim(),
            self.append
        );
        let machine = Machine {
            emulator: self.emulator()?,
            disk: &self.card(scratch)?,
            wired_port: self.wired_port,
        };
        machine.prepare(&load, scratch)
    }

    /// Returns what the board's firmware would load of the image.
    fn load(&self) -> Result<Load> {
        let emulator = self.emulator()?;
        let image = self.partition()?;
        let read = |path: &str| {
            image
                .bytes(path)
                .map(<[u8]>::to_vec)
                .with_context(|| format!("the image has no {path} on its boot partition"))
        };
        let model = emulator
            .device_tree
            .as_deref()
            .and_then(model_of_device_tree);
        let machine = config_txt::Machine::of(model);
        let autoboot = image.text("autoboot.txt").unwrap_or_default();
        let partition = choose_partition(&autoboot, &machine);
        if partition != u32::from(BOOT_PARTITION) {
            bail!(
                "autoboot.txt sends the board to partition {partition}; its files are on {BOOT_PARTITION}"
            );
        }
        let choice = choose_boot(&|path| image.text(path), &machine);
        let mut initramfs = Vec::new();
        for path in &choice.initramfs {
            initramfs.extend(read(path)?);
        }
        Ok(Load {
            kernel: read(&choice.kernel)?,
            initramfs,
            device_tree: choice
                .device_trees
                .first()
                .map(|path| edit(read(path)?, emulator))
                .transpose()?,
            command_line: String::from_utf8_lossy(&read(&choice.cmdline)?).into_owned(),
        })
    }

    fn emulator(&self) -> Result<&Emulator> {
        self.board
            .emulator
            .as_ref()
            .ok_or_else(|| {
                Failure::new(
                    format!("QEMU has no machine that stands in for `{}`", self.board.id),
                    format!(
                        "`cargo xtask e2e --board {} --on virt` boots its kernel and root on QEMU's own machine",
                        self.board.id
                    ),
                )
                .into()
            })
    }

    fn partition(&self) -> Result<BootPartition> {
        let hint = "`cargo xtask image` makes an image and prints its path";
        let file = open_image_file(self.image).map_err(|error| {
            UsageError::new(
                format!("cannot read {}: {error}", self.image.display()),
                hint,
            )
        })?;
        read_boot_partition(file).map_err(|why| {
            UsageError::new(format!("{} is no image: {why}", self.image.display()), hint).into()
        })
    }

    fn card(&self, scratch: &Path) -> Result<PathBuf> {
        let card = scratch.join(CARD);
        let mut image = open_image_file(self.image).context("while reading the image")?;
        let mut file = File::create(&card).context("while making the card")?;
        let size = io::copy(&mut image, &mut file).context("while copying the image")?;
        file.set_len(size.next_power_of_two())?;
        Ok(card)
    }
}

impl Load {
    /// Puts an archive behind the initramfs.
    fn add_initramfs(&mut self, archive: &[u8]) {
        // The kernel looks for a further archive at the next multiple of four.
        let end = self.initramfs.len().next_multiple_of(4);
        self.initramfs.resize(end, 0);
        self.initramfs.extend_from_slice(archive);
    }
}

impl Machine<'_> {
    /// Lays the load out in `scratch` and returns the command that boots it.
    ///
    /// The console is the next `-serial` the caller adds.
    pub fn prepare(&self, load: &Load, scratch: &Path) -> Result<Command> {
        let place = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
            let path = scratch.join(name);
            fs::write(&path, bytes).with_context(|| format!("while writing {}", path.display()))?;
            Ok(path)
        };
        let mut command = Command::new(qemu()?);
        command
            .args([
                "-M",
                &self.emulator.machine,
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(&self.emulator.arguments)
            .args([
                "-kernel".as_ref(),
                place("kernel", &load.kernel)?.as_os_str(),
            ])
            .args([
                "-initrd".as_ref(),
                place("initramfs", &load.initramfs)?.as_os_str(),
            ])
            .args(["-append", &load.command_line]);
        if let Some(bytes) = &load.device_tree {
            command.args(["-dtb".as_ref(), place("board.dtb", bytes)?.as_os_str()]);
        }
        self.attach(&mut command);
        for _ in 0..self.emulator.serial {
            command.args(["-serial", "null"]);
        }
        Ok(command)
    }

    /// Adds disk and wired port, as the machine can have them.
    fn attach(&self, command: &mut Command) {
        let bus = self.emulator.bus;
        let (interface, port) = match bus {
            Bus::Board => ("sd", "usb-net"),
            Bus::Virtio => ("none,id=card", "virtio-net-device"),
        };
        let drive = format!("file={},format=raw,if={interface}", self.disk.display());
        command.args(["-drive", &drive]);
        if bus == Bus::Virtio {
            command.args(["-device", "virtio-blk-device,drive=card"]);
        }
        if self.wired_port {
            // A globally administered address makes the kernel call it eth0; the emulated network leads nowhere.
            command.args(["-netdev", "user,id=wired,restrict=on"]);
            let port = format!("{port},netdev=wired,mac=40:54:00:12:34:56");
            command.args(["-device", &port]);
        }
    }
}

/// Adds the guest's console, on the emulator's standard streams.
pub fn with_console(mut command: Command) -> Command {
    command.args(["-monitor", "none", "-serial", "stdio"]);
    command
}

/// Spares the machine what it cannot bear.
fn edit(device_tree: Vec<u8>, emulator: &Emulator) -> Result<Vec<u8>> {
    emulator
        .device_tree_edits
        .iter()
        .try_fold(device_tree, |tree, edit| Ok(edit_device_tree(&tree, edit)?))
}

fn qemu() -> Result<PathBuf> {
    tools::find("qemu-system-aarch64").ok_or_else(|| {
        Failure::new(
            "qemu-system-aarch64 is not installed",
            "on Debian: apt-get install qemu-system-arm",
        )
        .into()
    })
}
