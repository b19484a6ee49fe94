//! Listening Unix sockets and whose files they are (`spec/connmgr.md §1.1`).

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

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

impl FileOwner {
    /// Looks whether the system knows user and group.
    ///
    /// # Errors
    /// Which one it does not, or that its list cannot be read.
    pub fn check(&self) -> io::Result<()> {
        self.ids().map(drop)
    }

    /// The numbers of user and group.
    fn ids(&self) -> io::Result<(Option<u32>, Option<u32>)> {
        let user = self.user.as_deref().map(|name| find_id("/etc/passwd", "user", name));
        let group = self.group.as_deref().map(|name| find_id("/etc/group", "group", name));
        Ok((user.transpose()?, group.transpose()?))
    }
}

/// Binds a non-blocking socket. A socket that is there already is removed before.
///
/// # Errors
/// What the system says, that the user or group is not known, or that another file is there.
pub fn bind(path: &Path, owner: &FileOwner) -> io::Result<UnixListener> {
    remove_old(path)?;
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    if let Some(mode) = owner.mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    let (user, group) = owner.ids()?;
    if user.is_some() || group.is_some() {
        chown(path, user, group)?;
    }
    Ok(listener)
}

/// Removes what an earlier process left; anything but a socket is somebody's file.
fn remove_old(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::other("there is a file of that name that is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A socket file that was made here; removed at the end, unless another process has put its own
/// in that place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    /// The file of a socket that has just been bound; `None` if it is gone already.
    pub fn of(path: &Path) -> Option<Self> {
        let (path, id) = (path.to_path_buf(), file_id(path)?);
        Some(Self { path, id })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if file_id(&self.path) == Some(self.id)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    meta.file_type().is_socket().then(|| (meta.dev(), meta.ino()))
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

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("local-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_file_gets_its_mode_and_owner_and_replaces_an_old_one() {
        let folder = Folder::new("mode");
        let path = folder.0.join("s");
        // Only root may give files away.
        let root = rustix::process::getuid().is_root();
        let name = |name: &str| root.then(|| name.to_string());
        let owner = FileOwner { mode: Some(0o640), user: name("nobody"), group: name("nogroup") };
        for _ in 0..2 {
            let listener = bind(&path, &owner).expect("bound");
            let meta = std::fs::metadata(&path).expect("there");
            assert_eq!(meta.permissions().mode() & 0o777, 0o640);
            assert!(!root || (meta.uid() != 0 && meta.gid() != 0));
            drop(listener);
        }
        let owner = FileOwner { user: Some("no:body".into()), ..FileOwner::default() };
        let error = bind(&path, &owner).expect_err("no such user");
        assert_eq!(error.to_string(), "unknown user: no:body");
        let owner = FileOwner { group: Some("no:group".into()), ..FileOwner::default() };
        assert_eq!(
            owner.check().expect_err("no such group").to_string(),
            "unknown group: no:group"
        );
        FileOwner { user: Some("root".into()), ..FileOwner::default() }.check().expect("known");
    }

    #[test]
    fn only_our_own_socket_is_removed() {
        let folder = Folder::new("own");
        let path = folder.0.join("s");
        let owner = FileOwner::default();
        let _first = bind(&path, &owner).expect("bound");
        let first_file = SocketFile::of(&path).expect("a file");
        // A later process takes the place over.
        let _second = bind(&path, &owner).expect("bound");
        let second_file = SocketFile::of(&path).expect("a file");
        drop(first_file);
        assert!(path.exists());
        drop(second_file);
        assert!(!path.exists());
        std::fs::write(&path, "precious").expect("written");
        let error = bind(&path, &owner).expect_err("somebody's file");
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert!(SocketFile::of(&path).is_none());
    }
}
