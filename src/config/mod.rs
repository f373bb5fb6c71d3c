//! The configuration: raw as written, resolved as meant.
//!
//! A file goes through three steps, and each notes every fault it finds before the next begins its work: `raw` parses it
//! and puts secrets in place, `read` holds it against the table of `options`, `resolve` makes what is meant of it and asks
//! the connectors about their part. A [`Config`] comes out only if none noted a fault, so nothing above this layer ever
//! sees a half-right one. This layer does no I/O but reading the file and what its references name.

mod keys;
pub mod options;
mod raw;
mod read;
pub mod reference;
mod resolve;
pub mod resolved;
mod secret;
mod units;

pub use resolved::Config;

use seachange_sdk::{Connector, Fault, Secret};
use std::{collections::BTreeMap, fmt, path::Path};

/// What this layer has to ask others about.
pub struct Registry<'a> {
    /// The connectors of this build.
    pub connectors: &'a [&'a dyn Connector],
    /// Which of these librdkafka properties may not be set, or not so (paths from `kafka.properties`).
    pub properties: &'a dyn Fn(&BTreeMap<String, Secret>) -> Vec<Fault>,
}

/// Everything that is wrong with a file.
#[derive(Debug, Clone)]
pub struct Faults {
    /// The file's name.
    pub file: String,
    /// The faults, with their lines where they have one, in the file's order.
    pub faults: Vec<(Option<usize>, Fault)>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.faults.len();
        writeln!(f, "{}: {n} fault{}", self.file, if n == 1 { "" } else { "s" })?;
        for (line, fault) in &self.faults {
            let line = line.map_or(String::new(), |l| format!("line {l}: "));
            let path = if fault.path.is_empty() { String::new() } else { format!("{}: ", fault.path) };
            writeln!(f, "  {line}{path}{}", fault.what)?;
            writeln!(f, "      -> {}", fault.fix)?;
        }
        Ok(())
    }
}
impl std::error::Error for Faults {}

/// Reads a file.
pub fn load(path: &Path, registry: &Registry<'_>) -> Result<Config, Faults> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&file, &text, registry, &secret::Process),
        Err(e) => {
            let fix = "name a readable file with --config; `seachange init URL` writes a first one";
            Err(Faults { file, faults: vec![(None, Fault::new("", format!("cannot be read: {e}"), fix))] })
        }
    }
}

/// Reads a text as [`load`] reads a file, but for what its references name: there is nothing outside it, so every
/// reference is a fault.
#[doc(hidden)]
pub fn parse_apart(file: &str, text: &str, registry: &Registry<'_>) -> Result<Config, Faults> {
    parse(file, text, registry, &secret::Nothing)
}

fn parse(file: &str, text: &str, registry: &Registry<'_>, outside: &dyn secret::Outside) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let doc = raw::parse(text, outside, &mut faults).map_err(|e| Faults {
        file: file.to_owned(),
        faults: e.into_iter().map(|(line, fault)| (Some(line), fault)).collect(),
    })?;
    let values = read::read(&doc, &mut faults);
    let config = resolve::resolve(&values, &doc, registry, &mut faults);
    if faults.is_empty() {
        return Ok(config);
    }
    let mut faults: Vec<_> = faults.into_iter().map(|f| (doc.line(&f.path), f)).collect();
    faults.sort_by(|a, b| (a.0.unwrap_or(usize::MAX), &a.1.path).cmp(&(b.0.unwrap_or(usize::MAX), &b.1.path)));
    faults.dedup();
    Err(Faults { file: file.to_owned(), faults })
}

#[cfg(test)]
mod tests;
