//! The files that `depmod` leaves beside the modules, from what is known of them.
//!
//! Programs of kmod read the `.bin` ones; busybox and people read the text.

use super::trie::Index;
use super::{Module, ModuleIndex, module_name};

impl ModuleIndex {
    /// The names and contents of all files, to be put beside `kernel/`.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("modules.dep", self.dep().into_bytes()),
            ("modules.dep.bin", self.dep_index().encode()),
            ("modules.alias", self.alias().into_bytes()),
            ("modules.alias.bin", self.alias_index().encode()),
            (
                "modules.softdep",
                self.of_field("softdep", "Soft").into_bytes(),
            ),
            (
                "modules.weakdep",
                self.of_field("weakdep", "Weak").into_bytes(),
            ),
            ("modules.symbols", self.symbols_text().into_bytes()),
            ("modules.symbols.bin", self.symbols_index().encode()),
            ("modules.builtin.bin", self.builtin_index().encode()),
            (
                "modules.builtin.alias.bin",
                self.builtin_alias_index().encode(),
            ),
            ("modules.devname", self.devname().into_bytes()),
        ]
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, &Module)> {
        (0..).zip(&self.modules)
    }

    /// `path: every module it needs`, those that need others before those that are needed.
    fn dep_line(&self, module: &Module) -> String {
        let needed = module
            .all_dependencies
            .iter()
            .map(|index| format!(" {}", self.modules[*index].path));
        format!("{}:{}", module.path, needed.collect::<String>())
    }

    fn dep(&self) -> String {
        self.modules
            .iter()
            .map(|module| self.dep_line(module) + "\n")
            .collect()
    }

    fn dep_index(&self) -> Index {
        let mut index = Index::default();
        for (number, module) in self.numbered() {
            index.insert(&module.name, &self.dep_line(module), number);
        }
        index
    }

    fn alias(&self) -> String {
        let mut text = String::from("# Aliases extracted from modules themselves.\n");
        for module in &self.modules {
            for alias in module.info.values("alias") {
                text.push_str(&format!("alias {alias} {}\n", module.name));
            }
        }
        text
    }

    fn alias_index(&self) -> Index {
        let mut index = Index::default();
        for (number, module) in self.numbered() {
            for alias in module.info.values("alias").filter_map(normal_alias) {
                index.insert(&alias, &module.name, number);
            }
        }
        index
    }

    fn of_field(&self, field: &str, title: &str) -> String {
        let mut text = format!("# {title} dependencies extracted from modules themselves.\n");
        for module in &self.modules {
            for value in module.info.values(field) {
                text.push_str(&format!("{field} {} {value}\n", module.name));
            }
        }
        text
    }

    fn symbols_text(&self) -> String {
        let mut text = String::from("# Aliases for symbols, used by symbol_request().\n");
        for (symbol, owner) in &self.symbols {
            text.push_str(&format!(
                "alias symbol:{symbol} {}\n",
                self.modules[*owner].name
            ));
        }
        text
    }

    fn symbols_index(&self) -> Index {
        let mut index = Index::default();
        for (symbol, owner) in &self.symbols {
            let number = u32::try_from(*owner).unwrap_or(u32::MAX);
            index.insert(
                &format!("symbol:{symbol}"),
                &self.modules[*owner].name,
                number,
            );
        }
        index
    }

    fn builtin_index(&self) -> Index {
        let mut index = Index::default();
        for line in self
            .builtin
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()))
        {
            index.insert(&module_name(line), "", 0);
        }
        index
    }

    /// From records `module.field=value NUL`.
    fn builtin_alias_index(&self) -> Index {
        let mut index = Index::default();
        for record in self.builtin_modinfo.split('\0') {
            let alias = record
                .split_once('.')
                .and_then(|(name, field)| Some((name, field.strip_prefix("alias=")?)));
            if let Some((name, alias)) = alias
                && let Some(alias) = normal_alias(alias)
            {
                index.insert(&alias, name, 0);
            }
        }
        index
    }

    /// Device nodes that load their module when they are opened; systemd makes them at boot.
    fn devname(&self) -> String {
        let lines: String = self.modules.iter().filter_map(devname_line).collect();
        if lines.is_empty() {
            lines
        } else {
            format!("# Device nodes to trigger on-demand module loading.\n{lines}")
        }
    }
}

fn devname_line(module: &Module) -> Option<String> {
    let mut devname = None;
    let mut numbers = None;
    for alias in module.info.values("alias") {
        if let Some(name) = alias.strip_prefix("devname:") {
            devname = Some(name);
        } else if let Some(found) = device_numbers(alias) {
            numbers = Some(found);
        }
        if let (Some(devname), Some((kind, major, minor))) = (devname, numbers) {
            return Some(format!("{} {devname} {kind}{major}:{minor}\n", module.name));
        }
    }
    None
}

fn device_numbers(alias: &str) -> Option<(char, u32, u32)> {
    let (kind, numbers) = match alias.strip_prefix("char-major-") {
        Some(numbers) => ('c', numbers),
        None => ('b', alias.strip_prefix("block-major-")?),
    };
    let (major, minor) = numbers.split_once('-')?;
    Some((kind, major.parse().ok()?, minor.parse().ok()?))
}

/// `-` and `_` are the same in names but not inside of brackets. `None` if brackets do not match.
pub(super) fn normal_alias(alias: &str) -> Option<String> {
    let mut inside = false;
    let normal = alias.chars().map(|c| {
        match c {
            '[' => inside = true,
            ']' if inside => inside = false,
            ']' => return None,
            '-' if !inside => return Some('_'),
            _ => {}
        }
        Some(c)
    });
    let normal: Option<String> = normal.collect();
    normal.filter(|_| !inside)
}
