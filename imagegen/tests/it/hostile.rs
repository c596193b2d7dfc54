//! A mirror that means harm, one test for each way: what it serves is refused with the reason, and nothing is written.
//!
//! What comes over the network may change nothing in the cache; what is in a package, nothing in any folder. `debs` has more of what can
//! be in a package, `fetching` more of what can be wrong with a release.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use expect_test::{Expect, expect};
use imagegen::sha256::Sha256;
use tar::EntryType;

use crate::archive::{noise, now, sign, signing_key};
use crate::debs::{Raw, deb_of, file, link, symlink};
use crate::fetching::{SIZE, Scene, chain, fetch_all, files_below, trixie};
use crate::image::{build_from, debs, small_plan};
use crate::mirror_server::Manner;
use crate::plan::site;

const HELLO: &str = "/debian/pool/hello_1.0-1_arm64.deb";
const IN_RELEASE: &str = "/debian/dists/trixie/InRelease";

/// All files below a folder, by path.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let paths = files_below(folder).into_iter();
    paths
        .map(|path| {
            let bytes = std::fs::read(folder.join(&path)).unwrap();
            (path, bytes)
        })
        .collect()
}

/// Checks why a package is refused that the mirror serves badly, and that the cache stays as the lists left it.
fn check_package(spoil: impl Fn(&Scene), expected: Expect) {
    let scene = Scene::new();
    let fetcher = scene.fetcher();
    let (_, index) = fetcher
        .fetch_index(&["trixie"], &["main"], "arm64", now())
        .unwrap();
    let before = contents(scene.cache.path());
    spoil(&scene);
    let error = fetcher
        .fetch_deb(index.latest("hello").unwrap())
        .unwrap_err();
    expected.assert_eq(&scene.told(&error));
    assert_eq!(contents(scene.cache.path()), before);
}

#[test]
fn wrong_hash() {
    check_package(
        |scene| {
            let mut altered = noise("hello", SIZE);
            altered[SIZE / 2] ^= 1;
            scene.server.put(HELLO, altered);
        },
        expect![[r#"
            package hello 1.0-1 from URL/pool/hello_1.0-1_arm64.deb has the SHA-256 digest 014d8231271da53dec5328fed181dd290436d31d465388d04fac8c497d07df61, but f0141544cee7cdd259a6789b2fb6991522e9fdccd9e7d64c7c1d232589c9fee4 is announced
            hint: the mirror may be in the middle of an update: try again later, or name another one with --mirror"#]],
    );
}

#[test]
fn truncated() {
    check_package(
        |scene| scene.server.put(HELLO, noise("hello", SIZE - 1)),
        expect![[r#"
            URL/pool/hello_1.0-1_arm64.deb has 299999 bytes, but 300000 are announced for package hello 1.0-1
            hint: the mirror may be in the middle of an update: try again later, or name another one with --mirror"#]],
    );
}

/// Another package of the archive, which is as genuine and as large.
#[test]
fn swapped_package() {
    check_package(
        |scene| scene.server.put(HELLO, noise("world", SIZE)),
        expect![[r#"
            package hello 1.0-1 from URL/pool/hello_1.0-1_arm64.deb has the SHA-256 digest 32183e20a4c2b738fa0ec427224861583f6b7f6b7dc65b351a856f71fabfb617, but f0141544cee7cdd259a6789b2fb6991522e9fdccd9e7d64c7c1d232589c9fee4 is announced
            hint: the mirror may be in the middle of an update: try again later, or name another one with --mirror"#]],
    );
}

#[test]
fn oversized_file() {
    check_package(
        |scene| scene.server.put(HELLO, noise("hello", SIZE + 1)),
        expect![[r#"
            URL/pool/hello_1.0-1_arm64.deb has 300001 bytes, but 300000 are announced for package hello 1.0-1
            hint: the mirror may be in the middle of an update: try again later, or name another one with --mirror"#]],
    );
}

#[test]
fn oversized_file_without_end() {
    check_package(
        |scene| scene.server.treat("hello", Manner::Endless),
        expect![[r#"
            URL/pool/hello_1.0-1_arm64.deb has more than 300000 bytes, but 300000 are announced for package hello 1.0-1
            hint: the mirror may be in the middle of an update: try again later, or name another one with --mirror"#]],
    );
}

#[test]
fn replayed_old_in_release() {
    let scene = Scene::new();
    scene.serve(&trixie().with_head("08:00:00 UTC\nValid", "09:00:00 UTC\nValid"));
    fetch_all(&scene.fetcher()).unwrap();
    let before = contents(scene.cache.path());
    // It was signed by the same key and is still valid, but another one came after it.
    scene.serve(&trixie());
    let error = fetch_all(&scene.fetcher()).unwrap_err();
    expect![[r#"
        URL/dists/trixie/InRelease is dated Sat, 01 Nov 2025 08:00:00 UTC, but a release dated Sat, 01 Nov 2025 09:00:00 UTC was seen before
        hint: the mirror lags behind the one used before: wait, or name another one with --mirror"#]].assert_eq(&scene.told(&error));
    assert_eq!(contents(scene.cache.path()), before);
}

/// A whole archive that is as it should be, but for who signed it.
#[test]
fn unknown_key() {
    let scene = Scene::new();
    for (path, bytes) in trixie().files(&signing_key()) {
        scene.server.put(&path, bytes);
    }
    scene.check_refused(expect![[r#"
        refusing the release of trixie from URL/dists/trixie/InRelease
          no trusted key of the archive signed the InRelease file as it is (key KEY is none of the archive's)
        hint: name a mirror of Debian with --mirror; if Debian has a new key, it comes with a newer Footbridge"#]]);
}

/// The archive's own keys sign the digest of the bomb; the size when unpacked is what it was.
#[test]
fn decompression_bomb_in_a_list() {
    let scene = Scene::new();
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(&vec![b'\n'; 64 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    let folder = "/debian/dists/trixie/main/binary-arm64";
    let honest = &trixie().files(&scene.key)[&format!("{folder}/Packages.xz")];
    let line = |bytes: &[u8]| format!("{} {}", Sha256::of(bytes), bytes.len());
    let text = trixie().release_text();
    assert!(text.contains(&line(honest)));
    let text = text.replace(&line(honest), &line(&bomb));
    scene.server.put(IN_RELEASE, sign(&text, &scene.key));
    let by_hash = format!("{folder}/by-hash/SHA256/{}", Sha256::of(&bomb));
    scene.server.put(&by_hash, bomb);
    let error = fetch_all(&scene.fetcher()).unwrap_err();
    expect![[r#"
        the package list trixie/main/binary-arm64/Packages.xz unpacks to more than 384 bytes, but 384 are announced
        hint: whoever signed the release signed a list that cannot be read: name another mirror with --mirror"#]].assert_eq(&scene.told(&error));
    scene.check_only_the_release();
}

/// Checks why a build is refused one of whose packages is hostile, and that no folder has more or other files than before.
fn check_deb(entries: impl FnOnce(&Path) -> Vec<Raw>, expected: Expect) {
    let around = tempfile::tempdir().unwrap();
    let (packages, output) = (around.path().join("packages"), around.path().join("output"));
    std::fs::create_dir(&packages).unwrap();
    std::fs::create_dir(&output).unwrap();
    let (plan, resolution) = small_plan(&site());
    let debs = debs(&packages, &plan);
    let hostile = deb_of(&entries(around.path()));
    std::fs::write(&debs["mount"], hostile).unwrap();
    let before = contents(around.path());
    let error = build_from(&debs, &output.join("card.img"), &plan, &resolution).unwrap_err();
    let told = chain(&error).replace(&around.path().display().to_string(), "FOLDER");
    expected.assert_eq(&told);
    assert!(contents(around.path()) == before, "something was written");
}

#[test]
fn path_traversal_in_a_deb() {
    check_deb(
        |_| vec![file("./usr/../../output/escaped", "")],
        expect![[r#"
            failed to unpack package `mount`
              the package has the path `./usr/../../output/escaped`, which leads out of the tree"#]],
    );
    check_deb(
        |around| vec![file(&format!("{}/escaped", around.display()), "")],
        expect![[r#"
            failed to unpack package `mount`
              the package has the path `FOLDER/escaped`, which is absolute"#]],
    );
}

#[test]
fn links_escaping_from_a_deb() {
    check_deb(
        |_| {
            vec![
                symlink("./usr/x", "../../output"),
                file("./usr/x/escaped", ""),
            ]
        },
        expect![[r#"
            failed to unpack package `mount`
              the package has the link usr/x -> ../../output, which leads out of the tree"#]],
    );
    check_deb(
        |around| {
            let target = around.join("packages/mount.deb");
            vec![link(
                EntryType::Link,
                "./usr/x",
                &target.display().to_string(),
            )]
        },
        expect![[r#"
            failed to unpack package `mount`
              the package has the path `FOLDER/packages/mount.deb`, which is absolute"#]],
    );
    check_deb(
        |_| vec![link(EntryType::Link, "./usr/x", "../etc/shadow")],
        expect![[r#"
            failed to unpack package `mount`
              the package has the path `../etc/shadow`, which leads out of the tree"#]],
    );
}

#[test]
fn decompression_bomb_in_a_deb() {
    let mut bomb = file("./usr/x", "");
    bomb.bytes = vec![0; 80 << 20];
    check_deb(
        |_| vec![bomb],
        expect![[r#"
        failed to unpack package `mount`
          data.tar.xz unpacks to more than the 68454400 bytes that are allowed for it"#]],
    );
}
