//! How many clients fit (spec/programs.md §2.7): the share of each connection manager, and what
//! the limit of open files allows.

/// Descriptors of a connection manager besides its clients: listeners, ZeroMQ, logs, and some.
const FIXED_FILES: u64 = 50;

/// The limit of clients of each of `processes` connection managers under a common limit. With more
/// than one each gets a bit more than its part, since the kernel spreads clients by a hash.
pub fn share(maxconn: u64, processes: u64) -> u64 {
    if processes == 1 { maxconn } else { maxconn.div_ceil(processes) * 105 / 100 + 64 }
}

/// What of `maxconn` clients a process with so many workers can serve, given its limit of open
/// files, and the warning if that is less.
pub fn fit(maxconn: u64, workers: u64, files: u64) -> (u64, Option<String>) {
    let fixed = FIXED_FILES + workers;
    let needed = maxconn.saturating_add(fixed);
    if files >= needed {
        return (maxconn, None);
    }
    let fits = files.saturating_sub(fixed).max(workers);
    let warning = format!(
        "{maxconn} clients need a limit of {needed} open files, but the limit is {files}: {fits} \
         clients fit now. To raise it: LimitNOFILE={needed} in the service unit, or \
         ulimit -n {needed} before the start"
    );
    (fits, Some(warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        assert_eq!(share(50_000, 1), 50_000);
        assert_eq!(share(50_000, 3), 17_564);
        assert!(share(1, 64) * 64 >= 1);
    }

    #[test]
    fn what_fits() {
        assert_eq!(fit(1000, 2, 1052), (1000, None));
        let (fits, warning) = fit(1_010_000, 2, 1024);
        assert_eq!(fits, 972);
        let warning = warning.unwrap();
        for number in ["1010000", "1010052", "1024", "972", "LimitNOFILE=", "ulimit -n"] {
            assert!(warning.contains(number), "{warning}");
        }
        assert_eq!(fit(1000, 4, 20).0, 4);
    }
}
