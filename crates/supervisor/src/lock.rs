//! One server at a time has the socket and pid files of a prefix in a runtime directory: a second
//! one would take them away from the first. Used by `run`.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;

/// A server that is being restarted may need a moment to go.
const WAIT_MAX: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(20);

/// Held while the server runs; the system lets go of it when the process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: OwnedFd,
}

impl Lock {
    /// Takes the lock of all files in `dir` that begin with `prefix`.
    ///
    /// # Errors
    /// One line for the operator: the directory cannot be written to, or a server runs there.
    pub fn take(dir: &Path, prefix: &str) -> Result<Self, String> {
        let path = dir.join(format!("{prefix}lock"));
        let failed = |error: Errno| {
            format!("rundir {} cannot be used: {}", dir.display(), io::Error::from(error))
        };
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = open(&path, flags, Mode::from_raw_mode(0o644)).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_same(&file, &path) => return Ok(Self { path, _file: file }),
                // the server before removed the file after it was opened here
                Ok(()) => {}
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(format!(
                        "a server runs already in rundir {} with ipc_prefix {prefix}: stop it, or \
                         give this one another rundir or --id",
                        dir.display()
                    ));
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn is_same(file: &OwnedFd, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (fstat(file), fs::symlink_metadata(path)) else { return false };
    (held.st_dev, held.st_ino) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_what_a_dead_server_left_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a-lock"), "").unwrap();
        let first = Lock::take(dir.path(), "a-").unwrap();
        let other = Lock::take(dir.path(), "b-").unwrap();
        let error = Lock::take(dir.path(), "a-").unwrap_err();
        assert!(error.starts_with("a server runs already in rundir "), "{error}");
        drop((first, other));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(Lock::take(dir.path(), "a-").unwrap());
        let error = Lock::take(&dir.path().join("gone"), "a-").unwrap_err();
        assert!(error.contains("gone cannot be used: No such file"), "{error}");
    }
}
