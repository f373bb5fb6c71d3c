//! The `seachange` binary.

/// Many threads free what others allocated (batches travel from reader to writer), which the system's allocator does
/// slowly and with memory that does not come back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    seachange::cli::main()
}
