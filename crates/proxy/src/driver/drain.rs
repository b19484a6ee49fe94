//! Taking what came on a worker's sockets, each within its budget.

use evloop::peers::PeerRouter;

use super::sockets::Watched;

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
