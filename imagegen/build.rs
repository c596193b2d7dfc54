//! Gives the builder a version: a digest of its own source and of the versions of what it is built with.
//!
//! What an earlier builder made and kept is good only for one that would make the same bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn main() -> io::Result<()> {
    let mut hash = Sha256::new();
    for path in sources(Path::new("src"))? {
        update(&mut hash, &path)?;
    }
    // Beside other crates' versions it has those of the encoders. As a package of its own this one has none.
    let lock = Path::new("../Cargo.lock");
    if lock.is_file() {
        update(&mut hash, lock)?;
        println!("cargo::rerun-if-changed={}", lock.display());
    }
    println!("cargo::rerun-if-changed=src");
    let digest = hash.finalize();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=IMAGEGEN_VERSION={digest}");
    Ok(())
}

fn update(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    let bytes = fs::read(path)?;
    hash.update(format!("{}\0{}\0", path.display(), bytes.len()));
    hash.update(bytes);
    Ok(())
}

/// All files below a folder, in order.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
