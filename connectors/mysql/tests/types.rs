//! Values against real servers: the stream gives what the server itself prints.

mod common;

use common::{DEADLINE, Server, servers, versions};
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;

/// What the server prints, by id.
async fn printed(server: &Server, db: &str, table: &str, expression: &str) -> BTreeMap<i64, String> {
    let mut c = server.conn().await;
    c.query_drop("SET NAMES utf8mb4, time_zone = '+00:00'").await.unwrap();
    let rows: Vec<(i64, Option<Vec<u8>>)> =
        c.query(format!("SELECT id, {expression} FROM {db}.{table}")).await.unwrap();
    let text = |t: Option<Vec<u8>>| t.map_or("NULL".into(), |t| String::from_utf8_lossy(&t).into_owned());
    rows.into_iter().map(|(id, t)| (id, text(t))).collect()
}

/// The stream's text of a column, by id.
async fn streamed(server: &Server, db: &str, table: &str, script: &str) -> BTreeMap<i64, String> {
    let mut stream = server.open(&[&format!("{db}.*")], None).await;
    server.script(db, script).await;
    server
        .script(
            db,
            "CREATE TABLE IF NOT EXISTS zz_end (id int AUTO_INCREMENT PRIMARY KEY); INSERT INTO zz_end VALUES (NULL)",
        )
        .await;
    let mut out = BTreeMap::new();
    loop {
        let n = tokio::time::timeout(DEADLINE, stream.source.fill(&mut stream.batch, common::LIMIT)).await;
        n.unwrap().unwrap();
        for c in stream.batch.changes.iter().filter(|c| c.op != seachange_sdk::Op::Message) {
            let schema = &stream.batch.tables[c.table as usize];
            if &*schema.id.name == "zz_end" {
                return out;
            }
            if &*schema.id.name != table {
                continue;
            }
            let image = stream.batch.image(if c.after.is_some() { c.after } else { c.before });
            let chunk = stream.batch.chunk(c);
            let value = |i: usize| image[i].bytes(chunk).map(|b| schema.columns[i].decode.value(b).unwrap());
            let Some(seachange_sdk::Value::I64(id)) = value(0) else { panic!("no id") };
            let text = match value(1) {
                None => "NULL".to_owned(),
                Some(seachange_sdk::Value::Text(t)) => t.into_owned(),
                Some(other) => {
                    let mut s = String::new();
                    common::show(&other, &mut s);
                    s
                }
            };
            out.insert(id, text);
        }
        stream.batch.clear();
    }
}

fn same(what: &str, streamed: &BTreeMap<i64, String>, printed: &BTreeMap<i64, String>) {
    assert_eq!(streamed.len(), printed.len(), "{what}");
    for (id, s) in streamed {
        assert_eq!(s, &printed[id], "{what}, row {id}");
    }
}

#[tokio::test]
async fn every_character_set_as_the_server_converts_it() {
    for server in versions("every_character_set_as_the_server_converts_it").await {
        let mut c = server.conn().await;
        let sets: Vec<(String, u8)> = c
            .query("SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS WHERE CHARACTER_SET_NAME <> 'binary' ORDER BY 1")
            .await
            .unwrap();
        assert!(sets.len() > 35);
        let deep = "SET SESSION cte_max_recursion_depth = 100000";
        let deep = if server.flavor == seachange_mysql::flavor::Flavor::MySql {
            deep
        } else {
            "SET SESSION max_recursive_iterations = 100000"
        };
        for (set, width) in sets {
            let db = server.database("cs").await;
            // all codes of one byte, or all of two bytes: then many in a row, with spaces that a shift would eat
            let table = format!("CREATE TABLE t (id int PRIMARY KEY, c text CHARACTER SET {set})");
            let (last, digits) = if width == 1 { (255, 2) } else { (65_535, 4) };
            let codes = format!(
                "(SELECT i, CONVERT(UNHEX(LPAD(HEX(i), {digits}, '0')) USING {set}) AS x FROM n) AS y WHERE x IS NOT NULL"
            );
            let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})");
            let insert = if width == 1 {
                format!("INSERT INTO t {numbers} SELECT i, x FROM {codes}")
            } else {
                format!(
                    "INSERT INTO t {numbers} SELECT i DIV 256, GROUP_CONCAT(x ORDER BY i SEPARATOR ' ') FROM {codes} GROUP BY 1"
                )
            };
            let seen = streamed(
                &server,
                &db,
                "t",
                &format!("SET SESSION sql_mode = '', group_concat_max_len = 100000; {deep}; {table}; {insert}"),
            )
            .await;
            assert!(seen.len() >= 16, "{set}: {}", seen.len());
            let shown = printed(&server, &db, "t", "CONVERT(c USING utf8mb4)").await;
            // a code without a character: the server prints a question mark, which is a character too
            // (and of bytes that make no code it prints as many as it likes)
            let one = |s: String| {
                let mut s = s.replace('\u{fffd}', "?");
                while s.contains("??") {
                    s = s.replace("??", "?");
                }
                s
            };
            let plain = |m: BTreeMap<i64, String>| -> BTreeMap<i64, String> {
                m.into_iter().map(|(id, s)| (id, one(s))).collect()
            };
            let (seen, mut shown) = (plain(seen), plain(shown));
            for (id, s) in &mut shown {
                // or nothing at all
                if s == "NULL" && seen.get(id).is_some_and(|s| s.chars().all(|c| matches!(c, '?' | ' '))) {
                    s.clone_from(&seen[id]);
                }
            }
            same(&format!("{set} of {:?}", server.flavor), &seen, &shown);
        }
    }
}

#[tokio::test]
async fn json_as_the_server_prints_it() {
    let documents = [
        "'{}'",
        "'[]'",
        "'null'",
        "'true'",
        "'1'",
        "'-1'",
        "'18446744073709551615'",
        "'9223372036854775808'",
        "'1.5'",
        "'1.0'",
        "'1e10'",
        "'1.0e10'",
        "'1e15'",
        "'1e16'",
        "'123456789012345678901234567890'",
        "'1e-5'",
        "'1e-15'",
        "'1e-20'",
        "'2.2250738585072014e-308'",
        "'1.7976931348623157e308'",
        "'-0.0'",
        "'0.1'",
        "'100'",
        "'\"a\"'",
        "'\"é😀\\\\u0001\\\\n\\\\\"\\\\\\\\/\"'",
        "'{\"b\": 1, \"a\": 2, \"aa\": 3}'",
        "'[1, [2, [3, {\"x\": []}]]]'",
        "CONCAT('[', REPEAT('1234567890,', 20000), '1]')",
        "CONCAT('{\"k\": \"', REPEAT('x', 70000), '\"}')",
        "JSON_OBJECT('d', DATE'2024-02-29', 't', TIME'-12:34:56.789', 'dt', TIMESTAMP'2024-02-29 01:02:03.5')",
        "JSON_ARRAY(1.10, CAST(123456789.123456789 AS DECIMAL(30,15)), -0.5)",
        "JSON_ARRAY(0.1e0, 1e100, -1e-100, 123456.789e3, 1e14, 1e15)",
    ];
    let mysql_only = [
        "JSON_OBJECT('b', CAST('abcd' AS BINARY), 'l', CAST(REPEAT('z', 200) AS BINARY))",
        "JSON_OBJECT('y', CAST(2024 AS YEAR), 'g', ST_GeomFromText('POINT(1 2)'))",
        "JSON_ARRAY(b'101', x'ff00')",
    ];
    for server in servers("json_as_the_server_prints_it") {
        let db = server.database("json").await;
        let mysql = server.flavor == seachange_mysql::flavor::Flavor::MySql;
        let mut script = "SET NAMES utf8mb4; CREATE TABLE t (id int PRIMARY KEY, j json)".to_owned();
        for (i, d) in documents.iter().chain(if mysql { &mysql_only[..] } else { &[] }).enumerate() {
            script.push_str(&format!("; INSERT INTO t VALUES ({i}, {d})"));
        }
        let seen = streamed(&server, &db, "t", &script).await;
        same("json", &seen, &printed(&server, &db, "t", "CAST(j AS CHAR CHARACTER SET utf8mb4)").await);
    }
}

/// Types that only MariaDB has, and columns that are stored compressed.
#[tokio::test]
async fn mariadb_types() {
    for server in servers("mariadb_types") {
        if server.flavor != seachange_mysql::flavor::Flavor::MariaDb {
            continue;
        }
        let text = "CREATE TABLE more (id int PRIMARY KEY, u uuid, i6 inet6, c text COMPRESSED, v varchar(2000) COMPRESSED, b blob COMPRESSED);
            INSERT INTO more VALUES (1, '01234567-89ab-1def-8123-456789abcdef', '::', REPEAT('compress me ', 20), REPEAT('é', 200), REPEAT('z', 300)),
              (2, '01234567-89ab-4def-8123-456789abcdef', '2001:db8::1', 'short', 'short', 'b'), (3, '01234567-89ab-7def-8123-456789abcdef', '1::', '', '', ''),
              (4, '00000000-0000-0000-0000-000000000000', 'ff00::', NULL, NULL, NULL), (5, 'ffffffff-ffff-ffff-ffff-ffffffffffff', NULL, 'x', 'y', 'z'),
              (6, '01234567-89ab-6def-8123-456789abcdef', NULL, 'x', 'y', 'z'), (7, '01234567-89ab-7def-0123-456789abcdef', NULL, 'x', 'y', 'z'),
              (8, '01234567-89ab-0def-8123-456789abcdef', NULL, 'x', 'y', 'z'), (9, '01234567-89ab-8def-a123-456789abcdef', NULL, 'x', 'y', 'z')";
        for column in ["u", "i6", "c", "v"] {
            let db = server.database("maria2").await;
            let script = format!("{text}; CREATE TABLE t AS SELECT id, {column} FROM more");
            let seen = streamed(&server, &db, "t", &script).await;
            same(
                column,
                &seen,
                &printed(&server, &db, "t", &format!("CAST({column} AS CHAR CHARACTER SET utf8mb4)")).await,
            );
        }
    }
}
