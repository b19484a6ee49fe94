//! The debug view: what each worker holds, as text for an operator in trouble.

use std::fmt::Write as _;

use super::clientside::reports::ClientOverview;
use super::inspect::{Answer, Overview, Report};
use crate::{Named, Phase};

/// The lines of a dump, each complete in itself.
pub(crate) fn lines(overview: &Overview) -> Vec<String> {
    let queues = &overview.queues;
    let mut out = vec![format!(
        "dump: workers={} waiting-requests={} waiting-req={} waiting-dropped={} slow-peers={} \
         malformed={} spare-blocks={}",
        overview.workers.len(),
        queues.first,
        queues.req,
        queues.dropped,
        queues.parked,
        queues.malformed,
        overview.spare_blocks
    )];
    for (number, answer) in overview.workers.iter().enumerate() {
        worker(&mut out, number, answer);
    }
    if let Some(side) = &overview.client_side {
        client_side(&mut out, side);
    }
    out.push("dump: end".into());
    out
}

fn worker(out: &mut Vec<String>, number: usize, answer: &Answer) {
    if !answer.fresh {
        out.push(format!("worker {number}: no answer in time; what follows, if anything, is old"));
    }
    let Some(report) = &answer.report else { return };
    out.push(format!("worker {number}: connections: {}", phases(report)));
    out.push(format!(
        "worker {number}: buffers: unread={} unsent={} waiting-messages={}",
        report.survey.bytes_in, report.pinned, report.outputs
    ));
    let turns = &report.turns;
    out.push(format!(
        "worker {number}: loop: turns={} sum={}us max={}us",
        turns.count(),
        turns.sum_us(),
        turns.max_us()
    ));
    out.push(format!("worker {number}: {:?}", report.counters));
    for (peer, sessions) in &report.peers {
        out.push(format!("worker {number}: peer {}: sessions={sessions}", peer.escape_debug()));
    }
    for (word, list) in [("oldest", &report.survey.oldest), ("largest", &report.survey.largest)] {
        out.extend(list.iter().map(|named| format!("worker {number}: {word}: {}", one(named))));
    }
}

fn client_side(out: &mut Vec<String>, side: &ClientOverview) {
    out.push(format!("client: malformed={} unsent={}", side.malformed, side.unsent));
    for (number, report) in side.workers.iter().enumerate() {
        let (stream, req) = (report.stream, report.req);
        out.push(format!("client-worker {number}: sessions: stream={stream} req={req}"));
        out.push(format!("client-worker {number}: {:?}", report.counters));
    }
}

fn phases(report: &Report) -> String {
    let mut text = String::new();
    for phase in Phase::ALL {
        let [stream, req] = report.survey.phases[phase as usize];
        // Writing to a String does not fail.
        let _ = write!(text, "{}={stream}+{req}req ", phase.name());
    }
    text.trim_end().to_string()
}

fn one(named: &Named) -> String {
    let id = String::from_utf8_lossy(&named.session.text()).into_owned();
    let from = named.address.map_or("local".to_string(), |(ip, port)| match ip {
        std::net::IpAddr::V4(ip) => format!("{ip}:{port}"),
        std::net::IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    });
    format!(
        "{id} {} {} age={}s from={from} peer={} unread={} unsent={}",
        if named.req { "req" } else { "stream" },
        named.phase.name(),
        named.age_s,
        named.peer.escape_debug(),
        named.bytes_in,
        named.bytes_out
    )
}
