//! Other people's programs that read what we write. A missing one skips its test, or fails it under `REQUIRE_ALL=1`.

use std::path::Path;
use std::process::Command;

/// Where system administration programs are, which an ordinary user's `PATH` may lack.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Whether a test's programs are all here; says which one is not.
pub(crate) fn available(test: &str, programs: &[&str]) -> bool {
    let missing = programs
        .iter()
        .find(|program| !search_path().any(|dir| dir.join(program).is_file()));
    if let Some(program) = missing {
        skip(test, &format!("{program} is not installed"));
    }
    missing.is_none()
}

/// Says that a test could not run.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os("REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{test} cannot run: {why}"
    );
    eprintln!("SKIPPED: {test}: {why}");
}

/// Runs a program that has to succeed and returns what it printed.
pub(crate) fn run(directory: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(directory)
        .env("PATH", std::env::join_paths(search_path()).unwrap())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("MTOOLS_SKIP_CHECK", "0")
        .output()
        .unwrap_or_else(|err| panic!("{program}: {err}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

fn search_path() -> impl Iterator<Item = std::path::PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&own)
        .chain(SYSTEM_DIRECTORIES.map(Into::into))
        .collect::<Vec<_>>()
        .into_iter()
}
