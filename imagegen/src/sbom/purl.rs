//! Package URLs: `pkg:deb/debian/NAME@VERSION?arch=…&distro=…` and `pkg:cargo/NAME@VERSION`, by the purl specification (ECMA-427).

use crate::agent::Library;
use crate::index::Package;

/// Returns the purl of a Debian package; the suite it comes from is not what makes it another package, so the codename stands for all of them.
pub(crate) fn of_package(package: &Package) -> String {
    let codename = package.suite.split('-').next().unwrap_or_default();
    format!(
        "pkg:deb/debian/{}@{}?arch={}&distro={}",
        quote(&package.name),
        quote(&package.version.to_string()),
        quote(&package.architecture),
        quote(codename),
    )
}

/// Returns the purl of a source package.
pub(crate) fn of_source(name: &str, version: &str) -> String {
    format!(
        "pkg:deb/debian/{}@{}?arch=source",
        quote(name),
        quote(version)
    )
}

/// Returns the purl of a crate.
pub(crate) fn of_crate(name: &str, version: &str) -> String {
    format!("pkg:cargo/{}@{}", quote(name), quote(version))
}

/// Returns the purl of what the compiler links in.
pub(crate) fn of_library(library: &Library) -> String {
    let name = quote(&library.name);
    match &library.version {
        None => format!("pkg:generic/{name}"),
        Some(version) => format!("pkg:generic/{name}@{}", quote(version)),
    }
}

/// Letters, digits and `.-_~:` stand for themselves, everything else for its bytes.
fn quote(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        match byte {
            b'.' | b'-' | b'_' | b'~' | b':' => quoted.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => quoted.push(byte.into()),
            byte => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purls() {
        assert_eq!(
            of_source("g++-x", "1:2.0~rc1+deb13u1-1"),
            "pkg:deb/debian/g%2B%2B-x@1:2.0~rc1%2Bdeb13u1-1?arch=source"
        );
        assert_eq!(of_crate("libc", "0.2.1+x"), "pkg:cargo/libc@0.2.1%2Bx");
    }
}
