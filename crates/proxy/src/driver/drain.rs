//! Taking what came on a worker's sockets, each within its budget.

use evloop::peers::PeerRouter;
use evloop::zsock::Sent;

use super::sockets::Watched;
use crate::Proxy;

/// Messages per socket and turn, so that none holds up the others.
pub(crate) const BUDGET: usize = 100;

/// Takes messages until there is none or the budget is used up.
pub(crate) fn drain(
    watched: &mut Watched,
    frames: &mut Vec<zmq::Message>,
    mut take: impl FnMut(&[zmq::Message]),
) {
    for _ in 0..BUDGET {
        if !watched.check {
            return;
        }
        watched.check = watched.socket.recv(frames);
        if watched.check {
            take(frames);
        }
    }
}

pub(crate) fn drain_router(
    router: &mut PeerRouter,
    check: &mut bool,
    frames: &mut Vec<zmq::Message>,
    mut take: impl FnMut(&[u8]),
) {
    for _ in 0..BUDGET {
        if !*check {
            return;
        }
        *check = router.socket().recv(frames);
        if *check {
            match frames.as_slice() {
                [_, empty, packet] if empty.is_empty() => take(packet),
                _ => log::warn!("unable to determine packet address"),
            }
        }
    }
}

/// The command socket (spec/internal-rpc.md §8).
pub(crate) fn drain_commands(
    now: u64,
    watched: &mut Watched,
    frames: &mut Vec<zmq::Message>,
    engine: &mut Proxy,
) {
    let mut replies: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    drain(watched, frames, |frames| match frames {
        [peer, empty, payload] if empty.is_empty() => {
            if let Some(reply) = engine.command(now, payload) {
                replies.push((peer.to_vec(), reply));
            }
        }
        _ => log::warn!("zrpc server: received message with parts != 3, skipping"),
    });
    for (peer, reply) in replies {
        watched.check = true;
        if watched.socket.send(&[&peer, b"", &reply]) != Sent::Ok {
            log::debug!("a reply to a command could not be sent");
        }
    }
}
