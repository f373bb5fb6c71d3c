//! Every type at its edges, on real servers: a snapshot gives what the stream gives, and the stream what the server prints.

mod common;

use common::{DEADLINE, LIMIT, Server, both::both_ways, servers, show, split, versions};
use mysql_async::prelude::Queryable;
use seachange_mysql::flavor::{Flavor, version};
use seachange_sdk::{Type, Value};
use std::collections::BTreeMap;

const EVERY: &str = include_str!("workloads/every-type.sql");
const MYSQL: &str = include_str!("workloads/mysql-only.sql");
const MARIADB: &str = include_str!("workloads/mariadb-only.sql");
const VECTORS: &str = include_str!("workloads/mariadb-vectors.sql");
/// For logs that name columns.
const FULL: &str = include_str!("workloads/full-metadata.sql");
const MARIADB_FULL: &str = include_str!("workloads/mariadb-full-metadata.sql");

/// All types that a server has, and its log can tell.
async fn workload(server: &Server) -> String {
    let found: String = server.conn().await.query_first("SELECT VERSION()").await.unwrap().unwrap();
    let own = match server.flavor {
        Flavor::MySql => MYSQL.to_owned(),
        Flavor::MariaDb if version(&found) >= (11, 7, 0) => format!("{MARIADB};{VECTORS}"),
        Flavor::MariaDb => MARIADB.to_owned(),
    };
    match server.flavor {
        _ if !server.names_columns().await => format!("{EVERY};{own}"),
        Flavor::MySql => format!("{EVERY};{own};{FULL}"),
        Flavor::MariaDb => format!("{EVERY};{own};{FULL};{MARIADB_FULL}"),
    }
}

#[tokio::test]
async fn snapshot_and_stream_give_the_same() {
    for server in servers("snapshot_and_stream_give_the_same") {
        let text = workload(&server).await;
        let (_db, seen) = both_ways(&server, "every", &[1, 2, 1000], &text).await;
        let made = split(&text).iter().filter(|s| s.contains("CREATE TABLE ")).count();
        assert_eq!(seen.len(), made, "tables with rows: {:?}", seen.keys());
    }
}

/// What to ask the server for, to compare a column with: text that both can make.
fn expression(name: &str, ty: &Type, type_name: &str) -> String {
    match ty {
        Type::I16 | Type::I32 | Type::I64 | Type::U64 | Type::Year => format!("CAST(`{name}` + 0 AS CHAR)"),
        Type::F32 | Type::F64 => format!("CAST(CAST(`{name}` AS DOUBLE) AS CHAR)"),
        Type::Bit1 | Type::Bits(_) => {
            format!("LPAD(BIN(`{name}` + 0), {}, '0')", type_name.trim_matches(|c: char| !c.is_ascii_digit()))
        }
        Type::Bytes | Type::Geometry(_) | Type::Array(_) => format!("HEX(`{name}`)"),
        _ => format!("CAST(`{name}` AS CHAR CHARACTER SET utf8mb4)"),
    }
}

/// The value in the same text.
fn text(value: &Value<'_>, bytes: &[u8], ty: &Type) -> String {
    let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02X}")).collect::<String>();
    match (value, ty) {
        (Value::Bool(b), _) => u8::from(*b).to_string(),
        (Value::I64(n), _) => n.to_string(),
        (Value::U64(n), _) => n.to_string(),
        (Value::F32(f), _) => f64::from(*f).to_string(),
        (Value::F64(f), _) => f.to_string(),
        (Value::Decimal(s) | Value::Text(s) | Value::Bits(s) | Value::ZeroDate(s), _) => s.to_string(),
        (Value::Unscaled(n, scale), _) => {
            let mut text = String::new();
            seachange_sdk::digits(*n, *scale, &mut text);
            text
        }
        (Value::Bytes(b), _) => hex(b),
        (Value::Geometry(..) | Value::Nested(_), _) => hex(bytes),
        (Value::Date(d), _) => day(*d),
        (Value::Time(us), Type::Time(digits)) => {
            let (sign, n) = (if *us < 0 { "-" } else { "" }, us.unsigned_abs());
            format!("{sign}{:02}{}", n / 3_600_000_000, clock(n % 3_600_000_000, *digits))
        }
        (Value::Timestamp(s, us), Type::Timestamp(digits)) | (Value::TimestampTz(s, us), Type::TimestampTz(digits)) => {
            let of_day = s.rem_euclid(86_400) as u64;
            let n = of_day % 3600 * 1_000_000 + u64::from(*us);
            format!("{} {:02}{}", day(s.div_euclid(86_400)), of_day / 3600, clock(n, *digits))
        }
        (other, _) => {
            let mut s = String::new();
            show(other, &mut s);
            s
        }
    }
}

/// `:mm:ss[.f]` of the microseconds of an hour.
fn clock(n: u64, digits: u8) -> String {
    let s = format!(":{:02}:{:02}.{:06}", n / 60_000_000, n / 1_000_000 % 60, n % 1_000_000);
    s[..if digits == 0 { 6 } else { 7 + usize::from(digits) }].to_owned()
}

fn day(days: i64) -> String {
    let (y, m, d) = seachange_mysql::temporal::civil(days);
    format!("{y:04}-{m:02}-{d:02}")
}

/// Equal, or equal as the numbers that they print.
fn agree(ours: &str, theirs: &str, ty: &Type) -> bool {
    let number = |s: &str| s.parse::<f64>().ok();
    match ty {
        _ if ours == theirs => true,
        // The server cuts its digits to the room of a text.
        Type::F32 | Type::F64 => {
            number(ours).zip(number(theirs)).is_some_and(|(a, b)| (a - b).abs() <= a.abs() * 1e-14)
        }
        // ZEROFILL is how a number is printed, not what it is.
        Type::Decimal { .. } => {
            theirs.trim_start_matches('0').trim_start_matches('.')
                == ours.trim_start_matches('0').trim_start_matches('.')
        }
        _ => false,
    }
}

#[tokio::test]
async fn the_stream_gives_what_the_server_prints() {
    for server in servers("the_stream_gives_what_the_server_prints") {
        let db = server.database("printed").await;
        let mut stream = server.open(&[&format!("{db}.*")], None).await;
        server.script(&db, &workload(&server).await).await;
        server.script(&db, "CREATE TABLE zz_end (id int PRIMARY KEY); INSERT INTO zz_end VALUES (1)").await;
        let mut c = server.conn().await;
        c.query_drop("SET NAMES utf8mb4, time_zone = '+00:00'").await.unwrap();
        let (mut faults, mut compared, mut done) = (Vec::new(), 0, false);
        while !done {
            stream.batch.clear();
            let filled = tokio::time::timeout(DEADLINE, stream.source.fill(&mut stream.batch, LIMIT)).await;
            filled.unwrap().unwrap();
            for change in stream.batch.changes.iter().filter(|c| c.op != seachange_sdk::Op::Message) {
                let schema = &stream.batch.tables[change.table as usize];
                done |= &*schema.id.name == "zz_end";
                let (first, chunk) = (&schema.columns[0], stream.batch.chunk(change));
                if &*first.name != "id" || schema.key != [0] {
                    continue;
                }
                let image = stream.batch.image(change.after);
                let id = first.decode.value(image[0].bytes(chunk).unwrap()).unwrap();
                let list: Vec<String> =
                    schema.columns.iter().map(|c| expression(&c.name, &c.ty, &c.type_name)).collect();
                let number = text(&id, &[], &first.ty);
                let query = format!("SELECT {} FROM {db}.{} WHERE id = {number}", list.join(", "), schema.id.name);
                let row: mysql_async::Row = c.query_first(query).await.unwrap().unwrap();
                for (i, (column, cell)) in schema.columns.iter().zip(image).enumerate() {
                    let theirs = row.get::<Option<Vec<u8>>, _>(i).unwrap();
                    let theirs = theirs.map_or("NULL".into(), |b| String::from_utf8_lossy(&b).into_owned());
                    let ours = match cell.bytes(chunk) {
                        None => "NULL".to_owned(),
                        Some(b) => text(&column.decode.value(b).unwrap(), b, &column.ty),
                    };
                    compared += 1;
                    if !agree(&ours, &theirs, &column.ty) {
                        let short = |s: &str| s.chars().take(90).collect::<String>();
                        let place = format!("{}.{} row {number}", schema.id.name, column.name);
                        faults.push(format!("{place}: ours {:?}, printed {:?}", short(&ours), short(&theirs)));
                    }
                }
            }
        }
        assert!(faults.is_empty(), "{:?}, {} faults:\n{}", server.flavor, faults.len(), faults.join("\n"));
        assert!(compared > 700, "{compared} values were compared");
    }
}

/// Text in every character set: rows, keys, labels.
#[tokio::test]
async fn every_character_set_from_a_snapshot_too() {
    for server in versions("every_character_set_from_a_snapshot_too").await {
        let mut c = server.conn().await;
        let sets: Vec<(String, u8)> = c
            .query(
                "SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS
                 WHERE CHARACTER_SET_NAME <> 'binary' ORDER BY 1",
            )
            .await
            .unwrap();
        assert!(sets.len() > 35);
        let depth = match server.flavor {
            Flavor::MySql => "cte_max_recursion_depth",
            Flavor::MariaDb => "max_recursive_iterations",
        };
        let mut script =
            format!("SET NAMES utf8mb4; SET SESSION sql_mode = '', group_concat_max_len = 100000, {depth} = 100000");
        for (set, width) in &sets {
            // All codes of one byte, or all of two bytes, many in a row.
            let (last, digits) = if *width == 1 { (255, 2) } else { (65_535, 4) };
            let code = format!("CONVERT(UNHEX(LPAD(HEX(i), {digits}, '0')) USING {set})");
            let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})");
            let codes = format!("FROM (SELECT i, {code} AS x FROM n) AS y WHERE x IS NOT NULL");
            let rows = match width {
                1 => format!("{numbers} SELECT i, x {codes}"),
                _ => format!("{numbers} SELECT i DIV 256, GROUP_CONCAT(x ORDER BY i SEPARATOR ' ') {codes} GROUP BY 1"),
            };
            script.push_str(&format!(
                ";CREATE TABLE t_{set} (id int PRIMARY KEY, c text) CHARACTER SET {set}; INSERT INTO t_{set} {rows};
                CREATE TABLE v_{set} (id int PRIMARY KEY, v varchar(300), s char(20)) CHARACTER SET {set};
                INSERT INTO v_{set} SELECT id, LEFT(c, 300), LEFT(c, 20) FROM t_{set};
                CREATE TABLE k_{set} (k varchar(20), b char(3), PRIMARY KEY (k, b)) CHARACTER SET {set};
                INSERT IGNORE INTO k_{set} SELECT LEFT(c, 7), RIGHT(c, 3) FROM t_{set} ORDER BY id * 7 % 256 LIMIT 60"
            ));
        }
        let (db, streamed) = both_ways(&server, "sets", &[3, 1000], &script).await;
        assert_eq!(streamed.len(), 3 * sets.len());

        // Labels of the characters that the sets really have.
        let mut labels = "SET NAMES utf8mb4".to_owned();
        c.query_drop("SET NAMES utf8mb4").await.unwrap();
        for (set, _) in &sets {
            let texts: Vec<Option<Vec<u8>>> =
                c.query(format!("SELECT CONVERT(c USING utf8mb4) FROM {db}.t_{set} ORDER BY id")).await.unwrap();
            let mut found: BTreeMap<String, char> = BTreeMap::new();
            let texts: String = texts.iter().flatten().map(|t| String::from_utf8_lossy(t)).collect();
            for letter in texts.chars().filter(|l| !l.is_ascii() && l.is_alphanumeric()) {
                found.insert(letter.to_lowercase().to_string(), letter);
            }
            let mut chosen: Vec<String> = found
                .values()
                .step_by((found.len() / 3).max(1))
                .enumerate()
                .map(|(i, l)| format!("'{i}{l}'"))
                .collect();
            chosen.push("'plain'".into());
            let list = chosen.join(",");
            labels.push_str(&format!(
                ";CREATE TABLE l_{set} (id int PRIMARY KEY, e enum({list}), s set({list})) CHARACTER SET {set};
                INSERT INTO l_{set} VALUES (1, {}, {}), (2, 'plain', 'plain'), (3, 1, {}), (4, {}, 0)",
                chosen[0],
                chosen[0],
                (1 << chosen.len()) - 1,
                chosen.len()
            ));
        }
        let (_db, streamed) = both_ways(&server, "labels", &[1000], &labels).await;
        assert_eq!(streamed.len(), sets.len());
    }
}
