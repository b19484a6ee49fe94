//! The command-line publisher.
