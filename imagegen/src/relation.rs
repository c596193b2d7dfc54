//! Relations between packages: `Depends: a (>= 1) | b, c:any` and its kin (Debian Policy, chapter 7), and `Provides`.
//!
//! Says what a relation demands and whether a version meets it; which package to take is `resolve`'s business. Restriction lists in
//! `[..]` and `<..>` occur in source packages only and are refused.

use std::cmp::Ordering;
use std::fmt;

use debversion::Version;

/// One alternative of a dependency: a name and, perhaps, a demand on its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The name of a real or virtual package.
    pub name: String,
    /// The version demanded.
    pub constraint: Option<Constraint>,
}

/// A demand on a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// How to compare.
    pub operator: Operator,
    /// What to compare with.
    pub version: Version,
}

/// The five comparisons of Debian's relations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// A name that a package provides, and the version it provides it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provided {
    /// The provided name.
    pub name: String,
    /// Its version, when the package says one.
    pub version: Option<Version>,
}

/// The text is not a relation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a package relation")]
pub struct ParseRelationError(String);

/// Parses a relation field: all the groups must hold, one alternative of each is enough.
pub fn parse_relations(field: &str) -> Result<Vec<Vec<Relation>>, ParseRelationError> {
    let groups = field
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty());
    groups
        .map(|group| group.split('|').map(parse_relation).collect())
        .collect()
}

/// Parses a `Provides` field.
pub fn parse_provides(field: &str) -> Result<Vec<Provided>, ParseRelationError> {
    let entries = field
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    entries.map(parse_provided).collect()
}

impl Relation {
    /// Tells whether a real package's version is good enough.
    pub fn admits(&self, version: &Version) -> bool {
        self.constraint
            .as_ref()
            .is_none_or(|constraint| constraint.admits(version))
    }

    /// Tells whether a provided name is good enough: one provided without a version never meets a demand on the version.
    pub fn admits_provided(&self, provided: &Provided) -> bool {
        match (&self.constraint, &provided.version) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(constraint), Some(version)) => constraint.admits(version),
        }
    }
}

impl Constraint {
    /// Tells whether a version meets the demand.
    pub fn admits(&self, version: &Version) -> bool {
        let order = version.cmp(&self.version);
        match self.operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }
}

fn parse_relation(text: &str) -> Result<Relation, ParseRelationError> {
    let text = text.trim();
    let refuse = || ParseRelationError(text.to_owned());
    let (name, constraint) = match text.split_once('(') {
        None => (text, None),
        Some((name, rest)) => {
            let inside = rest.strip_suffix(')').ok_or_else(refuse)?;
            (
                name.trim_end(),
                Some(parse_constraint(inside).ok_or_else(refuse)?),
            )
        }
    };
    // `:any` only says that another architecture's package would do as well; an image has one architecture.
    let name = name.strip_suffix(":any").unwrap_or(name);
    if !is_package_name(name) {
        return Err(refuse());
    }
    Ok(Relation {
        name: name.to_owned(),
        constraint,
    })
}

fn parse_constraint(text: &str) -> Option<Constraint> {
    let text = text.trim();
    let split = text.find(|c| !matches!(c, '<' | '=' | '>'))?;
    let operator = match &text[..split] {
        "<<" => Operator::Earlier,
        "<=" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return None,
    };
    let version = text[split..].trim().parse().ok()?;
    Some(Constraint { operator, version })
}

fn parse_provided(text: &str) -> Result<Provided, ParseRelationError> {
    let refuse = || ParseRelationError(text.to_owned());
    let relation = parse_relation(text)?;
    let version = match relation.constraint {
        None => None,
        Some(Constraint {
            operator: Operator::Equal,
            version,
        }) => Some(version),
        Some(_) => return Err(refuse()),
    };
    Ok(Provided {
        name: relation.name,
        version,
    })
}

/// Tells whether a text could be the name of a package (Debian Policy 5.6.7; single letters occur in tests only).
pub fn is_package_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_' | b':');
    text.bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(allowed)
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.constraint {
            None => write!(f, "{}", self.name),
            Some(Constraint { operator, version }) => {
                write!(f, "{} ({operator} {version})", self.name)
            }
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(field: &str, expected: Expect) {
        expected.assert_eq(&match parse_relations(field) {
            Err(error) => error.to_string(),
            Ok(groups) => {
                let alternatives = |group: &Vec<Relation>| {
                    group
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(" | ")
                };
                groups
                    .iter()
                    .map(alternatives)
                    .collect::<Vec<_>>()
                    .join("; ")
            }
        });
    }

    #[test]
    fn relation_fields() {
        check("", expect![""]);
        check(
            "libc6 (>= 2.38), adduser",
            expect!["libc6 (>= 2.38); adduser"],
        );
        check(
            "a(<<1:2~rc1-3)|b:any (= 2) ,\n c++",
            expect!["a (<< 1:2~rc1-3) | b (= 2); c++"],
        );
        check("a (~ 1)", expect!["`a (~ 1)` is not a package relation"]);
        check("a (>= 1", expect!["`a (>= 1` is not a package relation"]);
        check(
            "a [arm64]",
            expect!["`a [arm64]` is not a package relation"],
        );
        check("a || b", expect!["`` is not a package relation"]);
    }

    #[test]
    fn every_operator_against_an_earlier_an_equal_and_a_later_version() {
        let mut shown = String::new();
        for operator in ["<<", "<=", "=", ">=", ">>"] {
            let relation = parse_relation(&format!("a ({operator} 1.0-1)")).unwrap();
            let admits = ["1.0~rc1-1", "1.0-1", "1.0-1+b1"]
                .map(|version| relation.admits(&version.parse().unwrap()));
            shown.push_str(&format!("{operator} {admits:?}\n"));
        }
        expect![[r#"
            << [true, false, false]
            <= [true, true, false]
            = [false, true, false]
            >= [false, true, true]
            >> [false, false, true]
        "#]]
        .assert_eq(&shown);
    }

    #[test]
    fn a_provided_name_without_version_meets_no_demand_on_the_version() {
        let provides = parse_provides("mta, libfoo (= 2)").unwrap();
        let any = parse_relation("mta").unwrap();
        let at_least = parse_relation("mta (>= 0)").unwrap();
        assert!(any.admits_provided(&provides[0]));
        assert!(!at_least.admits_provided(&provides[0]));
        assert!(
            parse_relation("libfoo (>= 1.9)")
                .unwrap()
                .admits_provided(&provides[1])
        );
        assert!(parse_provides("libfoo (>= 2)").is_err());
    }

    proptest! {
        #[test]
        fn any_field_is_parsed_without_a_panic(field in "[a-z0-9.+:|,()<>= ~\\[\\]\u{e9}-]{0,40}") {
            let _ = parse_relations(&field);
            let _ = parse_provides(&field);
        }

        #[test]
        fn what_is_shown_is_parsed_back(name in "[a-z][a-z0-9+.-]{1,8}", version in "([1-3]:)?[0-9][0-9a-z.~]{0,6}(-[0-9])?") {
            let relation = Relation {
                name,
                constraint: Some(Constraint { operator: Operator::LaterOrEqual, version: version.parse().unwrap() }),
            };
            prop_assert_eq!(parse_relation(&relation.to_string()), Ok(relation));
        }
    }
}
