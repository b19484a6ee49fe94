//! The handler: holds, channels, publishing, stats.
