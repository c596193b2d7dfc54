//! Checks uplink.network, by which systemd-networkd gives the uplink its address. A line that networkd would not take is left out; a file
//! that gives no address is not used at all, for the root's own asks by DHCP.
//!
//! The format: systemd.syntax(7) and systemd.network(5). Settings that are not known here are networkd's own affair.

use std::net::IpAddr;

use super::fault::{Finding, LINE_LEFT_OUT};
use super::text;

const BY_DHCP: &str = "the address comes by DHCP";

/// The settings whose misspelling would cost the address.
const WORDS: &[&str] = &[
    "Address",
    "DHCP",
    "DNS",
    "Gateway",
    "IPv6AcceptRA",
    "IgnoreCarrierLoss",
    "LinkLocalAddressing",
    "Name",
];

/// What [Match] may have beside the name (systemd.network(5)).
const MATCHES: &[&str] = &[
    "Architecture",
    "BSSID",
    "Driver",
    "Host",
    "KernelCommandLine",
    "KernelVersion",
    "Kind",
    "MACAddress",
    "Path",
    "PermanentMACAddress",
    "Property",
    "SSID",
    "Type",
    "Virtualization",
    "WLANInterfaceType",
];

/// Returns what of the file is good, every line in its place; nothing where it gives `interface` no address. And what is wrong.
pub(super) fn check(text: &str, interface: &str) -> (Option<Vec<u8>>, Vec<Finding>) {
    let mut file = File::default();
    let mut kept = Vec::with_capacity(text.len());
    for (number, line) in text::lines(text.as_bytes()) {
        // It was text as a whole.
        let line = String::from_utf8_lossy(line);
        match file.take(&line, interface) {
            Ok(()) => kept.extend_from_slice(line.as_bytes()),
            Err((what, next)) => {
                let finding = Finding::at(number, what, LINE_LEFT_OUT, next);
                file.findings.push(finding);
            }
        }
        kept.push(b'\n');
    }
    let missing = if !file.matches {
        Some((
            format!("it does not say that it is about {interface}"),
            format!("begin it with `[Match]` and `Name={interface}`"),
        ))
    } else if !file.gives_address {
        Some((
            "it gives no address".to_owned(),
            "write `DHCP=ipv4`, or `Address=` with address and length, such as 192.168.1.5/24, below [Network]".to_owned(),
        ))
    } else {
        None
    };
    match missing {
        Some((what, next)) => {
            file.findings.push(Finding::of_file(what, BY_DHCP, next));
            (None, file.findings)
        }
        None => (Some(kept), file.findings),
    }
}

#[derive(Default)]
struct File {
    section: Option<String>,
    /// Whether the line before goes on.
    continued: bool,
    matches: bool,
    gives_address: bool,
    findings: Vec<Finding>,
}

impl File {
    /// Takes a line, or says what is wrong with it and what to do.
    fn take(&mut self, line: &str, interface: &str) -> Result<(), (String, String)> {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            return Ok(());
        }
        let goes_on = content.ends_with('\\');
        if std::mem::replace(&mut self.continued, goes_on) {
            return Ok(());
        }
        if let Some(rest) = content.strip_prefix('[') {
            let name = rest.strip_suffix(']').filter(|name| {
                name.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            });
            self.section = name.map(str::to_owned);
            return match name {
                Some(_) => Ok(()),
                None => Err((
                    "this is no section".to_owned(),
                    "write its name in square brackets, such as [Network]".to_owned(),
                )),
            };
        }
        let Some((key, value)) = content.split_once('=') else {
            return Err((
                "this is no setting".to_owned(),
                "write `Name=value`, or `#` before a comment".to_owned(),
            ));
        };
        let (key, value) = (key.trim(), value.trim());
        let Some(section) = self.section.clone() else {
            return Err((
                "this setting is in no section".to_owned(),
                "put it below [Match], [Network] or whichever it belongs to".to_owned(),
            ));
        };
        if let Some(word) = misspelt(key) {
            return Err((
                "there is no setting of this name".to_owned(),
                format!("did you mean `{word}`?"),
            ));
        }
        match (section.as_str(), key) {
            ("Match", "Name") => self.matches |= covers(value, interface),
            ("Match", key) if MATCHES.contains(&key) => self.matches = true,
            ("Match", _) => {
                return Err((
                    "[Match] has no setting of this name".to_owned(),
                    format!("write `Name={interface}`"),
                ));
            }
            ("Network", "DHCP") => self.take_dhcp(value)?,
            ("Network" | "Address", "Address") => self.take_address(value)?,
            ("Network" | "Route", "Gateway") => check_gateway(value)?,
            ("Network", "DNS") => check_dns(value)?,
            _ => {}
        }
        Ok(())
    }

    fn take_dhcp(&mut self, value: &str) -> Result<(), (String, String)> {
        let on = ["yes", "y", "true", "t", "on", "1", "ipv4"];
        let off = ["no", "n", "false", "f", "off", "0", "ipv6"];
        let is = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
        if is(&on) {
            self.gives_address = true;
        } else if !is(&off) {
            return Err((
                "this is nothing that `DHCP` can be".to_owned(),
                "write `DHCP=ipv4`".to_owned(),
            ));
        }
        Ok(())
    }

    fn take_address(&mut self, value: &str) -> Result<(), (String, String)> {
        // An empty one takes back those before.
        if value.is_empty() {
            return Ok(());
        }
        let (address, length) = match value.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (value, None),
        };
        let address: Option<IpAddr> = address.parse().ok();
        let most = match address {
            Some(IpAddr::V4(_)) => 32,
            Some(IpAddr::V6(_)) | None => 128,
        };
        let fits = match length {
            Some(length) => length.parse::<u8>().is_ok_and(|length| length <= most),
            None => true,
        };
        match address {
            Some(address) if fits => {
                self.gives_address |= address.is_ipv4();
                Ok(())
            }
            _ => Err((
                "this is no address".to_owned(),
                "write address and length of the subnet, such as `Address=192.168.1.5/24`"
                    .to_owned(),
            )),
        }
    }
}

fn check_gateway(value: &str) -> Result<(), (String, String)> {
    let special = ["", "_dhcp4", "_ipv6ra"];
    match value.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) if special.contains(&value) => Ok(()),
        Err(_) => Err((
            "this is no gateway's address".to_owned(),
            "write it without a length, such as `Gateway=192.168.1.1`".to_owned(),
        )),
    }
}

/// Servers may have a port, an interface and a name behind them.
fn check_dns(value: &str) -> Result<(), (String, String)> {
    let is_server = |server: &str| {
        let plain = server.split(['%', '#']).next().unwrap_or_default();
        plain.starts_with('[')
            || plain.parse::<IpAddr>().is_ok()
            || plain.parse::<std::net::SocketAddrV4>().is_ok()
    };
    if value.split_whitespace().all(is_server) {
        Ok(())
    } else {
        Err((
            "this is no DNS server's address".to_owned(),
            "write addresses, such as `DNS=192.168.1.1`".to_owned(),
        ))
    }
}

/// Whether a list of names and patterns is about the interface. What is more than a name and a star at its end is taken to be.
fn covers(names: &str, interface: &str) -> bool {
    names
        .split_whitespace()
        .any(|name| match name.split_once('*') {
            Some((begin, _)) => interface.starts_with(begin),
            None => name == interface || name.contains(['?', '[', '!']),
        })
}

/// Returns the setting that was meant: networkd distinguishes capitals, and passes over what it does not know.
fn misspelt(key: &str) -> Option<&'static str> {
    let near = |word: &&str| {
        word.eq_ignore_ascii_case(key)
            || (word.len() > 4
                && strsim::osa_distance(&key.to_lowercase(), &word.to_lowercase()) == 1)
    };
    let words = WORDS.iter().copied();
    words.filter(|_| !WORDS.contains(&key)).find(near)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::fault::listed;
    use super::*;

    fn check_text(text: &str, expected: Expect) {
        let (kept, findings) = check(text, "wlan0");
        let mut shown = listed(&findings);
        let kept = kept.map(|kept| kept.escape_ascii().to_string());
        shown += &format!("kept: {}\n", kept.unwrap_or_else(|| "nothing".to_owned()));
        expected.assert_eq(&shown);
    }

    #[test]
    fn the_files_of_the_image_are_good_and_the_same() {
        let of_site = include_str!("../../../overlays/site/uplink.network");
        let of_root = include_str!("../../../overlays/rootfs/etc/systemd/network/08-wlan0.network");
        assert_eq!(
            check(of_site, "wlan0"),
            (Some(of_site.as_bytes().to_vec()), Vec::new())
        );
        let settings = |text: &'static str| text.lines().filter(|line| !line.starts_with('#'));
        assert!(settings(of_site).eq(settings(of_root)));
    }

    #[test]
    fn a_bad_line_does_not_cost_a_good_address() {
        check_text(
            "[Match]\nName=wlan0\n\n[Network]\nAddress=192.168.1.50/24\nGateway=192.168.1.1/24\nDNS=192.168.1.1 dns\ndns=9.9.9.9\n\
             IPv6AcceptRA no\nIgnoreCarierLoss=3s\n[Link\nRequiredForOnline=no\n",
            expect![[r#"
                6: this is no gateway's address; this line is left out; write it without a length, such as `Gateway=192.168.1.1`
                7: this is no DNS server's address; this line is left out; write addresses, such as `DNS=192.168.1.1`
                8: there is no setting of this name; this line is left out; did you mean `DNS`?
                9: this is no setting; this line is left out; write `Name=value`, or `#` before a comment
                10: there is no setting of this name; this line is left out; did you mean `IgnoreCarrierLoss`?
                11: this is no section; this line is left out; write its name in square brackets, such as [Network]
                12: this setting is in no section; this line is left out; put it below [Match], [Network] or whichever it belongs to
                kept: [Match]\nName=wlan0\n\n[Network]\nAddress=192.168.1.50/24\n\n\n\n\n\n\n\n
            "#]],
        );
    }

    #[test]
    fn a_match_that_there_is_not_counts_for_nothing() {
        check_text(
            "[Match]\nInterface=wlan0\n[Network]\nDHCP=yes\n",
            expect![[r#"
                2: [Match] has no setting of this name; this line is left out; write `Name=wlan0`
                -: it does not say that it is about wlan0; the address comes by DHCP; begin it with `[Match]` and `Name=wlan0`
                kept: nothing
            "#]],
        );
    }

    #[test]
    fn without_an_address_it_comes_by_dhcp() {
        check_text(
            "[Match]\nName=wlan0\n[Network]\nAddress=192.168.1.300/24\n",
            expect![[r#"
                4: this is no address; this line is left out; write address and length of the subnet, such as `Address=192.168.1.5/24`
                -: it gives no address; the address comes by DHCP; write `DHCP=ipv4`, or `Address=` with address and length, such as 192.168.1.5/24, below [Network]
                kept: nothing
            "#]],
        );
        check_text(
            "[Match]\nName=wlan0\n[Network]\nDHCP=ip4\n",
            expect![[r#"
                4: this is nothing that `DHCP` can be; this line is left out; write `DHCP=ipv4`
                -: it gives no address; the address comes by DHCP; write `DHCP=ipv4`, or `Address=` with address and length, such as 192.168.1.5/24, below [Network]
                kept: nothing
            "#]],
        );
        check_text(
            "Name=wlan0\n[Network]\nDHCP=yes\n",
            expect![[r#"
            1: this setting is in no section; this line is left out; put it below [Match], [Network] or whichever it belongs to
            -: it does not say that it is about wlan0; the address comes by DHCP; begin it with `[Match]` and `Name=wlan0`
            kept: nothing
        "#]],
        );
        check_text(
            "[Match]\nName=eth0 eth*\n[Network]\nDHCP=yes\n",
            expect![[r#"
                -: it does not say that it is about wlan0; the address comes by DHCP; begin it with `[Match]` and `Name=wlan0`
                kept: nothing
            "#]],
        );
    }

    #[test]
    fn other_ways_to_say_it_are_taken() {
        for text in [
            "[Match]\nName = wl*\n[Network]\nDHCP = yes\nDNS=[fe80::1%wlan0]:53 9.9.9.9:53#dns.quad9.net\n",
            "[Match]\nType=wlan\n[Address]\nAddress=10.0.0.2/8\n[Route]\nGateway=_dhcp4\n",
            "; mine\n[Match]\nName=!eth0\n[Network]\nAddress=10.0.0.2/8\nDescription=a \\\n b\n",
        ] {
            let (kept, findings) = check(text, "wlan0");
            assert_eq!(findings, [], "{text}");
            assert_eq!(kept.unwrap(), text.as_bytes());
        }
    }
}
