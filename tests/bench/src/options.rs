//! The command line: `--name value` and `--flag`. What nobody asks for is refused.

use crate::case::Kind;
use std::{collections::HashMap, str::FromStr};

/// Ends the program with what is wrong with its command line.
pub fn refuse(what: &str) -> ! {
    eprintln!("seachange-bench: {what}");
    std::process::exit(2);
}

/// Options that have not been asked for yet.
pub struct Options(HashMap<String, String>);

impl Options {
    pub fn of(args: &[String]) -> Options {
        let mut given = HashMap::new();
        let mut args = args.iter().peekable();
        while let Some(arg) = args.next() {
            let Some(name) = arg.strip_prefix("--") else { refuse(&format!("{arg}: --name value expected")) };
            let value = args.next_if(|v| !v.starts_with("--")).cloned().unwrap_or_default();
            given.insert(name.to_owned(), value);
        }
        Options(given)
    }

    fn parsed<T: FromStr>(&mut self, name: &str, default: T) -> T {
        match self.0.remove(name) {
            None => default,
            Some(v) => {
                v.replace('_', "").parse().unwrap_or_else(|_| refuse(&format!("--{name} {v:?}: a number expected")))
            }
        }
    }
    pub fn number(&mut self, name: &str, default: u64) -> u64 {
        self.parsed(name, default)
    }
    pub fn factor(&mut self, name: &str, default: f64) -> f64 {
        self.parsed(name, default)
    }
    pub fn flag(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }
    pub fn given(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }
    pub fn text(&mut self, name: &str, default: &str) -> String {
        self.0.remove(name).unwrap_or_else(|| default.to_owned())
    }
    /// `--db`, PostgreSQL when it is not given.
    pub fn kind(&mut self) -> Kind {
        let name = self.text("db", "postgres");
        Kind::named(&name).unwrap_or_else(|| refuse(&format!("--db {name}: postgres, mysql or mariadb")))
    }
    /// All has been asked for.
    pub fn end(self) {
        if let Some(name) = self.0.into_keys().next() {
            refuse(&format!("--{name} is not known here"));
        }
    }
}
