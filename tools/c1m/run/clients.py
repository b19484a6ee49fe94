"""The clients of a run: processes that hold streams, opened one after another, and what they got."""
import bisect
import json
import subprocess
import time

from holder import Holder, gather, merged

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
    """What arrived at the clients, added up over their processes and over marks."""

    def __init__(self):
        self.live = self.messages = self.gaps = self.repeats = self.keepalives = 0
        self.closed, self.counts = {}, {}

    def add(self, marks):
        """Adds what each process said to one mark."""
        marks = [m for m in marks if m]
        self.live = sum(m["live"] for m in marks)
        for m in marks:
            got, flat = m["receiving"], m["latency_us"]
            for key in ("messages", "gaps", "repeats", "keepalives"):
                setattr(self, key, getattr(self, key) + got[key])
            add_counts(self.closed, (got["closed"] or {}).items())
            add_counts(self.counts, zip(flat[::2], flat[1::2]))

    @property
    def latency(self):
        return percentiles(self.counts)


def add_counts(into, pairs):
    for key, n in pairs:
        into[key] = into.get(key, 0) + n


class Crowd:
    """All clients."""

    def __init__(self, args, ports, files, watch):
        self.args, self.watch = args, watch
        # The kernel picks a process by the client's address and port alone: clients of one address
        # would meet, port by port, at some processes more than at others.
        self.params = {"loadgen": args.loadgen, "ports": ports, "addresses": 24, "sources": 1009,
                       "rate": 0, "timeout": 60, "pending": max(1, args.pending // OPENERS),
                       "path": "/stream?topic=group-{uid%" + str(args.groups) + "}"}
        self.step = min(files - FILES_SPARE, max(1000, -(-args.connections // 20)))
        self.settled, self.opening = [], []
        self.failed, self.opened, self.first_bytes = {}, 0, []

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
                self.mark()
        return None

    def look(self, holder):
        event = holder.line(0.05)
        if event is None and holder.proc.poll() is None:
            return
        self.opening.remove(holder)
        if event is None:
            self.failed["client process ended"] = holder.count
            return
        add_counts(self.failed, (event["opening"]["failed"] or {}).items())
        self.opened += event["opening"]["established"]
        self.first_bytes.append(event["opening"]["first_byte"])
        holder.pause()
        self.settled.append(holder)

    def first_byte(self):
        """Time from request to first byte; p50 is weighted over the client processes, p99 the worst."""
        return merged(self.first_bytes)

    def failures(self):
        failed = sum(self.failed.values())
        return f"{failed} failed" if failed > 0.05 * (self.opened + 2000) else None

    def give_up(self):
        """Those that still open leave; the others stay."""
        for holder in self.opening:
            holder.proc.kill()
        self.opening = []

    def mark(self, into=None):
        """Asks what arrived since the last time, for the picture and for the sum `into`."""
        marks, got = gather(self.settled, 60), Received()
        for one in filter(None, (got, into)):
            one.add(marks)
        self.watch.delivered(got.latency)

    def until(self, is_over, timeout):
        """What arrives until three seconds after `is_over()`."""
        got, end = Received(), time.monotonic() + timeout
        while not is_over() and time.monotonic() < end:
            time.sleep(2)
            self.mark(got)
        time.sleep(3)
        self.mark(got)
        return got

    def quiet(self, seconds):
        """What arrives in that time while nobody publishes."""
        got, end = Received(), time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(5, max(0, end - time.monotonic())))
            self.mark(got)
        return got

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

    def ended(self):
        return self.proc.poll() is not None

    def seen(self):
        """What the publisher saw; it is ended if it still runs."""
        self.proc.kill()
        out, err = self.proc.communicate()
        try:
            return json.loads(out.strip().splitlines()[-1])
        except (IndexError, ValueError):
            return {"error": err.strip()[-300:]}

    def stop(self):
        self.seen()
