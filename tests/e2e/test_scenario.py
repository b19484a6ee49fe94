"""The million-connections set-up in small, as an operator would do it: a PHP backend, a
configuration of 2021, curl, pushpin-publish and Debian's unmodified monitorstats.py."""

import ast
import os
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import kit
from kit import H

MONITOR = os.environ.get('MONITORSTATS', '/usr/share/doc/pushpin/examples/tools/monitorstats.py')
PORTS = 8
HELD = 4000
EVENT = 'event: message\ndata: hello world\n\n'


class Scenario:
    """PHP and the server, in one folder, configured as the operator has it."""

    def __init__(self, held=HELD):
        self.dir = tempfile.mkdtemp(prefix='scenario-')
        self.php = kit.Php(self.dir)
        self.maxconn = max(kit.raise_files() - 1000, 1000)
        services = 'condure,zurl,pushpin-proxy,pushpin-handler'
        self.srv = H.Server(
            routes='*,path_beg=/stream.php/fast localhost:%d\n* localhost:%d' % (self.php.port, self.php.port),
            own_lines=False, http_ports=PORTS, ready=False, services=services,
            conf={'global': {'rundir': 'run', 'stats_connection_ttl': '600'},
                  'runner': {'client_buffer_size': '4096', 'client_maxconn': self.maxconn, 'logdir': 'log'},
                  'handler': {'message_rate': None, 'message_hwm': None}},
            http_port_value=None)
        self.ports = self.srv.http_ports
        H.eventually(self.answers, 20)

    def answers(self):
        try:
            r = H.http(self.srv, 'GET', '/stream.php', port=self.ports[-1], timeout=2)
            return r.status == 200
        except (OSError, H.Closed, TimeoutError):
            return False

    def url(self, path, port=0):
        return 'http://127.0.0.1:%d%s' % (self.ports[port], path)

    def publish(self, channel, content):
        """The command of the README, word for word; the address comes from GRIP_URL."""
        env = dict(os.environ, GRIP_URL='http://localhost:%d' % self.srv.ctl_port)
        r = subprocess.run([H.publish_tool(), '--no-eol', channel, content], env=env, capture_output=True,
                           text=True, timeout=20)
        assert (r.returncode, r.stdout.strip()) == (0, 'Published'), r

    def stop(self):
        self.srv.stop()
        self.php.stop()


@pytest.fixture(scope='module')
def scenario():
    s = Scenario()
    yield s
    s.stop()


class Curl:
    """curl that hangs on a stream; what it has printed so far."""

    def __init__(self, url):
        self.proc = subprocess.Popen(['curl', '-sN', url], stdout=subprocess.PIPE)
        self.seen = b''
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while True:
            piece = os.read(self.proc.stdout.fileno(), 65536)
            if not piece:
                return
            self.seen += piece

    def wait(self, text, timeout=10):
        H.eventually(lambda: text in self.seen, timeout)

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.proc.kill()
        self.proc.wait()
        self.proc.stdout.close()


def test_curl_hangs_shows_the_first_event_and_the_published_one(scenario):
    with Curl(scenario.url('/stream.php?topic=test')) as curl:
        curl.wait(b'event: open\ndata: welcome\n\n')
        assert curl.proc.poll() is None
        scenario.srv.wait_sub('test')
        scenario.publish('test', EVENT)
        curl.wait(EVENT.encode())
        assert curl.seen == b'event: open\ndata: welcome\n\n' + EVENT.encode()
        assert curl.proc.poll() is None


def test_a_keep_alive_arrives(scenario):
    with Curl(scenario.url('/stream.php/fast?topic=fast')) as curl:
        curl.wait(b':\n\n')
        first = time.monotonic()
        curl.wait(b':\n\n:\n\n')
        assert time.monotonic() - first < 5


def test_every_port_answers(scenario):
    for port in scenario.ports:
        r = H.http(scenario.srv, 'GET', '/stream.php', port=port)
        assert (r.status, r.body) == (200, b'plain answer\n')


def test_a_wrong_path_is_the_backends_answer(scenario):
    assert H.http(scenario.srv, 'GET', '/gone.php').status == 404


def test_thousands_held(scenario):
    """All get a publish, a plain request answers meanwhile, and monitorstats.py counts them."""
    with kit.Crowd() as crowd:
        crowd.open_many(HELD, lambda i: scenario.ports[i % PORTS], lambda i: '/stream.php?topic=group-%d' % (i % 10),
                        until=b'data: welcome\n\n', timeout=90)
        monitor = Monitor(scenario.srv.ipc('stats'))
        try:
            times = []
            for port in scenario.ports:
                at = time.monotonic()
                r = H.http(scenario.srv, 'GET', '/stream.php', port=port)
                times.append(time.monotonic() - at)
                assert (r.status, r.body) == (200, b'plain answer\n')
            assert min(times) < 1
            crowd.mark()
            for group in range(10):
                scenario.publish('group-%d' % group, EVENT)
            crowd.wait_text(EVENT.encode(), 20)
            assert not crowd.lost()
            # Of an interval in which nothing came and went: exact.
            report = monitor.wait(lambda r: r['connections'] == HELD)
            highest = max(r['connections'] for r in monitor.reports())
        finally:
            monitor.stop()
        # Of the interval before: plain requests were open as well, and what was being handed over
        # may have been seen on both sides for a moment.
        assert highest <= HELD * 1.03
        for key in ('from', 'minutes', 'http-response-sent', 'sent', 'duration', 'received'):
            assert key in report, report


class Monitor:
    """monitorstats.py of the Debian package, unmodified, and the reports that it prints."""

    def __init__(self, spec):
        assert os.path.exists(MONITOR), 'the Debian package pushpin is not installed'
        self.proc = subprocess.Popen([sys.executable, '-u', MONITOR, spec, 'report'], stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True)
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.proc.stdout:
            self.lines.append(line)

    def reports(self):
        return [ast.literal_eval(x[len('report '):]) for x in self.lines if x.startswith('report ')]

    def wait(self, pred, timeout=30):
        def found():
            assert self.proc.poll() is None, self.lines
            return next((r for r in self.reports() if pred(r)), None)
        try:
            return H.eventually(found, timeout)
        except AssertionError:
            raise AssertionError('no such report; printed: %r' % self.lines[-3:]) from None

    def stop(self):
        self.proc.kill()
        self.proc.wait()
