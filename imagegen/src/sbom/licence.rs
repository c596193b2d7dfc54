//! Licences as SPDX expressions (annex D of SPDX 2.3), made from the short names of Debian's copyright files and from what crates state.

use std::collections::BTreeSet;
use std::fmt;

use spdx::{ParseMode, exception_id, identifiers, license_id};

/// An SPDX expression. Order and repetition mean nothing in one, so neither is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expression {
    /// One licence, perhaps `WITH` an exception.
    Term(String),
    /// All of them hold.
    And(BTreeSet<Expression>),
    /// Any of them may be chosen.
    Or(BTreeSet<Expression>),
}

impl Expression {
    /// Joins expressions all of which hold; `None` where there are none.
    pub(crate) fn all(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut joined = BTreeSet::new();
        for part in parts {
            match part {
                Self::And(inner) => joined.extend(inner),
                part => joined.extend([part]),
            }
        }
        single(&mut joined).or((!joined.is_empty()).then_some(Self::And(joined)))
    }

    /// Joins expressions of which any may be chosen; `None` where there are none.
    pub(crate) fn any(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut joined = BTreeSet::new();
        for part in parts {
            match part {
                Self::Or(inner) => joined.extend(inner),
                part => joined.extend([part]),
            }
        }
        single(&mut joined).or((!joined.is_empty()).then_some(Self::Or(joined)))
    }
}

/// An operator of one operand is none.
fn single(joined: &mut BTreeSet<Expression>) -> Option<Expression> {
    match joined.len() {
        1 => joined.pop_first(),
        _ => None,
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, operator) = match self {
            Self::Term(term) => return f.write_str(term),
            Self::And(parts) => (parts, " AND "),
            Self::Or(parts) => (parts, " OR "),
        };
        for (place, part) in parts.iter().enumerate() {
            if place > 0 {
                f.write_str(operator)?;
            }
            match part {
                Self::Term(term) => f.write_str(term)?,
                part => write!(f, "({part})")?,
            }
        }
        Ok(())
    }
}

/// Returns the term of the SPDX lists that a short name of a Debian copyright file stands for, if there is one.
pub(crate) fn listed_term(name: &str) -> Option<String> {
    match name.split_once(" with ") {
        None => listed_licence(name),
        Some((licence, exception)) => {
            let exception = exception.strip_suffix(" exception").unwrap_or(exception);
            exception_id(exception)?;
            Some(format!("{} WITH {exception}", listed_licence(licence)?))
        }
    }
}

fn listed_licence(name: &str) -> Option<String> {
    let renamed = match name {
        "Expat" => "MIT",
        "CC0" => "CC0-1.0",
        "Apache-2" => "Apache-2.0",
        "MPL-2" => "MPL-2.0",
        name => name,
    };
    gnu_licence(renamed).or_else(|| {
        let of_name = identifiers::LICENSES
            .iter()
            .find(|licence| licence.name.eq_ignore_ascii_case(renamed))?;
        let id = license_id(of_name.name)?;
        (!id.is_deprecated()).then(|| id.name.to_owned())
    })
}

/// `LGPL-2.1+` is LGPL-2.1-or-later, `GPL-2` is GPL-2.0-only; without a version it is any, as these licences themselves say.
fn gnu_licence(name: &str) -> Option<String> {
    let (name, later) = match name.strip_suffix('+') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let (family, version) = match name.rsplit_once('-') {
        None => (name, None),
        Some((family, version)) => (family, Some(version)),
    };
    let (family, infix) = match family {
        "GFDL-NIV" => ("GFDL", "-no-invariants"),
        family => (family, ""),
    };
    let (version, later) = match (family, version) {
        ("GPL", None) => ("1.0".to_owned(), true),
        ("GPL" | "LGPL" | "AGPL" | "GFDL", Some(version)) if version.contains('.') => {
            (version.to_owned(), later)
        }
        ("GPL" | "LGPL" | "AGPL", Some(version)) => (format!("{version}.0"), later),
        _ => return None,
    };
    let end = if later { "or-later" } else { "only" };
    let id = license_id(&format!("{family}-{version}{infix}-{end}"))?;
    Some(id.name.to_owned())
}

/// Returns what a crate's manifest states, as a valid expression, if it can be made one. Old manifests have a slash for `OR`.
pub(crate) fn stated_by_crate(text: &str) -> Option<String> {
    let canonical = spdx::Expression::canonicalize(text)
        .ok()
        .flatten()
        .unwrap_or_else(|| text.to_owned());
    spdx::Expression::parse_mode(&canonical, ParseMode::STRICT).ok()?;
    Some(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_s_short_names() {
        for (name, expected) in [
            ("Expat", Some("MIT")),
            ("BSD-3-clause", Some("BSD-3-Clause")),
            ("zlib", Some("Zlib")),
            ("GPL", Some("GPL-1.0-or-later")),
            ("GPL-2", Some("GPL-2.0-only")),
            ("GPL-2+", Some("GPL-2.0-or-later")),
            ("GPL-2.0+", Some("GPL-2.0-or-later")),
            ("LGPL-2.1", Some("LGPL-2.1-only")),
            ("LGPL-3+", Some("LGPL-3.0-or-later")),
            ("GFDL-1.3+", Some("GFDL-1.3-or-later")),
            ("GFDL-NIV-1.3+", Some("GFDL-1.3-no-invariants-or-later")),
            (
                "GPL-2 with Linux-syscall-note exception",
                Some("GPL-2.0-only WITH Linux-syscall-note"),
            ),
            ("GPL-2+ with OpenSSL exception", None),
            ("GPL-2+-with-link-exception", None),
            ("GPL-7", None),
            ("public-domain", None),
            ("", None),
        ] {
            assert_eq!(listed_term(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn expressions_nest_and_do_not_repeat() {
        let term = |name: &str| Expression::Term(name.to_owned());
        let choice = Expression::any([term("GPL"), term("BSD"), term("GPL")]).unwrap();
        let inner = Expression::all([term("Zlib"), term("MIT")]).unwrap();
        let both = Expression::all([choice, inner, term("MIT")]).unwrap();
        assert_eq!(both.to_string(), "MIT AND Zlib AND (BSD OR GPL)");
        assert_eq!(
            Expression::all([term("MIT"), term("MIT")]),
            Some(term("MIT"))
        );
        assert_eq!(Expression::any([]), None);
    }

    #[test]
    fn crates_state_expressions_new_and_old() {
        for (text, expected) in [
            ("MIT OR Apache-2.0", Some("MIT OR Apache-2.0")),
            ("MIT/Apache-2.0", Some("MIT OR Apache-2.0")),
            ("Unlicense/MIT", Some("Unlicense OR MIT")),
            ("my own", None),
        ] {
            assert_eq!(stated_by_crate(text).as_deref(), expected, "{text}");
        }
    }
}
