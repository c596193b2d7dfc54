//! A window on a part of a file: what is behind it is not there, as it is not for whoever mounts a partition.

use std::io::{self, Read, Seek, SeekFrom};

/// A part of a source; positions count from its beginning.
pub(super) struct Window<R> {
    source: R,
    offset: u64,
    size: u64,
    position: u64,
}

impl<R: Read + Seek> Window<R> {
    /// The bytes of a source from an offset on, at most `size` of them.
    pub(super) fn new(source: R, offset: u64, size: u64) -> Self {
        Self {
            source,
            offset,
            size,
            position: 0,
        }
    }

    /// Where it ends: with the source, if that is shorter.
    fn end(&mut self) -> io::Result<u64> {
        let source = self.source.seek(SeekFrom::End(0))?;
        Ok(source.saturating_sub(self.offset).min(self.size))
    }
}

impl<R: Read + Seek> Read for Window<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.position);
        // A partition that is larger than memory is no limit for a buffer in it.
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let at = self.offset.checked_add(self.position);
        let at = at.ok_or(io::ErrorKind::InvalidInput)?;
        self.source.seek(SeekFrom::Start(at))?;
        let read = self.source.read(&mut buffer[..wanted])?;
        self.position += read as u64;
        Ok(read)
    }
}

impl<R: Read + Seek> Seek for Window<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.end()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn what_is_around_it_is_not_there() {
        let read = |offset, size, to: SeekFrom| {
            let mut window = Window::new(Cursor::new(b"0123456789"), offset, size);
            let at = window.seek(to).unwrap();
            let mut text = String::new();
            window.read_to_string(&mut text).unwrap();
            (at, text)
        };
        for (offset, size, to, expected) in [
            (2, 3, SeekFrom::Start(0), (0, "234")),
            (2, 3, SeekFrom::End(-1), (2, "4")),
            (2, 3, SeekFrom::Current(1), (1, "34")),
            (2, 3, SeekFrom::Start(7), (7, "")),
            (8, 9, SeekFrom::End(-2), (0, "89")),
            (12, 9, SeekFrom::End(0), (0, "")),
        ] {
            let expected = (expected.0, expected.1.to_owned());
            assert_eq!(read(offset, size, to), expected, "{offset} {size} {to:?}");
        }
        let mut window = Window::new(Cursor::new(b"0123"), 1, 2);
        assert!(window.seek(SeekFrom::End(-3)).is_err());
    }
}
