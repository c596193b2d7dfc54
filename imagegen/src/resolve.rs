//! Chooses packages: the closure of what was asked for over `Depends` and `Pre-Depends`.
//!
//! Greedy and without going back: of the alternatives of a dependency it takes one that is chosen already, else the first that can be had.
//! Within one release of Debian that is enough; where it is not, `Conflicts`, `Breaks` and missing packages end in an error that tells the
//! chain of who wanted what. What was asked for by the name of a suite that is not looked at by itself, such as backports, may take
//! from that suite what no other has. Pure and deterministic: the same index and request give the same packages in the same order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use debversion::Version;

use crate::index::{Index, Package};
use crate::relation::Relation;

/// What to resolve.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The packages wanted.
    pub roots: Vec<Root>,
    /// Names (real or virtual) that are left out on purpose: a dependency whose turn comes to one of them counts as met.
    pub exclude: BTreeSet<String>,
    /// Names that are there already, in whatever version is demanded.
    pub assume: BTreeSet<String>,
}

/// A package wanted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The name.
    pub name: String,
    /// This very version (which may come from backports), or the highest.
    pub version: Option<Version>,
    /// Of this suite alone (which may be backports), or of all that are looked at by themselves.
    pub suite: Option<String>,
}

/// The packages chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The packages by name.
    pub packages: BTreeMap<String, Package>,
    /// Who wanted each package first; the roots are not in it.
    pub wanted_by: BTreeMap<String, String>,
}

/// Why there is no closure.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResolveError {
    /// A root is not on offer.
    #[error("package `{root}` is not in the archive")]
    UnknownRoot {
        /// The name, and the version if one was asked for.
        root: String,
    },
    /// None of a dependency's alternatives can be had.
    #[error("`{dependency}` cannot be had, wanted by {chain}")]
    Missing {
        /// The dependency as the package says it.
        dependency: String,
        /// From the package that wants it to the root.
        chain: String,
    },
    /// Two wishes for one package exclude each other.
    #[error("`{dependency}` is wanted by {chain}, but {chosen} is chosen")]
    Version {
        /// The dependency as the package says it.
        dependency: String,
        /// From the package that wants it to the root.
        chain: String,
        /// The package that was chosen before.
        chosen: String,
    },
    /// Two chosen packages do not go together.
    #[error(
        "{package} (wanted by {chain}) does not go together with {other} (wanted by {other_chain})"
    )]
    Conflict {
        /// The package that declares it.
        package: String,
        /// Why it is there.
        chain: String,
        /// The package that it is declared against.
        other: String,
        /// Why that is there.
        other_chain: String,
    },
}

impl Root {
    /// Wants the highest version of a package.
    pub fn latest(name: &str) -> Self {
        Root {
            name: name.to_owned(),
            version: None,
            suite: None,
        }
    }
}

impl Resolution {
    /// Tells why a package is there: `a <- b <- root`.
    pub fn chain(&self, name: &str) -> String {
        let mut chain = name.to_owned();
        let mut current = name;
        while let Some(parent) = self.wanted_by.get(current) {
            chain.push_str(" <- ");
            chain.push_str(parent);
            current = parent;
        }
        chain
    }
}

/// Resolves a request.
pub fn resolve(index: &Index, request: &Request) -> Result<Resolution, ResolveError> {
    let mut closure = Closure {
        index,
        request,
        chosen: Resolution {
            packages: BTreeMap::new(),
            wanted_by: BTreeMap::new(),
        },
        queue: VecDeque::new(),
    };
    // All roots first: a root is a better answer to a dependency than what its first alternative says.
    for root in &request.roots {
        closure.choose_root(root)?;
    }
    while let Some(name) = closure.queue.pop_front() {
        closure.meet_dependencies(&name)?;
    }
    check_conflicts(&closure.chosen)?;
    Ok(closure.chosen)
}

struct Closure<'a> {
    index: &'a Index,
    request: &'a Request,
    chosen: Resolution,
    /// Chosen packages whose dependencies were not looked at.
    queue: VecDeque<String>,
}

/// What one alternative of a dependency comes to.
enum Answer<'a> {
    LeftOut,
    Take(&'a Package),
    None,
}

impl<'a> Closure<'a> {
    fn choose_root(&mut self, root: &Root) -> Result<(), ResolveError> {
        let package = match (&root.version, &root.suite) {
            (None, None) => self.index.latest(&root.name),
            (version, suite) => self.index.versions(&root.name).iter().find(|package| {
                version
                    .as_ref()
                    .is_none_or(|wanted| *wanted == package.version)
                    && suite.as_ref().is_none_or(|wanted| *wanted == package.suite)
            }),
        };
        let unknown = || ResolveError::UnknownRoot {
            root: match (&root.version, &root.suite) {
                (None, None) => root.name.clone(),
                (None, Some(suite)) => format!("{} of {suite}", root.name),
                (Some(version), _) => format!("{} {version}", root.name),
            },
        };
        self.choose(package.ok_or_else(unknown)?);
        Ok(())
    }

    fn choose(&mut self, package: &Package) {
        let previous = self
            .chosen
            .packages
            .insert(package.name.clone(), package.clone());
        if previous.is_none() {
            self.queue.push_back(package.name.clone());
        }
    }

    fn meet_dependencies(&mut self, name: &str) -> Result<(), ResolveError> {
        let wanting = &self.chosen.packages[name];
        let groups = wanting.depends.clone();
        let suite = (!wanting.automatic).then(|| wanting.suite.clone());
        for group in &groups {
            if group.iter().any(|relation| self.is_met(relation)) {
                continue;
            }
            match self.answer_group(group, suite.as_deref()) {
                Answer::LeftOut => {}
                Answer::Take(package) => {
                    let wanted = (package.name.clone(), name.to_owned());
                    self.choose(package);
                    self.chosen.wanted_by.extend([wanted]);
                }
                Answer::None => return Err(self.failure(group, name)),
            }
        }
        Ok(())
    }

    fn is_met(&self, relation: &Relation) -> bool {
        if self.request.assume.contains(&relation.name) {
            return true;
        }
        let packages = &self.chosen.packages;
        let by_name = packages.get(&relation.name);
        by_name.is_some_and(|package| relation.admits(&package.version))
            || packages
                .values()
                .any(|package| package.provides_for(relation))
    }

    /// The first alternative that is left out on purpose or can be had decides.
    fn answer_group(&self, group: &[Relation], suite: Option<&str>) -> Answer<'a> {
        for relation in group {
            match self.answer(relation, suite) {
                Answer::None => {}
                answer => return answer,
            }
        }
        Answer::None
    }

    /// A real package is a better answer than one that provides the name, and either better than one of the suite beside.
    fn answer(&self, relation: &Relation, suite: Option<&str>) -> Answer<'a> {
        if self.request.exclude.contains(&relation.name) {
            return Answer::LeftOut;
        }
        let index = self.index;
        let beside = suite.map(|suite| index.matching_in(relation, suite));
        let candidates = index
            .matching(relation)
            .chain(index.providers(relation))
            .chain(beside.into_iter().flatten());
        for package in candidates {
            if self.request.exclude.contains(&package.name) {
                return Answer::LeftOut;
            }
            if !self.chosen.packages.contains_key(&package.name) {
                return Answer::Take(package);
            }
        }
        Answer::None
    }

    fn failure(&self, group: &[Relation], wanted_by: &str) -> ResolveError {
        let dependency = group
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" | ");
        let chain = self.chosen.chain(wanted_by);
        let chosen = group
            .iter()
            .find_map(|relation| self.chosen.packages.get(&relation.name));
        match chosen {
            None => ResolveError::Missing { dependency, chain },
            Some(package) => ResolveError::Version {
                dependency,
                chain,
                chosen: format!("{} {}", package.name, package.version),
            },
        }
    }
}

fn check_conflicts(chosen: &Resolution) -> Result<(), ResolveError> {
    for package in chosen.packages.values() {
        for relation in package.conflicts.iter().flatten() {
            let mut others = chosen
                .packages
                .values()
                .filter(|other| other.name != package.name);
            let hit = others.find(|other| {
                (other.name == relation.name && relation.admits(&other.version))
                    || other.provides_for(relation)
            });
            if let Some(other) = hit {
                return Err(ResolveError::Conflict {
                    package: package.name.clone(),
                    chain: chosen.chain(&package.name),
                    other: other.name.clone(),
                    other_chain: chosen.chain(&other.name),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::index::Origin;

    /// A package a line: `name version; field: value; ...`. A line `suite: name` opens the next suite; one called backports is not automatic.
    fn index(text: &str) -> Index {
        let mut index = Index::default();
        let mut suite = "trixie";
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix("suite: ") {
                suite = name;
                continue;
            }
            let (package, fields) = line.split_once(';').unwrap_or((line, ""));
            let (name, version) = package.split_once(' ').unwrap();
            let stanza = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: arm64\nFilename: pool/{name}_{version}.deb\nSize: 1\nSHA256: {}\n{}\n",
                "0".repeat(64),
                fields.replace(';', "\n").replace("\n ", "\n").trim()
            );
            let origin = Origin {
                suite: suite.to_owned(),
                automatic: suite != "backports",
            };
            index.add(&stanza, &origin).unwrap();
        }
        index
    }

    /// `want` names the roots (`name`, `name=version` or `name@suite`), `-name` leaves out, `+name` is there already.
    fn check(packages: &str, want: &str, expected: Expect) {
        let mut request = Request::default();
        for word in want.split_whitespace() {
            if let Some(name) = word.strip_prefix('-') {
                request.exclude.insert(name.to_owned());
            } else if let Some(name) = word.strip_prefix('+') {
                request.assume.insert(name.to_owned());
            } else if let Some((name, version)) = word.split_once('=') {
                request.roots.push(Root {
                    name: name.to_owned(),
                    version: Some(version.parse().unwrap()),
                    suite: None,
                });
            } else if let Some((name, suite)) = word.split_once('@') {
                request.roots.push(Root {
                    suite: Some(suite.to_owned()),
                    ..Root::latest(name)
                });
            } else {
                request.roots.push(Root::latest(word));
            }
        }
        expected.assert_eq(&match resolve(&index(packages), &request) {
            Err(error) => error.to_string(),
            Ok(resolution) => {
                let show = |package: &Package| format!("{} {}", package.name, package.version);
                let shown: Vec<String> = resolution.packages.values().map(show).collect();
                shown.join(", ")
            }
        });
    }

    #[test]
    fn the_closure_runs_over_both_kinds_of_dependency() {
        let packages = "a 1; Depends: b; Pre-Depends: c (>= 2)\nb 1; Depends: d, a\nc 2\nd 1\ne 1";
        check(packages, "a", expect!["a 1, b 1, c 2, d 1"]);
        check(packages, "e d", expect!["d 1, e 1"]);
        check(packages, "a -b", expect!["a 1, c 2"]);
        check(packages, "a +b +c", expect!["a 1"]);
    }

    #[test]
    fn of_the_alternatives_a_chosen_one_is_best_then_the_first_that_can_be_had() {
        let packages = "a 1; Depends: x | b | c\nb 1\nc 1\nd 1; Depends: c";
        check(packages, "a", expect!["a 1, b 1"]);
        check(packages, "a c", expect!["a 1, c 1"]);
        check(packages, "a -b", expect!["a 1"]);
        check(packages, "a -c", expect!["a 1, b 1"]);
    }

    #[test]
    fn the_highest_version_wins_and_backports_only_when_asked_for() {
        let packages = "a 1:1\na 2\nsuite: trixie-security\na 1:1+deb13u1\nsuite: backports\na 1:3~bpo13\na 1:2~bpo13";
        check(packages, "a", expect!["a 1:1+deb13u1"]);
        check(packages, "a=1:2~bpo13", expect!["a 1:2~bpo13"]);
        check(
            packages,
            "a=7",
            expect!["package `a 7` is not in the archive"],
        );
        check(packages, "a@backports", expect!["a 1:3~bpo13"]);
        check(
            packages,
            "a@old",
            expect!["package `a of old` is not in the archive"],
        );
        let dependent = "b 1; Depends: a (<< 2)\na 3\nsuite: old\na 1";
        check(dependent, "b", expect!["a 1, b 1"]);
    }

    #[test]
    fn what_is_asked_for_from_backports_takes_the_rest_from_there_only_where_it_must() {
        let packages = "c 1\nd 1\na 1; Depends: e\nsuite: backports\na 2; Depends: b (= 2), c, d (>= 2)\nb 2; Depends: c\nc 2\nd 2\ne 2";
        check(packages, "a@backports", expect!["a 2, b 2, c 1, d 2"]);
        check(packages, "a", expect!["`e` cannot be had, wanted by a"]);
    }

    #[test]
    fn virtual_packages() {
        let packages = "a 1; Depends: mta\nz 1; Provides: mta\ny 1; Provides: mta (= 5)\nb 1; Depends: mta (>= 4)\nc 1; Depends: mta (>= 6)";
        check(packages, "a", expect!["a 1, y 1"]);
        check(packages, "a z", expect!["a 1, z 1"]);
        check(packages, "b", expect!["b 1, y 1"]);
        check(
            packages,
            "c",
            expect!["`mta (>= 6)` cannot be had, wanted by c"],
        );
        check(packages, "a -mta", expect!["a 1"]);
        check(packages, "a -y", expect!["a 1"]);
    }

    #[test]
    fn what_is_missing_is_told_with_the_chain_that_wanted_it() {
        let packages = "a 1; Depends: b\nb 1; Depends: c\nc 1; Depends: d (>= 2) | e, f\nd 1\nf 1";
        check(
            packages,
            "a",
            expect!["`d (>= 2) | e` cannot be had, wanted by c <- b <- a"],
        );
        check(packages, "q", expect!["package `q` is not in the archive"]);
        check(
            packages,
            "d a",
            expect!["`d (>= 2) | e` is wanted by c <- b <- a, but d 1 is chosen"],
        );
    }

    #[test]
    fn conflicts_and_breaks() {
        let packages = "a 1; Depends: b\nb 1; Breaks: c (<< 2)\nc 1\nsuite: u\nd 1; Conflicts: v; Provides: v\ne 1; Provides: v\nf 1; Conflicts: e (<< 1)";
        check(
            packages,
            "a c",
            expect!["b (wanted by b <- a) does not go together with c (wanted by c)"],
        );
        check(packages, "d", expect!["d 1"]);
        check(
            packages,
            "d e",
            expect!["d (wanted by d) does not go together with e (wanted by e)"],
        );
        check(packages, "e f", expect!["e 1, f 1"]);
    }
}
