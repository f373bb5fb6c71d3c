//! Statements of the log: which ones may have changed a captured table, without a grammar of SQL.
//!
//! A statement is cut into words, names and strings, with comments left out (and the contents of `/*! ... */` left in, as the
//! server does), and only its skeleton is read. What cannot change a table is passed over without being understood. What may
//! have changed one is answered with the names it says and what became of them ([`alter`]); where no name can be found, with
//! "any table".

pub mod alter;

use crate::{
    charset::{Charset, Collations},
    event,
};
use alter::What;
use std::{borrow::Cow, fmt::Write, ops::Deref};

/// A table as a statement names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Database; `None`: the session's.
    pub database: Option<String>,
    /// Table.
    pub table: String,
}

/// What a statement is, as far as the stream has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK of the whole transaction.
    Rollback,
    /// SAVEPOINT, by name.
    Savepoint(String),
    /// ROLLBACK TO, by name.
    RollbackTo(String),
    /// XA START: rows follow, up to XA PREPARE.
    XaStart,
    /// XA END.
    XaEnd,
    /// XA COMMIT of this name.
    XaCommit(String),
    /// XA ROLLBACK of this name.
    XaRollback(String),
    /// These tables were made, altered, renamed or dropped; empty: any table may have been.
    Tables {
        /// Them, in the order in which it happened.
        changes: Vec<(Named, What)>,
        /// Rows follow in the same transaction (`CREATE TABLE ... SELECT`).
        rows_follow: bool,
        /// Rows came or went with it that are nowhere in the log: by which clause.
        unlogged: Option<&'static str>,
    },
    /// A table was emptied.
    Truncate(Named),
    /// A database was dropped.
    DropDatabase(String),
    /// Rows were changed, and are not in the log as rows.
    Rows,
    /// Nothing that concerns a table's rows or columns.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Name(String),
    Text,
    Sign(char),
}

struct Tokens<'a> {
    rest: &'a [u8],
    ansi: bool,
    backslash: bool,
    /// Inside of `/*! ... */`.
    executable: u32,
}

impl Tokens<'_> {
    fn quoted(&mut self, quote: u8) -> String {
        let mut out = Vec::new();
        let escapes = self.backslash && quote != b'`';
        loop {
            match self.rest {
                [a, b, tail @ ..] if *a == quote && *b == quote => {
                    out.push(quote);
                    self.rest = tail;
                }
                [a, tail @ ..] if *a == quote => {
                    self.rest = tail;
                    break;
                }
                [b'\\', c, tail @ ..] if escapes => {
                    out.push(*c);
                    self.rest = tail;
                }
                [c, tail @ ..] => {
                    out.push(*c);
                    self.rest = tail;
                }
                [] => break,
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }
    fn skip_to(&mut self, end: &[u8]) {
        let at = self.rest.windows(end.len()).position(|w| w == end).map_or(self.rest.len(), |i| i + end.len());
        self.rest = self.rest.get(at..).unwrap_or(&[]);
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;
    fn next(&mut self) -> Option<Token> {
        loop {
            match self.rest {
                [] => return None,
                [c, tail @ ..] if c.is_ascii_whitespace() => self.rest = tail,
                [b'#', ..] => self.skip_to(b"\n"),
                [b'-', b'-', c, ..] if c.is_ascii_whitespace() || c.is_ascii_control() => self.skip_to(b"\n"),
                [b'/', b'*', b'!', tail @ ..] | [b'/', b'*', b'M', b'!', tail @ ..] => {
                    // run by the server: the version number is left out, the contents stay
                    self.executable += 1;
                    let digits = tail.iter().take(6).take_while(|c| c.is_ascii_digit()).count();
                    self.rest = tail.get(digits..).unwrap_or(&[]);
                }
                [b'/', b'*', tail @ ..] => {
                    self.rest = tail;
                    self.skip_to(b"*/");
                }
                [b'*', b'/', tail @ ..] if self.executable > 0 => {
                    self.executable -= 1;
                    self.rest = tail;
                }
                [b'`', tail @ ..] => {
                    self.rest = tail;
                    return Some(Token::Name(self.quoted(b'`')));
                }
                [b'"', tail @ ..] => {
                    self.rest = tail;
                    let text = self.quoted(b'"');
                    return Some(if self.ansi { Token::Name(text) } else { Token::Text });
                }
                [b'\'', tail @ ..] => {
                    self.rest = tail;
                    self.quoted(b'\'');
                    return Some(Token::Text);
                }
                [c, ..] if is_word(*c) => {
                    let n = self.rest.iter().take_while(|c| is_word(**c)).count();
                    let (word, tail) = self.rest.split_at_checked(n)?;
                    self.rest = tail;
                    return Some(Token::Word(String::from_utf8_lossy(word).into_owned()));
                }
                [c, tail @ ..] => {
                    self.rest = tail;
                    return Some(Token::Sign(char::from(*c)));
                }
            }
        }
    }
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'@') || c >= 0x80
}

struct Parser<'a> {
    tokens: std::iter::Peekable<Tokens<'a>>,
}

impl Parser<'_> {
    fn word(&mut self) -> Option<String> {
        match self.tokens.next_if(|t| matches!(t, Token::Word(_)))? {
            Token::Word(w) => Some(w.to_ascii_uppercase()),
            _ => None,
        }
    }
    fn is(&mut self, word: &str) -> bool {
        self.tokens.next_if(|t| matches!(t, Token::Word(w) if w.eq_ignore_ascii_case(word))).is_some()
    }
    fn any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|w| self.is(w))
    }
    fn sign(&mut self, sign: char) -> bool {
        self.tokens.next_if(|t| *t == Token::Sign(sign)).is_some()
    }
    fn name(&mut self) -> Option<String> {
        match self.tokens.next_if(|t| matches!(t, Token::Word(_) | Token::Name(_)))? {
            Token::Word(n) | Token::Name(n) => Some(n),
            _ => None,
        }
    }
    fn table(&mut self) -> Option<Named> {
        let first = self.name()?;
        if self.sign('.') {
            return Some(Named { database: Some(first), table: self.name()? });
        }
        Some(Named { database: None, table: first })
    }
    fn if_exists(&mut self) -> bool {
        let is = self.is("IF");
        if is {
            self.is("NOT");
            self.is("EXISTS");
        }
        is
    }
}

/// A statement's text in UTF-8, which the log holds in the character set of the session that made it. Bytes that are no text
/// there stay as they are: a name that holds such is then one that no catalog has.
pub struct Text<'a> {
    bytes: Cow<'a, [u8]>,
    /// Of the session; without one it is what the server itself uses, UTF-8.
    charset: Charset,
    /// There were codes that stand for no character.
    gaps: bool,
}

/// Reads a statement's text in its character set.
pub fn text<'a>(text: &'a [u8], status: &event::Status, collations: &Collations) -> Text<'a> {
    // The server takes names in a statement that is `binary` for UTF-8.
    let charset = status.charset.and_then(|id| collations.charset(id.into())).filter(|c| !c.is_binary());
    let charset = charset.unwrap_or(Charset::UTF8MB4);
    if let Ok(Cow::Owned(decoded)) = charset.decode(text) {
        let gaps = decoded.contains(char::REPLACEMENT_CHARACTER);
        return Text { bytes: Cow::Owned(decoded.into_bytes()), charset, gaps };
    }
    Text { bytes: Cow::Borrowed(text), charset, gaps: false }
}

impl Deref for Text<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Text<'_> {
    /// The text for people, and whether some of the statement is no text: then a comment in front of it says so, and bytes
    /// that cannot be read stand as `\xHH`, codes without a character as U+FFFD.
    pub fn told(&self) -> (Cow<'_, str>, bool) {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) if !self.gaps => return (Cow::Borrowed(text), false),
            _ => {}
        }
        let mut out =
            format!("/* not all of this is {}: what is not stands as \\xHH or U+FFFD */ ", self.charset.name());
        for part in self.bytes.utf8_chunks() {
            out.push_str(part.valid());
            for byte in part.invalid() {
                // Writing to a String cannot fail.
                let _: std::fmt::Result = write!(out, "\\x{byte:02X}");
            }
        }
        (Cow::Owned(out), true)
    }
}

/// Reads a statement. `ansi_quotes` and `no_backslash_escapes` are the session's SQL modes.
pub fn read(text: &[u8], ansi_quotes: bool, no_backslash_escapes: bool) -> Statement {
    // The commonest by far.
    match text {
        b"BEGIN" => return Statement::Begin,
        b"COMMIT" => return Statement::Commit,
        _ => {}
    }
    let tokens = Tokens { rest: text, ansi: ansi_quotes, backslash: !no_backslash_escapes, executable: 0 };
    let mut p = Parser { tokens: tokens.peekable() };
    while p.sign('(') {}
    let Some(first) = p.word() else { return Statement::Other };
    let any = || Statement::Tables { changes: Vec::new(), rows_follow: false, unlogged: None };
    let one = |table, what| Statement::Tables { changes: vec![(table, what)], rows_follow: false, unlogged: None };
    match first.as_str() {
        "BEGIN" => Statement::Begin,
        "START" if p.is("TRANSACTION") => Statement::Begin,
        "COMMIT" => Statement::Commit,
        "ROLLBACK" => {
            p.is("WORK");
            if p.is("TO") {
                p.is("SAVEPOINT");
                return Statement::RollbackTo(p.name().unwrap_or_default());
            }
            Statement::Rollback
        }
        "SAVEPOINT" => Statement::Savepoint(p.name().unwrap_or_default()),
        "XA" => match p.word().as_deref() {
            Some("START" | "BEGIN") => Statement::XaStart,
            Some("COMMIT") => Statement::XaCommit(xa_name(text)),
            Some("ROLLBACK") => Statement::XaRollback(xa_name(text)),
            _ => Statement::XaEnd,
        },
        "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "WITH" | "CALL" | "DO" | "SELECT" | "VALUES"
        | "EXECUTE" => Statement::Rows,
        "TRUNCATE" => {
            p.is("TABLE");
            p.table().map_or_else(any, Statement::Truncate)
        }
        "CREATE" => {
            if p.is("OR") {
                p.is("REPLACE");
            }
            if p.is("TEMPORARY") {
                return Statement::Other;
            }
            if p.is("TABLE") {
                let if_missing = p.if_exists();
                let Some(table) = p.table() else { return any() };
                // `... START TRANSACTION` at the end: MySQL logs the rows of CREATE TABLE ... SELECT behind it
                let tail: Vec<Token> = p.tokens.collect();
                let word = |t: Option<&Token>, w: &str| matches!(t, Some(Token::Word(x)) if x.eq_ignore_ascii_case(w));
                let n = tail.len();
                let rows_follow = n >= 2 && word(tail.get(n - 2), "START") && word(tail.get(n - 1), "TRANSACTION");
                let what = What::Created { like: alter::created(&tail), if_missing };
                return Statement::Tables { changes: vec![(table, what)], rows_follow, unlogged: None };
            }
            while p.any(&["ONLINE", "OFFLINE", "UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR"]) {}
            if p.is("INDEX") {
                return on(&mut p).map_or_else(any, |t| one(t, What::Altered(Vec::new())));
            }
            Statement::Other
        }
        "ALTER" => {
            while p.any(&["ONLINE", "OFFLINE", "IGNORE"]) {}
            if !p.is("TABLE") {
                return Statement::Other;
            }
            p.if_exists();
            let Some(table) = p.table() else { return any() };
            let tail: Vec<Token> = p.tokens.collect();
            let mut changes = vec![(table.clone(), alter::altered(&tail))];
            // ALTER TABLE a RENAME [TO|AS] b. Inside of parentheses and behind RENAME COLUMN, INDEX, KEY stand other names.
            let renames = outside(&tail).filter(|(_, w)| w.eq_ignore_ascii_case("RENAME"));
            let new = renames.filter_map(|(i, _)| alter::new_name(tail.get(i + 1..)?)).last();
            changes.extend(new.map(|n| (table, What::Renamed(n))));
            let unlogged = alter::unlogged(&tail);
            if unlogged == Some(alter::EXCHANGE) {
                // The other table keeps its columns as this one does: the server exchanges tables only if they have the same.
                let Some(other) = alter::exchanged(&tail) else { return any() };
                changes.push((other, What::Altered(Vec::new())));
            }
            Statement::Tables { changes, rows_follow: false, unlogged }
        }
        "DROP" => {
            if p.is("TEMPORARY") {
                return Statement::Other;
            }
            if p.any(&["TABLE", "TABLES"]) {
                p.if_exists();
                return list(&mut p, false);
            }
            if p.any(&["DATABASE", "SCHEMA"]) {
                p.if_exists();
                return p.name().map_or_else(any, Statement::DropDatabase);
            }
            while p.any(&["ONLINE", "OFFLINE"]) {}
            if p.is("INDEX") {
                let key = |t: &Option<String>| t.as_deref().is_some_and(|n| n.eq_ignore_ascii_case("PRIMARY"));
                p.if_exists();
                let name = p.name();
                let clauses = if key(&name) { vec![alter::Clause::Key(Vec::new())] } else { Vec::new() };
                return on(&mut p).map_or_else(any, |t| one(t, What::Altered(clauses)));
            }
            Statement::Other
        }
        "RENAME" if p.any(&["TABLE", "TABLES"]) => {
            p.if_exists();
            list(&mut p, true)
        }
        _ => Statement::Other,
    }
}

/// The table behind ON.
fn on(p: &mut Parser<'_>) -> Option<Named> {
    while let Some(t) = p.tokens.next() {
        if matches!(&t, Token::Word(w) if w.eq_ignore_ascii_case("ON")) {
            return p.table();
        }
    }
    None
}

/// `a, b` or, with `renamed`, `a TO b, c TO d`.
fn list(p: &mut Parser<'_>, renamed: bool) -> Statement {
    let mut changes = Vec::new();
    loop {
        let Some(table) = p.table() else {
            return Statement::Tables { changes: Vec::new(), rows_follow: false, unlogged: None };
        };
        let mut what = What::Dropped;
        if renamed {
            // MariaDB: RENAME TABLE a WAIT 5 TO b
            while p.tokens.next_if(|t| !matches!(t, Token::Word(w) if w.eq_ignore_ascii_case("TO"))).is_some() {}
            p.is("TO");
            match p.table() {
                Some(t) => what = What::Renamed(t),
                None => return Statement::Tables { changes: Vec::new(), rows_follow: false, unlogged: None },
            }
        }
        changes.push((table, what));
        if !p.sign(',') {
            return Statement::Tables { changes, rows_follow: false, unlogged: None };
        }
    }
}

/// Words outside of parentheses, and where they stand.
fn outside(tokens: &[Token]) -> impl Iterator<Item = (usize, &str)> {
    let mut depth = 0i32;
    tokens.iter().enumerate().filter_map(move |(i, t)| match t {
        Token::Sign('(') => {
            depth += 1;
            None
        }
        Token::Sign(')') => {
            depth -= 1;
            None
        }
        Token::Word(w) if depth == 0 => Some((i, w.as_str())),
        _ => None,
    })
}

/// The name of XA COMMIT and XA ROLLBACK: `X'6162',X'',1`, as the servers write it in the log.
fn xa_name(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let at = text.find(['X', 'x']).and_then(|xa| text.get(xa + 2..)).and_then(|t| t.find(['X', 'x'])).map(|i| i + 2);
    let start = text.find("X'").or_else(|| text.find("x'")).or(at).unwrap_or(0);
    let name = text.get(start..).unwrap_or("");
    let name = name.split_whitespace().next().unwrap_or("");
    // hexadecimal digits in lower case, the marks in upper case
    let mut out = String::with_capacity(name.len());
    let mut inside = false;
    for c in name.chars() {
        if c == '\'' {
            inside = !inside;
        }
        out.push(if inside { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tables(text: &str) -> Vec<String> {
        match read(text.as_bytes(), false, false) {
            Statement::Tables { changes, .. } => {
                let name = |t: &Named| format!("{}.{}", t.database.as_deref().unwrap_or(""), t.table);
                let both = |(t, what): &(Named, What)| match what {
                    What::Renamed(to) if changes.len() > 1 && changes[0].0 == *t && changes[0].1 != *what => {
                        vec![name(to)]
                    }
                    What::Renamed(to) => vec![name(t), name(to)],
                    _ => vec![name(t)],
                };
                changes.iter().flat_map(both).collect()
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    fn is(text: &str, s: Statement) {
        assert_eq!(read(text.as_bytes(), false, false), s, "{text}");
    }
    #[test]
    fn text_in_the_sessions_character_set() {
        let collations = Collations::new([(8, "latin1".into()), (28, "gbk".into()), (10, "swe7".into())]);
        let told = |charset: Option<u16>, bytes: &[u8]| {
            let status = event::Status { charset, ..event::Status::default() };
            let (told, broken) =
                (text(bytes, &status, &collations).told().0.into_owned(), text(bytes, &status, &collations).told().1);
            assert_eq!(broken, told.starts_with("/* not all of this is "), "{told}");
            told
        };
        for (charset, bytes, is) in [
            (Some(45), "DROP TABLE `é`".as_bytes(), "DROP TABLE `é`"),
            (None, "DROP TABLE `é`".as_bytes(), "DROP TABLE `é`"),
            (Some(63), "DROP TABLE `é`".as_bytes(), "DROP TABLE `é`"),
            (Some(8), b"DROP TABLE `\xe9`", "DROP TABLE `é`"),
            // The second byte of the character is a backquote of ASCII.
            (Some(28), b"DROP TABLE `\x81\x60`", "DROP TABLE `乣`"),
            (Some(10), b"DROP TABLE `[`", "DROP TABLE `é`"),
        ] {
            let is = if charset == Some(10) { is.replace("`é`", "éÄé") } else { is.to_owned() };
            assert_eq!(told(charset, bytes), is);
        }
        let mark = |set: &str| format!("/* not all of this is {set}: what is not stands as \\xHH or U+FFFD */ ");
        assert_eq!(told(Some(45), b"DROP TABLE `a\xe9`, \xc3\xa9"), mark("utf8mb4") + "DROP TABLE `a\\xE9`, é");
        assert_eq!(told(Some(28), b"DROP TABLE `\xff\xff`"), mark("gbk") + "DROP TABLE `\u{fffd}`");
        // A set that is not known here.
        assert_eq!(told(Some(999), b"DROP TABLE `\xe9`"), mark("utf8mb4") + "DROP TABLE `\\xE9`");
    }
    #[test]
    fn names_of_changed_tables() {
        assert_eq!(
            tables("ALTER TABLE t ADD (a int, b int), CONVERT TO CHARACTER SET utf8mb4 COMMENT='x RENAME TO y'"),
            [".t"]
        );
        assert_eq!(
            tables("alter /* RENAME TO z */ table `a``b`.`t 1` RENAME COLUMN x TO y, RENAME TO `n`"),
            ["a`b.t 1", ".n"]
        );
        assert_eq!(tables("ALTER TABLE t RENAME INDEX a TO b, RENAME KEY c TO d"), [".t"]);
        assert_eq!(tables("ALTER ONLINE TABLE IF EXISTS d.t RENAME AS u"), ["d.t", ".u"]);
        assert_eq!(tables("RENAME TABLE a TO _a_del, d._a_gho TO d.a"), [".a", "._a_del", "d._a_gho", "d.a"]);
        assert_eq!(tables("CREATE TABLE IF NOT EXISTS x LIKE y"), [".x"]);
        assert_eq!(tables("CREATE OR REPLACE TABLE `x`(id int)"), [".x"]);
        assert_eq!(tables("DROP TABLE IF EXISTS `a`,b . c /* generated by server */"), [".a", "b.c"]);
        assert_eq!(tables("CREATE UNIQUE INDEX i ON d.t (a)"), ["d.t"]);
        assert_eq!(tables("DROP INDEX `PRIMARY` ON t"), [".t"]);
        assert_eq!(tables("/*!40000 ALTER TABLE t DISABLE KEYS */"), [".t"]);
        assert_eq!(tables("-- note\n# more\nDROP TABLES t"), [".t"]);
        assert_eq!(tables("ALTER TABLE p EXCHANGE PARTITION x WITH TABLE t"), [".p", ".t"]);
        assert_eq!(
            tables("ALTER TABLE p EXCHANGE PARTITION `with` WITH TABLE d.`t` WITHOUT VALIDATION"),
            [".p", "d.t"]
        );
        assert_eq!(tables("ALTER TABLE p EXCHANGE PARTITION x WITH"), Vec::<String>::new());
        assert_eq!(tables("DROP TABLE 'what'"), Vec::<String>::new());
    }
    #[test]
    fn rows_that_come_and_go_beside_the_log() {
        let unlogged = |text: &str| match read(text.as_bytes(), false, false) {
            Statement::Tables { unlogged, .. } => unlogged,
            other => panic!("{text}: {other:?}"),
        };
        for (text, clause) in [
            ("ALTER TABLE t EXCHANGE PARTITION x WITH TABLE u", "EXCHANGE PARTITION"),
            ("ALTER TABLE t /*!50100 DROP PARTITION x, y */", "DROP PARTITION"),
            ("ALTER TABLE t LOCK=NONE, DROP PARTITION IF EXISTS x", "DROP PARTITION"),
            ("ALTER TABLE t WAIT 5 TRUNCATE PARTITION ALL", "TRUNCATE PARTITION"),
            ("ALTER TABLE t convert partition x to table u", "CONVERT PARTITION"),
            ("ALTER TABLE t CONVERT TABLE u TO PARTITION x VALUES LESS THAN (5)", "CONVERT TABLE"),
            ("ALTER TABLE t DISCARD TABLESPACE", "DISCARD TABLESPACE"),
            ("ALTER TABLE t IMPORT PARTITION x TABLESPACE", "IMPORT TABLESPACE"),
        ] {
            assert_eq!(unlogged(text), Some(clause), "{text}");
        }
        for text in [
            "ALTER TABLE t DROP x, ADD PARTITION (PARTITION y VALUES LESS THAN (5)), CONVERT TO CHARACTER SET utf8mb4",
            "ALTER TABLE t REORGANIZE PARTITION x INTO (PARTITION y VALUES LESS THAN (5))",
            "ALTER TABLE t DROP `partition`, COALESCE PARTITION 1",
            "ALTER TABLE t ADD `drop` int, ADD c text COMMENT 'DROP PARTITION x'",
            "ALTER TABLE t REBUILD PARTITION x, DROP COLUMN truncate",
            "ALTER TABLE t ADD discard int, COMMENT 'x', TABLESPACE s",
            "ALTER TABLE t REMOVE PARTITIONING",
        ] {
            assert_eq!(unlogged(text), None, "{text}");
        }
    }
    #[test]
    fn quotes_as_the_session_had_them() {
        let t = read(br#"ALTER TABLE "a b" ADD c int"#, true, false);
        let named = |n: &str| Named { database: None, table: n.into() };
        let Statement::Tables { changes, .. } = t else { panic!("{t:?}") };
        assert_eq!(changes[0].0, named("a b"));
        // a backslash at the end of a string, with and without escapes
        let text = br"ALTER TABLE t COMMENT '\', RENAME TO u -- '";
        let Statement::Tables { changes, .. } = read(text, false, true) else { panic!() };
        assert_eq!(changes, [(named("t"), What::Altered(vec![])), (named("t"), What::Renamed(named("u")))]);
        assert_eq!(tables(std::str::from_utf8(text).unwrap()), [".t"]);
    }
    #[test]
    fn what_is_not_about_columns() {
        for text in [
            "GRANT ALL ON *.* TO x",
            "CREATE VIEW v AS SELECT 1",
            "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET @a=1",
            "DROP TEMPORARY TABLE t",
            "CREATE TEMPORARY TABLE t (a int)",
            "ANALYZE TABLE t",
            "FLUSH TABLES",
            "CREATE USER u",
            "ALTER USER u",
            "",
            "/* only a comment */",
            "CREATE DATABASE d",
            "CREATE DEFINER=`a`@`b` PROCEDURE p() DELETE FROM t",
            "SET PASSWORD FOR 'a' = 'b'",
        ] {
            is(text, Statement::Other);
        }
    }
    #[test]
    fn the_rest() {
        is("BEGIN", Statement::Begin);
        is("SAVEPOINT `s 1`", Statement::Savepoint("s 1".into()));
        is("ROLLBACK TO `s 1`", Statement::RollbackTo("s 1".into()));
        is("ROLLBACK", Statement::Rollback);
        is("TRUNCATE d.t", Statement::Truncate(Named { database: Some("d".into()), table: "t".into() }));
        is("truncate table `t`", Statement::Truncate(Named { database: None, table: "t".into() }));
        is("DROP DATABASE IF EXISTS `d`", Statement::DropDatabase("d".into()));
        is("XA START X'6162',X'',1", Statement::XaStart);
        is("XA COMMIT X'6162',X'',1", Statement::XaCommit("X'6162',X'',1".into()));
        is("XA ROLLBACK X'6A',X'62',1", Statement::XaRollback("X'6a',X'62',1".into()));
        for text in [
            "INSERT INTO t VALUES (1)",
            "/* c */ delete from t",
            "(SELECT f())",
            "LOAD DATA INFILE 'x' INTO TABLE t",
            "WITH x AS (SELECT 1) DELETE FROM t",
        ] {
            is(text, Statement::Rows);
        }
        assert!(matches!(
            read(b"CREATE TABLE t (a int) START TRANSACTION", false, false),
            Statement::Tables { rows_follow: true, .. }
        ));
    }
    proptest! {
        #[test]
        fn nothing_panics(b in proptest::collection::vec(any::<u8>(), 0..80), ansi in any::<bool>(), words in "(ALTER|DROP|RENAME|XA|TABLE|TO|`a`|\\.|,|X'| |/\\*|!|\\*/){0,12}") {
            let seen = (read(&b, ansi, ansi), read(words.as_bytes(), ansi, !ansi));
            prop_assert_eq!(seen.0.clone(), seen.0);
        }
    }
}
