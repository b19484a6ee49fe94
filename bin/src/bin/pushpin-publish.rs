//! pushpin-publish: publishes one item from the command line.

use std::process::ExitCode;

use clap::Parser;
use publish::words::Words;

fn main() -> ExitCode {
    match Words::parse().run() {
        Ok(()) => {
            println!("Published");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}
