//! How requests and connections are named in log lines (`spec/connmgr.md §12`). Nothing is made of
//! it unless the line is shown.

use std::fmt;

use evloop::arena::Key;

use crate::conn::Conn;

/// The session that a request is made for, before the words of a line; nothing where keys are no
/// sessions of a worker.
#[derive(Clone, Copy)]
pub(crate) struct Whose(pub Option<u16>, pub Option<Key>);

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(Some(worker), Some(Key { index, generation })) => {
                write!(f, "client-conn {worker}-{index}-{generation:x}: ")
            }
            _ => Ok(()),
        }
    }
}

/// Where a connection leads: the address, and the endpoint that it stands for.
pub(crate) struct Place<'c>(pub &'c Conn);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.stream.peer_addr() {
            Ok(address) => write!(f, "{address} for {}", self.0.endpoint),
            // The backend has gone; only the name is left.
            Err(_) => self.0.endpoint.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_named_as_elsewhere() {
        let key = Key { index: 7, generation: 42 };
        assert_eq!(Whose(Some(1), Some(key)).to_string(), "client-conn 1-7-2a: ");
        assert_eq!(Whose(None, Some(key)).to_string(), "");
    }
}
