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
        "uplink = \"wlan0\"\ndownlink = \"eth0\"\ndhcp-max-hops = 4\n",
        Overrides::default(),
        expect![[r#"
            Settings { uplink: "wlan0", downlink: "eth0", dhcp_max_hops: 4 }
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
            Settings { uplink: "wlan1", downlink: "eth0", dhcp_max_hops: 16 }
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
        "dhcp_max_hops = 3\n",
        Overrides::default(),
        expect![[r#"
            error: unknown key `dhcp_max_hops`
            hint: did you mean `dhcp-max-hops`?
        "#]],
    );
    check(
        "psk = \"secret\"\n",
        Overrides::default(),
        expect![[r#"
            error: unknown key `psk`
            hint: the keys are `uplink`, `downlink`, `dhcp-max-hops`
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
        "uplink = \"wlan0\"\ndownlink = \"eth0\"\ndhcp-max-hops = 0\n",
        Overrides::default(),
        expect![[r#"
            error: dhcp-max-hops is 0
            hint: give a number from 1 to 16; RFC 1542 suggests 16 as the limit
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
            hint: the file is TOML: one `key = "value"` a line
        "#]],
    );
}

/// The image builder's half of the contract: what it puts on cards, the agent reads, as written and with every key switched on.
#[test]
fn the_images_own_files_are_read() {
    let overlays = concat!(env!("CARGO_MANIFEST_DIR"), "/../overlays");
    for file in [
        "rootfs/etc/footbridge/footbridge.toml",
        "site/footbridge.toml",
    ] {
        let text = std::fs::read_to_string(format!("{overlays}/{file}")).unwrap();
        let full = text.replace("#dhcp-max-hops", "dhcp-max-hops");
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
