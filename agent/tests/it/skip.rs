//! Tests that need what this machine may not have: they say so and pass, unless `REQUIRE_ALL=1` makes that a failure.

use std::path::Path;

/// Says that a test did not run, or fails it if everything has to.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(
        std::env::var("REQUIRE_ALL").as_deref() != Ok("1"),
        "{test} cannot run: {why}"
    );
    eprintln!("SKIPPED: {test}: {why}");
}

/// Returns those of the programs that are not installed.
pub(crate) fn missing_tools<'a>(tools: &[&'a str]) -> Vec<&'a str> {
    let path = search_path();
    let missing = |tool: &&&str| {
        !path
            .split(':')
            .any(|place| Path::new(place).join(tool).is_file())
    };
    tools.iter().filter(missing).copied().collect()
}

/// Returns where programs are looked for: not every ordinary user's path has the administrator's directories.
pub(crate) fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/sbin:/sbin")
}
