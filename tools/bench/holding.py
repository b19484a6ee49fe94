"""What is measured of whole servers that hold, beyond `measures`: memory of WebSockets and of TLS
streams, and keep-alives at the rate of a million streams.

Every measure takes the name of a peer and gives a dictionary that goes into the results."""

import os
import time

from machine import Hold, cpu_seconds, free_ports, memory_kb, minus
from measures import brief_opening, opening_cpu
from peers import certificate, peers, running

FIRST, REST = 500, 4500
STREAMS = 15_000
# A million streams with a keep-alive every 55 s are 18,000 writes a second, 9,000 for each of two
# cores. Ours draws up to a second off the interval, so that streams opened together spread.
INTERVAL_S = 2
INTERVALS_S = {"floor": 1.6, "nchan": 1.6}


def slope(peer, target, path, **kind):
    """Opens FIRST and then REST more; memory for each of the latter."""
    first, rest = Hold(target, FIRST, path, **kind), None
    try:
        first.opened()
        time.sleep(1)
        before, cpu0 = memory_kb(peer.pids()), cpu_seconds(peer.pids())
        rest = Hold(target, REST, path, first_uid=FIRST, **kind)
        out = brief_opening(rest.opened())
        n = max(out["established"], 1)
        out.update(opening_cpu(peer, cpu0, n))
        time.sleep(2)
        full = memory_kb(peer.pids())
        out["live"] = rest.ask("stat")["live"]
        by = {c: round((full[c]["pss"] - before.get(c, {"pss": 0})["pss"]) * 1024 / n) for c in full}
        return {**out, "pss_bytes_per_conn": sum(by.values()), "pss_by_process": by}
    finally:
        for crowd in filter(None, (first, rest)):
            crowd.close()


def measure_sockets(name, note):
    """Idle WebSockets, over HTTP where the server can."""
    with running(name) as peer:
        return slope(peer, peer.target(), peer.topic_path("ws", "group-{uid%10}"), kind="ws")


def measure_tls(name, note):
    """Held streams over TLS."""
    def with_tls(*args):
        peer = peers()[name](*args)
        [peer.tls] = free_ports(1)
        peer.extra_runner += f"https_ports=127.0.0.1:{peer.tls}\n"
        folder = os.path.join(peer.dir, "runner", "certs")
        os.makedirs(folder)
        certificate(folder, f"default_{peer.tls}")
        return peer
    with running(name, factories={name: with_tls}) as peer:
        path = peer.topic_path("sse", "group-{uid%10}")
        return slope(peer, f"127.0.0.1:{peer.tls}", path, more=["--tls"])


def measure_keepalive(name, note):
    """CPU of keep-alives at the rate that a million streams have for each of two cores."""
    with running(name, keep_alive=INTERVALS_S.get(name, INTERVAL_S)) as peer:
        hold = Hold(peer.target(), STREAMS, peer.topic_path("sse", "group-{uid%10}"))
        try:
            opening = brief_opening(hold.opened())
            time.sleep(5)
            hold.ask("mark")
            cpu0, t0 = cpu_seconds(peer.pids()), time.monotonic()
            time.sleep(12)
            seconds = time.monotonic() - t0
            used = minus(cpu_seconds(peer.pids()), cpu0)
            seen = hold.ask("mark")
            count = max(seen["receiving"]["keepalives"], 1)
            return {"live": seen["live"], "failed": opening["failed"], "keepalives_per_second": count / seconds,
                    "cpu_percent": round(sum(used.values()) / seconds * 100, 2),
                    "cpu_us_per_keepalive": round(sum(used.values()) / count * 1e6, 2), "cpu_by_process": used}
        finally:
            hold.close()


MEASURES = {"sockets": measure_sockets, "tls-streams": measure_tls, "keepalive": measure_keepalive}
PLAN = {
    "sockets": ["ours", "nchan", "pushpin136"],
    "tls-streams": ["ours", "pushpin136"],
    "keepalive": ["ours", "floor", "pushpin136"],  # nchan takes whole seconds only
}
