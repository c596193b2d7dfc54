//! What is shown of the answers: a table for people, JSON for programs.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use super::ask::Answer;
use super::wanted::Wanted;

const HEADER: [&str; 8] = [
    "NAME", "STATE", "UPLINK", "SIGNAL", "UPTIME", "PROBLEMS", "VERSION", "ADDRESS",
];

/// A device that answered, or should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What it is called here.
    pub name: String,
    /// Whether it was asked for.
    pub listed: bool,
    /// What it said; nothing, if it is missing.
    pub answer: Option<Answer>,
}

/// Puts answers to those who are wanted, in their order; then come the others, if they are to be shown, by their names. A device
/// that is found at several addresses is shown once.
pub fn rows(wanted: &[Wanted], answers: &[Answer], others: bool) -> Vec<Row> {
    let mut seen = BTreeSet::new();
    let mut left: Vec<&Answer> = answers.iter().collect();
    left.retain(|answer| {
        let asked = wanted
            .iter()
            .any(|wanted| wanted.address == Some(answer.from));
        let first = seen.insert((&answer.serial, &answer.name));
        asked || first || answer.serial.is_none()
    });
    let mut rows: Vec<Row> = wanted
        .iter()
        .map(|wanted| Row {
            name: wanted.name.clone(),
            listed: true,
            answer: left
                .iter()
                .filter_map(|answer| Some((wanted.likeness(answer)?, *answer)))
                // The first one of those that are as likely.
                .min_by_key(|(likeness, _)| *likeness)
                .map(|(_, answer)| answer.clone()),
        })
        .collect();
    if others {
        left.retain(|answer| !wanted.iter().any(|wanted| wanted.is(answer)));
        left.sort_by_key(|answer| (&answer.name, answer.from));
        rows.extend(left.into_iter().map(|answer| Row {
            name: answer.name.clone(),
            listed: false,
            answer: Some(answer.clone()),
        }));
    }
    rows
}

/// Returns the names that devices answer as, in `.local`, where those are not the ones that they have been given.
pub fn other_names(rows: &[Row]) -> impl Iterator<Item = String> {
    rows.iter().filter_map(|row| {
        let answer = row.answer.as_ref()?;
        let other = answer.answers_as.as_deref()?;
        // A name of another domain is not the device's choice.
        let differs = !other.contains('.') && !other.eq_ignore_ascii_case(&answer.name);
        differs.then(|| format!("{} answers as {other}.local", answer.name))
    })
}

/// Renders the table.
pub fn text(rows: &[Row]) -> String {
    let header = HEADER.map(str::to_owned);
    let lines: Vec<[String; 8]> = std::iter::once(header)
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(row, "{cell:<width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// Renders the document: `{"devices": [...], "missing": ["NAME", ...]}`.
pub fn json(rows: &[Row]) -> Result<String> {
    #[derive(Serialize)]
    struct Device<'a> {
        listed_as: Option<&'a str>,
        #[serde(flatten)]
        answer: &'a Answer,
    }
    let devices: Vec<Device<'_>> = rows
        .iter()
        .filter_map(|row| {
            Some(Device {
                listed_as: row.listed.then_some(row.name.as_str()),
                answer: row.answer.as_ref()?,
            })
        })
        .collect();
    let missing = rows.iter().filter(|row| row.answer.is_none());
    let missing: Vec<&str> = missing.map(|row| row.name.as_str()).collect();
    let document = serde_json::json!({ "devices": devices, "missing": missing });
    Ok(serde_json::to_string_pretty(&document)?)
}

fn cells(row: &Row) -> [String; 8] {
    let none = || "-".to_owned();
    let Some(answer) = &row.answer else {
        let missing = "missing".to_owned();
        return [
            row.name.clone(),
            missing,
            none(),
            none(),
            none(),
            none(),
            none(),
            none(),
        ];
    };
    let uplink = match &answer.ssid {
        Some(ssid) => format!("{} ({ssid})", answer.uplink),
        None => answer.uplink.clone(),
    };
    [
        row.name.clone(),
        answer.state.clone(),
        uplink,
        answer
            .signal_dbm
            .map_or_else(none, |dbm| format!("{dbm} dBm")),
        answer.uptime.map_or_else(none, time_words),
        answer.problems.to_string(),
        answer.version.clone(),
        answer.from.ip().to_string(),
    ]
}

fn time_words(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::fleet::status::ask::tests::answer;

    fn some() -> Vec<Row> {
        let wanted = ["hall-1", "hall-2"].map(|name| Wanted::parse(name).unwrap());
        let mut stranger = answer("attic", "10.0.0.9:61067");
        stranger.ssid = None;
        stranger.signal_dbm = None;
        stranger.uptime = Some(300_000);
        stranger.problems = 2;
        rows(
            &wanted,
            &[stranger, answer("hall-1", "10.0.0.11:61067")],
            true,
        )
    }

    #[test]
    fn the_table_lines_up_and_tells_who_is_missing() {
        expect![[r#"
            NAME    STATE     UPLINK        SIGNAL   UPTIME  PROBLEMS  VERSION  ADDRESS
            hall-1  bridging  wlan0 (Hall)  -61 dBm  60 min  0         0.1.0    10.0.0.11
            hall-2  missing   -             -        -       -         -        -
            attic   bridging  wlan0         -        3 days  2         0.1.0    10.0.0.9
        "#]]
        .assert_eq(&text(&some()));
    }

    #[test]
    fn programs_are_told_the_same() {
        let document: serde_json::Value = serde_json::from_str(&json(&some()).unwrap()).unwrap();
        assert_eq!(document["missing"], serde_json::json!(["hall-2"]));
        let devices = document["devices"].as_array().unwrap();
        assert_eq!(devices[0]["listed_as"], "hall-1");
        assert_eq!(devices[0]["address"], "10.0.0.11:61067");
        assert_eq!(devices[1]["listed_as"], serde_json::Value::Null);
        assert_eq!(devices[1]["name"], "attic");
    }

    #[test]
    fn who_has_the_name_comes_before_who_wanted_it() {
        let late = Answer {
            answers_as: Some("hall-1-4f2a10".to_owned()),
            ..answer("hall-1", "10.0.0.12:61067")
        };
        let first = Answer {
            answers_as: Some("hall-1".to_owned()),
            ..answer("hall-1", "10.0.0.11:61067")
        };
        let answers = [late.clone(), first.clone()];
        let wanted = ["hall-1", "hall-1-4f2a10.local"].map(|name| Wanted::parse(name).unwrap());
        let rows = rows(&wanted, &answers, false);
        assert_eq!(rows[0].answer, Some(first));
        assert_eq!(rows[1].answer, Some(late));
        let told: Vec<String> = other_names(&rows).collect();
        assert_eq!(told, ["hall-1 answers as hall-1-4f2a10.local"]);
    }

    #[test]
    fn a_device_with_two_addresses_is_one() {
        let numbered = |from| Answer {
            serial: Some("10000000abcdef01".to_owned()),
            ..answer("hall-1", from)
        };
        let answers = [numbered("10.0.0.11:61067"), numbered("10.1.0.11:61067")];
        assert_eq!(rows(&[], &answers, true).len(), 1);
        // Without numbers, nobody can know.
        let answers = ["10.0.0.11:61067", "10.1.0.11:61067"].map(|from| answer("hall-1", from));
        assert_eq!(rows(&[], &answers, true).len(), 2);
        assert_eq!(
            rows(&[Wanted::parse("10.1.0.11").unwrap()], &answers, false)[0].answer,
            Some(answers[1].clone())
        );
    }
}
