//! Checks authorized_keys: a line a key. The SSH server passes over a line that it does not understand, without a word to anybody.
//!
//! A line has options, if any, the key's type, the key in base64 (RFC 4253, section 6.6: strings, each with its length, the first one the
//! type again), and a comment.

use super::fault::Finding;
use super::text;

pub(super) const LEFT_OUT: &str = "this key may not log in";

/// The types that the SSH server of the image takes.
const TYPES: &[&str] = &[
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

/// Returns the lines that are good, and what is wrong with the others.
pub(super) fn check(text: &str) -> (Vec<u8>, Vec<Finding>) {
    let mut kept = Vec::with_capacity(text.len());
    let mut findings = Vec::new();
    let mut in_private_key = false;
    for (number, line) in text::lines(text.as_bytes()) {
        let line = String::from_utf8_lossy(line);
        let content = line.trim();
        let is_boundary = content.starts_with("-----") || content.starts_with("---- ");
        if in_private_key {
            in_private_key = !(is_boundary && content.contains("END"));
            continue;
        }
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let wrong = if is_boundary {
            in_private_key = true;
            Some(match content.contains("PRIVATE") {
                true => (
                    "a private key begins here",
                    "take it off the card, for nobody else should have it, and put in the line of the .pub file beside it",
                ),
                false => (
                    "a key in a form of several lines begins here",
                    "put in its one line for authorized_keys; `ssh-keygen -i -f FILE` makes it",
                ),
            })
        } else {
            wrong_with(content)
        };
        match wrong {
            Some((what, next)) => findings.push(Finding::at(number, what, LEFT_OUT, next)),
            None => {
                kept.extend_from_slice(content.as_bytes());
                kept.push(b'\n');
            }
        }
    }
    (kept, findings)
}

/// Returns what is wrong with a line, and what to do.
pub(super) fn wrong_with(line: &str) -> Option<(&'static str, &'static str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some(at) = words.iter().position(|word| TYPES.contains(word)) else {
        return Some((
            "this is no key of a type that the SSH server takes",
            "put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes",
        ));
    };
    let key = words.get(at + 1).and_then(|key| from_base64(key));
    let is_whole = key.is_some_and(|key| is_key(&key, words[at]));
    (!is_whole).then_some((
        "the key is cut off or damaged",
        "copy the line of the .pub file anew, as one line",
    ))
}

/// Whether bytes are strings with their lengths, nothing more, the first one the type.
fn is_key(bytes: &[u8], kind: &str) -> bool {
    let mut rest = bytes;
    let mut strings = 0;
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((string, behind)) = behind.split_at_checked(length) else {
            return false;
        };
        if strings == 0 && string != kind.as_bytes() {
            return false;
        }
        strings += 1;
        rest = behind;
    }
    rest.is_empty() && strings > 1
}

/// Decodes base64 (RFC 4648, section 4).
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let (mut bits, mut held) = (0u32, 0);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@example";

    #[test]
    fn good_lines_are_kept_and_others_named() {
        let text = format!(
            "# keys\n\n  {KEY}\nrestrict,command=\"echo hi\" {KEY}\nssh-dss AAAA me\nhello\n{}\n{}\nssh-ed25519\n\
             -----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n\
             ---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n{KEY}\n",
            KEY.replace("HR4f ", "HR4 "),
            KEY.replacen("ssh-ed25519", "ssh-rsa", 1),
        );
        let (kept, findings) = check(&text);
        assert_eq!(
            String::from_utf8(kept).unwrap(),
            format!("{KEY}\nrestrict,command=\"echo hi\" {KEY}\n{KEY}\n")
        );
        let mut shown = String::new();
        for finding in findings {
            let line = finding.line.unwrap();
            shown += &format!("{line}: {}; {}\n", finding.what, finding.next);
        }
        expect![[r#"
            5: this is no key of a type that the SSH server takes; put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            6: this is no key of a type that the SSH server takes; put in the line of a .pub file, such as `ssh-keygen -t ed25519` makes
            7: the key is cut off or damaged; copy the line of the .pub file anew, as one line
            8: the key is cut off or damaged; copy the line of the .pub file anew, as one line
            9: the key is cut off or damaged; copy the line of the .pub file anew, as one line
            10: a private key begins here; take it off the card, for nobody else should have it, and put in the line of the .pub file beside it
            13: a key in a form of several lines begins here; put in its one line for authorized_keys; `ssh-keygen -i -f FILE` makes it
        "#]].assert_eq(&shown);
    }

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9vYmE=", Some(b"fooba")),
            ("+/+/", Some(&[0xfb, 0xff, 0xbf])),
            ("Zg=", None),
            ("Z===", None),
            ("Zm-v", None),
        ] {
            assert_eq!(from_base64(text).as_deref(), bytes, "{text}");
        }
    }
}
