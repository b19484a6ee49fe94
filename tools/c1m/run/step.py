"""One step of `scaling`: a server of its own with N streams, and what opening, holding, publishing
and leaving cost it. A step is a flat row of figures, so that rows can be compared and drawn."""
import argparse
import os
import time

import phases
from clients import Crowd
from measure import plain_requests, sockstat
from server import Server

# Streams of each group that messages are published to, whatever N.
GROUP = 100
# Groups per second in the message that goes to everybody: 40,000 deliveries.
EVERYONE_RATE = 400
# Streams up to which a keep-alive every 20 s is a small load.
SMALL = 100_000


class Quiet:
    """What `Crowd` wants of a watch."""

    def delivered(self, latency):
        pass


def settings(args, streams, workers):
    """The arguments of one step."""
    keep_alive = args.keep_alive or (20 if streams <= SMALL else 55)
    return argparse.Namespace(**dict(
        vars(args), connections=streams, workers=workers, groups=max(1, streams // GROUP),
        keep_alive=keep_alive, out=os.path.join(args.out, f"{streams}-{workers}")))


def measure(args, folder, files):
    """Runs a step; gives its row."""
    server = Server(args, folder, files)
    try:
        server.start()
        time.sleep(1)
        alone = phases.Meter(server)
        time.sleep(args.empty)
        cpu, wakes = alone.used()
        row = {"streams": args.connections, "workers": args.workers, "connmgr_processes": server.processes,
               "keep_alive_s": args.keep_alive, "empty_cpu_percent": percent(cpu, alone.seconds),
               "empty_wakes_per_second": round(sum(wakes.values()) / alone.seconds, 1)}
        empty, base = server.figures(), sockstat()["inuse"]
        crowd = Crowd(args, server.ports, files, Quiet())
        try:
            opened(row, args, server, crowd, empty)
            if crowd.opened:
                at_rest(row, args, server, crowd)
                delivered(row, args, server, crowd)
        finally:
            row["leave_s"] = phases.leaving(crowd, lambda: (sockstat()["inuse"] - base) // 2, args.back)
        row["left_by_empty"] = round(memory_kib(server.figures()) / memory_kib(empty), 3)
        return row
    finally:
        server.stop()


def memory_kib(figures):
    return sum(row["pss_kib"] for row in figures.values())


def percent(cpu, seconds):
    return round(100 * sum(cpu.values()) / seconds, 2)


def opened(row, args, server, crowd, empty):
    """Everybody comes; memory when they have settled."""
    opening = phases.opening(args, server, crowd)
    time.sleep(args.settle)
    full, held = server.figures(), max(1, opening["held"])
    bytes_of = {name: round((now["pss_kib"] - empty.get(name, {"pss_kib": 0})["pss_kib"]) * 1024 / held, 1)
                for name, now in full.items()}
    row.update(held=opening["held"], failed=sum(opening["failed"].values()), stopped=opening["stopped"],
               open_s=opening["seconds"], opened_per_second=opening["per_second"],
               cpu_us_per_open=opening["cpu_us_per_open"], wakes_per_open=opening["wakes_per_open"],
               first_byte_p50_ms=opening["first_byte"].get("p50_ms"),
               first_byte_p99_ms=opening["first_byte"].get("p99_ms"),
               bytes_per_stream=bytes_of, memory_mib=round(memory_kib(full) / 1024, 1))


def at_rest(row, args, server, crowd):
    """Nothing but keep-alives for one of their periods, then a few plain requests."""
    crowd.mark()
    meter, got = phases.Meter(server), crowd.quiet(args.keep_alive)
    cpu, wakes = meter.used()
    seconds = meter.seconds
    extra = sum(cpu.values()) - row["empty_cpu_percent"] / 100 * seconds
    row.update(rest_cpu_percent=percent(cpu, seconds), rest_s=round(seconds, 1),
               rest_wakes_per_second=round(sum(wakes.values()) / seconds, 1), keepalives=got.keepalives,
               cpu_us_per_keepalive=round(extra * 1e6 / max(1, got.keepalives), 2))
    request = plain_requests(server.ports, "/plain", 50, 10)
    row.update(request_p50_ms=request.get("median"), request_max_ms=request.get("max"),
               requests_failed=request["failed"])


def delivered(row, args, server, crowd):
    """One message at a time to a group, then one to each group."""
    some = phases.published(args, server, crowd, min(50, args.groups), args.publish, args.publish_rate)
    meter = phases.Meter(server)
    everyone = phases.published(args, server, crowd, args.groups, args.groups, EVERYONE_RATE)
    cpu, _ = meter.used()
    extra = sum(cpu.values()) - row["rest_cpu_percent"] / 100 * meter.seconds
    both = (some, everyone)
    row.update(group_p50_ms=some["latency"].get("p50_ms"), group_p99_ms=some["latency"].get("p99_ms"),
               everyone_p99_ms=everyone["latency"].get("p99_ms"),
               cpu_us_per_delivery=round(extra * 1e6 / max(1, everyone["received"]), 2),
               deaf=everyone["expected"] - everyone["received"],
               missing=sum(m["expected"] - m["received"] for m in both),
               disorder=sum(m["gaps"] + m["repeats"] for m in both))
