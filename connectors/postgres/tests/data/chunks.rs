//! Reading in chunks: every row once, whatever the key; one visibility snapshot a chunk; shapes that change meanwhile.

use crate::lab::{Lab, connect, on_every_server, rows};
use bytes::Bytes;
use seachange_postgres::position::PgFence;
use seachange_sdk::{ChunkReader, ChunkRequest, Kind, Range, Snapshotter};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Waits for a condition, not for time.
async fn until<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Keys that are hard to walk: what they are, and an expression over `i` that makes distinct ones.
const KEYS: &[(&str, &str)] = &[
    ("k_int", "k int PRIMARY KEY|i * 7 - 1000"),
    ("k_big", "k bigint PRIMARY KEY|(i - 150) * 61489146912274000"),
    ("k_uuid", "k uuid PRIMARY KEY|md5(i::text)::uuid"),
    ("k_text", "k text PRIMARY KEY|translate(md5(i::text), '0123', E'\\'\\\\\"\\n')"),
    ("k_coll", "k text COLLATE \"C\" PRIMARY KEY|CASE WHEN i % 2 = 0 THEN upper(md5(i::text)) ELSE md5(i::text) END"),
    ("k_lang", "k text COLLATE chunk_keys.lang PRIMARY KEY|chr(200 + i) || (i % 7)"),
    ("k_num", "k numeric PRIMARY KEY|CASE i WHEN 1 THEN 'NaN'::numeric ELSE (i - 100) * 1.000000000000000000001 END"),
    (
        "k_float",
        "k double precision PRIMARY KEY|CASE i WHEN 1 THEN 'NaN' WHEN 2 THEN 'Infinity' WHEN 3 THEN '-Infinity' ELSE (i - 100) / 3.0::float8 END",
    ),
    ("k_bytea", "k bytea PRIMARY KEY|decode(md5(i::text), 'hex')"),
    (
        "k_ts",
        "k timestamptz PRIMARY KEY|CASE i WHEN 1 THEN 'infinity' WHEN 2 THEN '0044-03-15 BC'::timestamptz ELSE '2024-01-01 00:00+00'::timestamptz + i * interval '1.000001 s' END",
    ),
    ("k_date", "k date PRIMARY KEY|CASE i WHEN 1 THEN '-infinity' ELSE '2024-01-01'::date + i END"),
    ("k_char", "k char(12) PRIMARY KEY|to_hex(i)"),
    ("k_citext", "k public.citext PRIMARY KEY|CASE WHEN i % 2 = 0 THEN upper(md5(i::text)) ELSE md5(i::text) END"),
    ("k_ltree", "k public.ltree PRIMARY KEY|('a' || (i % 5) || '.b' || i)::public.ltree"),
    ("k_inet", "k inet PRIMARY KEY|'10.0.0.0'::inet + i * 77"),
    ("k_bits", "k bit varying PRIMARY KEY|i::bit(12)::varbit"),
    ("k_array", "k int[] PRIMARY KEY|ARRAY[i % 10, i]"),
    ("k_iv", "k interval PRIMARY KEY|make_interval(days => i - 100, secs => i)"),
    ("k_row", "a int, b text, c boolean, PRIMARY KEY (b, c, a)|i, 'b' || (i % 3), i % 2 = 0"),
    (
        "k_mixed",
        "a public.citext, b uuid, PRIMARY KEY (a, b)|CASE WHEN i % 2 = 0 THEN 'AB' ELSE 'ba' END, md5(i::text)::uuid",
    ),
    (
        "k_wide",
        "a numeric(10,2), b timestamp(3), c \"char\", PRIMARY KEY (c, b, a)|i / 4, '2024-01-01'::timestamp + (i % 13) * interval '1 ms', chr(60 + i % 5)::\"char\"",
    ),
    ("k_unique", "v text, k int NOT NULL UNIQUE|'x', i"),
    ("Odd \"k.\\", "\"I'd \\ \"\"x\" text PRIMARY KEY|'o''' || i"),
];

#[test]
fn every_row_once_whatever_the_key() {
    on_every_server("chunk_keys", |lab| async move {
        // A language's order where the server has ICU, else the plain one under another name.
        let icu = "CREATE COLLATION chunk_keys.lang (provider = icu, locale = 'de')";
        if let Err(e) = lab.client.batch_execute(icu).await {
            eprintln!("no ICU: {e}");
            lab.run("CREATE COLLATION chunk_keys.lang FROM \"C\"").await;
        }
        for (table, shape) in KEYS {
            let (columns, values) = shape.split_once('|').unwrap();
            let quoted = table.replace('"', "\"\"");
            lab.run(&format!(
                "CREATE TABLE chunk_keys.\"{quoted}\" ({columns}, pad text DEFAULT 'p'); \
                 INSERT INTO chunk_keys.\"{quoted}\" SELECT {values} FROM generate_series(1, 120) i"
            ))
            .await;
        }
        lab.run(
            "CREATE TYPE chunk_keys.level AS ENUM ('low', 'mid', 'high'); CREATE DOMAIN chunk_keys.code AS text;
             CREATE TABLE chunk_keys.k_enum (e chunk_keys.level, d chunk_keys.code, PRIMARY KEY (e, d));
             INSERT INTO chunk_keys.k_enum SELECT (enum_range(NULL::chunk_keys.level))[1 + i % 3], 'c' || i FROM generate_series(1, 120) i;
             CREATE TABLE chunk_keys.parent (id int PRIMARY KEY, t text); CREATE TABLE chunk_keys.child () INHERITS (chunk_keys.parent);
             INSERT INTO chunk_keys.parent SELECT i, 'parent' FROM generate_series(1, 120) i; INSERT INTO chunk_keys.child VALUES (1, 'child');
             CREATE TABLE chunk_keys.parts (id int, r int, PRIMARY KEY (id, r)) PARTITION BY HASH (r);
             CREATE TABLE chunk_keys.parts0 PARTITION OF chunk_keys.parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE chunk_keys.parts1 PARTITION OF chunk_keys.parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO chunk_keys.parts SELECT i, i % 17 FROM generate_series(1, 120) i",
        )
        .await;
        let mut tables: Vec<&str> = KEYS.iter().map(|(t, _)| *t).collect();
        tables.extend(["k_enum", "parent", "parts"]);
        lab.snapshotter.discover().await.unwrap();
        let mut reader = lab.reader().await;
        for analyzed in [false, true] {
            for table in &tables {
                let whole = rows(&lab.read_by(&mut *reader, lab.request(table)).await);
                assert_eq!(whole.len(), 120, "{table}");
                assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), 120, "{table}");
                let sizes: &[(usize, usize)] = match (analyzed, *table) {
                    (false, "k_int" | "k_mixed") => &[(1, 1 << 20)],
                    (false, _) => &[(7, 1 << 20), (60, 1 << 20), (1000, 250)],
                    (true, _) => &[(50, 1000)],
                };
                for (size, bytes) in sizes.iter().copied() {
                    let chunks =
                        lab.read_by(&mut *reader, ChunkRequest { rows: size, bytes, ..lab.request(table) }).await;
                    assert_eq!(rows(&chunks), whole, "{table} in chunks of {size} rows or {bytes} bytes");
                }
                let parts = lab.snapshotter.split(&lab.id(table), 4).await.unwrap();
                let mut split = Vec::new();
                for range in &parts {
                    let request = ChunkRequest { range: range.clone(), rows: 40, ..lab.request(table) };
                    split.extend(rows(&lab.read_by(&mut *reader, request).await));
                }
                assert_eq!(split, whole, "{table} in {} ranges", parts.len());
                if analyzed && *table != "k_array" {
                    // A leading column of few values has none.
                    assert!(
                        parts.len() > 1 || ["k_row", "k_wide", "k_mixed", "k_enum"].contains(table),
                        "{table}: {parts:?}"
                    );
                }
                by_key(&lab, &mut *reader, table, &whole).await;
            }
            for table in &tables {
                lab.run(&format!("ANALYZE chunk_keys.\"{}\"", table.replace('"', "\"\""))).await;
            }
        }
    });
}

async fn by_key(lab: &Lab, reader: &mut dyn ChunkReader, table: &str, whole: &[Vec<Option<Vec<u8>>>]) {
    let chunk = reader.read(&ChunkRequest { rows: 500, ..lab.request(table) }).await.unwrap();
    let mut wanted = BTreeSet::new();
    let keys: Vec<Bytes> = (0..chunk.batch.changes.len())
        .step_by(9)
        .map(|i| {
            wanted.insert(whole[i].clone());
            reader.key(&chunk.batch, i).unwrap()
        })
        .collect();
    let described = lab.snapshotter.describe_key(&keys[0]);
    assert!(described.starts_with('('), "{described}");
    let again = reader.read(&ChunkRequest { keys, ..lab.request(table) }).await.unwrap();
    assert_eq!(again.last, None);
    assert_eq!(rows(&[again]).into_iter().collect::<BTreeSet<_>>(), wanted, "{table} by key");
}

#[test]
fn integer_keys_are_split_evenly_without_a_histogram() {
    on_every_server("chunk_split", |lab| async move {
        lab.run("CREATE TABLE chunk_split.t (id bigint PRIMARY KEY); INSERT INTO chunk_split.t SELECT generate_series(1, 1000);
                 CREATE TABLE chunk_split.empty (id bigint PRIMARY KEY); CREATE TABLE chunk_split.nokey (id bigint);
                 CREATE TABLE chunk_split.far (id bigint PRIMARY KEY); INSERT INTO chunk_split.far VALUES (-9223372036854775808), (9223372036854775807)").await;
        lab.snapshotter.discover().await.unwrap();
        let parts = lab.snapshotter.split(&lab.id("t"), 4).await.unwrap();
        assert_eq!(parts.len(), 4);
        for p in &parts {
            let n = rows(&lab.read(ChunkRequest { range: p.clone(), ..lab.request("t") }).await).len();
            assert!((240..=260).contains(&n), "{n} rows in a quarter");
        }
        for (table, n) in [("empty", 0), ("far", 2)] {
            let parts = lab.snapshotter.split(&lab.id(table), 3).await.unwrap();
            let mut got = 0;
            for p in parts {
                got += rows(&lab.read(ChunkRequest { range: p, ..lab.request(table) }).await).len();
            }
            assert_eq!(got, n, "{table}");
        }
        assert_eq!(lab.snapshotter.split(&lab.id("nokey"), 4).await.unwrap(), [Range::default()]);
        assert_eq!(lab.snapshotter.split(&lab.id("t"), 1).await.unwrap(), [Range::default()]);
    });
}

#[test]
fn a_chunk_sees_exactly_what_its_fence_sees() {
    on_every_server("chunk_fence", |lab| async move {
        lab.run(
            "CREATE TABLE chunk_fence.t (id int PRIMARY KEY, tx bigint DEFAULT txid_current(), n int DEFAULT 0);
             INSERT INTO chunk_fence.t (id) SELECT generate_series(1, 2000)",
        )
        .await;
        lab.snapshotter.discover().await.unwrap();
        // A transaction that stays open: none of its rows may be seen, and no fence may see it.
        let open = connect(&lab.url).await;
        open.batch_execute("BEGIN; INSERT INTO chunk_fence.t SELECT generate_series(9001, 9010); UPDATE chunk_fence.t SET n = -1, tx = txid_current() WHERE id = 5").await.unwrap();
        let hidden: i64 = open.query_one("SELECT txid_current()", &[]).await.unwrap().get(0);
        let hidden = u64::try_from(hidden).unwrap();
        // Others that end all the time: move rows about, insert and delete behind and before the reader.
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let wrote = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let writers: Vec<_> = (0..3)
            .map(|w| {
                let (url, stop, wrote) = (lab.url.clone(), stop.clone(), wrote.clone());
                tokio::spawn(async move {
                    let client = connect(&url).await;
                    let mut n = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        n += 1;
                        let id = (n * 37 + w * 701) % 1900 + 10;
                        client
                            .batch_execute(&format!(
                                "BEGIN; UPDATE chunk_fence.t SET n = n + 1, tx = txid_current() WHERE id IN ({id}, {}); COMMIT; \
                                 INSERT INTO chunk_fence.t (id) VALUES ({}) ON CONFLICT (id) DO UPDATE SET n = -7, tx = txid_current(); \
                                 DELETE FROM chunk_fence.t WHERE id = {}",
                                (id + 950) % 1900 + 10,
                                2100 + n % 500 + w * 500,
                                2100 + (n * 3) % 500 + w * 500,
                            ))
                            .await
                            .unwrap();
                        wrote.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let mut reader = lab.reader().await;
        let mut request = ChunkRequest { rows: 50, ..lab.request("t") };
        let mut seen: BTreeMap<i64, usize> = BTreeMap::new();
        let mut before = 0;
        loop {
            let chunk = reader.read(&request).await.unwrap();
            let fence = PgFence::decode(&chunk.fence).unwrap();
            assert!(!fence.sees(hidden));
            assert!(fence.lsn >= before, "fences go forward");
            before = fence.lsn;
            assert!(chunk.batch.changes.iter().all(|c| c.at == fence.lsn));
            let txn = &chunk.batch.txns[0];
            assert!(txn.id == 0 && txn.ts_us > 1_700_000_000_000_000 && chunk.batch.txns.len() == 1);
            for row in rows(std::slice::from_ref(&chunk)) {
                let number = |i: usize| std::str::from_utf8(row[i].as_ref().unwrap()).unwrap().parse::<i64>().unwrap();
                assert!(fence.sees(u64::try_from(number(1)).unwrap()), "a row of a transaction that the fence hides");
                assert!(number(2) != -1, "an open transaction's update");
                *seen.entry(number(0)).or_default() += 1;
            }
            match chunk.last {
                Some(last) => request.range.after = Some(last),
                None => break,
            }
            // Between any two chunks the table changes, however slow the machine.
            let before = wrote.load(std::sync::atomic::Ordering::Relaxed);
            until("the writers write", async || wrote.load(std::sync::atomic::Ordering::Relaxed) > before + 3).await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for w in writers {
            w.await.unwrap();
        }
        assert!((1..=2000).all(|id| seen.get(&id) == Some(&1)), "each row that was there all the time, once");
        assert!(seen.values().all(|n| *n == 1) && !seen.contains_key(&9001));
        // The log's position is behind the commits that were seen.
        open.batch_execute("COMMIT").await.unwrap();
        request.range = Range::default();
        let fence = PgFence::decode(&reader.read(&request).await.unwrap().fence).unwrap();
        assert!(fence.sees(hidden));
    });
}

#[test]
fn a_shape_that_changes_between_chunks() {
    on_every_server("chunk_shape", |lab| async move {
        lab.run("CREATE TABLE chunk_shape.t (id int PRIMARY KEY, a int); INSERT INTO chunk_shape.t SELECT i, i FROM generate_series(1, 100) i").await;
        lab.snapshotter.discover().await.unwrap();
        let mut reader = lab.reader().await;
        let mut request = ChunkRequest { rows: 10, ..lab.request("t") };
        let mut shapes = Vec::new();
        let mut all = 0;
        for change in [
            "SELECT 1",
            "ALTER TABLE chunk_shape.t ADD COLUMN b text DEFAULT 'filled'",
            "ALTER TABLE chunk_shape.t ALTER COLUMN a TYPE bigint",
            "ALTER TABLE chunk_shape.t RENAME COLUMN b TO bb",
            "ALTER TABLE chunk_shape.t DROP COLUMN a",
            "VACUUM FULL chunk_shape.t",
            "ALTER TABLE chunk_shape.t ALTER COLUMN id TYPE numeric",
        ] {
            lab.run(change).await;
            let chunk = reader.read(&request).await.unwrap();
            let schema = &chunk.batch.tables[0];
            let columns: Vec<String> = schema.columns.iter().map(|c| format!("{} {}", c.name, c.type_name)).collect();
            shapes.push((schema.version, columns.join(", ")));
            assert_eq!(rows(std::slice::from_ref(&chunk)).len(), 10, "after {change}");
            all += 10;
            request.range.after = chunk.last;
        }
        assert_eq!(all, 70);
        let texts: Vec<&str> = shapes.iter().map(|s| s.1.as_str()).collect();
        assert_eq!(
            texts,
            [
                "id integer, a integer",
                "id integer, a integer, b text",
                "id integer, a bigint, b text",
                "id integer, a bigint, bb text",
                "id integer, bb text",
                "id integer, bb text",
                "id numeric, bb text",
            ]
        );
        assert!(
            shapes.windows(2).all(|w| if w[0].1 == w[1].1 { w[0].0 == w[1].0 } else { w[0].0 < w[1].0 }),
            "{shapes:?}"
        );
        // A table rewritten or emptied while a chunk waits for it is seen as it is after that, never as an empty shadow.
        let other = connect(&lab.url).await;
        other
            .batch_execute("BEGIN; ALTER TABLE chunk_shape.t ADD COLUMN r text DEFAULT clock_timestamp()::text")
            .await
            .unwrap();
        let waiting = tokio::spawn(async move {
            let chunk = reader.read(&request).await;
            (chunk, reader, request)
        });
        until("the chunk waits for the lock", async || {
            let n: i64 = lab
                .client
                .query_one(
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'chunk_shape.t'::regclass",
                    &[],
                )
                .await
                .unwrap()
                .get(0);
            n == 1
        })
        .await;
        other.batch_execute("COMMIT").await.unwrap();
        let (chunk, mut reader, request) = waiting.await.unwrap();
        let chunk = chunk.unwrap();
        assert_eq!(rows(std::slice::from_ref(&chunk)).len(), 10);
        assert_eq!(chunk.batch.tables[0].columns.len(), 3);
        // A key of other columns: the place in the table is lost, and that is said.
        lab.run("ALTER TABLE chunk_shape.t DROP CONSTRAINT t_pkey; ALTER TABLE chunk_shape.t ADD COLUMN k uuid DEFAULT gen_random_uuid() PRIMARY KEY").await;
        let e = reader.read(&request).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Schema, "{e:?}");
        assert!(!format!("{e:?}").contains("70"), "no value in {e:?}");
        lab.run("DROP TABLE chunk_shape.t").await;
        let e = reader.read(&request).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Schema, "{e:?}");
    });
}

#[test]
fn a_table_without_a_key_is_read_in_pieces_of_one_snapshot() {
    on_every_server("chunk_whole", |lab| async move {
        lab.run("CREATE TABLE chunk_whole.t (a int, b text); ALTER TABLE chunk_whole.t REPLICA IDENTITY FULL; INSERT INTO chunk_whole.t SELECT i / 2, repeat('x', 1000) FROM generate_series(1, 20000) i;
                 CREATE TABLE chunk_whole.empty (a int)").await;
        lab.snapshotter.discover().await.unwrap();
        let mut reader = lab.reader().await;
        let request = ChunkRequest { rows: 3000, bytes: 1_500_000, ..lab.request("t") };
        let mut chunks = Vec::new();
        loop {
            let chunk = reader.read_whole(&request).await.unwrap();
            assert!(chunk.batch.bytes < 1_600_000);
            if chunks.is_empty() {
                lab.run(
                    "INSERT INTO chunk_whole.t VALUES (-1, 'late'); UPDATE chunk_whole.t SET a = -2 WHERE a > 9000",
                )
                .await;
            }
            let last = chunk.last.is_none();
            chunks.push(chunk);
            if last {
                break;
            }
        }
        assert!(chunks.len() > 10 && chunks.iter().all(|c| c.fence == chunks[0].fence));
        let mut got = rows(&chunks);
        assert_eq!(got.len(), 20_000);
        got.sort();
        assert!(got.iter().all(|r| !r[0].as_ref().unwrap().starts_with(b"-")), "later changes are not seen");
        // And again, which begins a new snapshot.
        let again = reader.read_whole(&request).await.unwrap();
        assert_ne!(again.fence, chunks[0].fence);
        let empty = reader.read_whole(&lab.request("empty")).await.unwrap();
        assert!(empty.last.is_none() && empty.batch.changes.is_empty());
        // A piece whose read is dropped half-way is an error, not a hole.
        reader.read_whole(&request).await.unwrap();
        let rest = ChunkRequest { rows: 20_000, bytes: 1 << 30, ..request.clone() };
        if tokio::time::timeout(Duration::from_micros(1), reader.read_whole(&rest)).await.is_err() {
            let e = reader.read_whole(&request).await.expect_err("rows were lost silently");
            assert!(e.what().contains("interrupted"), "{e:?}");
        }
        // A chunk whose read is dropped leaves nothing behind that the next would meet.
        lab.run("CREATE TABLE chunk_whole.k (id int PRIMARY KEY); INSERT INTO chunk_whole.k SELECT generate_series(1, 1000)").await;
        lab.snapshotter.discover().await.unwrap();
        for us in [1, 300, 1000, 3000] {
            let request = lab.request("k");
            if tokio::time::timeout(Duration::from_micros(us), reader.read(&request)).await.is_err() {
                lab.run("DELETE FROM chunk_whole.k WHERE id = (SELECT max(id) FROM chunk_whole.k)").await;
            }
            let left: i64 = lab.client.query_one("SELECT count(*) FROM chunk_whole.k", &[]).await.unwrap().get(0);
            let chunk = reader.read(&request).await.unwrap();
            assert_eq!(chunk.batch.changes.len() as i64, left, "after a read dropped within {us} us");
        }
        // Given up in the middle: the server's side ends too.
        reader.read_whole(&request).await.unwrap();
        drop(reader);
        until("the COPY ends", async || {
            let n: i64 = lab
                .client
                .query_one(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%chunk_whole%' AND state = 'active'",
                    &[],
                )
                .await
                .unwrap()
                .get(0);
            n == 0
        })
        .await;
    });
}

#[test]
fn limits_of_bytes() {
    on_every_server("chunk_bytes", |lab| async move {
        lab.run(
            "CREATE TABLE chunk_bytes.t (id int PRIMARY KEY, t text);
             INSERT INTO chunk_bytes.t SELECT i, CASE WHEN i BETWEEN 3000 AND 3100 THEN repeat('x', 300000) ELSE 'small' END FROM generate_series(1, 6000) i",
        )
        .await;
        lab.snapshotter.discover().await.unwrap();
        let request = ChunkRequest { rows: 5000, bytes: 1 << 20, ..lab.request("t") };
        let chunks = lab.read(request.clone()).await;
        assert_eq!(rows(&chunks).len(), 6000);
        assert!(chunks.iter().all(|c| c.batch.bytes < (1 << 20) + 300_100), "no chunk is much over its limit");
        assert!(chunks.len() > 20 && chunks.len() < 60, "{}", chunks.len());
        let mut reader = lab.reader().await;
        let mut small = ChunkRequest { row_bytes: 100_000, ..request.clone() };
        let mut read = 0;
        let e = loop {
            match reader.read(&small).await {
                Ok(chunk) => {
                    read += chunk.batch.changes.len();
                    small.range.after = chunk.last;
                    assert!(small.range.after.is_some(), "the large rows were not met");
                }
                Err(e) => break e,
            }
        };
        assert!(read < 3000, "{read} rows before the large ones");
        assert_eq!(e.kind(), Kind::Limit, "{e:?}");
        assert!(e.what().contains("chunk_bytes.t") && e.remedy().is_some() && !e.what().contains("xxx"), "{e:?}");
        // The reader is still of use.
        assert!(reader.read(&request).await.unwrap().batch.changes.len() > 1000);
    });
}

#[test]
fn settle_waits_for_what_was_open() {
    on_every_server("chunk_settle", |lab| async move {
        lab.run("CREATE TABLE chunk_settle.t (id int PRIMARY KEY)").await;
        let open = connect(&lab.url).await;
        open.batch_execute("BEGIN; INSERT INTO chunk_settle.t VALUES (1)").await.unwrap();
        let settle = lab.snapshotter.settle();
        tokio::pin!(settle);
        // It has its bound when it asks again and again for what is in progress; it waits as long as the transaction is open.
        tokio::select! {
            early = &mut settle => panic!("it did not wait: {early:?}"),
            () = until("it asks", async || {
                let asks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_snapshot_xmin%'";
                lab.client.query_one(asks, &[]).await.unwrap().get::<_, i64>(0) > 0
            }) => {}
        }
        // A later one does not matter.
        let late = connect(&lab.url).await;
        late.batch_execute("BEGIN; INSERT INTO chunk_settle.t VALUES (2)").await.unwrap();
        open.batch_execute("COMMIT").await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), settle).await.unwrap().unwrap();
        late.batch_execute("ROLLBACK").await.unwrap();
    });
}

#[test]
fn row_filters_of_the_publication() {
    on_every_server("chunk_filter", |lab| async move {
        if lab.version < 150_000 {
            return;
        }
        lab.run(
            "CREATE FUNCTION chunk_filter.even(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 % 2 = 0';
             CREATE TABLE chunk_filter.t (id int PRIMARY KEY, keep boolean, c public.citext);
             INSERT INTO chunk_filter.t SELECT i, i % 2 = 0, 'X' FROM generate_series(1, 100) i;
             CREATE TABLE chunk_filter.u (k public.citext PRIMARY KEY, keep boolean);
             INSERT INTO chunk_filter.u SELECT 'k' || i, i % 2 = 0 FROM generate_series(1, 100) i;
             CREATE PUBLICATION chunk_filter_pub FOR TABLE chunk_filter.t WHERE (keep OR id = 99), chunk_filter.u WHERE (keep)",
        )
        .await;
        assert_eq!(lab.snapshotter.discover().await.unwrap().len(), 2);
        for (table, n) in [("t", 51), ("u", 50)] {
            let got = rows(&lab.read(ChunkRequest { rows: 7, ..lab.request(table) }).await);
            assert_eq!(got.len(), n, "{table}");
        }
    });
}

#[test]
fn rows_are_estimated_by_what_analyze_left() {
    on_every_server("estimates", |lab| async move {
        lab.run(
            "CREATE TABLE estimates.known (id int PRIMARY KEY);
             INSERT INTO estimates.known SELECT generate_series(1, 1000);
             CREATE TABLE estimates.parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE estimates.low PARTITION OF estimates.parts FOR VALUES FROM (0) TO (100);
             CREATE TABLE estimates.high PARTITION OF estimates.parts FOR VALUES FROM (100) TO (1000) PARTITION BY RANGE (id);
             CREATE TABLE estimates.higher PARTITION OF estimates.high FOR VALUES FROM (100) TO (500);
             CREATE TABLE estimates.rest PARTITION OF estimates.high DEFAULT;
             INSERT INTO estimates.parts SELECT generate_series(50, 549);
             ANALYZE estimates.known, estimates.low, estimates.higher, estimates.rest;
             CREATE TABLE estimates.empty (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE estimates.fresh (id int PRIMARY KEY);
             CREATE TABLE estimates.written (id int PRIMARY KEY);
             INSERT INTO estimates.written SELECT generate_series(1, 7);",
        )
        .await;
        // 13 takes what was never analysed for empty; 15 and newer can be told to count what was written at once.
        let counts = lab.version >= 150_000;
        if counts {
            lab.run("SELECT pg_stat_force_next_flush()").await;
        }
        let written = Some(if counts { 7 } else { 0 });
        let found = lab.snapshotter.discover().await.unwrap();
        let found: Vec<_> = found.iter().map(|t| (&*t.id.name, t.rows_estimate)).collect();
        assert_eq!(
            found,
            [("empty", None), ("fresh", Some(0)), ("known", Some(1000)), ("parts", Some(500)), ("written", written)]
        );
    });
}
