//! The log line format of all programs, written without blocking.
