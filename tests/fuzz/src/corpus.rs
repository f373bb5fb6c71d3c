//! Inputs to begin with: `corpus/TARGET/`, one file each.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where a target's inputs are.
pub fn place(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Name and content of each, in the order of their names.
pub fn read(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(place(target))? {
        let entry = entry?;
        out.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    out.sort();
    Ok(out)
}
