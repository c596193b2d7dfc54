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

/// The units of a root.
pub(super) struct Units<'a> {
    tree: &'a Tree,
}

/// A unit.
pub(super) struct Unit {
    /// Its file in the root.
    pub(super) path: String,
    /// Keys and values of all its sections, in order, drop-ins last.
    settings: Vec<(String, String)>,
}

impl<'a> Units<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        Self { tree }
    }

    /// The units that are started without being asked for, by name.
    pub(super) fn started(&self) -> impl Iterator<Item = Unit> {
        let mut found = BTreeMap::new();
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut names: Vec<String> = FIRST.map(str::to_owned).into();
        while let Some(name) = names.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            if let Some(unit) = self.unit(&name)
                && unit.meets_conditions(self.tree)
            {
                names.extend(self.follows(&name, &unit));
                found.insert(name, unit);
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
        // A mask leads out of the tree.
        let path = self.tree.resolve(&path).ok()?;
        let mut settings = parse_settings(&self.text(&path)?);
        for drop_in in self.drop_ins(&names, &path) {
            settings.extend(parse_settings(&self.text(&drop_in)?));
        }
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
    fn follows(&self, name: &str, unit: &Unit) -> Vec<String> {
        const PULLS: [&str; 5] = ["Wants", "Requires", "Requisite", "BindsTo", "Upholds"];
        let mut names: Vec<String> = PULLS
            .into_iter()
            .flat_map(|key| unit.values(key))
            .flat_map(str::split_whitespace)
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
        names.extend(unit.activates(name));
        names
    }

    fn text(&self, path: &str) -> Option<String> {
        let bytes = self.tree.bytes(path)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

impl Unit {
    /// The absolute paths of the programs that a service starts; those whose absence it tolerates are not among them.
    pub(super) fn programs(&self) -> impl Iterator<Item = String> {
        const STARTS: [&str; 3] = ["ExecStartPre", "ExecStart", "ExecStartPost"];
        STARTS
            .into_iter()
            .flat_map(|key| self.values(key))
            .filter_map(|command| {
                let word = command.split_whitespace().next()?;
                let program = word.trim_start_matches(['@', '-', ':', '+', '!', '|']);
                let prefix = &word[..word.len() - program.len()];
                let is_known = program.starts_with('/') && !program.contains(['%', '$', '"']);
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

/// The settings of a unit file, without their sections: no key is in two of them with two meanings that matter here.
fn parse_settings(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines
        .filter(|line| !line.starts_with(['#', ';', '[']))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}
