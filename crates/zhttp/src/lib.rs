//! ZHTTP packets, ids, sequence numbers and credits.
