//! The `seachange` binary.

fn main() -> std::process::ExitCode {
    few_arenas();
    seachange::cli::main()
}

/// glibc's allocator makes up to eight arenas a core, and each keeps what batches that travelled through it once needed. The
/// row path reuses its memory, so threads seldom meet in the allocator and two are enough: measured, half the peak memory of
/// mimalloc (38 to 44 MiB against 72 to 76 MiB draining MySQL) at the same CPU.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn few_arenas() {
    // SAFETY: `mallopt` takes two integers and changes a limit of the allocator; no other thread exists yet. Its answer, whether
    // it knows the parameter, does not matter: without it memory is only larger.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn few_arenas() {}
