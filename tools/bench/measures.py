"""What is measured of whole servers that hold: opening, memory, fan-out, channels, idling.

Every measure takes the name of a peer and gives a dictionary that goes into the results."""

import json
import statistics
import subprocess
import time

from machine import LOADGEN, Hold, cpu_seconds, kernel_kb, log, memory_kb, minus
from peers import running

FANOUT_N = 10_000
WS_N = 5_000
CHANNELS, PER_CHANNEL = 1000, 15
LOSS = 0.06  # of the expected deliveries, above which a step counts as failed
SECTION_S = 52.0  # stop starting new steps of a section after this (--section-seconds)


def brief_opening(o):
    return {
        "established": o["established"], "failed": o["failed"], "per_second": o["per_second"],
        "ttfb_p50_ms": o["first_byte"].get("p50_ms"), "ttfb_p99_ms": o["first_byte"].get("p99_ms"),
        "ttfb_max_ms": o["first_byte"].get("max_ms"),
    }


def brief_receiving(r, expected):
    lat = r["latency"]
    return {
        "expected": expected, "received": r["messages"], "lost": expected - r["messages"],
        "gaps": r["gaps"], "repeats": r["repeats"], "closed": r["closed"],
        "span_s": r["seconds"], "per_second": r["per_second"],
        "p50_ms": lat.get("p50_ms"), "p99_ms": lat.get("p99_ms"), "max_ms": lat.get("max_ms"),
    }


def opening_cpu(peer, cpu0, n):
    used = minus(cpu_seconds(peer.pids()), cpu0)
    return {"cpu_us_per_open": round(sum(used.values()) / max(n, 1) * 1e6, 1), "cpu_by_process": used}


def measure_open2k(name, note):
    with running(name) as peer:
        cpu0 = cpu_seconds(peer.pids())
        hold = Hold(peer.target(), 2000, peer.topic_path("sse", "group-{uid%10}"))
        try:
            out = brief_opening(hold.opened())
            return {**out, **opening_cpu(peer, cpu0, out["established"])}
        finally:
            hold.close()


def curl_times(peer, n=20):
    """Time of one new connection and request, as curl sees it."""
    times = []
    for _ in range(n):
        r = subprocess.run(["curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code} %{time_total}",
                            f"http://{peer.target()}/plain"], capture_output=True, text=True)
        code, _, t = r.stdout.partition(" ")
        if code == "200":
            times.append(float(t) * 1000)
        time.sleep(0.05)
    return {"curl_ok": len(times), "curl_p50_ms": round(statistics.median(times), 2) if times else None,
            "curl_max_ms": round(max(times), 2) if times else None}


def measure_open15k(name, note):
    with running(name) as peer:
        path = peer.topic_path("sse", "group-{uid%10}")
        first = Hold(peer.target(), 1000, path)
        rest = None
        try:
            first.opened()
            time.sleep(1)
            mem1, kernel1 = memory_kb(peer.pids()), kernel_kb()
            cpu0 = cpu_seconds(peer.pids())
            rest = Hold(peer.target(), 14000, path, first_uid=1000)
            out = brief_opening(rest.opened())
            n = out["established"]
            out.update(opening_cpu(peer, cpu0, n))
            time.sleep(2)
            mem2, kernel2 = memory_kb(peer.pids()), kernel_kb()
            for kind in ("pss", "rss"):
                by = {c: round((mem2[c][kind] - mem1.get(c, {kind: 0})[kind]) * 1024 / n) for c in mem2}
                out[f"{kind}_bytes_per_conn"] = sum(by.values())
                out[f"{kind}_by_process"] = by
            out["pss_total_mb"] = round(sum(m["pss"] for m in mem2.values()) / 1024, 1)
            # Both ends of each connection are on this machine.
            out["kernel_bytes_per_pair"] = {k: round(v * 1024 / n) for k, v in minus(kernel2, kernel1).items()}
            out.update(curl_times(peer))
            rest.close()
            out.update(memory_back(peer, mem1, mem2))
            return out
        finally:
            first.close()
            if rest:
                rest.close()


def memory_back(peer, before, full):
    """PSS some seconds after the clients have left, against before they came."""
    time.sleep(5)
    after = memory_kb(peer.pids())
    total = [sum(m["pss"] for m in x.values()) for x in (before, full, after)]
    return {"pss_mb_before": round(total[0] / 1024, 1), "pss_mb_after_they_left": round(total[2] / 1024, 1),
            "pss_given_back_percent": round(100 * (total[1] - total[2]) / max(total[1] - total[0], 1), 1)}


def probe(peer, hold, kind, established):
    """How many of the established connections get messages at all."""
    hold.ask("mark")
    peer.publish(kind, 1)
    hold.wait_messages(established, 8, idle=2.0)
    return hold.ask("mark")["receiving"]["messages"]


def one_burst(peer, hold, kind, messages, subscribers, limit=15):
    hold.ask("mark")
    cpu0 = cpu_seconds(peer.pids())
    t0 = time.monotonic()
    published = peer.publish(kind, messages)
    expected = messages * subscribers
    hold.wait_messages(expected, limit)
    used = minus(cpu_seconds(peer.pids()), cpu0)
    out = brief_receiving(hold.ask("mark")["receiving"], expected)
    out["cpu_s_per_million"] = round(sum(used.values()) * 1e6 / max(out["received"], 1), 3)
    out["cpu_by_process"] = used
    out["published"] = published["messages"]
    # From the moment the burst was due to the last delivery.
    out["drain_per_second"] = out["received"] / (out["max_ms"] / 1000) if out["max_ms"] else 0
    return out


def one_step(peer, hold, kind, rate, seconds, subscribers, channels=1, order="round-robin"):
    """A steady rate for some seconds; says whether it was sustained."""
    hold.ask("mark")
    cpu0 = cpu_seconds(peer.pids())
    count = max(1, int(rate * seconds))
    published = peer.publish(kind, count, rate=rate, channels=channels, grace=2.0, order=order)
    expected = count * subscribers
    hold.wait_messages(expected, 4, idle=1.5)
    used = minus(cpu_seconds(peer.pids()), cpu0)
    out = brief_receiving(hold.ask("mark")["receiving"], expected)
    out.update(rate=rate, published_per_second=published["per_second"], backlog_max=published["backlog_max"],
               publish_failed=published["failed"],
               cpu_s_per_million=round(sum(used.values()) * 1e6 / max(out["received"], 1), 3))
    # Random channels: a few deaf connections make the expected number a little fuzzy.
    out["sustained"] = out["lost"] <= expected * LOSS and not published["failed"] and out["p99_ms"] is not None and out["p99_ms"] < 1000
    return out


def ramp(peer, hold, kind, rates, seconds, subscribers, began, **kw):
    steps, fails = [], 0
    for rate in rates:
        if time.monotonic() - began > SECTION_S - seconds - 6:
            break
        step = one_step(peer, hold, kind, rate, seconds, subscribers, **kw)
        steps.append(step)
        log(f"    {rate}/s: p50 {step['p50_ms']} p99 {step['p99_ms']} ms, lost {step['lost']}, {step['per_second']:.0f} deliveries/s")
        if not step["sustained"] and rate > 2:
            break
    # The two lowest rates are measured whatever comes of them.
    good = [s for s in steps if s["sustained"]]
    return {
        "steps": steps,
        "max_publish_per_second": max((s["rate"] for s in good), default=0),
        "max_deliveries_per_second": max((s["rate"] * subscribers for s in good), default=0),
        "max_seen_deliveries_per_second": max((s["per_second"] for s in steps), default=0),
        "ran_out_of_time": bool(steps) and steps[-1]["sustained"],
    }


def measure_fanout(name, note, kind="sse", n=FANOUT_N, rates=(1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96)):
    began = time.monotonic()
    with running(name) as peer:
        hold = Hold(peer.target(), n, peer.topic_path(kind, "t-0"), kind=kind)
        try:
            opening = brief_opening(hold.opened())
            time.sleep(1)
            n = probe(peer, hold, kind, opening["established"])
            opening["deaf"] = opening["established"] - n
            bursts = [one_burst(peer, hold, kind, 10, n) for _ in range(3)]
            return {"opening": opening, "bursts": bursts,
                    "ramp": ramp(peer, hold, kind, rates, 3, n, began)}
        finally:
            hold.close()


def measure_ws(name, note):
    return measure_fanout(name, note, "ws", WS_N, rates=(1, 2, 4, 8, 16, 24, 32, 48, 64, 96))


def probe_channels(peer, hold, established):
    hold.ask("mark")
    peer.publish("sse", CHANNELS, rate=500, channels=CHANNELS)
    hold.wait_messages(established, 8, idle=2.0)
    return hold.ask("mark")["receiving"]["messages"]


def measure_channels(name, note):
    began = time.monotonic()
    with running(name) as peer:
        hold = Hold(peer.target(), CHANNELS * PER_CHANNEL, peer.topic_path("sse", "t-{uid%1000}"))
        try:
            opening = brief_opening(hold.opened())
            time.sleep(1)
            opening["deaf"] = opening["established"] - probe_channels(peer, hold, opening["established"])
            rates = (100, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12000, 16000, 24000)
            return {"opening": opening,
                    "ramp": ramp(peer, hold, "sse", rates, 3, PER_CHANNEL, began, channels=CHANNELS, order="random")}
        finally:
            hold.close()


def measure_idle(name, note):
    """CPU while 15,000 streams are held with a keep-alive every 5 s, and how soon a publish to an
    idle channel is answered then (a connection for each)."""
    with running(name, keep_alive=5) as peer:
        hold = Hold(peer.target(), 15000, peer.topic_path("sse", "group-{uid%10}"))
        try:
            opening = brief_opening(hold.opened())
            time.sleep(5)
            hold.ask("mark")
            cpu0, t0 = cpu_seconds(peer.pids()), time.monotonic()
            time.sleep(10)
            t = time.monotonic() - t0
            used = minus(cpu_seconds(peer.pids()), cpu0)
            seen = hold.ask("mark")
            answered = peer.publish("sse", 250, rate=50, channel="nobody-{n}")["request"]
            return {"publish_p50_ms": answered.get("p50_ms"), "publish_p99_ms": answered.get("p99_ms"),
                    "publish_max_ms": answered.get("max_ms"), "live": seen["live"], "failed": opening["failed"], "closed": seen["receiving"]["closed"],
                    "keepalives_per_second": seen["receiving"]["keepalives"] / t,
                    "cpu_percent": round(sum(used.values()) / t * 100, 2),
                    "cpu_us_per_keepalive": round(sum(used.values()) / max(seen["receiving"]["keepalives"], 1) * 1e6, 2),
                    "cpu_by_process": used, **curl_times(peer)}
        finally:
            hold.close()


MEASURES = {
    "open2k": measure_open2k, "open15k": measure_open15k, "fanout": measure_fanout,
    "channels": measure_channels, "ws": measure_ws, "idle": measure_idle,
}
PLAN = {
    "open2k": ["ours", "floor", "nchan", "pushpin136"],
    "open15k": ["ours", "floor", "nchan", "pushpin136"],
    "fanout": ["ours", "floor", "nchan", "pushpin136", "pushpin136-raised"],
    "channels": ["ours", "floor", "nchan", "pushpin136", "pushpin136-raised", "pushpin136-zmq"],
    "ws": ["ours", "floor", "nchan", "pushpin136"],
    "idle": ["ours", "floor", "nchan", "pushpin136"],
}
ONCE = {"pushpin136-raised", "pushpin136-zmq", "nchan-1worker"}
