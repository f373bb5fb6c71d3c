//! The columns that tables had, as of the place in the log where the stream is.
//!
//! Below `binlog_row_metadata = FULL` the log does not name columns, and the catalog knows only the present. So every captured
//! table's columns are kept here from the stream's beginning on, changed by every statement that the stream passes, and stored
//! with the position, in one transaction: after a restart the log is read under the columns that it was written under.
//!
//! A statement's text says which columns it adds, drops, renames and moves, but not reliably what a column *is* (types,
//! character sets and their defaults are the server's business). So a [`Draft`] gives every column a number that stands for its
//! definition, and statements move numbers about; a column that is defined anew gets a new number. Where all numbers are
//! known already (a rename, a dropped column, CREATE ... LIKE) the text alone is enough. For the others the catalog is asked,
//! and every statement up to the log's end is applied to a copy of the draft: if that gives the catalog's columns by name and in
//! order, a number that is still there at the end has the definition that the catalog gives. A number that is gone by then (a
//! column that was added and dropped or defined anew before anybody looked) cannot be known, and is never guessed.

use crate::{
    charset::Charset,
    columns::{CatalogColumn, CatalogTable},
    position::{Read, put, unreadable},
    statement::{
        Named,
        alter::{Clause, Like, Place, What},
    },
};
use bytes::Bytes;
use seachange_sdk::{Keep, Kept, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Keys of what is kept begin so.
const KEY: &str = "schema/";
const VERSION: u8 = 1;

/// Database and table, as names are compared on the server.
pub type Name = (String, String);

/// How the server compares names of databases and tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folding(pub bool);

impl Folding {
    /// A name as it is compared.
    pub fn name(self, name: &str) -> String {
        if self.0 { name.to_lowercase() } else { name.to_owned() }
    }
    /// Both names of a table.
    pub fn table(self, database: &str, table: &str) -> Name {
        (self.name(database), self.name(table))
    }
    /// The table that a statement names.
    pub fn named(self, named: &Named, database: &str) -> Name {
        self.table(named.database.as_deref().unwrap_or(database), &named.table)
    }
}

/// The columns of all tables whose columns are known.
#[derive(Debug, Default)]
pub struct History {
    folding: Folding,
    tables: BTreeMap<Name, Bytes>,
    changed: BTreeSet<Name>,
}

/// What a statement makes of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The table.
    pub name: Name,
    /// Its columns after the statement; `None`: there is no such table then.
    pub draft: Option<Draft>,
}

impl History {
    /// From what was kept.
    pub fn load(folding: Folding, kept: &Kept) -> Result<History> {
        let mut history = History { folding, ..History::default() };
        for (key, value) in kept {
            if !key.starts_with(KEY) {
                return Err(unreadable(&format!("the entry {key} is not one that this program knows")));
            }
            let (name, _) = decode(value).map_err(|e| e.at(format_args!("kept entry {key}")))?;
            history.tables.insert(folding.table(&name.0, &name.1), value.clone());
        }
        Ok(history)
    }
    /// How names are compared.
    pub fn folding(&self) -> Folding {
        self.folding
    }
    /// A table's columns, if they are known.
    pub fn get(&self, database: &str, table: &str) -> Result<Option<CatalogTable>> {
        self.by_name(&self.folding.table(database, table))
    }
    fn by_name(&self, name: &Name) -> Result<Option<CatalogTable>> {
        self.tables.get(name).map(|b| decode(b).map(|d| d.1)).transpose()
    }
    /// A table's columns are these now; `None`: not known.
    pub fn set(&mut self, name: Name, table: Option<&CatalogTable>) {
        let changed = match table {
            Some(t) => {
                let bytes = encode(&name, t);
                self.tables.insert(name.clone(), bytes.clone()) != Some(bytes)
            }
            None => self.tables.remove(&name).is_some(),
        };
        if changed {
            self.changed.insert(name);
        }
    }
    /// No table of this database is left; gives those that were known.
    pub fn drop_database(&mut self, database: &str) -> Vec<Name> {
        let database = self.folding.name(database);
        let names: Vec<Name> = self.tables.keys().filter(|n| n.0 == database).cloned().collect();
        names.iter().for_each(|n| self.set(n.clone(), None));
        names
    }
    /// Nothing is known any more.
    pub fn forget(&mut self) {
        let names: Vec<Name> = self.tables.keys().cloned().collect();
        names.into_iter().for_each(|n| self.set(n, None));
    }
    /// What has changed since this was last asked.
    pub fn take_changes(&mut self) -> Vec<Keep> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|name| (key(&name), self.tables.get(&name).cloned())).collect()
    }

    /// A table while a statement is being applied.
    fn now(&self, done: &[Effect], name: &Name) -> Result<Option<Draft>> {
        match done.iter().find(|e| e.name == *name) {
            Some(e) => Ok(e.draft.clone()),
            None => Ok(self.by_name(name)?.as_ref().map(Draft::of)),
        }
    }

    /// What a statement makes of tables that are known, or that `wanted` wants to be.
    pub fn effects(
        &self,
        changes: &[(Named, What)],
        database: &str,
        wanted: impl Fn(&Name) -> bool,
    ) -> Result<Vec<Effect>> {
        let mut out: Vec<Effect> = Vec::new();
        for (named, what) in changes {
            let name = self.folding.named(named, database);
            let old = self.now(&out, &name)?;
            match what {
                What::Created { if_missing: true, .. } if old.is_some() => {}
                What::Created { like, .. } => {
                    let draft = match like {
                        Like::Columns(clauses) => Draft::created(clauses),
                        Like::Unknown => Draft::unknown(),
                        Like::Table(from) => {
                            let from = self.folding.named(from, database);
                            self.now(&out, &from)?.unwrap_or_else(Draft::unknown)
                        }
                    };
                    lay(&mut out, name, Some(draft));
                }
                What::Altered(clauses) => {
                    let mut draft = old.unwrap_or_else(Draft::unknown);
                    draft.apply(clauses);
                    lay(&mut out, name, Some(draft));
                }
                What::Renamed(to) => {
                    let to = self.folding.named(to, database);
                    lay(&mut out, name, None);
                    lay(&mut out, to, Some(old.unwrap_or_else(Draft::unknown)));
                }
                What::Dropped => lay(&mut out, name, None),
                What::Unknown => lay(&mut out, name, Some(Draft::unknown())),
            }
        }
        out.retain(|e| self.tables.contains_key(&e.name) || wanted(&e.name) || known_in_part(e));
        Ok(out)
    }
}

fn lay(out: &mut Vec<Effect>, name: Name, draft: Option<Draft>) {
    match out.iter_mut().find(|e| e.name == name) {
        Some(e) => e.draft = draft,
        None => out.push(Effect { name, draft }),
    }
}

/// Has a statement made a table out of one that is known? Then it may get a captured name later.
fn known_in_part(e: &Effect) -> bool {
    e.draft.as_ref().is_some_and(|d| !d.known.is_empty())
}

fn key(name: &Name) -> String {
    let plain = |s: &str| s.replace('%', "%25").replace('/', "%2F");
    format!("{KEY}{}/{}", plain(&name.0), plain(&name.1))
}

fn encode(name: &Name, t: &CatalogTable) -> Bytes {
    let mut out = vec![VERSION];
    put(&mut out, &name.0);
    put(&mut out, &name.1);
    out.extend((t.columns.len() as u32).to_le_bytes());
    for c in &t.columns {
        put(&mut out, &c.name);
        put(&mut out, &c.data_type);
        put(&mut out, &c.column_type);
        put(&mut out, c.charset.map_or("", Charset::name));
        put(&mut out, &c.extra);
        out.extend(c.octets.to_le_bytes());
        out.extend([c.decimal.0, c.decimal.1, c.digits, u8::from(c.nullable) | u8::from(c.json) << 1]);
    }
    out.extend((t.key.len() as u32).to_le_bytes());
    t.key.iter().for_each(|k| out.extend((*k as u32).to_le_bytes()));
    out.into()
}

fn decode(bytes: &[u8]) -> Result<(Name, CatalogTable)> {
    let mut r = Read::new(bytes);
    let version = r.byte()?;
    if version != VERSION {
        return Err(unreadable(&format!("its version is {version}, this program knows {VERSION}")));
    }
    let name = (r.text()?, r.text()?);
    let mut t = CatalogTable::default();
    for _ in 0..r.small()? {
        let mut c = CatalogColumn {
            name: r.text()?,
            data_type: r.text()?,
            column_type: r.text()?,
            charset: Charset::named(&r.text()?),
            extra: r.text()?,
            octets: r.number()?,
            decimal: (r.byte()?, r.byte()?),
            digits: r.byte()?,
            ..CatalogColumn::default()
        };
        let flags = r.byte()?;
        c.nullable = flags & 1 != 0;
        c.json = flags & 2 != 0;
        t.columns.push(c);
    }
    for _ in 0..r.small()? {
        let k = r.small()? as usize;
        if k >= t.columns.len() {
            return Err(unreadable("a key over a column that is not there"));
        }
        t.key.push(k);
    }
    r.end()?;
    Ok((name, t))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Numbered {
    name: String,
    /// Stands for the definition.
    number: u32,
}

/// A table's columns, some of whose definitions may not be known yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// `None`: it is not even known which columns there are.
    columns: Option<Vec<Numbered>>,
    /// Numbers of the primary key's columns.
    key: Vec<u32>,
    next: u32,
    known: BTreeMap<u32, CatalogColumn>,
}

fn same(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

impl Draft {
    /// Of which nothing is known.
    pub fn unknown() -> Draft {
        Draft::default()
    }
    /// Of which all is known.
    pub fn of(t: &CatalogTable) -> Draft {
        let numbers = 0..t.columns.len() as u32;
        Draft {
            columns: Some(
                numbers.clone().zip(&t.columns).map(|(number, c)| Numbered { name: c.name.clone(), number }).collect(),
            ),
            key: t.key.iter().map(|k| *k as u32).collect(),
            next: numbers.end,
            known: numbers.zip(t.columns.iter().cloned()).collect(),
        }
    }
    /// Of a table that was just made.
    pub fn created(clauses: &[Clause]) -> Draft {
        let mut draft = Draft { columns: Some(Vec::new()), ..Draft::default() };
        draft.apply(clauses);
        draft
    }
    /// A statement's clauses have changed it. What cannot have been done to it as far as it is known makes it unknown.
    pub fn apply(&mut self, clauses: &[Clause]) {
        if self.columns.is_some() && self.applied(clauses).is_none() {
            *self = Draft { next: self.next, ..Draft::unknown() };
        }
    }

    fn applied(&mut self, clauses: &[Clause]) -> Option<()> {
        let old = self.columns.take()?;
        let has = |name: &str| old.iter().any(|c| same(&c.name, name));
        let mut next = self.next;
        let mut fresh = || {
            next += 1;
            next - 1
        };
        let mut columns = Vec::with_capacity(old.len() + clauses.len());
        let mut moved = Vec::new();
        let mut renumbered: BTreeMap<u32, Option<u32>> = BTreeMap::new();
        for c in clauses {
            let (name, lenient) = match c {
                Clause::Drop { name, lenient } => (name, lenient),
                Clause::Rename { from, lenient, .. } | Clause::Define { from, lenient, .. } => (from, lenient),
                _ => continue,
            };
            if !has(name) && !lenient {
                return None;
            }
        }
        // First what becomes of the old columns: all clauses mean the names that there were before.
        'old: for column in &old {
            let mut new = column.clone();
            for c in clauses {
                match c {
                    Clause::Drop { name, .. } if same(name, &column.name) => {
                        renumbered.insert(column.number, None);
                        continue 'old;
                    }
                    Clause::Rename { from, to, .. } if same(from, &column.name) => new.name.clone_from(to),
                    Clause::Define { from, to, place, .. } if same(from, &column.name) => {
                        new = Numbered { name: to.clone(), number: fresh() };
                        renumbered.insert(column.number, Some(new.number));
                        if place.is_some() {
                            moved.push((to, new));
                            continue 'old;
                        }
                    }
                    Clause::Texts if self.known.get(&new.number).is_none_or(CatalogColumn::is_text) => {
                        new.number = fresh();
                        renumbered.insert(column.number, Some(new.number));
                    }
                    _ => {}
                }
            }
            columns.push(new);
        }
        // Then new places and new columns, in the order of the text.
        for c in clauses {
            let (column, place) = match c {
                Clause::Add { name, lenient, .. } if columns.iter().any(|c| same(&c.name, name)) => {
                    if *lenient {
                        continue;
                    }
                    return None;
                }
                Clause::Add { name, place, .. } => (Numbered { name: name.clone(), number: fresh() }, place),
                Clause::Define { to, place: Some(place), .. } => {
                    let Some(i) = moved.iter().position(|m| m.0 == to) else { continue };
                    (moved.remove(i).1, place)
                }
                _ => continue,
            };
            match place {
                Place::Last => columns.push(column),
                Place::First => columns.insert(0, column),
                Place::After(name) => {
                    let i = columns.iter().position(|c| same(&c.name, name))?;
                    columns.insert(i + 1, column);
                }
            }
        }
        let keys = || clauses.iter().filter_map(|c| if let Clause::Key(k) = c { Some(k) } else { None });
        self.key = match keys().rfind(|k| !k.is_empty()).or(keys().next()) {
            Some(names) => names
                .iter()
                .map(|n| columns.iter().find(|c| same(&c.name, n)).map(|c| c.number))
                .collect::<Option<_>>()?,
            None => self.key.iter().filter_map(|k| renumbered.get(k).copied().unwrap_or(Some(*k))).collect(),
        };
        self.next = next;
        self.columns = Some(columns);
        Some(())
    }

    fn resolve(&self, definition: impl Fn(&Numbered) -> Option<CatalogColumn>) -> Option<CatalogTable> {
        let columns = self.columns.as_ref()?;
        let number = |k: &u32| columns.iter().position(|c| c.number == *k);
        Some(CatalogTable {
            columns: columns
                .iter()
                .map(|c| Some(CatalogColumn { name: c.name.clone(), ..definition(c)? }))
                .collect::<Option<_>>()?,
            key: self.key.iter().map(number).collect::<Option<_>>()?,
        })
    }
    /// The columns, if every definition is known.
    pub fn known(&self) -> Option<CatalogTable> {
        self.resolve(|c| self.known.get(&c.number).cloned())
    }
    /// The columns, if they can be told from what it became of (`end`) and what the catalog says of that.
    pub fn solve(&self, end: &Draft, catalog: &CatalogTable) -> Option<CatalogTable> {
        let last = end.columns.as_ref()?;
        if !last.iter().map(|c| &c.name).eq(catalog.columns.iter().map(|c| &c.name)) {
            return None;
        }
        let told = |c: &Numbered| {
            let i = last.iter().position(|l| l.number == c.number)?;
            catalog.columns.get(i).cloned()
        };
        self.resolve(|c| told(c).or_else(|| self.known.get(&c.number).cloned()))
    }
}

impl CatalogColumn {
    /// May a change of the table's character set, or of a check, have defined it anew?
    fn is_text(&self) -> bool {
        self.charset.is_some() || self.data_type == "json"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Statement, read};

    fn table(columns: &[(&str, &str)], key: &[usize]) -> CatalogTable {
        let column = |(name, ty): &(&str, &str)| CatalogColumn {
            name: (*name).into(),
            data_type: ty.split(['(', ' ']).next().unwrap().into(),
            column_type: (*ty).into(),
            charset: ty.contains("char").then_some(Charset::UTF8MB4),
            octets: 7,
            decimal: (1, 2),
            digits: 3,
            nullable: true,
            json: false,
            extra: "e".into(),
        };
        CatalogTable { columns: columns.iter().map(column).collect(), key: key.to_vec() }
    }
    fn changes(text: &str) -> Vec<(Named, What)> {
        match read(text.as_bytes(), false, false) {
            Statement::Tables { changes, .. } => changes,
            other => panic!("{text}: {other:?}"),
        }
    }
    fn name(t: &str) -> Name {
        ("d".into(), t.into())
    }
    /// A draft after ALTERs.
    fn altered(mut draft: Draft, texts: &[&str]) -> Draft {
        for text in texts {
            let What::Altered(clauses) = changes(&format!("ALTER TABLE t {text}")).remove(0).1 else {
                panic!("{text}")
            };
            draft.apply(&clauses);
        }
        draft
    }
    fn start() -> Draft {
        Draft::of(&table(&[("id", "int"), ("a", "varchar(9)"), ("b", "int")], &[0]))
    }
    fn show(t: Option<CatalogTable>) -> String {
        let Some(t) = t else { return "?".into() };
        let columns: Vec<String> = t.columns.iter().map(|c| format!("{} {}", c.name, c.column_type)).collect();
        format!("{} {:?}", columns.join(", "), t.key)
    }
    #[test]
    fn what_is_kept_comes_back() {
        let t = table(&[("id", "int"), ("ü", "enum('a','b')")], &[1, 0]);
        let mut h = History::default();
        h.set(("d/x".into(), "t%".into()), Some(&t));
        h.set(name("u"), Some(&t));
        let changed = h.take_changes();
        assert_eq!(changed.len(), 2);
        assert!(h.take_changes().is_empty());
        h.set(name("u"), Some(&t));
        assert!(h.take_changes().is_empty(), "nothing has changed");
        let mut kept = Kept::new();
        seachange_sdk::position::keep(&mut kept, changed);
        assert!(kept.contains_key("schema/d%2Fx/t%25"));
        let h = History::load(Folding(false), &kept).unwrap();
        assert_eq!(h.get("d/x", "t%").unwrap(), Some(t));
        assert_eq!(h.get("D", "u").unwrap(), None);
        assert!(History::load(Folding(true), &kept).unwrap().get("D", "U").unwrap().is_some());
        let whole = kept["schema/d/u"].clone();
        for n in 0..whole.len() {
            assert!(decode(&whole[..n]).is_err());
        }
        assert!(History::load(Folding(false), &[("other".to_owned(), whole)].into()).is_err());
    }
    #[test]
    fn names_alone_are_enough_for_some() {
        let known = |texts: &[&str]| show(altered(start(), texts).known());
        assert_eq!(known(&["RENAME COLUMN a TO b, RENAME COLUMN b TO a"]), "id int, b varchar(9), a int [0]");
        assert_eq!(known(&["DROP a", "DROP PRIMARY KEY"]), "id int, b int []");
        assert_eq!(known(&["DROP PRIMARY KEY, ADD PRIMARY KEY (B, id)"]), "id int, a varchar(9), b int [2, 0]");
        assert_eq!(known(&["RENAME COLUMN id TO key_, DROP b"]), "key_ int, a varchar(9) [0]");
        assert_eq!(known(&["DROP id"]), "a varchar(9), b int []");
        for text in
            ["ADD c int", "MODIFY b bigint", "CONVERT TO CHARACTER SET latin1", "DROP nothing", "ADD c int AFTER x"]
        {
            assert_eq!(known(&[text]), "?", "{text}");
        }
        assert_eq!(known(&["DROP IF EXISTS nothing"]), "id int, a varchar(9), b int [0]");
    }
    #[test]
    fn the_rest_is_worked_back_from_the_catalog() {
        let solve = |first: &[&str], then: &[&str], catalog: &[(&str, &str)]| {
            let draft = altered(start(), first);
            let end = altered(draft.clone(), then);
            show(draft.solve(&end, &table(catalog, &[])))
        };
        // between two ALTERs: the first one's column is told by the catalog, the second one's is not there yet
        assert_eq!(
            solve(
                &["ADD c text AFTER id"],
                &["ADD d int FIRST", "DROP a", "RENAME COLUMN c TO e"],
                &[("d", "int"), ("id", "int"), ("e", "text"), ("b", "int")]
            ),
            "id int, c text, a varchar(9), b int [0]"
        );
        // defined anew since: not to be known
        assert_eq!(
            solve(
                &["ADD c text"],
                &["MODIFY c int"],
                &[("id", "int"), ("a", "varchar(9)"), ("b", "int"), ("c", "int")]
            ),
            "?"
        );
        assert_eq!(solve(&["ADD c text"], &["DROP c"], &[("id", "int"), ("a", "varchar(9)"), ("b", "int")]), "?");
        assert_eq!(
            solve(
                &["ADD c int"],
                &["DROP c", "ADD c text"],
                &[("id", "int"), ("a", "varchar(9)"), ("b", "int"), ("c", "text")]
            ),
            "?"
        );
        // defined anew since, but known from before
        assert_eq!(
            solve(
                &["ADD c text"],
                &["MODIFY b bigint"],
                &[("id", "int"), ("a", "varchar(9)"), ("b", "bigint"), ("c", "text")]
            ),
            "id int, a varchar(9), b int, c text [0]"
        );
        // a catalog that has not seen the last statement yet, or has seen more
        assert_eq!(
            solve(&["ADD c text"], &["ADD d int"], &[("id", "int"), ("a", "varchar(9)"), ("b", "int"), ("c", "text")]),
            "?"
        );
    }
    #[test]
    fn a_change_means_the_names_before_it() {
        // the order in which the server does it
        let end = altered(start(), &["DROP a, ADD a int FIRST, MODIFY b int AFTER a"]);
        let names: Vec<&str> = end.columns.as_ref().unwrap().iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "id"]);
    }
    #[test]
    fn tables_made_renamed_and_dropped() {
        let mut h = History::default();
        h.set(name("t"), Some(&table(&[("id", "int")], &[0])));
        let effects = |h: &History, text: &str, wanted: &str| -> Vec<(String, String)> {
            let effects = h.effects(&changes(text), "d", |n| n.1 == wanted).unwrap();
            effects.into_iter().map(|e| (e.name.1, e.draft.map_or("gone".into(), |d| show(d.known())))).collect()
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let known = "id int [0]";
        // gh-ost: the copy is known because the table is, whatever is captured
        assert_eq!(effects(&h, "CREATE TABLE _t_gho LIKE t", "t"), [pair("_t_gho", known)]);
        assert_eq!(effects(&h, "CREATE TABLE IF NOT EXISTS t (x int)", "t"), []);
        h.set(name("_t_gho"), Some(&table(&[("n", "int")], &[])));
        assert_eq!(
            effects(&h, "RENAME TABLE t TO _t_del, _t_gho TO t", "t"),
            [pair("t", "n int []"), pair("_t_del", known), pair("_t_gho", "gone")]
        );
        assert_eq!(effects(&h, "DROP TABLE t, other", "t"), [pair("t", "gone")]);
        assert_eq!(effects(&h, "RENAME TABLE z TO w", "w"), [pair("w", "?")]);
        assert_eq!(effects(&h, "ALTER TABLE t ADD x int, RENAME u", "t"), [pair("t", "gone"), pair("u", "?")]);
        assert_eq!(effects(&h, "ALTER TABLE z ADD x int", "t"), []);
        h.drop_database("D");
        assert!(h.get("d", "t").unwrap().is_some());
        h.drop_database("d");
        assert!(h.get("d", "t").unwrap().is_none());
    }
}
