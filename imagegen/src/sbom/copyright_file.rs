//! Reads what the copyright file of a Debian package declares, where it is machine-readable (Debian's copyright format 1.0, "DEP-5").
//!
//! The file speaks of the source package: which of the files it names went into a binary package it does not say. So all the licences of
//! all files are taken together, which is more than a binary package falls under rather than less.

use std::collections::BTreeMap;

use crate::deb822::{Stanza, stanzas};
use crate::sbom::licence::{Expression, listed_term};

/// The licences of a package, as far as they are declared in a form that programs read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// An SPDX expression.
    pub(crate) expression: String,
    /// The texts of what the expression calls `LicenseRef-…`, by that name.
    pub(crate) texts: BTreeMap<String, String>,
}

/// Reads a copyright file of a source package; `None` where it is free text.
pub(crate) fn declared_licences(text: &str, source: &str) -> Option<Declared> {
    let stanzas: Vec<Stanza<'_>> = stanzas(text).collect();
    let format = stanzas.first()?.field("Format")?;
    if !format.contains("copyright-format") && !format.contains("dep5") {
        return None;
    }
    let mut naming = Naming {
        source,
        texts: texts_by_name(&stanzas),
        used: BTreeMap::new(),
    };
    let of_files = stanzas
        .iter()
        .filter(|stanza| stanza.field("Files").is_some())
        .filter_map(|stanza| stanza.field("License")?.lines().next())
        .filter_map(|synopsis| naming.expression(synopsis))
        .collect::<Vec<_>>();
    Some(Declared {
        expression: Expression::all(of_files)?.to_string(),
        texts: naming.used,
    })
}

/// The texts of licences by short name: of stanzas of their own, and of those files whose stanza has the text.
fn texts_by_name(stanzas: &[Stanza<'_>]) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for licence in stanzas.iter().filter_map(|stanza| stanza.field("License")) {
        let Some((name, text)) = licence.split_once('\n') else {
            continue;
        };
        let text = unfold(text);
        let all = texts.entry(squeeze(name)).or_default();
        // Two files under one name may differ in whom they name, so both texts count.
        if !all.contains(&text) {
            if !all.is_empty() {
                all.push_str("\n\n");
            }
            all.push_str(&text);
        }
    }
    texts
}

/// Takes off what marks continuation lines: a space, and a dot where the line is empty.
fn unfold(text: &str) -> String {
    let line = |line: &str| {
        let line = line.strip_prefix([' ', '\t']).unwrap_or(line).trim_end();
        if line == "." { "" } else { line }.to_owned()
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn squeeze(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Finds terms for short names, and keeps the texts of those that are on no list.
struct Naming<'a> {
    source: &'a str,
    texts: BTreeMap<String, String>,
    used: BTreeMap<String, String>,
}

impl Naming<'_> {
    /// Reads `A or B, and C`: a comma before an operator binds less than the operator, and `and` binds more than `or`.
    fn expression(&mut self, synopsis: &str) -> Option<Expression> {
        let synopsis = squeeze(synopsis).replace(" and/or ", " or ");
        let all: Vec<_> = synopsis
            .split(", and ")
            .filter_map(|part| self.choice(part))
            .collect();
        Expression::all(all)
    }

    fn choice(&mut self, text: &str) -> Option<Expression> {
        let any: Vec<_> = text
            .split(", or ")
            .flat_map(|part| part.split(" or "))
            .filter_map(|part| {
                let all: Vec<_> = part
                    .split(" and ")
                    .map(|name| name.trim_matches([' ', ',']))
                    .filter(|name| !name.is_empty())
                    .map(|name| self.term(name))
                    .collect();
                Expression::all(all)
            })
            .collect();
        Expression::any(any)
    }

    fn term(&mut self, name: &str) -> Expression {
        Expression::Term(listed_term(name).unwrap_or_else(|| {
            let reference = format!("LicenseRef-{}-{}", plain(self.source), plain(name));
            let text = self.texts.get(name).cloned().unwrap_or_else(|| {
                format!(
                    "The copyright file of the source package {} calls it {name}.",
                    self.source
                )
            });
            self.used.insert(reference.clone(), text);
            reference
        }))
    }
}

/// Makes a text of letters, digits, dots and hyphens, which is what names in SPDX documents are of.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars() {
        match letter {
            '+' => plain.push_str("plus"),
            letter if letter.is_ascii_alphanumeric() || letter == '.' => plain.push(letter),
            _ => plain.push('-'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "Format: https://example.org/copyright-format/1.0/\nSource: x\n";

    fn check(stanzas: &str, expected: Expect) {
        let shown = match declared_licences(&format!("{HEADER}\n{stanzas}"), "libx++") {
            None => "nothing".to_owned(),
            Some(declared) => {
                let texts = declared.texts.iter();
                let texts = texts.map(|(name, text)| format!("\n{name}: {text:?}"));
                declared.expression + &texts.collect::<String>()
            }
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn the_licences_of_all_files_hold_together() {
        check(
            "Files: *\nLicense: BSD-3-clause or GPL-2\n\nFiles: a\nLicense: Expat\n text\n\nFiles: b\nLicense: Expat\n\nLicense: GPL-2\n text",
            expect!["MIT AND (BSD-3-Clause OR GPL-2.0-only)"],
        );
        check(
            "Files: *\nLicense: GPL-2+ or Artistic-2.0, and Expat\n",
            expect!["MIT AND (Artistic-2.0 OR GPL-2.0-or-later)"],
        );
        check(
            "Files: *\nLicense: ISC and Zlib or GPL-3+\n",
            expect!["GPL-3.0-or-later OR (ISC AND Zlib)"],
        );
    }

    #[test]
    fn what_is_on_no_list_comes_with_its_text() {
        check(
            "Files: *\nLicense: public-domain\n Do as\n .\n  you like.\n\nFiles: a\nLicense: own (c++)\n\nFiles: b\nLicense: public-domain\n Another.\n",
            expect![[r#"
                LicenseRef-libxplusplus-own--cplusplus- AND LicenseRef-libxplusplus-public-domain
                LicenseRef-libxplusplus-own--cplusplus-: "The copyright file of the source package libx++ calls it own (c++)."
                LicenseRef-libxplusplus-public-domain: "Do as\n\n you like.\n\nAnother.""#]],
        );
    }

    #[test]
    fn free_text_declares_nothing() {
        assert_eq!(declared_licences("This is free software.\n", "x"), None);
        assert_eq!(
            declared_licences("Upstream: me\n\nFiles: *\nLicense: GPL-2\n", "x"),
            None
        );
        check("License: GPL-2\n no files", expect!["nothing"]);
        check("Files: *\nLicense:\n", expect!["nothing"]);
    }

    proptest! {
        #[test]
        fn whatever_is_declared_is_an_expression(name in "[ -~]{0,40}") {
            if let Some(declared) = declared_licences(&format!("{HEADER}\nFiles: *\nLicense: {name}\n"), "x") {
                let parsed = spdx::Expression::parse(&declared.expression);
                prop_assert!(parsed.is_ok(), "{}", declared.expression);
            }
        }
    }
}
