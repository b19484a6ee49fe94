//! One limit of clients over several connmgr processes: the kernel spreads clients by a hash of
//! their addresses, so some processes get more of them than others. Each may take what it has and
//! an equal part of the room that is left over all; every second it is told anew.
//! Clients that come between the question and the new limits may exceed the whole for a moment.

use std::cmp::Reverse;

use evloop::parent::Order;

/// How often the processes are asked, milliseconds.
const ASK_MS: u64 = 1_000;

/// A process that takes clients.
#[derive(Debug)]
struct Process {
    /// Its number among the children.
    child: usize,
    /// Clients that it said it has.
    used: u64,
    /// What it was told last.
    told: u64,
}

/// The processes and their limit. Deadlines are milliseconds of the caller's clock.
#[derive(Debug)]
pub(crate) struct Balance {
    /// Clients of all together.
    max: u64,
    /// Clients for which one process may open files.
    fits: u64,
    processes: Vec<Process>,
    next_ms: u64,
}

impl Balance {
    /// For processes, by their numbers among the children, each of which was started with the
    /// limit `told`.
    pub fn new(max: u64, fits: u64, children: Vec<(usize, u64)>) -> Self {
        let process = |(child, told)| Process { child, used: 0, told };
        let processes = children.into_iter().map(process).collect();
        Self { max, fits, processes, next_ms: ASK_MS }
    }

    /// The limits are others, and each process was told of `told`.
    pub fn set_limits(&mut self, max: u64, fits: u64, told: u64) {
        (self.max, self.fits) = (max, fits);
        self.processes.iter_mut().for_each(|process| process.told = told);
    }

    /// A process said how many clients it has.
    pub fn used(&mut self, child: usize, clients: u64) {
        if let Some(process) = self.processes.iter_mut().find(|process| process.child == child) {
            process.used = clients;
        }
    }

    /// When [`Balance::orders`] is due. `None`: one process alone needs no balance.
    pub fn next_deadline(&self) -> Option<u64> {
        (self.processes.len() > 1).then_some(self.next_ms)
    }

    /// What is due now: new limits, and the question how many clients there are.
    pub fn orders(&mut self, now: u64) -> Vec<(usize, Order)> {
        if self.next_deadline().is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.next_ms = now + ASK_MS;
        let count = self.processes.len() as u64;
        let room = self.max.saturating_sub(self.processes.iter().map(|p| p.used).sum());
        let (part, mut rest) = (room / count, room % count);
        let mut orders = Vec::new();
        // What is left of the division goes where clients wait: at those that are full, and not
        // for want of room that they were never given.
        let order = |process: &Process| (process.used < process.told, Reverse(process.used));
        self.processes.sort_by_key(|process| (order(process), process.child));
        for process in &mut self.processes {
            let limit = (process.used + part + u64::from(rest > 0)).min(self.fits);
            rest = rest.saturating_sub(1);
            if limit != process.told {
                process.told = limit;
                orders.push((process.child, Order::Part(limit)));
            }
            orders.push((process.child, Order::Count));
        }
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(balance: &mut Balance, now: u64) -> Vec<(usize, u64)> {
        let parts = balance.orders(now).into_iter().filter_map(|(child, order)| match order {
            Order::Part(limit) => Some((child, limit)),
            _ => None,
        });
        parts.collect()
    }

    /// The limit that a process has.
    fn told(balance: &Balance, child: usize) -> u64 {
        balance.processes.iter().find(|process| process.child == child).unwrap().told
    }

    #[test]
    fn room_goes_where_the_clients_are() {
        for busy in [0, 2, 3] {
            let mut balance = Balance::new(101, 1_000, vec![(0, 34), (2, 34), (3, 34)]);
            assert_eq!(balance.next_deadline(), Some(1_000));
            assert!(balance.orders(999).is_empty());
            assert_eq!(parts(&mut balance, 1_000).iter().map(|(_, limit)| limit).sum::<u64>(), 33);
            balance.used(1, 7);
            for second in 2..30 {
                // All of it, down to the last place, if it must be.
                balance.used(busy, told(&balance, busy));
                parts(&mut balance, second * 1_000);
                let all: u64 = balance.processes.iter().map(|process| process.told).sum();
                assert_eq!(all, 101);
            }
            assert_eq!(told(&balance, busy), 101);
            // They leave.
            balance.used(busy, 0);
            parts(&mut balance, 30_000);
            assert!(balance.processes.iter().all(|process| process.told >= 33));
        }
    }

    #[test]
    fn never_more_than_fits_or_is_allowed() {
        let mut balance = Balance::new(100, 60, vec![(0, 50), (1, 50)]);
        balance.used(0, 55);
        assert_eq!(parts(&mut balance, 1_000), [(0, 60), (1, 22)]);
        balance.set_limits(40, 60, 20);
        assert_eq!(parts(&mut balance, 2_000), [(0, 55), (1, 0)]);
        let mut alone = Balance::new(100, 60, vec![(0, 60)]);
        assert!(alone.next_deadline().is_none() && alone.orders(5_000).is_empty());
    }
}
