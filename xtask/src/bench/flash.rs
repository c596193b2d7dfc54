//! `cargo xtask bench flash`: images written to the same disk by dd, by bmaptool and by `cargo xtask flash`, in one run.
//!
//! The disk is a loop device that passes the page cache by, so that what is written is on this machine's disk; a plain file where there can
//! be none. dd and bmaptool do not read back; what that takes is shown by dd with cmp after it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use imagegen::card::image::examine;
use imagegen::card::refusal::Bytes;
use imagegen::make::disk::ImageFormat;
use imagegen::make::fetch::Silent;
use serde_json::json;
use xshell::{Shell, cmd};

use crate::interrupt::Unfinished;
use crate::output;
use crate::tools;
use crate::usage::UsageError;
use crate::workspace::Workspace;

/// What to write, and how often.
#[derive(clap::Args)]
pub struct Args {
    /// Images to write, compressed or not (default: target/images/footbridge-pi3.img)
    images: Vec<PathBuf>,
    /// Measurements of each
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Where all samples go [default: bench/flash.json in the build folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Dd,
    DdAndCmp,
    Bmaptool,
    Ours,
}

/// What a contender took for an image.
struct Case {
    image: PathBuf,
    contender: Contender,
    samples: Vec<Duration>,
}

/// The disk that is written to; it goes when this does.
struct Disk<'a> {
    shell: &'a Shell,
    node: PathBuf,
    attached: bool,
}

/// Runs the bench; the table is on stdout.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate()?;
    let shell = Shell::new()?;
    tools::provide(&shell)?;
    let folder = workspace.target.join("bench");
    shell.create_dir(&folder)?;
    let images = match &args.images[..] {
        [] => vec![workspace.target.join("images/footbridge-pi3.img")],
        named => named.to_vec(),
    };
    let size = check(&images)?;
    let file = folder.join("flash-card");
    let _unfinished = Unfinished::scratch(&file);
    let disk = Disk::make(&shell, &file, size)?;
    let _cache = shell.push_env("FOOTBRIDGE_CACHE", folder.join("flash-cache"));
    let mut cases: Vec<Case> = images
        .iter()
        .flat_map(|image| {
            Contender::ALL.map(|contender| Case {
                image: image.clone(),
                contender,
                samples: Vec::new(),
            })
        })
        .collect();
    // The first round finds the programs and the images in no cache and is not counted.
    for round in 0..=args.runs {
        for case in &mut cases {
            let begin = Instant::now();
            case.contender
                .write(&shell, &case.image, &disk.node)
                .with_context(|| format!("while measuring {}", case.contender.name()))?;
            if round > 0 {
                case.samples.push(begin.elapsed());
            }
        }
    }
    drop(disk);
    shell.remove_path(&file)?;
    let json = args
        .json
        .clone()
        .unwrap_or_else(|| folder.join("flash.json"));
    shell.write_file(&json, samples(&cases)?)?;
    say!("All samples are in {}", json.display());
    output::print(table(&mut cases)?)
}

/// Returns how large a disk has to be for all of the images.
fn check(images: &[PathBuf]) -> Result<u64> {
    let mut size = 0;
    for path in images {
        let image = examine(path, &Silent)
            .map_err(|error| UsageError::new(error.to_string(), error.hint()))?;
        size = size.max(image.map.image_size);
    }
    Ok(size)
}

impl Contender {
    const ALL: [Self; 4] = [Self::Dd, Self::DdAndCmp, Self::Bmaptool, Self::Ours];

    fn name(self) -> &'static str {
        match self {
            Self::Dd => "dd",
            Self::DdAndCmp => "dd, then cmp",
            Self::Bmaptool => "bmaptool copy",
            Self::Ours => "cargo xtask flash",
        }
    }

    /// Whether it says that the card holds the image only after having read it.
    fn reads_back(self) -> bool {
        match self {
            Self::Dd | Self::Bmaptool => false,
            Self::DdAndCmp | Self::Ours => true,
        }
    }

    fn write(self, shell: &Shell, image: &Path, disk: &Path) -> Result<()> {
        let unpack = match ImageFormat::of_name(&image.to_string_lossy()) {
            Some(ImageFormat::ImgZst) => "zstd -dcq",
            Some(ImageFormat::ImgXz) => "xz -dc",
            Some(ImageFormat::Img) | None => "cat",
        };
        let dd = "dd of=\"$1\" bs=4M iflag=fullblock conv=notrunc,fsync status=none";
        let command = match self {
            Self::Dd if unpack == "cat" => {
                cmd!(
                    shell,
                    "dd if={image} of={disk} bs=4M conv=notrunc,fsync status=none"
                )
            }
            Self::Dd => {
                let script = format!("{unpack} \"$0\" | {dd}");
                cmd!(shell, "sh -ec {script} {image} {disk}")
            }
            Self::DdAndCmp => {
                // cmp ends where the image does, which it says, and that is no difference.
                let compare = format!(
                    "{unpack} \"$0\" | cmp - \"$1\" 2>&1 | {{ ! grep -v '^cmp: EOF on -'; }}"
                );
                let script = format!("{unpack} \"$0\" | {dd}; {compare}");
                cmd!(shell, "sh -ec {script} {image} {disk}")
            }
            Self::Bmaptool => cmd!(shell, "bmaptool --quiet copy {image} {disk}"),
            Self::Ours => {
                let program = std::env::current_exe()?;
                cmd!(shell, "{program} flash {image} {disk} --yes")
            }
        };
        Ok(command.quiet().ignore_stdout().ignore_stderr().run()?)
    }
}

impl<'a> Disk<'a> {
    /// Makes a disk of a file whose room is taken already, so that nobody has to find it.
    fn make(shell: &'a Shell, file: &Path, size: u64) -> Result<Self> {
        let size = size.next_multiple_of(1 << 20);
        let mebibytes = (size >> 20).to_string();
        cmd!(
            shell,
            "dd if=/dev/zero of={file} bs=1M count={mebibytes} conv=fsync status=none"
        )
        .quiet()
        .run()?;
        let attached = cmd!(shell, "losetup --find --show --direct-io=on {file}")
            .quiet()
            .ignore_stderr()
            .read();
        let node = attached.as_ref().ok().map(PathBuf::from);
        if node.is_none() {
            say!("There can be no loop device here: the figures are for a file.");
        }
        Ok(Disk {
            shell,
            attached: node.is_some(),
            node: node.unwrap_or_else(|| file.to_owned()),
        })
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let node = &self.node;
        if self.attached
            && let Err(error) = cmd!(self.shell, "losetup --detach {node}").quiet().run()
        {
            say!("warning: {} stays: {error}", node.display());
        }
    }
}

fn table(cases: &mut [Case]) -> Result<String> {
    let mut text = String::from(
        "| image | to be written | by | read back | time | ratio |\n|---|---:|---|---|---:|---:|\n",
    );
    let mut first = Duration::ZERO;
    for case in cases {
        let image = examine(&case.image, &Silent)?;
        let median = median(&mut case.samples);
        if case.contender == Contender::Dd {
            first = median;
        }
        text.push_str(&format!(
            "| {} | {} of {} | {} | {} | {:.2} s | {:.2}x |\n",
            case.image.file_name().unwrap_or_default().display(),
            Bytes(image.map.mapped()),
            Bytes(image.map.image_size),
            case.contender.name(),
            if case.contender.reads_back() {
                "yes"
            } else {
                "no"
            },
            median.as_secs_f64(),
            median.as_secs_f64() / first.as_secs_f64(),
        ));
    }
    Ok(text)
}

/// The lower one of the two in the middle, where there are two.
fn median(samples: &mut [Duration]) -> Duration {
    samples.sort();
    samples[(samples.len() - 1) / 2]
}

fn samples(cases: &[Case]) -> Result<String> {
    let cases: Vec<_> = cases
        .iter()
        .map(|case| {
            json!({
                "image": case.image.display().to_string(),
                "by": case.contender.name(),
                "seconds": case.samples.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&cases)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (samples, expected) in [(&[3][..], 3), (&[4, 1], 1), (&[9, 1, 5], 5)] {
            let mut samples: Vec<_> = samples.iter().map(|n| Duration::from_secs(*n)).collect();
            assert_eq!(median(&mut samples), Duration::from_secs(expected));
        }
    }
}
