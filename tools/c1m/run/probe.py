"""probe.py FILE PATH PERIOD_MS PORT...: sends one plain request each period, each on a connection
of its own, until it is ended; a line `monotonic-seconds milliseconds` for each, -1 for a failure.
A process of its own, so that nothing that the command does besides counts as latency."""
import itertools
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guest"))
from measure import plain_request  # noqa: E402


def main(file, path, period_ms, *ports):
    period = float(period_ms) / 1000
    due = time.monotonic()
    with open(file, "w", buffering=1) as out:
        for port in itertools.cycle(map(int, ports)):
            took = plain_request(port, path)
            out.write(f"{due:.3f} {-1 if took is None else took:.3f}\n")
            # A request that took long is followed at once, but none is caught up on.
            due = max(due + period, time.monotonic())
            time.sleep(max(0, due - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
