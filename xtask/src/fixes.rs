//! Which vulnerabilities security updates fix, told by the changelogs in the packages themselves: nothing but the mirror is asked, and
//! what is read is what was signed.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use imagegen::changelog::{Cve, fixed_since};
use imagegen::lock::Lock;
use imagegen::lock::changes::{SecurityUpdate, security_updates};
use imagegen::make::deb::read_changelog;
use imagegen::make::fetch::Fetcher;

use crate::usage;

/// Returns a line for each security update between two locks. What cannot be read is told, too: it is no reason to keep old packages.
pub fn tell(fetcher: &Fetcher, old: &Lock, new: &Lock) -> Vec<String> {
    let updates = security_updates(old, new);
    let tell = |update: &SecurityUpdate<'_>| describe(update, &read(fetcher, update));
    updates.iter().map(tell).collect()
}

/// Reads the first changelog there is, none if no package has one: those of one source have the same, or leave it to each other.
fn read(fetcher: &Fetcher, update: &SecurityUpdate<'_>) -> Result<Option<BTreeSet<Cve>>> {
    for package in &update.packages {
        let path = fetcher.fetch_deb(package)?;
        let deb = fs::read(&path).with_context(|| format!("while reading {}", path.display()))?;
        let changelog = read_changelog(&deb, package.unpack_limit(), &package.name)
            .with_context(|| format!("while reading the changelog of {}", package.name))?;
        if let Some(changelog) = changelog {
            return Ok(Some(fixed_since(&changelog, update.old)));
        }
    }
    Ok(None)
}

fn describe(update: &SecurityUpdate<'_>, fixes: &Result<Option<BTreeSet<Cve>>>) -> String {
    let says = match fixes {
        Err(error) => usage::without_controls(&format!("fixes are not known: {error:#}")),
        Ok(None) => "fixes are not known: its packages have no changelog".to_owned(),
        Ok(Some(fixes)) if fixes.is_empty() => "the changelog names no CVE".to_owned(),
        Ok(Some(fixes)) => {
            let names: Vec<String> = fixes.iter().map(ToString::to_string).collect();
            format!("fixes {}", names.join(", "))
        }
    };
    format!(
        "! {} {} -> {}: {says}",
        update.source, update.old, update.new
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_there_is_to_say_of_an_update() {
        let (old, new) = ("1-1".parse().unwrap(), "1-1+deb13u1".parse().unwrap());
        let update = SecurityUpdate {
            source: "tool",
            old: &old,
            new: &new,
            packages: Vec::new(),
        };
        let changelog = "tool (1-1+deb13u1) trixie-security; urgency=high\n\n  * CVE-2025-0002, CVE-2024-10001\n";
        let told = [
            Ok(Some(fixed_since(changelog, &old))),
            Ok(Some(fixed_since(changelog, &new))),
            Ok(None),
            Err(anyhow::anyhow!("no network").context("while \u{1b}[31mreading")),
        ]
        .map(|fixes| describe(&update, &fixes));
        expect![[r#"
            ! tool 1-1 -> 1-1+deb13u1: fixes CVE-2024-10001, CVE-2025-0002
            ! tool 1-1 -> 1-1+deb13u1: the changelog names no CVE
            ! tool 1-1 -> 1-1+deb13u1: fixes are not known: its packages have no changelog
            ! tool 1-1 -> 1-1+deb13u1: fixes are not known: while \u{1b}[31mreading: no network"#]]
        .assert_eq(&told.join("\n"));
    }
}
