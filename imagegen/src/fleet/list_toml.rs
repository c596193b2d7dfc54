//! A list of devices as TOML.
//!
//! ```toml
//! devices = "devices.csv"         # where the devices are in a table of their own
//!
//! [defaults]                      # what every device has that says nothing else: the keys of a site.toml, board and gadget
//! board = "pi3"
//! country = "DE"
//! ssh-keys-file = "operations.pub"
//!
//! [[defaults.network]]
//! ssid = "Hall"
//! psk-command = ["pass", "show", "wifi/hall"]
//!
//! [defaults.uplink]               # goes with each address that a device has
//! gateway = "10.0.0.1"
//! dns = ["10.0.0.1"]
//!
//! [[device]]
//! name = "hall-1"
//! serial = "10000000abcdef01"
//! uplink.address = "10.0.0.11/24"
//!
//! [[device]]
//! name = "shop"
//! board = "zero-w"
//! gadget = true
//! mac = "b8:27:eb:01:02:03"
//! hostname = "till"
//! network = [{ ssid = "Shop", psk-file = "shop.psk" }]
//! ```

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::list::{List, Problem, Row, Source};

/// Returns the name of the CSV that a fleet.toml names. Whatever else is wrong with the file is told when it is parsed.
pub(super) fn devices_file(source: &Source) -> Option<String> {
    let (table, _) = DeTable::parse_recoverable(&source.text);
    match table.get_ref().get("devices")?.get_ref() {
        DeValue::String(name) => Some(name.to_string()),
        _ => None,
    }
}

/// Takes a fleet.toml apart.
pub(super) fn parse<'a>(source: &'a Source, list: &mut List<'a>, problems: &mut Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    problems.extend(errors.iter().map(|error| {
        let span = error.span().unwrap_or(0..0);
        source.problem(&span, error.message(), "the book shows a whole fleet.toml")
    }));
    if !errors.is_empty() {
        // What was recovered is a guess, and what is wrong with a guess nobody wants to know.
        return;
    }
    for (key, value) in table.into_inner() {
        let span = value.span();
        match (key.get_ref().as_ref(), value.into_inner()) {
            ("devices", DeValue::String(_)) => {}
            ("defaults", DeValue::Table(fields)) => {
                list.defaults = Some(Row {
                    source,
                    span,
                    fields,
                });
            }
            ("device", DeValue::Array(devices)) => {
                for device in devices {
                    push_device(source, device, list);
                }
            }
            ("devices", _) => list.problems.push(source.problem(
                &key.span(),
                "`devices` names no file",
                "for example: devices = \"devices.csv\"; a device here begins with [[device]]",
            )),
            ("defaults", _) => list.problems.push(source.problem(
                &key.span(),
                "`defaults` is no table",
                "write [defaults]",
            )),
            ("device", _) => list.problems.push(source.problem(
                &key.span(),
                "`device` is no list of tables",
                "write [[device]]",
            )),
            (other, _) => list.problems.push(source.problem(
                &key.span(),
                format!("a list of devices has no `{other}`"),
                "there are devices, [defaults] and [[device]]",
            )),
        }
    }
}

fn push_device<'a>(source: &'a Source, device: Spanned<DeValue<'a>>, list: &mut List<'a>) {
    let span: Range<usize> = device.span();
    match device.into_inner() {
        DeValue::Table(fields) => list.devices.push(Row {
            source,
            span,
            fields,
        }),
        _ => list
            .problems
            .push(source.problem(&span, "this is no device", "write [[device]]")),
    }
}
