//! Errors that know where they were born, whether to try again, and what the operator can do.
//!
//! An [`Error`] is one pointer wide. `retry` is decided where the error is born, because only there it is known what
//! failed; nobody guesses it later from a text.

use std::fmt;

/// What kind of thing went wrong: the label of `seachange_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Could not connect, or the connection broke.
    Connect,
    /// Not let in, or not allowed to.
    Auth,
    /// The peer said something that its protocol does not allow, or that we do not understand.
    Protocol,
    /// A table's shape cannot be followed.
    Schema,
    /// A value cannot be represented.
    Value,
    /// A configured bound was met.
    Limit,
    /// The configuration is wrong.
    Config,
    /// Another owner has taken over.
    Fenced,
    /// The log no longer holds what must come next: changes would be lost.
    Gap,
    /// Stored state is missing, damaged or from a newer version.
    State,
    /// The sink refused.
    Sink,
    /// A fault of Seachange itself.
    Bug,
}

impl Kind {
    /// Lower-case name: metric label and log field.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Connect => "connect",
            Kind::Auth => "auth",
            Kind::Protocol => "protocol",
            Kind::Schema => "schema",
            Kind::Value => "value",
            Kind::Limit => "limit",
            Kind::Config => "config",
            Kind::Fenced => "fenced",
            Kind::Gap => "gap",
            Kind::State => "state",
            Kind::Sink => "sink",
            Kind::Bug => "bug",
        }
    }
}

/// On which side it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The database.
    Source,
    /// Kafka, or the file.
    Sink,
    /// Seachange itself.
    Own,
}

impl Side {
    /// Lower-case name: metric label and log field.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Sink => "sink",
            Side::Own => "self",
        }
    }
}

/// Whether the pipeline may start again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Start again after a growing delay: the cause is expected to pass.
    Backoff,
    /// An operator has to do something. The pipeline looks again now and then (slowly), so that no restart is needed.
    Operator,
    /// Going on would lose or invent data: stay failed until the process is started again.
    Never,
}

struct Inner {
    kind: Kind,
    side: Side,
    retry: Retry,
    what: String,
    fix: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The error of every contract in this crate.
pub struct Error(Box<Inner>);

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, on a side, saying what happened and where. `what` must hold no secret and no row value.
    pub fn new(kind: Kind, side: Side, retry: Retry, what: impl Into<String>) -> Error {
        Error(Box::new(Inner { kind, side, retry, what: what.into(), fix: None, source: None }))
    }
    /// The database: try again.
    pub fn source(kind: Kind, what: impl Into<String>) -> Error {
        Error::new(kind, Side::Source, Retry::Backoff, what)
    }
    /// The sink: try again.
    pub fn sink(kind: Kind, what: impl Into<String>) -> Error {
        Error::new(kind, Side::Sink, Retry::Backoff, what)
    }
    /// A fault of Seachange itself. Never retried.
    pub fn bug(what: impl Into<String>) -> Error {
        Error::new(Kind::Bug, Side::Own, Retry::Never, what)
            .fix("this is a fault of Seachange: please report it with the log around it")
    }
    /// A value that a decoder cannot read: stops the pipeline until an operator looks at it.
    pub fn value(what: impl Into<String>) -> Error {
        Error::new(Kind::Value, Side::Source, Retry::Operator, what)
    }
    /// Says how to mend it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Error {
        self.0.fix = Some(fix.into());
        self
    }
    /// Changes whether to try again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Error {
        self.0.retry = retry;
        self
    }
    /// Keeps the cause.
    #[must_use]
    pub fn cause(mut self, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.0.source = Some(e.into());
        self
    }
    /// Puts the place before what happened: "table public.orders: ...".
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Error {
        self.0.what = format!("{place}: {}", self.0.what);
        self
    }
    /// What kind it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    /// On which side it happened.
    pub fn side(&self) -> Side {
        self.0.side
    }
    /// Whether to try again.
    pub fn retryable(&self) -> Retry {
        self.0.retry
    }
    /// What happened, without the cause.
    pub fn what(&self) -> &str {
        &self.0.what
    }
    /// How to mend it, if that is known.
    pub fn remedy(&self) -> Option<&str> {
        self.0.fix.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        let mut cause = self.0.source.as_ref().map(|e| &**e as &dyn std::error::Error);
        let mut last = String::new();
        while let Some(e) = cause {
            let text = e.to_string();
            if text != last && !self.0.what.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = e.source();
        }
        Ok(())
    }
}
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = &self.0;
        write!(f, "{:?}/{:?}/{:?}: {self}", i.kind, i.side, i.retry)?;
        i.fix.as_ref().map_or(Ok(()), |x| write!(f, " (fix: {x})"))
    }
}
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| &**e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn one_pointer_wide_and_says_all() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let e = Error::source(Kind::Gap, "slot \"s\" is gone").fix("make it again").at("pipeline shop").cause("inner");
        assert_eq!(e.to_string(), "pipeline shop: slot \"s\" is gone: inner");
        assert_eq!((e.kind(), e.retryable(), e.remedy()), (Kind::Gap, Retry::Backoff, Some("make it again")));
    }
}
