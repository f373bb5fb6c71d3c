//! Foreign keys that change rows by themselves: in the log, or said not to be.

mod common;

use common::servers;
use seachange_mysql::flavor::Flavor;
use seachange_sdk::Outcome;

const TABLES: &str = "CREATE TABLE p (id int PRIMARY KEY);
    CREATE TABLE c (id int PRIMARY KEY, p int, CONSTRAINT of_p FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE);
    CREATE TABLE still (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES p (id))";

#[tokio::test]
async fn rows_that_foreign_keys_change_are_in_the_log_or_warned_of() {
    for server in servers("rows_that_foreign_keys_change_are_in_the_log_or_warned_of") {
        let db = server.database("cascade").await;
        server.script(&db, TABLES).await;
        let mut stream = server.open(&[&format!("{db}.*")], None).await;
        server.script(&db, "INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (10, 1), (11, 1); DELETE FROM p WHERE id = 1; DELETE FROM p WHERE id = 2").await;
        let last = format!("d {db}.p {{id*: I64(2)}} -");
        let mut seen: Vec<String> = Vec::new();
        while !seen.contains(&last) {
            seen.extend(stream.next_changes().await);
        }
        let logged = seen.iter().filter(|l| l.starts_with(&format!("d {db}.c "))).count();
        let checks = server.configured(&[&format!("{db}.*")], 9).check().await;
        let warned: Vec<&str> = checks
            .iter()
            .filter_map(|c| match &c.outcome {
                Outcome::Warn(what, _) if what.contains("foreign key") => Some(what.as_str()),
                _ => None,
            })
            .collect();
        match logged {
            2 => assert!(warned.is_empty() && server.flavor == Flavor::MySql, "{warned:?}"),
            0 => {
                assert_eq!(warned.len(), 1, "{warned:?}");
                assert!(warned[0].contains("of_p") && warned[0].contains("ON DELETE CASCADE"), "{warned:?}");
            }
            n => panic!("{n} of 2 in the log: {seen:#?}"),
        }
    }
}
