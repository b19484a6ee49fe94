//! How many processes and threads an operator wants. Read by the supervisor, the proxy and the
//! handler.

use crate::settings::Settings;

const WORKERS_MAX: i64 = 1024;
const PROCESSES_MAX: i64 = 64;

/// Counts of threads and processes; each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// `[runner] connmgr_workers`: threads of each connmgr process.
    pub connmgr_workers: usize,
    /// `[runner] connmgr_processes`.
    pub connmgr_processes: usize,
    /// `[proxy] workers`: also what the handler connects to.
    pub proxy: usize,
    /// `[handler] workers`.
    pub handler: usize,
}

impl Workers {
    /// Reads the four keys; what is out of range is set to the nearest limit with a warning.
    pub fn from(settings: &Settings) -> Self {
        Self {
            connmgr_workers: count(settings, "runner", "connmgr_workers", WORKERS_MAX),
            connmgr_processes: count(settings, "runner", "connmgr_processes", PROCESSES_MAX),
            proxy: count(settings, "proxy", "workers", WORKERS_MAX),
            handler: count(settings, "handler", "workers", WORKERS_MAX),
        }
    }
}

fn count(settings: &Settings, section: &str, key: &str, max: i64) -> usize {
    let wanted = settings.int(section, key, 1);
    let taken = wanted.clamp(1, max);
    if wanted != taken {
        let place = settings.place(section, key).unwrap_or_default();
        settings.warn(format!("{place} must be 1 to {max}, taken as {taken}"));
    }
    usize::try_from(taken).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Overrides;

    #[test]
    fn counts_have_limits() {
        let text = "[runner]\nconnmgr_workers=4\nconnmgr_processes=1000\n[proxy]\nworkers=0\n";
        let settings = Settings::from_text(text, &Overrides::default()).unwrap();
        let workers = Workers::from(&settings);
        let expected = Workers { connmgr_workers: 4, connmgr_processes: 64, proxy: 1, handler: 1 };
        assert_eq!(workers, expected);
        assert_eq!(settings.take_warnings().len(), 2);
    }
}
