//! pushpin: starts, watches and stops the processes of a server (spec/programs.md §2).

use std::process::ExitCode;

use supervisor::options::{Command, help};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    match Command::parse(arguments) {
        Ok(Command::Help) => print!("{}", help()),
        Ok(Command::Version) => println!("pushpin {}", env!("CARGO_PKG_VERSION")),
        Ok(Command::Run(options)) => {
            if supervisor::run::run(options).is_err() {
                return ExitCode::FAILURE;
            }
        }
        Err(error) => {
            eprint!("error: {error}\n\n{}", help());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
