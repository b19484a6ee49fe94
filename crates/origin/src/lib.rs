//! The outgoing HTTP/1.1 client with its kept-alive pool.
