//! The system that an image is compared with: mmdebstrap's, set up by the packages' own scripts, with Debian's initramfs, a root that is
//! written to, and the services as they come. What the bridge needs of settings and the agent are the image's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use imagegen::board::Emulator;
use imagegen::inspect::cpio::read_initramfs;
use imagegen::make::rootfs::AGENT_PATH;
use imagegen::mirror::{Archive, without_password};
use imagegen::plan::{Place, Plan};
use imagegen::sha256::Sha256;
use imagegen::tree::{Node, Tree};

use crate::bench::folder::write_tree;
use crate::image::{self, Job, Outcome};
use crate::interrupt;
use crate::progress::Bars;
use crate::qemu::{CARD, Load, Machine, with_console};
use crate::rig;
use crate::source::Security;
use crate::usage::Failure;
use crate::workspace::Workspace;

/// Debian's way to make an initramfs and its default compressor, and what makes an account for the agent.
const DEBIAN_ALSO: [&str; 3] = ["initramfs-tools", "passwd", "zstd"];
/// The parts of the image's root that the bridge is made of, beside the agent. Whatever makes a start fast stays behind.
const BRIDGE: [&str; 5] = [
    "etc/systemd/network/",
    "etc/systemd/networkd.conf.d/",
    "etc/systemd/system/footbridge.service",
    "etc/systemd/system/multi-user.target.wants/footbridge.service",
    "etc/systemd/system/wpa_supplicant@.service.d/",
];
/// What runs the packages' scripts.
const INTERPRETER: &str = "qemu-aarch64";
/// As Debian's installer writes it.
const FSTAB: &str = "/dev/vda / ext4 errors=remount-ro 0 1\n";
/// What is done in the root: the agent's account, the services it works with, and what a first start leaves, for the starts that are measured
/// are later ones.
const FINISHING: [&[&str]; 4] = [
    &["useradd", "--system", "--user-group", "footbridge"],
    &[
        "systemctl",
        "enable",
        "systemd-networkd.service",
        "wpa_supplicant@wlan0.service",
    ],
    &["systemd-machine-id-setup"],
    &["/usr/lib/systemd/systemd-update-done"],
];

/// What the names of systems' archives begin with.
const ARCHIVE: &str = "debian-";
/// Room for a Debian system; the file is as large as what is in it.
const DISK_SIZE: u64 = 2 << 30;

/// What a system is made of.
pub struct Parts<'a> {
    /// Where the archives of systems are kept.
    pub workspace: &'a Workspace,
    /// What the image was built for.
    pub job: &'a Job<'a>,
    /// What it came of.
    pub outcome: &'a Outcome,
    /// The networks, as an archive.
    pub kit: &'a [u8],
}

/// A Debian system, ready to boot.
pub struct Debian<'a> {
    emulator: &'a Emulator,
    load: Load,
    disk: PathBuf,
}

impl Parts<'_> {
    /// Sets the system up in a folder.
    pub fn set_up<'a>(
        &self,
        emulator: &'a Emulator,
        folder: &Path,
        bars: &Bars,
    ) -> Result<Debian<'a>> {
        say!(
            "This machine runs programs for Arm by QEMU from now on: update-binfmts --enable {INTERPRETER}"
        );
        call(Command::new("update-binfmts").args(["--enable", INTERPRETER]))?;
        let archive = self.archive(bars)?;
        let _step = bars.step("making the Debian system a bridge");
        let root = folder.join("root");
        self.lay_out(&archive, &root, &folder.join("additions"))?;
        for words in FINISHING {
            call(Command::new("chroot").arg(&root).args(words))?;
        }
        Ok(Debian {
            emulator,
            load: self.load(&root)?,
            disk: make_disk(&root, &folder.join("disk.img"))?,
        })
    }

    /// Returns the archive of a system with the image's packages, in the versions that the mirror has, and what mmdebstrap adds. It takes
    /// minutes to make, and stays in the build folder until there is one of other packages.
    fn archive(&self, bars: &Bars) -> Result<PathBuf> {
        let Outcome { prepared, .. } = self.outcome;
        let packages = packages(&prepared.plan);
        let versions = prepared.resolution.packages.values();
        let versions: Vec<_> = versions
            .map(|package| (&package.name, &package.version))
            .collect();
        let digest = Sha256::of(format!("{packages:?} {versions:?}").as_bytes()).to_string();
        let folder = self.workspace.target.join("bench");
        let archive = folder.join(format!("{ARCHIVE}{}.tar", &digest[..16]));
        if archive.exists() {
            say!("the Debian system is {}", archive.display());
            return Ok(archive);
        }
        let job = self.job;
        if job.source.offline {
            return Err(Failure::new(
                "there is no Debian system for these packages yet",
                "leave out --offline once: mmdebstrap fetches what it needs",
            )
            .into());
        }
        let _step = bars
            .step("setting up a Debian system; its packages' scripts take a quarter of an hour");
        fs::create_dir_all(&folder)
            .with_context(|| format!("while creating {}", folder.display()))?;
        // One at a time, so that the next one finds what this one made, or what killed it left.
        let guard = folder.join("debian.lock");
        let guard = File::create(&guard)
            .and_then(|file| file.lock().map(|()| file))
            .with_context(|| format!("while locking {}", guard.display()))?;
        if archive.exists() {
            return Ok(archive);
        }
        let unfinished = folder.join("unfinished.tar");
        let _unfinished = interrupt::Unfinished::scratch(&unfinished);
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--quiet", "--mode=root", "--variant=minbase"])
            .arg(format!("--architectures={}", job.board.arch.debian_name()))
            .arg(format!("--include={}", packages.join(",")))
            .arg("trixie")
            .arg(&unfinished);
        let mirror = job.source.mirror()?;
        for suite in Security::of(Some(&prepared.lock)).suites() {
            let base = mirror.base(Archive::of_suite(suite));
            if without_password(base) != base {
                return Err(Failure::new(
                    "mmdebstrap would show the mirror's password to everybody on this machine",
                    "name a mirror without one: --mirror URL",
                )
                .into());
            }
            command.arg(format!("deb {base} {suite} main"));
        }
        call(&mut command)
            .inspect_err(|_| drop(fs::remove_file(&unfinished)))
            .context(
                "while setting up a Debian system; if the mirror no longer has the image's kernel, `cargo xtask lock` first",
            )?;
        fs::rename(&unfinished, &archive)
            .with_context(|| format!("while writing {}", archive.display()))?;
        remove_others(&folder, &archive)
            .with_context(|| format!("while making room in {}", folder.display()))?;
        drop(guard);
        Ok(archive)
    }

    /// Unpacks the system and lays the networks and the bridge over it.
    fn lay_out(&self, archive: &Path, root: &Path, additions: &Path) -> Result<()> {
        fs::create_dir_all(root).with_context(|| format!("while creating {}", root.display()))?;
        // The kernel makes the devices.
        call(
            Command::new("tar")
                .args(["--extract", "--numeric-owner", "--exclude=./dev/*"])
                .arg(format!("--file={}", archive.display()))
                .arg(format!("--directory={}", root.display())),
        )?;
        let kit = read_initramfs(self.kit).context("while reading the kit")?;
        write_tree(&kit.tree, additions)?;
        let overlay = additions.join(rig::OVERLAY);
        write_tree(&self.bridge()?, &overlay)?;
        // Some of it takes the place of links, which may lead out of this root.
        call(
            Command::new("cp")
                .args(["--archive", "--remove-destination"])
                .args([&overlay.join("."), root]),
        )
    }

    /// Returns what makes a Debian system a bridge: the agent, its unit and its settings, and those of the services it works with.
    fn bridge(&self) -> Result<Tree> {
        let plan = &self.outcome.prepared.plan;
        let mut tree = parts_of_the_bridge(plan)?;
        for file in image::overlays(self.workspace)?.rules.site {
            if let Some(planned) = plan.boot.site.get(&file.name)
                && let Some(bytes) = planned.node.bytes()
            {
                tree.replace(file.destination, Node::file(file.mode, bytes.clone()))?;
            }
        }
        tree.insert(AGENT_PATH, Node::file(0o755, self.outcome.agent.clone()))?;
        tree.insert("etc/fstab", Node::file(0o644, FSTAB.as_bytes()))?;
        Ok(tree)
    }

    /// Returns what a boot loader would load of the root.
    fn load(&self, root: &Path) -> Result<Load> {
        let release = &self.outcome.prepared.plan.kernel_release;
        let read = |name: &str| {
            let path = root.join(format!("boot/{name}-{release}"));
            fs::read(&path).with_context(|| format!("while reading {}", path.display()))
        };
        let Job { board, site, .. } = self.job;
        let country = site.country.as_ref().map_or_else(String::new, |country| {
            format!(" cfg80211.ieee80211_regdom={country}")
        });
        let console = &board.console;
        Ok(Load {
            kernel: read("vmlinuz")?,
            initramfs: read("initrd.img")?,
            device_tree: None,
            command_line: format!(
                "root=/dev/vda ro quiet console={console} net.ifnames=0{country}"
            ),
        })
    }
}

impl Debian<'_> {
    /// Returns what boots the system, from a copy of its disk.
    pub fn command(&self, scratch: &Path) -> Result<Command> {
        let disk = scratch.join(CARD);
        call(
            Command::new("cp")
                .arg("--sparse=always")
                .args([&self.disk, &disk]),
        )?;
        let machine = Machine {
            emulator: self.emulator,
            disk: &disk,
            wired_port: false,
        };
        Ok(with_console(machine.prepare(&self.load, scratch)?))
    }
}

/// Removes the archives of other systems, each of which takes half a gigabyte.
fn remove_others(folder: &Path, archive: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_archive = entry.file_name().to_string_lossy().starts_with(ARCHIVE);
        if is_archive && entry.file_type()?.is_file() && entry.path() != archive {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn make_disk(root: &Path, disk: &Path) -> Result<PathBuf> {
    File::create(disk)
        .and_then(|file| file.set_len(DISK_SIZE))
        .with_context(|| format!("while making {}", disk.display()))?;
    call(
        Command::new("mkfs.ext4")
            .args(["-q", "-d"])
            .args([root, disk]),
    )?;
    Ok(disk.to_owned())
}

/// Returns the packages that the image has files of in its root, and the very kernel, whose modules the kit has.
fn packages(plan: &Plan) -> Vec<String> {
    let root = plan
        .packages
        .iter()
        .filter(|(_, package)| package.place == Place::Root)
        .map(|(name, _)| name.clone());
    root.chain([format!("linux-image-{}", plan.kernel_release)])
        .chain(DEBIAN_ALSO.map(str::to_owned))
        .collect()
}

fn parts_of_the_bridge(plan: &Plan) -> Result<Tree> {
    let mut tree = Tree::new();
    for part in BRIDGE {
        let is_of_it = |path: &str| path == part || part.ends_with('/') && path.starts_with(part);
        let nodes = plan.root.nodes.iter();
        let mut nodes = nodes
            .filter(|(path, planned)| is_of_it(path) && !planned.node.is_directory())
            .peekable();
        if nodes.peek().is_none() {
            bail!("the image has no /{part}, which the Debian system would need");
        }
        for (path, planned) in nodes {
            tree.insert(path.clone(), planned.node.clone())?;
        }
    }
    Ok(tree)
}

/// Runs a program to its end; what it says is for when it fails.
fn call(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("while starting {name}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(10)..];
        bail!("{name} ended with {}\n{}", output.status, last.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use imagegen::credentials::{Security, Ssid};
    use imagegen::site::{Network, SiteOptions};

    use super::*;
    use crate::boards;

    #[test]
    fn one_archive_stays_and_what_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["debian-0123.tar", "debian-4567.tar", "boot.json"] {
            fs::write(path(name), name).unwrap();
        }
        fs::create_dir(path("debian-folder")).unwrap();
        remove_others(folder.path(), &path("debian-4567.tar")).unwrap();
        for (name, stays) in [
            ("debian-0123.tar", false),
            ("debian-4567.tar", true),
            ("boot.json", true),
            ("debian-folder", true),
        ] {
            assert_eq!(path(name).exists(), stays, "{name}");
        }
    }

    #[test]
    fn an_image_has_what_a_debian_system_needs_of_it() {
        let workspace = Workspace::locate().unwrap();
        let board = boards::load(&workspace, "virt").unwrap();
        let network = Network::new(Ssid::new("home").unwrap(), Security::Open);
        let site = SiteOptions::joining(network);
        let prepared = image::prepare(&workspace, &board, &site).unwrap();
        let bridge = parts_of_the_bridge(&prepared.plan).unwrap();
        assert!(bridge.contains("etc/systemd/system/footbridge.service"));
        let packages = packages(&prepared.plan);
        let kernel = format!("linux-image-{}", prepared.plan.kernel_release);
        for wanted in ["systemd", "udev", "wpasupplicant", &kernel] {
            assert!(packages.iter().any(|name| name == wanted), "{wanted}");
        }
    }
}
