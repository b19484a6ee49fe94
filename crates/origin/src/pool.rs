//! What each endpoint has: open connections, the idle ones among them, and requests that wait for
//! one because their endpoint has as many as it may. Used by the client only; pure.

use std::collections::VecDeque;
use std::sync::Arc;

use evloop::arena::Key;
use hashbrown::HashMap;

use crate::Endpoint;

#[derive(Debug, Default)]
struct Host {
    open: usize,
    idle: Vec<usize>,
    waiting: VecDeque<Key>,
}

/// All endpoints that have connections or waiting requests.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    hosts: HashMap<Arc<Endpoint>, Host>,
    idle: usize,
}

impl Pool {
    /// Idle connections in all.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Idle connections of one endpoint.
    pub fn idle_of(&self, endpoint: &Endpoint) -> usize {
        self.hosts.get(endpoint).map_or(0, |host| host.idle.len())
    }

    /// Takes the idle connection that was used last: it is warm, and the rest can time out.
    pub fn take(&mut self, endpoint: &Endpoint) -> Option<usize> {
        let found = self.hosts.get_mut(endpoint)?.idle.pop();
        self.idle -= usize::from(found.is_some());
        found
    }

    /// An open connection is idle from now on.
    pub fn put(&mut self, endpoint: &Endpoint, conn: usize) {
        if let Some(host) = self.hosts.get_mut(endpoint) {
            host.idle.push(conn);
            self.idle += 1;
        }
    }

    /// Counts one more connection, made or about to be; false if the endpoint has `max` already.
    pub fn reserve(&mut self, endpoint: &Arc<Endpoint>, max: usize) -> bool {
        let host = match self.hosts.get_mut(endpoint) {
            Some(host) => host,
            None => self.hosts.entry(Arc::clone(endpoint)).or_default(),
        };
        let room = host.open < max;
        host.open += usize::from(room);
        room
    }

    /// What was reserved is gone: a connection that is not idle closed, or was never made.
    pub fn release(&mut self, endpoint: &Endpoint) {
        let Some(host) = self.hosts.get_mut(endpoint) else { return };
        host.open = host.open.saturating_sub(1);
        if host.open == 0 && host.waiting.is_empty() {
            self.hosts.remove(endpoint);
        }
    }

    /// A connection closed, idle or not.
    pub fn closed(&mut self, endpoint: &Endpoint, conn: usize) {
        let Some(host) = self.hosts.get_mut(endpoint) else { return };
        if let Some(at) = host.idle.iter().position(|&c| c == conn) {
            host.idle.remove(at);
            self.idle -= 1;
        }
        self.release(endpoint);
    }

    /// Whether a request waits for this endpoint.
    pub fn is_wanted(&self, endpoint: &Endpoint) -> bool {
        self.hosts.get(endpoint).is_some_and(|host| !host.waiting.is_empty())
    }

    /// The request that waits longest for this endpoint, if there is a connection for it.
    pub fn next_waiting(&mut self, endpoint: &Endpoint, max: usize) -> Option<Key> {
        let host = self.hosts.get_mut(endpoint)?;
        if host.idle.is_empty() && host.open >= max {
            return None;
        }
        host.waiting.pop_front()
    }

    /// A request waits until its endpoint has a connection for it.
    pub fn wait(&mut self, endpoint: &Endpoint, key: Key) {
        if let Some(host) = self.hosts.get_mut(endpoint) {
            host.waiting.push_back(key);
        }
    }

    /// All requests that wait.
    pub fn waiting(&self) -> impl Iterator<Item = Key> {
        self.hosts.values().flat_map(|host| host.waiting.iter().copied())
    }

    /// Forgets waiting requests that `gone` names.
    pub fn forget_waiting(&mut self, gone: impl Fn(Key) -> bool) {
        for host in self.hosts.values_mut() {
            host.waiting.retain(|key| !gone(*key));
        }
        self.hosts.retain(|_, host| host.open > 0 || !host.waiting.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Arc<Endpoint> {
        Arc::new(Endpoint { host: "h".into(), port, tls: None, deny_internal: false })
    }

    #[test]
    fn last_in_first_out_per_endpoint() {
        let mut pool = Pool::default();
        for conn in 0..3 {
            assert!(pool.reserve(&endpoint(1), 3));
            pool.put(&endpoint(1), conn);
        }
        assert!(pool.reserve(&endpoint(2), 1) && !pool.reserve(&endpoint(1), 3));
        pool.put(&endpoint(2), 9);
        pool.closed(&endpoint(1), 1);
        assert_eq!((pool.idle(), pool.idle_of(&endpoint(1))), (3, 2));
        assert_eq!((pool.take(&endpoint(1)), pool.take(&endpoint(1))), (Some(2), Some(0)));
        assert_eq!(
            (pool.take(&endpoint(1)), pool.take(&endpoint(2)), pool.idle()),
            (None, Some(9), 0)
        );
        assert!(pool.reserve(&endpoint(1), 3) && !pool.reserve(&endpoint(1), 3));
    }

    #[test]
    fn requests_wait_in_order_and_nothing_is_kept_of_the_past() {
        let mut pool = Pool::default();
        let key = |index| Key { index, generation: 0 };
        assert!(pool.reserve(&endpoint(1), 1) && !pool.reserve(&endpoint(1), 1));
        (0..3).for_each(|n| pool.wait(&endpoint(1), key(n)));
        pool.closed(&endpoint(1), 0);
        assert_eq!(pool.waiting().count(), 3);
        pool.forget_waiting(|k| k == key(0));
        assert!(pool.is_wanted(&endpoint(1)));
        assert_eq!(pool.next_waiting(&endpoint(1), 1), Some(key(1)));
        assert!(pool.reserve(&endpoint(1), 1));
        assert_eq!(pool.next_waiting(&endpoint(1), 1), None);
        pool.release(&endpoint(1));
        pool.forget_waiting(|_| true);
        assert!(pool.hosts.is_empty());
    }
}
