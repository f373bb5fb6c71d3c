//! The file as written: TOML with the line of every key, and references to secrets put in place.
//!
//! A syntax error is told by its message and line alone; the line's text is never repeated, because it may hold a
//! password. After a syntax error nothing else is checked: what the rest means is not known.

use super::secret::{Outside, expand};
use seachange_sdk::Fault;
use std::collections::BTreeMap;
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

/// A parsed file.
#[derive(Default)]
pub struct Document {
    /// Its content, references replaced.
    pub table: Table,
    /// The line of every key, by path.
    pub lines: BTreeMap<String, usize>,
}

impl Document {
    /// The line of a path, or of the nearest table around it.
    pub fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// A key as it stands in a path: quoted when a bare one would be ambiguous.
pub fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// Parses a file. `Err` when it is not TOML.
pub fn parse(text: &str, outside: &dyn Outside, faults: &mut Vec<Fault>) -> Result<Document, Vec<(usize, Fault)>> {
    let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
    let line = |byte: usize| starts.partition_point(|s| *s <= byte);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors
            .iter()
            .map(|e| {
                let at = e.span().map_or(1, |s| line(s.start));
                // The first line of the message: what was expected. It names keys at most, never values.
                let what = e.message().lines().next().unwrap_or_default();
                (at, Fault::new("", format!("not TOML: {what}"), "mend the syntax; https://toml.io shows it"))
            })
            .collect());
    }
    let mut doc = Document::default();
    let mut walk = Walk { line: &line, outside, lines: &mut doc.lines, faults };
    doc.table = walk.table("", root.get_ref());
    Ok(doc)
}

struct Walk<'a> {
    line: &'a dyn Fn(usize) -> usize,
    outside: &'a dyn Outside,
    lines: &'a mut BTreeMap<String, usize>,
    faults: &'a mut Vec<Fault>,
}

impl Walk<'_> {
    fn table(&mut self, path: &str, table: &DeTable<'_>) -> Table {
        let mut out = Table::new();
        for (key, value) in table {
            let at = join(path, key.get_ref());
            self.lines.insert(at.clone(), (self.line)(key.span().start));
            if let Some(v) = self.value(&at, value) {
                out.insert(key.get_ref().to_string(), v);
            }
        }
        out
    }

    fn value(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        Some(match value.get_ref() {
            DeValue::String(s) => match expand(s, self.outside) {
                Ok(s) if s.contains('\0') => {
                    self.faults.push(Fault::new(path, "has a NUL character", "remove it: nothing here can hold one"));
                    Value::String(UNREADABLE.into())
                }
                Ok(s) => Value::String(s),
                Err(wrong) => {
                    self.faults.extend(wrong.into_iter().map(|(what, fix)| Fault::new(path, what, fix)));
                    // A stand-in keeps the other checks of this key's neighbours going: the key is there.
                    return Some(Value::String(UNREADABLE.into()));
                }
            },
            DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
                Ok(n) => Value::Integer(n),
                Err(_) => return self.refuse(path, "the number does not fit into 64 bits", "write a smaller number"),
            },
            DeValue::Float(f) => match f.as_str().parse() {
                Ok(n) => Value::Float(n),
                Err(_) => return self.refuse(path, "the number cannot be read", "write it like 0.5"),
            },
            DeValue::Boolean(b) => Value::Boolean(*b),
            DeValue::Datetime(d) => Value::Datetime(*d),
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .enumerate()
                    .filter_map(|(i, v)| {
                        let at = format!("{path}[{i}]");
                        self.lines.insert(at.clone(), (self.line)(v.span().start));
                        self.value(&at, v)
                    })
                    .collect(),
            ),
            DeValue::Table(t) => Value::Table(self.table(path, t)),
        })
    }

    fn refuse(&mut self, path: &str, what: &str, fix: &str) -> Option<Value> {
        self.faults.push(Fault::new(path, what, fix));
        None
    }
}

/// Stands for a value whose reference could not be resolved; the key's own fault has been reported, and no other is
/// reported about its value. It holds a NUL, which no value of a file does: nobody can write it.
pub const UNREADABLE: &str = "\u{0}unreadable";

#[cfg(test)]
mod tests {
    use super::super::secret::tests::Fixed;
    use super::*;

    #[test]
    fn lines_and_values() {
        let text = "# c\n[a]\nx = 1\ny = [\n 'p',\n 'q${env:V}']\n\n[a.'b.c']\nz = { k = 0x10, l = 1.5 }\n";
        let outside = Fixed([("V".to_owned(), "!".to_owned())].into(), BTreeMap::new());
        let doc = parse(text, &outside, &mut vec![]).ok().unwrap();
        assert_eq!(doc.table["a"]["y"][1].as_str(), Some("q!"));
        assert_eq!(doc.table["a"]["b.c"]["z"]["k"].as_integer(), Some(16));
        for (path, line) in [("a.x", 3), ("a.y[1]", 6), ("a.\"b.c\".z.l", 9), ("a.none", 2), ("a.y[1].deep", 6)] {
            assert_eq!(doc.line(path), Some(line), "{path}");
        }
        assert_eq!(doc.line("none"), None);
    }

    #[test]
    fn syntax_errors_do_not_repeat_the_line() {
        let Err(e) = parse("ok = 1\npassword = hunter2'\nurl = 'x\n", &Fixed::default(), &mut vec![]) else { panic!() };
        assert_eq!(e[0].0, 2);
        assert!(e.iter().all(|(_, f)| !f.to_string().contains("hunter2")), "{e:?}");
    }
}
