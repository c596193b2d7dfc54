//! What the program says to a person, and its exit codes: 0, 1 for a failure, 2 for a command line nobody can follow.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use expect_test::{Expect, expect};

/// Runs the program in `dir` and compares its exit code, stdout and stderr.
fn check(dir: &Path, arguments: &[&str], expected: Expect) {
    let output = Command::new(env!("CARGO_BIN_EXE_footbridge"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("FOOTBRIDGE_LOG")
        .env_remove("NOTIFY_SOCKET")
        .output()
        .unwrap();
    let code = output.status.code().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    expected.assert_eq(&format!("{code}\n{stdout}{stderr}"));
}

#[test]
fn check_says_whether_a_file_is_good() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("good.toml"),
        "uplink = \"wlan0\"\ndownlink = \"eth0\"\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("bad.toml"), "up-link = \"wlan0\"\n").unwrap();
    check(
        dir.path(),
        &["check", "--config", "good.toml"],
        expect![[r#"
            0
            good.toml: good: joins eth0 to the network of wlan0
        "#]],
    );
    check(
        dir.path(),
        &["check", "--config", "bad.toml"],
        expect![[r#"
            1
            error: while reading bad.toml: unknown key `up-link`

            hint: did you mean `uplink`?
        "#]],
    );
    check(
        dir.path(),
        &["check", "--config", "none.toml"],
        expect![[r#"
            1
            error: while reading none.toml: No such file or directory (os error 2)

            hint: does the file exist, and may this user read it?
        "#]],
    );
}

#[test]
fn check_reads_what_comes_through_a_pipe() {
    let mut check = Command::new(env!("CARGO_BIN_EXE_footbridge"))
        .args(["check", "--config", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = check.stdin.take().unwrap();
    let text = b"uplink = \"wlan0\"\ndownlink = \"eth0\"\n";
    stdin.write_all(text).unwrap();
    drop(stdin);
    let output = check.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "/dev/stdin: good: joins eth0 to the network of wlan0\n"
    );
}

#[test]
fn a_file_that_cannot_be_the_configuration_is_not_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let huge = std::fs::File::create(dir.path().join("huge.toml")).unwrap();
    huge.set_len(1 << 30).unwrap();
    check(
        dir.path(),
        &["check", "--config", "huge.toml"],
        expect![[r#"
            1
            error: while reading huge.toml: it is longer than 64 KiB

            hint: is this the configuration file? It has a few lines
        "#]],
    );
    check(
        dir.path(),
        &["run", "--run-dir", "run", "--config", "/dev/zero"],
        expect![[r#"
            1
            error: while reading /dev/zero: it is not a regular file

            hint: name the configuration file itself: no directory, pipe or device
        "#]],
    );
}

#[test]
fn status_without_an_agent_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    check(
        dir.path(),
        &["status", "--run-dir", "run"],
        expect![[r#"
            1
            error: while connecting to run/status.sock: No such file or directory (os error 2)

            hint: is the agent running, and may this user ask it? Try `systemctl status footbridge`, or sudo
        "#]],
    );
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    check(
        dir.path(),
        &["run", "--uplnk", "wlan0"],
        expect![[r#"
            2
            error: unexpected argument '--uplnk' found

              tip: a similar argument exists: '--uplink'

            Usage: footbridge run --uplink <NAME>

            For more information, try '--help'.
        "#]],
    );
}

/// A key with a terminal's commands in it is shown, not obeyed.
#[test]
fn terminals_are_not_commanded() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("loud.toml"), "\"\\u001b[31mx\" = 1\n").unwrap();
    check(
        dir.path(),
        &["check", "--config", "loud.toml"],
        expect![[r#"
            1
            error: while reading loud.toml: unknown key `\u{1b}[31mx`

            hint: the keys are `uplink`, `downlink`, `dhcp`, `discovery`, `wired`, `wifi`, `fleet`
        "#]],
    );
}

#[test]
fn run_needs_two_interfaces_and_a_log_level() {
    let dir = tempfile::tempdir().unwrap();
    check(
        dir.path(),
        &["run", "--uplink", "wlan0"],
        expect![[r#"
            1
            error: while reading the command line: no downlink interface is named

            hint: give --downlink NAME, or `downlink = "NAME"` in the configuration file; `ip link` lists the names
        "#]],
    );
    check(
        dir.path(),
        &[
            "run",
            "--uplink",
            "wlan0",
            "--downlink",
            "eth0",
            "--log",
            "loud",
        ],
        expect![[r#"
            2
            error: invalid value 'loud' for '--log <LEVEL>': use one of trace, debug, info, warn, error, off

            For more information, try '--help'.
        "#]],
    );
}
