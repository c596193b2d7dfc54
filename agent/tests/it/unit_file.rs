//! The systemd unit the image carries: what it may do, and how exposed the service manager's own judge finds it.

use std::path::Path;
use std::process::Command;

use crate::skip::{missing_tools, skip};

/// The agent's unit.
pub(crate) const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../overlays/rootfs/etc/systemd/system/footbridge.service"
);
/// The part of a radio's recovery that needs root.
const DRIVER_UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../overlays/rootfs/etc/systemd/system/footbridge-driver.service"
);
/// What starts it.
const DRIVER_PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../overlays/rootfs/etc/systemd/system/footbridge-driver.path"
);

/// What the image adds to the supplicant's unit.
const SUPPLICANT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../overlays/rootfs/etc/systemd/system/wpa_supplicant@.service.d/footbridge.conf"
);

#[test]
fn the_unit_has_three_capabilities_and_a_user_of_its_own() {
    let unit = std::fs::read_to_string(UNIT).unwrap();
    let capabilities = "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE";
    for line in [
        "Type=notify-reload",
        "User=footbridge",
        "RuntimeDirectory=footbridge",
        "ExecStart=/usr/bin/footbridge run --config /etc/footbridge/footbridge.toml --site-faults /etc/footbridge/site-faults.json",
        &format!("AmbientCapabilities={capabilities}"),
        &format!("CapabilityBoundingSet={capabilities}"),
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

/// A request that went away with the agent is none, and one that was granted is granted once.
#[test]
fn the_driver_is_loaded_anew_once_for_a_request_that_is_there() {
    let request = "/run/footbridge/reload-driver";
    let path = std::fs::read_to_string(DRIVER_PATH).unwrap();
    let conditions: Vec<&str> = path
        .lines()
        .filter(|line| line.starts_with("Path"))
        .collect();
    assert_eq!(conditions, [format!("PathExists={request}")]);
    let unit = std::fs::read_to_string(DRIVER_UNIT).unwrap();
    let mut commands = unit.lines().filter(|line| line.starts_with("Exec"));
    let removal = format!("ExecStartPre=+/usr/bin/busybox rm -f {request}");
    assert_eq!(commands.next(), Some(removal.as_str()));
    let reload = commands.next().unwrap();
    assert!(
        reload.starts_with("ExecStart=/usr/bin/footbridge reload-driver "),
        "{reload}"
    );
    assert_eq!(commands.next(), None);
}

/// The agent may tell the supplicant to load any file, and has places of its own to put one.
#[test]
fn the_supplicant_runs_no_code_that_the_agent_could_write() {
    let text = std::fs::read_to_string(SUPPLICANT).unwrap();
    let words = |key: &str| -> Vec<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(key));
        lines.flat_map(str::split_whitespace).collect()
    };
    assert_eq!(words("ExecPaths="), ["/usr"]);
    for place in ["/", "/dev/shm", "/run"] {
        assert!(words("NoExecPaths=").contains(&place), "{place}");
    }
    let capabilities = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_CHOWN"];
    assert_eq!(words("CapabilityBoundingSet="), capabilities);
}

#[test]
fn the_units_are_little_exposed() {
    if !missing_tools(&["systemd-analyze"]).is_empty() {
        return skip(
            "unit_file::the_units_are_little_exposed",
            "no systemd-analyze",
        );
    }
    // Debian's own unit says of all this only what is to be started.
    let dir = tempfile::tempdir().unwrap();
    let supplicant = dir.path().join("wpa_supplicant.service");
    let text = std::fs::read_to_string(SUPPLICANT).unwrap();
    std::fs::write(&supplicant, format!("{text}ExecStart=/bin/true\n")).unwrap();
    for (unit, most) in [
        (Path::new(UNIT), 2.5),
        (Path::new(DRIVER_UNIT), 2.5),
        // It is root, and files below /tmp are where its clients are.
        (&supplicant, 3.5),
    ] {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager"])
            .arg(unit)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(overall) = text.lines().find(|line| line.contains("Overall exposure")) else {
            let why = String::from_utf8_lossy(&output.stderr);
            // Before version 250 it judges running services only.
            return skip("unit_file::the_units_are_little_exposed", why.trim());
        };
        let exposure = overall
            .split_whitespace()
            .find_map(|word| word.parse::<f32>().ok());
        assert!(
            exposure.is_some_and(|exposure| exposure < most),
            "{overall}\n{text}"
        );
    }
}
