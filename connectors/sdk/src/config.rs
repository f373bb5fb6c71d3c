//! What a configuration's faults look like, and secrets that cannot be printed.

use std::fmt;

/// One thing wrong with a configuration. All are reported at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where: `pipeline.shop.source.url`.
    pub path: String,
    /// What is wrong. Never contains a secret.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Fault {
    /// A fault at a path.
    pub fn new(path: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Fault {
        Fault { path: path.into(), what: what.into(), fix: fix.into() }
    }
}
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.what, self.fix)
    }
}

/// A string that must not be seen: it has no `Display`, and its `Debug` says nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(s: impl Into<String>) -> Secret {
        Secret(s.into())
    }
    /// The secret itself: for the one place that hands it to the peer.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
