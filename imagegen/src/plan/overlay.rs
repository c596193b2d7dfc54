//! Overlay files become planned files: paths to destinations, templates to text, links and masks to nodes.
//!
//! Templates substitute; what differs by choice is decided here. tera's escaping is for HTML and stays off, so every value that reaches a
//! template is of a type that cannot carry a line end or a quote to where it does harm.

use std::collections::{BTreeMap, BTreeSet};

use tera::{Context, Tera};
use thiserror::Error;

use crate::board::Board;
use crate::overlays::{Files, OverlayRules, Overlays, SiteFile};
use crate::recipe::Feature;
use crate::tree::Node;

/// Something the plan puts at a path, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedNode {
    /// What is put there.
    pub node: Node,
    /// Where it comes from, for people.
    pub source: String,
}

/// Why an overlay cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OverlayPlanError {
    /// A template is wrong, or wants something it is not given.
    #[error("the template overlays/{path} cannot be rendered: {reason}")]
    Template {
        /// Which.
        path: String,
        /// What tera says.
        reason: String,
    },
    /// A rule for a file that is not there.
    #[error("overlay.toml has a rule under {table} for `/{path}`, but nothing is there")]
    Stale {
        /// The rule's table.
        table: &'static str,
        /// What it is about.
        path: String,
    },
    /// Two overlays claim the same place.
    #[error("/{path} comes both from {one} and from {other}")]
    Twice {
        /// The place.
        path: String,
        /// Who was first.
        one: String,
        /// Who came after.
        other: String,
    },
}

/// Plans what overlays put into the root: files, links and masks.
pub fn plan_root_overlay(
    board: &Board,
    overlays: &Overlays,
    features: &BTreeSet<Feature>,
) -> Result<BTreeMap<String, PlannedNode>, OverlayPlanError> {
    let rules = &overlays.rules;
    check_stale(overlays)?;
    let wanted = |path: &str| {
        rules
            .conditions
            .get(path)
            .is_none_or(|feature| features.contains(feature))
    };
    let mut nodes = render_files("rootfs", &overlays.rootfs, &interfaces(board))?;
    nodes.retain(|path, _| wanted(path));
    for (path, planned) in &mut nodes {
        planned.node.mode = rules.modes.get(path).copied().unwrap_or(0o644);
    }
    for (path, target) in rules.links.iter().filter(|(path, _)| wanted(path)) {
        put(
            &mut nodes,
            path.clone(),
            Node::symlink(target.clone()),
            "link".to_owned(),
        )?;
    }
    for unit in &rules.masks {
        put(
            &mut nodes,
            format!("etc/systemd/system/{unit}"),
            Node::symlink("/dev/null"),
            "mask".to_owned(),
        )?;
    }
    Ok(nodes)
}

/// What the two sides are called.
pub(super) fn interfaces(board: &Board) -> Context {
    let mut context = Context::new();
    context.insert("radio_interface", &board.radio.interface);
    context.insert("wired_interface", &board.wired.interface);
    context
}

/// Renders every template of a directory, and takes its other files as they are.
pub fn render_files(
    directory: &str,
    files: &Files,
    context: &Context,
) -> Result<BTreeMap<String, PlannedNode>, OverlayPlanError> {
    let mut nodes = BTreeMap::new();
    for (path, bytes) in files {
        let source = format!("overlays/{directory}/{path}");
        let (path, bytes) = match path.strip_suffix(".tera") {
            Some(rendered) => (
                rendered,
                render(&format!("{directory}/{path}"), bytes, context)?
                    .into_bytes()
                    .into(),
            ),
            None => (path.as_str(), bytes.clone()),
        };
        put(
            &mut nodes,
            path.to_owned(),
            Node::file(0o644, bytes),
            source,
        )?;
    }
    Ok(nodes)
}

fn render(path: &str, template: &[u8], context: &Context) -> Result<String, OverlayPlanError> {
    let failed = |reason| OverlayPlanError::Template {
        path: path.to_owned(),
        reason,
    };
    let template = str::from_utf8(template).map_err(|err| failed(err.to_string()))?;
    Tera::default()
        .render_str(template, context, false)
        .map_err(|err| failed(err.to_string()))
}

fn put(
    nodes: &mut BTreeMap<String, PlannedNode>,
    path: String,
    node: Node,
    source: String,
) -> Result<(), OverlayPlanError> {
    if let Some(earlier) = nodes.get(&path) {
        return Err(OverlayPlanError::Twice {
            path,
            one: earlier.source.clone(),
            other: source,
        });
    }
    nodes.insert(path, PlannedNode { node, source });
    Ok(())
}

/// A rule for something that has moved would be silently without effect.
fn check_stale(overlays: &Overlays) -> Result<(), OverlayPlanError> {
    let OverlayRules {
        modes,
        conditions,
        site,
        site_directories,
        links,
        ..
    } = &overlays.rules;
    let stale = |table, path: &str| {
        Err(OverlayPlanError::Stale {
            table,
            path: path.to_owned(),
        })
    };
    let is_file = |path: &str| {
        overlays.rootfs.contains_key(path) || overlays.rootfs.contains_key(&format!("{path}.tera"))
    };
    if let Some(path) = modes.keys().find(|path| !is_file(path)) {
        return stale("modes", path);
    }
    if let Some(path) = conditions
        .keys()
        .find(|path| !is_file(path) && !links.contains_key(*path))
    {
        return stale("conditions", path);
    }
    let leads_somewhere = |directory: &str| {
        site.iter()
            .any(|file| file.destination.starts_with(&format!("{directory}/")))
    };
    if let Some(path) = site_directories.keys().find(|path| !leads_somewhere(path)) {
        return stale("site-directories", path);
    }
    let exists = |name: &str| {
        overlays.site.contains_key(name) || overlays.site.contains_key(&format!("{name}.tera"))
    };
    let names = |file: &&SiteFile| !file.name.starts_with('*');
    if let Some(file) = site.iter().filter(names).find(|file| !exists(&file.name)) {
        return stale("site", &file.name);
    }
    Ok(())
}
