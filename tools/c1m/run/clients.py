"""The clients of a run: processes that hold streams, opened one after another, and what they got."""
import bisect
import json
import subprocess
import time

from holder import Holder, gather

# Holders that open at the same time, so that the end of one is not a pause.
OPENERS = 2
# Files of a holder's process that are not connections.
FILES_SPARE = 2000


def percentiles(counts):
    """Latency from `{microseconds: count}`, in milliseconds."""
    total = sum(counts.values())
    if not total:
        return {"count": 0}
    values, upto, seen = sorted(counts), [], 0
    for value in values:
        seen += counts[value]
        upto.append(seen)
    at = lambda share: round(values[bisect.bisect_left(upto, max(1, share * total))] / 1000, 3)
    return {"count": total, "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99),
            "max_ms": round(values[-1] / 1000, 3)}


class Received:
    """What arrived at the clients between two marks."""

    def __init__(self, marks):
        got = [m["receiving"] for m in marks if m]
        self.live = sum(m["live"] for m in marks if m)
        self.messages, self.gaps, self.repeats, self.keepalives = (
            sum(g[key] for g in got) for key in ("messages", "gaps", "repeats", "keepalives"))
        self.closed, counts = {}, {}
        for g in got:
            for cause, n in (g["closed"] or {}).items():
                self.closed[cause] = self.closed.get(cause, 0) + n
        for m in filter(None, marks):
            flat = m["latency_us"]
            for value, n in zip(flat[::2], flat[1::2]):
                counts[value] = counts.get(value, 0) + n
        self.latency = percentiles(counts)


class Crowd:
    """All clients."""

    def __init__(self, args, ports, files, watch):
        self.args, self.watch = args, watch
        self.params = {"loadgen": args.loadgen, "ports": ports, "addresses": 24, "sources": 0,
                       "rate": 0, "timeout": 60, "pending": max(1, args.pending // OPENERS),
                       "path": "/stream?topic=group-{uid%" + str(args.groups) + "}"}
        self.step = min(files - FILES_SPARE, max(1000, -(-args.connections // 20)))
        self.settled, self.opening = [], []
        self.failed, self.opened = {}, 0

    def open_all(self, is_over):
        """Opens them; ends early if `is_over()` gives a reason, and gives it."""
        total, first, marked = self.args.connections, 0, time.monotonic()
        while first < total or self.opening:
            reason = is_over() or self.failures()
            if reason:
                self.give_up()
                return reason
            while first < total and len(self.opening) < OPENERS:
                count = min(self.step, total - first)
                self.opening.append(Holder(self.params, count, first))
                first += count
            for holder in list(self.opening):
                self.look(holder)
            if self.settled and time.monotonic() - marked >= 5:
                marked = time.monotonic()
                self.watch.delivered(self.mark().latency)
        return None

    def look(self, holder):
        event = holder.line(0.05)
        if event is None and holder.proc.poll() is None:
            return
        self.opening.remove(holder)
        if event is None:
            self.failed["client process ended"] = holder.count
            return
        for cause, n in (event["opening"]["failed"] or {}).items():
            self.failed[cause] = self.failed.get(cause, 0) + n
        self.opened += event["opening"]["established"]
        holder.pause()
        self.settled.append(holder)

    def failures(self):
        failed = sum(self.failed.values())
        return f"{failed} failed" if failed > 0.05 * (self.opened + 2000) else None

    def give_up(self):
        """Those that still open leave; the others stay."""
        for holder in self.opening:
            holder.proc.kill()
        self.opening = []

    def mark(self):
        """What arrived since the last time."""
        return Received(gather(self.settled, 60))

    def leave(self):
        """All leave at once, as they do when a network fails."""
        for holder in self.settled:
            holder.proc.kill()
        for holder in self.settled:
            holder.proc.wait()
        self.settled = []


class Publisher:
    """Publishes to the groups in turn until it is stopped, or `count` messages."""

    def __init__(self, args, control, rate, groups, count=10_000_000):
        self.proc = subprocess.Popen(
            [args.loadgen, "publish", "--http", control, "-k", str(groups), "-n", str(count),
             "-r", str(rate), "-s", "100", "--grace", "30"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, timeout):
        """Waits for the last message to be sent; gives what the publisher saw."""
        try:
            out, err = self.proc.communicate(timeout=timeout)
            return json.loads(out.strip().splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError) as e:
            self.stop()
            return {"error": repr(e)}

    def stop(self):
        self.proc.kill()
        self.proc.wait()
