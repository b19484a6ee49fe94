//! pushpin: the supervisor.

use std::process::ExitCode;

use supervisor::words::{Words, refuse};

fn main() -> ExitCode {
    match Words::read() {
        Ok(words) => supervisor::run(&words.into()).into(),
        Err(error) => refuse(&error),
    }
}
