//! Checks the host name: one label (RFC 1123, section 2.1).

use super::fault::Finding;
use super::text;

pub(super) const WHAT: &str = "this is no host name";
pub(super) const NEXT: &str = "write 1 to 63 letters, digits and hyphens, none of those at an end";

const DEFAULT: &str = "the device is called footbridge";

/// Returns the file with the name alone, if it is one, and what is wrong. Blank lines and comments are passed over, as systemd does.
pub(super) fn check(text: &str) -> (Option<Vec<u8>>, Vec<Finding>) {
    let lines = text::lines(text.as_bytes())
        .map(|(number, line)| (number, String::from_utf8_lossy(line).trim().to_owned()));
    let mut names = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let Some((number, name)) = names.next() else {
        return (None, vec![Finding::of_file("it is empty", DEFAULT, NEXT)]);
    };
    let Some(name) = parse(&name) else {
        return (None, vec![Finding::at(number, WHAT, DEFAULT, NEXT)]);
    };
    let more = names.next().map(|(number, _)| {
        Finding::at(
            number,
            "there is more than one name",
            "the first one counts",
            "delete the others",
        )
    });
    (
        Some(format!("{name}\n").into_bytes()),
        more.into_iter().collect(),
    )
}

/// Returns the name, if it is one.
pub(super) fn parse(text: &str) -> Option<&str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let ends_fit = !text.starts_with('-') && !text.ends_with('-');
    ((1..=63).contains(&text.len()) && text.bytes().all(allowed) && ends_fit).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_on_a_line() {
        for (text, name, line) in [
            ("attic\n", Some("attic\n"), None),
            ("# mine\n\n  attic-2  \n", Some("attic-2\n"), None),
            ("attic\ncellar\n", Some("attic\n"), Some(2)),
            ("my attic\n", None, Some(1)),
            ("#\nattic.example.org\n", None, Some(2)),
            ("-attic\n", None, Some(1)),
            ("caf\u{e9}\n", None, Some(1)),
        ] {
            let (kept, findings) = check(text);
            let kept = kept.map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(kept.as_deref(), name, "{text}");
            let lines: Vec<_> = findings.iter().map(|finding| finding.line).collect();
            assert_eq!(lines, Vec::from_iter(line.map(Some)), "{text}");
        }
        let long = "a".repeat(64);
        assert_eq!((parse(&long), parse(&long[1..])), (None, Some(&long[1..])));
        assert_eq!(check("\n").1.len(), 1);
    }
}
