//! A plan as text: what `cargo xtask plan` prints and the golden files hold. Shows no key, and of the site's files only that they are there.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::overlay::PlannedNode;
use crate::plan::{Place, Plan};
use crate::tree::Content;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features: Vec<String> = self.features.iter().map(ToString::to_string).collect();
        writeln!(f, "board: {}", self.board)?;
        writeln!(
            f,
            "features: {}",
            if features.is_empty() {
                "none".to_owned()
            } else {
                features.join(" ")
            }
        )?;
        writeln!(f, "kernel: {}", self.kernel_release)?;
        writeln!(
            f,
            "disk: signature {:08x}, boot partition {}, root partition {}",
            self.signature.number(),
            self.signature.boot_partuuid(),
            self.signature.root_partuuid()
        )?;
        self.write_packages(f)?;
        self.write_boot(f)?;
        section(
            f,
            "initramfs",
            "/bin/busybox from the package of that name; modules and what they depend on:",
        )?;
        for module in &self.modules.initramfs {
            writeln!(f, "  module {module}")?;
        }
        write_nodes(f, &self.initramfs)?;
        self.write_root(f)
    }
}

impl Plan {
    fn write_packages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(
            f,
            "packages",
            "name, version, place, what stands for the maintainer scripts",
        )?;
        for (name, package) in &self.packages {
            writeln!(
                f,
                "  {name} {} {} ({})",
                package.version, package.place, package.cover
            )?;
        }
        Ok(())
    }

    fn write_boot(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(f, "boot partition", "FAT32")?;
        for name in &self.boot.firmware {
            writeln!(f, "  /{name} (boot firmware)")?;
        }
        writeln!(
            f,
            "  /{} (kernel)\n  /{} (initramfs)",
            self.boot.kernel_file,
            super::boot::INITRAMFS_FILE
        )?;
        for path in &self.boot.device_trees {
            writeln!(
                f,
                "  /{} (device tree)",
                path.rsplit('/').next().unwrap_or(path)
            )?;
        }
        for (name, planned) in &self.boot.site {
            writeln!(f, "  /site/{name} ({})", planned.source)?;
        }
        for (name, planned) in &self.boot.texts {
            writeln!(f, "  /{name} ({}):", planned.source)?;
            let text = String::from_utf8_lossy(planned.node.bytes().map_or(&[], |bytes| bytes))
                .into_owned();
            for line in text.lines() {
                writeln!(f, "    | {line}")?;
            }
        }
        Ok(())
    }

    fn write_root(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(
            f,
            "root",
            "squashfs: packages, rules, modules and what they depend on, radio firmware, agent, overlays",
        )?;
        for rule in &self.root.rules {
            writeln!(f, "  rule {rule}")?;
        }
        for module in &self.modules.root {
            writeln!(f, "  module {module}")?;
        }
        for path in self.radio.firmware.values().flatten() {
            writeln!(f, "  firmware {path}")?;
        }
        for pattern in &self.root.removals {
            writeln!(f, "  without {pattern}")?;
        }
        writeln!(f, "  /{} 0755 (agent)", crate::make::rootfs::AGENT_PATH)?;
        write_nodes(f, &self.root.nodes)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Kernel => "kernel",
            Self::BootFirmware => "boot-firmware",
            Self::RadioFirmware => "radio-firmware",
            Self::Nowhere => "nowhere",
        })
    }
}

fn section(f: &mut fmt::Formatter<'_>, name: &str, about: &str) -> fmt::Result {
    writeln!(f, "\n{name}: {about}")
}

fn write_nodes(f: &mut fmt::Formatter<'_>, nodes: &BTreeMap<String, PlannedNode>) -> fmt::Result {
    for (path, PlannedNode { node, source }) in nodes {
        match &node.content {
            Content::Directory => writeln!(f, "  /{path}/ {:04o} ({source})", node.mode)?,
            Content::File(_) => writeln!(f, "  /{path} {:04o} ({source})", node.mode)?,
            Content::Symlink(target) => writeln!(f, "  /{path} -> {target} ({source})")?,
        }
    }
    Ok(())
}
