//! What the workers of the proxy do for each other.

use super::Loop;
use crate::driver::drain::BUDGET;
use crate::driver::neighbours::Handed;
use crate::driver::targets::Ask;
use crate::zmq_target::askers;

/// Requests of other workers that may wait while this one has as many sessions as it may.
const HANDED_MAX: usize = 1_000;

impl Loop {
    /// Takes what other workers give.
    pub(super) fn take_handed(&mut self, now: u64) {
        for _ in 0..BUDGET {
            if !self.handed_check {
                break;
            }
            match self.handed.try_recv() {
                Ok(Handed::Request(request)) => self.requests.push_back(request),
                Ok(Handed::ToTarget(ask)) => self.ask_target(now, ask),
                Ok(Handed::FromTarget(message)) => self.engine.worker_packet(now, &message),
                Ok(Handed::NoTarget(key)) => self.engine.worker_unreachable(now, key),
                Err(_) => self.handed_check = false,
            }
        }
        while self.engine.wants_requests()
            && let Some(request) = self.requests.pop_front()
        {
            self.engine.handed_request(now, &request);
        }
        while self.requests.len() > HANDED_MAX
            && let Some(request) = self.requests.pop_back()
        {
            self.engine.not_handed(now, &request);
        }
    }

    /// A packet for a ZHTTP worker: to its sockets, which the first worker has.
    pub(super) fn ask_target(&mut self, now: u64, ask: Ask) {
        let key = ask.asker.1;
        match &mut self.targets {
            Some(targets) => targets.send(now, ask),
            None if self.neighbours.give(0, Handed::ToTarget(ask)).is_err() => {
                self.engine.worker_unreachable(now, key);
            }
            None => {}
        }
    }

    /// What came from ZHTTP workers, for whichever worker of the proxy, and who asked in vain.
    pub(super) fn take_targets(&mut self, now: u64) {
        let Self { engine, targets: Some(targets), frames, neighbours, number, .. } = self else {
            return;
        };
        targets.drain(now, frames, &mut |message| {
            for asker in askers(message) {
                if asker == *number {
                    engine.worker_packet(now, message);
                } else if neighbours.give(asker, Handed::FromTarget(message.to_vec())).is_err() {
                    log::warn!("a worker has too much to do, a packet for it was dropped");
                }
            }
        });
        for (asker, key) in targets.take_failed() {
            if asker == *number {
                engine.worker_unreachable(now, key);
            } else if neighbours.give(asker, Handed::NoTarget(key)).is_err() {
                log::warn!("a worker has too much to do, a failure for it was dropped");
            }
        }
    }
}
