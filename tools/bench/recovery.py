"""What the recovery of many clients does to others: 2,000 streams miss an item and go to the backend
for it, while messages to other channels go on."""

import contextlib
import json
import subprocess
import time
import urllib.request

from machine import Hold, cpu_seconds, minus
from measures import brief_opening
from peers import running

RECOVERING = 2000
OTHERS, OTHER_CHANNELS = 500, 50
RATE = 100              # messages a second to the others' channels, each to 10 streams
CALM_S, DURING_S = 4, 15
LIMIT_S = 25            # for all to have what they missed


def publish_gap(peer):
    """Item 3, which says that item 2 came before: nobody has that."""
    item = {"channel": "missed", "id": "3", "prev-id": "2", "formats": {"http-stream": {"content": "data: 3\n\n"}}}
    request = urllib.request.Request(f"http://127.0.0.1:{peer.control}/publish/", method="POST",
                                     data=json.dumps({"items": [item]}).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        answer.read()


def start_publishing(peer, seconds):
    command = [*peer.publish_command("sse", int(RATE * seconds), RATE, OTHER_CHANNELS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def published(process):
    out, _ = process.communicate(timeout=60)
    if process.returncode:
        raise RuntimeError("publishing failed")
    return json.loads(out)


def others_got(hold, publisher):
    """What the others saw of one publisher's messages, when it has ended."""
    sent = published(publisher)
    expected = sent["messages"] * OTHERS // OTHER_CHANNELS
    hold.wait_messages(expected, 8, idle=2.0)
    seen = hold.ask("mark")["receiving"]
    latency = seen["latency"]
    return {"expected": expected, "lost": expected - seen["messages"], "not_published": sent["not_sent"],
            "p50_ms": latency.get("p50_ms"), "p99_ms": latency.get("p99_ms"), "max_ms": latency.get("max_ms")}


def recover(peer, hold, count):
    """All miss an item; how long until each has heard of it from the backend, as far as they do."""
    hold.ask("mark")
    began = time.monotonic()
    publish_gap(peer)
    took, seen = None, 0
    while time.monotonic() - began < LIMIT_S and took is None:
        seen = hold.ask("stat")["receiving"]["messages"]
        if seen >= count:
            took = round(time.monotonic() - began, 2)
        time.sleep(0.02)
    return {"recovered": seen, "recovery_s": took}


def measure(name, path):
    with running(name) as peer, contextlib.ExitStack() as stack:
        others = Hold(peer.target(), OTHERS, peer.topic_path("sse", "t-{uid%50}"))
        stack.callback(others.close)
        out = {"others": brief_opening(others.opened())}
        hold = Hold(peer.target(), RECOVERING, path)
        stack.callback(hold.close)
        out.update(brief_opening(hold.opened()))
        time.sleep(3)   # fresh channels ask their backend once more after a second
        others.ask("mark")
        out["calm"] = others_got(others, start_publishing(peer, CALM_S))
        cpu0 = cpu_seconds(peer.pids())
        publisher = start_publishing(peer, DURING_S)
        time.sleep(1)
        out.update(recover(peer, hold, out["established"]))
        out["during"] = others_got(others, publisher)
        out["cpu_by_process"] = minus(cpu_seconds(peer.pids()), cpu0)
        out["cpu_s"] = round(sum(out["cpu_by_process"].values()), 2)
        return out


def measure_recovery(name, note):
    """One link for all: one request answers them."""
    return measure(name, "/linked?topic=missed")


def measure_recovery_own(name, note):
    """A link for each: as many requests as streams. The links differ in the path, because Pushpin 1.36
    gives streams whose links differ in the query one answer."""
    return measure(name, "/linked/{uid}?topic=missed")


MEASURES = {"recovery": measure_recovery, "recovery-own": measure_recovery_own}
PLAN = {"recovery": ["ours", "pushpin136"], "recovery-own": ["ours", "pushpin136"]}
