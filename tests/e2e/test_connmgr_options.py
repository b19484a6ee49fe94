"""The connection manager by itself: its options, req mode, metrics, debug view, signals.

A few lines of Python stand in for the other processes.
"""

import http.client
import os
import re
import signal
import socket
import subprocess
import threading

import pytest
import zmq

import kit
from kit import H, HOST


class Connmgr:
    """One connection manager with these options."""

    def __init__(self, dir, *options, name=None):
        self.dir = str(dir)
        self.log = os.path.join(self.dir, 'log')
        self.out = open(self.log, 'wb')
        program = name or kit.program('pushpin-connmgr')
        self.proc = subprocess.Popen([program, *options], stdout=self.out, stderr=subprocess.STDOUT,
                                     cwd=self.dir, start_new_session=True)

    def text(self):
        with open(self.log, errors='replace') as f:
            return f.read()

    def wait(self, text):
        H.eventually(lambda: text in self.text() or self.proc.poll() is not None, 10)
        assert text in self.text(), self.text()
        return self

    def stop(self):
        """Its exit status."""
        if self.proc.poll() is None:
            self.proc.terminate()
        try:
            return self.proc.wait(15)
        finally:
            if self.proc.poll() is None:
                self.proc.kill()
                self.proc.wait(5)
            self.out.close()


@pytest.fixture
def start(tmp_path):
    running, ports = [], []

    def make(*options, **kw):
        running.append(Connmgr(tmp_path, *options, **kw))
        return running[-1]

    def port():
        ports.append(H.free_port())
        return ports[-1]

    make.port, make.dir = port, tmp_path
    yield make
    for c in running:
        c.stop()
    for p in ports:
        H.release_port(p)


class Responder:
    """A ROUTER that answers every request of req mode with what `answer` makes of it."""

    def __init__(self, spec, answer):
        self.context = zmq.Context()
        self.sock = self.context.socket(zmq.ROUTER)
        self.sock.linger = 0
        self.sock.connect(spec)
        self.ends = False
        self.answer = answer
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ends:
            if not self.sock.poll(50):
                continue
            sender, empty, packet = self.sock.recv_multipart()
            for answer in self.answer(packet):
                self.sock.send_multipart([sender, empty, answer])

    def stop(self):
        self.ends = True
        self.thread.join(5)
        self.sock.close()
        self.context.term()


def frame(value):
    """A tnetstring."""
    if isinstance(value, bool):
        data, kind = str(value).lower().encode(), b'!'
    elif isinstance(value, int):
        data, kind = b'%d' % value, b'#'
    elif isinstance(value, dict):
        data, kind = b''.join(frame(k) + frame(v) for k, v in value.items()), b'}'
    elif isinstance(value, list):
        data, kind = b''.join(map(frame, value)), b']'
    else:
        data, kind = value if isinstance(value, bytes) else value.encode(), b','
    return b'%d:%s%s' % (len(data), data, kind)


def field(packet, name):
    """A text field of a packet that has no other of that name."""
    m = re.search(rb'%d:%s,(\d+):' % (len(name), name.encode()), packet)
    return packet[m.end():m.end() + int(m.group(1))] if m else None


def echo(packet):
    body = field(packet, 'method') + b' ' + (field(packet, 'body') or b'')
    return [b'T' + frame({'id': field(packet, 'id'), 'code': 200, 'reason': 'OK', 'body': body})]


def ask(port, method='GET', body=None, **kw):
    conn = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        conn.request(method, '/x', body=body, **kw)
        response = conn.getresponse()
        return response.status, response.read()
    finally:
        conn.close()


# ------------------------------------------------------------------ req mode

@pytest.mark.parametrize('workers', [1, 3])
def test_req_mode(start, workers):
    port, spec = start.port(), 'ipc://%s/req' % start.dir
    start('--workers=%d' % workers, '--listen=%s:%d,req' % (HOST, port), '--zclient-req=' + spec,
          '--body-buffer-size=1000').wait('started')
    responder = Responder(spec, echo)
    try:
        for n in range(20):
            body = b'x' * n
            assert ask(port, 'POST', body) == (200, b'POST ' + body)
        # In chunks, on one connection.
        conn = http.client.HTTPConnection(HOST, port, timeout=10)
        for n in range(3):
            conn.request('POST', '/x', body=iter([b'ab', b'cd']), encode_chunked=True,
                         headers={'Transfer-Encoding': 'chunked'})
            assert conn.getresponse().read() == b'POST abcd'
        conn.close()
        assert ask(port, 'POST', b'x' * 1001) == (500, b'Failed to process request.\n')
        status, text = ask(port, headers={'Upgrade': 'websocket', 'Connection': 'Upgrade'})
        assert (status, text) == (400, b'WebSockets not supported on req mode interface.\n')
    finally:
        responder.stop()


def test_req_mode_has_its_own_limit_and_time(start):
    req, spec = start.port(), 'ipc://%s/req' % start.dir
    c = start('--workers=1', '--listen=%s:%d,req' % (HOST, req), '--zclient-req=' + spec,
              '--req-maxconn=1', '--req-timeout=1').wait('started')
    first = socket.create_connection((HOST, req), 10)
    second = socket.create_connection((HOST, req), 10)
    second.sendall(b'GET / HTTP/1.0\r\n\r\n')
    responder = Responder(spec, echo)
    try:
        # The first is silent for its second; then the other one is let in.
        assert first.recv(1) == b''
        assert second.makefile('rb').read().endswith(b'\r\n\r\nGET ')
    finally:
        responder.stop()
    assert '1 clients are the limit' in c.text()


# ------------------------------------------------------- metrics, debug view

def scrape(port):
    status, text = ask(port)
    assert status == 200
    return dict(line.rsplit(' ', 1) for line in text.decode().splitlines() if not line.startswith('#'))


@pytest.mark.parametrize('workers', [1, 2])
def test_metrics(start, workers):
    port, metrics = start.port(), start.port()
    spec = 'ipc://%s/req' % start.dir
    start('--workers=%d' % workers, '--listen=%s:%d,req' % (HOST, port), '--zclient-req=' + spec,
          '--prometheus=%s:%d,prefix=pp_' % (HOST, metrics)).wait('started')
    assert scrape(metrics)['pp_connmgr_requests_total'] == '0'
    responder = Responder(spec, echo)
    try:
        for _ in range(3):
            ask(port)
    finally:
        responder.stop()
    idle = socket.create_connection((HOST, port), 10)

    def seen():
        m = scrape(metrics)
        return m['pp_connmgr_connections{mode="req",state="idle"}'] == '1' and m
    m = H.eventually(seen, 10)
    assert m['pp_connmgr_requests_total'] == '3'
    assert m['pp_connmgr_accepts_total'] == '4'
    assert m['pp_connmgr_responses_total{outcome="completed"}'] == '3'
    assert m['pp_connmgr_listener_connections{listener="%s:%d"}' % (HOST, port)] == '1'
    assert m['pp_connmgr_silent_workers'] == '0'
    assert int(m['pp_connmgr_sent_bytes_total']) > 100
    assert int(m['pp_connmgr_turn_seconds_count']) > 0
    idle.close()


def test_dump_at_usr1(start):
    port = start.port()
    c = start('--workers=2', '--listen=%s:%d' % (HOST, port)).wait('started')
    conn = socket.create_connection((HOST, port), 10)
    conn.sendall(b'GET /part')
    where = '%s:%d' % conn.getsockname()

    def dumped():
        c.proc.send_signal(signal.SIGUSR1)
        return re.search(r'largest: .* stream reading .* from=%s .* unread=9 ' % where, c.text())
    H.eventually(dumped, 10)
    c.wait('dump: end')
    conn.close()


def test_debug_socket(start):
    path, port = str(start.dir / 'debug'), start.port()
    c = start('--log-level=0', '--debug-socket=%s,mode=600' % path, '--listen=%s:%d' % (HOST, port))
    H.eventually(lambda: os.path.exists(path), 10)
    assert os.stat(path).st_mode & 0o777 == 0o600
    clients = []
    for _ in range(10):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(10)
        s.connect(path)
        clients.append(s.makefile('rwb'))
        s.close()
    H.eventually(lambda: kit.listens(port), 10)
    # One more is turned away.
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(path)
    assert s.recv(1) == b''
    s.close()
    for f in clients[:2]:
        f.write(b'dump\n')
        f.flush()
        lines = []
        while not lines or b'dump: end' not in lines[-1]:
            lines.append(f.readline())
        assert any(re.match(rb'worker 1: connections: idle=', line) for line in lines)
    conn = socket.create_connection((HOST, port), 10)
    conn.close()
    for f in clients[:2]:
        line = b''
        while b'accepted connection from' not in line:
            line = f.readline()
            assert line
        assert re.match(rb'\[DEBUG\] \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[connmgr', line), line
    for f in clients:
        f.close()
    assert c.stop() == 0
    assert c.text() == '', 'the log itself keeps its level'


# ------------------------------------------------------------ start and stop

@pytest.mark.parametrize('options,text', [
    (['--workers=0'], 'failed to parse workers: value must be at least 1'),
    (['--listen=x'], 'failed to parse listen: invalid TCP address or port: x'),
    (['--prometheus=80,x'], 'failed to parse prometheus: invalid param: x'),
    (['--req-maxconn=1'], 'req maxconn must be >= workers'),
])
def test_wrong_values(start, options, text):
    c = start(*options)
    assert c.proc.wait(10) == 1
    assert re.fullmatch(r'\[ERR\] [-0-9]+ [:.0-9]+ ' + re.escape(text) + '\n', c.text()), c.text()


def test_wrong_usage(start):
    c = start('--nonsense')
    assert c.proc.wait(10) == 2 and 'Usage: pushpin-connmgr' in c.text()


def test_what_cannot_be_bound_is_named(start):
    port = start.port()
    taken = socket.create_server((HOST, port))
    listen = '--listen=%s:%d,req' % (HOST, start.port())
    for option, text in [
        ('--listen=%s:%d' % (HOST, port), 'failed to bind %s:%d: ' % (HOST, port)),
        ('--zclient-req=ipc:///nonexistent/x',
         'failed to set zhttp client req specs: bind ipc:///nonexistent/x: '),
        ('--prometheus=%s:%d' % (HOST, port), 'prometheus listener: '),
        ('--debug-socket=/nonexistent/x', 'debug socket: '),
    ]:
        c = start('--zclient-stream=ipc://%s/z' % start.dir, listen, option)
        assert c.proc.wait(10) == 1
        assert re.search(r'^\[ERR\] \S+ \S+ ' + re.escape(text), c.text(), re.M), c.text()
    c = start('--listen=%s:%d' % (HOST, start.port()), '--zclient-stream=ipc:///nonexistent/x')
    assert c.proc.wait(10) == 1
    assert 'failed to set zhttp client stream specs: bind ipc:///nonexistent/x-out: ' in c.text()
    taken.close()


def test_under_its_old_name(start):
    path, port = str(start.dir / 'condure'), start.port()
    os.symlink(kit.program('pushpin-connmgr'), path)
    version = subprocess.run([path, '-V'], capture_output=True, text=True, timeout=10)
    assert version.returncode == 0 and version.stdout.startswith('condure ')
    c = start('--listen=%s:%d,stream' % (HOST, port), '--compression', '--zclient-stream=ipc://%s/c' % start.dir,
              name=path).wait('started')
    pull = zmq.Context.instance().socket(zmq.PULL)
    pull.connect('ipc://%s/c-out' % start.dir)
    conn = socket.create_connection((HOST, port), 10)
    conn.sendall(b'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
    assert pull.poll(10_000) and b'4:from,7:condure,' in pull.recv()
    conn.close()
    pull.close(0)
    assert c.stop() == 0
    assert 'stopping...' in c.text()


def test_sizes():
    out = subprocess.run([kit.program('pushpin-connmgr'), '--sizes'], capture_output=True, text=True, timeout=10)
    sizes = dict(line.removesuffix(' bytes').split(': ') for line in out.stdout.splitlines())
    sizes = {name: int(size) for name, size in sizes.items()}
    assert out.returncode == 0 and list(sizes) == [
        'server_req_connection_task', 'server_stream_connection_task', 'client_req_connection_task',
        'client_stream_connection_task', 'deflate_codec_state']
    assert 0 < sizes['server_stream_connection_task'] <= 256 and sizes['client_stream_connection_task'] > 0
    assert 0 < sizes['deflate_codec_state'] <= 104
