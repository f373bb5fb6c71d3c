//! Every type and every kind of change of MySQL and MariaDB, as Debezium published them for the same workload.

use crate::{
    golden::{Recording, differences},
    mysql::MyStage,
    run::SOON,
    types::order_differences,
};
use seachange_testkit::{Config, unique};

/// One row of every kind of value, then the changes that trip CDC tools up.
pub const WORKLOAD: &str = include_str!("../../connectors/mysql/tests/workloads/mysql-types.sql");

/// Streams the workload, then reads it by a snapshot; both as the recordings have it.
async fn as_recorded(kind: &'static str, stream: Recording, strings: Option<Recording>, snapshot: Recording) {
    for stage in MyStage::every(kind).await {
        let kafka = Config::kafka(&stage.kafka.bootstrap);
        let (defaults, texts, read) = (unique("d"), unique("s"), unique("r"));
        let mut faults = Vec::new();
        let mut compare = async |recording, name: &str| {
            let (ours, prefix) = (stage.published(name).await, format!("{name}.types."));
            let clocks = ours.iter().filter(|s| s.value.as_deref().is_some_and(|v| v.contains("\"ts_ms\":0")));
            faults.extend(clocks.map(|s| format!("{recording:?}: a record of {} without a time", s.topic)));
            let found = differences(recording, &ours, &prefix);
            faults.extend(found.into_iter().map(|f| format!("{recording:?}: {f}")));
            let order = order_differences(recording, &ours, &prefix);
            faults.extend(order.into_iter().map(|f| format!("{recording:?}: {f}")));
        };
        let mut config = stage.pipeline(kafka.clone(), &defaults, "never", "debezium");
        if strings.is_some() {
            config = stage.pipeline(config, &texts, "never", "debezium");
            for (option, value) in [("decimal", "string"), ("time", "isostring"), ("binary", "base64")] {
                config = config.set(&format!("pipeline.{texts}.format.{option}"), value);
            }
        }
        let mut daemon = stage.start(&config).await;
        let followers = if strings.is_some() { vec![&*defaults, &*texts] } else { vec![&*defaults] };
        stage.script_before(WORKLOAD, &followers).await;
        stage.settled_by(&defaults).await;
        compare(stream, &defaults).await;
        if let Some(strings) = strings {
            stage.settled_by(&texts).await;
            compare(strings, &texts).await;
        }
        assert!(daemon.terminate(SOON).await.success());

        let mut daemon = stage.start(&stage.pipeline(kafka, &read, "initial", "debezium")).await;
        daemon.said("snapshot is complete", SOON).await;
        stage.settled_by(&read).await;
        compare(snapshot, &read).await;
        drop(daemon);
        assert!(faults.is_empty(), "{kind}: {} differences\n{}", faults.len(), faults.join("\n"));
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_as_recorded() {
    use Recording::*;
    as_recorded("mysql", MySqlStream, Some(MySqlStreamStrings), MySqlSnapshot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_as_recorded() {
    as_recorded("mariadb", Recording::MariaDbStream, None, Recording::MariaDbSnapshot).await;
}
