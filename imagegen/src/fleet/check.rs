//! From rows to devices: every value checked, what devices must not share compared, and every mistake told.
//!
//! A device's networks take the place of those of `[defaults]`; its other keys win one by one. A name of a host that is not given is the
//! device's own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::list::{List, Problem, Row, Source, Span, text_value};
use super::taken::Taken;
use super::{Device, DeviceName, Fleet, IdentityError, Mac, Serial, Target};
use crate::board::Board;
use crate::shell;
use crate::site::agent::AgentOptions;
use crate::site::config::{RawSite, ReadFile};
use crate::site::{Hostname, SiteChange, SiteOptions};

/// Everything that can be said of a device.
pub(super) const DEVICE_KEYS: [&str; 12] = [
    "name",
    "board",
    "gadget",
    "serial",
    "mac",
    "hostname",
    "country",
    "ssh-keys",
    "ssh-keys-file",
    "network",
    "uplink",
    "agent",
];

/// Everything that can be said of a network.
pub(super) const NETWORK_KEYS: [&str; 22] = [
    "ssid",
    "ssid-hex",
    "security",
    "psk",
    "psk-file",
    "psk-command",
    "priority",
    "hidden",
    "identity",
    "anonymous-identity",
    "password",
    "password-file",
    "password-command",
    "ca",
    "ca-file",
    "server-name",
    "certificate",
    "certificate-file",
    "key-file",
    "key-password",
    "key-password-file",
    "key-password-command",
];

/// What a program may print: secrets of one line.
const PRINTED: [&str; 3] = ["psk", "password", "key-password"];

/// What is a secret where it stands in the list itself.
const SECRETS: [&str; 4] = ["psk", "password", "key", "key-password"];

/// What one device has and no other.
const OWN_KEYS: [&str; 4] = ["name", "serial", "mac", "hostname"];

/// Stands for what a program would print, while the rest of the list is checked: it is as good a passphrase as any.
const NOT_PRINTED: &[u8] = b"00000000";

/// The words of a program that prints a secret; no shell has a part in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Command(Vec<String>);

impl Command {
    /// The program and its arguments; at least the program.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

/// Returns what a program printed, or why that is no secret.
pub type Printed<'a> = &'a dyn Fn(&Command) -> Result<Vec<u8>, String>;

/// Checks a list but for the secrets that programs print; returns these programs, each once.
pub fn check_all_but_commands(
    list: &List<'_>,
    boards: &BTreeMap<String, Board>,
    read: ReadFile<'_>,
) -> Result<BTreeSet<Command>, Vec<Problem>> {
    let commands = RefCell::new(BTreeSet::new());
    let note = |command: &Command| {
        commands.borrow_mut().insert(command.clone());
        Ok(NOT_PRINTED.to_vec())
    };
    check(list, boards, read, &note)?;
    Ok(commands.into_inner())
}

/// Checks a list whole.
pub fn check(
    list: &List<'_>,
    boards: &BTreeMap<String, Board>,
    read: ReadFile<'_>,
    printed: Printed<'_>,
) -> Result<Fleet, Vec<Problem>> {
    let mut desk = Desk {
        boards,
        read,
        known: RefCell::default(),
        printed,
        problems: list.problems.clone(),
    };
    let defaults = desk.defaults(list.defaults.as_ref());
    let mut taken = Taken::default();
    let mut devices = Vec::new();
    for row in &list.devices {
        if let Some(device) = desk.device(row, &defaults) {
            taken.add(row, &device, &mut desk.problems);
            devices.push(device);
        }
    }
    let mut problems = desk.problems;
    if problems.is_empty() {
        return Ok(Fleet { devices });
    }
    problems.sort();
    problems.dedup();
    Err(problems)
}

/// Returns the name nearest to one, if one is near.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let similarity = |known: &str| strsim::jaro_winkler(known, name);
    known
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        .filter(|known| similarity(known) > 0.7)
}

/// What all devices have that do not say otherwise.
#[derive(Default)]
struct Defaults {
    board: Option<String>,
    gadget: Option<bool>,
    uplink: BTreeMap<String, DeValue<'static>>,
    site: SiteChange,
}

/// Where values are checked: within reach of the files and programs that the list names.
struct Desk<'a> {
    boards: &'a BTreeMap<String, Board>,
    read: ReadFile<'a>,
    /// Files that were read, for a thousand devices may name the same.
    known: RefCell<BTreeMap<PathBuf, Result<Vec<u8>, String>>>,
    printed: Printed<'a>,
    problems: Vec<Problem>,
}

impl Desk<'_> {
    fn defaults(&mut self, row: Option<&Row<'_>>) -> Defaults {
        let Some(row) = row else {
            return Defaults::default();
        };
        let mut fields = row.fields.clone();
        for key in OWN_KEYS {
            if let Some((key, _)) = fields.remove_entry(key) {
                let what = format!("`{}` is one device's, not everybody's", key.get_ref());
                self.tell(
                    row.source,
                    &key.span(),
                    what,
                    "write it below the [[device]]",
                );
            }
        }
        let board = self.board(row, &mut fields);
        let gadget = self.gadget(row, &mut fields);
        // An address without a network's length and the like is a matter of the devices that have one.
        let uplink = match fields.get("uplink").map(Spanned::get_ref) {
            Some(DeValue::Table(table)) if !table.contains_key("address") => {
                let uplink = table
                    .iter()
                    .map(|(key, value)| (key.get_ref().to_string(), owned(value.get_ref())));
                let uplink = uplink.collect();
                fields.remove("uplink");
                uplink
            }
            _ => BTreeMap::new(),
        };
        Defaults {
            board,
            gadget,
            uplink,
            site: self.site(row, fields),
        }
    }

    /// Checks one device; tells whatever is wrong with it.
    fn device(&mut self, row: &Row<'_>, defaults: &Defaults) -> Option<Device> {
        let before = self.problems.len();
        let mut fields = row.fields.clone();
        let name = self.own(row, &mut fields, "name", DeviceName::parse);
        if name.is_none() && !row.fields.contains_key("name") {
            self.tell(
                row.source,
                &row.span,
                "the device has no name",
                "for example: name = \"hall-1\"",
            );
        }
        let board = self
            .board(row, &mut fields)
            .or_else(|| defaults.board.clone());
        if board.is_none() && !row.fields.contains_key("board") {
            let hint = format!("the boards are: {}", self.board_names());
            self.tell(
                row.source,
                &row.span,
                "nothing says which board the device is",
                hint,
            );
        }
        let gadget = self
            .gadget(row, &mut fields)
            .or(defaults.gadget)
            .unwrap_or(false);
        if let Some(board) = board.as_ref().filter(|_| gadget)
            && !self
                .boards
                .get(board)
                .is_some_and(|board| board.wired.gadget)
        {
            let what = format!("the board `{board}` cannot be a network card of another computer");
            self.tell(
                row.source,
                &row.span,
                what,
                "leave out gadget; `cargo xtask boards` says which can",
            );
        }
        let serial = self.own(row, &mut fields, "serial", Serial::parse);
        let mac = self.own(row, &mut fields, "mac", Mac::parse);
        complete_uplink(&mut fields, defaults);
        let names_host = fields.contains_key("hostname");
        let own = self.site(row, fields);
        let mut site = defaults.site.clone().overridden_by(own);
        site.agent = AgentOptions::of_fleet().overridden_by(site.agent);
        if let Some(name) = name.as_ref().filter(|_| !names_host) {
            match Hostname::parse(name.as_str()) {
                Ok(hostname) => site.hostname = Some(hostname),
                Err(error) => self.tell(
                    row.source,
                    &row.span,
                    error.to_string(),
                    "give the device a hostname, or a name that is one",
                ),
            }
        }
        let site = self.options(row, site, before)?;
        if self.problems.len() > before {
            return None;
        }
        Some(Device {
            name: name?,
            target: Target {
                board: board?,
                gadget,
            },
            serial,
            mac,
            site,
        })
    }

    /// A device without a network is of no use; one whose networks are wrong has been told so.
    fn options(&mut self, row: &Row<'_>, site: SiteChange, before: usize) -> Option<SiteOptions> {
        let options = site.into_options();
        if options.is_none() && self.problems.len() == before {
            self.tell(
                row.source,
                &row.span,
                "the device has no network",
                "give it an ssid and a psk-file, or name a network for all in [[defaults.network]]",
            );
        }
        options
    }

    /// Checks the keys that a site.toml has too, each by itself, so that one mistake does not hide another.
    fn site(&mut self, row: &Row<'_>, fields: DeTable<'_>) -> SiteChange {
        let mut site = SiteChange::default();
        let mut networks = Vec::new();
        for (key, value) in fields {
            let name = key.get_ref().to_string();
            if !DEVICE_KEYS.contains(&name.as_str()) {
                let hint = match nearest(&name, DEVICE_KEYS.into_iter()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("there are {}", DEVICE_KEYS.join(", ")),
                };
                let what = format!("a device has no `{}`", name.escape_debug());
                self.tell(row.source, &key.span(), what, hint);
                continue;
            }
            let span = value.span();
            match value.into_inner() {
                DeValue::Array(array) if name == "network" => {
                    for network in array {
                        if let Some(network) = self.network(row.source, network) {
                            networks.extend(network);
                        }
                    }
                }
                value => {
                    let piece = self.piece(row.source, &name, Spanned::new(span, value));
                    site = site.overridden_by(piece.unwrap_or_default());
                }
            }
        }
        site.networks = Some(networks).filter(|networks| !networks.is_empty());
        site
    }

    fn network(
        &mut self,
        source: &Source,
        network: Spanned<DeValue<'_>>,
    ) -> Option<Vec<crate::site::Network>> {
        let span = network.span();
        let mut value = network.into_inner();
        if let DeValue::Table(table) = &mut value {
            self.refuse_open_secrets(source, table);
            for key in PRINTED {
                self.fill_in_printed(source, table, key)?;
            }
            // `key` alone is not in the list of columns: a private key has lines.
            let strange = |key: &str| !NETWORK_KEYS.contains(&key) && key != "key";
            let strangers = table.keys().filter(|key| strange(key.get_ref()));
            let strangers: Vec<(String, Span)> = strangers
                .map(|key| (key.get_ref().to_string(), key.span()))
                .collect();
            for (name, at) in strangers {
                table.remove(name.as_str());
                let hint = match nearest(&name, NETWORK_KEYS.into_iter()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("there are {}", NETWORK_KEYS.join(", ")),
                };
                let what = format!("a network has no `{}`", name.escape_debug());
                self.tell(source, &at, what, hint);
            }
        }
        let mut array = toml::de::DeArray::new();
        array.push(Spanned::new(span.clone(), value));
        let piece = self.piece(source, "network", Spanned::new(span, DeValue::Array(array)));
        piece?.networks
    }

    /// A secret in a file that everybody can read is none.
    fn refuse_open_secrets(&mut self, source: &Source, table: &DeTable<'_>) {
        if !source.open_to_all {
            return;
        }
        for key in SECRETS {
            if let Some((key, _)) = table.get_key_value(key) {
                let name = key.get_ref();
                let what =
                    format!("everybody on this machine can read this file, and `{name}` in it");
                let hint = format!(
                    "chmod o= {}, or {name}-file, or {name}-command",
                    shell::word(Path::new(&source.name))
                );
                self.tell(source, &key.span(), what, hint);
            }
        }
    }

    /// Puts what a program printed where it would have been written. Returns nothing if that failed, and tells why.
    fn fill_in_printed(
        &mut self,
        source: &Source,
        table: &mut DeTable<'_>,
        key: &'static str,
    ) -> Option<()> {
        let Some((name, value)) = table.remove_entry(format!("{key}-command").as_str()) else {
            return Some(());
        };
        let span = name.span();
        if table.contains_key(key) || table.contains_key(format!("{key}-file").as_str()) {
            let what = format!("`{key}` is given twice");
            self.tell(
                source,
                &span,
                what,
                format!("give {key}-command, {key}-file or {key}"),
            );
            return None;
        }
        let Some(command) = command_of(value.get_ref()) else {
            let what = format!("`{key}-command` is no list of words");
            let hint = format!("for example: {key}-command = [\"pass\", \"show\", \"wifi\"]");
            self.tell(source, &span, what, hint);
            return None;
        };
        let printed = (self.printed)(&command).and_then(|bytes| first_line(&bytes));
        match printed {
            Ok(secret) => {
                let at = Spanned::new(span.clone(), key.into());
                table.insert(at, text_value(&span, secret));
                Some(())
            }
            Err(reason) => {
                let program = &command.0[0];
                let what = format!("`{}` gave no secret: {reason}", program.escape_debug());
                self.tell(
                    source,
                    &span,
                    what,
                    "try it by itself; its first line is the secret",
                );
                None
            }
        }
    }

    /// Checks one key of a site.
    fn piece(
        &mut self,
        source: &Source,
        key: &str,
        value: Spanned<DeValue<'_>>,
    ) -> Option<SiteChange> {
        let span = value.span();
        let mut table = DeTable::new();
        table.insert(Spanned::new(span.clone(), key.to_owned().into()), value);
        let table = Spanned::new(span.clone(), DeValue::Table(table));
        let raw = match RawSite::deserialize(ValueDeserializer::from(table)) {
            Ok(raw) => raw,
            Err(error) => {
                let at = error.span().filter(|at| !at.is_empty()).unwrap_or(span);
                self.tell(source, &at, error.message(), "the book shows a whole list");
                return None;
            }
        };
        let read = |path: &Path| {
            let path = source.folder.join(path);
            let mut known = self.known.borrow_mut();
            known
                .entry(path)
                .or_insert_with_key(|path| (self.read)(path))
                .clone()
        };
        match raw.check(&source.text, &read) {
            Ok(change) => Some(change),
            Err(error) => {
                self.problems.push(Problem {
                    file: source.name.clone(),
                    line: error.line,
                    what: error.what,
                    hint: error.hint,
                });
                None
            }
        }
    }

    fn own<T>(
        &mut self,
        row: &Row<'_>,
        fields: &mut DeTable<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, IdentityError>,
    ) -> Option<T> {
        let text = self.text(row, fields, key)?;
        let span = text.span();
        match parse(text.get_ref()) {
            Ok(value) => Some(value),
            Err(error) => {
                let hint = match key {
                    "name" => "it names files; what people call the device goes into hostname",
                    "serial" => "`cat /proc/cpuinfo` on the device says it in its last lines",
                    _ => "`ip link show wlan0` on the device says it",
                };
                self.tell(row.source, &span, error.to_string(), hint);
                None
            }
        }
    }

    fn text(
        &mut self,
        row: &Row<'_>,
        fields: &mut DeTable<'_>,
        key: &'static str,
    ) -> Option<Spanned<String>> {
        let value = fields.remove(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::String(text) => Some(Spanned::new(span, text.into_owned())),
            _ => {
                self.tell(
                    row.source,
                    &span,
                    format!("`{key}` is not text"),
                    "put it in double quotes",
                );
                None
            }
        }
    }

    fn board(&mut self, row: &Row<'_>, fields: &mut DeTable<'_>) -> Option<String> {
        let name = self.text(row, fields, "board")?;
        if self.boards.contains_key(name.get_ref()) {
            return Some(name.into_inner());
        }
        let known = self.boards.keys().map(String::as_str);
        let suggestion = match nearest(name.get_ref(), known) {
            Some(near) => format!("did you mean `{near}`? "),
            None => String::new(),
        };
        let hint = format!("{suggestion}the boards are: {}", self.board_names());
        let what = format!("board `{}` does not exist", name.get_ref().escape_debug());
        self.tell(row.source, &name.span(), what, hint);
        None
    }

    fn gadget(&mut self, row: &Row<'_>, fields: &mut DeTable<'_>) -> Option<bool> {
        let value = fields.remove("gadget")?;
        match value.get_ref() {
            DeValue::Boolean(gadget) => Some(*gadget),
            _ => {
                self.tell(
                    row.source,
                    &value.span(),
                    "`gadget` is neither true nor false",
                    "for example: gadget = true",
                );
                None
            }
        }
    }

    fn board_names(&self) -> String {
        self.boards.keys().cloned().collect::<Vec<_>>().join(", ")
    }

    fn tell(
        &mut self,
        source: &Source,
        span: &Span,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.push(source.problem(span, what, hint));
    }
}

/// A device's address goes with the gateway and the name servers that all have.
fn complete_uplink(fields: &mut DeTable<'_>, defaults: &Defaults) {
    let Some(uplink) = fields.get_mut("uplink") else {
        return;
    };
    let span = uplink.span();
    let DeValue::Table(table) = uplink.get_mut() else {
        return;
    };
    let by_dhcp = table.get("address").is_some_and(
        |address| matches!(address.get_ref(), DeValue::String(text) if text == "dhcp"),
    );
    if by_dhcp {
        return;
    }
    for (key, value) in &defaults.uplink {
        if !table.contains_key(key.as_str()) {
            // Told at the device's line, because it is in another file, maybe.
            let key = Spanned::new(span.clone(), key.clone().into());
            table.insert(key, respan(value, &span));
        }
    }
}

/// The words of a command: a list of them, or a text with spaces between them, which is all that a cell of a table can be.
fn command_of(value: &DeValue<'_>) -> Option<Command> {
    let words: Vec<String> = match value {
        DeValue::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        DeValue::Array(array) => array
            .iter()
            .map(|word| match word.get_ref() {
                DeValue::String(word) => Some(word.to_string()),
                _ => None,
            })
            .collect::<Option<_>>()?,
        _ => return None,
    };
    let whole = words.first().is_some_and(|program| !program.is_empty());
    // What the kernel cannot hand over would be an error of the starting, which is later.
    let possible = words.iter().all(|word| !word.contains('\0'));
    (whole && possible).then_some(Command(words))
}

fn first_line(bytes: &[u8]) -> Result<String, String> {
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err("its first line is empty".to_owned());
    }
    String::from_utf8(line.to_vec()).map_err(|_| "its first line is not text in UTF-8".to_owned())
}

/// A value without what it borrows.
fn owned(value: &DeValue<'_>) -> DeValue<'static> {
    respan(value, &(0..0)).into_inner()
}

/// The same text or list of texts at another place; what is neither stays what it is not, for the check to refuse.
fn respan(value: &DeValue<'_>, span: &Span) -> Spanned<DeValue<'static>> {
    match value {
        DeValue::String(text) => text_value(span, text.as_ref()),
        DeValue::Array(array) => {
            let mut copy = toml::de::DeArray::new();
            for value in array {
                copy.push(respan(value.get_ref(), span));
            }
            Spanned::new(span.clone(), DeValue::Array(copy))
        }
        _ => Spanned::new(span.clone(), DeValue::Boolean(false)),
    }
}
