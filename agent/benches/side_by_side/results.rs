//! Readings, their medians and ratios, whether goals are met, and how all of that is shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::contender::Contender;

/// What is measured.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
    /// What the figure does not say, or says only here.
    pub(crate) limits: &'static str,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Count,
    PerSecond,
    BytesPerSecond,
}

/// What Footbridge's median is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    None,
    /// Of the recipe's median.
    Ratio(f64),
    AtMost(f64),
    /// Not more than Footbridge's own median of another metric, but for a tenth, which is noise.
    NotAbove(&'static str),
}

const NOISE: f64 = 1.1;

/// All readings of a run, by metric and contender, in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<(&'static str, Contender), Vec<f64>>);

impl Results {
    pub(crate) fn add(&mut self, metric: &'static str, contender: Contender, value: f64) {
        self.0.entry((metric, contender)).or_default().push(value);
    }

    fn median(&self, metric: &'static str, contender: Contender) -> Option<f64> {
        self.0
            .get(&(metric, contender))
            .map(|values| median(values))
    }

    fn ratio(&self, metric: &'static str) -> Option<f64> {
        let recipe = self.median(metric, Contender::Recipe)?;
        let ours = self.median(metric, Contender::Footbridge)?;
        (recipe > 0.0).then(|| ours / recipe)
    }

    fn is_met(&self, metric: &Metric) -> Option<bool> {
        let ours = self.median(metric.name, Contender::Footbridge)?;
        match metric.goal {
            Goal::None => None,
            Goal::Ratio(most) => {
                let recipe = self.median(metric.name, Contender::Recipe)?;
                Some(ours <= most * recipe)
            }
            Goal::AtMost(most) => Some(ours <= most),
            Goal::NotAbove(other) => {
                Some(ours <= NOISE * self.median(other, Contender::Footbridge)?)
            }
        }
    }

    /// Returns the table people read.
    pub(crate) fn table(&self, metrics: &[Metric]) -> String {
        let mut rows = vec![
            [
                "measure",
                "recipe",
                "footbridge",
                "routing",
                "ratio",
                "goal",
                "met",
            ]
            .map(str::to_owned),
        ];
        for metric in metrics {
            let show = |contender| {
                self.median(metric.name, contender)
                    .map_or_else(|| "-".to_owned(), |value| metric.unit.show(value))
            };
            if Contender::ALL
                .iter()
                .all(|c| self.median(metric.name, *c).is_none())
            {
                continue;
            }
            rows.push([
                metric.name.to_owned(),
                show(Contender::Recipe),
                show(Contender::Footbridge),
                show(Contender::PlainRouting),
                self.ratio(metric.name)
                    .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}x")),
                metric.goal.show(metric.unit),
                match self.is_met(metric) {
                    Some(true) => "yes",
                    Some(false) => "NO",
                    None => "",
                }
                .to_owned(),
            ]);
        }
        align(&rows)
    }

    /// Returns everything, for programs.
    pub(crate) fn json(&self, metrics: &[Metric]) -> Value {
        let of = |metric: &Metric| {
            let contenders: serde_json::Map<String, Value> = Contender::ALL
                .iter()
                .filter_map(|contender| {
                    let samples = self.0.get(&(metric.name, *contender))?;
                    let value = json!({ "median": median(samples), "samples": samples });
                    Some((contender.name().to_owned(), value))
                })
                .collect();
            json!({
                "name": metric.name,
                "unit": metric.unit.name(),
                "contenders": contenders,
                "ratio": self.ratio(metric.name),
                "goal": metric.goal.show(metric.unit),
                "met": self.is_met(metric),
                "limits": metric.limits,
            })
        };
        let measured = metrics
            .iter()
            .filter(|metric| self.0.keys().any(|(name, _)| *name == metric.name));
        measured.map(of).collect()
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Bytes => "byte",
            Unit::Count => "",
            Unit::PerSecond => "1/s",
            Unit::BytesPerSecond => "byte/s",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Unit::Seconds if value < 1e-3 => format!("{:.0} us", value * 1e6),
            Unit::Seconds if value < 1.0 => format!("{:.1} ms", value * 1e3),
            Unit::Seconds => format!("{value:.2} s"),
            Unit::Bytes => format!("{:.0} KiB", value / 1024.0),
            Unit::Count => format!("{value:.0}"),
            Unit::PerSecond => format!("{value:.2}/s"),
            Unit::BytesPerSecond => format!("{:.0} MB/s", value / 1e6),
        }
    }
}

impl Goal {
    fn show(self, unit: Unit) -> String {
        match self {
            Goal::None => String::new(),
            Goal::Ratio(most) => format!("<= {most}x"),
            Goal::AtMost(most) => format!("<= {}", unit.show(most)),
            Goal::NotAbove(other) => format!("<= {NOISE}x {other}"),
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Names to the left, figures to the right.
            let _ = if column == 0 || column >= 5 {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
