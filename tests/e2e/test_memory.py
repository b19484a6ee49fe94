"""Memory goes back to the system after many clients have left."""

import json
import os
import subprocess
import time

import pytest

import kit
from kit import H

STAYING, PASSING = 1000, 12_000
BACK = 1.2      # of the memory before
PROGRAMS = ('pushpin-connmgr', 'pushpin-proxy', 'pushpin-handler')


class Crowd:
    """`loadgen hold`: streams in a process of their own, until close()."""

    def __init__(self, srv, n, first):
        self.proc = subprocess.Popen(
            [os.environ.get('LOADGEN') or os.path.join(kit.BUILD, 'loadgen'), 'hold', '--quiet',
             '--target=%s:%d' % (kit.HOST, srv.http_port), '-n', str(n), '--first-uid', str(first),
             '--sources=4', '--path=/stream?topic=group-{uid%10}'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        opening = json.loads(self.proc.stdout.readline())['opening']
        assert (opening['established'], opening['failed']) == (n, {})

    def ask(self, command):
        self.proc.stdin.write(command + '\n')
        self.proc.stdin.flush()
        return json.loads(self.proc.stdout.readline())

    def close(self):
        self.proc.stdin.close()
        self.proc.wait(20)
        self.proc.stdout.close()


def pss_kb(srv):
    """Proportional share of memory of each process, by its program."""
    out = {}
    for name in PROGRAMS:
        with open('/proc/%d/smaps_rollup' % kit.child(srv, name)) as f:
            out[name] = next(int(line.split()[1]) for line in f if line.startswith('Pss:'))
    return out


@pytest.fixture
def srv(started, tmp_path):
    assert kit.raise_files() >= STAYING + PASSING + 500, 'too few files for this test'
    backend = kit.Backend(str(tmp_path))
    started.append(backend)
    s = kit.Server(routes='* %s:%d\n' % (kit.HOST, backend.port),
                   conf={'runner': {'client_maxconn': STAYING + PASSING + 100}})
    started.append(s)
    return s


def publish_to_all(srv):
    srv.publish(*[H.stream_item('group-%d' % n, 'data: to all\n\n') for n in range(10)])


@pytest.mark.timeout(240)
def test_memory_goes_back_after_many_clients(srv, started):
    """Twice, because the second crowd may find the first one's leavings."""
    staying = Crowd(srv, STAYING, 0)
    started.append(staying)
    publish_to_all(srv)  # so that code which only publishing needs is in memory before, too
    time.sleep(1.5)      # what the opens used is given back too
    before = pss_kb(srv)
    for wave in range(2):
        passing = Crowd(srv, PASSING, STAYING)
        full = pss_kb(srv)
        # Else there would be nothing to give back.
        for name in ('pushpin-connmgr', 'pushpin-handler'):
            assert full[name] > before[name] * BACK, (name, before, full)
        publish_to_all(srv)
        passing.close()
        returned = lambda: all(kb <= before[name] * BACK for name, kb in pss_kb(srv).items())  # noqa: E731
        try:
            H.eventually(returned, 75, 0.5)      # timers of sessions that left lapse within 55 s
        except (TimeoutError, AssertionError):
            pytest.fail('wave %d, kB: before %r, with all %r, after %r' % (wave, before, full, pss_kb(srv)))
    assert staying.ask('stat')['live'] == STAYING
