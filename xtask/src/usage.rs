//! How failures reach the person at the terminal: one `error:` line with its causes, a `hint:` where there is a next step,
//! exit code 2 for what was typed wrongly and 1 for everything else.

use std::fmt;
use std::process::ExitCode;

use imagegen::lock::LockError;
use imagegen::make::disk::DiskError;
use imagegen::make::fetch::FetchError;
use imagegen::make::image::ImageError;

use crate::output::ReaderGone;

/// What the user typed cannot be used; says what to type next.
#[derive(Debug)]
pub struct UsageError {
    message: String,
    hint: String,
}

impl UsageError {
    /// Builds the error from what is wrong and what to do about it.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        UsageError {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UsageError {}

/// A failure that is not the user's typing, with a next step.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: String,
}

impl Failure {
    /// Builds the error from what went wrong and what to do about it.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints the chain of causes once and returns the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<ReaderGone>() {
        return ExitCode::SUCCESS;
    }
    say!("{}", report_text(error));
    ExitCode::from(if error.downcast_ref::<UsageError>().is_some() {
        2
    } else {
        1
    })
}

/// Returns what `report` prints.
pub fn report_text(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let text = format!("error: {}", causes.join(": "));
    let text = match hint(error) {
        Some(hint) => format!("{text}\n\nhint: {hint}"),
        None => text,
    };
    without_controls(&text)
}

/// Names and answers of others are part of messages; what terminals take for commands is shown, not obeyed.
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

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        cause
            .downcast_ref::<UsageError>()
            .map(|usage| usage.hint.clone())
            .or_else(|| {
                cause
                    .downcast_ref::<Failure>()
                    .map(|failure| failure.hint.clone())
            })
            .or_else(|| library_hint(cause).map(String::from))
    })
}

fn library_hint(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    cause
        .downcast_ref()
        .and_then(FetchError::hint)
        .or_else(|| cause.downcast_ref().and_then(LockError::hint))
        .or_else(|| cause.downcast_ref().and_then(DiskError::hint))
        .or_else(|| cause.downcast_ref().and_then(ImageError::hint))
}

#[cfg(test)]
mod tests {
    use super::{UsageError, report_text};

    #[test]
    fn terminals_are_not_commanded() {
        let error = UsageError::new("`\u{1b}[31mpi\u{9b}3`\r is\nunknown", "ask\u{7}");
        assert_eq!(
            report_text(&error.into()),
            "error: `\\u{1b}[31mpi\\u{9b}3`\\r is\nunknown\n\nhint: ask\\u{7}"
        );
    }
}
