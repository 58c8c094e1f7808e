//! Rules of the packages: what each may depend on, and what each must have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Problem, Tree};
use crate::markdown;
use crate::process::{cargo, workspace_root};

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// The features of Burn that choose a backend. Only what somebody runs may: binaries, tests, examples.
const BACKENDS: [&str; 11] =
    ["flex", "cpu", "wgpu", "vulkan", "metal", "webgpu", "cuda", "rocm", "remote", "ndarray", "tch"];

/// Gives tests their device, so it may choose a backend though it is a library.
const TESTKIT: &str = "firebrick-testkit";

/// What each published crate carries a copy of, by a link to the workspace's.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// What `cargo metadata` says of a package of the workspace.
#[derive(Clone, Debug, Default)]
pub(super) struct Package {
    name: String,
    manifest: PathBuf,
    description: Option<String>,
    is_library: bool,
    is_published: bool,
    keywords: Vec<String>,
    categories: Vec<String>,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Default)]
struct Dependency {
    name: String,
    for_development: bool,
    /// Whether it names a version, so that a published crate keeps it.
    has_version: bool,
    features: Vec<String>,
}

/// The crates that a crate may use.
#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    Every,
    These(BTreeSet<String>),
}

/// The packages of the workspace.
///
/// # Errors
/// If cargo cannot read the workspace.
pub(super) fn packages() -> Result<Vec<Package>> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(workspace_root())
        .output()
        .context("cannot start `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cannot read what `cargo metadata` wrote")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` wrote no packages")?;
    Ok(packages.iter().map(package).collect())
}

fn package(value: &Value) -> Package {
    let strings =
        |value: &Value| -> Vec<String> { list(value).filter_map(Value::as_str).map(str::to_string).collect() };
    let manifest = Path::new(value["manifest_path"].as_str().unwrap_or_default());
    let dependency = |value: &Value| Dependency {
        name: text(&value["name"]),
        for_development: value["kind"] == "dev",
        has_version: value["req"] != "*",
        features: strings(&value["features"]),
    };
    let features = value["features"].as_object().into_iter().flatten();
    let has_target =
        |kind: &str| list(&value["targets"]).any(|target| list(&target["kind"]).any(|found| found == kind));
    Package {
        name: text(&value["name"]),
        manifest: manifest.strip_prefix(workspace_root()).unwrap_or(manifest).to_path_buf(),
        description: value["description"].as_str().map(str::to_string),
        is_library: has_target("lib") && !has_target("bin"),
        // Null where any registry will do, and the list of registries otherwise.
        is_published: value["publish"].is_null(),
        keywords: strings(&value["keywords"]),
        categories: strings(&value["categories"]),
        dependencies: list(&value["dependencies"]).map(dependency).collect(),
        features: features.map(|(name, enabled)| (name.clone(), strings(enabled))).collect(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

pub(super) fn problems(packages: &[Package], tree: &Tree) -> Vec<Problem> {
    let mut found = match tree.get(Path::new(ARCHITECTURE)) {
        Some(Some(architecture)) => graph_problems(packages, architecture),
        _ => vec![Problem::new(ARCHITECTURE, 1, "missing; it holds the crate graph")],
    };
    for package in packages {
        found.extend(backend_problems(package));
        found.extend(missing_parts(package, tree));
        if package.is_published {
            found.extend(publishing_problems(package, packages, tree));
        }
    }
    found
}

/// Holds the dependencies against the table. Dev-dependencies are free: a test may use what it likes.
fn graph_problems(packages: &[Package], architecture: &str) -> Vec<Problem> {
    let Some(rows) = markdown::table(architecture, "crate-graph") else {
        let message = "no table between `<!-- crate-graph:begin -->` and `<!-- crate-graph:end -->`";
        return vec![Problem::new(ARCHITECTURE, 1, message)];
    };
    let names = packages.iter().map(|package| package.name.as_str()).collect::<BTreeSet<_>>();
    let mut found = Vec::new();
    let mut graph = BTreeMap::new();
    for (line, cells) in rows {
        match graph_row(&cells, &names) {
            Ok((name, allowed)) => _ = graph.insert(name, allowed),
            Err(message) => found.push(Problem::new(ARCHITECTURE, line, message)),
        }
    }
    for package in packages {
        let Some(allowed) = graph.get(&package.name) else {
            found.push(Problem::new(
                ARCHITECTURE,
                1,
                format!("the crate graph has no good row for `{}`", package.name),
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.for_development) {
            let fine = match allowed {
                Allowed::Every => true,
                Allowed::These(these) => these.contains(&dependency.name),
            };
            if names.contains(dependency.name.as_str()) && !fine {
                let message = format!("`{}` may not use `{}` ({ARCHITECTURE})", package.name, dependency.name);
                found.push(Problem::new(&package.manifest, 1, message));
            }
        }
    }
    found
}

/// One row: a crate and the crates it may use, `nothing`, or `every crate`.
fn graph_row(cells: &[String], names: &BTreeSet<&str>) -> Result<(String, Allowed), String> {
    let known = |cell: &str| {
        let name = cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap_or_default();
        if names.contains(name) {
            Ok(name.to_string())
        } else {
            Err(format!("{cell} is no package of the workspace in backticks"))
        }
    };
    let [name, allowed, ..] = cells else { return Err("a row needs two cells: crate, may use".to_string()) };
    let allowed = match allowed.as_str() {
        "every crate" => Allowed::Every,
        "nothing" => Allowed::These(BTreeSet::new()),
        these => Allowed::These(these.split(',').map(|cell| known(cell.trim())).collect::<Result<_, _>>()?),
    };
    Ok((known(name)?, allowed))
}

/// A library leaves the choice of a backend to whoever runs it.
fn backend_problems(package: &Package) -> Vec<Problem> {
    if !package.is_library || !package.manifest.starts_with("crates") || package.name == TESTKIT {
        return Vec::new();
    }
    let burn = |dependency: &&Dependency| !dependency.for_development && is_burn(&dependency.name);
    let direct = package.dependencies.iter().filter(burn).flat_map(|dependency| &dependency.features);
    let direct = direct.filter(|feature| BACKENDS.contains(&feature.as_str())).cloned();
    let by_default = default_features(package).into_iter().filter(|feature| {
        let (dependency, feature) = feature.split_once('/').unwrap_or_default();
        is_burn(dependency.trim_end_matches('?')) && BACKENDS.contains(&feature)
    });
    let message =
        |feature: String| format!("`{}` chooses the Burn backend `{feature}`; leave it to binaries", package.name);
    direct.chain(by_default).map(|feature| Problem::new(&package.manifest, 1, message(feature))).collect()
}

fn is_burn(name: &str) -> bool {
    name == "burn" || name.starts_with("burn-")
}

/// All that the default feature enables, through the package's other features.
fn default_features(package: &Package) -> BTreeSet<String> {
    let (mut enabled, mut open) = (BTreeSet::new(), vec!["default".to_string()]);
    while let Some(feature) = open.pop() {
        if enabled.insert(feature.clone()) {
            open.extend(package.features.get(&feature).into_iter().flatten().cloned());
        }
    }
    enabled
}

/// What a package must have: the workspace's lints and, under `crates/`, a README and a description.
fn missing_parts(package: &Package, tree: &Tree) -> Vec<Problem> {
    let mut found = Vec::new();
    let manifest = tree.get(&package.manifest).and_then(Option::as_deref).unwrap_or_default();
    if !inherits_lints(manifest) {
        found.push(Problem::new(&package.manifest, 1, "without `[lints] workspace = true`"));
    }
    if package.manifest.starts_with("crates") {
        let readme = package.manifest.with_file_name("README.md");
        if !tree.contains_key(&readme) {
            found.push(Problem::new(readme, 1, "missing; it is the crate's documentation"));
        }
        if package.description.is_none() {
            found.push(Problem::new(&package.manifest, 1, "without a description"));
        }
    }
    found
}

/// What keeps a crate from being published, or from being found.
fn publishing_problems(package: &Package, packages: &[Package], tree: &Tree) -> Vec<Problem> {
    let mut found = Vec::new();
    for (name, values) in [("keywords", &package.keywords), ("categories", &package.categories)] {
        if values.is_empty() {
            found.push(Problem::new(&package.manifest, 1, format!("without {name}")));
        }
    }
    for licence in LICENCES.map(|licence| package.manifest.with_file_name(licence)) {
        if !tree.contains_key(&licence) {
            found.push(Problem::new(licence, 1, "missing; link it to the workspace's"));
        }
    }
    for dependency in package.dependencies.iter().filter(|dependency| dependency.for_development) {
        // Tests go round in circles, which no order of publishing serves.
        if dependency.has_version && packages.iter().any(|other| other.name == dependency.name) {
            let message = format!("a test's `{}` has a version; give its path alone", dependency.name);
            found.push(Problem::new(&package.manifest, 1, message));
        }
    }
    found
}

fn inherits_lints(manifest: &str) -> bool {
    let mut section = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    section.find(|line| !line.is_empty()) == Some("workspace = true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_dependency(name: &str, for_development: bool, features: &[&str]) -> Package {
        let features = features.iter().map(|feature| (*feature).to_string()).collect();
        let dependency = Dependency { name: name.to_string(), for_development, has_version: true, features };
        Package { dependencies: vec![dependency], ..library("a") }
    }

    fn library(name: &str) -> Package {
        let manifest = format!("crates/{name}/Cargo.toml").into();
        Package { name: name.to_string(), manifest, is_library: true, ..Package::default() }
    }

    fn check_graph(package: Package, rows: &str, expected: &[&str]) {
        let text = format!(
            "<!-- crate-graph:begin -->\n| crate | may use |\n| --- | --- |\n{rows}\n<!-- crate-graph:end -->\n"
        );
        let found = graph_problems(&[package, library("b")], &text);
        assert_eq!(found.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_dependency_must_be_in_the_table() {
        let uses_b = || with_dependency("b", false, &[]);
        check_graph(uses_b(), "| `a` | `b` |\n| `b` | nothing |", &[]);
        check_graph(uses_b(), "| `a` | every crate |\n| `b` | nothing |", &[]);
        check_graph(uses_b(), "| `a` | nothing |\n| `b` | `a` |", &["`a` may not use `b` (ARCHITECTURE.md)"]);
        check_graph(with_dependency("b", true, &[]), "| `a` | nothing |\n| `b` | nothing |", &[]);
        check_graph(with_dependency("serde", false, &[]), "| `a` | nothing |\n| `b` | nothing |", &[]);
    }

    #[test]
    fn the_table_names_every_package_and_no_other() {
        check_graph(library("a"), "| `a` | nothing |", &["the crate graph has no good row for `b`"]);
        let unknown = "`c` is no package of the workspace in backticks";
        check_graph(library("a"), "| `a` | nothing |\n| `b` | nothing |\n| `c` | nothing |", &[unknown]);
        check_graph(
            library("a"),
            "| `a` | nothing |\n| `b` | `c` |",
            &[unknown, "the crate graph has no good row for `b`"],
        );
        assert_eq!(graph_problems(&[], "no table").len(), 1);
    }

    #[test]
    fn a_library_chooses_no_backend() {
        let count = |package: &Package| backend_problems(package).len();
        assert_eq!(count(&with_dependency("burn", false, &["std", "flex"])), 1);
        assert_eq!(count(&with_dependency("burn", false, &["std"])), 0);
        assert_eq!(count(&with_dependency("burn", true, &["flex"])), 0);
        assert_eq!(count(&Package { is_library: false, ..with_dependency("burn", false, &["flex"]) }), 0);
        assert_eq!(count(&Package { name: TESTKIT.to_string(), ..with_dependency("burn", false, &["flex"]) }), 0);
    }

    #[test]
    fn a_default_feature_chooses_no_backend_either() {
        let features = |lines: &[(&str, &[&str])]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect();
            let features = lines.iter().map(|(name, enabled)| ((*name).to_string(), owned(enabled))).collect();
            backend_problems(&Package { features, ..library("a") }).len()
        };
        assert_eq!(features(&[("default", &["fast"]), ("fast", &["burn/cuda", "default"])]), 1);
        assert_eq!(features(&[("default", &["train"]), ("cuda", &["burn/cuda"])]), 0);
    }

    #[test]
    fn a_crate_has_lints_a_readme_and_a_description() {
        let messages = |tree: &Tree, package: &Package| missing_parts(package, tree).len();
        let manifest = |text: &str| (PathBuf::from("crates/a/Cargo.toml"), Some(text.to_string()));
        let good =
            Tree::from([manifest("[lints]\nworkspace = true\n"), ("crates/a/README.md".into(), Some(String::new()))]);
        let described = Package { description: Some("x".to_string()), ..library("a") };
        assert_eq!(messages(&good, &described), 0);
        assert_eq!(messages(&good, &library("a")), 1);
        assert_eq!(messages(&Tree::from([manifest("[lints]\n\n[dependencies]\nworkspace = true\n")]), &described), 2);
    }

    #[test]
    fn a_published_crate_can_be_published_and_found() {
        let described = |package| Package {
            is_published: true,
            keywords: vec!["x".to_string()],
            categories: vec!["science".to_string()],
            ..package
        };
        let licences = LICENCES.map(|name| (Path::new("crates/a").join(name), Some(String::new())));
        let check = |package: &Package, tree: &Tree, expected: &[&str]| {
            let found = publishing_problems(package, &[library("b")], tree);
            assert_eq!(found.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(), expected);
        };
        let tree = Tree::from(licences);
        check(&described(library("a")), &tree, &[]);
        check(&described(library("a")), &Tree::new(), &["missing; link it to the workspace's"; 2]);
        check(&Package { keywords: Vec::new(), ..described(library("a")) }, &tree, &["without keywords"]);
        check(&described(with_dependency("b", false, &[])), &tree, &[]);
        check(&described(with_dependency("proptest", true, &[])), &tree, &[]);
        let versioned = "a test's `b` has a version; give its path alone";
        check(&described(with_dependency("b", true, &[])), &tree, &[versioned]);
    }
}
