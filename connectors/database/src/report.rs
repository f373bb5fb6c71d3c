//! The outcomes of the preflight, as they are found.

use seachange_sdk::{Check, Error, Outcome};

/// Collects outcomes.
#[derive(Debug, Default)]
pub struct Report(pub Vec<Check>);

impl Report {
    fn add(&mut self, name: impl Into<String>, outcome: Outcome) {
        self.0.push(Check { name: name.into(), outcome });
    }
    /// All is well.
    pub fn pass(&mut self, name: impl Into<String>, found: impl Into<String>) {
        self.add(name, Outcome::Pass(found.into()));
    }
    /// A surprise.
    pub fn warn(&mut self, name: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) {
        self.add(name, Outcome::Warn(what.into(), fix.into()));
    }
    /// What stops the pipeline.
    pub fn fail(&mut self, name: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) {
        self.add(name, Outcome::Fail(what.into(), fix.into()));
    }
    /// What could not be looked at.
    pub fn error(&mut self, name: impl Into<String>, e: &Error) {
        self.fail(name, e.to_string(), e.remedy().unwrap_or("see the message").to_owned());
    }
}
