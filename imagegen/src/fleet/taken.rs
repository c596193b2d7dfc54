//! What devices must not share.

use std::collections::{BTreeMap, BTreeSet};

use super::list::{Problem, Row};
use super::{Device, static_address};

/// What must not come twice, and where it came first.
#[derive(Default)]
pub(super) struct Taken {
    first: BTreeMap<(&'static str, String), (String, usize)>,
}

impl Taken {
    pub(super) fn add(&mut self, row: &Row<'_>, device: &Device, problems: &mut Vec<Problem>) {
        // Names are those of files, and some file systems do not tell cases apart; the domain name system does not either.
        let mut keys = vec![
            ("name", device.name.as_str().to_ascii_lowercase()),
            (
                "host name",
                device.site.hostname.to_string().to_ascii_lowercase(),
            ),
        ];
        keys.extend(
            device
                .serial
                .iter()
                .map(|serial| ("serial number", serial.to_string())),
        );
        keys.extend(
            device
                .mac
                .iter()
                .map(|mac| ("hardware address", mac.to_string())),
        );
        // The same address in another network is another address.
        let networks: BTreeSet<String> = device
            .site
            .networks
            .iter()
            .map(|network| network.ssid.to_printable())
            .collect();
        if let Some(address) = static_address(&device.site) {
            keys.extend(
                networks
                    .iter()
                    .map(|ssid| ("address", format!("{address} in {ssid}"))),
            );
        }
        let here = row.source.problem(&row.span, "", "");
        for key in keys {
            match self.first.get(&key) {
                Some((file, line)) => {
                    let (kind, value) = &key;
                    let what = format!("the {kind} `{value}` is that of {file}:{line} too");
                    problems.push(
                        row.source
                            .problem(&row.span, what, "give each device its own"),
                    );
                }
                None => {
                    self.first.insert(key, (here.file.clone(), here.line));
                }
            }
        }
    }
}
