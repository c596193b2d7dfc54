//! Mirrors that are none, are not there, or serve what Debian did not sign.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use expect_test::{Expect, expect};

use crate::command::Desk;

/// Serves one answer to every request until the process ends; returns the mirror's address.
fn serve(status: &'static str, body: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The client may hang up, which is its good right.
            let _ = answer(stream, status, body);
        }
    });
    format!("http://{address}/debian")
}

fn answer(mut stream: TcpStream, status: &str, body: &[u8]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(body)
}

const IMAGE: &[&str] = &[
    "image", "--board", "pi3", "--ssid", "x", "--open", "--output", "card.img",
];

/// Checks what building an image comes to.
fn check(mirror: &str, more: &[&str], expected: Expect) {
    check_command(mirror, &[IMAGE, more].concat(), expected);
}

/// Checks what comparing the locks with a mirror comes to: each architecture is told about, and then those that failed.
fn check_lock(mirror: &str, more: &[&str], expected: Expect) {
    check_command(mirror, &[&["lock", "--check"], more].concat(), expected);
}

fn check_command(mirror: &str, args: &[&str], expected: Expect) {
    let desk = Desk::new();
    let told = desk.run(&[args, &["--mirror", mirror]].concat());
    let told = told.replace(&format!("{mirror}/"), "MIRROR/");
    expected.assert_eq(
        &told
            .lines()
            .map(without_version)
            .collect::<Vec<_>>()
            .join("\n"),
    );
    let left = desk.names();
    assert!(left.iter().all(|name| name == "cache"), "{left:?}");
}

/// Which package is asked for first, and how many there are, is the lock's affair.
fn without_version(line: &str) -> String {
    match line.split_once(" is not at MIRROR/pool/") {
        Some(_) => "error: package NAME is not at MIRROR/pool/FILE any more".to_owned(),
        None if line.starts_with("fetching ") && line.ends_with(" packages") => {
            "fetching packages".to_owned()
        }
        None if line.contains(" is not in the cache ") => {
            "error: package NAME is not in the cache".to_owned()
        }
        None => line.to_owned(),
    }
}

#[test]
fn addresses_that_are_none() {
    check(
        "nonsense",
        &[],
        expect![[r#"
        error: a mirror's address begins with http:// or https:// and a host, and has no blanks

        hint: for example: --mirror http://192.0.2.1/debian, the folder that has dists/trixie in it
        exit code 2"#]],
    );
    check(
        "ftp://host/debian",
        &[],
        expect![[r#"
        error: a mirror's address begins with http:// or https:// and a host, and has no blanks

        hint: for example: --mirror http://192.0.2.1/debian, the folder that has dists/trixie in it
        exit code 2"#]],
    );
    check(
        "http://",
        &[],
        expect![[r#"
        error: a mirror's address begins with http:// or https:// and a host, and has no blanks

        hint: for example: --mirror http://192.0.2.1/debian, the folder that has dists/trixie in it
        exit code 2"#]],
    );
    check(
        "http://host name/",
        &[],
        expect![[r#"
        error: a mirror's address begins with http:// or https:// and a host, and has no blanks

        hint: for example: --mirror http://192.0.2.1/debian, the folder that has dists/trixie in it
        exit code 2"#]],
    );
}

#[test]
fn a_mirror_without_debian() {
    check(
        &serve("404 Not Found", b""),
        &[],
        expect![[r#"
            fetching packages
            error: package NAME is not at MIRROR/pool/FILE any more

            hint: `cargo xtask lock` takes the versions of today; --archive URL names an archive of old versions
            exit code 1"#]],
    );
}

#[test]
fn a_mirror_without_debian_changes_no_lock() {
    check_lock(
        &serve("404 Not Found", b""),
        &[],
        expect![[r#"
        fetching the release of trixie
        arm64: error: failed to fetch the release of trixie from MIRROR/dists/trixie/InRelease (attempt 1): the mirror answered with status 404

        hint: check the network, or name another mirror with --mirror
        fetching the release of trixie
        armel: error: failed to fetch the release of trixie from MIRROR/dists/trixie/InRelease (attempt 1): the mirror answered with status 404

        hint: check the network, or name another mirror with --mirror
        fetching the release of trixie
        armhf: error: failed to fetch the release of trixie from MIRROR/dists/trixie/InRelease (attempt 1): the mirror answered with status 404

        hint: check the network, or name another mirror with --mirror
        error: nothing was locked for arm64, armel, armhf

        hint: the reason is above; what was locked before stays as it is
        exit code 1"#]],
    );
}

#[test]
fn releases_that_debian_did_not_sign() {
    check_lock(
        &serve(
            "200 OK",
            b"Origin: Debian\nSuite: stable\nCodename: trixie\n",
        ),
        &[],
        expect![[r#"
            fetching the release of trixie
            arm64: error: refusing the release of trixie from MIRROR/dists/trixie/InRelease: the InRelease file is not one signed text: it does not begin with the signed part

            hint: name another mirror with --mirror
            fetching the release of trixie
            armel: error: refusing the release of trixie from MIRROR/dists/trixie/InRelease: the InRelease file is not one signed text: it does not begin with the signed part

            hint: name another mirror with --mirror
            fetching the release of trixie
            armhf: error: refusing the release of trixie from MIRROR/dists/trixie/InRelease: the InRelease file is not one signed text: it does not begin with the signed part

            hint: name another mirror with --mirror
            error: nothing was locked for arm64, armel, armhf

            hint: the reason is above; what was locked before stays as it is
            exit code 1"#]],
    );
    check_lock(
        &serve("200 OK", b"\x1b[31m\x00\xff"),
        &[],
        expect![[r#"
            fetching the release of trixie
            arm64: error: refusing the release of trixie from MIRROR/dists/trixie/InRelease: the InRelease file is not one signed text: it is not UTF-8

            hint: name another mirror with --mirror
            fetching the release of trixie
            armel: error: refusing the release of trixie from MIRROR/dists/trixie/InRelease: the InRelease file is not one signed text: it is not UTF-8

            hint: name another mirror with --mirror
            fetching the release of trixie
            armhf: error: refusing the release of trixie from MIRROR/dists/trixie/InRelease: the InRelease file is not one signed text: it is not UTF-8

            hint: name another mirror with --mirror
            error: nothing was locked for arm64, armel, armhf

            hint: the reason is above; what was locked before stays as it is
            exit code 1"#]],
    );
}

#[test]
fn an_empty_cache_and_no_network_allowed() {
    check(
        "http://127.0.0.1:1/debian",
        &["--offline"],
        expect![[r#"
            fetching packages
            error: package NAME is not in the cache

            hint: run the same command once without --offline
            exit code 1"#]],
    );
}

/// A mirror's address may hold a name and a password.
#[test]
fn a_password_in_an_address_is_not_repeated() {
    let mirror = serve("404 Not Found", b"").replace("http://", "http://me:hush@");
    let desk = Desk::new();
    let told = desk.run(&["lock", "--check", "--mirror", &mirror]);
    assert!(told.contains("404"), "{told}");
    assert!(!told.contains("hush"), "{told}");
}
