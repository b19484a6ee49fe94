//! One limit of clients over several connmgr processes: the kernel spreads clients by a hash of
//! their addresses, so some processes get more of them than others. Each may take what it has and
//! an equal part of the room that is left over all; every second it is told anew. A process is
//! told to take more only once others have said that they take less, so the whole is never
//! exceeded.

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
    /// What it may have at most, for it may not have heard yet that it is to take less.
    granted: u64,
    /// Questions that it has not answered.
    asked: u32,
    /// When it got a place of the rest.
    favoured_ms: u64,
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
        let process = |(child, told)| Process {
            child,
            used: 0,
            told,
            granted: told,
            asked: 0,
            favoured_ms: 0,
        };
        let processes = children.into_iter().map(process).collect();
        Self { max, fits, processes, next_ms: ASK_MS }
    }

    /// The limits are others.
    pub fn set_limits(&mut self, max: u64, fits: u64) {
        (self.max, self.fits) = (max, fits);
    }

    /// A process said how many clients it has. It has heard by then what it was told before it was
    /// asked.
    pub fn used(&mut self, child: usize, clients: u64) {
        if let Some(process) = self.processes.iter_mut().find(|process| process.child == child) {
            process.used = clients;
            process.asked = process.asked.saturating_sub(1);
            if process.asked == 0 {
                process.granted = process.told.max(clients);
            }
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
        let room = self.max.saturating_sub(self.processes.iter().map(|p| p.used).sum());
        let mut free = self.max.saturating_sub(self.processes.iter().map(|p| p.granted).sum());
        let count = self.processes.len() as u64;
        let (part, mut rest) = (room / count, room % count);
        // What is left of the division goes where clients may wait, in turn.
        self.processes.sort_by_key(|p| (p.used < p.told, p.favoured_ms, p.child));
        let mut orders = Vec::new();
        for process in &mut self.processes {
            let wanted = process.used + part + u64::from(rest > 0);
            let limit = wanted.min(self.fits).min(process.granted + free);
            if rest > 0 && limit == wanted {
                // Who did not get it now stays in front.
                process.favoured_ms = now;
            }
            rest = rest.saturating_sub(1);
            free -= limit.saturating_sub(process.granted);
            process.granted = process.granted.max(limit);
            if limit != process.told {
                process.told = limit;
                orders.push((process.child, Order::Part(limit)));
            }
            process.asked += 1;
            orders.push((process.child, Order::Count));
        }
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes that do what they are told, and clients that wait at them.
    struct World {
        balance: Balance,
        limits: Vec<u64>,
        used: Vec<u64>,
        waiting: Vec<u64>,
        /// Answers on their way.
        said: Vec<(usize, u64)>,
    }

    impl World {
        fn new(max: u64, fits: u64, count: usize) -> Self {
            let part = (max / count as u64).min(fits);
            let children = (0..count).map(|n| (n, part)).collect();
            Self {
                balance: Balance::new(max, fits, children),
                limits: vec![part; count],
                used: vec![0; count],
                waiting: vec![0; count],
                said: Vec::new(),
            }
        }

        fn accept(&mut self) {
            for n in 0..self.used.len() {
                let taken = self.waiting[n].min(self.limits[n].saturating_sub(self.used[n]));
                self.used[n] += taken;
                self.waiting[n] -= taken;
            }
        }

        /// A second. Answers come in time, or late if `is_late`.
        fn pass(&mut self, second: u64, is_late: bool) {
            self.accept();
            if !is_late {
                for (n, clients) in std::mem::take(&mut self.said) {
                    self.balance.used(n, clients);
                }
            }
            for (n, order) in self.balance.orders(second * 1_000) {
                match order {
                    Order::Part(limit) => self.limits[n] = limit,
                    // The clients of this moment: more may come before anybody hears of it.
                    _ => self.said.push((n, self.used[n])),
                }
            }
            self.accept();
        }

        fn total(&self) -> u64 {
            self.used.iter().sum()
        }
    }

    #[test]
    fn all_room_goes_where_clients_are_and_never_more() {
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            (random >> 33) % below
        };
        for round in 0..200 {
            let (max, count) = (3 + next(300), 2 + next(4) as usize);
            let mut world = World::new(max.max(count as u64), 1_000, count);
            let max = world.balance.max;
            for second in 1..200 {
                let n = next(count as u64) as usize;
                match second < 60 {
                    true => world.waiting[n] += next(max / 2),
                    false => world.waiting[round % count] += u64::from(second == 60) * 2 * max,
                }
                if second < 60 && next(3) == 0 {
                    world.used[n] -= next(world.used[n] + 1);
                }
                world.pass(second, second < 60 && next(4) == 0);
                assert!(world.total() <= max, "{:?} of {max}", world.used);
            }
            assert_eq!(world.total(), max, "{:?} wait {:?}", world.used, world.waiting);
        }
    }

    #[test]
    fn limits_of_files_and_new_ones() {
        let mut world = World::new(100, 60, 2);
        world.waiting[0] = 100;
        (1..20).for_each(|second| world.pass(second, false));
        assert_eq!(world.used, [60, 0]);
        world.balance.set_limits(40, 60);
        (20..25).for_each(|second| world.pass(second, false));
        assert_eq!((world.used[0], world.limits[1]), (60, 0));
        let mut alone = Balance::new(100, 60, vec![(0, 60)]);
        assert!(alone.next_deadline().is_none() && alone.orders(5_000).is_empty());
    }
}
