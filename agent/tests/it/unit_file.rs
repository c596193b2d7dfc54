//! The systemd unit the image carries: what it may do, and how exposed the service manager's own judge finds it.

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

#[test]
fn the_unit_has_three_capabilities_and_a_user_of_its_own() {
    let unit = std::fs::read_to_string(UNIT).unwrap();
    let capabilities = "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE";
    for line in [
        "Type=notify-reload",
        "User=footbridge",
        "RuntimeDirectory=footbridge",
        "ExecStart=/usr/bin/footbridge run --config /etc/footbridge/footbridge.toml",
        &format!("AmbientCapabilities={capabilities}"),
        &format!("CapabilityBoundingSet={capabilities}"),
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn the_units_are_little_exposed() {
    if !missing_tools(&["systemd-analyze"]).is_empty() {
        return skip(
            "unit_file::the_units_are_little_exposed",
            "no systemd-analyze",
        );
    }
    for unit in [UNIT, DRIVER_UNIT] {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager", unit])
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
            exposure.is_some_and(|exposure| exposure < 2.5),
            "{overall}\n{text}"
        );
    }
}
