//! `cargo xtask fleet images`: a whole image for each device, from its board's and its bundle.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use imagegen::fleet::base::{Base, BaseError};
use imagegen::fleet::bundle::decode_bundle;
use imagegen::make::disk::{Draft, ImageFormat};

use super::build::image_digest;
use super::list::load;
use super::manifest::{Device, Manifest, load_bundle};
use super::{Place, base_file, whole_file};
use crate::interrupt::Unfinished;
use crate::output;
use crate::progress::Bars;
use crate::usage::{Failure, UsageError};
use crate::workspace::Workspace;

/// What to make.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Only for this device; may be given again
    #[arg(long, value_name = "NAME")]
    device: Vec<String>,
}

/// Makes the images and prints their paths.
pub fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let workspace = Workspace::locate()?;
    let folder = args.place.folder(&workspace);
    let manifest = Manifest::load(&folder, &load(&args.place.fleet)?)?;
    let devices = chosen(&manifest, &args.device)?;
    let bars = Bars::new();
    let step = bars.step("making images");
    let (mut count, mut printed) = (0, Ok(()));
    // Board by board, because what is on one's boot partition is kept in memory.
    for target in manifest.images.keys() {
        let mut base = None;
        for device in devices.iter().filter(|device| device.image == *target) {
            let base = match &base {
                Some(base) => base,
                None => base.insert(open_base(&folder, &manifest, target)?),
            };
            let path = folder.join(whole_file(&device.name));
            make(base, &folder, device, &path)?;
            // The others are made whether or not anybody reads this.
            printed = printed.and_then(|()| output::print_line(path.display()));
            count += 1;
        }
    }
    drop(step);
    let plural = if count == 1 { "" } else { "s" };
    say!(
        "{count} image{plural} ({:.1} s)",
        begin.elapsed().as_secs_f64()
    );
    printed
}

fn chosen<'a>(manifest: &'a Manifest, names: &[String]) -> Result<Vec<&'a Device>> {
    if names.is_empty() {
        let devices: Vec<&Device> = manifest.devices.iter().collect();
        for device in &devices {
            has_image(manifest, device)?;
        }
        return Ok(devices);
    }
    names
        .iter()
        .map(|name| device_named(manifest, name))
        .collect()
}

/// Returns a device that there is an image for.
pub(super) fn device_named<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Device> {
    let device = manifest.device(name).ok_or_else(|| {
        let similarity = |known: &str| strsim::jaro_winkler(known, name);
        let names = manifest.devices.iter().map(|device| device.name.as_str());
        let near = names.max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let hint = match near.filter(|near| similarity(near) > 0.7) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "the list names the devices there are".to_owned(),
        };
        UsageError::new(format!("there is no device `{name}` in the list"), hint)
    })?;
    has_image(manifest, device)?;
    Ok(device)
}

/// Whether the image of a device's board was made.
pub(super) fn has_image(manifest: &Manifest, device: &Device) -> Result<()> {
    if manifest.images.contains_key(&device.image) {
        return Ok(());
    }
    Err(UsageError::new(
        format!("there is no image for {} ({})", device.name, device.image),
        "`cargo xtask fleet build` without --bundles-only makes it",
    )
    .into())
}

/// Opens the image that devices have in common.
pub(super) fn open_base(folder: &Path, manifest: &Manifest, target: &str) -> Result<Base> {
    let path = folder.join(base_file(target));
    let again = "make it again with `cargo xtask fleet build`";
    let image = manifest
        .images
        .get(target)
        .ok_or_else(|| Failure::new(format!("{} was not made", path.display()), again))?;
    if image_digest(&path)? != image.sha256 {
        let what = format!(
            "{} is not the image that the bundles were made with",
            path.display()
        );
        return Err(Failure::new(what, again).into());
    }
    Base::open(&path, image.time).map_err(told)
}

/// Makes the image of a device.
pub(super) fn make(base: &Base, folder: &Path, device: &Device, path: &Path) -> Result<()> {
    let site = decode_bundle(&load_bundle(folder, device)?)?;
    let draft = Draft::create(path, ImageFormat::Img)?;
    let paths: Vec<PathBuf> = draft.paths().map(Path::to_owned).collect();
    let _unfinished: Vec<Unfinished> = paths
        .iter()
        .map(|partial| Unfinished::file(partial, path))
        .collect();
    base.write(draft, &site).map_err(told)
}

fn told(error: BaseError) -> anyhow::Error {
    match error {
        BaseError::Disk(error) => error.into(),
        other => Failure::new(
            format!("{:#}", anyhow::Error::from(other)),
            "`cargo xtask fleet build` makes the images of boards again",
        )
        .into(),
    }
}
