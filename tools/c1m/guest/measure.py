"""Figures of the machine and of a server under load, for `drive.py` and `million`: memory and CPU
of processes, the kernel's sockets, plain requests, the server's `report`. Standard library only."""
import json
import os
import socket
import statistics
import time

PAGE = os.sysconf("SC_PAGE_SIZE")


# ------------------------------------------------------------------ the system

def meminfo():
    with open("/proc/meminfo") as f:
        return {k: int(v.split()[0]) for k, v in (line.split(":", 1) for line in f)}


def sockstat():
    """TCP sockets in use and the pages their buffers take."""
    with open("/proc/net/sockstat") as f:
        for line in f:
            if line.startswith("TCP:"):
                words = line.split()[1:]
                return {k: int(v) for k, v in zip(words[::2], words[1::2])}
    return {}


def slabs(limit=12):
    rows = []
    try:
        with open("/proc/slabinfo") as f:
            for line in f:
                words = line.split()
                if len(words) > 6 and words[1].isdigit():
                    rows.append({"name": words[0], "active": int(words[1]), "objects": int(words[2]),
                                 "size": int(words[3]), "kib": int(words[2]) * int(words[3]) // 1024})
    except OSError:
        pass
    return sorted(rows, key=lambda r: -r["kib"])[:limit]


def cpu_seconds():
    with open("/proc/stat") as f:
        ticks = [int(t) for t in f.readline().split()[1:]]
    hz = os.sysconf("SC_CLK_TCK")
    return {"busy": (sum(ticks) - ticks[3] - ticks[4]) / hz, "all": sum(ticks) / hz}


def threads(pid):
    """CPU seconds and wake-ups of a process's threads, as the scheduler counts them: exact, where
    /proc/PID/stat has ticks. Nothing where the kernel does not count."""
    ran_ns, wakes = 0, 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as f:
                ran_ns += int(f.read().split()[0])
            with open(f"/proc/{pid}/task/{thread}/status") as f:
                wakes += next(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt"))
    except (OSError, StopIteration):
        return {}
    return {"cpu_s": ran_ns / 1e9, "wakes": wakes}


def processes(session):
    """Processes of a session (the target puts none of its own elsewhere)."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as f:
                text = f.read()
            comm = text[text.index("(") + 1:text.rindex(")")]
            fields = text[text.rindex(")") + 2:].split()
            if int(fields[3]) != session or fields[0] == "Z":
                continue
            row = {"name": comm, "pid": int(name), "rss_kib": int(fields[21]) * PAGE // 1024,
                   "cpu_s": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
                   "wakes": 0, **threads(name)}
            try:
                with open(f"/proc/{name}/smaps_rollup") as f:
                    for line in f:
                        if line.startswith("Pss:"):
                            row["pss_kib"] = int(line.split()[1])
            except OSError:
                pass
            found.append(row)
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda r: -r["rss_kib"])


def by_name(rows):
    """Processes of one name taken together."""
    sums = {}
    for r in rows:
        zero = {"name": r["name"], "processes": 0, "rss_kib": 0, "pss_kib": 0, "cpu_s": 0.0, "wakes": 0}
        s = sums.setdefault(r["name"], zero)
        s["processes"] += 1
        s["rss_kib"] += r["rss_kib"]
        s["pss_kib"] += r.get("pss_kib", r["rss_kib"])
        s["cpu_s"] += r["cpu_s"]
        s["wakes"] += r["wakes"]
    return sorted(sums.values(), key=lambda r: -r["pss_kib"])


def processes_of(parent):
    """Resident KiB of a process and of its children."""
    out = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as f:
                    text = f.read()
                fields = text[text.rindex(")") + 2:].split()
                if int(name) == parent or int(fields[1]) == parent:
                    out.append(int(fields[21]) * PAGE // 1024)
            except (OSError, ValueError):
                pass
    return out


# ---------------------------------------------------------------- the requests

def complete(data):
    """Whether a response is whole; one that ends with the connection never is."""
    head, found, body = data.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return bool(found) and len(body) >= int(value)
        if name == b"transfer-encoding":
            return bool(found) and body.endswith(b"0\r\n\r\n")
    return False


def plain_request(port, path, timeout=60.0):
    """Milliseconds from connect to the end of the response, or None."""
    start = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while not complete(data):
                piece = s.recv(65536)
                if not piece:
                    break
                data += piece
    except OSError:
        return None
    if not data.startswith(b"HTTP/1.1 200"):
        return None
    return (time.monotonic() - start) * 1000


def plain_requests(ports, path, count, budget):
    times, failed = [], 0
    end = time.monotonic() + budget
    for i in range(count):
        if time.monotonic() > end:
            break
        t = plain_request(ports[i % len(ports)], path, min(60.0, budget))
        if t is None:
            failed += 1
        else:
            times.append(t)
    if not times:
        return {"count": 0, "failed": failed}
    times.sort()
    return {"count": len(times), "failed": failed, "min": round(times[0], 3),
            "median": round(statistics.median(times), 3), "max": round(times[-1], 3)}


# ---------------------------------------- statistics of the target, over ZeroMQ

def decode_tnet(data, at=0):
    colon = data.index(b":", at)
    size = int(data[at:colon])
    body = data[colon + 1:colon + 1 + size]
    kind = data[colon + 1 + size:colon + 2 + size]
    after = colon + 2 + size
    if kind == b"#":
        return int(body), after
    if kind == b"^":
        return float(body), after
    if kind == b"!":
        return body == b"true", after
    if kind == b"~":
        return None, after
    if kind in b"}]":
        items, pos = [], 0
        while pos < len(body):
            item, pos = decode_tnet(body, pos)
            items.append(item)
        if kind == b"]":
            return items, after
        return dict(zip(items[::2], items[1::2])), after
    return body.decode("utf-8", "replace"), after


class Reports:
    """A ZeroMQ SUB socket for `report` messages, spoken by hand (ZMTP 3.0, NULL)."""

    def __init__(self, spec):
        if spec.startswith("ipc://"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(10)
            self.sock.connect(spec[6:])
        else:
            host, port = spec.removeprefix("tcp://").rsplit(":", 1)
            self.sock = socket.create_connection((host, int(port)), timeout=10)
        self.buf = b""
        self.sock.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        self.take(64)
        ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
        self.sock.sendall(b"\x04" + bytes([len(ready)]) + ready)
        self.frame()
        self.sock.sendall(b"\x00\x07\x01report")

    def take(self, n):
        while len(self.buf) < n:
            piece = self.sock.recv(65536)
            if not piece:
                raise OSError("stats socket closed")
            self.buf += piece
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def frame(self):
        flags = self.take(1)[0]
        size = int.from_bytes(self.take(8 if flags & 2 else 1), "big")
        return self.take(size)

    def next(self, timeout):
        """The next report, or None when none comes in time."""
        self.sock.settimeout(timeout)
        try:
            message = self.frame()
        except OSError:
            return None
        kind, _, body = message.partition(b" ")
        if body[:1] == b"J":
            return json.loads(body[1:])
        return decode_tnet(body[1:])[0] if body[:1] == b"T" else {"raw": body.decode("latin1")}

    def latest(self, timeout):
        report, end = None, time.monotonic() + timeout
        while True:
            got = self.next(0.2 if report else max(0.1, end - time.monotonic()))
            if got is None:
                return report
            report = got
