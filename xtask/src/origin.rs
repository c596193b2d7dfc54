//! What the provenance of an image names beside packages: the repository's files that say what is in it, and the commit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use imagegen::agent::AgentBill;
use imagegen::sbom::{Commit, Origin};
use imagegen::sha256::Sha256;
use xshell::{Shell, cmd};

use crate::image::Job;
use crate::lock;
use crate::workspace::Workspace;

/// Collects it.
pub fn of(workspace: &Workspace, job: &Job, agent: AgentBill) -> Result<Origin> {
    let paths = [
        workspace.root.join("Cargo.lock"),
        lock::path_of(workspace, job.board.arch.debian_name()),
        workspace.boards().join(format!("{}.toml", job.board.id)),
        workspace.boards().join("parts"),
        workspace.overlays(),
    ];
    let mut files = BTreeMap::new();
    for path in paths {
        add_files(&workspace.root, &path, &mut files)
            .with_context(|| format!("while reading {}", path.display()))?;
    }
    Ok(Origin {
        agent,
        files,
        commit: commit(&workspace.root),
        security: job
            .site
            .networks
            .iter()
            .map(|network| network.security.name().to_owned())
            .collect(),
    })
}

/// Adds the digest of a file, or of every file of a folder, by its path below the root.
fn add_files(root: &Path, path: &Path, files: &mut BTreeMap<String, Sha256>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            add_files(root, &entry?.path(), files)?;
        }
        return Ok(());
    }
    let name = path.strip_prefix(root).unwrap_or(path);
    let digest = Sha256::of(&fs::read(path)?);
    files.insert(name.to_string_lossy().into_owned(), digest);
    Ok(())
}

/// Asks git. A checkout without git, or one that belongs to somebody else, has no commit that could be named.
fn commit(root: &Path) -> Option<Commit> {
    let shell = Shell::new().ok()?;
    shell.change_dir(root);
    let ask = |arguments: &[&str]| {
        let git = cmd!(shell, "git --no-optional-locks {arguments...}");
        git.quiet().ignore_stderr().read().ok()
    };
    // One question for both: the first line names the commit, one for each file that differs follows the headers.
    let status = ask(&[
        "status",
        "--porcelain=v2",
        "--branch",
        "--untracked-files=no",
    ])?;
    let id = status
        .lines()
        .find_map(|line| line.strip_prefix("# branch.oid "))
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some(Commit {
        id: id.to_owned(),
        modified: status.lines().any(|line| !line.starts_with("# ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_by_their_path_in_the_repository() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("overlays/etc")).unwrap();
        fs::write(root.path().join("overlays/etc/hosts"), "").unwrap();
        fs::write(root.path().join("overlays/overlay.toml"), "x").unwrap();
        let mut files = BTreeMap::new();
        add_files(root.path(), &root.path().join("overlays"), &mut files).unwrap();
        let names: Vec<&String> = files.keys().collect();
        assert_eq!(names, ["overlays/etc/hosts", "overlays/overlay.toml"]);
        assert_eq!(files["overlays/etc/hosts"], Sha256::of(b""));
        assert!(add_files(root.path(), &root.path().join("none"), &mut files).is_err());
    }

    #[test]
    fn a_commit_is_known_only_in_a_checkout() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(commit(folder.path()), None);
    }
}
