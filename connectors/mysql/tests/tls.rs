//! What each `sslmode` verifies, and how accounts prove who they are: on the replication connection and on SQL sessions alike.

mod common;

use common::{DEADLINE, Server, servers};
use mysql_async::prelude::Queryable;
use seachange_mysql::flavor::Flavor;
use seachange_sdk::{Check, Configured, Connector, Kind, Outcome, Retry};
use std::{path::PathBuf, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One at a time: all register as the same replica.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn configured(server: &Server, user: &str, more: &str) -> Arc<dyn Configured> {
    configured_by(server, user, "pw", more)
}

fn configured_by(server: &Server, user: &str, password: &str, more: &str) -> Arc<dyn Configured> {
    let address = server.url.rsplit('@').next().unwrap();
    let scheme = server.flavor.kind();
    let text = format!(
        "url = '{scheme}://{user}@{address}'\npassword = '{password}'\ntables = ['sc_tls.*']\nread_timeout = '20s'\n{more}"
    );
    let which = if server.flavor == Flavor::MySql { &seachange_mysql::MYSQL } else { &seachange_mysql::MARIADB };
    which.configure("tls", "pipeline.tls.source", &text.parse().unwrap()).unwrap()
}

/// Opens a stream (both connections) and a session for status.
async fn works(c: &Arc<dyn Configured>) -> Result<(), (Kind, String)> {
    let all = async {
        c.status().await?;
        let mut opened = c.open(None).await?;
        opened.source.close().await
    };
    let said = |e: seachange_sdk::Error| {
        assert_eq!(e.retryable(), Retry::Operator, "{e:?}");
        assert!(e.remedy().is_some() && !format!("{e:?}").contains("'pw'"), "{e:?}");
        (e.kind(), e.to_string())
    };
    tokio::time::timeout(DEADLINE, all).await.expect("no answer").map_err(said)
}

async fn account(server: &Server, user: &str, how: &str) -> bool {
    let mut c = server.conn().await;
    c.query_drop(format!("DROP USER IF EXISTS {user}")).await.unwrap();
    if c.query_drop(format!("CREATE USER {user} {how}")).await.is_err() {
        eprintln!("SKIPPED: {} has no such account: {how}", server.flavor.name());
        return false;
    }
    c.query_drop(format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT, RELOAD ON *.* TO {user}"))
        .await
        .unwrap();
    true
}

#[tokio::test]
async fn certificates_are_verified_as_asked() {
    let _alone = ALONE.lock().await;
    for server in servers("certificates_are_verified_as_asked") {
        let mut c = server.conn().await;
        let dir: String = c.query_first("SELECT @@datadir").await.unwrap().unwrap();
        let file = |name: &str| PathBuf::from(&dir).join(name);
        if !file("client-key.pem").exists() {
            eprintln!("SKIPPED: {} has made no certificates of its own in {dir}", server.flavor.name());
            continue;
        }
        let ca = format!("ssl_root_cert = '{}'", file("ca.pem").display());
        account(&server, "sc_tls", "IDENTIFIED BY 'pw' REQUIRE SSL").await;
        let with = |more: &str| configured(&server, "sc_tls", more);
        for fine in [
            "sslmode = 'prefer'",
            "sslmode = 'require'",
            &format!("sslmode = 'verify-ca'\n{ca}"),
            &format!("sslmode = 'require'\n{ca}"),
        ] {
            works(&with(fine)).await.unwrap_or_else(|e| panic!("{fine}: {e:?}"));
        }
        // Another CA, no CA of ours, a certificate for another name, no TLS at all.
        let other = format!("ssl_root_cert = '{}'", file("client-cert.pem").display());
        for refused in [
            &*format!("sslmode = 'verify-ca'\n{other}"),
            "sslmode = 'verify-ca'",
            &format!("sslmode = 'verify-full'\n{ca}"),
            "sslmode = 'disable'",
        ] {
            works(&with(refused)).await.expect_err(refused);
        }
        // A certificate of the client's own.
        account(&server, "sc_x509", "IDENTIFIED BY 'pw' REQUIRE X509").await;
        let own = format!(
            "ssl_cert = '{}'\nssl_key = '{}'",
            file("client-cert.pem").display(),
            file("client-key.pem").display()
        );
        for mode in ["require", "verify-ca"] {
            let config = format!("sslmode = '{mode}'\n{ca}\n{own}");
            works(&configured(&server, "sc_x509", &config)).await.unwrap_or_else(|e| panic!("{mode}: {e:?}"));
        }
        let e = works(&configured(&server, "sc_x509", "sslmode = 'require'")).await.expect_err("without a certificate");
        assert_eq!(e.0, Kind::Auth, "{e:?}");
        c.query_drop("DROP USER sc_tls, sc_x509").await.unwrap();
    }
}

#[tokio::test]
async fn accounts_of_every_plugin() {
    let _alone = ALONE.lock().await;
    for server in servers("accounts_of_every_plugin") {
        let plugins: &[&str] = match server.flavor {
            Flavor::MySql => &["IDENTIFIED WITH caching_sha2_password BY 'pw'"],
            Flavor::MariaDb => {
                for plugin in ["auth_ed25519", "auth_parsec"] {
                    // may be there already, or not at all
                    let install = format!("INSTALL SONAME '{plugin}'");
                    let _: Result<(), _> = server.conn().await.query_drop(install).await;
                }
                &[
                    "IDENTIFIED VIA mysql_native_password USING PASSWORD('pw')",
                    "IDENTIFIED VIA ed25519 USING PASSWORD('pw')",
                    "IDENTIFIED VIA parsec USING PASSWORD('pw')",
                ]
            }
        };
        for how in plugins {
            // twice, and made anew for each: the server remembers a password that it has seen
            for modes in [["prefer", "prefer", "disable"], ["disable", "disable", "prefer"]] {
                if !account(&server, "sc_plugin", how).await {
                    continue;
                }
                for mode in modes {
                    let c = configured(&server, "sc_plugin", &format!("sslmode = '{mode}'"));
                    let got = works(&c).await;
                    assert!(got.is_ok(), "{how} {mode}: {got:?}");
                }
                // Neither a wrong password nor an empty one is a riddle.
                for wrong in ["px", ""] {
                    let c = configured_by(&server, "sc_plugin", wrong, "");
                    let got = works(&c).await.expect_err(how);
                    assert_eq!(got.0, Kind::Auth, "{how}: {got:?}");
                }
                server.conn().await.query_drop("DROP USER sc_plugin").await.unwrap();
            }
        }
    }
}

/// Greets, asks for the password by a plugin, and plays its part in what follows as far as it goes.
async fn asks_by(plugin: &'static str) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let Ok((mut io, _)) = listener.accept().await else { return };
            let nonce = [7; 20];
            let greeting = [
                &[10][..],
                b"11.8.0-MariaDB\0",
                &[1, 0, 0, 0],
                &nonce[..8],
                &[0, 0x00, 0x82, 33, 2, 0, 0x08, 0x00, 21],
                &[0; 10],
                &nonce[8..],
                b"\0mysql_native_password\0",
            ]
            .concat();
            let switch = [&[0xfe][..], plugin.as_bytes(), &[0], &[9; 32], &[0]].concat();
            let salt = [&[1, b'P', 0][..], &[5; 18]].concat();
            for (number, packet) in [(0, greeting), (2, switch), (4, salt)] {
                // What the client says is not looked at: it may also have gone.
                if io.write_all(&[&[packet.len() as u8, 0, 0, number][..], &packet].concat()).await.is_err() {
                    break;
                }
                let mut said = [0; 4];
                if io.read_exact(&mut said).await.is_err() {
                    break;
                }
                let mut rest = vec![0; usize::from(said[0])];
                if io.read_exact(&mut rest).await.is_err() {
                    break;
                }
            }
        }
    });
    Server { flavor: Flavor::MariaDb, url: format!("mariadb://root:root@127.0.0.1:{port}") }
}

#[tokio::test]
async fn a_plugin_that_is_not_known_is_told() {
    for (plugin, password, told) in [
        ("dialog", "pw", "Unknown authentication plugin `dialog'"),
        ("mysql_clear_password", "pw", "mysql_clear_password must be enabled"),
        ("mysql_old_password", "pw", "mysql_old_password"),
        // A panic of the library.
        ("parsec", "", "cannot be answered"),
    ] {
        let server = asks_by(plugin).await;
        let checks = configured_by(&server, "u", password, "sslmode = 'disable'").check().await;
        let [Check { outcome: Outcome::Fail(what, fix), .. }] = &checks[..] else { panic!("{plugin}: {checks:?}") };
        assert!(what.contains(told) && fix.contains("ALTER USER"), "{what}: {fix}");
    }
}
