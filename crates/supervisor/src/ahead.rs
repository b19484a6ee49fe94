//! What would make a child fail is looked at before any is started: log files, certificates, keys,
//! unix sockets that are in the way. Each fault is one line for the operator. Called by `run`.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use config::Settings;
use rustix::process::geteuid;
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
    replaceable(&plan.rundir, settings.ipc_prefix())?;
    plan.local.iter().try_for_each(|(path, _)| unused(path))?;
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
    owners(plan, settings)?;
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

/// Users and groups that the files of sockets for clients are given to.
fn owners(plan: &Plan, settings: &Settings) -> Result<(), String> {
    plan.local.iter().try_for_each(|(_, owner)| {
        let failed =
            |error: io::Error| fault(settings, "runner", "local_ports", &error.to_string());
        owner.check().map_err(failed)
    })
}

/// The folder of a unix socket for clients is there, and its path is free: nothing, or what a dead
/// server left.
fn unused(path: &Path) -> Result<(), String> {
    let failed =
        |error: io::Error| format!("failed to bind {}: {error} (local_ports)", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).metadata().map_err(failed)?;
    match path.symlink_metadata() {
        Ok(meta) if !meta.file_type().is_socket() => {
            Err(failed(io::Error::other("there is a file of that name that is no socket")))
        }
        Ok(_) if listens(path) => Err(failed(io::ErrorKind::AddrInUse.into())),
        _ => Ok(()),
    }
}

/// Whether somebody listens on a unix socket that we may connect to.
fn listens(path: &Path) -> bool {
    let connect = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    // a full queue is that of somebody who listens
    connect().err().is_none_or(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// The sockets that another user's server left in the runtime directory can be replaced.
fn replaceable(rundir: &Path, prefix: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("rundir {} cannot be used: {error}", rundir.display());
    let folder = rundir.metadata().map_err(failed)?;
    let user = geteuid().as_raw();
    for entry in rundir.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let Ok(meta) = path.symlink_metadata() else { continue };
        if name.starts_with(prefix.as_bytes())
            && meta.file_type().is_socket()
            && is_kept((folder.uid(), folder.mode()), meta.uid(), user)
            && !listens(&path)
        {
            return Err(format!(
                "{} is of user {} and cannot be replaced: remove it, or give this server another \
                 rundir or --id",
                path.display(),
                meta.uid()
            ));
        }
    }
    Ok(())
}

/// Whether a folder, of this owner and mode, keeps the user from removing a file of that owner: it is
/// sticky (unlink(2), EPERM).
fn is_kept((folder, mode): (u32, u32), file: u32, user: u32) -> bool {
    const STICKY: u32 = 0o1000;
    mode & STICKY != 0 && user != 0 && user != folder && user != file
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
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        let error = unused(&path).unwrap_err();
        assert!(error.ends_with("that is no socket (local_ports)"), "{error}");
        let error = unused(&dir.path().join("gone/s")).unwrap_err();
        assert!(error.ends_with("gone/s: No such file or directory (os error 2) (local_ports)"));
    }

    #[test]
    fn sockets_of_others_are_in_the_way_only_in_a_sticky_folder() {
        for (folder, mode, file, user, kept) in [
            (1, 0o41777, 1, 2, true),
            (1, 0o40777, 1, 2, false),
            (1, 0o41777, 2, 2, false),
            (2, 0o41777, 1, 2, false),
            (1, 0o41777, 1, 0, false),
        ] {
            assert_eq!(
                is_kept((folder, mode), file, user),
                kept,
                "{folder} {mode:o} {file} {user}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        drop(UnixListener::bind(dir.path().join("p-accept")).unwrap());
        replaceable(dir.path(), "p-").unwrap();
    }

    #[test]
    fn an_unknown_owner_of_a_socket_is_named_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[global]\nrundir=run\n[runner]\nservices=connmgr,proxy,handler\n\
                    local_ports=/a,/b?user=root&group=no:group\n[proxy]\nroutesfile=r\n";
        let file = config::File::parse("c", text);
        let settings =
            Settings::from_main(file, dir.path().to_owned(), &config::Overrides::default());
        let plan = Plan::new(&settings, &crate::plan::Wanted::default()).unwrap();
        let expected = "c:5: local_ports in [runner]: unknown group: no:group";
        assert_eq!(check_files(&plan, &settings).unwrap_err(), expected);
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
