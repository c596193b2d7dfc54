//! The whole pipeline on small packages: a plan goes in, an image comes out, and what is in it is looked at through its own file systems.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use imagegen::agent::{AgentBill, Crate, Library};
use imagegen::credentials::Ssid;
use imagegen::inspect::fat::Fat;
use imagegen::make::cache::{CACHE_SIZE_MAX, KEPT_SIZE_MAX, KeptCache, SystemCache};
use imagegen::make::disk::{Draft, ImageFormat};
use imagegen::make::fetch::Silent;
use imagegen::make::identity::Identity;
use imagegen::make::image::{Built, Debs, ImageError, ImageInputs, make_image, make_system};
use imagegen::make::kept::{Kept, KeptKey, NothingKept};
use imagegen::make::licences::Licences;
use imagegen::make::system::{System, SystemKey};
use imagegen::plan::{Place, Plan, features_of};
use imagegen::recipe::{Cover, Feature};
use imagegen::resolve::Resolution;
use imagegen::sbom::{Commit, Origin};
use imagegen::sha256::Sha256;
use imagegen::site::{CountryCode, Hostname, Network, SiteOptions};
use imagegen::tree::Node;

use crate::debs::{Raw, deb_of, directory, file, symlink};
use crate::plan::{board, overlays, plan_for, resolution, site};

const RELEASE: &str = "6.12.117+deb13-arm64";

/// A site whose every value is easily found again.
pub(crate) fn loud_site() -> SiteOptions {
    SiteOptions {
        country: Some(CountryCode::parse("NZ").unwrap()),
        hostname: Hostname::parse("loud-name").unwrap(),
        ..SiteOptions::joining(Network {
            ssid: Ssid::new("loud-network").unwrap(),
            ..site().networks.remove(0)
        })
    }
}

/// The plan of a real board without what would take a real kernel and a real radio. The scripts of the tests' packages are waived.
pub(crate) fn small_plan(site: &SiteOptions) -> (Plan, Resolution) {
    let resolution = resolution(
        &board("pi3"),
        &overlays(),
        &features_of(&board("pi3"), site),
    );
    let mut plan = plan_for("pi3", site);
    plan.modules.initramfs.clear();
    plan.modules.root.clear();
    plan.radio.firmware.clear();
    for package in plan.packages.values_mut() {
        package.cover = Cover::Waived("there is nothing in them".to_owned());
    }
    (plan, resolution)
}

fn entries_of(name: &str, place: Place) -> Vec<Raw> {
    let firmware = ["bootcode.bin", "start.elf", "fixup.dat"];
    match (name, place) {
        ("base-files", _) => vec![
            directory("./usr/bin"),
            symlink("./bin", "usr/bin"),
            file("./usr/lib/os-release", "ID=debian\n"),
            copyright("base-files", "GPL-2+"),
            file("./usr/share/common-licenses/GPL-2", "the GPL, version 2"),
            file("./usr/share/common-licenses/MPL-1.1", "nobody has it"),
            symlink("./usr/share/common-licenses/GPL", "GPL-2"),
            file("./usr/share/doc/x", "removed"),
        ],
        ("busybox-static", _) => vec![file("./usr/bin/busybox", "busybox")],
        ("wireless-regdb", _) => ["regulatory.db-debian", "regulatory.db.p7s-debian"]
            .map(|name| file(&format!("./usr/lib/firmware/{name}"), name))
            .into(),
        (_, Place::BootFirmware) => {
            let files =
                firmware.map(|name| file(&format!("./usr/lib/raspi-firmware/{name}"), name));
            let radio = file("./usr/lib/firmware/brcm/radio.bin", "radio");
            let notice = copyright(name, "Proprietary");
            files.into_iter().chain([radio, notice]).collect()
        }
        (_, Place::Kernel) => {
            let lists = [
                "modules.order",
                "modules.builtin",
                "modules.builtin.modinfo",
            ];
            let mut entries: Vec<Raw> = lists
                .map(|name| file(&format!("./usr/lib/modules/{RELEASE}/{name}"), ""))
                .into();
            entries.push(file(&format!("./boot/vmlinuz-{RELEASE}"), "kernel"));
            let trees = board("pi3").kernel.device_trees;
            entries.extend(
                trees
                    .iter()
                    .map(|path| file(&format!("./usr/lib/linux-image-{RELEASE}/{path}"), path)),
            );
            entries
        }
        // No notice lies with it.
        ("libtinfo6", _) => vec![file("./usr/lib/libtinfo6", name)],
        ("libgcc-s1", _) => vec![symlink("./usr/share/doc/libgcc-s1", "gcc-14-base")],
        ("gcc-14-base", _) => vec![copyright(name, "GPL-3+")],
        ("kmod", _) => vec![symlink("./usr/share/doc/kmod", "libkmod2")],
        ("netbase", _) => vec![file("./usr/share/doc/netbase/copyright", "Free text.")],
        ("libkmod2", _) => vec![copyright(name, "LGPL-2.1+ and public-domain")],
        _ => vec![
            file(&format!("./usr/lib/{name}"), name),
            copyright(name, "Expat or GPL"),
        ],
    }
}

/// A machine-readable copyright file that refers to a common licence.
fn copyright(package: &str, licence: &str) -> Raw {
    let text = format!(
        "Format: https://example.org/copyright-format/1.0/\n\nFiles: *\nCopyright: me\nLicense: {licence}\n\nLicense: public-domain\n Do as you like.\n\nLicense: GPL\n See /usr/share/common-licenses/GPL-2.\n"
    );
    file(&format!("./usr/share/doc/{package}/copyright"), &text)
}

/// Makes the packages of a plan.
pub(crate) fn debs(dir: &Path, plan: &Plan) -> Debs {
    let mut debs = Debs::new();
    for (name, package) in &plan.packages {
        let path = dir.join(format!("{name}.deb"));
        std::fs::write(&path, deb_of(&entries_of(name, package.place))).unwrap();
        debs.insert(name.clone(), path);
    }
    debs
}

/// Where the tests' images come from: an agent of two crates, one of them of a licence that is on no list.
pub(crate) fn origin() -> Origin {
    let linked = |name: &str, licence: &str, needs: &[(&str, &str)]| Crate {
        name: name.to_owned(),
        version: "1.0.0+x".to_owned(),
        checksum: (name != "agent").then(|| Sha256::of(name.as_bytes())),
        licence: Some(licence.to_owned()),
        notices: BTreeMap::from([("LICENSE".to_owned(), format!("the licence of {name}"))]),
        needs: needs
            .iter()
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
            .collect(),
    };
    Origin {
        agent: AgentBill {
            name: "agent".to_owned(),
            target: "aarch64-unknown-linux-musl".to_owned(),
            compiler: "rustc 1.95.0 (0 2026-01-01)".to_owned(),
            crates: vec![
                linked("agent", "MIT/Apache-2.0", &[("the_net", "1.0.0+x")]),
                linked("the_net", "my own", &[]),
            ],
            libraries: vec![Library {
                name: "libc".to_owned(),
                version: None,
                licence: "MIT".to_owned(),
                notices: BTreeMap::new(),
            }],
        },
        files: BTreeMap::from([("boards/pi3.toml".to_owned(), Sha256::of(b"pi3"))]),
        commit: Some(Commit {
            id: "c0ffee".to_owned(),
            modified: true,
        }),
        security: vec!["wpa2".to_owned()],
    }
}

pub(crate) fn inputs(resolution: &Resolution) -> ImageInputs<'_> {
    ImageInputs {
        resolution,
        agent: (*b"agent").into(),
        time: 1_700_000_000,
    }
}

pub(crate) fn build(dir: &Path, plan: &Plan, resolution: &Resolution) -> Result<Built, ImageError> {
    build_from(&debs(dir, plan), &dir.join("out.img"), plan, resolution)
}

pub(crate) fn build_from(
    debs: &Debs,
    image: &Path,
    plan: &Plan,
    resolution: &Resolution,
) -> Result<Built, ImageError> {
    let inputs = inputs(resolution);
    let output = Draft::create(image, ImageFormat::Img)?;
    let system = make_system(plan, &inputs, debs, &NothingKept, &Silent)?;
    make_image(plan, &system, &inputs, &origin(), output, &Silent)
}

/// Every file and link of the root: path to contents.
pub(crate) fn root_files(image: &Path, built: &Built) -> BTreeMap<String, Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(built.root_size).unwrap()];
    let mut file = File::open(image).unwrap();
    file.seek(SeekFrom::Start(built.layout.root.offset))
        .unwrap();
    file.read_exact(&mut bytes).unwrap();
    let squashfs = backhand::FilesystemReader::from_reader(std::io::Cursor::new(bytes)).unwrap();
    let mut files = BTreeMap::new();
    for node in squashfs.files() {
        let contents = match &node.inner {
            backhand::InnerNode::File(file) => {
                let mut bytes = Vec::new();
                squashfs
                    .file(file)
                    .reader()
                    .read_to_end(&mut bytes)
                    .unwrap();
                bytes
            }
            backhand::InnerNode::Symlink(link) => {
                link.link.to_string_lossy().into_owned().into_bytes()
            }
            _ => continue,
        };
        files.insert(node.fullpath.to_string_lossy().into_owned(), contents);
    }
    files
}

#[test]
fn the_site_is_on_the_boot_partition_and_nowhere_in_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let site = loud_site();
    let (plan, resolution) = small_plan(&site);
    let built = build(dir.path(), &plan, &resolution).unwrap();
    let image = dir.path().join("out.img");

    let boot = Fat::open_image(BufReader::new(File::open(&image).unwrap()))
        .unwrap()
        .tree()
        .unwrap();
    let supplicant =
        String::from_utf8(boot.bytes("site/wpa_supplicant.conf").unwrap().to_vec()).unwrap();
    assert!(supplicant.contains(&site.networks[0].ssid.to_hex()));
    assert_eq!(
        boot.bytes("site/hostname").unwrap().as_ref(),
        b"loud-name\n"
    );
    assert_eq!(boot.bytes("kernel8.img").unwrap().as_ref(), b"kernel");
    assert!(
        boot.contains("bcm2837-rpi-3-b.dtb")
            && boot.contains("initramfs.zst")
            && boot.contains("start.elf")
    );

    let pmk = supplicant
        .lines()
        .find_map(|line| line.trim().strip_prefix("psk="))
        .unwrap();
    let root = root_files(&image, &built);
    assert_eq!(root["/usr/bin/footbridge"], b"agent");
    assert_eq!(
        root["/usr/lib/firmware/regulatory.db"],
        b"regulatory.db-debian"
    );
    assert!(!root.contains_key("/usr/share/doc/x") && root.contains_key("/usr/lib/mount"));
    for (path, bytes) in &root {
        let text = String::from_utf8_lossy(bytes);
        for secret in [
            "loud-name",
            "loud-network",
            &site.networks[0].ssid.to_hex(),
            pmk,
            "regdom=NZ",
        ] {
            assert!(!text.contains(secret), "{path} has {secret}");
        }
    }
}

#[test]
fn the_same_plan_gives_the_same_image() {
    let (plan, resolution) = small_plan(&site());
    let images = [(); 2].map(|()| {
        let dir = tempfile::tempdir().unwrap();
        build(dir.path(), &plan, &resolution).unwrap();
        std::fs::read(dir.path().join("out.img")).unwrap()
    });
    assert!(images[0] == images[1], "two builds differ");
}

#[test]
fn a_package_that_has_grown_scripts_stops_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let (mut plan, resolution) = small_plan(&site());
    plan.packages.get_mut("mount").unwrap().cover = Cover::Scriptless;
    let err = build(dir.path(), &plan, &resolution).unwrap_err();
    assert_eq!(
        err.to_string(),
        "package `mount` is listed as scriptless but has postinst; read it, and list the package under scripts in packages.toml"
    );
    assert!(!dir.path().join("out.img").exists());
}

#[test]
fn one_package_may_have_the_firmware_of_radio_and_board() {
    let dir = tempfile::tempdir().unwrap();
    let (mut plan, resolution) = small_plan(&site());
    let package = board("pi3").firmware.unwrap().package;
    plan.radio
        .firmware
        .insert(package, vec!["brcm/radio.bin".to_owned()]);
    let built = build(dir.path(), &plan, &resolution).unwrap();
    let root = root_files(&dir.path().join("out.img"), &built);
    assert_eq!(root["/usr/lib/firmware/brcm/radio.bin"], b"radio");
}

#[test]
fn a_kept_system_gives_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let (plan, resolution) = small_plan(&loud_site());
    build(dir.path(), &plan, &resolution).unwrap();
    let made = std::fs::read(dir.path().join("out.img")).unwrap();

    // For another site, which the system knows nothing of.
    let (other_plan, _) = small_plan(&site());
    let inputs = inputs(&resolution);
    let key = SystemKey::of(&other_plan, &inputs);
    let system = make_system(
        &other_plan,
        &inputs,
        &debs(dir.path(), &plan),
        &NothingKept,
        &Silent,
    )
    .unwrap();
    let cache = SystemCache::new(&dir.path().join("cache"), CACHE_SIZE_MAX);
    assert_eq!(cache.load(key), None);
    cache.keep(key, &system);

    let kept = cache.load(SystemKey::of(&plan, &inputs)).unwrap();
    let output = Draft::create(&dir.path().join("kept.img"), ImageFormat::Img).unwrap();
    make_image(&plan, &kept, &inputs, &origin(), output, &Silent).unwrap();
    assert!(std::fs::read(dir.path().join("kept.img")).unwrap() == made);
}

/// Counts what is there and what is not.
struct Counted<'a> {
    cache: &'a KeptCache,
    found: AtomicU32,
    missing: AtomicU32,
}

impl<'a> Counted<'a> {
    fn new(cache: &'a KeptCache) -> Self {
        Counted {
            cache,
            found: AtomicU32::new(0),
            missing: AtomicU32::new(0),
        }
    }

    fn counts(&self) -> [u32; 2] {
        [&self.found, &self.missing].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Kept for Counted<'_> {
    fn load(&self, key: KeptKey) -> Option<Vec<u8>> {
        let result = self.cache.load(key);
        let count = match result {
            Some(_) => &self.found,
            None => &self.missing,
        };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn keep(&self, key: KeptKey, result: &[u8]) {
        self.cache.keep(key, result);
    }
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_system_of_kept_results_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (plan, resolution) = small_plan(&site());
    let debs = debs(dir.path(), &plan);
    let inputs = inputs(&resolution);
    let fresh = make_system(&plan, &inputs, &debs, &NothingKept, &Silent).unwrap();

    let folder = dir.path().join("results");
    let cache = KeptCache::new(&folder, KEPT_SIZE_MAX);
    let make = |inputs: &ImageInputs<'_>| {
        let kept = Counted::new(&cache);
        let system = make_system(&plan, inputs, &debs, &kept, &Silent).unwrap();
        (system, kept.counts())
    };
    // The packages, the block that the small root fits into, and the initramfs.
    let mut other = inputs.clone();
    other.agent = (*b"Agent").into();
    let (system, [found, all]) = make(&other);
    assert_ne!(system, fresh);
    assert!(found == 0 && all > 3, "{found}, {all}");
    // Another agent is in the block alone.
    assert_eq!(make(&inputs), (fresh.clone(), [all - 1, 1]));
    assert_eq!(make(&inputs), (fresh.clone(), [all, 0]));

    // What is damaged is made again, and what there is no room for goes.
    for (number, entry) in std::fs::read_dir(&folder).unwrap().enumerate() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        match number % 3 {
            0 => bytes.clear(),
            1 => bytes.truncate(bytes.len() / 2),
            _ => *bytes.last_mut().unwrap() ^= 1,
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(make(&inputs), (fresh.clone(), [0, all]));

    // So is what somebody gave another's name, a pipe, and what is larger than all results may be. The block of the other agent goes first:
    // whatever is spoilt here has to be of this one.
    for path in files_of(&folder) {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(make(&inputs), (fresh.clone(), [0, all]));
    let paths = files_of(&folder);
    let first = std::fs::read(&paths[0]).unwrap();
    std::fs::copy(&paths[1], &paths[0]).unwrap();
    std::fs::write(&paths[1], first).unwrap();
    std::fs::remove_file(&paths[2]).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &paths[2], 0o600.into()).unwrap();
    File::create(&paths[3])
        .and_then(|file| file.set_len(KEPT_SIZE_MAX + 1))
        .unwrap();
    assert_eq!(make(&inputs), (fresh.clone(), [all - 4, 4]));
    assert_eq!(make(&inputs), (fresh.clone(), [all, 0]));
    // What cannot be replaced is made each time.
    std::fs::remove_file(&paths[0]).unwrap();
    std::fs::create_dir(&paths[0]).unwrap();
    assert_eq!(make(&inputs), (fresh.clone(), [all - 1, 1]));
    std::fs::remove_dir(&paths[0]).unwrap();

    // What there is no room for goes, and nothing that somebody else left there.
    let digest = "0".repeat(64);
    let mut theirs = [
        &digest,
        &format!("x{digest}.kept"),
        &format!("{digest}0.kept"),
        "thesis.tex",
    ]
    .map(|name: &str| folder.join(name))
    .to_vec();
    for path in &theirs {
        std::fs::write(path, "whose folder is this?").unwrap();
    }
    // Builds under way lock what they write.
    let unfinished = folder.join(".unfinished-abcdef.part");
    let written = File::create(&unfinished).unwrap();
    written.lock().unwrap();
    std::fs::write(folder.join(".unfinished-ghijkl.part"), "killed").unwrap();
    drop(KeptCache::new(&folder, 0));
    theirs.push(unfinished);
    theirs.sort();
    assert_eq!(files_of(&folder), theirs);
    // A cache that cannot be written is as good as none.
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let nowhere = KeptCache::new(&file, KEPT_SIZE_MAX);
    let system = make_system(&plan, &inputs, &debs, &nowhere, &Silent).unwrap();
    assert_eq!(system, fresh);
}

#[test]
fn a_system_is_kept_for_what_it_was_made_from() {
    let (plan, resolution) = small_plan(&site());
    let key = SystemKey::of(&plan, &inputs(&resolution));
    let (loud, _) = small_plan(&loud_site());
    assert_eq!(SystemKey::of(&loud, &inputs(&resolution)), key);

    type Change = fn(&mut Plan);
    let changes: [(&str, Change); 11] = [
        ("board", |plan| plan.board.push('x')),
        ("features", |plan| {
            plan.features.insert(Feature::Ssh);
        }),
        ("a package's scripts", |plan| {
            plan.packages.get_mut("mount").unwrap().cover = Cover::Scriptless;
        }),
        ("a package", |plan| {
            plan.packages.remove("mount");
        }),
        ("kernel", |plan| plan.kernel_release.push('x')),
        ("modules", |plan| plan.modules.root.push("veth".to_owned())),
        ("radio firmware", |plan| {
            plan.radio.firmware.insert("x".to_owned(), Vec::new());
        }),
        ("removals", |plan| plan.root.removals.clear()),
        ("a file of the root", |plan| {
            let file = plan.root.nodes.get_mut("etc/hosts").unwrap();
            file.node = Node::file(0o644, *b"other");
        }),
        ("a mode in the initramfs", |plan| {
            plan.initramfs.get_mut("init").unwrap().node.mode = 0o700;
        }),
        ("boot firmware", |plan| {
            plan.boot.firmware.pop();
        }),
    ];
    for (what, change) in changes {
        let mut changed = plan.clone();
        change(&mut changed);
        assert_ne!(SystemKey::of(&changed, &inputs(&resolution)), key, "{what}");
    }
    let mut other = inputs(&resolution);
    other.agent = (*b"Agent").into();
    assert_ne!(SystemKey::of(&plan, &other), key, "agent");
    let mut other = inputs(&resolution);
    other.time += 1;
    assert_ne!(SystemKey::of(&plan, &other), key, "time");
    let mut newer = resolution.clone();
    newer.packages.get_mut("mount").unwrap().sha256 = Sha256::of(b"newer");
    assert_ne!(SystemKey::of(&plan, &inputs(&newer)), key, "package file");
}

/// A system of a given size, and a key of its own.
fn kept(number: u8, size: usize) -> (SystemKey, System) {
    let (plan, resolution) = small_plan(&site());
    let mut inputs = inputs(&resolution);
    inputs.time = number.into();
    let system = System {
        root: vec![number; size].into(),
        boot: BTreeMap::new(),
        identity: Identity::default(),
        licences: Licences::default(),
    };
    (SystemKey::of(&plan, &inputs), system)
}

fn file_name(key: SystemKey) -> String {
    format!("{key}.kept")
}

#[test]
fn a_damaged_system_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let cache = SystemCache::new(dir.path(), CACHE_SIZE_MAX);
    let (key, system) = kept(1, 1000);
    let path = dir.path().join(file_name(key));
    for damage in [
        |bytes: &mut Vec<u8>| bytes.truncate(500),
        |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1,
        |bytes: &mut Vec<u8>| bytes.clear(),
    ] {
        cache.keep(key, &system);
        assert_eq!(cache.load(key).as_ref(), Some(&system));
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(cache.load(key), None);
        assert!(!path.exists(), "what is damaged is removed");
    }
}

#[test]
fn systems_that_were_not_used_for_longest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let cache = SystemCache::new(dir.path(), 3500);
    let systems: Vec<_> = (0..4).map(|number| kept(number, 1000)).collect();
    // Used last year, the first most recently.
    for (day, (key, system)) in (1_u64..).zip(systems[..3].iter().rev()) {
        cache.keep(*key, system);
        let file = File::open(dir.path().join(file_name(*key))).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000 + day * 86_400))
            .unwrap();
    }
    let (key, system) = &systems[3];
    cache.keep(*key, system);
    let there = systems.iter().map(|(key, _)| cache.load(*key).is_some());
    assert_eq!(there.collect::<Vec<_>>(), [true, true, false, true]);
    // A cache that cannot be written is as good as none.
    let nowhere = SystemCache::new(&dir.path().join(file_name(*key)), 3500);
    nowhere.keep(*key, system);
    assert_eq!(nowhere.load(*key), None);
}
