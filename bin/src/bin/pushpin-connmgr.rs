//! The connection manager program: serves clients, speaks ZHTTP to proxy and handler.

use std::process::ExitCode;

use connmgr::options::Words;

fn main() -> ExitCode {
    connmgr::driver::main(&Words::of_process()).into()
}
