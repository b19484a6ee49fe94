//! The handler program: holds client sessions and publishes to them.

use std::process::ExitCode;

use clap::Parser;
use handler::driver::Words;

fn main() -> ExitCode {
    handler::driver::main(&Words::parse()).into()
}
