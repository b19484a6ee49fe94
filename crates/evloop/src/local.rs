//! Listening Unix sockets and whose files they are (`spec/connmgr.md §1.1`).

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// What a socket's file gets after the bind; what is absent stays as the system made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOwner {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Name of the user.
    pub user: Option<String>,
    /// Name of the group.
    pub group: Option<String>,
}

/// Binds a non-blocking socket. A file that is there already is removed before.
///
/// # Errors
/// What the system says, or that the user or group is not known.
pub fn bind(path: &Path, owner: &FileOwner) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    if let Some(mode) = owner.mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    if let Some(user) = &owner.user {
        chown(path, Some(find_id("/etc/passwd", "user", user)?), None)?;
    }
    if let Some(group) = &owner.group {
        chown(path, None, Some(find_id("/etc/group", "group", group)?))?;
    }
    Ok(listener)
}

/// The number of a user or group: third field of its line.
fn find_id(file: &str, what: &str, name: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string(file)?;
    let mut lines = text.lines().map(|line| line.split(':'));
    let found = lines.find_map(|mut fields| {
        (fields.next() == Some(name))
            .then(|| fields.nth(1).and_then(|id| id.parse().ok()))
            .flatten()
    });
    found.ok_or_else(|| io::Error::other(format!("unknown {what}: {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_gets_its_mode_and_replaces_an_old_one() {
        let path = std::env::temp_dir().join(format!("local-{}", std::process::id()));
        std::fs::write(&path, "old").expect("a file");
        let owner = FileOwner { mode: Some(0o640), ..FileOwner::default() };
        let listener = bind(&path, &owner).expect("bound");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        drop(listener);
        let owner = FileOwner { user: Some("no:body".into()), ..FileOwner::default() };
        let error = bind(&path, &owner).expect_err("no such user");
        assert_eq!(error.to_string(), "unknown user: no:body");
        std::fs::remove_file(&path).expect("removed");
    }
}
