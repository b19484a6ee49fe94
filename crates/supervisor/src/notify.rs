//! What the service manager is told (`sd_notify(3)`, `Type=notify`): one datagram to the socket
//! that it names in the environment. Called by `run`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// The variable with the socket's path, or `@` and a name without a file.
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";

/// Where the server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// All processes are up.
    Ready,
    /// HUP came; `Ready` follows.
    Reloading,
    /// The end has begun.
    Stopping,
}

/// Tells the service manager, if there is one that wants to know.
pub(crate) fn tell(state: State) {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = send(&socket, &text(state)) {
        log::debug!("the service manager could not be told: {error}");
    }
}

fn text(state: State) -> String {
    match state {
        State::Ready => "READY=1\nSTATUS=serving\n".into(),
        State::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            let us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
            format!("RELOADING=1\nMONOTONIC_USEC={us}\nSTATUS=reloading\n")
        }
        State::Stopping => "STOPPING=1\nSTATUS=stopping\n".into(),
    }
}

fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let own = UnixDatagram::unbound()?;
    let sent = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => own.send_to_addr(text.as_bytes(), &SocketAddr::from_abstract_name(name)?),
        None => own.send_to(text.as_bytes(), socket),
    };
    sent.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_hear_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let file = UnixDatagram::bind(&path).unwrap();
        let name = format!("notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let nameless = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, spec) in [(file, path.into_os_string()), (nameless, format!("@{name}").into())]
        {
            send(&spec, &text(State::Reloading)).unwrap();
            let mut bytes = [0; 200];
            let count = socket.recv(&mut bytes).unwrap();
            let said = String::from_utf8_lossy(&bytes[..count]).into_owned();
            assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
        }
        assert!(send(dir.path().join("gone").as_os_str(), "READY=1").is_err());
    }
}
