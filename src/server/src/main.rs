//! The `comity` binary.

use std::process::ExitCode;

/// The system's keeps what a burst took: a thousand sign-ins, and more than a gigabyte stayed. RocksDB allocates by it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    comity_server::cli::main()
}
