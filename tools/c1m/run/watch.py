"""Watches a run from a thread: a sample each second, for the live line and the picture."""
import json
import os
import statistics
import subprocess
import sys
import threading
import time

from measure import by_name, meminfo, processes, sockstat

PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.py")
PROBE_PERIOD_MS = 50
# Seconds between looks at the memory of every process: they are not free.
MEMORY_PERIOD = 5


def summary(took):
    """Latency from a list of milliseconds, None for a failure."""
    good = sorted(t for t in took if t is not None)
    if not good:
        return {"count": 0, "failed": len(took)}
    at = lambda share: good[min(len(good) - 1, int(share * len(good)))]
    return {"count": len(good), "failed": len(took) - len(good), "p50_ms": statistics.median(good),
            "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": good[-1]}


class Watch(threading.Thread):
    """Samples: seconds, phase, streams, memory by process, request and delivery latency."""

    def __init__(self, out, server):
        super().__init__(daemon=True)
        self.server, self.start_at = server, time.monotonic()
        self.file = open(os.path.join(out, "samples.jsonl"), "w", buffering=1)
        self.probe_file = os.path.join(out, "requests.txt")
        self.probe, self.probes_read, self.rest = None, 0, ""
        self.samples, self.phases, self.requests = [], [], []
        self.phase, self.delivery, self.base = "start", None, sockstat().get("inuse", 0)
        self.memory, self.memory_at = {}, 0
        self.stopping = threading.Event()

    def now(self):
        return time.monotonic() - self.start_at

    def enter(self, phase):
        """From now on everything belongs to this phase."""
        self.phase = phase
        self.phases.append({"phase": phase, "at_s": round(self.now(), 2)})
        self.say(phase)

    def say(self, text):
        end = "\033[K\n" if sys.stderr.isatty() else "\n"
        print(f"{self.now():7.1f} s  {text}", end=end, file=sys.stderr, flush=True)

    def start_probe(self):
        self.base = sockstat()["inuse"]
        self.probe = subprocess.Popen([sys.executable, PROBE, self.probe_file, "/plain",
                                       str(PROBE_PERIOD_MS), *map(str, self.server.ports)])
        self.start()

    def delivered(self, latency):
        """Latency of deliveries since the last time, for the next sample."""
        self.delivery = latency

    def held(self):
        """Streams by the kernel's count of sockets: two for each."""
        return max(0, (sockstat().get("inuse", 0) - self.base) // 2)

    def run(self):
        while not self.stopping.wait(1):
            sample = self.sample()
            self.samples.append(sample)
            self.file.write(json.dumps(sample) + "\n")
            self.show(sample)

    def sample(self):
        answered = self.read_probes()
        self.requests.extend(answered)
        if time.monotonic() - self.memory_at >= MEMORY_PERIOD:
            rows = by_name(processes(self.server.main.pid))
            self.memory = {r["name"]: r["pss_kib"] for r in rows}
            self.memory_at = time.monotonic()
        delivery, self.delivery = self.delivery, None
        return {"at_s": round(self.now(), 2), "phase": self.phase, "held": self.held(),
                "memory_kib": self.memory, "available_kib": meminfo()["MemAvailable"],
                "request": summary([took for _, took in answered]), "delivery": delivery}

    def read_probes(self):
        """Requests that were answered since the last time: when they were due, milliseconds."""
        try:
            with open(self.probe_file) as f:
                f.seek(self.probes_read)
                text = f.read()
        except OSError:
            return []
        self.probes_read += len(text)
        *lines, self.rest = (self.rest + text).split("\n")
        pairs = [tuple(map(float, line.split())) for line in lines]
        return [(at - self.start_at, None if took < 0 else took) for at, took in pairs]

    def request_summaries(self):
        """Latency of the plain requests of each phase."""
        ends = [p["at_s"] for p in self.phases[1:]] + [float("inf")]
        return {p["phase"]: summary([took for at, took in self.requests if p["at_s"] <= at < end])
                for p, end in zip(self.phases, ends)}

    def show(self, sample):
        before = self.samples[-2] if len(self.samples) > 1 else sample
        span = max(0.1, sample["at_s"] - before["at_s"])
        memory = sum(sample["memory_kib"].values()) // 1024
        text = (f"{self.phase:<9} {sample['held']:>9,} streams "
                f"{(sample['held'] - before['held']) / span:>+8,.0f}/s  server {memory:,} MiB  "
                f"free {sample['available_kib'] // 1024:,} MiB")
        if sample["request"].get("count"):
            text += f"  request p50 {sample['request']['p50_ms']:.1f} ms"
        if sample["delivery"] and sample["delivery"]["count"]:
            text += f"  delivery p99 {sample['delivery']['p99_ms']:.0f} ms"
        if sys.stderr.isatty():
            print(f"{self.now():7.1f} s  {text}\033[K", end="\r", file=sys.stderr, flush=True)
        elif len(self.samples) % 10 == 0:
            self.say(text)

    def stop(self):
        self.stopping.set()
        if self.is_alive():
            self.join(10)
        if self.probe:
            self.probe.terminate()
