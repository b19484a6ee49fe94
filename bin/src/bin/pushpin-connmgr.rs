//! The connection manager program: serves clients, speaks ZHTTP to proxy and handler.

use std::process::ExitCode;

use connmgr::options::Words;

/// Gives memory back after many clients have left, which glibc does not (docs/architecture.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    connmgr::driver::main(&Words::of_process()).into()
}
