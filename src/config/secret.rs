//! `${env:NAME}` and `${file:/path}` in string values.
//!
//! A value is read once, at start. `$${` stands for `${` itself. What was read never stands in a fault: faults name the
//! variable or the file, which are no secrets.

use std::path::Path;

/// What the outside world offers: replaced in tests.
pub trait Outside {
    /// An environment variable: `None` when it is not set, `Some(Err)` when it is not UTF-8.
    fn env(&self, name: &str) -> Option<Result<String, String>>;
    /// A file's text.
    fn file(&self, path: &Path) -> Result<String, String>;
}

/// The process's own environment and files.
pub struct Process;

impl Outside for Process {
    fn env(&self, name: &str) -> Option<Result<String, String>> {
        match std::env::var(name) {
            Ok(v) => Some(Ok(v)),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => Some(Err("is not UTF-8".into())),
        }
    }
    fn file(&self, path: &Path) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|e| e.to_string())
    }
}

/// No outside at all.
pub struct Nothing;

impl Outside for Nothing {
    fn env(&self, _: &str) -> Option<Result<String, String>> {
        None
    }
    fn file(&self, _: &Path) -> Result<String, String> {
        Err("files are not read here".into())
    }
}

/// Replaces every reference. `Err` holds what is wrong and what to do, for each reference that is wrong.
pub fn expand(text: &str, outside: &dyn Outside) -> Result<String, Vec<(String, String)>> {
    let mut out = String::with_capacity(text.len());
    let mut wrong = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let body = &rest[at + 2..];
        let Some(end) = body.find('}') else {
            wrong.push((
                "a reference ${ does not end".into(),
                "close it with }, or write $${ for the two characters themselves".into(),
            ));
            rest = "";
            break;
        };
        match lookup(&body[..end], outside) {
            Ok(value) => out.push_str(&value),
            Err(e) => wrong.push(e),
        }
        rest = &body[end + 1..];
    }
    out.push_str(rest);
    if wrong.is_empty() { Ok(out) } else { Err(wrong) }
}

fn lookup(reference: &str, outside: &dyn Outside) -> Result<String, (String, String)> {
    if let Some(name) = reference.strip_prefix("env:") {
        return match outside.env(name) {
            Some(Ok(value)) => Ok(value),
            Some(Err(e)) => Err((format!("the environment variable {name} {e}"), "set it to UTF-8 text".into())),
            None => Err((
                format!("the environment variable {name} is not set"),
                format!("set {name} where seachange is started"),
            )),
        };
    }
    if let Some(path) = reference.strip_prefix("file:") {
        if !Path::new(path).is_absolute() {
            return Err((
                format!("the file path {path:?} is not absolute"),
                "write it from the root: ${file:/run/secrets/name}".into(),
            ));
        }
        return match outside.file(Path::new(path)) {
            // One line end, as `echo secret > file` leaves it: more would be part of the secret.
            Ok(mut text) => {
                if text.ends_with('\n') {
                    text.pop();
                    if text.ends_with('\r') {
                        text.pop();
                    }
                }
                Ok(text)
            }
            Err(e) => Err((
                format!("the file {path} cannot be read: {e}"),
                "make it readable for the account that runs seachange".into(),
            )),
        };
    }
    // What stands between the braces may be anything, also a secret written in the wrong place: it is not repeated.
    Err((
        "a reference ${...} names neither env: nor file:".into(),
        "write ${env:NAME} or ${file:/path}, or $${ for the two characters themselves".into(),
    ))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// An outside with these variables and files.
    #[derive(Default)]
    pub struct Fixed(pub BTreeMap<String, String>, pub BTreeMap<String, String>);
    impl Outside for Fixed {
        fn env(&self, name: &str) -> Option<Result<String, String>> {
            self.0.get(name).cloned().map(Ok)
        }
        fn file(&self, path: &Path) -> Result<String, String> {
            self.1.get(path.to_str().unwrap()).cloned().ok_or("no such file".into())
        }
    }

    #[test]
    fn expands() {
        let o = Fixed(
            [("A".to_owned(), "1${env:A}".to_owned())].into(),
            [("/f".to_owned(), "two\n".to_owned()), ("/g".to_owned(), "x\n\n".to_owned())].into(),
        );
        for (text, want) in [
            ("", ""),
            ("plain $ {x}", "plain $ {x}"),
            // What was read is not read again.
            ("${env:A}", "1${env:A}"),
            ("a${env:A}b${file:/f}c", "a1${env:A}btwoc"),
            ("${file:/g}", "x\n"),
            ("$${env:A}", "${env:A}"),
            ("$$${env:A}", "$${env:A}"),
            ("ü${file:/f}ß", "ütwoß"),
        ] {
            assert_eq!(expand(text, &o).as_deref(), Ok(want), "{text}");
        }
        for (text, count, names) in [
            ("${env:B} ${file:/none}", 2, "B"),
            ("${env:A", 1, "does not end"),
            ("${A}", 1, "neither"),
            ("${file:rel}", 1, "absolute"),
        ] {
            let e = expand(text, &o).unwrap_err();
            assert_eq!(e.len(), count, "{text}");
            assert!(e[0].0.contains(names), "{e:?}");
        }
    }
}
