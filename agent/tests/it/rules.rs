//! The table of rules in RULES.md: every rule is there, and every test it names exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Parses the table's rows: a rule's number and its tests.
fn parse_rules(text: &str) -> BTreeMap<String, Vec<String>> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let mut rules = BTreeMap::new();
    for row in rows.filter(|row| !row.starts_with("rule ")) {
        let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").collect();
        let [rule, _, tests] = cells[..] else {
            panic!("not three cells: {row}");
        };
        let tests = tests.split_whitespace().map(|test| test.trim_matches('`'));
        rules.insert(rule.to_owned(), tests.map(str::to_owned).collect());
    }
    rules
}

/// Finds all Rust sources under a folder.
fn find_sources(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

/// Returns whether a source has a test of a name.
fn has_test(source: &Path, function: &str) -> bool {
    let text = fs::read_to_string(source).unwrap();
    let head = format!("fn {function}(");
    let mut places = text.match_indices(&head);
    places.any(|(place, _)| text[..place].trim_end().ends_with("#[test]"))
}

/// Returns whether a test of a name exists: a scenario, or `module::function` in a source file of the module's name or folder.
fn exists(test: &str, crate_root: &Path, sources: &[PathBuf]) -> bool {
    let Some((module, function)) = test.rsplit_once("::") else {
        let scenario = format!("tests/it/scenarios/{test}.txt");
        return crate_root.join(scenario).is_file();
    };
    let module = module.replace("::", "/");
    sources.iter().any(|source| {
        let name = source.with_extension("");
        let name = name.to_str().unwrap().trim_end_matches("/mod");
        name.ends_with(&format!("/{module}")) && has_test(source, function)
    })
}

#[test]
fn every_rule_has_tests_that_exist() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(crate_root.join("RULES.md")).unwrap();
    let rules = parse_rules(&text);
    let mut sources = Vec::new();
    for folder in ["src", "tests"] {
        find_sources(&crate_root.join(folder), &mut sources);
    }
    let expected = (1..=10).flat_map(|n| [format!("A{n}"), format!("D{n}")]);
    let expected = expected.chain((1..=5).map(|n| format!("M{n}")));
    let expected = expected.chain((1..=3).map(|n| format!("F{n}")));
    let mut wrong = Vec::new();
    for rule in expected.chain(["L1".to_owned()]) {
        match rules.get(&rule).map(Vec::as_slice) {
            None | Some([]) => wrong.push(format!("{rule} has no test")),
            Some(tests) => wrong.extend(
                tests
                    .iter()
                    .filter(|test| !exists(test, crate_root, &sources))
                    .map(|test| format!("{rule}: there is no test {test}")),
            ),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
