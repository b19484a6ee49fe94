//! GRIP instructions and published items.
