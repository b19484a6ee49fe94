//! Where clients connect: the port keys in the words of the connection manager (spec/config.md §4,
//! spec/connmgr.md §1.1), and the check that the ports are free before anything is started.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Reads `[ADDRESS:]PORT`; an IPv6 address has brackets, a bare port means all of IPv4. `None`: it
/// is neither, or the port is 0.
pub fn parse_port(text: &str) -> Option<SocketAddr> {
    let address = match text.rsplit_once(':') {
        None => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), text.parse().ok()?),
        Some(("", port)) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.parse().ok()?),
        Some(_) => text.parse().ok()?,
    };
    (address.port() > 0).then_some(address)
}

/// Reads `PATH[?mode=OCTAL&user=U&group=G]` into a listen spec.
///
/// # Errors
/// `invalid local port: S` or `invalid mode: S`.
pub fn local_listen(text: &str) -> Result<String, String> {
    let invalid = || format!("invalid local port: {text}");
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    // a comma would end the path in the listen spec
    if path.is_empty() || path.contains(',') {
        return Err(invalid());
    }
    let mut spec = format!("{path},local,stream");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(invalid)?;
        match name {
            "mode" if u32::from_str_radix(value, 8).is_err() => {
                return Err(format!("invalid mode: {value}"));
            }
            "mode" | "user" | "group" if !value.is_empty() && !value.contains(',') => {
                spec.push_str(&format!(",{name}={value}"));
            }
            _ => return Err(invalid()),
        }
    }
    Ok(spec)
}

/// Tries a plain bind of every port and lets go of it again. The connection managers may share a
/// port by SO_REUSEPORT, with which a bind succeeds also where another server listens already.
///
/// # Errors
/// One line that names the first port that cannot be had, and why.
pub fn probe(ports: &[SocketAddr]) -> Result<(), String> {
    let mut held = Vec::new();
    for port in ports {
        held.push(bind(*port).map_err(|cause| format!("failed to bind {port}: {cause}"))?);
    }
    Ok(())
}

/// Binds without listening, so that no client meets this socket.
fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // two bound sockets with the option get along as long as neither listens: without it, a port
    // that is given twice is found here
    socket.set_reuse_address(false)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, expected) in [
            ("7999", Some("0.0.0.0:7999")),
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            (":80", Some("0.0.0.0:80")),
            ("0", None),
            ("-1", None),
            ("65536", None),
            ("localhost:80", None),
            ("::1:80", None),
            ("", None),
        ] {
            assert_eq!(parse_port(text).map(|a| a.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn local_ports() {
        let ok = |text: &str| local_listen(text).unwrap();
        assert_eq!(ok("/run/a"), "/run/a,local,stream");
        let full = ok("/run/a?mode=770&user=www&group=web");
        assert_eq!(full, "/run/a,local,stream,mode=770,user=www,group=web");
        for text in ["", "?mode=1", "/a?b=c", "/a?user", "/a?user=", "/a,b", "/a?user=x,y"] {
            assert_eq!(local_listen(text), Err(format!("invalid local port: {text}")));
        }
        assert_eq!(local_listen("/a?mode=9"), Err("invalid mode: 9".to_owned()));
    }

    #[test]
    fn an_occupied_port_is_named() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap();
        let error = probe(&[port]).unwrap_err();
        assert!(error.starts_with(&format!("failed to bind {port}: Address")), "{error}");
        drop(holder);
        assert_eq!(probe(&[port]), Ok(()));
        assert!(probe(&[port, port]).unwrap_err().contains(&port.to_string()));
    }
}
