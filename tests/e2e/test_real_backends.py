"""Real backends behind the server: nginx with its habits, HTTPS with an authority of its own, a
WebSocket server. PHP is in test_scenario.py, Express and Django in test_client_libraries.py."""

import contextlib
import hashlib
import os
import ssl
import subprocess
import threading

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websocket
from websockets.sync.server import serve

import kit
from kit import H

BIG = 64 << 20
NGINX = '''
daemon off;
%(user)s
worker_processes 1;
pid %(dir)s/nginx.pid;
error_log %(dir)s/error.log warn;
events { worker_connections 512; }
http {
  log_format ends '$request $status $body_bytes_sent $connection $connection_requests';
  access_log %(dir)s/access.log ends;
  client_body_temp_path %(dir)s/t1; proxy_temp_path %(dir)s/t2; fastcgi_temp_path %(dir)s/t3;
  uwsgi_temp_path %(dir)s/t4; scgi_temp_path %(dir)s/t5;
  client_max_body_size 100m;
  keepalive_timeout 60s;
  keepalive_requests 100000;
  server {
    listen 127.0.0.1:%(port)d;
    root %(dir)s/www;
    location / { }
    # dav methods take a body and answer without one
    location /upload/ { dav_methods PUT; create_full_put_path on; }
    location = /once { keepalive_timeout 0; return 200 "once\\n"; }
    location = /few { keepalive_requests 3; return 200 "few\\n"; }
    location = /reset { return 444; }
    location = /refused { client_max_body_size 1k; dav_methods PUT; }
    location /slow/ { limit_rate 20k; }
    location = /empty { return 204; }
    # compressed on the fly: chunked, and a proxy without Accept-Encoding gets it plain
    location /packed/ { gzip on; gzip_types *; gzip_min_length 1; alias %(dir)s/www/; }
    location = /ssi { ssi on; ssi_types *; rewrite ^ /part.html break; }
    location = /stream { add_header Grip-Hold stream; add_header Grip-Channel from-nginx; return 200 "open\\n"; }
  }
}
'''


class Nginx:
    def __init__(self, dir):
        self.dir, self.port = dir, H.free_port()
        os.makedirs(os.path.join(dir, 'www', 'slow'))
        os.chmod(dir, 0o755)
        self.big = os.urandom(1 << 20) * (BIG >> 20)
        for name, content in [('page', b'page\n'), ('big', self.big), ('slow/file', b's' * 400_000),
                              ('part.html', b'<!--# echo var="request_uri" -->\n')]:
            with open(os.path.join(dir, 'www', name), 'wb') as f:
                f.write(content)
        conf = os.path.join(dir, 'nginx.conf')
        user = 'user root;' if os.getuid() == 0 else ''
        with open(conf, 'w') as f:
            f.write(NGINX % {'dir': dir, 'port': self.port, 'user': user})
        self.proc = subprocess.Popen(['/usr/sbin/nginx', '-p', dir, '-c', conf], stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL, start_new_session=True)
        H.eventually(lambda: kit.listens(self.port), 10)

    def log(self):
        """(request line, status, bytes, connection, number on it) of the requests so far."""
        with open(os.path.join(self.dir, 'access.log')) as f:
            lines = [line.rsplit(' ', 4) for line in f.read().splitlines()]
        return [(request, int(status), int(size), conn, int(n)) for request, status, size, conn, n in lines]

    def stop(self):
        self.proc.terminate()
        self.proc.wait(5)
        H.release_port(self.port)


@pytest.fixture(scope='module')
def nginx(tmp_path_factory):
    n = Nginx(str(tmp_path_factory.mktemp('nginx')))
    yield n
    n.stop()


@pytest.fixture(scope='module')
def srv(nginx):
    with kit.Server(routes='* 127.0.0.1:%d\n' % nginx.port) as s:
        yield s


def lines_of(nginx, path):
    return [line for line in nginx.log() if ' %s ' % path in line[0]]


def test_connections_are_kept(nginx, srv):
    for _ in range(50):
        r = H.http(srv, 'GET', '/page')
        assert (r.status, r.body) == (200, b'page\n')
    H.eventually(lambda: len(lines_of(nginx, '/page')) == 50, 5)
    assert len({conn for _, _, _, conn, _ in lines_of(nginx, '/page')}) == 1


def test_a_connection_that_the_backend_closes(srv, nginx):
    """Announced or not, and also between two requests: no client sees it."""
    for path, body in (('/once', b'once\n'), ('/few', b'few\n')):
        for _ in range(20):
            r = H.http(srv, 'GET', path)
            assert (r.status, r.body) == (200, body)
    H.eventually(lambda: len(lines_of(nginx, '/few')) == 20, 5)
    assert len({conn for _, _, _, conn, _ in lines_of(nginx, '/few')}) >= 7


def test_many_at_once(srv):
    with kit.Crowd() as crowd:
        clients = [crowd.add(srv.http_port, '/page', extra='Connection: close\r\n') for _ in range(200)]
        crowd.wait_closed(20, clients)
        assert all(c.data.endswith(b'\r\n\r\npage\n') for c in clients)


def test_nothing_but_a_reset(srv):
    """444: nginx closes without a word, twice, as the second try is on a new connection."""
    r = H.http(srv, 'GET', '/reset', timeout=10)
    assert (r.status, r.body) == (502, b'Error while proxying to origin.\n')
    assert H.http(srv, 'GET', '/page').body == b'page\n'


def test_big_download(srv, nginx):
    with H.Http(srv.http_port, timeout=30) as c:
        c.request('GET', '/big')
        r = c.response(timeout=60)
    assert r.headers.get('Content-Length') == str(BIG)
    assert hashlib.sha256(r.body).digest() == hashlib.sha256(nginx.big).digest()


def test_big_upload(srv, nginx):
    for n, headers in enumerate([[], [('Expect', '100-continue')]]):
        with H.Http(srv.http_port, timeout=60) as c:
            c.sock.settimeout(60)
            c.request('PUT', '/upload/%d' % n, headers, body=nginx.big)
            r = c.read_head(60)
            while r.status == 100:
                r = c.read_head(60)
            c.read_body(r)
        assert r.status in (201, 204)
        with open(os.path.join(nginx.dir, 'www', 'upload', str(n)), 'rb') as f:
            assert hashlib.sha256(f.read()).digest() == hashlib.sha256(nginx.big).digest()


def test_chunked_upload(srv, nginx):
    with H.Http(srv.http_port) as c:
        c.request('PUT', '/upload/chunked', [('Transfer-Encoding', 'chunked')])
        for _ in range(300):
            c.send(b'3e8\r\n' + b'c' * 1000 + b'\r\n')
        c.send(b'0\r\n\r\n')
        assert c.response(timeout=15).status in (201, 204)
    assert os.path.getsize(os.path.join(nginx.dir, 'www', 'upload', 'chunked')) == 300_000


def test_chunked_answers(srv):
    """Of a length that nginx does not know, and content that it would compress if asked."""
    assert H.http(srv, 'GET', '/ssi').body == b'/ssi\n'
    r = H.http(srv, 'GET', '/packed/page', [('Accept-Encoding', 'gzip')])
    assert r.body == b'page\n' and not r.headers.has('Content-Encoding')
    assert H.http(srv, 'GET', '/empty').status == 204
    assert H.http(srv, 'HEAD', '/page').headers.get('Content-Length') == '5'
    r = H.http(srv, 'GET', '/page', [('Range', 'bytes=1-2')])
    assert (r.status, r.body) == (206, b'ag')


def test_an_answer_before_the_request_is_whole(srv):
    """nginx refuses a body by its announced length and closes: the client gets the 413."""
    with H.Http(srv.http_port) as c:
        c.request('PUT', '/refused', [('Content-Length', '50000000')])
        try:
            for _ in range(50):
                c.send(b'x' * 100_000)
        except OSError:
            pass
        assert c.read_head(10).status == 413
    assert H.http(srv, 'GET', '/page').body == b'page\n'


def test_a_client_that_leaves(srv, nginx):
    """The backend's work ends with it: nginx notes 499 or a body that was cut."""
    with H.Http(srv.http_port) as c:
        c.request('GET', '/slow/file')
        c.read_head(10)
    H.eventually(lambda: lines_of(nginx, '/slow/file'), 10)
    assert lines_of(nginx, '/slow/file')[0][2] < 400_000


def test_hold_by_headers_of_nginx(srv):
    with H.Http(srv.http_port) as c:
        c.request('GET', '/stream')
        c.read_head()
        assert c.stream(b'open\n') == b'open\n'
        srv.wait_sub('from-nginx')
        srv.publish(H.stream_item('from-nginx', 'pushed\n'))
        assert c.stream(b'pushed\n') == b'pushed\n'


# ------------------------------------------------------------------------ TLS

class Authority:
    """Certificates of an authority of our own, as files."""

    def __init__(self, dir):
        self.dir = dir
        self.run('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days',
                 '2', '-subj', '/CN=ca', '-out', self.path('ca.crt'), '-keyout', self.path('ca.key'))

    def path(self, name):
        return os.path.join(self.dir, name)

    def run(self, *args):
        subprocess.run(['openssl', *args], check=True, capture_output=True)

    def issue(self, name, use):
        """NAME.crt and NAME.key for the host NAME."""
        with open(self.path('ext'), 'w') as f:
            f.write('subjectAltName=DNS:%s\nextendedKeyUsage=%s\n' % (name, use))
        self.run('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj',
                 '/CN=' + name, '-out', self.path('csr'), '-keyout', self.path(name + '.key'))
        self.run('x509', '-req', '-in', self.path('csr'), '-CA', self.path('ca.crt'), '-CAkey',
                 self.path('ca.key'), '-CAcreateserial', '-days', '2', '-extfile', self.path('ext'), '-out',
                 self.path(name + '.crt'))
        return self.path(name + '.crt'), self.path(name + '.key')


class Tls:
    """HTTPS on a port of its own; answers with the name that was asked for and the client's."""

    def __init__(self, pair, authority, client_needed):
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path('ca.crt'))
        self.context.load_cert_chain(*pair)
        if client_needed:
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.sni_callback = lambda sock, name, _: setattr(sock, 'sni', name)
        self.plain = H.Origin()
        serve_one = self.plain._serve

        def serve(sock):
            try:
                sock = self.context.wrap_socket(sock, server_side=True)
            except OSError:
                return sock.close()
            serve_one(sock)
        self.plain._serve = serve
        self.plain.endpoint(self.answer, '/')
        self.port = self.plain.port

    def answer(self, q):
        sock = q.conn.sock
        cert = sock.getpeercert()
        client = dict(pair[0] for pair in cert['subject'])['commonName'] if cert else '-'
        body = '%s %s %s' % (getattr(sock, 'sni', None), q.get('Host'), client)
        return H.R(body if q.target == '/' else q.body)

    def stop(self):
        self.plain.stop()


@pytest.fixture(scope='module')
def tls(tmp_path_factory):
    """Backends over TLS, one of which wants a client certificate, and the server in front."""
    authority = Authority(str(tmp_path_factory.mktemp('ca')))
    pair = authority.issue('backend.test', 'serverAuth')
    authority.issue('proxy.test', 'clientAuth')
    backend, strict = Tls(pair, authority, False), Tls(pair, authority, True)
    own = 'client_cert=%s,client_key=%s' % (authority.path('proxy.test.crt'), authority.path('proxy.test.key'))
    at = '127.0.0.1:%d,ssl'
    routes = ''.join('%s.test %s\n' % (name, (at + options) % port) for name, port, options in [
        ('good', backend.port, ',host=backend.test'),
        ('wrong', backend.port, ',host=other.test'),
        ('insecure', backend.port, ',host=other.test,insecure'),
        ('connect', backend.port, ',host=backend.test,trust_connect_host'),
        ('own', strict.port, ',host=backend.test,' + own),
        ('none', strict.port, ',host=backend.test')])
    fall_back = 'both.test 127.0.0.1:%d,ssl,host=other.test 127.0.0.1:%d,ssl,host=backend.test\n'
    routes += fall_back % (backend.port, backend.port)
    # The system's store is replaced for this server by one with our authority alone.
    with kit.Server(routes=routes, env={'SSL_CERT_FILE': authority.path('ca.crt')}) as s:
        yield s
    backend.stop()
    strict.stop()


def test_tls_with_an_own_authority(tls):
    for _ in range(3):
        r = H.http(tls, 'GET', '/', host='good.test')
        assert (r.status, r.body) == (200, b'backend.test backend.test -')


@pytest.mark.parametrize('host', ['wrong.test', 'none.test', 'connect.test'])
def test_tls_that_is_refused(tls, host):
    """A wrong name; no certificate where one is asked for; the address instead of the name."""
    r = H.http(tls, 'GET', '/', host=host, timeout=15)
    assert (r.status, r.body) == (502, b'Error while proxying to origin.\n')


def test_tls_insecure(tls):
    r = H.http(tls, 'GET', '/', host='insecure.test')
    assert (r.status, r.body) == (200, b'other.test other.test -')


def test_tls_client_certificate(tls):
    r = H.http(tls, 'GET', '/', host='own.test')
    assert (r.status, r.body) == (200, b'backend.test backend.test proxy.test')


def test_tls_fall_back_to_the_next_target(tls):
    assert H.http(tls, 'GET', '/', host='both.test', timeout=15).body == b'backend.test backend.test -'


def test_tls_bodies(tls):
    body = os.urandom(2_000_000)
    r = H.http(tls, 'POST', '/echo', host='good.test', body=body, timeout=20)
    assert r.status == 200 and r.body == body


# ------------------------------------------------------------------ WebSockets

class Sockets:
    """The server of the `websockets` library, which takes the grip extension if asked by path."""

    def __init__(self):
        def offer(ws, request, response):
            asked = request.headers.get('Sec-WebSocket-Extensions', '')
            if request.path.startswith('/grip') and 'grip' in asked:
                response.headers['Sec-WebSocket-Extensions'] = 'grip'
            return response
        # The library negotiates only extensions that it knows, and leaves this header alone.
        self.server = serve(self.talk, H.HOST, 0, process_response=offer, compression=None)
        self.port = self.server.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @staticmethod
    def talk(ws):
        path = ws.request.path
        mark = 'm:' if path.startswith('/grip') else ''
        if mark:
            channel = path.rpartition('/')[2]
            ws.send('c:{"type": "subscribe", "channel": "%s"}' % channel)
        for message in ws:
            if message == 'close':
                return ws.close(4002, 'as you wish')
            if isinstance(message, bytes):
                ws.send(mark.encode() + message)
            else:
                ws.send(mark + message)

    def stop(self):
        self.server.shutdown()
        self.thread.join(5)


@pytest.fixture(scope='module')
def sockets():
    backend = Sockets()
    with kit.Server(routes='* 127.0.0.1:%d\n' % backend.port) as s:
        s.backend = backend
        yield s
    backend.stop()


def client(srv, path, **kw):
    return websocket('ws://%s:%d%s' % (H.HOST, srv.http_port, path), max_size=None, **kw)


@pytest.mark.parametrize('path', ['/plain', '/grip/some'])
def test_websocket_messages(sockets, path):
    big = os.urandom(1_000_000)
    with client(sockets, path) as ws:
        for message in ('text', 'ö' * 70_000, b'\x00\xff', big, ''):
            ws.send(message)
            assert ws.recv(20) == message
        # In pieces, which arrive as one message.
        ws.send(['a', 'b', 'c'])
        assert ws.recv(10) == 'abc'
        assert ws.ping().wait(10)
    assert ws.close_code == 1000


def test_websocket_published_to(sockets):
    channel = H.unique('ws')
    with client(sockets, '/grip/' + channel) as one, client(sockets, '/grip/' + channel) as two:
        sockets.wait_sub(channel, 'ws')
        one.send('both are subscribed')
        two.send('both are subscribed')
        assert one.recv(10) == two.recv(10) == 'both are subscribed'
        sockets.publish(H.ws_item(channel, 'to all'))
        assert one.recv(10) == two.recv(10) == 'to all'


def test_websocket_closed_by_the_backend(sockets):
    for path in ('/plain', '/grip/other'):
        with client(sockets, path) as ws:
            ws.send('close')
            with pytest.raises(ConnectionClosed):
                ws.recv(10)
            assert (ws.close_code, ws.close_reason) == (4002, 'as you wish')


def test_many_websockets(sockets):
    channel = H.unique('ws')
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(client(sockets, '/grip/' + channel)) for _ in range(100)]
        for ws in held:
            ws.send('here')
            assert ws.recv(10) == 'here'
        sockets.publish(H.ws_item(channel, 'to all'))
        assert [ws.recv(10) for ws in held] == ['to all'] * 100
