//! Words of the commands that hints name, so that they can be pasted into a shell as they are.

use std::borrow::Cow;
use std::path::Path;

/// Returns the path as one word of a POSIX shell: in quotes where it has blanks or the like.
#[must_use]
pub fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    // No path has the one character that cannot be quoted, NUL.
    shlex::try_quote(&text).map_or_else(|_| text.to_string(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word() {
        for (path, expected) in [
            ("card.img", "card.img"),
            ("new comer/card.img", "'new comer/card.img'"),
            ("it's.img", "\"it's.img\""),
            ("$HOME/*", "'$HOME/*'"),
        ] {
            assert_eq!(word(Path::new(path)), expected);
        }
    }
}
