//! The proxy program: routes requests to backends and hands holds to the handler.

use std::process::ExitCode;

use clap::Parser;
use proxy::words::{Words, main as run};

fn main() -> ExitCode {
    run(Words::parse()).into()
}
