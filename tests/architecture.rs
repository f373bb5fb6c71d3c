//! The shape of the source: who may know whom, how large a file may grow, what it must say at its head.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Modules of the daemon by layer; a module knows its own layer and those below, and there are no cycles in a layer.
const LAYERS: &[&[&str]] = &[
    &["config", "metrics", "status", "telemetry", "connectors", "records", "crash"],
    &["format"],
    &["sink", "state"],
    &["pipeline"],
    &["server"],
    &["cli"],
    &["main", "lib"],
];

const LINES_MAX: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                rust_files(&path, out);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn files(dirs: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    dirs.iter().for_each(|d| rust_files(&root().join(d), &mut paths));
    paths.sort();
    paths
        .into_iter()
        .map(|p| (p.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&p).unwrap()))
        .collect()
}

/// The module of `src/` that a file belongs to: `src/config/raw.rs` to `config`.
fn module(path: &str) -> &str {
    let rest = path.strip_prefix("src/").unwrap();
    rest.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules of `src/` that a file names: `crate::x`, also in a list, `crate::{x, y::z}`. Comments and the tests at
/// the end of a file do not count.
fn named(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod").next().unwrap();
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).flat_map(|l| [l, "\n"]).collect();
    let mut out = BTreeSet::new();
    for prefix in ["crate::", "seachange::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            if let Some(list) = rest.strip_prefix('{') {
                let (mut depth, mut word, mut fresh) = (1, String::new(), true);
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        c if depth == 1 && fresh && (c.is_alphanumeric() || c == '_') => {
                            word.push(c);
                            continue;
                        }
                        _ => {}
                    }
                    if !word.is_empty() {
                        out.insert(std::mem::take(&mut word));
                        fresh = false;
                    }
                    if depth == 1 && c == ',' {
                        fresh = true;
                    }
                    if depth == 0 {
                        break;
                    }
                }
            } else {
                out.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
        }
    }
    out
}

#[test]
fn reads_what_a_file_names() {
    let text = "use crate::{a::{b, c}, d, e::f};\n// crate::comment\nlet x = crate::g::h(); $crate::no; seachange::cli::main();\n\
                #[cfg(test)]\nmod tests { use crate::t; }";
    let want: BTreeSet<String> = ["a", "d", "e", "g", "no", "cli"].map(String::from).into();
    assert_eq!(named(text), want);
}

#[test]
fn layers() {
    let layer = |m: &str| LAYERS.iter().position(|l| l.contains(&m));
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (path, text) in files(&["src"]) {
        let own = module(&path);
        let Some(at) = layer(own) else {
            wrong.push(format!("{path}: the module {own} is in no layer of tests/architecture.rs"));
            continue;
        };
        for other in named(&text).into_iter().filter(|o| o != own) {
            match layer(&other) {
                Some(l) if l > at => wrong.push(format!("{path} knows {other}, which is a layer above it")),
                Some(_) => {
                    edges.entry(own.to_owned()).or_default().insert(other);
                }
                None => {}
            }
        }
    }
    // A module that can reach itself is in a cycle.
    for start in edges.keys() {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(m) = next.pop() {
            for o in edges.get(m).into_iter().flatten().filter(|o| seen.insert(o.as_str())) {
                next.push(o);
            }
        }
        if seen.contains(start.as_str()) {
            wrong.push(format!("{start} knows itself by a detour"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(edges["cli"].contains("config"), "nothing was read: {edges:?}");
}

/// A connector knows the contract and what connectors to databases share; the latter knows the contract.
#[test]
fn connectors_know_only_the_contract() {
    for entry in fs::read_dir(root().join("connectors")).unwrap() {
        let dir = entry.unwrap().path();
        let text = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
        let known = |l: &str| {
            l.starts_with("seachange-sdk ") || (l.starts_with("seachange-database ") && !dir.ends_with("database"))
        };
        let others: Vec<&str> = text.lines().filter(|l| l.starts_with("seachange") && !known(l)).collect();
        assert!(others.is_empty(), "{}: {others:?}", dir.display());
    }
}

#[test]
fn rooms() {
    let mut wrong = Vec::new();
    for (path, text) in files(&["src", "connectors", "tests", "benches"]) {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path} has {lines} lines; split it ({LINES_MAX} at most)"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not begin with //!, saying what it owns"));
        }
        if ["utils.rs", "util.rs", "helpers.rs", "/utils/", "/util/"].iter().any(|n| path.contains(n)) {
            wrong.push(format!("{path}: a room is named for what it owns"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
