//! Topic names: the template, and the cleaning that makes any table's name a legal topic, as Debezium does it.

use seachange_sdk::{Error, Kind, Result, Retry, Side, TableId};

/// Kafka's longest topic name.
const LONGEST: usize = 249;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Pipeline,
    Database,
    Schema,
    Table,
}

/// A topic name with `{pipeline}`, `{database}`, `{schema}` and `{table}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Reads a template. `{{` and `}}` are not needed: braces are not legal in a topic's name.
    pub fn parse(text: &str) -> Result<Template> {
        let fault = |what: String| {
            Error::new(Kind::Config, Side::Own, Retry::Never, format!("topic name {text:?}: {what}"))
                .fix("a topic name may hold {pipeline}, {database}, {schema} and {table}")
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (name, tail) = after.split_once('}').ok_or_else(|| fault("a { without its }".into()))?;
            parts.push(match name {
                "pipeline" => Part::Pipeline,
                "database" => Part::Database,
                "schema" => Part::Schema,
                "table" => Part::Table,
                _ => return Err(fault(format!("{{{name}}} means nothing"))),
            });
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err(fault("it is empty".into()));
        }
        Ok(Template(parts))
    }

    /// The topic for a table. Where the database has no schemas, `{schema}` is the database.
    pub fn name(&self, pipeline: &str, id: &TableId) -> String {
        let schema = if id.schema.is_empty() { &id.database } else { &id.schema };
        let name: String = self
            .0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Pipeline => pipeline,
                Part::Database => &id.database,
                Part::Schema => schema,
                Part::Table => &id.name,
            })
            .collect();
        cleaned(&name)
    }
}

/// Makes a name legal for Kafka: what is not an ASCII letter or digit, `.`, `_` or `-` becomes `_` (one for each UTF-16 unit,
/// as Debezium counts), at most 249 characters, not `.` or `..`.
pub fn cleaned(name: &str) -> String {
    let mut clean = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            clean.push(c);
        } else {
            (0..c.len_utf16()).for_each(|_| clean.push('_'));
        }
    }
    clean.truncate(LONGEST); // ASCII by now
    match clean.as_str() {
        "." => "_".into(),
        ".." => "__".into(),
        _ => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(schema: &str, name: &str) -> TableId {
        TableId { database: "lab".into(), schema: schema.into(), name: name.into() }
    }

    #[test]
    fn names() {
        let t = Template::parse("{pipeline}.{schema}.{table}").unwrap();
        assert_eq!(t.name("dbz", &id("types", "Odd \"Name.s")), "dbz.types.Odd__Name.s");
        assert_eq!(t.name("p", &id("", "t")), "p.lab.t");
        assert_eq!(t.name("p", &id("s", "é😀")), "p.s.___");
        assert_eq!(Template::parse("all-{database}").unwrap().name("p", &id("s", "t")), "all-lab");
        assert_eq!(cleaned(".."), "__");
        assert_eq!(cleaned(&"x".repeat(300)).len(), 249);
    }

    #[test]
    fn faults() {
        for text in ["", "{pipe}", "a{table", "{}"] {
            let e = Template::parse(text).unwrap_err();
            assert!(e.kind() == Kind::Config && e.remedy().is_some(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn always_legal(name in ".{1,300}") {
            let clean = cleaned(&name);
            prop_assert!(!clean.is_empty() && clean.len() <= 249 && clean != "." && clean != "..");
            prop_assert!(clean.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
        }
    }
}
