//! A broker that speaks TLS, asks for a password and lets the account do only what `deploy/README.md` says to grant.

use crate::run::{SOON, Stage};
use seachange_testkit::{Config, Daemon, servers, skip};
use std::process::Output;

/// What `deploy/README.md` says, for this pipeline, as arguments of Kafka's own tool.
fn documented(pipeline: &str) -> Vec<Vec<String>> {
    let text = include_str!("../../deploy/README.md");
    let commands = text.lines().filter_map(|l| l.trim().strip_prefix("kafka-acls.sh "));
    let args = |c: &str| {
        // The document's pipeline is called shop.
        let words = c.split(' ').map(|w| match w {
            "shop." => format!("{pipeline}."),
            w => w.replace("seachange.shop", &format!("seachange.{pipeline}")),
        });
        words.collect()
    };
    commands.map(args).collect()
}

fn secured(stage: &Stage, password: &str) -> Option<Config> {
    let (Ok(address), Ok(ca)) =
        (std::env::var("SEACHANGE_TEST_KAFKA_SECURE"), std::env::var("SEACHANGE_TEST_KAFKA_CA"))
    else {
        skip("SEACHANGE_TEST_KAFKA_SECURE and SEACHANGE_TEST_KAFKA_CA are not set");
        return None;
    };
    let property = |c: Config, name: &str, value: &str| c.set(&format!("kafka.properties.\"{name}\""), value);
    let mut c = stage.config(&["public.t"]).set("kafka.bootstrap", address).env("SEA_PASSWORD", password);
    for (name, value) in [
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", ca.as_str()),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "seachange"),
        ("sasl.password", "${env:SEA_PASSWORD}"),
    ] {
        c = property(c, name, value);
    }
    Some(c)
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secured_broker_with_the_documented_grants() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')";
    let Some(stage) = Stage::set(15, sql).await else { return };
    let Some(config) = secured(&stage, "sea-secret") else { return };

    // A wrong password: said by check and by the daemon, and never repeated.
    let mut wrong = Daemon::start(&secured(&stage, "wrong-secret").expect("as above"));
    let said = wrong.said("uthentication", SOON).await;
    assert!(!said.contains("wrong-secret"), "{said}");
    drop(wrong);

    // No grants yet: what is missing is named.
    let mut daemon = Daemon::start(&config);
    let said = daemon.said("kafka-acls --add", SOON).await;
    assert!(said.contains(&format!("topic __seachange.{}", stage.name)), "{said}");
    for args in documented(&stage.name) {
        let args: Vec<&str> =
            ["tool", "org.apache.kafka.tools.AclCommand"].into_iter().chain(args.iter().map(|a| &**a)).collect();
        servers::kafka_script(&stage.kafka, &args);
    }
    // What waits for an operator is tried again by a new start.
    daemon.restart();
    daemon.ready(SOON).await;
    stage.sql("INSERT INTO t VALUES (2, 'b')").await;
    let rows = stage.wait("public.t", 2).await;
    assert_eq!(rows.len(), 2);
    // Killed while it works, it reads its state back under the same grants.
    daemon.restart();
    stage.sql("INSERT INTO t VALUES (3, 'c')").await;
    stage.wait("public.t", 3).await;
    stage.settled().await;
    assert_eq!(stage.read("public.t").await.len(), 3);
    let checked = daemon.command(&["check"]).output().expect("check runs");
    assert!(checked.status.success(), "{}", text(&checked));
    assert!(!text(&checked).contains("sea-secret"));
    assert!(!daemon.log().contains("sea-secret"));
}
