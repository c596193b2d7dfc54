//! The files of `site/` from the card to the running agent: what the image builder puts there, and how init has them laid.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use footbridge_agent::site::{FAULTS, Rule, SiteFiles, check_site, load_faults};

use crate::skip::{missing_tools, skip};

const OVERLAYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../overlays");
const INIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../overlays/initramfs/init");
/// Networks of all kinds, as the image builder's own test expects them.
const NETWORKS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../imagegen/tests/it/site_files/wpa_supplicant.conf"
));

/// The table that init has, made of the same rules: name, mode, destination.
fn table() -> String {
    let text = fs::read_to_string(format!("{OVERLAYS}/overlay.toml")).unwrap();
    let rules: toml::Table = text.parse().unwrap();
    let files = rules["site"].as_table().unwrap();
    let line = |(name, file): (&String, &toml::Value)| {
        let destination = file["destination"]
            .as_str()
            .unwrap()
            .trim_start_matches('/');
        format!("{name} {} {destination}\n", file["mode"].as_str().unwrap())
    };
    files.iter().map(line).collect()
}

/// The builder's half: nothing is found wrong with what it puts on cards, and nothing changed.
#[test]
fn the_images_own_files_are_good() {
    let agent = fs::read_to_string(format!("{OVERLAYS}/site/footbridge.toml.tera")).unwrap();
    let agent = agent
        .replace("{{ radio_interface }}", "wlan0")
        .replace("{{ wired_interface }}", "eth0");
    let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let mut files = BTreeMap::from([
        (
            "README.txt",
            fs::read_to_string(format!("{OVERLAYS}/site/README.txt")).unwrap(),
        ),
        ("footbridge.toml", agent),
        ("hostname", "footbridge\n".to_owned()),
        (
            "uplink.network",
            fs::read_to_string(format!("{OVERLAYS}/site/uplink.network")).unwrap(),
        ),
        ("wpa_supplicant.conf", NETWORKS.to_owned()),
    ]);
    for name in [
        "ca-8010bfce.pem",
        "certificate-8010bfce.pem",
        "key-ca954af2.pem",
    ] {
        files.insert(name, certificate.to_owned());
    }
    let site: SiteFiles = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), Ok(text.clone().into_bytes())))
        .collect();
    let checked = check_site(&Rule::parse_table(&table()).unwrap(), &site, false);
    assert_eq!(checked.faults, []);
    assert_eq!(checked.notes, [""; 0]);
    // All but the one that explains the folder.
    assert_eq!(checked.files.len(), files.len() - 1);
    for file in checked.files {
        let text = String::from_utf8(file.bytes).unwrap();
        assert!(
            files.values().any(|written| *written == text),
            "{}",
            file.destination
        );
    }
}

/// A place where init's own function runs: its paths lead here, and `mount` is written down.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Stage {
        let stage = Stage(tempfile::tempdir().unwrap());
        for folder in [
            "boot/site",
            "lower/usr/bin",
            "lower/usr/sbin",
            "layer/etc/footbridge",
            "layer/etc/systemd/network",
            "layer/etc/wpa_supplicant",
            "layer/root/.ssh",
        ] {
            fs::create_dir_all(stage.path().join(folder)).unwrap();
        }
        let agent = stage.path().join("lower/usr/bin/footbridge");
        symlink(env!("CARGO_BIN_EXE_footbridge"), agent).unwrap();
        fs::write(stage.path().join("site-files"), table()).unwrap();
        stage.put("site/wpa_supplicant.conf", NETWORKS);
        stage
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, path: &str, text: &str) {
        fs::write(self.path().join("boot").join(path), text).unwrap();
    }

    /// Runs the function. Returns what the console shows, and calls of `mount`.
    fn lay_site(&self) -> String {
        let init = fs::read_to_string(INIT).unwrap();
        let begin = init.find("lay_site() {").unwrap();
        let end = begin + init[begin..].find("\n}\n").unwrap() + 3;
        let here = self.path().display();
        let function = init[begin..end]
            .replace("/boot", &format!("{here}/boot"))
            .replace("/lower", &format!("{here}/lower"))
            .replace("/etc/site-files", &format!("{here}/site-files"))
            .replace("told=/dev/console", "told=/dev/stdout");
        let script = format!(
            "say() {{ echo \"footbridge: $1\"; }}\nmount() {{ echo \"mount $*\"; }}\n{function}\nlay_site {here}/layer\n"
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success());
        let shown = String::from_utf8(output.stdout).unwrap();
        shown.replace(&here.to_string(), "") + &String::from_utf8(output.stderr).unwrap()
    }

    fn laid(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path().join("layer").join(path)).ok()
    }
}

#[test]
fn init_has_the_agent_lay_the_site() {
    if !missing_tools(&["sh"]).is_empty() {
        return skip("site::init_has_the_agent_lay_the_site", "no sh");
    }
    let stage = Stage::new();
    stage.put("site/hostname", "my attic\r\n");
    for name in ["ca-8010bfce.pem", "certificate-8010bfce.pem"] {
        stage.put(&format!("site/{name}"), "-----BEGIN CERTIFICATE-----\n");
    }
    let shown = stage.lay_site();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines[0].starts_with("footbridge: site/hostname, line 1: this is no host name; "),
        "{shown}"
    );
    assert!(
        lines[1].starts_with(
            "footbridge: site/wpa_supplicant.conf, line 18: a certificate or key that it names"
        ),
        "{shown}"
    );
    assert_eq!(lines.len(), 2, "nothing was mounted: {shown}");
    assert_eq!(stage.laid("etc/hostname"), None);
    let networks = stage
        .laid("etc/wpa_supplicant/wpa_supplicant-wlan0.conf")
        .unwrap();
    assert_eq!(networks.matches("network={").count(), 2, "{networks}");
    assert_eq!(networks.lines().count(), NETWORKS.lines().count());
    let faults = load_faults(&stage.path().join("layer").join(FAULTS)).unwrap();
    let told: Vec<_> = faults
        .iter()
        .map(|fault| (fault.file.as_str(), fault.line))
        .collect();
    assert_eq!(
        told,
        [
            ("site/hostname", Some(1)),
            ("site/wpa_supplicant.conf", Some(18))
        ]
    );
}

#[test]
fn init_lets_the_partition_be_written_for_imager_alone() {
    if !missing_tools(&["sh"]).is_empty() {
        return skip(
            "site::init_lets_the_partition_be_written_for_imager_alone",
            "no sh",
        );
    }
    let stage = Stage::new();
    stage.put(
        "rpi-preseed.toml",
        "config_version = \"1.0\"\n\n[system]\nhostname = \"attic\"\n\n[wlan]\nssid = \"home\"\npassword = \"a secret\"\n\
         password_encrypted = false\nhidden = false\ncountry = \"DE\"\n",
    );
    let shown = stage.lay_site();
    assert_eq!(
        shown,
        "mount -o remount,rw,sync /boot\n\
         footbridge: rpi-preseed.toml: taken over into site/: hostname, wpa_supplicant.conf\n"
    );
    assert!(!stage.path().join("boot/rpi-preseed.toml").exists());
    assert_eq!(stage.laid("etc/hostname").as_deref(), Some("attic\n"));
    let path = stage
        .path()
        .join("layer/etc/wpa_supplicant/wpa_supplicant-wlan0.conf");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .contains("\tssid=686f6d65\n")
    );
    assert_eq!(stage.lay_site(), "");
}

/// A root whose agent does not run starts with the defaults.
#[test]
fn without_an_agent_init_says_so_and_goes_on() {
    if !missing_tools(&["sh"]).is_empty() {
        return skip("site::without_an_agent_init_says_so_and_goes_on", "no sh");
    }
    let stage = Stage::new();
    fs::remove_file(stage.path().join("lower/usr/bin/footbridge")).unwrap();
    let shown = stage.lay_site();
    assert!(
        shown.contains(
            "footbridge: not all of site/ could be taken; what is missing is at its default\n"
        ),
        "{shown}"
    );
}
