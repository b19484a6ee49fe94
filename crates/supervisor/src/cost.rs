//! What `client_maxconn` clients cost, and whether this machine has it: one line at every start,
//! and a warning for each limit of the system that comes first. Called by `run`.

use std::fs;

/// Bytes of an idle held stream in all processes together, and in the kernel (socket, file,
/// epoll entry). Measured; see docs/benchmarks.md.
const PROCESSES_BYTES: u64 = 400;
const KERNEL_BYTES: u64 = 5_000;

/// Open files of the system beside those of clients.
const OTHER_FILES: u64 = 10_000;

/// From so many clients on the system's own settings are known to matter.
const MANY: u64 = 100_000;

/// Half-open connections of a listening socket, for crowds that come at once.
const BACKLOG: u64 = 4_096;

/// What the system gives; `None` where it does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct System {
    /// Bytes.
    pub memory: Option<u64>,
    pub file_max: Option<u64>,
    pub somaxconn: Option<u64>,
    /// Most memory of all TCP sockets, in pages.
    pub tcp_pages: Option<u64>,
    pub conntrack_max: Option<u64>,
}

impl System {
    /// Reads it from /proc.
    pub fn read() -> Self {
        let number = |path: &str, field: usize| -> Option<u64> {
            let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
            text.split_whitespace().nth(field)?.parse().ok()
        };
        let memory = || -> Option<u64> {
            let text = fs::read_to_string("/proc/meminfo").ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        Self {
            memory: memory(),
            file_max: number("fs/file-max", 0),
            somaxconn: number("net/core/somaxconn", 0),
            tcp_pages: number("net/ipv4/tcp_mem", 2),
            conntrack_max: number("net/netfilter/nf_conntrack_max", 0),
        }
    }

    /// The line for so many clients, and what does not suffice.
    pub fn judge(&self, clients: u64, files: u64) -> (String, Vec<String>) {
        let mb = |bytes: u64| bytes.div_ceil(1 << 20);
        let (own, kernel) = (clients * PROCESSES_BYTES, clients * KERNEL_BYTES);
        let free = self.memory.map(|bytes| format!(" of {} MB available", mb(bytes)));
        let line = format!(
            "{clients} held clients would take about {} MB in the processes and {} MB in the \
             kernel{}, and as many of {files} open files",
            mb(own),
            mb(kernel),
            free.unwrap_or_default()
        );
        let mut short = Vec::new();
        if self.memory.is_some_and(|bytes| bytes < own + kernel) {
            short.push(format!(
                "client_maxconn={clients} needs more memory than there is: about {} MB",
                mb(own + kernel)
            ));
        }
        let many = if clients < MANY { u64::MAX } else { 0 };
        let limits = [
            ("fs.file-max", self.file_max, clients + OTHER_FILES),
            ("net.netfilter.nf_conntrack_max", self.conntrack_max, clients),
            ("net.core.somaxconn", self.somaxconn.map(|value| value.max(many)), BACKLOG),
            ("net.ipv4.tcp_mem (the third)", self.tcp_pages.map(|value| value.max(many)), clients),
        ];
        for (name, value, least) in limits {
            if let Some(value) = value.filter(|value| *value < least) {
                short.push(format!(
                    "client_maxconn={clients} is more than sysctl {name} = {value} allows for: \
                     {least} would do"
                ));
            }
        }
        (line, short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_needs_more_than_a_small_machine_has() {
        let big = System {
            memory: Some(16 << 30),
            file_max: Some(2_200_000),
            somaxconn: Some(65_535),
            tcp_pages: Some(4_194_304),
            conntrack_max: None,
        };
        let (line, short) = big.judge(1_000_000, 1_100_000);
        let expected = "1000000 held clients would take about 382 MB in the processes and 4769 MB \
                        in the kernel of 16384 MB available, and as many of 1100000 open files";
        assert_eq!((line.as_str(), short), (expected, Vec::new()));
        let small = System {
            memory: Some(1 << 30),
            file_max: Some(100_000),
            somaxconn: Some(128),
            tcp_pages: Some(12_000),
            conntrack_max: Some(65_536),
        };
        let (_, short) = small.judge(1_000_000, 1_100_000);
        assert_eq!(short.len(), 5, "{short:?}");
        assert!(short[1].contains("fs.file-max = 100000") && short[1].contains("1010000"));
        assert!(short[4].contains("tcp_mem"), "{short:?}");
    }

    #[test]
    fn a_small_server_is_not_bothered_with_tuning() {
        let system = System { somaxconn: Some(128), tcp_pages: Some(9), ..System::default() };
        assert_eq!(system.judge(50_000, 60_000).1, [""; 0]);
    }
}
