"""The machine under the measurements: ports, memory and CPU of processes, the lock, and the
processes that a measurement starts."""

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")
RESULTS = os.environ.get("BENCH_RESULTS", os.path.join(BUILD, "..", "bench-results"))
REPORT = os.environ.get("BENCH_REPORT", os.path.join(ROOT, "docs", "benchmarks.md"))
LOADGEN = os.environ.get("LOADGEN", os.path.join(BUILD, "loadgen"))
OURS = os.environ.get("OURS", os.path.join(BUILD, "pushpin"))
LOCK = os.environ.get("BENCH_LOCK", os.path.join(tempfile.gettempdir(), "bench.lock"))
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def log(*args):
    print(*args, file=sys.stderr, flush=True)


# ------------------------------------------------------------- the machine

def free_ports(n):
    """n ports of the range on which nothing is bound now."""
    found = []
    low, high = map(int, os.environ.get("BENCH_PORTS", "27000-29999").split("-"))
    for port in random.sample(range(low, high + 1), high + 1 - low):
        with socket.socket() as s:
            try:
                s.bind(("0.0.0.0", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == n:
            return found
    raise RuntimeError("no free ports")


def read(path):
    with open(path) as f:
        return f.read()


def tree(pid):
    """pid and all its descendants that are alive."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = read(f"/proc/{entry}/stat").rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        if os.path.exists(f"/proc/{p}"):
            found.append(p)
        todo += children.get(p, [])
    return found


def comm(pid):
    return read(f"/proc/{pid}/comm").strip()


def cpu_seconds(pids):
    """User and system time by process name, in seconds."""
    out = {}
    for p in pids:
        with contextlib.suppress(OSError):
            ns = sum(int(read(f"/proc/{p}/task/{t}/schedstat").split()[0])
                     for t in os.listdir(f"/proc/{p}/task"))
            out[comm(p)] = out.get(comm(p), 0.0) + ns / 1e9
    return out


def memory_kb(pids):
    """PSS and RSS by process name, in kB."""
    out = {}
    for p in pids:
        with contextlib.suppress(OSError):
            values = {}
            for line in read(f"/proc/{p}/smaps_rollup").splitlines()[1:]:
                key, _, rest = line.partition(":")
                values[key] = int(rest.split()[0])
            row = out.setdefault(comm(p), {"pss": 0, "rss": 0})
            row["pss"] += values["Pss"]
            row["rss"] += values["Rss"]
    return out


SLABS = {"TCP", "sock_inode_cache", "filp", "eventpoll_epi", "eventpoll_pwq", "tcp_bind_bucket",
         "tcp_bind2_bucket"}


def kernel_kb():
    """What the kernel holds: named slabs of sockets and files, all slabs, TCP buffers."""
    out = {"tcp_buffers": 0, "slab_named": 0, "slab_all": 0}
    for line in read("/proc/net/sockstat").splitlines():
        if line.startswith("TCP:"):
            out["tcp_buffers"] = int(line.split()[-1]) * PAGE / 1024
    with contextlib.suppress(OSError):
        for line in read("/proc/slabinfo").splitlines()[2:]:
            f = line.split()
            if f[0] in SLABS:
                out["slab_named"] += int(f[1]) * int(f[3]) / 1024
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("Slab:"):
            out["slab_all"] = int(line.split()[1])
    return out


def machine_busy():
    """Busy seconds of all cores since boot (time stolen by the host included)."""
    f = [int(x) for x in read("/proc/stat").splitlines()[0].split()[1:9]]
    return (sum(f) - f[3] - f[4]) / TICKS


def minus(a, b):
    return {k: round(a[k] - b.get(k, 0), 4) for k in a}


@contextlib.contextmanager
def section(name):
    """Holds the lock, and notes how much CPU others used meanwhile."""
    with open(LOCK, "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        note = {}
        t0, busy0, own0 = time.monotonic(), machine_busy(), os.times()
        try:
            yield note
        finally:
            t, busy, own = time.monotonic() - t0, machine_busy() - busy0, os.times()
            mine = sum(own[:4]) - sum(own0[:4])
            note["section_s"] = round(t, 1)
            note["foreign_cpus"] = round(max(0.0, busy - mine) / t, 2)
            log(f"  {name}: {t:.1f} s, others used {note['foreign_cpus']} CPUs")
            fcntl.flock(f, fcntl.LOCK_UN)


# --------------------------------------------------------------- processes

class Proc:
    """A process of ours, stopped by its id."""

    def __init__(self, command, out):
        self.out = open(out, "w")
        self.p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.out,
                                  stderr=subprocess.STDOUT, start_new_session=True)

    def pids(self):
        return tree(self.p.pid)

    def stop(self):
        pids = self.pids()
        self.p.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.p.wait(5)
        for p in pids:
            with contextlib.suppress(OSError):
                os.kill(p, signal.SIGKILL)
        self.p.wait()
        self.out.close()


def wait_port(port, proc=None, timeout=10):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.3):
            return
        if proc and proc.p.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


class Hold:
    """`loadgen hold`, driven over its standard input."""

    def __init__(self, target, n, path, kind="sse", first_uid=0, procs=1, pending=100, more=()):
        self.n = n
        self.p = subprocess.Popen(
            [LOADGEN, "hold", "--quiet", "--target", target, "-n", str(n), "--path", path,
             "--kind", kind, "--first-uid", str(first_uid), "--sources", "4",
             "--procs", str(procs), "--pending", str(pending), "--timeout", "15", *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.killer = threading.Timer(70, self.p.kill)
        self.killer.start()

    def line(self):
        text = self.p.stdout.readline()
        if not text:
            raise RuntimeError("the load generator ended early")
        return json.loads(text)

    def opened(self):
        out = self.line()
        assert out["event"] == "open"
        return out["opening"]

    def ask(self, command):
        self.p.stdin.write(command + "\n")
        self.p.stdin.flush()
        return self.line()

    def wait_messages(self, expected, limit, idle=3.0):
        """Until that many messages came, or none for `idle` seconds."""
        end = last_change = time.monotonic()
        end += limit
        last = -1
        while time.monotonic() < end:
            n = self.ask("stat")["receiving"]["messages"]
            if n >= expected:
                break
            if n != last:
                last, last_change = n, time.monotonic()
            elif time.monotonic() - last_change > idle:
                break
            time.sleep(0.05)

    def close(self):
        self.killer.cancel()
        with contextlib.suppress(OSError):
            self.p.stdin.close()
        try:
            self.p.wait(10)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
