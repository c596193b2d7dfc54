//! The root file system: unpacked packages, then the named rules that stand for their maintainer scripts, then radio firmware, modules, the
//! agent and the overlays.
//!
//! Nothing of the site is here: the function that makes the root is not even given it.

use std::sync::Arc;

use thiserror::Error;

use crate::plan::RootPlan;
use crate::recipe::Rule;
use crate::tree::{Content, Node, Tree, TreeError};

/// Where the agent is, relative to the root.
pub const AGENT_PATH: &str = "usr/bin/footbridge";

/// Where the kernel looks for firmware.
pub const FIRMWARE_DIRECTORY: &str = "usr/lib/firmware";

/// What a root is made of beside its plan.
#[derive(Clone, Debug)]
pub struct RootParts<'a> {
    /// The packages, unpacked.
    pub packages: Tree,
    /// The packages with the radio's firmware, unpacked.
    pub radio: &'a Tree,
    /// The files of them that are wanted, below the firmware directory.
    pub radio_files: Vec<String>,
    /// Modules and their index, as they lie in the root.
    pub modules: Tree,
    /// The agent.
    pub agent: Arc<[u8]>,
}

/// Why a root cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RootError {
    /// Two parts do not fit together.
    #[error("the root's parts do not fit together")]
    Tree(#[from] TreeError),
    /// A package does not have what a rule or the board expects of it.
    #[error("no package has /{0}")]
    Missing(String),
}

/// Makes the root.
pub fn assemble_root(plan: &RootPlan, parts: RootParts<'_>) -> Result<Tree, RootError> {
    let mut tree = parts.packages;
    for rule in &plan.rules {
        apply_rule(*rule, &mut tree)?;
    }
    for file in parts.radio_files {
        place_firmware(
            &format!("{FIRMWARE_DIRECTORY}/{file}"),
            parts.radio,
            &mut tree,
        )?;
    }
    tree.merge("kernel modules", parts.modules)?;
    drop_set_id_bits(&mut tree)?;
    tree.insert(AGENT_PATH, Node::file(0o755, parts.agent))?;
    for (path, planned) in &plan.nodes {
        tree.replace(path.clone(), planned.node.clone())?;
    }
    Ok(tree)
}

/// Does what a package's maintainer scripts would have done.
fn apply_rule(rule: Rule, tree: &mut Tree) -> Result<(), RootError> {
    match rule {
        Rule::Directories => make_directories(tree),
        Rule::RegulatoryDatabase => choose_regulatory_database(tree),
    }
}

fn make_directories(tree: &mut Tree) -> Result<(), RootError> {
    for (path, mode) in [
        ("dev", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var", 0o755),
    ] {
        tree.replace(path, Node::directory(mode))?;
    }
    Ok(())
}

/// Nobody but root logs in, so no program needs to lend anybody its owner's rights.
fn drop_set_id_bits(tree: &mut Tree) -> Result<(), RootError> {
    const SET_ID: u16 = 0o6000;
    let lending: Vec<(String, u16)> = tree
        .iter()
        .filter(|(_, node)| !node.is_directory() && node.mode & SET_ID != 0)
        .map(|(path, node)| (path.to_owned(), node.mode & !SET_ID))
        .collect();
    for (path, mode) in lending {
        tree.set_mode(&path, mode)?;
    }
    Ok(())
}

/// The package has the database as signed by Debian and by its author; Debian's kernel trusts the first.
fn choose_regulatory_database(tree: &mut Tree) -> Result<(), RootError> {
    for name in ["regulatory.db", "regulatory.db.p7s"] {
        let chosen = format!("{FIRMWARE_DIRECTORY}/{name}-debian");
        if !tree.contains(&chosen) {
            return Err(RootError::Missing(chosen));
        }
        tree.insert(
            format!("{FIRMWARE_DIRECTORY}/{name}"),
            Node::symlink(format!("{name}-debian")),
        )?;
        tree.remove(&format!("{FIRMWARE_DIRECTORY}/{name}-upstream"))?;
    }
    Ok(())
}

/// Copies a file of firmware, and whatever a link leads to. A link whose target would be made by update-alternatives gets the first choice.
fn place_firmware(path: &str, from: &Tree, to: &mut Tree) -> Result<(), RootError> {
    let missing = || RootError::Missing(path.to_owned());
    let node = match from.get(path) {
        Some(node) => node.clone(),
        None => from
            .get(&first_alternative(path))
            .ok_or_else(missing)?
            .clone(),
    };
    if let Content::Symlink(target) = &node.content {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let target = if target.starts_with('/') {
            target.clone()
        } else {
            format!("{directory}/{target}")
        };
        place_firmware(&normalize(&target), from, to)?;
    }
    if to.get(path) != Some(&node) {
        to.insert(path, node)?;
    }
    Ok(())
}

/// `cyfmac43455-sdio.bin` comes as `cyfmac43455-sdio-standard.bin` where there is a smaller one beside it.
fn first_alternative(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}-standard.{extension}"),
        None => format!("{path}-standard"),
    }
}

/// Takes `..` and empty components out of a path.
fn normalize(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use expect_test::expect;

    use super::*;
    use crate::plan::overlay::PlannedNode;

    fn tree(nodes: &[(&str, Node)]) -> Tree {
        let mut tree = Tree::new();
        for (path, node) in nodes {
            tree.insert(*path, node.clone()).unwrap();
        }
        tree
    }

    fn file() -> Node {
        Node::file(0o644, *b"bytes")
    }

    #[test]
    fn a_root_is_packages_rules_firmware_modules_agent_and_overlays() {
        let plan = RootPlan {
            removals: Vec::new(),
            rules: BTreeSet::from([Rule::Directories, Rule::RegulatoryDatabase]),
            nodes: BTreeMap::from([
                (
                    "etc/hosts".to_owned(),
                    PlannedNode {
                        node: Node::file(0o600, *b"mine"),
                        source: String::new(),
                    },
                ),
                (
                    "etc/systemd/system/x.service".to_owned(),
                    PlannedNode {
                        node: Node::symlink("/dev/null"),
                        source: String::new(),
                    },
                ),
            ]),
        };
        let parts = RootParts {
            packages: tree(&[
                ("etc/hosts", file()),
                ("usr/lib/firmware/regulatory.db-debian", file()),
                ("usr/lib/firmware/regulatory.db-upstream", file()),
                ("usr/lib/firmware/regulatory.db.p7s-debian", file()),
            ]),
            radio: &tree(&[
                (
                    "usr/lib/firmware/brcm/a.bin",
                    Node::symlink("../cypress/c.bin"),
                ),
                (
                    "usr/lib/firmware/brcm/b.bin",
                    Node::symlink("../cypress/c.bin"),
                ),
                ("usr/lib/firmware/cypress/c-standard.bin", file()),
                ("usr/lib/firmware/cypress/c-minimal.bin", file()),
            ]),
            radio_files: vec!["brcm/a.bin".to_owned(), "brcm/b.bin".to_owned()],
            modules: tree(&[("usr/lib/modules/6/modules.dep", file())]),
            agent: Arc::from(*b"agent"),
        };
        let root = assemble_root(&plan, parts).unwrap();
        let listing: String = root
            .iter()
            .map(|(path, node)| format!("{path}: {node}\n"))
            .collect();
        expect![[r#"
            dev: directory (mode 0755, owner 0:0)
            etc: directory (mode 0755, owner 0:0)
            etc/hosts: file of 4 bytes (mode 0600, owner 0:0)
            etc/systemd: directory (mode 0755, owner 0:0)
            etc/systemd/system: directory (mode 0755, owner 0:0)
            etc/systemd/system/x.service: symbolic link to /dev/null
            proc: directory (mode 0555, owner 0:0)
            root: directory (mode 0700, owner 0:0)
            run: directory (mode 0755, owner 0:0)
            sys: directory (mode 0555, owner 0:0)
            tmp: directory (mode 1777, owner 0:0)
            usr: directory (mode 0755, owner 0:0)
            usr/bin: directory (mode 0755, owner 0:0)
            usr/bin/footbridge: file of 5 bytes (mode 0755, owner 0:0)
            usr/lib: directory (mode 0755, owner 0:0)
            usr/lib/firmware: directory (mode 0755, owner 0:0)
            usr/lib/firmware/brcm: directory (mode 0755, owner 0:0)
            usr/lib/firmware/brcm/a.bin: symbolic link to ../cypress/c.bin
            usr/lib/firmware/brcm/b.bin: symbolic link to ../cypress/c.bin
            usr/lib/firmware/cypress: directory (mode 0755, owner 0:0)
            usr/lib/firmware/cypress/c.bin: file of 5 bytes (mode 0644, owner 0:0)
            usr/lib/firmware/regulatory.db: symbolic link to regulatory.db-debian
            usr/lib/firmware/regulatory.db-debian: file of 5 bytes (mode 0644, owner 0:0)
            usr/lib/firmware/regulatory.db.p7s: symbolic link to regulatory.db.p7s-debian
            usr/lib/firmware/regulatory.db.p7s-debian: file of 5 bytes (mode 0644, owner 0:0)
            usr/lib/modules: directory (mode 0755, owner 0:0)
            usr/lib/modules/6: directory (mode 0755, owner 0:0)
            usr/lib/modules/6/modules.dep: file of 5 bytes (mode 0644, owner 0:0)
            var: directory (mode 0755, owner 0:0)
        "#]]
        .assert_eq(&listing);
    }

    #[test]
    fn what_a_package_lacks_is_named() {
        let mut to = Tree::new();
        let from = tree(&[(
            "usr/lib/firmware/brcm/a.bin",
            Node::symlink("../cypress/c.bin"),
        )]);
        assert_eq!(
            place_firmware("usr/lib/firmware/brcm/a.bin", &from, &mut to),
            Err(RootError::Missing(
                "usr/lib/firmware/cypress/c.bin".to_owned()
            ))
        );
        assert_eq!(
            choose_regulatory_database(&mut to),
            Err(RootError::Missing(
                "usr/lib/firmware/regulatory.db-debian".to_owned()
            ))
        );
    }
}
