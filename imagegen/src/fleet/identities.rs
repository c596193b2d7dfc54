//! Who is in a list, for those who look for its devices: names, numbers and addresses, without the files and programs that hold
//! secrets, which need not be where devices are looked for.

use std::net::Ipv4Addr;

use toml::de::DeValue;

use super::list::{List, Problem, Row};
use super::{DeviceName, Serial};
use crate::site::Hostname;

/// What a device of a list is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What it is called in the list.
    pub name: DeviceName,
    /// What it calls itself.
    pub hostname: Hostname,
    /// The number of its processor, where the list has it.
    pub serial: Option<Serial>,
    /// Its address, where it is always the same.
    pub address: Option<Ipv4Addr>,
}

/// Returns who is in a list, in its order, or what is wrong with what they are known by.
pub fn identities(list: &List<'_>) -> Result<Vec<Identity>, Vec<Problem>> {
    let mut problems = list.problems.clone();
    let mut devices = Vec::new();
    for row in &list.devices {
        match identity(row) {
            Ok(identity) => devices.push(identity),
            Err(problem) => problems.push(problem),
        }
    }
    problems.sort();
    problems.dedup();
    if problems.is_empty() {
        Ok(devices)
    } else {
        Err(problems)
    }
}

fn identity(row: &Row<'_>) -> Result<Identity, Problem> {
    let wrong = |what: String, hint: &str| row.source.problem(&row.span, what, hint);
    let name = text(row, "name").ok_or_else(|| {
        wrong(
            "the device has no name".to_owned(),
            "for example: name = \"hall-1\"",
        )
    })?;
    let name = DeviceName::parse(name).map_err(|error| {
        wrong(
            error.to_string(),
            "`cargo xtask fleet build` checks the whole list",
        )
    })?;
    let hostname = text(row, "hostname").unwrap_or(name.as_str());
    let hostname = Hostname::parse(hostname).map_err(|error| {
        wrong(
            error.to_string(),
            "give the device a hostname, or a name that is one",
        )
    })?;
    let serial = text(row, "serial").map(Serial::parse).transpose();
    let serial = serial.map_err(|error| {
        wrong(
            error.to_string(),
            "`cat /proc/cpuinfo` on the device says it in its last lines",
        )
    })?;
    Ok(Identity {
        name,
        hostname,
        serial,
        address: address(row),
    })
}

fn text<'a>(row: &'a Row<'_>, key: &str) -> Option<&'a str> {
    row.fields.get(key).and_then(|value| match value.get_ref() {
        DeValue::String(text) => Some(text.as_ref()),
        _ => None,
    })
}

/// Returns the address of an `uplink`; one that comes by DHCP is not known here.
fn address(row: &Row<'_>) -> Option<Ipv4Addr> {
    let DeValue::Table(uplink) = row.fields.get("uplink")?.get_ref() else {
        return None;
    };
    let DeValue::String(address) = uplink.get("address")?.get_ref() else {
        return None;
    };
    address.split('/').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::fleet::list::{Source, Sources, parse_list};

    fn found(name: &str, text: &str) -> Result<Vec<Identity>, String> {
        let sources = Sources {
            list: Source {
                name: name.to_owned(),
                folder: PathBuf::new(),
                text: text.to_owned(),
                open_to_all: false,
            },
            devices: None,
        };
        let told = |problems: Vec<Problem>| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            lines.join("\n")
        };
        identities(&parse_list(&sources).map_err(told)?).map_err(told)
    }

    #[test]
    fn devices_are_known_without_their_secrets() {
        let expected = [
            Identity {
                name: DeviceName::parse("hall-1").unwrap(),
                hostname: Hostname::parse("hall-1").unwrap(),
                serial: Some(Serial::parse("10000000abcdef01").unwrap()),
                address: Some(Ipv4Addr::new(10, 0, 0, 11)),
            },
            Identity {
                name: DeviceName::parse("hall-2").unwrap(),
                hostname: Hostname::parse("den").unwrap(),
                serial: None,
                address: None,
            },
        ];
        let csv = "name,board,serial,hostname,ssid,psk-command,address\n\
                   hall-1,pi3,10000000ABCDEF01,,Hall,no-such-program,10.0.0.11/24\n\
                   hall-2,unheard-of,,den,Hall,no-such-program,dhcp\n";
        assert_eq!(found("fleet.csv", csv).unwrap(), expected);
        let toml = "[defaults]\nboard = \"pi3\"\n[[device]]\nname = \"hall-1\"\nserial = \"10000000abcdef01\"\n\
                    uplink = { address = \"10.0.0.11/24\" }\n[[device]]\nname = \"hall-2\"\nhostname = \"den\"\n";
        assert_eq!(found("fleet.toml", toml).unwrap(), expected);
    }

    #[test]
    fn what_nobody_can_be_known_by_is_told_with_its_line() {
        let csv = "name,board,serial,hostname\n../a,pi3,,\nb,pi3,1,\nc,pi3,,a b\n";
        let told = found("fleet.csv", csv).unwrap_err();
        let lines: Vec<&str> = told
            .lines()
            .filter_map(|line| line.split(": ").next())
            .collect();
        assert_eq!(
            lines,
            ["fleet.csv:2", "fleet.csv:3", "fleet.csv:4"],
            "{told}"
        );
    }
}
