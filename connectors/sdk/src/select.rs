//! Which tables and columns a pipeline captures.
//!
//! Patterns are `schema.table` (or `schema.table.column`) with `*` for any run of characters other than a dot-separated
//! part's end and `?` for one. A part in double quotes is taken literally (`""` is a quote), so that names with dots,
//! stars or quotes can be said. Matching is exact in case: the database's own names are compared, not the SQL spelling.

use crate::config::Fault;

/// One part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Glob(Vec<char>),
}

impl Part {
    fn matches(&self, name: &str) -> bool {
        match self {
            Part::Literal(s) => s == name,
            Part::Glob(p) => glob(p, &name.chars().collect::<Vec<_>>()),
        }
    }
}

/// Iterative `*`/`?` matching: linear space, no recursion on hostile patterns.
fn glob(p: &[char], s: &[char]) -> bool {
    let (mut i, mut j, mut star, mut mark) = (0, 0, None, 0);
    while j < s.len() {
        if i < p.len() && (p[i] == '?' || (p[i] != '*' && p[i] == s[j])) {
            i += 1;
            j += 1;
        } else if i < p.len() && p[i] == '*' {
            star = Some(i);
            mark = j;
            i += 1;
        } else if let Some(k) = star {
            i = k + 1;
            mark += 1;
            j = mark;
        } else {
            return false;
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

/// A pattern of a fixed number of parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

impl Pattern {
    /// Parses a pattern of exactly `parts` dot-separated parts.
    pub fn parse(text: &str, parts: usize) -> Result<Pattern, String> {
        let mut out = Vec::new();
        let mut chars = text.chars().peekable();
        loop {
            if chars.peek() == Some(&'"') {
                chars.next();
                let mut lit = String::new();
                loop {
                    match chars.next() {
                        Some('"') if chars.peek() == Some(&'"') => {
                            chars.next();
                            lit.push('"');
                        }
                        Some('"') => break,
                        Some(c) => lit.push(c),
                        None => return Err("has a quote that does not end".into()),
                    }
                }
                out.push(Part::Literal(lit));
            } else {
                let mut part = Vec::new();
                while let Some(c) = chars.next_if(|c| *c != '.') {
                    part.push(c);
                }
                if part.is_empty() {
                    return Err("has an empty part".into());
                }
                out.push(if part.iter().any(|c| matches!(c, '*' | '?')) {
                    Part::Glob(part)
                } else {
                    Part::Literal(part.into_iter().collect())
                });
            }
            match chars.next() {
                None => break,
                Some('.') => {}
                Some(c) => return Err(format!("has {c:?} after a quoted part")),
            }
        }
        if out.len() != parts {
            return Err(format!("has {} parts, not {parts}", out.len()));
        }
        Ok(Pattern { text: text.to_owned(), parts: out })
    }
    /// Does it match these names?
    pub fn matches(&self, names: &[&str]) -> bool {
        self.parts.len() == names.len() && self.parts.iter().zip(names).all(|(p, n)| p.matches(n))
    }
    /// Can it match anything whose first name is this?
    pub fn matches_first(&self, name: &str) -> bool {
        self.parts.first().is_some_and(|p| p.matches(name))
    }
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// Does it name exactly one thing (no wildcard)?
    pub fn is_literal(&self) -> bool {
        self.parts.iter().all(|p| matches!(p, Part::Literal(_)))
    }
}

/// The captured tables and columns of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A table is captured if one of these matches...
    pub include: Vec<Pattern>,
    /// ...and none of these does.
    pub exclude: Vec<Pattern>,
    /// Columns left out of the rows, `schema.table.column`.
    pub columns_exclude: Vec<Pattern>,
}

impl Selection {
    /// Parses the three lists, collecting every fault. `path` is the source's own (`pipeline.shop.source`).
    pub fn parse(
        path: &str,
        tables: &[String],
        exclude: &[String],
        columns_exclude: &[String],
        faults: &mut Vec<Fault>,
    ) -> Selection {
        let mut list = |key: &str, items: &[String], parts: usize, shape: &str| {
            let mut out = Vec::new();
            for (i, text) in items.iter().enumerate() {
                match Pattern::parse(text, parts) {
                    Ok(p) => out.push(p),
                    Err(e) => faults.push(Fault::new(
                        format!("{path}.{key}[{i}]"),
                        format!("the pattern {text:?} {e}"),
                        format!("write {shape}, with * for any name, and quotes around a part that has a dot in it"),
                    )),
                }
            }
            out
        };
        Selection {
            include: list("tables", tables, 2, "schema.table"),
            exclude: list("exclude", exclude, 2, "schema.table"),
            columns_exclude: list("columns.exclude", columns_exclude, 3, "schema.table.column"),
        }
    }
    /// Is this table captured?
    pub fn table(&self, schema: &str, table: &str) -> bool {
        let names = [schema, table];
        self.include.iter().any(|p| p.matches(&names)) && !self.exclude.iter().any(|p| p.matches(&names))
    }
    /// Can any table of this schema be captured?
    pub fn schema(&self, schema: &str) -> bool {
        self.include.iter().any(|p| p.matches_first(schema))
    }
    /// Is this column of a captured table captured?
    pub fn column(&self, schema: &str, table: &str, column: &str) -> bool {
        !self.columns_exclude.iter().any(|p| p.matches(&[schema, table, column]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn patterns() {
        let m = |p: &str, a: &str, b: &str| Pattern::parse(p, 2).unwrap().matches(&[a, b]);
        assert!(m("public.*", "public", "orders") && m("*.*", "a", "") && m("p?b.ord*s", "pub", "orders"));
        assert!(!m("public.*", "Public", "orders") && !m("public.ord", "public", "orders"));
        assert!(m(r#"types."Odd ""Name.s""#, "types", "Odd \"Name.s") && m(r#""a.b"."*""#, "a.b", "*"));
        assert!(!m(r#""a.b"."*""#, "a.b", "x"));
        for bad in ["", "a", "a.", ".a", "a.b.c", "\"a.b", "\"a\"b.c"] {
            assert!(Pattern::parse(bad, 2).is_err(), "{bad}");
        }
    }
    #[test]
    fn hostile_glob_is_quick() {
        let p = Pattern::parse(&format!("{}b.x", "a*".repeat(40)), 2).unwrap();
        assert!(!p.matches(&[&"a".repeat(2000), "x"]));
    }
    #[test]
    fn selection_reports_every_fault() {
        let mut faults = vec![];
        let s = Selection::parse(
            "pipeline.p.source",
            &["public.*".into(), "x".into()],
            &["public.tmp_*".into()],
            &["public.users.password".into(), "a.b".into()],
            &mut faults,
        );
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(s.table("public", "a") && !s.table("public", "tmp_1") && !s.table("other", "a"));
        assert!(s.schema("public") && !s.schema("other"));
        assert!(!s.column("public", "users", "password") && s.column("public", "users", "id"));
    }
}
