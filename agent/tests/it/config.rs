//! Configuration files, and what is said of those that are refused.

use expect_test::{Expect, expect};
use footbridge_agent::config::{Overrides, parse_config};

fn check(text: &str, overrides: Overrides, expected: Expect) {
    let shown = match parse_config(text, overrides) {
        Ok(config) => format!("{:?}\n", config.settings),
        Err(error) => format!("error: {error}\nhint: {}\n", error.hint()),
    };
    expected.assert_eq(&shown);
}

#[test]
fn every_key_is_read() {
    check(
        "uplink = \"wlan0\"\ndownlink = \"eth0\"\n[dhcp]\nmode = \"broadcast\"\nmax-hops = 4\ntrust-option-82 = true\n\
         circuit-id = \"desk 4\"\n[discovery]\nmdns = false\nssdp = false\nws-discovery = false\nwake-on-lan = false\n\
         netbios = false\n[wired]\nbounce = false\n[wifi]\npower-save = true\nrecovery = \"driver\"\n[fleet]\nstatus = true\n",
        Overrides::default(),
        expect![[r#"
            Settings { uplink: "wlan0", downlink: "eth0", dhcp: DhcpSettings { mode: Broadcast, max_hops: 4, trust_option_82: true, circuit_id: "desk 4" }, discovery: DiscoverySettings { mdns: false, ssdp: false, ws_discovery: false, wake_on_lan: false, netbios: false }, wired: WiredSettings { bounce: false }, wifi: WifiSettings { power_save: true, recovery: Driver }, fleet: FleetSettings { status: true, device: Device { hostname: "", serial: None, image: None } } }
        "#]],
    );
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides {
        uplink: Some("wlan1".to_owned()),
        downlink: None,
    };
    check(
        "uplink = \"wlan0\"\ndownlink = \"eth0\"\n",
        overrides,
        expect![[r#"
            Settings { uplink: "wlan1", downlink: "eth0", dhcp: DhcpSettings { mode: Auto, max_hops: 16, trust_option_82: false, circuit_id: "" }, discovery: DiscoverySettings { mdns: true, ssdp: true, ws_discovery: true, wake_on_lan: true, netbios: true }, wired: WiredSettings { bounce: true }, wifi: WifiSettings { power_save: false, recovery: Reboot }, fleet: FleetSettings { status: false, device: Device { hostname: "", serial: None, image: None } } }
        "#]],
    );
}

#[test]
fn a_misspelt_key_is_answered_with_the_nearest() {
    check(
        "uplnk = \"wlan0\"\n",
        Overrides::default(),
        expect![[r#"
            error: unknown key `uplnk`
            hint: did you mean `uplink`?
        "#]],
    );
    check(
        "[dhcp]\nmax_hops = 3\n",
        Overrides::default(),
        expect![[r#"
            error: unknown key `max_hops` in [dhcp]
            hint: did you mean `max-hops`?
        "#]],
    );
    check(
        "psk = \"secret\"\n",
        Overrides::default(),
        expect![[r#"
            error: unknown key `psk`
            hint: the keys are `uplink`, `downlink`, `dhcp`, `discovery`, `wired`, `wifi`, `fleet`
        "#]],
    );
}

#[test]
fn wrong_values_are_refused() {
    check(
        "uplink = \"wlan0\"\n",
        Overrides::default(),
        expect![[r#"
            error: no downlink interface is named
            hint: give --downlink NAME, or `downlink = "NAME"` in the configuration file; `ip link` lists the names
        "#]],
    );
    check(
        "uplink = \"eth0\"\ndownlink = \"eth0\"\n",
        Overrides::default(),
        expect![[r#"
            error: uplink and downlink are both `eth0`
            hint: a bridge needs two interfaces: one in the network, one for the wired hosts
        "#]],
    );
    check(
        "uplink = \"../etc\"\ndownlink = \"eth0\"\n",
        Overrides::default(),
        expect![[r#"
            error: `../etc` is not an interface name
            hint: a name is 1 to 15 characters without `/`, `:` or blanks; `ip link` lists those that exist
        "#]],
    );
    check(
        "uplink = \"wlan0\"\ndownlink = \"eth0\"\n[dhcp]\nmax-hops = 0\n",
        Overrides::default(),
        expect![[r#"
            error: max-hops is 0
            hint: give a number from 1 to 16; RFC 1542 suggests 16 as the limit
        "#]],
    );
    check(
        "uplink = \"wlan0\"\ndownlink = \"eth0\"\n[dhcp]\nmax-hops = 900\n",
        Overrides::default(),
        expect![[r#"
            error: max-hops is 900
            hint: give a number from 1 to 16; RFC 1542 suggests 16 as the limit
        "#]],
    );
    check(
        "uplink = \"wlan0\"\ndownlink = \"eth0\"\ndhcp = \"relay\"\n",
        Overrides::default(),
        expect![[r#"
            error: TOML parse error at line 3, column 8
              |
            3 | dhcp = "relay"
              |        ^^^^^^^
            invalid type: string "relay", expected the table `[dhcp]`
            hint: the file is TOML: one `key = "value"` a line, below its `[table]` if it has one
        "#]],
    );
    check(
        "uplink = 3\n",
        Overrides::default(),
        expect![[r#"
            error: TOML parse error at line 1, column 10
              |
            1 | uplink = 3
              |          ^
            invalid type: integer `3`, expected a string
            hint: the file is TOML: one `key = "value"` a line, below its `[table]` if it has one
        "#]],
    );
}

/// The image builder's half of the contract: what it puts on cards, the agent reads, as written and with every key switched on.
#[test]
fn the_images_own_files_are_read() {
    let overlays = concat!(env!("CARGO_MANIFEST_DIR"), "/../overlays");
    for file in [
        "rootfs/etc/footbridge/footbridge.toml.tera",
        "site/footbridge.toml.tera",
    ] {
        let text = std::fs::read_to_string(format!("{overlays}/{file}")).unwrap();
        let text = text
            .replace("{{ radio_interface }}", "wlan0")
            .replace("{{ wired_interface }}", "eth0");
        let keys = text.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => key,
            Some(_) | None => line,
        });
        let full = keys.collect::<Vec<_>>().join("\n");
        for text in [text, full] {
            let settings = parse_config(&text, Overrides::default()).unwrap().settings;
            assert_eq!(
                (&*settings.uplink, &*settings.downlink),
                ("wlan0", "eth0"),
                "{file}"
            );
        }
    }
}
