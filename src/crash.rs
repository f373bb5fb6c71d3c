//! Named places where a kill test makes the process die, as if by `kill -9`.
//!
//! Built only with the feature `failpoints`. `SEACHANGE_CRASH=name:n` aborts the process at the n-th time that the place
//! is passed, counted over the whole process; without the feature there is nothing here at all.

/// Dies here, if a kill test asked for it.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Dies here, if a kill test asked for it.
#[cfg(feature = "failpoints")]
pub fn point(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    };
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("SEACHANGE_CRASH").ok()?;
        let (name, n) = text.split_once(':')?;
        Some((name.to_owned(), n.parse().ok()?))
    });
    if let Some((at, n)) = wanted
        && at == name
        && PASSED.fetch_add(1, Relaxed) + 1 == *n
    {
        eprintln!("crash point {name} reached {n} times: aborting");
        std::process::abort();
    }
}
