"""Clients for `drive.py` and `million`: processes of `loadgen hold` and what they report."""
import json
import os
import select
import signal
import subprocess
import time


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            text = f.read()
        return int(text[text.rindex(")") + 2:].split()[1])
    except (OSError, ValueError):
        return None


class Holder:
    """One `loadgen hold` process with its share of the connections."""

    def __init__(self, p, count, first):
        args = [p["loadgen"], "hold", "-n", str(count), "--first-uid", str(first), "--procs", "1",
                "--sources", str(p["sources"]), "--path", p["path"], "--rate", str(p["rate"]),
                "--pending", str(p["pending"]), "--timeout", str(p["timeout"]), "--quiet"]
        # Several addresses of the server: no connection needs to bind one of its own.
        for i in range(p["addresses"]):
            for port in p["ports"]:
                args += ["--target", f"127.0.0.{i + 1}:{port}"]
        self.count = count
        self.proc = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(self.proc.stdout.fileno(), False)
        self.buf = b""

    def line(self, timeout):
        end = time.monotonic() + timeout
        while b"\n" not in self.buf:
            left = end - time.monotonic()
            if left <= 0 or self.proc.poll() is not None and not self.buf:
                return None
            if select.select([self.proc.stdout], [], [], min(left, 1.0))[0]:
                piece = os.read(self.proc.stdout.fileno(), 65536)
                if not piece:
                    return None
                self.buf += piece
        line, self.buf = self.buf.split(b"\n", 1)
        return json.loads(line)

    def pause(self):
        """Stops the coordinator, which would ask its worker every second; the worker goes on reading."""
        os.kill(self.proc.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.proc.pid, signal.SIGCONT)

    def freeze(self):
        """Stops the worker as well: no further connections, and those made stay, unread."""
        self.pause()
        for name in os.listdir("/proc"):
            if name.isdigit() and parent_of(name) == self.proc.pid:
                os.kill(int(name), signal.SIGSTOP)

    def tell(self, text):
        self.proc.stdin.write(text.encode() + b"\n")
        self.proc.stdin.flush()


def merged(summaries):
    """Latency over several holders: counts add up, p50 is weighted, the rest is the worst."""
    rows = [s for s in summaries if s and s.get("count")]
    total = sum(r["count"] for r in rows)
    if not total:
        return {"count": 0}
    out = {"count": total}
    for key in rows[0]:
        if key == "count" or not isinstance(rows[0][key], (int, float)):
            continue
        values = [r.get(key) or 0 for r in rows]
        if "min" in key:
            out[key] = min(values)
        elif "mean" in key or "p50" in key:
            out[key] = round(sum(v * r["count"] for v, r in zip(values, rows)) / total, 3)
        else:
            out[key] = max(values)
    return out


def gather(holders, timeout):
    """What each holder has received since it was last asked."""
    for h in holders:
        try:
            h.go_on()
            h.tell("mark")
        except OSError:
            pass
    out = []
    end = time.monotonic() + timeout
    for h in holders:
        event = h.line(max(0.1, end - time.monotonic()))
        while event is not None and event.get("event") != "mark":
            event = h.line(max(0.1, end - time.monotonic()))
        out.append(event)
        h.pause()
    return out
