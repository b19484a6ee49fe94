//! What would make a child fail is looked at before any is started: log files, certificates, keys,
//! unix sockets of clients. Each fault is one line for the operator. Called by `run`.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use config::Settings;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::certs;
use crate::fault::fault;
use crate::plan::{Output, Plan};

/// Looks at everything; makes log files that are not there. Says what is not right, and no fault.
///
/// # Errors
/// The first fault.
pub(crate) fn check(plan: &Plan, settings: &Settings) -> Result<(), String> {
    check_files(plan, settings)?.iter().for_each(|text| log::warn!("{text}"));
    plan.local.iter().try_for_each(unused)?;
    plan.children.iter().try_for_each(|child| match &child.output {
        Output::Gathered(path) | Output::Own(path) => writable(path),
        Output::Merged => Ok(()),
    })
}

/// Looks at what is only read; gives warnings.
///
/// # Errors
/// The first fault.
pub(crate) fn check_files(plan: &Plan, settings: &Settings) -> Result<Vec<String>, String> {
    keys(settings)?;
    plan.certs.as_ref().map_or(Ok(Vec::new()), certs::check)
}

/// Keys that are in files.
fn keys(settings: &Settings) -> Result<(), String> {
    for key in ["sig_key", "upstream_key"] {
        let value = settings.string("proxy", key).unwrap_or_default();
        let Some(path) = value.strip_prefix("file:") else { continue };
        let path = settings.dir().join(path);
        fs::read(&path).map_err(|error| {
            fault(settings, "proxy", key, &format!("cannot read {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

/// The folder of a unix socket is there, and no server listens at its path.
fn unused(path: &PathBuf) -> Result<(), String> {
    let failed =
        |error: io::Error| format!("failed to bind {}: {error} (local_ports)", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).metadata().map_err(failed)?;
    let connect = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        // a full queue is that of somebody who listens
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::from(io::ErrorKind::AddrInUse))
        }
        Err(_) => Ok(()),
    }
    .map_err(failed)
}

fn writable(path: &Path) -> Result<(), String> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| format!("failed to open log file {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_in_use_while_somebody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        unused(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        assert!(unused(&path).unwrap_err().ends_with(" (local_ports)"));
        drop(listener);
        unused(&path).unwrap();
        let error = unused(&dir.path().join("gone/s")).unwrap_err();
        assert!(error.ends_with("gone/s: No such file or directory (os error 2) (local_ports)"));
    }

    #[test]
    fn a_key_file_is_named_with_its_place() {
        let file = config::File::parse("c", "[proxy]\nsig_key=file:k\n");
        let dir = tempfile::tempdir().unwrap();
        let settings =
            Settings::from_main(file, dir.path().to_owned(), &config::Overrides::default());
        let error = keys(&settings).unwrap_err();
        assert!(error.starts_with("c:2: sig_key in [proxy]: cannot read /"), "{error}");
        fs::write(dir.path().join("k"), "secret").unwrap();
        keys(&settings).unwrap();
    }
}
