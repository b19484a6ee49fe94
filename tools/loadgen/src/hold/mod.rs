//! `hold`: opens many connections, keeps them, and measures what arrives.
//!
//! The parent process only coordinates. Each worker process holds a share of
//! the connections and answers every `snap` line on its standard input with one
//! JSON line of what changed since the last.

mod coordinate;
mod seen;
mod tls;
mod worker;

use clap::{Args, ValueEnum};
use std::io;
use std::net::Ipv4Addr;

/// The sample key of RFC 6455 and the answer that belongs to it.
pub const WS_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const WS_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Kind {
    /// GET with Accept: text/event-stream
    Sse,
    /// WebSocket upgrade
    Ws,
}

#[derive(Args, Clone, Debug)]
pub struct HoldArgs {
    /// Server as host:port; give several to spread the connections over them
    #[arg(long, required = true)]
    target: Vec<String>,
    /// Connections in all
    #[arg(short = 'n', long, default_value_t = 1000)]
    connections: u64,
    #[arg(long, value_enum, default_value_t = Kind::Sse)]
    kind: Kind,
    /// Request target; {uid} is the number of the connection, {uid%K} its remainder
    #[arg(long, default_value = "/stream?topic=group-{uid%10}")]
    path: String,
    /// Speak TLS; any certificate will do
    #[arg(long)]
    tls: bool,
    /// Ask for permessage-deflate, and fail without it; what comes is not decompressed
    #[arg(long)]
    deflate: bool,
    /// Number of the first connection
    #[arg(long, default_value_t = 0)]
    first_uid: u64,
    /// Further request header, as "Name: value"
    #[arg(long)]
    header: Vec<String>,
    /// Connections to start per second, in all; 0 is as fast as --pending allows
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Most connections between connect and response head, in all
    #[arg(long, default_value_t = 100)]
    pending: usize,
    /// Seconds allowed from connect to response head
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
    /// Spread over this many source addresses; 0 leaves the choice to the system
    #[arg(long, default_value_t = 0)]
    sources: u32,
    /// First source address
    #[arg(long, default_value = "127.0.1.1")]
    source: Ipv4Addr,
    /// Worker processes; 0 is one per 18,000 connections
    #[arg(long, default_value_t = 0)]
    procs: u64,
    /// Threads per worker process
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Seconds to stay after the last connection is settled; without it, until end
    /// of input, taking the commands "stat", "mark" and "quit" from there
    #[arg(long)]
    stay: Option<f64>,
    /// Write a row per second to this CSV file
    #[arg(long)]
    csv: Option<String>,
    /// No progress line
    #[arg(long)]
    quiet: bool,
    /// Internal: share of a worker process, as index/count
    #[arg(long, hide = true)]
    worker: Option<String>,
}

pub fn run(args: HoldArgs) -> io::Result<()> {
    match args.worker.clone() {
        Some(share) => {
            let (index, count) =
                share.split_once('/').ok_or_else(|| io::Error::other("bad --worker"))?;
            worker::work(args, index.parse().unwrap_or(0), count.parse().unwrap_or(1))
        }
        None => coordinate::coordinate(args),
    }
}

/// Fills `{uid}` and `{uid%K}` in a template.
pub fn expand(template: &str, uid: u64) -> String {
    let mut out = String::with_capacity(template.len() + 8);
    let mut rest = template;
    while let Some(at) = rest.find("{uid") {
        let Some(len) = rest[at..].find('}') else { break };
        out.push_str(&rest[..at]);
        let inner = &rest[at + 4..at + len];
        let n = inner
            .strip_prefix('%')
            .and_then(|k| k.parse::<u64>().ok())
            .map_or(uid, |k| uid % k.max(1));
        out.push_str(&n.to_string());
        rest = &rest[at + len + 1..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    #[test]
    fn templates() {
        assert_eq!(super::expand("/a/{uid}?t=g-{uid%10}&x", 123), "/a/123?t=g-3&x");
        assert_eq!(super::expand("/a/{uid", 1), "/a/{uid");
    }
}
