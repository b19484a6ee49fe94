"""HTTPS for clients through the real server: certificates by name, renewal, held streams."""

import os
import shutil
import socket
import ssl
import subprocess
import time

import pytest
from websockets.sync.client import connect as websocket

import kit
from kit import H

TLS_VERSIONS = {'1.2': ssl.TLSVersion.TLSv1_2, '1.3': ssl.TLSVersion.TLSv1_3}


def make_cert(dir, name, *hosts):
    """A self-signed pair NAME.crt, NAME.key for the hosts; what its common name is."""
    os.makedirs(dir, exist_ok=True)
    cn = '%s-%d' % (name, time.monotonic_ns())
    alt = ','.join('DNS:' + h for h in hosts or [name])
    # moved into place: a handshake in between sees the old pair or a mixed one, never half a file
    out = [os.path.join(dir, '%s.%s' % (name, kind)) for kind in ('crt', 'key')]
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
                    '-nodes', '-days', '2', '-subj', '/CN=' + cn, '-addext', 'subjectAltName=' + alt,
                    '-out', out[0] + '.new', '-keyout', out[1] + '.new'], check=True, capture_output=True)
    for path in out:
        os.rename(path + '.new', path)
    return cn


def context(version=None):
    ctx = ssl.create_default_context()
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    if version:
        ctx.minimum_version = ctx.maximum_version = TLS_VERSIONS[version]
    return ctx


def connect(srv, sni='a.test', version=None, ctx=None, timeout=8.0):
    raw = socket.create_connection((kit.HOST, srv.https_port), timeout)
    try:
        return (ctx or context(version)).wrap_socket(raw, server_hostname=sni)
    except BaseException:
        raw.close()
        raise


def common_name(srv, sni, version=None):
    """CN of the certificate that a client gets which asks for `sni`."""
    with connect(srv, sni, version) as s:
        pem = ssl.DER_cert_to_PEM_cert(s.getpeercert(binary_form=True))
    r = subprocess.run(['openssl', 'x509', '-noout', '-subject', '-nameopt', 'RFC2253'], input=pem,
                       capture_output=True, text=True, check=True)
    return r.stdout.strip().split('CN=')[1]


def ask(s, path='/', host='a.test', extra='', method='GET', body=b''):
    head = '%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n' % (method, path, host, extra)
    s.sendall(head.encode() + body)


def read_until(s, mark, timeout=10.0):
    data, deadline = b'', time.monotonic() + timeout * H.FACTOR
    while mark not in data:
        s.settimeout(max(deadline - time.monotonic(), 0.01))
        piece = s.recv(65536)
        assert piece, 'closed after %r' % data[-300:]
        data += piece
    return data


def said_once(srv, text):
    """The log, which is written a moment later, has the text, and once."""
    H.eventually(lambda: text in kit.log_of(srv, 'connmgr'), 5)
    assert kit.log_of(srv, 'connmgr').count(text) == 1


def read_all(s, timeout=10.0):
    data = b''
    s.settimeout(timeout * H.FACTOR)
    while True:
        piece = s.recv(65536)
        if not piece:
            return data
        data += piece


class Server(kit.Server):
    """With one TLS port and certificates for a few names."""

    def __init__(self, conf=None, default=True, **kw):
        self.https_port = H.free_port()
        self.names = {}
        self.wanted = ['a.test', '_.wild.test'] + ['default_%d' % self.https_port] * default
        conf = kit.merge({'runner': {'https_ports': '%s:%d' % (kit.HOST, self.https_port)}}, conf)
        super().__init__(conf=conf, **kw)

    @property
    def certs(self):
        return os.path.join(self.dir, 'runner', 'certs')

    def start(self):
        if not self.names:
            for name in self.wanted:
                self.names[name] = make_cert(self.certs, name)
        super().start()

    def stop(self):
        super().stop()
        H.release_port(self.https_port)


@pytest.fixture(scope='module')
def srv():
    s = Server()
    yield s
    s.stop()


@pytest.mark.parametrize('version', sorted(TLS_VERSIONS))
def test_certificate_by_name(srv, version):
    default = srv.names['default_%d' % srv.https_port]
    assert common_name(srv, 'a.test', version) == srv.names['a.test']
    assert common_name(srv, 'A.Test', version) == srv.names['a.test']
    assert common_name(srv, 'x.wild.test', version) == srv.names['_.wild.test']
    assert common_name(srv, 'x.y.wild.test', version) == default
    assert common_name(srv, 'b.test', version) == default
    assert common_name(srv, None, version) == default
    assert common_name(srv, '127.0.0.1', version) == default


@pytest.mark.parametrize('version', sorted(TLS_VERSIONS))
def test_request(srv, version):
    """A request arrives as https, with its body; the connection is kept."""
    ep = srv.origin.endpoint(H.R('fine'))
    with connect(srv, version=version) as s:
        for n in range(3):
            body = os.urandom(200000)
            ask(s, ep.path, host='any.test', method='POST', body=body, extra='Content-Length: %d\r\n' % len(body))
            assert b'200 OK' in read_until(s, b'fine')
            r = ep.requests[-1]
            assert r.body == body
            assert r.get('X-Forwarded-Proto') == 'https'
        assert s.version() == 'TLSv' + version


def test_large_download(srv):
    body = os.urandom(3000000)
    ep = srv.origin.endpoint(H.R(body))
    with connect(srv) as s:
        ask(s, ep.path, host='any.test', extra='Connection: close\r\n')
        head, _, got = read_all(s, 30).partition(b'\r\n\r\n')
        assert got == body, (head, len(got))


def test_regular_end_is_told(srv):
    """close_notify stands at the end of a response: nothing was cut off."""
    ep = srv.origin.endpoint(H.R('fine'))
    ctx = context()
    with connect(srv, ctx=ctx) as s:
        s.suppress_ragged_eofs = False
        ask(s, ep.path, host='any.test', extra='Connection: close\r\n')
        assert read_all(s).endswith(b'fine')


def test_held_stream(srv):
    """A stream over TLS, held and published to."""
    channel = H.unique()
    ep = srv.origin.endpoint(H.hold_stream(channel))
    with connect(srv) as s:
        ask(s, ep.path, host='any.test')
        read_until(s, b'open\n')
        for n in range(20):
            srv.publish(H.stream_item(channel, 'event %d\n' % n))
            read_until(s, b'event %d\n' % n)


def test_many_streams(srv):
    channel = H.unique()
    ep = srv.origin.endpoint(H.hold_stream(channel))
    ctx = context()
    held = []
    try:
        for _ in range(100):
            s = connect(srv, ctx=ctx)
            held.append(s)
            ask(s, ep.path, host='any.test')
            read_until(s, b'open\n')
        big = 'x' * 5000 + '\n'
        for _ in range(5):
            srv.publish(H.stream_item(channel, big))
        srv.publish(H.stream_item(channel, 'the end\n'))
        for s in held:
            data = read_until(s, b'the end\n')
            assert data.count(b'x') == 25000
    finally:
        for s in held:
            s.close()


def test_renewed_certificate(srv):
    """New files are used without a restart; a pair that does not match changes nothing and is said."""
    old = make_cert(srv.certs, 'renew.test')
    assert common_name(srv, 'renew.test') == old
    new = make_cert(srv.certs, 'renew.test')
    H.eventually(lambda: common_name(srv, 'renew.test') == new, 10)
    key = os.path.join(srv.certs, 'renew.test.key')
    with open(key) as f:
        good = f.read()
    with open(key, 'w') as f:
        f.write('broken')
    H.eventually(lambda: common_name(srv, 'renew.test') and
                 'failed to load cert renew.test' in kit.log_of(srv, 'connmgr'), 10)
    assert common_name(srv, 'renew.test') == new
    time.sleep(1.2)
    common_name(srv, 'renew.test')
    assert kit.log_of(srv, 'connmgr').count('failed to load cert renew.test') == 1
    with open(key, 'w') as f:
        f.write(good)
    newest = make_cert(srv.certs, 'renew.test')
    H.eventually(lambda: common_name(srv, 'renew.test') == newest, 10)


class Mixed(Server):
    """One name has the key of another."""

    def start(self):
        for name in self.wanted:
            self.names[name] = make_cert(self.certs, name)
        shutil.copy(os.path.join(self.certs, '_.wild.test.key'), os.path.join(self.certs, 'a.test.key'))
        super().start()


def test_a_key_of_another_certificate(started):
    """It is said at the start, with both files, and the other names are served."""
    s = Mixed()
    started.append(s)
    key, crt = (os.path.join(s.certs, 'a.test.' + kind) for kind in ('key', 'crt'))
    said = 'certificate a.test is of no use: the key %s does not belong to the certificate %s' % (key, crt)
    assert said in s.all_logs()
    assert common_name(s, 'b.wild.test') == s.names['_.wild.test']
    assert common_name(s, 'a.test') == s.names['default_%d' % s.https_port]


def test_plain_http_on_the_tls_port(srv):
    for _ in range(2):
        with socket.create_connection((kit.HOST, srv.https_port), 5) as s:
            s.sendall(b'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
            got = read_all(s)
        assert got.startswith(b'HTTP/1.0 400 Bad Request\r\n') and b'This port speaks TLS (https)' in got
    said_once(srv, 'plain HTTP on this TLS port')


def test_tls_on_the_plain_port(srv):
    hello = ssl.MemoryBIO()
    obj = context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname='a.test')
    with pytest.raises(ssl.SSLWantReadError):
        obj.do_handshake()
    with socket.create_connection((kit.HOST, srv.http_port), 5) as s:
        s.sendall(hello.read())
        got = read_all(s)
    assert got.startswith(b'HTTP/1.0 400 Bad Request\r\n') and b'This port speaks plain HTTP' in got
    said_once(srv, 'spoke TLS on a plain HTTP port')


def test_unknown_name_without_a_default(started):
    """No certificate at all: the alert says that it is the name."""
    s = Server(default=False)
    started.append(s)
    with pytest.raises(ssl.SSLError, match='(?i)unrecognized.name'):
        connect(s, 'b.test')
    assert common_name(s, 'a.test') == s.names['a.test']


def test_a_stranger_in_the_handshake(srv):
    """Junk, half a hello, silence: none of them disturbs anybody."""
    socks = []
    for junk in (b'\x16\x03\x01\x02\x00\x01', b'\x16\x03\x01\xff\xff' + bytes(5000), b'\x00' * 100, b''):
        s = socket.create_connection((kit.HOST, srv.https_port), 5)
        s.sendall(junk)
        socks.append(s)
    assert common_name(srv, 'a.test') == srv.names['a.test']
    for s in socks:
        s.close()


@pytest.mark.parametrize('topology', ['workers', 'processes'])
def test_several_workers(topology, started):
    s = Server(conf=kit.topology_conf(topology))
    started.append(s)
    channel = H.unique()
    ep = s.origin.endpoint(H.hold_stream(channel))
    ctx = context()
    held = [connect(s, ctx=ctx) for _ in range(12)]
    for h in held:
        ask(h, ep.path, host='any.test')
        read_until(h, b'open\n')
    s.publish(H.stream_item(channel, 'to all\n'))
    for h in held:
        read_until(h, b'to all\n')
        h.close()


def test_sessions_are_resumed(srv):
    ctx = context('1.2')
    with connect(srv, ctx=ctx) as s:
        session = s.session
    raw = socket.create_connection((kit.HOST, srv.https_port), 5)
    with ctx.wrap_socket(raw, server_hostname='a.test', session=session) as s:
        assert s.session_reused


def echo(q):
    """A WebSocket backend."""
    q.conn.accept_ws(q)
    while True:
        f = q.conn.recv_frame(30)
        q.conn.send_frame(f.opcode, f.payload, f.fin)
        if f.opcode == H.CLOSE:
            return H.TAKEN


@pytest.mark.parametrize('version', sorted(TLS_VERSIONS))
def test_websocket(srv, version):
    """wss: messages both ways, the closing handshake, then the end of TLS."""
    ep = srv.origin.endpoint(echo)
    url = 'wss://any.test:%d%s' % (srv.https_port, ep.path)
    raw = socket.create_connection((kit.HOST, srv.https_port), 8)
    with websocket(url, sock=raw, ssl=context(version), compression=None) as ws:
        for n in (1, 100, 5000, 100000):
            ws.send('x' * n)
            assert ws.recv(10) == 'x' * n
    assert ws.close_code == 1000
    assert ep.requests[0].get('X-Forwarded-Proto') == 'wss'


def pss(pid):
    with open('/proc/%d/smaps_rollup' % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith('Pss:')) * 1024


def test_memory_of_idle_connections(started):
    """2,000 silent TLS clients cost at most 12 KB each, and nothing once they have left."""
    count = 2000
    s = Server(conf={'runner': {'client_maxconn': '5000'}})
    started.append(s)
    pid = kit.child(s, 'pushpin-connmgr')
    ctx = context('1.3')
    ep = s.origin.endpoint(H.R('fine'))

    def crowd(n):
        made = []
        for _ in range(n):
            c = connect(s, ctx=ctx)
            ask(c, ep.path, host='any.test')
            made.append(c)
        for c in made:
            read_until(c, b'fine')
        return made

    for c in crowd(100):
        c.close()
    time.sleep(1)
    before = pss(pid)
    held = crowd(count)
    each = (pss(pid) - before) / count
    for c in held:
        c.close()
    limit = before + 0.2 * each * count
    try:
        H.eventually(lambda: pss(pid) <= limit, 10)
    finally:
        print('idle TLS connection: %d bytes; before %d, after %d' % (each, before, pss(pid)))
    assert each <= 12 * 1024, each
