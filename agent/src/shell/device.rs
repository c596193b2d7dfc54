//! What tells this machine from others, as the system has it: its host name, its processor's number, its image; and for how long it
//! has been on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::engine::Device;
use crate::plain_file::read_plain_file;

/// More than any of these files has.
const LONGEST_FILE: usize = 16 << 10;
/// More than a name needs, in characters.
const LONGEST_WORD: usize = 64;

/// Reads what there is; what is missing is left out.
pub(crate) fn load_device() -> Device {
    let word = |path: &str| word(&fs::read(path).ok()?);
    let release = read_plain_file(Path::new("/etc/os-release"), LONGEST_FILE);
    let release = release.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    Device {
        hostname: word("/proc/sys/kernel/hostname").unwrap_or_default(),
        serial: word("/proc/device-tree/serial-number"),
        image: release.ok().and_then(|text| parse_image(&text)),
    }
}

/// Returns for how long the machine has been on.
pub(crate) fn uptime() -> Option<Duration> {
    parse_uptime(&fs::read_to_string("/proc/uptime").ok()?)
}

/// Returns the words that a file consists of, without what ends them (a device tree's end with a zero) or is no text.
fn word(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let word = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    let plain = word.chars().filter(|c| !c.is_control()).take(LONGEST_WORD);
    Some(plain.collect()).filter(|word: &String| !word.is_empty())
}

/// Returns `IMAGE_ID` and `IMAGE_VERSION` (os-release(5)), if it says which image it is.
fn parse_image(release: &str) -> Option<String> {
    let value = |key: &str| {
        let mut lines = release.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        word(value.trim_matches(['"', '\'']).as_bytes())
    };
    let version = value("IMAGE_VERSION").map_or_else(String::new, |version| format!(" {version}"));
    Some(value("IMAGE_ID")? + &version)
}

/// Returns the first number, which is in seconds (proc(5)).
fn parse_uptime(text: &str) -> Option<Duration> {
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_has_is_made_words() {
        assert_eq!(
            word(b"10000000abcdef01\0"),
            Some("10000000abcdef01".to_owned())
        );
        assert_eq!(word(b"hall-1\n"), Some("hall-1".to_owned()));
        assert_eq!(word(b"\x1b[31m\xff\n"), Some("[31m\u{fffd}".to_owned()));
        assert_eq!(word(b" \n"), None);
        assert_eq!(
            word(&[b'x'; 100]).map(|word| word.len()),
            Some(LONGEST_WORD)
        );
    }

    #[test]
    fn an_image_says_which_it_is() {
        let release = "ID=debian\nIMAGE_ID=\"footbridge-pi3\"\nIMAGE_VERSION=13-1a2b\n";
        let cases = [
            (release, Some("footbridge-pi3 13-1a2b")),
            ("IMAGE_ID=x\n", Some("x")),
            ("ID=debian\nIMAGE_IDENTITY=x\n", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_image(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_first_number_is_the_time() {
        assert_eq!(
            parse_uptime("12.50 20.00\n"),
            Some(Duration::from_millis(12_500))
        );
        for text in ["", "x", "-1 2", "nan 1", "1e300 0"] {
            assert_eq!(parse_uptime(text), None, "{text}");
        }
    }
}
