//! What an unknown name was probably meant to be.
//!
//! A suggestion is made only when it is close (a third of the letters, transpositions counted once): a wrong suggestion
//! costs more than none.

/// The candidate nearest to `name`, if one is near.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().replace('-', "_").chars().collect();
    candidates
        .into_iter()
        .map(|c| (distance(&name, &c.to_lowercase().replace('-', "_").chars().collect::<Vec<_>>()), c))
        .filter(|(d, c)| *d <= (name.len().max(c.chars().count()) / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Optimal string alignment: insertions, deletions, substitutions, and neighbours swapped.
fn distance(a: &[char], b: &[char]) -> usize {
    // Names are short; a hostile one must not cost memory.
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            let mut d = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if swap {
                d = d.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = d;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn near_and_far() {
        let keys = ["bootstrap", "properties", "cluster"];
        for (typed, meant) in [
            ("boostrap", Some("bootstrap")),
            ("bootstrap_", Some("bootstrap")),
            ("propertise", Some("properties")),
            ("Cluster", Some("cluster")),
            ("topics", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), keys), None);
    }
}
