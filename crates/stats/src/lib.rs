//! Stats packets, reports and the Prometheus text.
