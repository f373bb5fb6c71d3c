//! What CREATE, ALTER, RENAME and DROP do to a table's columns, as far as it can be told without a grammar of SQL.
//!
//! Only the skeleton is read: which columns are added, dropped, renamed, moved or defined anew, and which of them are the
//! primary key. Types, defaults and expressions are skipped: what a column *is* comes from the catalog (see [`crate::history`]).
//! Whatever is not known to leave columns alone is [`What::Unknown`].

use super::{Named, Token};

/// What became of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was made.
    Created {
        /// With which columns.
        like: Like,
        /// Only if there was none of its name.
        if_missing: bool,
    },
    /// It was altered; without clauses, its columns were left alone.
    Altered(Vec<Clause>),
    /// It has another name.
    Renamed(Named),
    /// It is gone.
    Dropped,
    /// Its columns may be others, and it is not known which.
    Unknown,
}

/// What a new table's columns are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Like {
    /// These, each a [`Clause::Add`], and its key.
    Columns(Vec<Clause>),
    /// Those of another table.
    Table(Named),
    /// It is not said.
    Unknown,
}

/// One change of columns. Within a statement names of old columns mean the table as it was before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clause {
    /// A new column.
    Add {
        /// Its name.
        name: String,
        /// Where.
        place: Place,
        /// Only if there is none of its name.
        lenient: bool,
    },
    /// A column less.
    Drop {
        /// Its name.
        name: String,
        /// Only if there is one.
        lenient: bool,
    },
    /// A column by another name, and the same otherwise.
    Rename {
        /// Old name.
        from: String,
        /// New name.
        to: String,
        /// Only if there is one.
        lenient: bool,
    },
    /// A column defined anew.
    Define {
        /// Old name.
        from: String,
        /// New name.
        to: String,
        /// Where it goes; `None`: it stays.
        place: Option<Place>,
        /// Only if there is one.
        lenient: bool,
    },
    /// The primary key is over these columns; empty: there is none.
    Key(Vec<String>),
    /// Every column of text may have been defined anew.
    Texts,
}

/// Where a column goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind all others.
    Last,
    /// Before all others.
    First,
    /// Behind this one.
    After(String),
}

/// A run of tokens.
#[derive(Clone, Copy)]
struct Run<'a>(&'a [Token]);

impl<'a> Run<'a> {
    fn word(&self, i: usize) -> Option<&'a str> {
        match self.0.get(i) {
            Some(Token::Word(w)) => Some(w),
            _ => None,
        }
    }
    fn at(&self, i: usize, word: &str) -> bool {
        self.word(i).is_some_and(|w| w.eq_ignore_ascii_case(word))
    }
    fn is(&mut self, word: &str) -> bool {
        let is = self.at(0, word);
        self.skip(usize::from(is));
        is
    }
    fn any(&self, words: &[&str]) -> bool {
        words.iter().any(|w| self.at(0, w))
    }
    fn skip(&mut self, n: usize) {
        self.0 = self.0.get(n..).unwrap_or(&[]);
    }
    fn sign(&mut self, sign: char) -> bool {
        let is = self.0.first() == Some(&Token::Sign(sign));
        self.skip(usize::from(is));
        is
    }
    fn name(&mut self) -> Option<String> {
        let name = match self.0.first()? {
            Token::Word(n) | Token::Name(n) => n.clone(),
            _ => return None,
        };
        self.skip(1);
        Some(name)
    }
    fn table(&mut self) -> Option<Named> {
        let first = self.name()?;
        if self.sign('.') {
            return Some(Named { database: Some(first), table: self.name()? });
        }
        Some(Named { database: None, table: first })
    }
    /// IF EXISTS, IF NOT EXISTS.
    fn lenient(&mut self) -> bool {
        let is = self.at(0, "IF") && (self.at(1, "EXISTS") || self.at(1, "NOT") && self.at(2, "EXISTS"));
        if is {
            self.skip(if self.at(1, "NOT") { 3 } else { 2 });
        }
        is
    }
    /// What stands in the parentheses with which it begins, and what follows them.
    fn inside(&self) -> Option<(Run<'a>, Run<'a>)> {
        if self.0.first() != Some(&Token::Sign('(')) {
            return None;
        }
        let mut depth = 0u32;
        for (i, t) in self.0.iter().enumerate() {
            match t {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => {
                    depth -= 1;
                    if depth == 0 {
                        return Some((Run(self.0.get(1..i)?), Run(self.0.get(i + 1..)?)));
                    }
                }
                _ => {}
            }
        }
        None
    }
    /// Cut at the commas outside of parentheses.
    fn items(&self) -> Vec<Run<'a>> {
        let (mut out, mut depth, mut from) = (Vec::new(), 0i32, 0);
        for (i, t) in self.0.iter().enumerate() {
            match t {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => depth -= 1,
                Token::Sign(',') if depth == 0 => {
                    out.extend(self.0.get(from..i).map(Run));
                    from = i + 1;
                }
                _ => {}
            }
        }
        out.extend(self.0.get(from..).map(Run));
        out
    }
    /// MariaDB's WAIT n, NOWAIT.
    fn wait(&mut self) {
        if self.is("WAIT") {
            self.skip(1);
        } else {
            self.is("NOWAIT");
        }
    }
    /// Words outside of parentheses.
    fn outside(&self) -> impl Iterator<Item = (usize, &'a str)> {
        super::outside(self.0)
    }
}

/// The new name behind ALTER TABLE's RENAME, if it is the table's.
pub(super) fn new_name(tokens: &[Token]) -> Option<Named> {
    let mut run = Run(tokens);
    if run.any(&["COLUMN", "INDEX", "KEY"]) {
        return None;
    }
    if !(run.is("TO") || run.is("AS")) {
        run.sign('=');
    }
    run.table()
}

/// The clause that exchanges a partition with a table.
pub(super) const EXCHANGE: &str = "EXCHANGE PARTITION";

/// The clause of ALTER TABLE by which rows come or go that the log does not tell.
pub(super) fn unlogged(tokens: &[Token]) -> Option<&'static str> {
    Run(tokens).items().into_iter().find_map(|mut clause| {
        clause.wait();
        Some(match (clause.word(0)?.to_ascii_uppercase().as_str(), clause.word(1)?.to_ascii_uppercase().as_str()) {
            ("EXCHANGE", "PARTITION") => EXCHANGE,
            ("DROP", "PARTITION") => "DROP PARTITION",
            ("TRUNCATE", "PARTITION") => "TRUNCATE PARTITION",
            ("CONVERT", "PARTITION") => "CONVERT PARTITION",
            ("CONVERT", "TABLE") => "CONVERT TABLE",
            ("DISCARD", "PARTITION" | "TABLESPACE") => "DISCARD TABLESPACE",
            ("IMPORT", "PARTITION" | "TABLESPACE") => "IMPORT TABLESPACE",
            _ => return None,
        })
    })
}

/// The table of EXCHANGE PARTITION x WITH TABLE.
pub(super) fn exchanged(tokens: &[Token]) -> Option<Named> {
    Run(tokens).items().into_iter().find_map(|mut clause| {
        clause.wait();
        if !(clause.is("EXCHANGE") && clause.is("PARTITION")) {
            return None;
        }
        clause.name()?;
        if clause.is("WITH") && clause.is("TABLE") { clause.table() } else { None }
    })
}

/// What follows a column's name: where it goes, and whether it is the primary key.
fn definition(run: Run<'_>) -> (Option<Place>, bool) {
    let (mut place, mut key) = (None, false);
    for (i, word) in run.outside() {
        let before = |w: &str| i > 0 && run.at(i - 1, w);
        if word.eq_ignore_ascii_case("FIRST") {
            place = Some(Place::First);
        } else if word.eq_ignore_ascii_case("AFTER") {
            place = Run(run.0.get(i + 1..).unwrap_or(&[])).name().map(Place::After);
        } else if word.eq_ignore_ascii_case("KEY") {
            key |= !before("UNIQUE");
        }
    }
    (place, key)
}

/// A column of CREATE TABLE or ADD, or an index or constraint there.
fn element(mut run: Run<'_>, column: bool, out: &mut Vec<Clause>) -> Option<()> {
    if !column {
        if run.is("CONSTRAINT") {
            run.lenient();
            if !run.any(&["PRIMARY", "UNIQUE", "FOREIGN", "CHECK"]) {
                run.name()?;
            }
        }
        if run.at(0, "PRIMARY") {
            let start = run.0.iter().position(|t| *t == Token::Sign('('))?;
            let (inside, _) = Run(run.0.get(start..)?).inside()?;
            let names: Option<Vec<String>> = inside.items().into_iter().map(|mut i| i.name()).collect();
            out.push(Clause::Key(names?));
            return Some(());
        }
        if run.at(0, "CHECK") {
            // MariaDB's JSON is a text with a check
            out.push(Clause::Texts);
            return Some(());
        }
        let index = run.any(&["INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL", "FOREIGN", "PARTITION"])
            || run.at(0, "VECTOR") && (run.at(1, "INDEX") || run.at(1, "KEY"));
        if index {
            return Some(());
        }
        if run.at(0, "PERIOD") && run.at(1, "FOR") || run.at(0, "SYSTEM") && run.at(1, "VERSIONING") {
            return None;
        }
    }
    let lenient = run.lenient();
    let name = run.name()?;
    let (place, key) = definition(run);
    out.push(Clause::Add { name: name.clone(), place: place.unwrap_or(Place::Last), lenient });
    if key {
        out.push(Clause::Key(vec![name]));
    }
    Some(())
}

/// One clause of ALTER TABLE.
fn clause(mut run: Run<'_>, out: &mut Vec<Clause>) -> Option<()> {
    // Behind the last clause partitions may follow without a comma; they may be BY KEY.
    let by = run.outside().find(|(i, w)| w.eq_ignore_ascii_case("PARTITION") && run.at(i + 1, "BY")).map(|(i, _)| i);
    if let Some(by) = by {
        run = Run(run.0.get(..by)?);
    }
    let Some(first) = run.word(0) else { return if run.0.is_empty() { Some(()) } else { None } };
    let first = first.to_ascii_uppercase();
    run.skip(1);
    match first.as_str() {
        "ADD" => {
            let column = run.is("COLUMN");
            let mut list = run;
            let lenient = list.lenient();
            if let Some((inside, _)) = list.inside() {
                let from = out.len();
                inside.items().into_iter().try_for_each(|i| element(i, column, out))?;
                for c in out.iter_mut().skip(from) {
                    if let Clause::Add { lenient: l, .. } = c {
                        *l |= lenient;
                    }
                }
                return Some(());
            }
            element(run, column, out)
        }
        "DROP" => {
            let column = run.is("COLUMN");
            if !column {
                if run.any(&["INDEX", "KEY", "CONSTRAINT"]) {
                    let constraint = run.at(0, "CONSTRAINT");
                    run.skip(1);
                    run.lenient();
                    if run.name()?.eq_ignore_ascii_case("PRIMARY") {
                        out.push(Clause::Key(Vec::new()));
                    } else if constraint {
                        out.push(Clause::Texts);
                    }
                    return Some(());
                }
                if run.at(0, "PRIMARY") && run.at(1, "KEY") {
                    out.push(Clause::Key(Vec::new()));
                    return Some(());
                }
                if run.at(0, "CHECK") {
                    out.push(Clause::Texts);
                    return Some(());
                }
                if run.at(0, "FOREIGN") || run.at(0, "PARTITION") {
                    return Some(());
                }
                if run.at(0, "SYSTEM") && run.at(1, "VERSIONING") || run.at(0, "PERIOD") && run.at(1, "FOR") {
                    return None;
                }
            }
            let lenient = run.lenient();
            out.push(Clause::Drop { name: run.name()?, lenient });
            Some(())
        }
        "RENAME" => {
            if run.is("COLUMN") {
                let lenient = run.lenient();
                let from = run.name()?;
                if !run.is("TO") {
                    return None;
                }
                out.push(Clause::Rename { from, to: run.name()?, lenient });
            }
            // of the table, an index, a key: not of columns
            Some(())
        }
        "CHANGE" | "MODIFY" => {
            run.is("COLUMN");
            let lenient = run.lenient();
            let from = run.name()?;
            let to = if first == "CHANGE" { run.name()? } else { from.clone() };
            let (place, key) = definition(run);
            out.push(Clause::Define { from, to: to.clone(), place, lenient });
            if key {
                out.push(Clause::Key(vec![to]));
            }
            Some(())
        }
        "CONVERT" if run.at(0, "TO") => {
            out.push(Clause::Texts);
            Some(())
        }
        // ALTER COLUMN: defaults and visibility
        "ALTER"
        | "ENGINE"
        | "TYPE"
        | "COMMENT"
        | "AUTO_INCREMENT"
        | "ROW_FORMAT"
        | "CHARACTER"
        | "CHARSET"
        | "COLLATE"
        | "DEFAULT"
        | "ALGORITHM"
        | "LOCK"
        | "FORCE"
        | "DISABLE"
        | "ENABLE"
        | "KEY_BLOCK_SIZE"
        | "STATS_PERSISTENT"
        | "STATS_AUTO_RECALC"
        | "STATS_SAMPLE_PAGES"
        | "CHECKSUM"
        | "TABLE_CHECKSUM"
        | "MAX_ROWS"
        | "MIN_ROWS"
        | "AVG_ROW_LENGTH"
        | "PACK_KEYS"
        | "DELAY_KEY_WRITE"
        | "INSERT_METHOD"
        | "UNION"
        | "DATA"
        | "INDEX"
        | "TABLESPACE"
        | "COMPRESSION"
        | "ENCRYPTION"
        | "ENCRYPTED"
        | "ENCRYPTION_KEY_ID"
        | "PAGE_COMPRESSED"
        | "PAGE_COMPRESSION_LEVEL"
        | "PAGE_CHECKSUM"
        | "TRANSACTIONAL"
        | "CONNECTION"
        | "AUTOEXTEND_SIZE"
        | "SECONDARY_ENGINE"
        | "SECONDARY_LOAD"
        | "SECONDARY_UNLOAD"
        | "REMOVE"
        | "COALESCE"
        | "REORGANIZE"
        | "REBUILD"
        | "OPTIMIZE"
        | "ANALYZE"
        | "CHECK"
        | "REPAIR"
        | "TRUNCATE"
        | "DISCARD"
        | "IMPORT"
        | "NOWAIT" => Some(()),
        _ => None,
    }
}

/// What ALTER TABLE does, from behind the table's name on.
pub(super) fn altered(tokens: &[Token]) -> What {
    let mut run = Run(tokens);
    run.wait();
    // The columns that rows are ordered by stand between commas, too, and behind all that matters.
    let order = run.outside().find(|(i, w)| w.eq_ignore_ascii_case("ORDER") && run.at(i + 1, "BY")).map(|(i, _)| i);
    if let Some(order) = order {
        run = Run(run.0.get(..order).unwrap_or(&[]));
    }
    let mut out = Vec::new();
    // Nothing follows what is done to partitions but their names, and those stand between commas.
    let clauses = run.items().into_iter().take_while(|c| c.at(0, "ADD") || c.at(0, "CONVERT") || !c.at(1, "PARTITION"));
    match clauses.into_iter().try_for_each(|i| clause(i, &mut out)) {
        Some(()) => What::Altered(out),
        None => What::Unknown,
    }
}

/// What CREATE TABLE makes, from behind the table's name on.
pub(super) fn created(tokens: &[Token]) -> Like {
    let mut run = Run(tokens);
    if run.is("LIKE") {
        return run.table().map_or(Like::Unknown, Like::Table);
    }
    let Some((mut inside, behind)) = run.inside() else { return Like::Unknown };
    if inside.is("LIKE") {
        return inside.table().map_or(Like::Unknown, Like::Table);
    }
    // Columns of a SELECT, or those of a period: not named here.
    let more = ["SELECT", "AS", "TABLE", "VALUES", "WITH"];
    if behind.outside().any(|(_, w)| more.iter().any(|m| w.eq_ignore_ascii_case(m))) {
        return Like::Unknown;
    }
    let mut out = vec![Clause::Key(Vec::new())];
    match inside.items().into_iter().try_for_each(|i| element(i, false, &mut out)) {
        Some(()) => Like::Columns(out),
        None => Like::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::{Clause::*, Place::*, *};
    use crate::statement::{Statement, read};

    fn what(text: &str) -> What {
        match read(text.as_bytes(), false, false) {
            Statement::Tables { mut changes, .. } => changes.remove(0).1,
            other => panic!("{text}: {other:?}"),
        }
    }
    fn clauses(text: &str) -> Vec<Clause> {
        match what(&format!("ALTER TABLE t {text}")) {
            What::Altered(c) => c,
            other => panic!("{text}: {other:?}"),
        }
    }
    fn columns(text: &str) -> Vec<Clause> {
        match what(&format!("CREATE TABLE t {text}")) {
            What::Created { like: Like::Columns(c), .. } => c,
            other => panic!("{text}: {other:?}"),
        }
    }
    fn add(name: &str, place: Place) -> Clause {
        Add { name: name.into(), place, lenient: false }
    }
    fn define(from: &str, to: &str, place: Option<Place>) -> Clause {
        Define { from: from.into(), to: to.into(), place, lenient: false }
    }
    #[test]
    fn columns_come_and_go() {
        assert_eq!(
            clauses(
                "ADD a decimal(10,2) NOT NULL DEFAULT 0 AFTER `x`, ADD COLUMN b enum('a,b','AFTER c') COMMENT 'FIRST' FIRST"
            ),
            [add("a", After("x".into())), add("b", First)]
        );
        assert_eq!(
            clauses("ADD (a int, `b` varchar(9) CHARACTER SET latin1, INDEX (a), PRIMARY KEY (b(3) DESC, a))"),
            [add("a", Last), add("b", Last), Key(vec!["b".into(), "a".into()])]
        );
        assert_eq!(
            clauses(
                "DROP a, DROP COLUMN IF EXISTS b, RENAME COLUMN c TO d, CHANGE e f int KEY, MODIFY COLUMN g text AFTER f"
            ),
            [
                Drop { name: "a".into(), lenient: false },
                Drop { name: "b".into(), lenient: true },
                Rename { from: "c".into(), to: "d".into(), lenient: false },
                define("e", "f", None),
                Key(vec!["f".into()]),
                define("g", "g", Some(After("f".into()))),
            ]
        );
        assert_eq!(
            clauses("ADD COLUMN IF NOT EXISTS a int UNIQUE KEY, ADD b int PRIMARY KEY"),
            [Add { name: "a".into(), place: Last, lenient: true }, add("b", Last), Key(vec!["b".into()])]
        );
        assert_eq!(
            clauses("CONVERT TO CHARACTER SET utf8mb4, DROP PRIMARY KEY, DROP CHECK c"),
            [Texts, Key(vec![]), Texts]
        );
        assert_eq!(clauses("ADD c int PARTITION BY KEY (c) PARTITIONS 4"), [add("c", Last)]);
    }
    #[test]
    fn what_leaves_columns_alone() {
        for text in [
            "ENGINE = InnoDB COMMENT='ADD x int, DROP y'",
            "ADD INDEX i (a), ADD UNIQUE KEY (b), ADD FULLTEXT f (c), ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES p (id) ON DELETE CASCADE",
            "DROP INDEX i, DROP KEY j, DROP FOREIGN KEY k, RENAME INDEX a TO b, RENAME KEY c TO d, RENAME TO u",
            "ALTER COLUMN a SET DEFAULT 5, ALTER b DROP DEFAULT, ALTER INDEX i INVISIBLE",
            "DISABLE KEYS",
            "ALGORITHM=INPLACE, LOCK=NONE, FORCE",
            "ADD PARTITION (PARTITION p3 VALUES LESS THAN (2000))",
            "PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)",
            "WAIT 5 AUTO_INCREMENT = 100",
            "ORDER BY a, b",
            "EXCHANGE PARTITION p WITH TABLE u WITHOUT VALIDATION",
            "DISCARD TABLESPACE",
            "IMPORT PARTITION p, q TABLESPACE",
            "ALGORITHM = COPY, DROP PARTITION p, q",
        ] {
            assert_eq!(clauses(text), [], "{text}");
        }
        assert_eq!(what("CREATE INDEX i ON t (a)"), What::Altered(vec![]));
        assert_eq!(what("DROP INDEX `PRIMARY` ON t"), What::Altered(vec![Key(vec![])]));
    }
    #[test]
    fn what_is_not_understood_is_said_to_be() {
        for text in [
            "FROBNICATE x",
            "ADD SYSTEM VERSIONING",
            "DROP PERIOD FOR p",
            "CONVERT PARTITION p TO TABLE u",
            "ADD",
            "'x'",
        ] {
            assert_eq!(what(&format!("ALTER TABLE t {text}")), What::Unknown, "{text}");
        }
        for text in ["AS SELECT 1", "(id int) SELECT 1 AS x", "SELECT * FROM u", "(id int, PERIOD FOR p (a, b))"] {
            let like = what(&format!("CREATE TABLE t {text}"));
            assert_eq!(like, What::Created { like: Like::Unknown, if_missing: false }, "{text}");
        }
    }
    #[test]
    fn tables_are_made() {
        assert_eq!(
            columns(
                "(`id` int NOT NULL AUTO_INCREMENT, `n,` varchar(40) DEFAULT 'a(', PRIMARY KEY (`id`), KEY k (`n,`)) ENGINE=InnoDB"
            ),
            [Key(vec![]), add("id", Last), add("n,", Last), Key(vec!["id".into()])]
        );
        assert_eq!(
            columns("(id serial primary key, CHECK (id > 0))"),
            [Key(vec![]), add("id", Last), Key(vec!["id".into()]), Texts]
        );
        let named = |n: &str| Named { database: None, table: n.into() };
        for text in ["CREATE TABLE IF NOT EXISTS t LIKE `u`", "CREATE TABLE IF NOT EXISTS t (LIKE u)"] {
            assert_eq!(what(text), What::Created { like: Like::Table(named("u")), if_missing: true });
        }
    }
}
