//! A list of devices as a table: CSV as spreadsheets write it (RFC 4180), with commas, semicolons or tabs, in any order of columns.
//!
//! ```csv
//! name,board,serial,hostname,ssid,psk-file,address,ssid-2,security-2
//! hall-1,pi3,10000000abcdef01,,Hall,hall.psk,10.0.0.11/24,,
//! hall-2,pi3,,den,Hall,hall.psk,dhcp,Guests,open
//! ```
//!
//! A column is a key of a device, of its network, or of its uplink; `-2` and so on at the end of a network's key speaks of a further
//! network. An empty cell says nothing. Lists (`dns`) and the words of a command have spaces between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::check::{DEVICE_KEYS, NETWORK_KEYS, nearest};
use super::list::{List, Problem, Row, Source, Span, text_value};

/// What the columns of the uplink are called, and no others.
const UPLINK_KEYS: [&str; 3] = ["address", "gateway", "dns"];

/// More networks than anybody has for one device.
const NETWORKS_MAX: usize = 16;

/// What a column is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Device(&'static str),
    Uplink(&'static str),
    /// The network's place and its key.
    Network(usize, &'static str),
}

/// Takes a table apart. Wrong headings are told in `problems`, for what is below them could mean anything.
pub(super) fn parse<'a>(source: &'a Source, list: &mut List<'a>, problems: &mut Vec<Problem>) {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter(&source.text))
        .from_reader(source.text.as_bytes());
    let mut columns: Option<Vec<Option<Column>>> = None;
    let mut record = csv::StringRecord::new();
    loop {
        // The text is UTF-8 and every length of a line is fine, so nothing can be wrong that reading on would not tell.
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                problems.push(source.problem(
                    &(0..0),
                    error.to_string(),
                    "save it as CSV in UTF-8 again",
                ));
                return;
            }
        }
        let span = span_of(source, &record);
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        match &columns {
            None => columns = Some(parse_headings(source, &span, &record, problems)),
            Some(columns) => {
                let row = parse_row(source, span, columns, &record, &mut list.problems);
                list.devices.extend(row);
            }
        }
    }
}

/// Spreadsheets write what their country's decimal point leaves free.
fn delimiter(text: &str) -> u8 {
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    [b',', b';', b'\t']
        .into_iter()
        .max_by_key(|delimiter| {
            let count = first.bytes().filter(|byte| byte == delimiter).count();
            (count, *delimiter == b',')
        })
        .unwrap_or(b',')
}

/// A record's position may be before the line end of the record before it.
fn span_of(source: &Source, record: &csv::StringRecord) -> Span {
    let at = record.position().map_or(0, csv::Position::byte);
    let at = usize::try_from(at)
        .unwrap_or(usize::MAX)
        .min(source.text.len());
    let rest = &source.text.as_bytes()[at..];
    let ends = rest
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    at + ends..at + ends
}

fn parse_headings(
    source: &Source,
    span: &Span,
    record: &csv::StringRecord,
    problems: &mut Vec<Problem>,
) -> Vec<Option<Column>> {
    let before = problems.len();
    let mut seen = BTreeSet::new();
    let mut parse = |heading: &str| {
        let name = heading.trim().to_ascii_lowercase();
        let shown = name.escape_debug();
        if name.is_empty() {
            return None;
        }
        if !seen.insert(name.clone()) {
            problems.push(source.problem(
                span,
                format!("there are two columns `{shown}`"),
                "take one away",
            ));
            return None;
        }
        let column = column_named(&name);
        if column.is_none() {
            let hint = match nearest(&name, all_keys()) {
                Some(key) => format!("did you mean `{key}`?"),
                None => format!("columns are {}", all_keys().collect::<Vec<_>>().join(", ")),
            };
            problems.push(source.problem(span, format!("there is no column `{shown}`"), hint));
        }
        column
    };
    let columns: Vec<Option<Column>> = record.iter().map(&mut parse).collect();
    if !seen.contains("name") {
        // Without headings the first line is a device's, and its cells are not to be shown: one may be a key.
        problems.truncate(before);
        problems.push(source.problem(
            span,
            "there is no column `name`",
            "the first line has the columns' names, such as name,board,ssid,psk-file",
        ));
    }
    columns
}

fn all_keys() -> impl Iterator<Item = &'static str> {
    let keys = DEVICE_KEYS.into_iter().filter(|key| is_cell(key));
    keys.chain(UPLINK_KEYS).chain(NETWORK_KEYS)
}

/// Whether a value fits a cell; tables are given cell by cell, or not at all.
fn is_cell(key: &str) -> bool {
    !matches!(key, "network" | "uplink" | "agent" | "ssh-keys")
}

fn column_named(name: &str) -> Option<Column> {
    let find = |keys: &[&'static str], name: &str| keys.iter().find(|key| **key == name).copied();
    if let Some(key) = find(&DEVICE_KEYS, name).filter(|key| is_cell(key)) {
        return Some(Column::Device(key));
    }
    if let Some(key) = find(&UPLINK_KEYS, name) {
        return Some(Column::Uplink(key));
    }
    if let Some(key) = find(&NETWORK_KEYS, name) {
        return Some(Column::Network(1, key));
    }
    let (name, number) = name.rsplit_once('-')?;
    let number = number
        .parse()
        .ok()
        .filter(|number| (2..=NETWORKS_MAX).contains(number))?;
    Some(Column::Network(number, find(&NETWORK_KEYS, name)?))
}

fn parse_row<'a>(
    source: &'a Source,
    span: Span,
    columns: &[Option<Column>],
    record: &csv::StringRecord,
    problems: &mut Vec<Problem>,
) -> Option<Row<'a>> {
    let surplus = record
        .iter()
        .skip(columns.len())
        .any(|cell| !cell.trim().is_empty());
    if surplus {
        let what = format!(
            "the line has {} cells, and there are {} columns",
            record.len(),
            columns.len()
        );
        let hint = "a cell with a comma in it is written in double quotes";
        problems.push(source.problem(&span, what, hint));
        return None;
    }
    let mut fields = DeTable::new();
    let mut uplink = DeTable::new();
    let mut networks: BTreeMap<usize, DeTable<'a>> = BTreeMap::new();
    for (column, cell) in columns.iter().zip(record) {
        if cell.contains(|character: char| character.is_control()) {
            let what = "a cell has a line end or another control character in it";
            problems.push(source.problem(
                &span,
                what,
                "is there a double quote without its other half?",
            ));
            return None;
        }
        if cell.trim().is_empty() {
            continue;
        }
        let (table, key) = match column {
            // A column without a heading is somebody's notes.
            None => continue,
            Some(Column::Device(key)) => (&mut fields, *key),
            Some(Column::Uplink(key)) => (&mut uplink, *key),
            Some(Column::Network(number, key)) => (networks.entry(*number).or_default(), *key),
        };
        table.insert(key_at(&span, key), value_of(key, &span, cell));
    }
    if !uplink.is_empty() {
        fields.insert(key_at(&span, "uplink"), table_at(&span, uplink));
    }
    if !networks.is_empty() {
        let mut array = DeArray::new();
        for network in networks.into_values() {
            array.push(table_at(&span, network));
        }
        let array = Spanned::new(span.clone(), DeValue::Array(array));
        fields.insert(key_at(&span, "network"), array);
    }
    Some(Row {
        source,
        span,
        fields,
    })
}

fn key_at(span: &Span, key: &'static str) -> Spanned<std::borrow::Cow<'static, str>> {
    Spanned::new(span.clone(), key.into())
}

fn table_at<'a>(span: &Span, table: DeTable<'a>) -> Spanned<DeValue<'a>> {
    Spanned::new(span.clone(), DeValue::Table(table))
}

/// Cells are text; some keys are of another kind. Blanks around a cell mean nothing but where they may be part of a name or a secret.
fn value_of(key: &str, span: &Span, cell: &str) -> Spanned<DeValue<'static>> {
    let trimmed = cell.trim();
    match key {
        "dns" => {
            let mut array = DeArray::new();
            for word in trimmed.split_whitespace() {
                array.push(text_value(span, word));
            }
            Spanned::new(span.clone(), DeValue::Array(array))
        }
        "gadget" | "hidden" => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "yes" => Spanned::new(span.clone(), DeValue::Boolean(true)),
            "false" | "no" => Spanned::new(span.clone(), DeValue::Boolean(false)),
            _ => text_value(span, trimmed),
        },
        "priority" => match trimmed.parse::<u8>() {
            Ok(priority) => Spanned::new(span.clone(), number(priority)),
            Err(_) => text_value(span, trimmed),
        },
        "ssid" | "psk" | "password" | "key-password" | "identity" => text_value(span, cell),
        _ => text_value(span, trimmed),
    }
}

/// A number of TOML borrows its digits, and a cell's are gone with the next line.
fn number(value: u8) -> DeValue<'static> {
    static DIGITS: LazyLock<Vec<String>> =
        LazyLock::new(|| (0..=u8::MAX).map(|number| number.to_string()).collect());
    DeValue::parse(&DIGITS[usize::from(value)])
        .expect("digits are a number")
        .into_inner()
}
