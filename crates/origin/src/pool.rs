//! Idle connections by endpoint.

use hashbrown::HashMap;

use crate::Endpoint;

/// Idle connections, the one used last first: it is warm, and the rest can time out.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    by_key: HashMap<Endpoint, Vec<usize>>,
    len: usize,
}

impl Pool {
    /// Idle connections in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes an idle connection.
    pub fn take(&mut self, endpoint: &Endpoint) -> Option<usize> {
        let found = self.by_key.get_mut(endpoint)?.pop();
        self.len -= usize::from(found.is_some());
        found
    }

    /// Puts a connection back.
    pub fn put(&mut self, endpoint: &Endpoint, conn: usize) {
        match self.by_key.get_mut(endpoint) {
            Some(list) => list.push(conn),
            None => drop(self.by_key.insert(endpoint.clone(), vec![conn])),
        }
        self.len += 1;
    }

    /// Forgets an idle connection that closed.
    pub fn remove(&mut self, endpoint: &Endpoint, conn: usize) {
        let Some(list) = self.by_key.get_mut(endpoint) else { return };
        if let Some(at) = list.iter().position(|&c| c == conn) {
            list.remove(at);
            self.len -= 1;
        }
        if list.is_empty() {
            self.by_key.remove(endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_in_first_out_per_endpoint() {
        let endpoint = |port| Endpoint { host: "h".into(), port, tls: None, deny_internal: false };
        let mut pool = Pool::default();
        for conn in 0..3 {
            pool.put(&endpoint(1), conn);
        }
        pool.put(&endpoint(2), 9);
        pool.remove(&endpoint(1), 1);
        assert_eq!(
            (pool.len(), pool.take(&endpoint(1)), pool.take(&endpoint(1))),
            (3, Some(2), Some(0))
        );
        assert_eq!(
            (pool.take(&endpoint(1)), pool.take(&endpoint(2)), pool.len()),
            (None, Some(9), 0)
        );
    }
}
