//! What an image says of itself: its packages, and in `os-release` a name and a version (os-release(5)). All of it follows from the contents.

use sha2::{Digest, Sha256};

use crate::calendar::civil_date;
use crate::make::image::ImageInputs;
use crate::make::rootfs::RootError;
use crate::plan::Plan;
use crate::resolve::Resolution;
use crate::tree::{Content, Node, Tree};

/// Where the list of packages is, relative to the root.
pub const PACKAGES_PATH: &str = "usr/share/footbridge/packages";

/// Where the package of the top level has its `os-release`; `/etc/os-release` is a link to it.
pub const OS_RELEASE: &str = "usr/lib/os-release";

/// The name and the version of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `footbridge-BOARD`.
    pub id: String,
    /// `YYYYMMDD.HASH`.
    pub version: String,
}

/// Lists every package an image was made from, also those whose files are only on the boot partition: lines of
/// `NAME VERSION ARCHITECTURE`, ordered by name.
pub fn list_packages(resolution: &Resolution) -> String {
    let packages = resolution.packages.values();
    packages
        .map(|package| {
            format!(
                "{} {} {}\n",
                package.name, package.version, package.architecture
            )
        })
        .collect()
}

/// Puts the list of packages into the root, and `IMAGE_ID=footbridge-BOARD` and `IMAGE_VERSION=YYYYMMDD.HASH` into its `os-release`.
///
/// The version is the day (UTC) of the package lists, and 32 bits of a hash over the root, the kernel and its companions in `boot`, and the
/// disk's signature, which stands for the initramfs. The site has no part in it.
pub fn identify(
    root: &mut Tree,
    boot: &Tree,
    plan: &Plan,
    inputs: &ImageInputs<'_>,
) -> Result<Identity, RootError> {
    root.insert(
        PACKAGES_PATH,
        Node::file(0o644, list_packages(inputs.resolution).into_bytes()),
    )?;
    let mut hash = Sha256::new();
    hash_tree(root, &mut hash);
    hash_tree(boot, &mut hash);
    hash.update(plan.signature.number().to_le_bytes());
    let hash = hash.finalize();
    let hash: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let (year, month, day) = civil_date(inputs.time / 86_400);
    let identity = Identity {
        id: format!("footbridge-{}", plan.board),
        version: format!("{year:04}{month:02}{day:02}.{hash}"),
    };
    write_identity(root, &identity)?;
    Ok(identity)
}

fn write_identity(root: &mut Tree, identity: &Identity) -> Result<(), RootError> {
    let missing = || RootError::Missing(OS_RELEASE.to_owned());
    let mut node = root.get(OS_RELEASE).ok_or_else(missing)?.clone();
    let mut text = node.bytes().ok_or_else(missing)?.to_vec();
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let Identity { id, version } = identity;
    text.extend_from_slice(format!("IMAGE_ID={id}\nIMAGE_VERSION={version}\n").as_bytes());
    node.content = Content::File(text.into());
    root.replace(OS_RELEASE, node)?;
    Ok(())
}

/// Adds all paths, modes, owners and bytes, each after its length.
fn hash_tree(tree: &Tree, hash: &mut Sha256) {
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (path, node) in tree.iter() {
        add(path.as_bytes());
        add(node.to_string().as_bytes());
        add(node.bytes().map_or(&[][..], |bytes| bytes));
    }
}
