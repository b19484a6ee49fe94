//! The handler program: holds client sessions and publishes to them.

use std::process::ExitCode;

use clap::Parser;
use handler::driver::Words;

/// Gives memory back after many clients have left, which glibc does not (docs/architecture.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    handler::driver::main(&Words::parse()).into()
}
