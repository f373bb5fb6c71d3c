//! Every type, by snapshot and by stream: what is decoded, and that both ways carry the same bytes.

use crate::{
    canon,
    lab::{Lab, on_every_server, rows},
    pgoutput,
};
use seachange_postgres::catalog::{Catalog, Prepared, describe};
use seachange_sdk::{Selection, Snapshotter, Type};
use std::collections::BTreeMap;

const WORKLOAD: &str = include_str!("../workloads/postgres-types.sql");

/// What the workload leaves out: types that print oddly, and values at the ends of their ranges.
const MORE: &str = r#"
CREATE DOMAIN types.score AS int CHECK (value < 1000);
CREATE DOMAIN types.scores AS int[];
CREATE DOMAIN types.cents2 AS types.cents;
CREATE DOMAIN types.feeling AS types.mood;
CREATE TABLE types.more (id int PRIMARY KEY, c "char", xi xid, ti tid, lsn pg_lsn, rp regproc, rc regclass, rt regtype, iv int2vector,
  ov oidvector, tq tsquery, jp jsonpath, cm types.pair, bx box, pg polygon, ln line, ls lseg, pa path, ci circle, sn pg_snapshot,
  c2 types.cents2, fe types.feeling, vb varbit, b64 bit(64), nm name, x8 xid8);
INSERT INTO types.more VALUES
  (1, 'x', '4294967295', '(1,2)', '16/B374D848', 'now', 'pg_class', 'int4', '1 2 3', '1 2', 'a & b', '$.a[*]', '(1,"q""x")', '(1,1),(0,0)', '((0,0),(1,1),(1,0))',
   '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(1,1))', '<(0,0),1>', '10:20:10,14', 1.10, 'ok', B'10110', B'1'::bit(64), 'an"name', '18446744073709551615'),
  (2, '', '0', '(0,0)', '0/0', '0', '0', '-', '', '', '', '$', '(,)', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, B'', B'0'::bit(64), '', '0'),
  (3, '\', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE types.lists (id int PRIMARY KEY, a2 int[][], ab int[], bx box[], sc types.score[], dd types.scores, ds types.scores[], cm types.pair[], by bytea[],
  hs hstore[], iv interval[], nn numeric[], b3 bit(3)[], b1 bit(1)[], mo money[], po point[], ch "char"[], nm name[], ts timestamp[], tz timetz[], f4 real[], tx text[],
  xm xml[], vb varbit[], bp char(5)[], lt ltree[], ci citext[], r4 int4range[], ip inet[], e2 types.mood[][]);
INSERT INTO types.lists VALUES
  (1, '{{1,2},{3,NULL}}', '[-1:1]={7,8,9}', '{(1,1),(0,0);(3,3),(2,2)}', '{1,NULL}', '{4,5}', '{"{1,2}","{}"}', ARRAY['(1,"a,b")'::types.pair], ARRAY['\x00ff'::bytea, '\x'],
   ARRAY['"a"=>"b", "c"=>NULL'::hstore], ARRAY['1 year -2 days 00:00:01.5'::interval], '{NaN,1.50,-0.00}', '{101,010}', '{1,0,NULL}', '{"1,234.50",-0.01}', ARRAY['(1,2)'::point], '{a,"\"","\\"}', '{n,"a b"}',
   ARRAY['infinity'::timestamp, '0044-03-15 BC'], '{12:00:00+05:30:15,24:00:00-15:59}', '{NaN,-Infinity,1.5}', ARRAY['', 'NULL', 'null', E'\\', '"', '{', '}', ',', ' ', E'\n\t', NULL, 'très'],
   ARRAY['<a>"</a>'::xml], '{1,""}', '{ab,"  "}', '{a.b,""}', '{Ab,"c d"}', '{"[1,5)",empty}', '{10.0.0.1/8,::1}', '{{sad,ok},{ok,"très heureux"}}'),
  (2, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}');
INSERT INTO types.lists (id) VALUES (3);
CREATE TABLE types.ends (id int PRIMARY KEY, d date, ts timestamp, tz timestamptz, iv interval, tt timetz, t time, f8 double precision, f4 real, n numeric, m money, i8 bigint);
INSERT INTO types.ends VALUES
  (-1, '4713-01-01 BC', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC', '-178956970 years -8 mons', '00:00:00+15:59:59', '24:00:00', 5e-324, 1e-45, '-0.00000', '-92233720368547758.08', -9223372036854775808),
  (-2, '5874897-12-31', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', interval '178956970 years 7 mons 2147483646 days 2147483647:00:00' + interval '414564141:00:54.775807', '24:00:00-15:59:59', '00:00:00.000001', 1.7976931348623157e308, 3.4028235e38, 1e1000, '92233720368547758.07', 9223372036854775807),
  (-3, '0001-12-31 BC', '0001-12-31 23:59:59.999999 BC', '0001-12-31 23:59:59.5+00 BC', interval '-2147483648 days -2147483647:00:00' - interval '414564141:00:54.775807', '12:00:00.5+00:00:01', '12:30', -0.0, -0.0, 1e-1000, '-0.99', 0),
  (-4, '10000-01-01', '10000-01-01', '10000-01-01 00:00+00', '1 mon -1 days +00:00:01', '01:02:03-00:30', '23:59:59.9', 1e15, 1e6, 123456789012345678901234567890.123456789, '0.05', -1),
  (-5, 'infinity', '-infinity', 'infinity', '-1 mons +1 day -00:00:00.000001', '00:00:00', '00:00', 123456789.123456789, 16777216, 'NaN', '1234567.89', 1);
INSERT INTO types.ends SELECT i,
  date '2000-01-01' + ((random() * 2 - 0.0008) * 1e9)::int,
  timestamp '2000-01-01' + (random() * 292000 * interval '1 year') - (random() * 6600 * interval '1 year') * (i % 2),
  timestamptz '2000-01-01 00:00+00' + (random() * random() * 292000 * interval '1 year'),
  make_interval(years => (random() * 2e5 - 1e5)::int * (i % 2), months => (random() * 100 - 50)::int, days => (random() * 1e6 - 5e5)::int * (i % 3), secs => (random() * 1e7 - 5e6) * (i % 5)),
  ((time '00:00' + random() * interval '1 day')::timetz) AT TIME ZONE make_interval(secs => ((random() - 0.5) * 110000)::int),
  time '00:00' + random() * interval '1 day',
  exp(random() * 1400 - 700) * (CASE WHEN i % 2 = 0 THEN 1 ELSE -1 END), exp(random() * 170 - 85)::real,
  (random() * 1e10)::numeric * power(10::numeric, (random() * 60 - 30)::int), (random() * 1e12 - 5e11)::numeric(20,2)::money,
  ((random() - 0.5) * 1.8e19)::numeric::bigint
  FROM generate_series(1, 1500) i;
CREATE TABLE types.blobs (id int PRIMARY KEY, b bytea, t text, big text);
INSERT INTO types.blobs SELECT i, decode(md5(i::text) || md5((i * 7)::text), 'hex'), translate(md5(i::text), '0123456', E'\\\t\n\r\x08\x0c\x0b'), CASE WHEN i % 10 = 0 THEN repeat(md5(i::text) || E'\\\n', 5000) END
  FROM generate_series(1, 300) i;
CREATE TABLE types.gen (a int, id int PRIMARY KEY, g int GENERATED ALWAYS AS (a * 2) STORED, b text);
INSERT INTO types.gen VALUES (1, 1), (2, 2);
CREATE TABLE types.nothing (id int PRIMARY KEY);
INSERT INTO types.nothing VALUES (1);
CREATE TABLE types.tree (id int, region text, v numeric(5,-2), PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE types.tree_a (v numeric(5,-2), region text NOT NULL, id int NOT NULL);
ALTER TABLE types.tree ATTACH PARTITION types.tree_a FOR VALUES IN ('a');
CREATE TABLE types.tree_b PARTITION OF types.tree FOR VALUES IN ('b');
INSERT INTO types.tree SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, i * 100 FROM generate_series(1, 50) i;
"#;

#[test]
fn every_type_by_snapshot_and_by_stream() {
    on_every_server("types", |lab| async move { every_type(lab).await });
}

async fn every_type(lab: Lab) {
    lab.run_each(WORKLOAD).await;
    // Negative scales came with 15.
    // Servers before it fail to print an interval whose hours have more than 31 bits.
    let more = if lab.version < 150_000 {
        MORE.replace("numeric(5,-2)", "numeric(9,2)").replace("'414564141:00:54.775807'", "'00:00:00'")
    } else {
        MORE.to_owned()
    };
    lab.run("SET search_path = pg_catalog, public").await;
    lab.run_each(&more).await;
    if lab.version >= 140_000 {
        lab.run(
            "CREATE TABLE types.new14 (id int PRIMARY KEY, mr int4multirange, mt tstzmultirange, n numeric, na numeric[]);
             INSERT INTO types.new14 VALUES (1, '{[1,3),[5,6)}', '{}', 'Infinity', '{Infinity,-Infinity,1}'), (2, NULL, NULL, '-Infinity', NULL)",
        )
        .await;
    }
    if lab.version >= 170_000 {
        lab.run("INSERT INTO types.ends (id, iv) VALUES (-10, 'infinity'), (-11, '-infinity')").await;
    }

    let found = lab.snapshotter.discover().await.unwrap();
    assert!(found.iter().all(|t| t.added), "the publication was made just now");
    let names: Vec<&str> = found.iter().map(|t| &*t.id.name).collect();
    for (table, keyed) in [("numbers", true), ("nokey", false), ("tree", true), ("Odd \"Name.s", true)] {
        assert!(found.iter().any(|t| &*t.id.name == table && t.keyed == keyed), "{table} in {found:?}");
    }
    assert!(!names.contains(&"tree_a"), "partitions are read through their root");
    assert!(lab.snapshotter.discover().await.unwrap().iter().all(|t| !t.added));
    // In 15 and later a publication can leave columns out; in 18 it can carry generated ones.
    if lab.version >= 150_000 {
        lab.run(
            "ALTER PUBLICATION types_pub DROP TABLE types.gen; ALTER PUBLICATION types_pub ADD TABLE types.gen (id, a)",
        )
        .await;
    }
    if lab.version >= 180_000 {
        lab.run("ALTER PUBLICATION types_pub SET (publish_generated_columns = stored)").await;
    }

    // The same rows written again, and read from the log.
    let session = lab.connector.connect().await.unwrap();
    session.query("SELECT pg_create_logical_replication_slot('types_slot', 'pgoutput', true)", &[]).await.unwrap();
    for table in &names {
        rewrite(&lab, table).await;
    }
    let messages = session
        .query(
            "SELECT data FROM pg_logical_slot_peek_binary_changes('types_slot', NULL, NULL, 'proto_version', '1', 'publication_names', 'types_pub')",
            &[],
        )
        .await
        .unwrap();
    let mut streamed: BTreeMap<String, Vec<pgoutput::Insert>> = BTreeMap::new();
    for insert in pgoutput::inserts(messages.iter().map(|r| r.get::<_, Vec<u8>>(0))) {
        streamed.entry(insert.relation.name.clone()).or_default().push(insert);
    }

    let selection = Selection::parse("p", &["types.*".into()], &[], &[], &mut Vec::new());
    let mut catalog = Catalog::load(&session, &selection, &lab.connector.config().database).await.unwrap();
    let mut reader = lab.reader().await;
    let mut compared = 0;
    for table in &names {
        if *table == "nokey" {
            continue;
        }
        let chunks = lab.read_by(&mut *reader, lab.request(table)).await;
        let schema = chunks[0].batch.tables[0].clone();
        let snapshot = rows(&chunks);

        // The snapshot's rows are the stream's rows, and both have one schema.
        let inserts = streamed.remove(*table).unwrap_or_default();
        assert_eq!(inserts.len(), snapshot.len(), "{table}");
        if let Some(first) = inserts.first() {
            let d = describe(&session, lab.version, "types_pub", "types", table).await.unwrap().unwrap();
            assert_eq!(d.relation, first.relation, "{table}");
            let bound = catalog.bind(&session, &mut Prepared::default(), &first.relation).await.unwrap();
            assert!(std::sync::Arc::ptr_eq(&bound.schema, &schema), "{table}: stream and snapshot have one schema");
        }
        let mut a = snapshot.clone();
        let mut b: Vec<_> = inserts.into_iter().map(|i| i.cells).collect();
        a.sort();
        b.sort();
        assert_eq!(a, b, "{table}: snapshot and stream");

        // What is decoded is what the server says in other ways.
        let key: Vec<String> =
            schema.key.iter().map(|i| format!("t.{}", quoted(&schema.columns[*i as usize].name))).collect();
        for (i, column) in schema.columns.iter().enumerate() {
            let sql =
                format!("SELECT {} FROM types.{} t ORDER BY {}", canon::column(column), quoted(table), key.join(", "));
            let want = session.query(&sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            assert_eq!(want.len(), snapshot.len());
            for (row, want) in snapshot.iter().zip(&want) {
                let got = row[i].as_ref().map(|bytes| {
                    canon::decoded(&column.decode, bytes).unwrap_or_else(|e| {
                        panic!("{table}.{}: {:?}: {e:?}", column.name, String::from_utf8_lossy(bytes))
                    })
                });
                let want: Option<String> = want.get(0);
                let raw = row[i].as_ref().map(|b| String::from_utf8_lossy(b).chars().take(200).collect::<String>());
                assert_eq!(got, want, "{table}.{} ({}) of {raw:?}", column.name, column.type_name);
                compared += 1;
            }
        }
    }
    assert!(streamed.keys().all(|k| k == "nokey"), "{:?}", streamed.keys());
    eprintln!("compared {compared} values of {} tables", names.len() - 1);
    schemas(&lab, &session, &mut catalog).await;
}

/// Deletes every row of a table and writes it again.
async fn rewrite(lab: &Lab, table: &str) {
    let columns: String = lab
        .client
        .query_one(
            "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
             JOIN pg_namespace n ON n.oid = relnamespace
             WHERE nspname = 'types' AND relname = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
            &[&table],
        )
        .await
        .unwrap()
        .get(0);
    let t = format!("types.{}", quoted(table));
    lab.run(&format!(
        "WITH d AS (DELETE FROM {t} RETURNING {columns}) INSERT INTO {t} ({columns}) SELECT {columns} FROM d"
    ))
    .await;
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Logical types, keys and names, where the golden record or the server's documentation fixes them.
async fn schemas(lab: &Lab, session: &tokio_postgres::Client, catalog: &mut Catalog) {
    let mut all: BTreeMap<String, (Type, String, bool)> = BTreeMap::new();
    let mut keys: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for table in
        ["numbers", "strings", "times", "others", "arrays", "keys", "nokey", "ident", "tree", "gen", "more", "lists"]
    {
        let d = describe(session, lab.version, "types_pub", "types", table).await.unwrap().unwrap();
        let schema = catalog.bind(session, &mut Prepared::default(), &d.relation).await.unwrap().schema;
        keys.insert(table, schema.key.iter().map(|i| schema.columns[*i as usize].name.to_string()).collect());
        for c in &schema.columns {
            all.insert(format!("{table}.{}", c.name), (c.ty.clone(), c.type_name.to_string(), c.nullable));
        }
    }
    let ty = |name: &str| all[name].0.clone();
    let type_name = |name: &str| all[name].1.clone();
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    assert_eq!(ty("numbers.n52"), decimal(5, 2));
    assert_eq!(ty("numbers.n"), Type::VarDecimal);
    assert_eq!(ty("numbers.dom"), decimal(10, 2));
    assert_eq!(type_name("numbers.dom"), "types.cents");
    assert_eq!(type_name("numbers.n52"), "numeric(5,2)");
    assert_eq!(ty("numbers.m"), Type::Money(2));
    assert_eq!(ty("numbers.o"), Type::I64);
    assert_eq!(ty("strings.h"), Type::Map);
    assert_eq!(ty("strings.lt"), Type::Ltree);
    assert_eq!(ty("strings.ci"), Type::Text);
    assert_eq!(ty("times.t3"), Type::Time(3));
    assert_eq!(ty("times.ts0"), Type::Timestamp(0));
    assert_eq!(type_name("times.ts0"), "timestamp(0) without time zone");
    assert_eq!(ty("others.b1"), Type::Bit1);
    assert_eq!(ty("others.vb"), Type::Bits(Some(20)));
    assert_eq!(ty("others.e"), Type::Enum(["sad".into(), "ok".into(), "très heureux".into()].into()));
    assert_eq!(ty("others.em"), Type::Text);
    assert_eq!(ty("arrays.an"), Type::Array(Box::new(decimal(10, 2))));
    assert_eq!(type_name("arrays.an"), "numeric(10,2)[]");
    assert_eq!(ty("lists.dd"), Type::Array(Box::new(Type::I32)));
    assert_eq!(ty("lists.ds"), Type::Array(Box::new(Type::Array(Box::new(Type::I32)))));
    assert_eq!(ty("more.iv"), Type::Other, "int2vector is no array");
    assert_eq!(ty("more.c2"), decimal(10, 2));
    assert_eq!(ty("tree.v"), if lab.version < 150_000 { decimal(9, 2) } else { decimal(5, -2) });
    assert!(!all["numbers.id"].2 && all["numbers.si"].2);
    assert_eq!(keys["keys"], ["b", "a"]);
    assert_eq!(keys["tree"], ["region", "id"]);
    assert_eq!(keys["ident"], ["id"], "the primary key, although the identity is another index");
    assert_eq!(keys["nokey"], Vec::<String>::new());
    let twice = all.keys().filter(|k| k.starts_with("gen.")).count();
    assert_eq!(twice, if lab.version < 150_000 { 3 } else { 2 }, "a column list leaves the rest out");
}
