//! The stream against real servers. `SEACHANGE_TEST_MYSQL` and `SEACHANGE_TEST_MARIADB` hold URLs of accounts that may do
//! everything; without them these tests say that they were skipped.

mod common;

use common::{Server, servers};
use seachange_sdk::{Cut, Limit};

/// Runs the workload given by SEACHANGE_TEST_WORKLOAD and prints what the stream gives: for people.
#[tokio::test]
async fn show_workload() {
    let Ok(path) = std::env::var("SEACHANGE_TEST_WORKLOAD") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    for server in servers("show_workload") {
        let db = server.database("show").await;
        let mut stream = server.open(&[&format!("{db}.*")], None).await;
        server.script(&db, &text).await;
        server.script(&db, "CREATE TABLE zz_end (id int primary key); INSERT INTO zz_end VALUES (1);").await;
        let seen = stream.until(&format!("{db}.zz_end")).await;
        for line in &seen {
            println!("{line}");
        }
    }
    let _ = (Cut::Open, Limit { bytes: 1, changes: 1, row_bytes: 1, txn_tables: false });
    let _: Option<Server> = None;
}
