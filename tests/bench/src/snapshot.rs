//! A table that is already there: read by the daemon, and by a client that throws the rows away.

use crate::{
    case::{Case, Kind},
    drain::{self, record_bytes},
    load::Load,
    measure::{Meter, round, server},
    rig::Rig,
};
use futures_util::StreamExt;
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};

/// Seconds that `COPY orders TO STDOUT` or `SELECT * FROM orders` takes when nobody looks at the rows.
async fn to_nowhere(load: &Load) -> f64 {
    match load {
        Load::Postgres(l) => {
            let client = l.db.connect().await;
            let began = std::time::Instant::now();
            let mut rows = std::pin::pin!(client.copy_out("COPY orders TO STDOUT").await.expect("COPY"));
            while let Some(chunk) = rows.next().await {
                chunk.expect("a row");
            }
            began.elapsed().as_secs_f64()
        }
        Load::Binlog(l) => {
            let mut conn = l.session().await;
            let began = std::time::Instant::now();
            let mut rows = conn.query_iter("SELECT * FROM orders").await.expect("SELECT");
            while rows.next().await.expect("a row").is_some() {}
            drop(rows);
            let took = began.elapsed().as_secs_f64();
            drop(conn.disconnect().await);
            took
        }
    }
}

pub async fn measure(kind: Kind, rows: u64) -> Value {
    let case = Case { rows, tx: 10_000, ..Case::new(kind) };
    let rig = Rig::new(&case).await;
    rig.load.write(&case).await;
    rig.load.settle().await;
    let pipelines = rig.pipelines(&case, 0);
    let topics = rig.topics(&case, &pipelines);
    let mut out = drain::run(&rig, &case, &pipelines, "initial", &topics).await;
    let bytes = record_bytes(&topics.sample(2000));
    topics.delete().await;
    let meter = Meter::new(0, server(kind.name()));
    let seconds = to_nowhere(&rig.load).await;
    let used = meter.usage();
    rig.end().await;
    out.insert("mb_s".into(), json!(round(bytes * out["rows_s"].as_f64().unwrap_or(0.0) / 1e6)));
    for (name, value) in [
        ("bench", json!("snapshot")),
        ("db", json!(kind.name())),
        ("rows", json!(rows)),
        (
            "source_limit",
            json!({ "rows_s": round(rows as f64 / seconds), "database_us_row": round(1e6 * used.database / rows as f64),
                "reader_us_row": round(1e6 * used.own / rows as f64), "others": round(used.others()) }),
        ),
    ] {
        out.insert(name.into(), value);
    }
    Value::Object(out)
}
