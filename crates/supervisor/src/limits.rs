//! How many clients each connmgr may take, from `client_maxconn` and the limit of open files
//! (spec/programs.md §2.7).

/// Files of a connmgr that are not clients: ZeroMQ, log, pipes. Not less than the connmgr keeps for
/// itself, or it would warn a second time with another number.
const BASE_FILES: u64 = 100;

/// Files of each worker, besides one for each listener.
const WORKER_FILES: u64 = 4;

/// What one connmgr process may take, and the warning if that is less than asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// What it starts with; with several processes, `balance` goes on from there.
    pub maxconn: u64,
    /// What its files suffice for.
    pub fits: u64,
    pub warning: Option<String>,
}

/// The size of one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// `client_maxconn`.
    pub maxconn: u64,
    /// connmgr processes.
    pub processes: u64,
    /// Threads of each.
    pub workers: u64,
    /// Listeners of each.
    pub listeners: u64,
}

impl Size {
    /// The share of each process under a limit of open files.
    pub fn share(self, files: u64) -> Share {
        let wanted = (self.maxconn / self.processes).max(1);
        let others = BASE_FILES + self.workers * (self.listeners + WORKER_FILES);
        let fits = files.saturating_sub(others).max(self.workers);
        if fits >= wanted {
            return Share { maxconn: wanted, fits, warning: None };
        }
        let maxconn = self.maxconn;
        let each = if self.processes == 1 { "" } else { " for each connmgr process" };
        let warning = format!(
            "client_maxconn is {maxconn} but the limit of open files is {files}: {fits} clients \
             fit{each}. To raise it: LimitNOFILE={} in the service unit, or ulimit -n {0}",
            wanted + others
        );
        Share { maxconn: fits, fits, warning: Some(warning) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(maxconn: u64, processes: u64) -> Size {
        Size { maxconn, processes, workers: 2, listeners: 1 }
    }

    #[test]
    fn a_share_that_fits() {
        let share = |maxconn, fits| Share { maxconn, fits, warning: None };
        assert_eq!(size(1000, 1).share(1110), share(1000, 1000));
        assert_eq!(size(3000, 3).share(9999), share(1000, 9889));
        assert_eq!(size(31, 3).share(9999), share(10, 9889));
    }

    #[test]
    fn a_limit_that_is_too_low() {
        let share = size(50_000, 1).share(1024);
        assert_eq!(share.maxconn, 1024 - 110);
        let text = share.warning.unwrap();
        for number in ["50000", "1024", "914", "LimitNOFILE=50110", "ulimit -n 50110"] {
            assert!(text.contains(number), "{text}");
        }
        assert_eq!(size(50_000, 1).share(10).maxconn, 2);
    }
}
