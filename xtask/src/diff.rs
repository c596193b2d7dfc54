//! `cargo xtask diff`: what two images differ in.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use imagegen::inspect::diff::{Change, Difference, diff};
use imagegen::inspect::packed::open_image_file;

use crate::output;
use crate::usage::{Failure, without_controls};
use crate::verify;

/// The images, compressed or not.
#[derive(clap::Args)]
pub struct Args {
    /// The one image
    before: PathBuf,
    /// The other
    after: PathBuf,
}

/// Prints what differs; an error if anything does.
pub fn run(args: &Args) -> Result<()> {
    let (before, after) = (verify::open(&args.before)?, verify::open(&args.after)?);
    let difference = diff(&before, &after).with_context(|| {
        format!(
            "while comparing {} and {}",
            args.before.display(),
            args.after.display()
        )
    })?;
    let text = if !difference.is_empty() {
        without_controls(&as_text(&difference))
    } else if same_bytes(&args.before, &args.after)? {
        return Ok(());
    } else {
        "files, partitions and packages agree; times of files, how they are stored, or bytes that are in none of them, do not\n"
            .to_owned()
    };
    output::print_with_failure(text)?;
    Err(Failure::new(
        "the images differ",
        "`-` is in the first alone, `+` in the second alone, `~` in both; keys and passwords of a site are not shown",
    )
    .into())
}

/// Whether two images are the same to the last byte, however they are compressed.
fn same_bytes(before: &Path, after: &Path) -> Result<bool> {
    const CHUNK: u64 = 1 << 20;
    let open = |path: &Path| {
        open_image_file(path).with_context(|| format!("while reading {}", path.display()))
    };
    let (mut before, mut after) = (open(before)?, open(after)?);
    let (mut old, mut new) = (Vec::new(), Vec::new());
    loop {
        old.clear();
        new.clear();
        before.by_ref().take(CHUNK).read_to_end(&mut old)?;
        after.by_ref().take(CHUNK).read_to_end(&mut new)?;
        if old != new || old.is_empty() {
            return Ok(old == new);
        }
    }
}

/// Returns what differs as text for people.
pub fn as_text(difference: &Difference) -> String {
    let Difference {
        partitions,
        packages,
        files,
        texts,
    } = difference;
    let mut text = String::new();
    for (title, changes) in [
        ("partitions", partitions),
        ("packages", packages),
        ("files", files),
    ] {
        if !changes.is_empty() {
            text.push_str(&format!("{title}\n"));
            text.extend(changes.iter().map(line));
        }
    }
    text.extend(texts.iter().map(|lines| format!("\n{lines}")));
    text
}

fn line(change: &Change) -> String {
    let Change {
        name,
        before,
        after,
    } = change;
    match (before, after) {
        (Some(before), Some(after)) => format!("  ~ {name}  {before} -> {after}\n"),
        (Some(before), None) => format!("  - {name}  {before}\n"),
        (None, after) => format!("  + {name}  {}\n", after.as_deref().unwrap_or_default()),
    }
}
