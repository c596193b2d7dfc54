//! Which of a root's units systemd starts by itself (systemd.unit(5)), and the programs of its services (systemd.service(5)).
//!
//! Followed are `.wants` and `.requires` folders, the settings that do the same, and what sockets, timers and paths start. Not followed is
//! what only a running system knows: generators, device units, and what D-Bus or udev ask for.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Tree;

/// Where units are, the stronger first.
const DIRECTORIES: [&str; 2] = ["etc/systemd/system", "usr/lib/systemd/system"];

/// What is started at the beginning and at the end.
const FIRST: [&str; 3] = ["default.target", "reboot.target", "poweroff.target"];

/// Linux takes no longer path.
pub(super) const PATH_MAX: usize = 4096;

/// More units than any system has.
const UNITS_MAX: usize = 4096;

/// No unit that people write is longer.
const UNIT_MAX: usize = 64 << 10;

/// Settings that start another unit. Unlike others, an empty one takes nothing back.
const PULLS: [&str; 4] = ["Wants", "Requires", "BindsTo", "Upholds"];

/// The units of a root.
pub(super) struct Units<'a> {
    tree: &'a Tree,
}

/// A unit that is started.
pub(super) struct Started {
    /// Its file in the root.
    pub(super) path: String,
    /// The absolute paths of the programs that it starts; those whose absence it tolerates are not among them.
    pub(super) programs: BTreeSet<String>,
}

/// A unit as its files have it.
struct Unit {
    path: String,
    /// Keys and values of all its sections, in order, drop-ins last.
    settings: Vec<(String, String)>,
}

impl<'a> Units<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        Self { tree }
    }

    /// The units that are started without being asked for, by name.
    pub(super) fn started(&self) -> impl Iterator<Item = Started> {
        let mut found = BTreeMap::new();
        let mut seen = BTreeSet::from(FIRST.map(str::to_owned));
        let mut names: Vec<String> = seen.iter().cloned().collect();
        while let Some(name) = names.pop() {
            let mut follow = |more: Vec<String>| {
                for name in more {
                    if seen.len() < UNITS_MAX && seen.insert(name.clone()) {
                        names.push(name);
                    }
                }
            };
            let Some(unit) = self.unit(&name) else {
                continue;
            };
            follow(self.pulled(&name, &unit));
            // What a unit needs is started even where it is not, for conditions are looked at last.
            if unit.meets_conditions(self.tree) {
                follow(unit.activates(&name));
                let programs = unit.programs().collect();
                let path = unit.path;
                found.insert(name, Started { path, programs });
            }
        }
        found.into_values()
    }

    /// Reads a unit with its drop-ins; none if there is none or it is masked.
    fn unit(&self, name: &str) -> Option<Unit> {
        let names = [Some(name.to_owned()), template_of(name)];
        let names: Vec<String> = names.into_iter().flatten().collect();
        let path = names.iter().find_map(|name| {
            let paths = DIRECTORIES.map(|directory| format!("{directory}/{name}"));
            paths.into_iter().find(|path| self.tree.contains(path))
        })?;
        // A mask leads out of the tree, and one drop-in's takes away that drop-in alone.
        let path = self.tree.resolve(&path).ok()?;
        let mut settings = parse_settings(&self.text(&path)?);
        let drop_ins = self.drop_ins(&names, &path);
        let texts = drop_ins
            .iter()
            .filter_map(|path| self.text(&self.tree.resolve(path).ok()?));
        settings.extend(texts.flat_map(|text| parse_settings(&text)));
        Some(Unit { path, settings })
    }

    /// Drop-ins in the order of their names, whichever folder they are in.
    fn drop_ins(&self, names: &[String], path: &str) -> Vec<String> {
        let mut found = BTreeMap::new();
        for name in names
            .iter()
            .map(String::as_str)
            .chain(path.rsplit('/').next())
        {
            for directory in DIRECTORIES {
                let directory = format!("{directory}/{name}.d");
                for (file, _) in self.tree.entries(&directory) {
                    if file.ends_with(".conf") {
                        let path = format!("{directory}/{file}");
                        found.entry(file.to_owned()).or_insert(path);
                    }
                }
            }
        }
        found.into_values().collect()
    }

    /// The names of what is started with a unit.
    fn pulled(&self, name: &str, unit: &Unit) -> Vec<String> {
        let settings = unit.settings.iter();
        let mut names: Vec<String> = settings
            .filter(|(key, _)| PULLS.contains(&key.as_str()))
            .flat_map(|(_, value)| value.split_whitespace())
            .map(str::to_owned)
            .collect();
        // `default.target` is another name of a target that has the folders.
        let own = unit.path.rsplit('/').next().into_iter();
        for name in own.chain([name]) {
            for directory in DIRECTORIES {
                for kind in ["wants", "requires"] {
                    let links = self.tree.entries(&format!("{directory}/{name}.{kind}"));
                    names.extend(links.map(|(link, _)| link.to_owned()));
                }
            }
        }
        names
    }

    fn text(&self, path: &str) -> Option<String> {
        let bytes = self.tree.bytes(path)?;
        let bytes = Some(bytes).filter(|bytes| bytes.len() <= UNIT_MAX)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

impl Unit {
    fn programs(&self) -> impl Iterator<Item = String> {
        const STARTS: [&str; 3] = ["ExecStartPre", "ExecStart", "ExecStartPost"];
        STARTS
            .into_iter()
            .flat_map(|key| self.values(key))
            .filter_map(|command| {
                let word = command.split_whitespace().next()?;
                let program = word.trim_start_matches(['@', '-', ':', '+', '!', '|']);
                let prefix = &word[..word.len() - program.len()];
                let is_path = program.starts_with('/') && program.len() < PATH_MAX;
                let is_known = is_path && !program.contains(['%', '$', '"']);
                (is_known && !prefix.contains('-')).then(|| program.to_owned())
            })
    }

    /// The values of a key; an empty one takes back those before it.
    fn values(&self, key: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for (_, value) in self.settings.iter().filter(|(found, _)| found == key) {
            match value.as_str() {
                "" => values.clear(),
                value => values.push(value),
            }
        }
        values
    }

    /// What a socket, a timer or a path starts in its time.
    fn activates(&self, name: &str) -> Vec<String> {
        let Some((stem, kind)) = name.rsplit_once('.') else {
            return Vec::new();
        };
        let key = match kind {
            "socket" if self.accepts() => return vec![format!("{stem}@.service")],
            "socket" => "Service",
            "timer" | "path" => "Unit",
            _ => return Vec::new(),
        };
        let named: Vec<String> = self.values(key).into_iter().map(str::to_owned).collect();
        if named.is_empty() {
            return vec![format!("{stem}.service")];
        }
        named
    }

    /// Whether a socket has a service of its own for each connection.
    fn accepts(&self) -> bool {
        let accept = self.values("Accept");
        accept.last().is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            ["yes", "y", "true", "t", "on", "1"].contains(&value.as_str())
        })
    }

    /// Whether the files that are a condition of its start can be there.
    fn meets_conditions(&self, tree: &Tree) -> bool {
        const FILES: [&str; 2] = ["ConditionPathExists", "ConditionFileIsExecutable"];
        let mut paths = FILES.into_iter().flat_map(|key| self.values(key));
        paths.all(|path| {
            let is_of_root = ["/usr/", "/etc/"].iter().any(|top| path.starts_with(top));
            !is_of_root || tree.resolve(path).is_ok_and(|end| tree.contains(&end))
        })
    }
}

/// `getty@.service` of `getty@tty1.service`.
fn template_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (_, kind) = rest.rsplit_once('.')?;
    Some(format!("{prefix}@.{kind}"))
}

/// The settings of a unit file, without their sections: no key is in two of them with two meanings that matter here. A line goes on in the
/// next where it ends with a backslash that is not escaped by another, comments between them or not.
fn parse_settings(text: &str) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut line = String::new();
    let lines = text.lines().map(str::trim_start);
    // The end of the file ends a line that wanted to go on.
    for part in lines
        .filter(|line| !line.starts_with(['#', ';']))
        .chain([""])
    {
        let backslashes = part.len() - part.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            line.push_str(&part[..part.len() - 1]);
            line.push(' ');
            continue;
        }
        line.push_str(part);
        if let Some((key, value)) = line.split_once('=') {
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        line.clear();
    }
    settings
}
