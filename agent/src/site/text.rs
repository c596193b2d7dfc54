//! Makes plain text of what editors write: Windows' line ends, a mark at the beginning, UTF-16.

/// Returns the text with lines that end in a line feed, the last one too. What is no UTF-16 is not decoded: a network's name may have any
/// bytes.
pub(super) fn mend(bytes: &[u8]) -> Vec<u8> {
    let decoded = match bytes {
        [0xff, 0xfe, rest @ ..] => Some(from_utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Some(from_utf16(rest, u16::from_be_bytes)),
        _ => None,
    };
    let bytes = decoded.as_deref().unwrap_or(bytes);
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // Old Macintoshes end lines with a carriage return alone.
    let end = if bytes.contains(&b'\n') { b'\n' } else { b'\r' };
    let mut text = Vec::with_capacity(bytes.len() + 1);
    for line in bytes.split(|byte| *byte == end) {
        text.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        text.push(b'\n');
    }
    // What is behind the last line end is a line only if there is something.
    if bytes.last().is_none_or(|last| *last == end) {
        text.pop();
    }
    text
}

fn from_utf16(bytes: &[u8], decode: fn([u8; 2]) -> u16) -> Vec<u8> {
    let pairs = bytes.as_chunks::<2>().0;
    let units: Vec<u16> = pairs.iter().map(|pair| decode(*pair)).collect();
    String::from_utf16_lossy(&units).into_bytes()
}

/// Returns the lines of a mended text, counted from 1.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    (1..).zip(text.split(|byte| *byte == b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_write_becomes_plain_text() {
        let utf16 = |mark: [u8; 2], order: fn(u16) -> [u8; 2]| {
            let units = "né\r\n".encode_utf16().flat_map(order);
            mark.into_iter().chain(units).collect::<Vec<u8>>()
        };
        for (written, mended) in [
            (&b""[..], "".as_bytes()),
            (b"a", b"a\n"),
            (b"a\nb\n", b"a\nb\n"),
            (b"\xef\xbb\xbfa\r\nb\r\n\r\n", b"a\nb\n\n"),
            (b"a\rb\r", b"a\nb\n"),
            (b"a\rb\n", b"a\rb\n"),
            (b"\xff\n", b"\xff\n"),
            (&utf16([0xff, 0xfe], u16::to_le_bytes), "né\n".as_bytes()),
            (&utf16([0xfe, 0xff], u16::to_be_bytes), "né\n".as_bytes()),
        ] {
            assert_eq!(mend(written), mended, "{}", written.escape_ascii());
            assert_eq!(mend(mended), mended, "{}", mended.escape_ascii());
        }
    }

    #[test]
    fn lines_are_counted_from_1() {
        let found: Vec<_> = lines(b"a\n\nb\n").collect();
        assert_eq!(found, [(1, &b"a"[..]), (2, b""), (3, b"b")]);
    }
}
