//! Builds that are ended from outside while they wait for a mirror that never answers.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use expect_test::expect;

use crate::command::Desk;

/// Starts a build and returns once it waits for the mirror's answer; the mirror lives as long as what is returned.
///
/// Each build has a mirror of its own: packages are asked for several at a time, and what one build left waiting is not the next one's.
fn waiting_build(desk: &Desk) -> (Child, (TcpListener, TcpStream)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mirror = format!("http://{}/debian", listener.local_addr().unwrap());
    let child = desk
        .command(&[
            "image", "--board", "pi3", "--ssid", "x", "--open", "--output", "card.img", "--mirror",
            &mirror,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (connection, _) = listener.accept().unwrap();
    (child, (listener, connection))
}

/// The image, its block map and its checksum, two bills, licences and provenance.
const DRAFTS: usize = 7;

/// The names of what the build made on the desk, but for the cache.
fn names(desk: &Desk) -> Vec<String> {
    let mut names = desk.names();
    names.retain(|name| name != "cache");
    names
}

fn signal(name: &str, child: &Child) {
    let status = Command::new("sh")
        .args(["-c", "kill -\"$0\" \"$1\"", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn an_interruption_is_said_and_leaves_nothing() {
    for name in ["INT", "TERM", "HUP"] {
        let desk = Desk::new();
        let old = desk.put("card.img", "old");
        let (child, _mirror) = waiting_build(&desk);
        // Beside the old image.
        assert_eq!(names(&desk).len(), DRAFTS + 1, "{:?}", names(&desk));
        signal(name, &child);
        let told = desk.told(&child.wait_with_output().unwrap());
        let (steps, rest) = told.split_once("\n\n").unwrap();
        // The first build of a checkout has an agent to build. How many packages there are is the lock's affair.
        let steps: Vec<&str> = steps.lines().collect();
        let fetching = match steps[..] {
            [building, fetching] if building.starts_with("building the agent for ") => fetching,
            [fetching] => fetching,
            _ => panic!("{steps:?}"),
        };
        assert!(
            fetching.starts_with("fetching ") && fetching.ends_with(" packages"),
            "{fetching}"
        );
        expect![[r#"
            interrupted; card.img was not written
            exit code 130"#]]
        .assert_eq(rest);
        assert_eq!(names(&desk), ["card.img"]);
        assert_eq!(fs::read(old).unwrap(), b"old");
    }
}

#[test]
fn what_a_killed_build_leaves_goes_with_the_next() {
    let desk = Desk::new();
    let (mut killed, _mirror) = waiting_build(&desk);
    signal("KILL", &killed);
    killed.wait().unwrap();
    let left = names(&desk);
    assert_eq!(left.len(), DRAFTS, "{left:?}");
    assert!(
        left.iter()
            .all(|name| name.starts_with(".card.img.") && name.ends_with(".part")),
        "{left:?}"
    );

    let (child, _mirror) = waiting_build(&desk);
    assert!(
        !names(&desk).iter().any(|name| left.contains(name)),
        "{:?}",
        names(&desk)
    );
    signal("INT", &child);
    child.wait_with_output().unwrap();
    assert_eq!(names(&desk), [""; 0]);
}

/// A signal to the command alone ends what it runs, and what that runs: all of them hold the pipe that is read here to its end.
#[test]
fn what_was_started_ends_too() {
    let desk = Desk::new();
    let compiler = "#!/bin/sh\necho started >&2\nsleep 60\necho survived >&2\n";
    let rustc = desk.put("rustc", compiler);
    fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut child = desk
        .command(&["agent", "--offline", "--std", "rustup"])
        .env("PATH", format!("{}:{path}", desk.path().display()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while line != "started\n" {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0);
    }
    signal("TERM", &child);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\ninterrupted\n");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
