//! The command as a user meets it: exit codes, and what it says where.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

const EXE: &str = env!("CARGO_BIN_EXE_seachange");

fn seachange(args: &[&str]) -> Output {
    Command::new(EXE).args(args).env_remove("NOTIFY_SOCKET").output().unwrap()
}

/// Exit code, standard output, standard error.
fn said(o: &Output) -> (i32, String, String) {
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    (o.status.code().unwrap(), text(&o.stdout), text(&o.stderr))
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("seachange.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn version_and_help() {
    let want = format!("seachange {}\n", env!("CARGO_PKG_VERSION"));
    for arg in ["version", "--version"] {
        assert_eq!(said(&seachange(&[arg])), (0, want.clone(), String::new()));
    }
    let (code, out, _) = said(&seachange(&["--help"]));
    assert_eq!(code, 0);
    for command in ["run", "check", "init", "state", "version"] {
        assert!(out.contains(&format!("\n  {command} ")), "{out}");
    }
}

#[test]
fn usage_errors_are_2() {
    for args in [&[][..], &["nonsense"], &["run", "--nonsense"], &["init"], &["run"], &["state"], &["check"]] {
        let (code, out, err) = said(&seachange(args));
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(out.is_empty() && !err.is_empty(), "{args:?}");
    }
    let (_, _, err) = said(&seachange(&["run"]));
    assert!(err.contains("--config FILE is missing"), "{err}");
}

#[test]
fn configuration_faults_are_2_and_all_told() {
    let (_dir, path) = file(
        "[kafka]\nboostrap = 'x:1'\n[server]\nlisten = 'nowhere'\n\
         [pipeline.shop.source]\ntype = 'postgers'\npassword = '${env:SEACHANGE_TEST_NOT_SET}'\nsnapshot = 'maybe'\n",
    );
    for command in ["run", "check", "state"] {
        let (code, out, err) = said(&seachange(&[command, "--config", &path]));
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        for part in [
            "6 faults",
            "line 2: kafka.boostrap: unknown option\n      -> did you mean `bootstrap`?",
            "kafka.bootstrap: missing",
            "line 4: server.listen: not an address",
            "line 6: pipeline.shop.source.type: no such connector",
            "line 7: pipeline.shop.source.password: the environment variable SEACHANGE_TEST_NOT_SET is not set",
            "line 8: pipeline.shop.source.snapshot.mode: not one of",
        ] {
            assert!(err.contains(part), "{part}\n{err}");
        }
    }
    let (code, _, err) = said(&seachange(&["check", "--config", "/nonexistent/file.toml"]));
    assert!(code == 2 && err.contains("cannot be read") && err.contains("seachange init"), "{err}");
    let (_dir, path) = file("[kafka\n");
    let (code, _, err) = said(&seachange(&["check", "--config", &path]));
    assert!(code == 2 && err.contains("line 1: not TOML"), "{err}");
}

#[test]
fn init_refuses_what_it_does_not_know_and_keeps_the_password() {
    let (code, out, err) = said(&seachange(&["init", "oracle://scott:hunter2@db/x"]));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("no connector") && !err.contains("hunter2"), "{err}");
}
