"""Whether what `scaling` measured grows faster than the number of streams, and its tables."""

# Cost of a whole run from a row, by quantity: what it is per stream times the streams, or a latency.
QUANTITIES = [
    ("memory of the server", lambda r: total(r["bytes_per_stream"]) * r["held"]),
    ("time to open all", lambda r: r["open_s"]),
    ("CPU to open all", lambda r: total(r["cpu_us_per_open"]) * r["held"]),
    ("wake-ups to open all", lambda r: total(r["wakes_per_open"]) * r["held"]),
    ("CPU of all keep-alives", lambda r: r.get("cpu_us_per_keepalive", 0) * r["held"]),
    ("CPU of a message to each", lambda r: r.get("cpu_us_per_delivery", 0) * r["held"]),
    ("delivery to a group of 100, p99", lambda r: r.get("group_p99_ms")),
    ("a plain request while all are held", lambda r: r.get("request_p50_ms")),
]
# CPU on a shared machine moves by a quarter from run to run.
NOISE = 1.25


def total(by_process):
    return sum(by_process.values())


def growth(rows):
    """One row for each quantity: its growth over each step, by the growth of the streams."""
    found = []
    for name, of in QUANTITIES:
        steps = []
        for one, two in zip(rows, rows[1:]):
            (a, b), streams = (of(one), of(two)), two["held"] / max(1, one["held"])
            steps.append(round(b / a / streams, 3) if a and b and a > 0 else None)
        known = [step for step in steps if step is not None]
        found.append({"quantity": name, "growth_by_streams": steps,
                      "faster_than_linear": any(step > NOISE for step in known)})
    return found


def statement(found, rows):
    """The law in words, as lines."""
    faster = [f["quantity"] for f in found if f["faster_than_linear"]]
    span = f"from {rows[0]['held']:,} to {rows[-1]['held']:,} streams"
    if not faster:
        return [f"No step {span} grows faster than linearly (a quarter allowed for noise)."]
    return [f"Faster than linearly {span}: {', '.join(faster)}."]


def fits(rows):
    """What went wrong in any row, as lines; none if every stream opened and heard everything."""
    wrong = []
    for r in rows:
        faults = {"failed to open": r["failed"], "not held": r["streams"] - r["held"],
                  "deliveries missing": r.get("missing", 0), "out of order or doubled": r.get("disorder", 0),
                  "plain requests failed": r.get("requests_failed", 0)}
        for what, count in faults.items():
            if count:
                wrong.append(f"{r['streams']:,} streams, {r['workers']} workers: {count} {what}")
    return wrong


COLUMNS = [
    ("streams", lambda r: f"{r['held']:,}"),
    ("workers", lambda r: r["workers"]),
    ("connection managers", lambda r: r["connmgr_processes"]),
    ("opened per second", lambda r: f"{r['opened_per_second']:,}"),
    ("first byte p50 / p99, ms", lambda r: f"{num(r['first_byte_p50_ms'])} / {num(r['first_byte_p99_ms'])}"),
    ("CPU per open, us", lambda r: num(total(r["cpu_us_per_open"]))),
    ("wake-ups per open", lambda r: num(total(r["wakes_per_open"]))),
    ("bytes per stream", lambda r: num(total(r["bytes_per_stream"]))),
    ("CPU empty / held, % of a core",
     lambda r: f"{num(r['empty_cpu_percent'])} / {num(r.get('rest_cpu_percent'))}"),
    ("CPU per keep-alive, us", lambda r: num(r.get("cpu_us_per_keepalive"))),
    ("CPU per delivery, us", lambda r: num(r.get("cpu_us_per_delivery"))),
    ("to a group of 100, p50 / p99, ms",
     lambda r: f"{num(r.get('group_p50_ms'))} / {num(r.get('group_p99_ms'))}"),
    ("plain request, p50, ms", lambda r: num(r.get("request_p50_ms"))),
    ("failed / deaf", lambda r: f"{r['failed']} / {r.get('deaf', '-')}"),
    ("memory when all have left, by before", lambda r: num(r["left_by_empty"])),
]


def num(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows):
    """A row of the table for each quantity, a column for each step, as Markdown."""
    lines = ["| |" + " |" * len(rows), "|---" * (len(rows) + 1) + "|"]
    return "\n".join(lines + [f"| {name} | " + " | ".join(str(of(r)) for r in rows) + " |"
                              for name, of in COLUMNS])
