"""The rows of `scaling` as a picture: a small plot for each quantity, over the streams on a
logarithmic axis, or over the workers."""
import math

from law import total
from picture import COLORS, linear_ticks, short, text

WIDE, HIGH, COLUMNS = 400, 150, 2
LEFT, TOP, GAP_X, GAP_Y = 70, 84, 110, 74

PROCESSES = [("connection manager", "pushpin-connmgr"), ("proxy", "pushpin-proxy"), ("handler", "pushpin-handler")]


def split(key):
    """Curves of a figure that is given by process, and its sum."""
    parts = [(name, lambda r, p=process: r[key].get(p)) for name, process in PROCESSES]
    return [("all", lambda r: total(r[key])), *parts]


def one(key, name=""):
    return [(name, lambda r: r.get(key))]


# Title, unit, curves.
PLOTS = [
    ("User memory", "bytes per stream", split("bytes_per_stream")),
    ("Opened", "streams per second", one("opened_per_second")),
    ("CPU of opening", "us per stream", split("cpu_us_per_open")),
    ("Wake-ups of opening", "per stream", split("wakes_per_open")),
    ("CPU of holding", "us per keep-alive", one("cpu_us_per_keepalive")),
    ("CPU of publishing", "us per delivery", one("cpu_us_per_delivery")),
    ("Delivery to a group of 100", "ms", one("group_p50_ms", "p50") + one("group_p99_ms", "p99")),
    ("Plain request while held", "ms", one("request_p50_ms", "p50") + one("request_max_ms", "worst of 50")),
]


class Axis:
    """The common horizontal axis."""

    def __init__(self, rows):
        counts = sorted({r["streams"] for r in rows})
        self.by_workers = len(counts) == 1
        self.name = "workers of each kind" if self.by_workers else "streams"
        self.ticks = sorted({r["workers"] for r in rows}) if self.by_workers else counts
        self.low, self.high = math.log(self.ticks[0]), math.log(max(self.ticks[-1], self.ticks[0] + 1))

    def value(self, row):
        return row["workers"] if self.by_workers else row["streams"]

    def x(self, value):
        return (math.log(value) - self.low) / (self.high - self.low) * WIDE


def lines_of(rows, axis, curves):
    """Name and points of each line of a plot; more numbers of workers make more lines."""
    if axis.by_workers:
        groups = [("", rows)]
    else:
        numbers = sorted({r["workers"] for r in rows})
        groups = [(f"{n} workers" if len(numbers) > 1 else "", [r for r in rows if r["workers"] == n])
                  for n in numbers]
    shown = curves if len(groups) == 1 else curves[:1]
    found = []
    for group, members in groups:
        for name, of in shown:
            points = [(axis.value(r), of(r)) for r in members if of(r) is not None]
            found.append((group or name, points))
    return [(name, points) for name, points in found if points]


def plot(left, top, axis, title, unit, lines):
    """One plot as SVG elements."""
    most = max([v for _, points in lines for _, v in points] or [1])
    ticks = linear_ticks(max(most, 1e-6), 3)
    y = lambda v: top + HIGH * (1 - max(0, v) / ticks[-1])
    out = [text(left, top - 12, f"{title} ({unit})", 13, extra='font-weight="bold"')]
    for tick in ticks:
        out.append(f'<line x1="{left}" x2="{left + WIDE}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>')
        out.append(text(left - 8, y(tick) + 4, short(tick), 11, "end"))
    for tick in axis.ticks:
        out.append(text(left + axis.x(tick), top + HIGH + 17, short(tick), 11, "middle"))
    for i, ((name, points), color) in enumerate(zip(lines, COLORS)):
        at = [(left + axis.x(x), y(v)) for x, v in points]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in at)
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        out += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.6" fill="{color}"/>' for px, py in at]
        if name:
            out.append(f'<line x1="{left + i * 112}" x2="{left + i * 112 + 14}" y1="{top + HIGH + 32}" '
                       f'y2="{top + HIGH + 32}" stroke="{color}" stroke-width="3"/>')
            out.append(text(left + i * 112 + 18, top + HIGH + 36, name, 10))
    return out


def draw(rows, head, foot):
    """The picture as SVG text, with a line above and one below."""
    axis = Axis(rows)
    high = TOP + -(-len(PLOTS) // COLUMNS) * (HIGH + GAP_Y) + 10
    width = LEFT + COLUMNS * WIDE + (COLUMNS - 1) * GAP_X + 50
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{high}" viewBox="0 0 {width} {high}">',
           '<rect width="100%" height="100%" fill="white"/>', text(LEFT, 24, head, 15), text(LEFT, 44, foot, 12)]
    for i, (title, unit, curves) in enumerate(PLOTS):
        left = LEFT + i % COLUMNS * (WIDE + GAP_X)
        out += plot(left, TOP + i // COLUMNS * (HIGH + GAP_Y), axis, title, unit, lines_of(rows, axis, curves))
    return "\n".join(out) + "\n</svg>\n"
