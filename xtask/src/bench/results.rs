//! Samples, their medians and ratios, whether goals are met, and how all of that is shown.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// What people do by hand.
    Recipe,
    /// Footbridge.
    Footbridge,
}

/// What is measured.
#[derive(Debug)]
pub struct Measure {
    /// What the table calls it.
    pub name: &'static str,
    /// What its samples are.
    pub unit: Unit,
    /// What Footbridge's median is held to.
    pub goal: Goal,
    /// What the figure leaves out.
    pub limits: &'static str,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes, shown as megabytes of 1,000,000.
    Bytes,
}

/// What Footbridge's median is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Nothing.
    None,
    /// Part of the recipe's median.
    Ratio(f64),
    /// A figure, at most.
    AtMost(f64),
}

/// All samples of a run, in the order they came.
#[derive(Debug, Default)]
pub struct Results(BTreeMap<(&'static str, Contender), Vec<f64>>);

impl Contender {
    const ALL: [Self; 2] = [Self::Recipe, Self::Footbridge];

    fn name(self) -> &'static str {
        match self {
            Self::Recipe => "recipe",
            Self::Footbridge => "footbridge",
        }
    }
}

impl Results {
    /// Adds a sample.
    pub fn add(&mut self, measure: &Measure, contender: Contender, value: f64) {
        let samples = self.0.entry((measure.name, contender)).or_default();
        samples.push(value);
    }

    fn median(&self, measure: &Measure, contender: Contender) -> Option<f64> {
        let samples = self.0.get(&(measure.name, contender))?;
        Some(median(samples))
    }

    fn ratio(&self, measure: &Measure) -> Option<f64> {
        let recipe = self.median(measure, Contender::Recipe)?;
        let ours = self.median(measure, Contender::Footbridge)?;
        (recipe > 0.0).then(|| ours / recipe)
    }

    fn is_met(&self, measure: &Measure) -> Option<bool> {
        match measure.goal {
            Goal::None => None,
            Goal::Ratio(most) => Some(self.ratio(measure)? <= most),
            Goal::AtMost(most) => Some(self.median(measure, Contender::Footbridge)? <= most),
        }
    }

    /// Returns the table that people read.
    pub fn table(&self, measures: &[&Measure]) -> String {
        let head = ["measure", "recipe", "footbridge", "ratio", "goal", "met"];
        let mut rows = vec![head.map(str::to_owned)];
        for measure in self.measured(measures) {
            let show = |contender| {
                let median = self.median(measure, contender);
                median.map_or_else(|| "-".to_owned(), |value| measure.unit.show(value))
            };
            let ratio = self.ratio(measure);
            let met = self.is_met(measure).map_or("", yes_or_no);
            rows.push([
                measure.name.to_owned(),
                show(Contender::Recipe),
                show(Contender::Footbridge),
                ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x")),
                measure.goal.show(measure.unit),
                met.to_owned(),
            ]);
        }
        align(&rows)
    }

    /// Returns everything, for programs.
    fn json(&self, measures: &[&Measure]) -> Value {
        self.measured(measures)
            .map(|measure| {
                json!({
                    "name": measure.name,
                    "unit": measure.unit.name(),
                    "contenders": self.samples(measure),
                    "ratio": self.ratio(measure),
                    "goal": measure.goal.show(measure.unit),
                    "met": self.is_met(measure),
                    "limits": measure.limits,
                })
            })
            .collect()
    }

    /// Writes everything into a file, and says where it is.
    pub fn keep(&self, measures: &[&Measure], board: &str, path: &Path) -> Result<()> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let all = json!({
            "board": board,
            "processors": processors,
            "measures": self.json(measures),
        });
        let write = || -> Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            fs::write(path, format!("{all:#}\n"))?;
            Ok(())
        };
        write().with_context(|| format!("while writing {}", path.display()))?;
        say!("All samples are in {}", path.display());
        Ok(())
    }

    fn samples(&self, measure: &Measure) -> Map<String, Value> {
        let all = Contender::ALL.iter().filter_map(|contender| {
            let samples = self.0.get(&(measure.name, *contender))?;
            let value = json!({ "median": median(samples), "samples": samples });
            Some((contender.name().to_owned(), value))
        });
        all.collect()
    }

    fn measured<'a>(
        &'a self,
        measures: &'a [&'a Measure],
    ) -> impl Iterator<Item = &'a Measure> + 'a {
        let measures = measures.iter().copied();
        measures.filter(|measure| self.0.keys().any(|(name, _)| *name == measure.name))
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Bytes => "byte",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes => format!("{:.1} MB", value / 1e6),
        }
    }
}

impl Goal {
    fn show(self, unit: Unit) -> String {
        match self {
            Self::None => String::new(),
            Self::Ratio(most) => format!("<= {most}x"),
            Self::AtMost(most) => format!("<= {}", unit.show(most)),
        }
    }
}

fn yes_or_no(met: bool) -> &'static str {
    match met {
        true => "yes",
        false => "NO",
    }
}

/// Of a measure that has samples.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Names and goals to the left, figures to the right.
fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate();
        let line: String = cells
            .map(|(column, (cell, width))| match column {
                1..=3 => format!("{cell:>width$}  "),
                _ => format!("{cell:<width$}  "),
            })
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const BUILD: Measure = Measure {
        name: "build",
        unit: Unit::Seconds,
        goal: Goal::Ratio(0.2),
        limits: "",
    };
    const REBUILD: Measure = Measure {
        name: "rebuild",
        unit: Unit::Seconds,
        goal: Goal::AtMost(1.0),
        limits: "",
    };
    const SIZE: Measure = Measure {
        name: "size",
        unit: Unit::Bytes,
        goal: Goal::None,
        limits: "",
    };
    const UNMEASURED: Measure = Measure {
        name: "boot",
        unit: Unit::Seconds,
        goal: Goal::Ratio(0.5),
        limits: "",
    };

    fn results() -> Results {
        let mut results = Results::default();
        for (measure, contender, samples) in [
            (&BUILD, Contender::Recipe, &[30.0, 10.0, 20.0][..]),
            (&BUILD, Contender::Footbridge, &[4.0, 3.0]),
            (&REBUILD, Contender::Footbridge, &[1.5]),
            (&SIZE, Contender::Recipe, &[93e6]),
            (&SIZE, Contender::Footbridge, &[92e6]),
        ] {
            for sample in samples {
                results.add(measure, contender, *sample);
            }
        }
        results
    }

    #[test]
    fn the_table_has_medians_ratios_and_goals_of_what_was_measured() {
        let table = results().table(&[&BUILD, &REBUILD, &SIZE, &UNMEASURED]);
        expect![[r#"
            measure   recipe  footbridge  ratio  goal       met
            build    20.00 s      3.50 s  0.17x  <= 0.2x    yes
            rebuild        -      1.50 s      -  <= 1.00 s  NO
            size     93.0 MB     92.0 MB  0.99x
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn programs_get_every_sample() {
        let json = results().json(&[&BUILD, &UNMEASURED]);
        let expected = json!([{
            "name": "build",
            "unit": "s",
            "contenders": {
                "recipe": { "median": 20.0, "samples": [30.0, 10.0, 20.0] },
                "footbridge": { "median": 3.5, "samples": [4.0, 3.0] },
            },
            "ratio": 0.175,
            "goal": "<= 0.2x",
            "met": true,
            "limits": "",
        }]);
        assert_eq!(json, expected);
    }
}
