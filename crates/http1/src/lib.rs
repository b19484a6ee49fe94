//! HTTP/1 heads, framing and chunked coding.
