//! Which code an input reaches: the compiler's counters, where `scripts/fuzz` has had it put them in.
//!
//! LLVM's inline 8-bit counters: every edge of the instrumented crates has a byte that is incremented. Each crate hands its
//! bytes over at start, through [`__sanitizer_cov_8bit_counters_init`]. Without counters nothing is ever new, and mutation
//! is blind.

use std::sync::Mutex;

/// The counters of each instrumented object, as (address, length).
static REGIONS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by each instrumented object before `main`: its counters lie from `start` to before `stop`.
///
/// # Safety
/// `start..stop` must be one object's counters, which live as long as the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let (start, stop) = (start as usize, stop as usize);
    let mut regions = REGIONS.lock().unwrap_or_else(|e| e.into_inner());
    if stop > start && !regions.iter().any(|r| r.0 == start) {
        regions.push((start, stop - start));
    }
}

/// What has been reached so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// For every edge, which orders of magnitude of its count have been seen, a bit each.
    edges: Vec<u8>,
}

impl Seen {
    /// How many edges there are: 0 without counters.
    pub fn edges() -> usize {
        REGIONS.lock().unwrap_or_else(|e| e.into_inner()).iter().map(|r| r.1).sum()
    }
    /// How many have been reached.
    pub fn reached(&self) -> usize {
        self.edges.iter().filter(|e| **e != 0).count()
    }
    /// Takes the counts since the last call; says whether there is something new among them.
    pub fn take(&mut self) -> bool {
        let regions = REGIONS.lock().unwrap_or_else(|e| e.into_inner());
        let mut new = false;
        let mut at = 0;
        for &(start, len) in regions.iter() {
            self.edges.resize(self.edges.len().max(at + len), 0);
            // SAFETY: the region was handed over as counters that live as long as the process. Only the thread that runs
            // the targets executes instrumented code and calls this, so nothing else touches them now.
            let counters = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) };
            let (edges, counters) = (&mut self.edges[at..at + len], counters);
            let mut eights = counters.chunks_exact_mut(8).zip(edges.chunks_exact_mut(8));
            for (counts, edges) in &mut eights {
                if *counts != [0; 8] {
                    counts.iter_mut().zip(edges).for_each(|(c, e)| new |= note(c, e));
                }
            }
            let rest = len - len % 8;
            counters[rest..].iter_mut().zip(&mut edges[rest..]).for_each(|(c, e)| new |= note(c, e));
            at += len;
        }
        new
    }
}

fn note(count: &mut u8, edge: &mut u8) -> bool {
    let bit = match std::mem::take(count) {
        0 => return false,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128.. => 128,
    };
    let new = *edge & bit == 0;
    *edge |= bit;
    new
}
