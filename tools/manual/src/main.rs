//! manual DIR: writes the manual pages (`man/`) and the completions for bash, zsh and fish of all
//! programs, from the same tables as their `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::{Generator, shells};

/// Where the programs read and write; the same in every manual page.
const FILES: &str = ".SH FILES
.TP
.I /etc/pushpin/pushpin.conf
Configuration: what runs, where it listens, how long it remembers.
.TP
.I /etc/pushpin/routes
Which backend gets which request.
.TP
.I /etc/pushpin/runner/certs
Certificates and keys of HTTPS ports: NAME.crt and NAME.key.
.TP
.I /var/log/pushpin
Logs.
.TP
.I /run/pushpin
Sockets and pid files.
";

const SEE_ALSO: &str = ".SH SEE ALSO
.BR pushpin (1),
.BR pushpin-connmgr (1),
.BR pushpin-proxy (1),
.BR pushpin-handler (1),
.BR pushpin-publish (1);
the documentation in
.I /usr/share/doc/pushpin
";

fn programs() -> [Command; 5] {
    [
        supervisor::words::Words::command(),
        connmgr::options::Words::command(),
        proxy::words::Words::command(),
        handler::driver::Words::command(),
        publish::words::Words::command(),
    ]
}

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: manual DIR");
        return ExitCode::from(2);
    };
    match write_all(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write to {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(dir: &Path) -> io::Result<()> {
    let man = dir.join("man");
    fs::create_dir_all(&man)?;
    for command in programs() {
        fs::write(man.join(format!("{}.1", command.get_name())), page(command.clone())?)?;
        complete(shells::Bash, &command, &dir.join("bash"))?;
        complete(shells::Zsh, &command, &dir.join("zsh"))?;
        complete(shells::Fish, &command, &dir.join("fish"))?;
    }
    Ok(())
}

/// The manual page of one program.
fn page(command: Command) -> io::Result<Vec<u8>> {
    let reads_files = command.get_name() != "pushpin-publish";
    let man = clap_mangen::Man::new(command).section("1").manual("Pushpin");
    let mut page = Vec::new();
    man.render(&mut page)?;
    if reads_files {
        page.extend_from_slice(FILES.as_bytes());
    }
    page.extend_from_slice(SEE_ALSO.as_bytes());
    Ok(page)
}

/// One completion script, under the name that the shell looks for.
fn complete(shell: impl Generator + Copy, command: &Command, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), &name, &mut script);
    fs::write(dir.join(shell.file_name(&name)), script)
}
