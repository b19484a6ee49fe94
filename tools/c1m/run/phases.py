"""The phases of a run: opening, publishing, leaving, each with what it cost the server. Used by
`million` and by `scaling`."""
import time

from clients import Publisher
from measure import meminfo


class Meter:
    """CPU and wake-ups of the server's processes since this was made."""

    def __init__(self, server):
        self.server, self.before, self.since = server, server.figures(), time.monotonic()

    @property
    def seconds(self):
        return time.monotonic() - self.since

    def used(self):
        """CPU seconds and wake-ups by process name."""
        now = self.server.figures()
        of = lambda key: {name: row[key] - self.before.get(name, {key: 0})[key] for name, row in now.items()}
        return of("cpu_s"), of("wakes")


def per(sums, count, factor=1.0):
    return {name: round(value * factor / max(1, count), 2) for name, value in sums.items()}


def opening(args, server, crowd):
    """Everybody comes."""
    def is_over():
        if not server.is_alive():
            return "the server ended"
        if meminfo()["MemAvailable"] // 1024 < args.min_free:
            return "memory is short"
        return "time is up" if time.monotonic() > end else None

    meter, end = Meter(server), time.monotonic() + args.seconds
    stopped = crowd.open_all(is_over)
    seconds = meter.seconds
    cpu, wakes = meter.used()
    return {"held": crowd.opened, "stopped": stopped, "failed": crowd.failed, "seconds": round(seconds, 2),
            "per_second": round(crowd.opened / seconds), "first_byte": crowd.first_byte(),
            "cpu_us_per_open": per(cpu, crowd.opened, 1e6), "wakes_per_open": per(wakes, crowd.opened)}


def published(args, server, crowd, groups, count, rate):
    """Messages to groups in turn: who got them, and when."""
    crowd.mark()
    publisher = Publisher(args, server.control, rate, groups, count)
    got = crowd.until(publisher.ended, count / rate + 60)
    size = lambda g: max(0, (got.live - g + args.groups - 1) // args.groups)
    expected = sum(size(i % groups) for i in range(count))
    return {"messages": count, "groups": groups, "rate": rate, "streams_per_group": size(0),
            "expected": expected, "received": got.messages, "gaps": got.gaps, "repeats": got.repeats,
            "keepalives_meanwhile": got.keepalives, "closed": got.closed, "live": got.live,
            "latency": got.latency, "publisher": publisher.seen()}


def leaving(crowd, held, back):
    """All leave at once; memory has `back` seconds to go back. Gives how long it took until
    `held()` saw nearly none of them."""
    start = time.monotonic()
    crowd.leave()
    while held() > 100 and time.monotonic() - start < 60:
        time.sleep(0.2)
    gone = time.monotonic() - start
    time.sleep(back)
    return round(gone, 1)
