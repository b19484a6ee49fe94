//! The configuration file format, include and variables.
