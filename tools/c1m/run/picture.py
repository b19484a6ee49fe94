"""A run as a picture: panels over one axis of time, as SVG, without other programs."""
import html
import math

WIDTH, PANEL, GAP = 960, 150, 52
LEFT, RIGHT, TOP, BOTTOM = 78, 132, 68, 46
COLORS = ["#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#a6761d", "#666666"]
TEXT = 'font-family="Helvetica, Arial, sans-serif" fill="#333"'


def text(x, y, words, size=12, anchor="start", extra=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {TEXT} {extra}>'
            f"{html.escape(words)}</text>")


def short(value):
    """A number for an axis: 250k, 1M, 0.5."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def linear_ticks(top, about):
    """Round steps from 0 to at least `top`."""
    raw = max(top, 1e-9) / about
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * f for f in (1, 2, 2.5, 5, 10) if size * f >= raw * 0.999)
    return [step * i for i in range(math.ceil(top / step - 1e-9) + 1)]


class Panel:
    """One diagram: series of (seconds, value), with an axis that is linear or logarithmic."""

    def __init__(self, title, unit, series, log=False):
        self.title, self.unit, self.log = title, unit, log
        keep = lambda v: v is not None and (v > 0 or not log)
        self.series = [(name, [(t, v) for t, v in points if keep(v)]) for name, points in series]
        values = [v for _, points in self.series for _, v in points] or [1]
        if log:
            low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values) * 1.001))
            self.ticks = [10.0 ** i for i in range(low, max(high, low + 1) + 1)]
        else:
            self.ticks = linear_ticks(max(values), 4)

    def y(self, value, top):
        low, high = self.ticks[0], self.ticks[-1]
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return top + PANEL * (1 - (value - low) / (high - low))

    def draw(self, top, x):
        out = [text(LEFT, top - 10, f"{self.title} ({self.unit})" if self.unit else self.title, 13,
                    extra='font-weight="bold"')]
        for tick in self.ticks:
            y = self.y(tick, top)
            out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            out.append(text(LEFT - 8, y + 4, short(tick), 11, "end"))
        ends = []
        for (name, points), color in zip(self.series, COLORS):
            if not points:
                continue
            line = " ".join(f"{x(t):.1f},{self.y(v, top):.1f}" for t, v in points)
            out.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.6" '
                       'stroke-linejoin="round"/>')
            out += [f'<circle cx="{x(t):.1f}" cy="{self.y(v, top):.1f}" r="1.8" fill="{color}"/>'
                    for t, v in points if len(points) < 60]
            ends.append([len(ends) * 16 + top + 12, name, color])
        for y, name, color in ends:
            out.append(f'<line x1="{WIDTH - RIGHT + 12}" x2="{WIDTH - RIGHT + 28}" y1="{y - 4}" y2="{y - 4}" '
                       f'stroke="{color}" stroke-width="3"/>')
            out.append(text(WIDTH - RIGHT + 34, y, name, 11))
        return out


def rates(samples):
    """Streams opened per second, over five seconds each."""
    points = []
    for before, now in zip(samples[::5], samples[5::5]):
        points.append((now["at_s"], max(0, (now["held"] - before["held"]) / (now["at_s"] - before["at_s"]))))
    return points


def panels(samples):
    of = lambda pick: [(s["at_s"], pick(s)) for s in samples]
    latency = lambda key, which: of(lambda s: (s[key] or {}).get(which))
    names = sorted({name for s in samples for name in s["memory_kib"]},
                   key=lambda n: -max(s["memory_kib"].get(n, 0) for s in samples))
    memory = [(name.removeprefix("pushpin-"), of(lambda s, n=name: s["memory_kib"].get(n, 0) / 1024))
              for name in names]
    return [Panel("Streams held", "", [("streams", of(lambda s: s["held"]))]),
            Panel("Streams opened per second", "", [("opened", rates(samples))]),
            Panel("Memory of the server, by process", "PSS, MiB", memory),
            Panel("Plain request", "ms, of each second", [
                (p, latency("request", f"{p}_ms")) for p in ("p50", "p99")], log=True),
            Panel("Delivery of published messages", "ms", [
                (p, latency("delivery", f"{p}_ms")) for p in ("p50", "p99", "max")], log=True)]


def phase_marks(phases, end, x, bottom):
    """The phases, as bands with names."""
    out, ends = [], [p["at_s"] for p in phases[1:]] + [end]
    for i, (phase, until) in enumerate(zip(phases, ends)):
        left, right = x(phase["at_s"]), x(until)
        if i % 2 == 0:
            out.append(f'<rect x="{left:.1f}" y="{TOP - 28}" width="{max(0, right - left):.1f}" '
                       f'height="{bottom - TOP + 28:.1f}" fill="#f4f6f8"/>')
        if right - left > 7 * len(phase["phase"]):
            out.append(text((left + right) / 2, TOP - 34, phase["phase"], 11, "middle"))
        else:
            out.append(f'<text transform="translate({(left + right) / 2 + 3:.1f},{TOP - 31}) rotate(-30)" '
                       f'font-size="9" {TEXT}>{html.escape(phase["phase"])}</text>')
    return out


def draw(outcome, samples):
    """The picture as SVG text."""
    begin = outcome["phases"][0]["at_s"] if outcome["phases"] else 0
    samples = [s for s in samples if s["at_s"] >= begin and s["memory_kib"]]
    if not samples:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    end = samples[-1]["at_s"]
    x = lambda t: LEFT + (t - begin) / max(1e-9, end - begin) * (WIDTH - LEFT - RIGHT)
    rows = panels(samples)
    bottom = TOP + 8 + len(rows) * (PANEL + GAP) - GAP
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + BOTTOM}" '
           f'viewBox="0 0 {WIDTH} {bottom + BOTTOM}">', '<rect width="100%" height="100%" fill="white"/>',
           text(LEFT, 18, f"{outcome['first']['opening']['held']:,} streams, {outcome['machine']['cpus']} processors "
                f"shared with the clients, {outcome['connmgr_processes']} connection managers", 14)]
    out += phase_marks(outcome["phases"], end, x, bottom)
    for i, panel in enumerate(rows):
        out += panel.draw(TOP + 8 + i * (PANEL + GAP), x)
    for tick in linear_ticks(end - begin, 8):
        if tick <= end - begin:
            out.append(text(x(begin + tick), bottom + 18, short(tick), 11, "middle"))
    out.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 36, "seconds", 12, "middle"))
    return "\n".join(out) + "\n</svg>\n"
