"""What is measured of whole servers that only pass on: plain requests, memory over many of them,
large bodies.

Every measure takes the name of a peer and gives a dictionary that goes into the results."""

import contextlib
import json
import os
import socketserver
import subprocess
import threading

from machine import LOADGEN, cpu_seconds, memory_kb, minus
from peers import peers, running

BULK = 1 << 30
STEADY_REQUESTS = 100_000


def plain_load(peer, seconds):
    """64 kept-alive clients, each with one request at a time."""
    out = subprocess.run([LOADGEN, "proxyload", "--target", peer.target(), "-c", "64", "-d", str(seconds)],
                         capture_output=True, text=True, timeout=60)
    if out.returncode:
        raise RuntimeError(out.stderr)
    return json.loads(out.stdout)


def measure_proxy(name, note):
    with running(name) as peer:
        plain_load(peer, 1)
        pids = peer.backend.pids() if name == "direct" else peer.pids()
        cpu0 = cpu_seconds(pids)
        r = plain_load(peer, 6)
        used = minus(cpu_seconds(pids), cpu0)
        return {"per_second": r["per_second"], "p50_ms": r["latency"]["p50_ms"], "p99_ms": r["latency"]["p99_ms"],
                "max_ms": r["latency"]["max_ms"], "failed": r["failed"], "reconnects": r["reconnects"],
                "cpu_us_per_request": round(sum(used.values()) / max(r["requests"], 1) * 1e6, 1),
                "cpu_by_process": used}


def measure_steady(name, note):
    """Memory after many requests against after some: what a request leaves behind."""
    with running(name) as peer:
        plain_load(peer, 2)
        before, done = memory_kb(peer.pids()), 0
        while done < STEADY_REQUESTS:
            r = plain_load(peer, 2)
            if r["failed"] or not r["requests"]:
                raise RuntimeError(f"requests failed: {r['failed']}")
            done += r["requests"]
        after = memory_kb(peer.pids())
        by = {process: after[process]["pss"] - before[process]["pss"] for process in after}
        return {"requests": done, "growth_kb": sum(by.values()), "growth_kb_by_process": by,
                "proxy_growth_kb": by.get("pushpin-proxy"), "pss_kb": sum(m["pss"] for m in after.values())}


# -------------------------------------------------------------- large bodies

class BulkBackend(socketserver.ThreadingTCPServer):
    """Zeros under /download?bytes=N; swallows what is sent to /upload; /plain answers at once."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), BulkRequest)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class BulkRequest(socketserver.StreamRequestHandler):
    block = bytes(1 << 20)

    def handle(self):
        with contextlib.suppress(OSError, ValueError):
            while self.one():
                pass

    def one(self):
        line, length, chunked, head = self.rfile.readline(), 0, False, b""
        while head not in (b"\r\n", b"\n"):
            head = self.rfile.readline()
            if not head:
                return False
            key, _, value = head.decode().partition(":")
            if key.lower() == "content-length":
                length = int(value)
            chunked |= key.lower() == "transfer-encoding"
        target = line.split()[1].decode()
        while chunked and (size := int(self.rfile.readline(), 16)):
            self.swallow(size + 2)
        if chunked:
            self.rfile.readline()
        self.swallow(length)
        _, _, size = target.partition("bytes=")
        body = int(size or 3)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % body)
        while body:
            body -= self.request.send(self.block[:body])
        return True

    def swallow(self, size):
        while size:
            size -= len(self.rfile.read(min(size, len(self.block)))) or size


def measure_bulk(name, note):
    """Through the whole server."""
    backend = BulkBackend()

    def with_backend(*args):
        peer = peers()[name](*args)
        peer.start_backend = lambda: setattr(peer, "backend_port", backend.server_address[1])
        return peer
    try:
        with running(name, factories={name: with_backend}) as peer:
            return bulk(peer)
    finally:
        backend.shutdown()
        backend.server_close()


def peak_kb(pids, reset=False):
    """Highest resident memory since the last reset, all processes together."""
    total = 0
    for pid in pids:
        if reset:
            with open(f"/proc/{pid}/clear_refs", "w") as f:
                f.write("5")
        with open(f"/proc/{pid}/status") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("VmHWM:"))
    return total


def bulk(peer):
    """1 GB down and 1 GB up, one after the other: speed, and how much the peak memory grows."""
    pids = peer.pids()
    big, answer = os.path.join(peer.dir, "big"), os.path.join(peer.dir, "answer")
    with open(big, "wb") as f:
        f.truncate(BULK)  # takes no room on the disk
    url = f"http://{peer.target()}"
    out = {}
    for what, args in (("download", ["-o", "/dev/null", f"{url}/download?bytes={BULK}"]),
                       ("upload", ["-o", answer, "-T", big, "-H", "Expect:", f"{url}/upload"])):
        small = peak_kb(pids, reset=True)
        cpu0 = cpu_seconds(pids)
        r = subprocess.run(["curl", "-s", "-m", "50", "-w", "%{http_code} %{size_download} %{size_upload} %{time_total}",
                            *args], capture_output=True, text=True)
        code, down, up, seconds = r.stdout.split()
        if code != "200" or int(down if what == "download" else up) != BULK:
            raise RuntimeError(f"{what}: curl gave {r.returncode}, {r.stdout!r}")
        out[f"{what}_mb_per_s"] = round(BULK / 1e6 / float(seconds))
        out[f"{what}_cpu_s"] = round(sum(minus(cpu_seconds(pids), cpu0).values()), 2)
        out[f"{what}_growth_kb"] = peak_kb(pids) - small
    return out


MEASURES = {"proxy": measure_proxy, "steady": measure_steady, "bulk": measure_bulk}
PLAN = {
    "proxy": ["ours", "direct", "nginx", "pushpin136"],
    "steady": ["ours", "nginx"],
    "bulk": ["ours", "nginx", "pushpin136"],
}
