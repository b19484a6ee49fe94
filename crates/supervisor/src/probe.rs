//! Whether the ports are free, before anything is started: with SO_REUSEPORT a second server
//! would share a port silently, and a child that fails later is a worse message.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::plan::Claim;

/// A server that is being restarted may hold its ports a little longer.
const WAIT_MAX: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(20);

/// Binds every address once, all at the same time, and lets them go.
///
/// # Errors
/// `failed to bind ADDRESS: CAUSE (FILE:LINE: KEY in [SECTION])` for the first that is not free.
pub(crate) fn check(claims: &[Claim]) -> Result<(), String> {
    let deadline = Instant::now() + WAIT_MAX;
    let mut held = Vec::with_capacity(claims.len());
    for Claim { addr, place, .. } in claims {
        held.push(loop {
            match bind(*addr) {
                Ok(socket) => break socket,
                Err(error) if in_use(&error) && Instant::now() < deadline => thread::sleep(PAUSE),
                Err(error) => return Err(format!("failed to bind {addr}: {error} ({place})")),
            }
        });
    }
    Ok(())
}

fn in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    // without listening, two sockets with SO_REUSEADDR could both have it
    socket.listen(1)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occupied_port_is_named() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = holder.local_addr().unwrap();
        let place = "c:2: http_port in [runner]".to_owned();
        let claim = Claim { addr, key: "http_port", place };
        let error = check(std::slice::from_ref(&claim)).unwrap_err();
        assert!(error.starts_with(&format!("failed to bind {addr}: ")), "{error}");
        assert!(error.ends_with(" (c:2: http_port in [runner])"), "{error}");
        drop(holder);
        check(std::slice::from_ref(&claim)).unwrap();
        assert!(check(&[claim.clone(), claim]).is_err());
    }
}
