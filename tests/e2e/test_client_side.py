"""The connection manager's client mode, asked for requests by the test itself."""

import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

import pytest
import zmq
from websockets.sync.server import serve

import kit
from kit import H


class Requester:
    """A connection manager in client mode, and the sockets of a process that uses it."""

    def __init__(self, *args):
        self.dir = tempfile.mkdtemp(prefix='pcl')
        base = 'ipc://%s/c' % self.dir
        self.proc = subprocess.Popen([kit.program('pushpin-connmgr'), '--log-level=2', '--zserver-stream=' + base,
                                      '--zserver-req=%s-req' % base, *args])
        self.context = zmq.Context()
        self.push = self.socket(zmq.PUSH, base + '-in')
        self.next = self.socket(zmq.DEALER, base + '-in-stream', b'me')
        self.sub = self.socket(zmq.SUB, base + '-out')
        self.req = self.socket(zmq.REQ, base + '-req')
        self.count = 0
        H.eventually(self.is_known, 10)

    def is_known(self):
        """Whether an answer comes by the DEALER: both of its ends are up."""
        self.count += 1
        self.id, self.seq = b'r%d' % self.count, 0
        self.push.send(self.packet({'uri': 'x:', 'method': 'GET', 'stream': True, 'router-resp': True}))
        return self.acknowledged(300) and self.error() == 'bad-request'

    def acknowledged(self, limit):
        if not self.next.poll(limit):
            return False
        m = self.next.recv_multipart()[-1]
        assert H.text(H.tnet_loads(m[m.index(b'T') + 1:])['type']) == 'keep-alive'
        return True

    def socket(self, kind, spec, identity=None):
        s = self.context.socket(kind)
        s.setsockopt(zmq.LINGER, 0)
        s.setsockopt(zmq.RCVTIMEO, 8000)
        if identity:
            s.setsockopt(zmq.IDENTITY, identity)
        if kind == zmq.SUB:
            s.setsockopt(zmq.SUBSCRIBE, b'me ')
        s.connect(spec)
        return s

    def ask(self, uri, method='GET', **kw):
        """Sends a first packet."""
        self.count += 1
        self.id, self.seq = b'r%d' % self.count, 0
        p = {'uri': uri, 'method': method, 'headers': [], 'stream': True, 'credits': 100000, 'router-resp': True}
        p.update({k.replace('_', '-'): v for k, v in kw.items()})
        self.push.send(self.packet(p))
        # Later packets go another way: none before the first one is acknowledged.
        self.acknowledged(8000)

    def packet(self, p):
        p = dict({'from': b'me', 'id': self.id, 'seq': self.seq}, **p)
        self.seq += 1
        return b'T' + H.tnet_dumps(p)

    def send(self, **kw):
        self.next.send_multipart([b'', self.packet({k.replace('_', '-'): v for k, v in kw.items()})])

    def take(self):
        """The next packet that is not about the flow alone."""
        while True:
            m = self.next.recv_multipart()[-1]
            p = H.tnet_loads(m[m.index(b'T') + 1:])
            if H.text(p.get('type')) not in ('keep-alive', 'credit'):
                return p

    def error(self):
        p = self.take()
        assert H.text(p['type']) == 'error', p
        return H.text(p['condition'])

    def whole(self):
        head = p = self.take()
        body = p.get('body', b'')
        while p.get('more'):
            p = self.take()
            body += p.get('body', b'')
        return head, body

    def stop(self):
        self.context.destroy(0)
        self.proc.terminate()
        code = self.proc.wait(8)
        shutil.rmtree(self.dir)
        assert code == 0


@pytest.fixture
def asks():
    r = Requester()
    yield r
    r.stop()


@pytest.fixture
def strict():
    r = Requester('--deny-out-internal')
    yield r
    r.stop()


class Backend:
    """Answers each connection with the same bytes once the request holds `until`."""

    def __init__(self, answer, until=b'\r\n\r\n', tls=None):
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.answer, self.until, self.tls, self.got = answer, until, tls, b''
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                c, _ = self.listener.accept()
                c.settimeout(8)
                c = self.tls.wrap_socket(c, server_side=True) if self.tls else c
                self.got = b''
                while self.until not in self.got:
                    data = c.recv(65536)
                    if not data:
                        break
                    self.got += data
                c.sendall(self.answer)
                c.close()
            except ssl.SSLError:
                continue
            except OSError:
                return

    def url(self, scheme='http', host='127.0.0.1'):
        return '%s://%s:%d/p?q=1' % (scheme, host, self.port)


OK = b'HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello'


def test_get(asks):
    b = Backend(OK)
    asks.ask(b.url(), headers=[['X-One', '1']])
    head, body = asks.whole()
    assert (head['code'], head['reason'], body) == (200, b'Fine', b'hello')
    assert b.got.startswith(b'GET /p?q=1 HTTP/1.1\r\n') and b'X-One: 1\r\n' in b.got


def test_body_in_several_packets(asks):
    b = Backend(OK, until=b'0\r\n\r\n')
    asks.ask(b.url(), 'POST', body=b'', more=True)
    asks.send(body=b'one', more=True)
    asks.send(body=b'two')
    assert asks.whole()[1] == b'hello'
    assert b'one' in b.got and b'two' in b.got and b'Transfer-Encoding: chunked' in b.got


def test_refused(asks):
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = s.getsockname()[1]
    asks.ask('http://127.0.0.1:%d/' % port)
    assert asks.error() == 'remote-connection-failed'


def test_bad_uri(asks):
    asks.ask('gopher://127.0.0.1/')
    assert asks.error() == 'bad-request'


def test_internal_addresses_are_denied(strict):
    b = Backend(OK)
    for host in ('127.0.0.1', 'localhost', '2130706433', '0x7f.1', '[::ffff:127.0.0.1]', '0.0.0.0'):
        strict.ask(b.url(host=host))
        assert strict.error() == 'policy-violation', host
    assert b.got == b''
    strict.ask(b.url(), ignore_policies=True)
    assert strict.whole()[1] == b'hello'


def test_redirect(asks):
    b = Backend(OK)
    r = Backend(b'HTTP/1.1 302 F\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n' % b.url().encode())
    asks.ask(r.url(), follow_redirects=True, headers=[['Authorization', 'x'], ['X-One', '1']])
    assert asks.whole()[1] == b'hello'
    assert b'X-One' in b.got and b'Authorization' not in b.got
    loop = Backend(b'HTTP/1.1 302 F\r\nContent-Length: 0\r\nLocation: /p?q=1\r\nConnection: close\r\n\r\n')
    asks.ask(loop.url(), follow_redirects=True)
    assert asks.error() == 'too-many-redirects'


def test_tls_certificate_is_checked(asks, tmp_path):
    cert = str(tmp_path / 'c.pem')
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
                    '-keyout', cert + '.key', '-out', cert, '-subj', '/CN=localhost'], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, cert + '.key')
    b = Backend(OK, tls=tls)
    # IPv6 of the name, where nobody listens, must not hide what was wrong.
    asks.ask(b.url('https', 'localhost'))
    assert asks.error() == 'tls-error'
    asks.ask(b.url('https', 'localhost'), ignore_tls_errors=True)
    assert asks.whole()[1] == b'hello'


def test_websocket(asks):
    def echo(ws):
        for m in ws:
            ws.send(m)
    with serve(echo, '127.0.0.1', 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asks.ask('ws://127.0.0.1:%d/' % server.socket.getsockname()[1])
        assert asks.take()['code'] == 101
        asks.send(body=b'he', content_type='text', more=True)
        asks.send(body=b'llo', content_type='text')
        head, body = asks.whole()
        assert (H.text(head['content-type']), body) == ('text', b'hello')
        asks.send(type='close', code=1000)
        p = asks.take()
        assert (H.text(p['type']), p['code']) == ('close', 1000)
        server.shutdown()


def test_req_mode(asks):
    b = Backend(OK)
    asks.req.send(b'T' + H.tnet_dumps({'id': b'x', 'method': 'GET', 'uri': b.url(), 'headers': []}))
    p = H.tnet_loads(asks.req.recv()[1:])
    assert (p['id'], p['code'], p['body']) == (b'x', 200, b'hello')
    asks.req.send(b'T' + H.tnet_dumps({'id': b'y', 'method': 'GET', 'uri': 'x:', 'headers': []}))
    assert H.text(H.tnet_loads(asks.req.recv()[1:])['condition']) == 'bad-request'
