//! The proxy: routes requests to backends and hands holds to the handler.
