//! Other people's programs that the tests need, the Debian packages that carry them, and how they are had.
//!
//! Building an image needs none of these. As root on a Debian system missing ones are installed, after saying so; anyone
//! else is told what to install, and the checks that need them say SKIPPED (or fail, with `REQUIRE_ALL=1`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::start_policy::{START_POLICY, StartPolicy};
use crate::usage::Failure;

/// A program, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        program: "qemu-system-aarch64",
        package: "qemu-system-arm",
    },
    Tool {
        program: "ip",
        package: "iproute2",
    },
    Tool {
        program: "unshare",
        package: "util-linux",
    },
    Tool {
        program: "setpriv",
        package: "util-linux",
    },
    Tool {
        program: "dnsmasq",
        package: "dnsmasq-base",
    },
    Tool {
        program: "busybox",
        package: "busybox-static",
    },
    Tool {
        program: "arping",
        package: "iputils-arping",
    },
    Tool {
        program: "ping",
        package: "iputils-ping",
    },
    Tool {
        program: "tcpdump",
        package: "tcpdump",
    },
    Tool {
        program: "unsquashfs",
        package: "squashfs-tools",
    },
    Tool {
        program: "fsck.fat",
        package: "dosfstools",
    },
    Tool {
        program: "losetup",
        package: "mount",
    },
    Tool {
        program: "mkfs.ext4",
        package: "e2fsprogs",
    },
    Tool {
        program: "mkfs.btrfs",
        package: "btrfs-progs",
    },
    Tool {
        program: "mdir",
        package: "mtools",
    },
    Tool {
        program: "sfdisk",
        package: "fdisk",
    },
    Tool {
        program: "depmod",
        package: "kmod",
    },
    Tool {
        program: "cpio",
        package: "cpio",
    },
    Tool {
        program: "strace",
        package: "strace",
    },
    Tool {
        program: "systemd-analyze",
        package: "systemd",
    },
    Tool {
        program: "zstd",
        package: "zstd",
    },
    Tool {
        program: "bmaptool",
        package: "bmap-tools",
    },
    Tool {
        program: "xz",
        package: "xz-utils",
    },
    Tool {
        program: "dpkg-deb",
        package: "dpkg",
    },
    Tool {
        program: "python3",
        package: "python3-venv",
    },
];

/// DHCP servers and clients, mDNS responders and the supplicant that the agent is tried with. Installing a server's package starts it, unless a
/// policy forbids that (see `start_policy`), and a machine's network is no place for a test's server.
const PEERS: &[Tool] = &[
    Tool {
        program: "avahi-daemon",
        package: "avahi-daemon",
    },
    Tool {
        program: "avahi-browse",
        package: "avahi-utils",
    },
    Tool {
        program: "dbus-daemon",
        package: "dbus-daemon",
    },
    Tool {
        program: "dhclient",
        package: "isc-dhcp-client",
    },
    Tool {
        program: "dhcpcd",
        package: "dhcpcd-base",
    },
    Tool {
        program: "dhcpd",
        package: "isc-dhcp-server",
    },
    Tool {
        program: "kea-dhcp4",
        package: "kea-dhcp4-server",
    },
    Tool {
        program: "wpa_supplicant",
        package: "wpasupplicant",
    },
];

/// What people make images with by hand; the tests need some of it as well, but whoever only measures need not install all of theirs.
const RECIPE: &[Tool] = &[
    Tool {
        program: "mmdebstrap",
        package: "mmdebstrap",
    },
    Tool {
        program: "mksquashfs",
        package: "squashfs-tools",
    },
    Tool {
        program: "mcopy",
        package: "mtools",
    },
    Tool {
        program: "sfdisk",
        package: "fdisk",
    },
    Tool {
        program: "depmod",
        package: "kmod",
    },
    Tool {
        program: "cpio",
        package: "cpio",
    },
    Tool {
        program: "zstd",
        package: "zstd",
    },
    Tool {
        program: "xz",
        package: "xz-utils",
    },
];

/// What people set a Debian system up with, for another processor than theirs.
const DEBIAN: &[Tool] = &[
    Tool {
        program: "mmdebstrap",
        package: "mmdebstrap",
    },
    Tool {
        program: "arch-test",
        package: "arch-test",
    },
    Tool {
        program: "qemu-aarch64-static",
        package: "qemu-user-static",
    },
    Tool {
        program: "update-binfmts",
        package: "binfmt-support",
    },
    Tool {
        program: "mkfs.ext4",
        package: "e2fsprogs",
    },
    Tool {
        program: "qemu-system-aarch64",
        package: "qemu-system-arm",
    },
];

/// Returns whether a check that cannot run is a failure.
pub fn require_all() -> bool {
    std::env::var_os("REQUIRE_ALL").is_some_and(|value| value == "1")
}

/// Finds a program on the path, or in the folders for administrators' programs, which ordinary users' paths lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether a check's program is there; says that it is skipped if not, which is a failure where all are required.
pub fn is_there(check: &str, program: &str) -> Result<bool> {
    let found = find(program).is_some();
    if !found && require_all() {
        bail!("{program} is not installed");
    }
    if !found {
        say!("SKIPPED: {check}: {program} is not installed");
    }
    Ok(found)
}

/// Makes the programs the tests need available, or says what is missing.
pub fn provide(shell: &Shell) -> Result<()> {
    let wanted: Vec<&Tool> = TOOLS.iter().chain(PEERS).collect();
    let Some(advice) = install(shell, &wanted, "the tests")? else {
        return Ok(());
    };
    if require_all() {
        bail!("{advice}");
    }
    say!("{advice}\nThe checks that need them will say SKIPPED.");
    Ok(())
}

/// Makes the programs available that people make images with by hand.
pub fn provide_recipe(shell: &Shell) -> Result<()> {
    provide_all(shell, RECIPE, "the recipe")
}

/// Makes the programs available that a Debian system is set up and booted with.
pub fn provide_debian(shell: &Shell) -> Result<()> {
    if !is_root()? {
        return Err(Failure::new(
            "only root can set a Debian system up",
            "run `cargo xtask bench boot` in a shell of root that has Rust: mmdebstrap's scripts run in a chroot",
        )
        .into());
    }
    provide_all(shell, DEBIAN, "the Debian system")
}

fn provide_all(shell: &Shell, tools: &[Tool], purpose: &str) -> Result<()> {
    let wanted: Vec<&Tool> = tools.iter().collect();
    match install(shell, &wanted, purpose)? {
        None => Ok(()),
        Some(advice) => Err(Failure::new(format!("{purpose} cannot be measured"), advice).into()),
    }
}

/// Installs what is missing, where that is possible; returns what to do about what still is.
fn install(shell: &Shell, wanted: &[&Tool], purpose: &str) -> Result<Option<String>> {
    let missing = missing(wanted);
    if missing.is_empty() {
        return Ok(None);
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    if is_root()? && Path::new("/usr/bin/apt-get").exists() {
        say!(
            "Installing Debian packages for {purpose}: {}",
            packages.join(" ")
        );
        let shell_environment = shell.push_env("DEBIAN_FRONTEND", "noninteractive");
        cmd!(shell, "apt-get update -q")
            .quiet()
            .ignore_stdout()
            .run()
            .context("while refreshing the package lists")?;
        let policy = StartPolicy::put(Path::new(START_POLICY))
            .with_context(|| format!("while writing {START_POLICY}"))?;
        if policy.is_some() {
            say!("Until then {START_POLICY} keeps them from starting anything.");
        }
        cmd!(
            shell,
            "apt-get install -y -q --no-install-recommends {packages...}"
        )
        .quiet()
        .ignore_stdout()
        .run()
        .with_context(|| format!("while installing packages for {purpose}"))?;
        drop(policy);
        drop(shell_environment);
    }
    let missing = self::missing(wanted);
    let list = |part: fn(&Tool) -> &str| {
        let parts: Vec<&str> = missing.iter().map(|tool| part(tool)).collect();
        parts.join(" ")
    };
    Ok((!missing.is_empty()).then(|| {
        format!(
            "missing programs: {}; on Debian: apt-get install {}",
            list(|tool| tool.program),
            list(|tool| tool.package)
        )
    }))
}

fn missing<'a>(wanted: &[&'a Tool]) -> Vec<&'a Tool> {
    let wanted = wanted.iter().copied();
    wanted.filter(|tool| find(tool.program).is_none()).collect()
}

fn is_root() -> Result<bool> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("while reading /proc/self/status")?;
    Ok(status
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0")))
}
