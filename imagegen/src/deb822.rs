//! Reads Debian's control format (deb822): stanzas of `Field: value`, separated by blank lines, values continued on indented lines.
//!
//! A stanza borrows from the text, so that a list of 60,000 packages costs no copies. Values keep their line breaks; what they mean is the
//! caller's business. Comment lines (`#`) are skipped, as `.sources` files have them.

/// One stanza: fields in the order of the text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stanza<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Stanza<'a> {
    /// Returns a field's value without surrounding space; names are compared without regard to case.
    pub(crate) fn field(&self, name: &str) -> Option<&'a str> {
        let found = self
            .fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }
}

/// Iterates over the stanzas of a text. Lines that belong to no field are skipped: a reader for lists whose signature was checked need not
/// be a validator, and the callers insist on the fields that they use.
pub(crate) fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let fields = take_stanza(&mut rest);
            if !fields.is_empty() {
                return Some(Stanza { fields });
            }
        }
    })
}

/// Consumes the lines up to and including the next blank one.
fn take_stanza<'a>(rest: &mut &'a str) -> Vec<(&'a str, &'a str)> {
    let mut fields = Vec::new();
    // The field being read: its name, and where its value begins and ends so far (offsets into `text`).
    let mut current: Option<(&str, usize, usize)> = None;
    let text = *rest;
    let mut position = 0;
    while position < text.len() {
        let start = position;
        let end = text[start..]
            .find('\n')
            .map_or(text.len(), |length| start + length);
        position = (end + 1).min(text.len());
        let line = &text[start..end];
        if line.trim().is_empty() {
            break;
        } else if line.starts_with('#') {
            continue;
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, _, value_end)) = &mut current {
                *value_end = end;
            }
        } else {
            fields.extend(
                current
                    .take()
                    .map(|(name, from, to)| (name, &text[from..to])),
            );
            current = line
                .find(':')
                .map(|colon| (line[..colon].trim_end(), start + colon + 1, end));
        }
    }
    fields.extend(current.map(|(name, from, to)| (name, &text[from..to])));
    *rest = &text[position..];
    fields
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Expect) {
        let mut shown = String::new();
        for stanza in stanzas(text) {
            for (name, value) in &stanza.fields {
                shown.push_str(&format!("{name:?}={:?}\n", value.trim()));
            }
            shown.push_str("--\n");
        }
        expected.assert_eq(&shown);
    }

    #[test]
    fn stanzas_fields_and_continuations() {
        check(
            "\n\nPackage: a\nDepends: b,\n c\nEmpty:\n\n \nPackage: z\n# a comment\nX-Url: http://h/p:1",
            expect![[r#"
                "Package"="a"
                "Depends"="b,\n c"
                "Empty"=""
                --
                "Package"="z"
                "X-Url"="http://h/p:1"
                --
            "#]],
        );
    }

    #[test]
    fn lines_outside_of_any_field_are_skipped() {
        check(
            "no colon\n indented\nA: 1\r\n\r\nB: 2\n",
            expect![[r#"
            "A"="1"
            --
            "B"="2"
            --
        "#]],
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "([A-Za-z:# \n\u{e9}]{0,12}\n){0,20}") {
            prop_assert!(stanzas(&text).count() <= text.len());
        }

        #[test]
        fn what_was_written_is_read_back(fields in proptest::collection::btree_map("[A-Z][a-z-]{0,8}", "[a-z0-9 .:]{0,20}", 1..8)) {
            let text: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            let read: Vec<Stanza<'_>> = stanzas(&text).collect();
            prop_assert_eq!(read.len(), 1);
            for (name, value) in &fields {
                prop_assert_eq!(read[0].field(name), Some(value.trim()));
            }
        }
    }
}
