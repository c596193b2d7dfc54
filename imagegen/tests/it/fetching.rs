//! From a mirror to the cache: what is served well arrives, what is not is refused with a reason and leaves nothing under a final name.
//! What somebody would serve on purpose to do harm is in `hostile`.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, SystemTime};

use expect_test::{Expect, expect};
use imagegen::index::{Index, Package};
use imagegen::make::fetch::{FetchError, Fetcher, Patience, Silent};
use imagegen::make::release::Keyring;
use imagegen::mirror::{Mirror, PastArchive};
use sequoia_openpgp::Cert;
use sequoia_openpgp::types::HashAlgorithm;
use tempfile::TempDir;

use crate::archive::{
    Suite, expired_key, noise, now, revoked, sign, sign_as, signing_key, weakly_bound,
};
use crate::mirror_server::{Manner, MirrorServer};

pub(crate) const SIZE: usize = 300_000;

/// A served archive with the packages `hello` and `world`, and an empty cache.
pub(crate) struct Scene {
    pub(crate) key: Cert,
    pub(crate) server: MirrorServer,
    pub(crate) cache: TempDir,
    stall: Duration,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Scene::of(trixie())
    }

    fn of(suite: Suite) -> Self {
        Scene::signed_with(signing_key(), suite)
    }

    fn signed_with(key: Cert, suite: Suite) -> Self {
        Scene {
            server: MirrorServer::start(suite.files(&key)),
            key,
            cache: TempDir::new().unwrap(),
            stall: Duration::from_secs(20),
        }
    }

    /// The same with a mirror that is soon given up.
    fn impatient(self) -> Self {
        Scene {
            stall: Duration::from_millis(300),
            ..self
        }
    }

    /// Serves a suite from now on, well signed.
    pub(crate) fn serve(&self, suite: &Suite) {
        for (path, bytes) in suite.files(&self.key) {
            self.server.put(&path, bytes);
        }
    }

    pub(crate) fn fetcher(&self) -> Fetcher<'static> {
        Fetcher {
            mirror: Mirror::from_url(&self.server.url()),
            past: None,
            cache: self.cache.path().to_owned(),
            offline: false,
            keyring: Keyring::from_certificates(vec![self.key.clone().strip_secret_key_material()]),
            patience: Patience {
                connect: Duration::from_secs(5),
                stall: self.stall,
                attempts: 2,
                pause: Duration::ZERO,
            },
            progress: &Silent,
        }
    }

    fn offline(&self) -> Fetcher<'static> {
        Fetcher {
            offline: true,
            // Nobody listens on this port, and nobody may find out.
            mirror: Mirror::from_url("http://127.0.0.1:1/debian"),
            ..self.fetcher()
        }
    }

    /// Tells the outcome of fetching all: `hello` and `world` as they should be, or the chain of errors.
    fn outcome(&self, fetcher: &Fetcher<'_>) -> String {
        match fetch_all(fetcher) {
            Ok(bytes) if bytes == [noise("hello", SIZE), noise("world", SIZE)] => {
                "fetched".to_owned()
            }
            Ok(_) => "fetched something else".to_owned(),
            Err(error) => self.told(&error),
        }
    }

    pub(crate) fn told(&self, error: &FetchError) -> String {
        let hint = error.hint().unwrap_or("none");
        let told = format!("{}\nhint: {hint}", chain(error));
        let told = told.replace(&self.server.url(), "URL");
        told.replace(&self.cache.path().display().to_string(), "CACHE")
    }

    fn check(&self, expected: Expect) {
        expected.assert_eq(&self.outcome(&self.fetcher()));
    }

    /// Checks the outcome and that nothing was written, under whatever name.
    pub(crate) fn check_refused(&self, expected: Expect) {
        expected.assert_eq(&hide_key_ids(&self.outcome(&self.fetcher())));
        assert_eq!(files_below(self.cache.path()), [""; 0]);
    }

    /// Checks that the release, which is as it should be, is all that was written.
    pub(crate) fn check_only_the_release(&self) {
        assert_eq!(
            files_below(self.cache.path()),
            ["releases/trixie.InRelease"]
        );
    }
}

pub(crate) fn trixie() -> Suite {
    Suite::trixie(vec![
        ("hello", noise("hello", SIZE)),
        ("world", noise("world", SIZE)),
    ])
}

pub(crate) fn fetch_all(fetcher: &Fetcher<'_>) -> Result<Vec<Vec<u8>>, FetchError> {
    let (_, index) = fetcher.fetch_index(&["trixie"], &["main"], "arm64", now())?;
    let paths = fetcher.fetch_debs(&packages(&index))?;
    Ok(paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect())
}

fn packages(index: &Index) -> Vec<&Package> {
    ["hello", "world"]
        .map(|name| index.latest(name).unwrap())
        .to_vec()
}

pub(crate) fn chain(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        told.push_str(&format!("\n  {cause}"));
        source = cause.source();
    }
    told
}

/// The paths of all files below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(folder).unwrap();
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn what_is_served_well_arrives_once() {
    let scene = Scene::new();
    scene.check(expect!["fetched"]);
    scene.check(expect!["fetched"]);
    assert_eq!(scene.server.requests("hello").len(), 1);
    assert_eq!(scene.server.requests("by-hash").len(), 1);
    assert_eq!(names(&scene.cache.path().join("partial")), [""; 0]);
    expect!["fetched"].assert_eq(&scene.outcome(&scene.offline()));
}

#[test]
fn offline_says_what_is_missing_and_asks_nobody() {
    let scene = Scene::new();
    expect![[r#"
        the release of trixie is not in the cache CACHE, and nothing may be fetched offline
        hint: run the same command once without --offline"#]]
    .assert_eq(&scene.outcome(&scene.offline()));
    fetch_all(&scene.fetcher()).unwrap();
    let objects = scene.cache.path().join("objects");
    let hello = imagegen::sha256::Sha256::of(&noise("hello", SIZE));
    std::fs::remove_file(objects.join(hello.to_string())).unwrap();
    expect![[r#"
        package hello 1.0-1 is not in the cache CACHE, and nothing may be fetched offline
        hint: run the same command once without --offline"#]]
    .assert_eq(&scene.outcome(&scene.offline()));
}

#[test]
fn a_cached_release_whose_time_has_run_out_serves_no_offline_build() {
    let scene = Scene::new();
    fetch_all(&scene.fetcher()).unwrap();
    let later = now() + Duration::from_secs(30 * 86_400);
    let error = scene.offline().fetch_release("trixie", later).unwrap_err();
    expect![[r#"
        refusing the release of trixie from the cache CACHE
          the release of trixie was valid until Sat, 08 Nov 2025 08:00:00 UTC only: the mirror is stale, or this machine's clock is wrong
        hint: run the same command once without --offline"#]].assert_eq(&scene.told(&error));
}

#[test]
fn a_damaged_file_in_the_cache_is_fetched_again() {
    let scene = Scene::new();
    fetch_all(&scene.fetcher()).unwrap();
    for name in names(&scene.cache.path().join("objects")) {
        std::fs::write(scene.cache.path().join("objects").join(name), "half a file").unwrap();
    }
    scene.check(expect!["fetched"]);
}

#[test]
fn an_interrupted_download_is_resumed_at_once() {
    let scene = Scene::new();
    scene.server.treat("hello", Manner::CutOnce(100_000));
    scene.check(expect!["fetched"]);
    expect![[r#"
        /debian/pool/hello_1.0-1_arm64.deb
        /debian/pool/hello_1.0-1_arm64.deb from 100000"#]]
    .assert_eq(&scene.server.requests("hello").join("\n"));
}

#[test]
fn an_interrupted_download_starts_again_where_the_mirror_cannot_resume() {
    let scene = Scene::new();
    scene
        .server
        .treat("hello", Manner::CutOnceWithoutRanges(100_000));
    scene.check(expect!["fetched"]);
}

#[test]
fn an_interrupted_build_is_resumed_by_the_next_one() {
    let scene = Scene::new().impatient();
    scene.server.treat("hello", Manner::HangAfter(100_000));
    scene.check(expect![[r#"
        failed to fetch package hello 1.0-1 from URL/pool/hello_1.0-1_arm64.deb (attempt 2)
          timeout: per read
        hint: check the network, or name another mirror with --mirror"#]]);
    scene.server.treat("hello", Manner::Well);
    scene.check(expect!["fetched"]);
    let requests = scene.server.requests("hello");
    assert!(requests.last().unwrap().contains(" from "), "{requests:?}");
}

#[test]
fn a_leftover_with_wrong_bytes_is_started_again() {
    let scene = Scene::new();
    let partial = scene.cache.path().join("partial");
    std::fs::create_dir_all(&partial).unwrap();
    let hello = imagegen::sha256::Sha256::of(&noise("hello", SIZE));
    std::fs::write(partial.join(hello.to_string()), noise("other", 1000)).unwrap();
    scene.check(expect!["fetched"]);
}

#[test]
fn concurrent_builds_share_one_download() {
    let scene = Scene::new();
    let outcomes: Vec<String> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| scene.outcome(&scene.fetcher())))
            .collect();
        builds
            .into_iter()
            .map(|build| build.join().unwrap())
            .collect()
    });
    assert_eq!(outcomes, ["fetched"; 4]);
    assert_eq!(names(&scene.cache.path().join("partial")), [""; 0]);
    assert_eq!(scene.server.requests("hello").len(), 1);
}

#[test]
fn packages_that_do_not_arrive() {
    for (manner, expected) in [
        (
            Manner::CutAlways(0),
            expect![[r#"
            failed to fetch package hello 1.0-1 from URL/pool/hello_1.0-1_arm64.deb (attempt 2)
              Peer disconnected
            hint: check the network, or name another mirror with --mirror"#]],
        ),
        (
            Manner::Hang,
            expect![[r#"
            failed to fetch package hello 1.0-1 from URL/pool/hello_1.0-1_arm64.deb (attempt 2)
              timeout: receive response
            hint: check the network, or name another mirror with --mirror"#]],
        ),
        (
            Manner::Status(404),
            expect![[r#"
                package hello 1.0-1 is not at URL/pool/hello_1.0-1_arm64.deb any more
                hint: `cargo xtask lock` takes the versions of today; --archive URL names an archive of old versions"#]],
        ),
        (
            Manner::Status(503),
            expect![[r#"
            failed to fetch package hello 1.0-1 from URL/pool/hello_1.0-1_arm64.deb (attempt 2)
              the mirror answered with status 503
            hint: check the network, or name another mirror with --mirror"#]],
        ),
    ] {
        let scene = match manner {
            Manner::Hang => Scene::new().impatient(),
            _ => Scene::new(),
        };
        scene.server.treat("hello", manner);
        scene.check(expected);
        // The list and perhaps the other package: nothing of this one, and nothing half received.
        let left = files_below(scene.cache.path());
        let hello = imagegen::sha256::Sha256::of(&noise("hello", SIZE)).to_string();
        assert!(!left.iter().any(|path| path.contains(&hello)), "{left:?}");
    }
}

#[test]
fn lists_that_are_not_the_announced_ones() {
    let scene = Scene::new();
    let requests = |part| scene.server.requests(part);
    fetch_all(&scene.fetcher()).unwrap();
    let list = requests("by-hash").pop().unwrap();
    let scene = Scene::new();
    scene.server.put(&list, noise("list", 400));
    scene.check(expect![[r#"
        URL/dists/trixie/main/binary-arm64/by-hash/SHA256/405563f158953afeeaeb3c591c092522a7062e4c2d9032a1c8f8649851a4e9bb has 400 bytes, but 292 are announced for the package list trixie/main/binary-arm64/Packages.xz
        hint: the mirror may be in the middle of an update: try again later, or name another one with --mirror"#]]);
    scene.check_only_the_release();
}

#[test]
fn a_mirror_without_by_hash_is_asked_by_name() {
    let scene = Scene::of(trixie().with_head("Acquire-By-Hash: yes\n", ""));
    scene.check(expect!["fetched"]);
    assert_eq!(scene.server.requests("by-hash"), [""; 0]);
}

#[test]
fn a_mirror_that_leaves_out_by_hash_is_asked_by_name_then() {
    let scene = Scene::new();
    scene.server.treat("by-hash", Manner::Status(404));
    scene.check(expect!["fetched"]);
    scene.server.treat("Packages.xz", Manner::Status(404));
    let scene = Scene {
        cache: TempDir::new().unwrap(),
        ..scene
    };
    scene.check(expect![[r#"
        failed to fetch the package list trixie/main/binary-arm64/Packages.xz from URL/dists/trixie/main/binary-arm64/Packages.xz (attempt 1)
          the mirror answered with status 404
        hint: check the network, or name another mirror with --mirror"#]]);
}

#[test]
fn releases_that_cannot_be_believed() {
    Scene::of(trixie().with_head("Until: Sat, 08 Nov", "Until: Fri, 31 Oct"))
        .check_refused(expect![[r#"
            refusing the release of trixie from URL/dists/trixie/InRelease
              the release of trixie was valid until Fri, 31 Oct 2025 08:00:00 UTC only: the mirror is stale, or this machine's clock is wrong
            hint: set the clock if it is wrong; else name another mirror with --mirror, for this one keeps updates back"#]]);
    Scene::of(trixie().with_head("Date: Sat, 01 Nov", "Date: Sat, 22 Nov"))
        .check_refused(expect![[r#"
            refusing the release of trixie from URL/dists/trixie/InRelease
              the release of trixie is dated Sat, 22 Nov 2025 08:00:00 UTC, which is in the future: this machine's clock must be wrong
            hint: set this machine's clock"#]]);
    Scene::of(trixie().with_head("Codename: trixie", "Codename: sid")).check_refused(expect![[
        r#"
        refusing the release of trixie from URL/dists/trixie/InRelease
          asked for the suite trixie, but the mirror sent the release of stable / sid
        hint: name another mirror with --mirror"#
    ]]);
    Scene::of(trixie().with_head("Origin: Debian", "Origin: Somebody")).check_refused(expect![[
        r#"
        refusing the release of trixie from URL/dists/trixie/InRelease
          the release of trixie comes from `Somebody`, not from Debian
        hint: name another mirror with --mirror"#
    ]]);
    Scene::of(trixie().with_head("Date: ", "Dated: ")).check_refused(expect![[r#"
        refusing the release of trixie from URL/dists/trixie/InRelease
          the signed release of trixie has no usable Date
        hint: name another mirror with --mirror"#]]);
}

#[test]
fn keys_that_may_not_sign_any_more() {
    let check = |key, expected| Scene::signed_with(key, trixie()).check_refused(expected);
    check(
        expired_key(),
        expect![[r#"
        refusing the release of trixie from URL/dists/trixie/InRelease
          no trusted key of the archive signed the InRelease file as it is (key KEY has expired)
        hint: set the clock if it is wrong; else the archive has a new key, which comes with a newer Footbridge"#]],
    );
    check(
        revoked(&signing_key()),
        expect![[r#"
        refusing the release of trixie from URL/dists/trixie/InRelease
          no trusted key of the archive signed the InRelease file as it is (key KEY was revoked)
        hint: anybody may have that key: name another mirror with --mirror; the archive's new key comes with a newer Footbridge"#]],
    );
}

/// Whoever has a key says himself when it signed.
#[test]
fn a_signature_from_a_time_when_the_key_was_good() {
    let long_ago = now() - Duration::from_secs(350 * 86_400);
    check_signed(
        &expired_key(),
        long_ago,
        HashAlgorithm::SHA512,
        expect![[r#"
            refusing the release of trixie from URL/dists/trixie/InRelease
              no trusted key of the archive signed the InRelease file as it is (key KEY has expired)
            hint: set the clock if it is wrong; else the archive has a new key, which comes with a newer Footbridge"#]],
    );
}

#[test]
fn signatures_from_the_future() {
    let tomorrow = now() + Duration::from_secs(86_400);
    check_signed(
        &signing_key(),
        tomorrow,
        HashAlgorithm::SHA512,
        expect![[r#"
            refusing the release of trixie from URL/dists/trixie/InRelease
              no trusted key of the archive signed the InRelease file as it is (the signature of key KEY is from the future)
            hint: set this machine's clock"#]],
    );
}

#[test]
fn signatures_and_keys_that_could_be_forged() {
    let made = now() - Duration::from_secs(3600);
    check_signed(
        &signing_key(),
        made,
        HashAlgorithm::SHA1,
        expect![[r#"
        refusing the release of trixie from URL/dists/trixie/InRelease
          no trusted key of the archive signed the InRelease file as it is (the signature of key KEY is too weak: SHA1 is not secure any more)
        hint: Debian signs with SHA-256 and better: name another mirror with --mirror"#]],
    );
    check_signed(
        &weakly_bound(&signing_key()),
        made,
        HashAlgorithm::SHA512,
        expect![[r#"
            refusing the release of trixie from URL/dists/trixie/InRelease
              no trusted key of the archive signed the InRelease file as it is (the signature of key KEY is too weak: SHA1 is not secure any more)
            hint: Debian signs with SHA-256 and better: name another mirror with --mirror"#]],
    );
}

fn check_signed(key: &Cert, made: SystemTime, hash: HashAlgorithm, expected: Expect) {
    let suite = Suite::trixie(Vec::new());
    let signed = sign_as(&suite.release_text(), key, made, hash);
    let scene = Scene::signed_with(key.clone(), suite);
    let path = "/debian/dists/trixie/InRelease";
    scene.server.put(path, signed);
    scene.check_refused(expected);
}

#[test]
fn a_version_that_has_left_the_mirror_comes_from_the_archive_of_old_ones() {
    let scene = Scene::new();
    let path = "/debian/pool/hello_1.0-1_arm64.deb";
    let (_, index) = scene
        .fetcher()
        .fetch_index(&["trixie"], &["main"], "arm64", now())
        .unwrap();
    scene.server.treat(path, Manner::Status(404));
    let with = |dates: &[&str]| Fetcher {
        past: Some(PastArchive::new(
            &scene.server.url(),
            dates.iter().map(|suite| ((*suite).to_owned(), now())),
        )),
        ..scene.fetcher()
    };
    let hello = index.latest("hello").unwrap();
    let told = |fetcher: &Fetcher<'_>| scene.told(&fetcher.fetch_deb(hello).unwrap_err());
    // No archive, one that knows nothing of the suite, one that has it not, and one that has something else.
    expect![[r#"
        package hello 1.0-1 is not at URL/pool/hello_1.0-1_arm64.deb any more
        hint: `cargo xtask lock` takes the versions of today; --archive URL names an archive of old versions"#]].assert_eq(&told(&scene.fetcher()));
    assert_eq!(told(&with(&["sid"])), told(&scene.fetcher()));
    expect![[r#"
        package hello 1.0-1 is not at URL/debian/20251102T000000Z/pool/hello_1.0-1_arm64.deb any more
        hint: `cargo xtask lock` takes the versions of today; --archive URL names an archive of old versions"#]].assert_eq(&told(&with(&["trixie"])));
    let old = "/debian/debian/20251102T000000Z/pool/hello_1.0-1_arm64.deb";
    scene.server.put(old, noise("swapped", SIZE));
    expect![[r#"
        package hello 1.0-1 from URL/debian/20251102T000000Z/pool/hello_1.0-1_arm64.deb has the SHA-256 digest 7a864315ef977d05c4999460568a1e9d88af7afec841c81a0964031dca2c64b0, but f0141544cee7cdd259a6789b2fb6991522e9fdccd9e7d64c7c1d232589c9fee4 is announced
        hint: the mirror may be in the middle of an update: try again later, or name another one with --mirror"#]].assert_eq(&told(&with(&["trixie"])));
    scene.server.put(old, noise("hello", SIZE));
    let fetched = with(&["trixie"]).fetch_deb(hello).unwrap();
    assert_eq!(std::fs::read(fetched).unwrap(), noise("hello", SIZE));
}

/// Makes another file of a well-signed `InRelease`.
type Change = fn(&Scene, String) -> Vec<u8>;

#[test]
fn releases_that_nobody_trusted_signed_as_they_are() {
    const UNSIGNED: &str = "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 01 Nov 2025 08:00:00 UTC\nSHA256:\n";
    let path = "/debian/dists/trixie/InRelease";
    let cases: [(Change, Expect); 7] = [
        (
            |_, text| {
                text.replace("Valid-Until: Sat, 08", "Valid-Until: Sat, 15")
                    .into()
            },
            expect![[r#"
                refusing the release of trixie from URL/dists/trixie/InRelease
                  no trusted key of the archive signed the InRelease file as it is (the text is not the one that key KEY signed)
                hint: the file was changed on its way: name another mirror with --mirror"#]],
        ),
        (
            |_, _| sign(UNSIGNED, &signing_key()),
            expect![[r#"
                refusing the release of trixie from URL/dists/trixie/InRelease
                  no trusted key of the archive signed the InRelease file as it is (key KEY is none of the archive's)
                hint: name a mirror of Debian with --mirror; if Debian has a new key, it comes with a newer Footbridge"#]],
        ),
        (
            |_, _| UNSIGNED.into(),
            expect![[r#"
            refusing the release of trixie from URL/dists/trixie/InRelease
              the InRelease file is not one signed text: it does not begin with the signed part
            hint: name another mirror with --mirror"#]],
        ),
        (
            |_, text| format!("Origin: Debian\n\n{text}").into(),
            expect![[r#"
                refusing the release of trixie from URL/dists/trixie/InRelease
                  the InRelease file is not one signed text: it does not begin with the signed part
                hint: name another mirror with --mirror"#]],
        ),
        (
            |_, text| format!("{text}Origin: Debian\n").into(),
            expect![[r#"
                refusing the release of trixie from URL/dists/trixie/InRelease
                  the InRelease file is not one signed text: it does not end with the signature
                hint: name another mirror with --mirror"#]],
        ),
        (
            |_, text| text.repeat(2).into(),
            expect![[r#"
            refusing the release of trixie from URL/dists/trixie/InRelease
              the InRelease file is not one signed text: it has more than one part
            hint: name another mirror with --mirror"#]],
        ),
        (
            |scene, _| sign("", &scene.key),
            expect![[r#"
            refusing the release of trixie from URL/dists/trixie/InRelease
              the InRelease file is not one signed text: the signed part is empty
            hint: name another mirror with --mirror"#]],
        ),
    ];
    for (change, expected) in cases {
        let scene = Scene::new();
        let text = String::from_utf8(trixie().files(&scene.key)[path].clone()).unwrap();
        scene.server.put(path, change(&scene, text));
        scene.check_refused(expected);
    }
}

/// Every run makes other keys.
fn hide_key_ids(text: &str) -> String {
    let hide = |word: &str| {
        let hex = word.trim_end_matches([')', ';', ',']);
        if hex.len() >= 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            word.replace(hex, "KEY")
        } else {
            word.to_owned()
        }
    };
    let line = |line: &str| line.split(' ').map(hide).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_unreachable_mirror_is_told_with_what_the_cache_could_do() {
    let scene = Scene::new().impatient();
    let path = "InRelease";
    scene.server.treat(path, Manner::Status(500));
    scene.check(expect![[r#"
        failed to fetch the release of trixie from URL/dists/trixie/InRelease (attempt 2)
          the mirror answered with status 500
        hint: check the network, or name another mirror with --mirror"#]]);
    scene.server.treat(path, Manner::Well);
    fetch_all(&scene.fetcher()).unwrap();
    scene.server.treat(path, Manner::Hang);
    scene.check(expect![[r#"
        failed to fetch the release of trixie from URL/dists/trixie/InRelease (attempt 2)
          timeout: receive response
        hint: an earlier build's packages are in the cache: try --offline, or another --mirror"#]]);
    scene.server.treat(path, Manner::Endless);
    scene.check(expect![[r#"
        failed to fetch the release of trixie from URL/dists/trixie/InRelease (attempt 1)
          the mirror sends more than 4194304 bytes
        hint: an earlier build's packages are in the cache: try --offline, or another --mirror"#]]);
}
