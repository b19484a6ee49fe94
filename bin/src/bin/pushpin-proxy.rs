//! The proxy program: routes requests to backends and hands holds to the handler.

use std::process::ExitCode;

use clap::Parser;
use proxy::words::{Words, main as run};

/// Gives memory back after many clients have left, which glibc does not (docs/architecture.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    run(Words::parse()).into()
}
