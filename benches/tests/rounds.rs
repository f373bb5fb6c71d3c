//! The program that `scripts/counts` runs: it knows its cases, and refuses what is none.

use std::process::Command;

fn run(args: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_seachange-micro")).args(args).output().expect("the program runs");
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn it_runs_its_cases() {
    let (_, cases) = run(&[]);
    assert!(cases.contains("decode-postgres"), "{cases}");
    for case in cases.lines() {
        let (done, rows) = run(&[case, "2"]);
        let expected = if case.starts_with("plan-") { "2" } else { "4000" };
        assert!(done && rows.trim() == expected, "{case}: {rows}");
    }
    for wrong in [&["decode-nothing", "1"][..], &["decode-postgres"], &["decode-postgres", "x"]] {
        assert!(!run(wrong).0, "{wrong:?}");
    }
}
