//! The routes file and route look-up.
