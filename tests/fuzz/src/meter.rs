//! How much memory a thread has asked for: an allocator that counts, so that a decoder that believes a length field is found.
//!
//! Counted is what is asked for, not what is held: it only grows. Each thread has its own count, so tests side by side do
//! not disturb each other.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Meter;

thread_local! {
    // Constant and without a destructor: reading it allocates nothing and works to the thread's end.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that this thread has asked for.
pub fn asked() -> usize {
    ASKED.get()
}

fn count(n: usize) {
    ASKED.set(ASKED.get().wrapping_add(n));
}

// SAFETY: every call is handed on unchanged to the system's allocator, which keeps the contract; counting touches only a
// thread-local number, and neither allocates nor unwinds.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.saturating_sub(layout.size()));
        // SAFETY: as above; `at` came from `System` through this allocator.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static METER: Meter = Meter;
