//! The pages that are written from code are current. `UPDATE=1 cargo test --test docs` writes them.

use std::{fs, path::Path};

fn current(path: &str, want: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, want).unwrap();
    }
    let have = fs::read_to_string(&file).unwrap_or_default();
    assert!(have == want, "{path} is not what the code says; write it with: UPDATE=1 cargo test --test docs");
}

#[test]
fn configuration_page() {
    current("docs/configuration.md", &seachange::config::reference::page());
}

#[test]
fn configuration_schema() {
    current("docs/config.schema.json", &format!("{:#}\n", seachange::config::reference::schema()));
}

#[test]
fn metrics_page() {
    current("docs/metrics.md", &seachange::metrics::page());
}
