"""Connection managers alone, side by side: ours and condure 1.9, each before the same small ZHTTP
responder (`loadgen zresponder`), so that proxy and handler do not count.

Every measure takes the name of a peer and gives a dictionary that goes into the results."""

import contextlib
import os
import time
import urllib.request

from machine import BUILD, LOADGEN, Hold, Proc, cpu_seconds, free_ports, memory_kb, minus, wait_port
from measures import brief_opening, opening_cpu
from peers import Peer, certificate, running
from proxying import bulk, plain_load

STREAMS, SOCKETS, TLS_STREAMS = 10_000, 10_000, 5_000
FIRST = 500  # held before the memory of the others is counted


class Front(Peer):
    """A connection manager and its responder. `pids` are the connection manager's only."""

    program = os.environ.get("CONNMGR", os.path.join(BUILD, "pushpin-connmgr"))
    workers = ["--workers=1"]  # as our supervisor starts it

    def __init__(self, dir, keep_alive=55, with_tls=False):
        super().__init__(dir, keep_alive)
        self.with_tls = with_tls

    def start(self):
        self.client, self.tls = free_ports(2)
        base = f"ipc://{self.dir}/front"
        self.backend = Proc([LOADGEN, "zresponder", "--base", base], self.path("responder.log"))
        certificate(self.dir, "localhost")
        self.server = Proc(self.command(base), self.path("server.log"))
        wait_port(self.client, self.server)
        self.warm_up()

    def path(self, name):
        return os.path.join(self.dir, name)

    def command(self, base):
        tls = [f"--listen=127.0.0.1:{self.tls},stream,tls,default-cert=localhost",
               f"--tls-identities-dir={self.dir}"]
        return [self.program, *self.workers, f"--listen=127.0.0.1:{self.client},stream",
                *(tls if self.with_tls else []), "--compression", "--stream-maxconn=19000",
                "--buffer-size=8192", f"--zclient-stream={base}"]

    def warm_up(self):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://{self.target()}/plain", timeout=1) as r:
                    if r.status == 200:
                        return
            time.sleep(0.1)
        raise RuntimeError("the connection manager does not answer")

    def target(self):
        return f"127.0.0.1:{self.client}"

    def tls_target(self):
        return f"127.0.0.1:{self.tls}"

    def pss_kb(self):
        return sum(m["pss"] for m in memory_kb(self.pids()).values())


class Condure(Front):
    """As Debian's Pushpin 1.36 starts it: two workers."""

    program = "/usr/bin/condure"
    workers = []


class CondureOne(Condure):
    workers = ["--workers=1"]


class FrontTwo(Front):
    workers = ["--workers=2"]


PEERS = {"connmgr": Front, "connmgr-2workers": FrontTwo, "condure": Condure, "condure-1worker": CondureOne}


def started(name, with_tls=False):
    make = lambda *args: PEERS[name](*args, with_tls)  # noqa: E731
    return running(name, factories={name: make})


# ---------------------------------------------------------------- measures

def measure_requests(name, note):
    """Plain requests, answered by the responder at once."""
    with started(name) as peer:
        plain_load(peer, 1)
        cpu0, backend0 = cpu_seconds(peer.pids()), cpu_seconds(peer.backend.pids())
        r = plain_load(peer, 5)
        used, backend = (minus(cpu_seconds(p.pids()), c) for p, c in ((peer, cpu0), (peer.backend, backend0)))
        per = lambda cpu: round(sum(cpu.values()) / max(r["requests"], 1) * 1e6, 2)  # noqa: E731
        return {"per_second": r["per_second"], "p50_ms": r["latency"]["p50_ms"], "p99_ms": r["latency"]["p99_ms"],
                "failed": r["failed"], "cpu_us_per_request": per(used), "responder_us_per_request": per(backend)}


def held(name, n, with_tls=False, **kind):
    """Memory of n held connections, and what is left of it when they have gone."""
    with started(name, with_tls) as peer:
        target = Front.tls_target if with_tls else Front.target
        hold = lambda count, first: Hold(target(peer), count, "/stream", first_uid=first, **kind)  # noqa: E731
        first, rest = hold(FIRST, 0), None
        try:
            opened = first.opened()
            if opened["failed"]:
                raise RuntimeError(f"not opened: {opened['failed']}")
            time.sleep(1.5)
            before, cpu0 = peer.pss_kb(), cpu_seconds(peer.pids())
            rest = hold(n - FIRST, FIRST)
            out = brief_opening(rest.opened())
            out.update(opening_cpu(peer, cpu0, out["established"]))
            time.sleep(2)
            full = peer.pss_kb()
            out["live"] = rest.ask("stat")["live"]
            rest.close()
            time.sleep(5)
            after = peer.pss_kb()
            out.update(pss_bytes_per_conn=round((full - before) * 1024 / max(out["established"], 1)),
                       pss_kb_before=before, pss_kb_full=full, pss_kb_after=after,
                       after_by_before=round(after / before, 2))
            return out
        finally:
            for crowd in filter(None, (first, rest)):
                crowd.close()


def measure_streams(name, note):
    return held(name, STREAMS)


def measure_sockets(name, note):
    """Idle WebSockets with compression agreed on (the load generator insists on it)."""
    return held(name, SOCKETS, kind="ws", more=["--deflate"])


def measure_tls(name, note):
    return held(name, TLS_STREAMS, with_tls=True, more=["--tls"])


def measure_bulk(name, note):
    with started(name) as peer:
        return bulk(peer)


MEASURES = {
    "front-requests": measure_requests, "front-streams": measure_streams, "front-sockets": measure_sockets,
    "front-tls": measure_tls, "front-bulk": measure_bulk,
}
PLAN = {measure: ["connmgr", "condure"] for measure in MEASURES}
PLAN["front-requests"] = list(PEERS)
