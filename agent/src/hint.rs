//! Errors a user can act on: a message and the next step, kept apart so that `main` can print them on lines of their own.

use std::fmt;

/// An error with advice.
#[derive(Debug)]
pub struct Hinted {
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Hinted {
    /// Returns an error with advice.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Hinted {
        Hinted {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

/// Returns the hint of the first link of the chain that has one.
pub fn hint_of(error: &anyhow::Error) -> Option<&str> {
    error
        .chain()
        .find_map(|link| link.downcast_ref::<Hinted>())
        .map(|hinted| hinted.hint.as_str())
        // A context given through anyhow is not a link of `chain`, only of the error itself.
        .or_else(|| {
            error
                .downcast_ref::<Hinted>()
                .map(|hinted| hinted.hint.as_str())
        })
}

/// Renders an error the way a person reads it: the chain on one line, then the hint of the first link that has one.
pub fn render(error: &anyhow::Error) -> String {
    match hint_of(error) {
        Some(hint) => format!("error: {error:#}\n\nhint: {hint}"),
        None => format!("error: {error:#}"),
    }
}

/// Replaces what a terminal would take for commands: messages quote what others wrote.
pub fn without_controls(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => plain.push(character),
            _ if character.is_control() => plain.extend(character.escape_default()),
            _ => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_hint_is_found_at_any_depth() {
        let inner = anyhow::Error::new(Hinted::new("no such key", "did you mean `uplink`?"))
            .context("while reading x");
        let outer = Err::<(), _>(std::io::Error::other("refused"))
            .context(Hinted::new("cannot bind", "stop the other one"))
            .unwrap_err();
        assert_eq!(
            render(&inner),
            "error: while reading x: no such key\n\nhint: did you mean `uplink`?"
        );
        assert_eq!(
            render(&outer),
            "error: cannot bind: refused\n\nhint: stop the other one"
        );
    }
}
