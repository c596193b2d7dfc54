//! Reads what Debian's maintainers say about the versions of a package: which vulnerabilities a newer one fixes.
//!
//! The format is deb-changelog(5): an entry begins with `source (version) suite; urgency=...`, its text is indented. The newest comes
//! first. A number counts as fixed where an entry names it, which is how Debian's security updates tell.

use std::collections::BTreeSet;
use std::fmt;

use debversion::Version;

/// The number of a vulnerability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cve {
    year: u16,
    number: u32,
}

impl Cve {
    /// Parses what follows `CVE-`, whatever comes after it.
    fn parse_rest(text: &str) -> Option<Self> {
        let (year, rest) = text.split_once('-')?;
        let end = rest
            .find(|digit: char| !digit.is_ascii_digit())
            .unwrap_or(rest.len());
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if year.len() != 4 || !digits(year) || end < 4 {
            return None;
        }
        Some(Cve {
            year: year.parse().ok()?,
            number: rest[..end].parse().ok()?,
        })
    }
}

/// `CVE-2026-0001`: the number has four digits or more.
impl fmt::Display for Cve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CVE-{:04}-{:04}", self.year, self.number)
    }
}

/// Returns the vulnerabilities that a changelog's entries for versions above `after` name. Entries without a readable version are
/// passed over.
pub fn fixed_since(changelog: &str, after: &Version) -> BTreeSet<Cve> {
    let mut counts = false;
    let mut found = BTreeSet::new();
    for line in changelog.lines() {
        if line.starts_with(|first: char| !first.is_whitespace()) {
            counts = version_of(line).is_some_and(|version| version > *after);
        } else if counts {
            found.extend(line.split("CVE-").skip(1).filter_map(Cve::parse_rest));
        }
    }
    found
}

/// Reads the first line of an entry.
fn version_of(line: &str) -> Option<Version> {
    let (_, rest) = line.split_once(" (")?;
    let (version, _) = rest.split_once(')')?;
    version.parse().ok()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// The kernel's is of two source packages, whose versions differ in a sign.
    const CHANGELOG: &str = "\
linux-signed (6.12.3+1) trixie-security; urgency=high

  * Sign kernel from linux 6.12.3-1

 -- A Maintainer <a@example.org>  Sat, 01 Nov 2025 08:00:00 +0000

linux (6.12.3-1) trixie-security; urgency=high

  * net: Count it (CVE-2025-40001), and again: CVE-2025-40001
  * fs: Close it; fixes CVE-2024-0009,CVE-2025-123456.
  * Not numbers: CVE-2025, CVE-2025-12, CVE-25-1234, CVE-2025-x, CVE-2025-99999999999

 -- A Maintainer <a@example.org>  Sat, 01 Nov 2025 07:00:00 +0000

linux-signed (6.12.2+1) trixie; urgency=medium

  * Sign kernel from linux 6.12.2-1

linux (6.12.2-1) trixie; urgency=medium

  * CVE-2025-22222

linux (no version) trixie; urgency=medium

  * CVE-2025-33333

linux (6.12.1-1) trixie; urgency=medium

  * CVE-2025-11111
";

    fn check(after: &str, expected: Expect) {
        let found = fixed_since(CHANGELOG, &after.parse().unwrap());
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        expected.assert_eq(&told.join(" "));
    }

    #[test]
    fn entries_above_a_version_are_read() {
        check("6.12.3+1", expect![""]);
        check(
            "6.12.2+1",
            expect!["CVE-2024-0009 CVE-2025-40001 CVE-2025-123456"],
        );
        check(
            "6.12.1+1",
            expect!["CVE-2024-0009 CVE-2025-22222 CVE-2025-40001 CVE-2025-123456"],
        );
        check("1:0", expect![""]);
    }
}
