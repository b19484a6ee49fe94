"""The connection manager's client mode, asked for requests by the test itself: what is asked of
backends, and what becomes of it."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading

import pytest
from websockets.sync.server import serve

from kit import H
from requester import OK, Authority, Backend, Requester


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp('ca'))


@pytest.fixture(params=[1, 4], ids=['one-worker', 'four-workers'])
def asks(request, authority):
    r = Requester(workers=request.param, env={'SSL_CERT_FILE': authority.ca})
    yield r
    r.stop()


@pytest.fixture
def strict():
    r = Requester('--deny-out-internal')
    yield r
    r.stop()


def test_get(asks):
    b = Backend(OK)
    asks.ask(b.url(), headers=[['X-One', '1']])
    head, body = asks.whole()
    assert (head['code'], head['reason'], body) == (200, b'Fine', b'hello')
    assert b.got.startswith(b'GET /p?q=1 HTTP/1.1\r\n') and b'X-One: 1\r\n' in b.got


def test_responses_by_pub(authority):
    r = Requester(router=False)
    try:
        r.ask(Backend(OK).url())
        assert r.whole()[1] == b'hello'
    finally:
        r.stop()


def test_what_becomes_of_a_connection_is_said_at_debug_level():
    """In the words that readers of such logs know."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        r = Requester(level=3)
        try:
            port = listener.getsockname()[1]
            for n in range(2):
                r.ask('http://127.0.0.1:%d/' % port)
                if n == 0:
                    conn = listener.accept()[0]
                while not conn.recv(65536).endswith(b'\r\n\r\n'):
                    pass
                conn.sendall(OK)
                assert r.whole()[1] == b'hello'
            conn.close()
            where = '127.0.0.1:%d' % port
            both = '%s for %s' % (where, where)
            for said in ('resolving: [127.0.0.1]', 'connecting to one of [127.0.0.1]', 'connected to ' + both,
                         'leaving connection intact: ' + both, 'reusing connection to ' + both):
                line = r'\] client-conn 0-0-[0-9a-f]+: ' + re.escape(said) + '\n'
                H.eventually(lambda: re.search(line, pathlib.Path(r.log).read_text()), 5)
            # One that comes to nothing.
            listener.close()
            r.ask('http://127.0.0.1:%d/' % port)
            assert r.error() == 'remote-connection-failed'
            line = r'client-conn 0-\d+-[0-9a-f]+: connecting to %s: Connection refused' % both
            H.eventually(lambda: re.search(line, pathlib.Path(r.log).read_text()), 5)
        finally:
            r.stop()


def test_body_in_several_packets(asks):
    b = Backend(OK, until=b'0\r\n\r\n')
    asks.ask(b.url(), 'POST', body=b'', more=True)
    # The body needs credits; they come once the request is on its way.
    while H.text(asks.receive().get('type')) != 'credit':
        pass
    asks.send(body=b'one', more=True)
    asks.send(body=b'two')
    assert asks.whole()[1] == b'hello'
    assert b'one' in b.got and b'two' in b.got and b'Transfer-Encoding: chunked' in b.got


def test_body_waits_for_credits(asks):
    big = b'x' * 300000
    b = Backend(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(big) + big)
    asks.ask(b.url(), credits=1000)
    got = len(asks.take().get('body', b''))
    while got < 1000:
        got += len(asks.take()['body'])
    assert got == 1000 and asks.is_quiet(200)
    asks.send(type='credit', credits=len(big))
    assert len(asks.whole()[1]) == len(big) - 1000


def test_refused(asks):
    # Bound without listening: nobody else gets the port meanwhile.
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        asks.ask('http://127.0.0.1:%d/' % closed.getsockname()[1])
        assert asks.error() == 'remote-connection-failed'


def test_bad_uri(asks):
    asks.ask('gopher://127.0.0.1/')
    assert asks.error() == 'bad-request'


def test_internal_addresses_are_denied(strict):
    b = Backend(OK)
    for host in ('127.0.0.1', 'localhost', '2130706433', '0x7f.1', '[::ffff:127.0.0.1]', '0.0.0.0'):
        strict.ask(b.url(host=host))
        assert strict.error() == 'policy-violation', host
    strict.ask('http://example.com/', connect_host='127.0.0.1', connect_port=b.port)
    assert strict.error() == 'policy-violation'
    assert b.got == b''
    strict.ask(b.url(), ignore_policies=True)
    assert strict.whole()[1] == b'hello'


def test_what_is_denied_is_said_at_the_start():
    r = Requester('--deny-out-internal', level=3)
    try:
        line = r'\[DEBUG\] .* default policy: block outgoing connections to \[127\.0\.0\.0/8, 10\..*fe80::/10\]'
        assert re.search(line, r.logged())
    finally:
        r.stop()


def test_redirects_to_internal_addresses_are_denied():
    own_user = [] if os.geteuid() == 0 else ['--user', '--map-root-user']
    script = os.path.join(os.path.dirname(__file__), 'outside_hop.py')
    done = subprocess.run(['unshare', *own_user, '--net', sys.executable, script], stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {'errors': ['policy-violation'] * 4, 'asked_inside': 0, 'outside': 'hello',
                                       'policies_ignored': 'hello'}


HEADERS_65 = b''.join(b'A-%d: b\r\n' % n for n in range(65))

# What the backend says before it closes, and what that is for whoever asked.
ODD_ANSWERS = [
    ('http', b''),
    ('http', b'HTTP/1.1 200'),
    ('http', b'nonsense\r\n\r\n'),
    ('http', b'HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n'),
    ('http', b'HTTP/1.1 200 OK\r\n' + HEADERS_65 + b'\r\n'),
    ('http', b'HTTP/1.1 200 OK\r\nA: ' + b'x' * 100_000),
    ('ws', b'HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n'),
]


def req_error(r, **packet):
    r.req.send(b'T' + H.tnet_dumps(dict({'id': b'q', 'method': 'GET', 'headers': []}, **packet)))
    p = H.tnet_loads(r.req.recv()[1:])
    assert (H.text(p['type']), p['id']) == ('error', b'q')
    return H.text(p['condition'])


@pytest.mark.parametrize('scheme,answer', ODD_ANSWERS, ids=range(len(ODD_ANSWERS)))
def test_answers_that_are_none(asks, scheme, answer):
    b = Backend(answer)
    asks.ask(b.url(scheme), method='GET' if scheme == 'http' else '')
    assert asks.error() == 'undefined-condition'
    if scheme == 'http':
        assert req_error(asks, uri=b.url()) == 'undefined-condition'


def test_an_answer_that_breaks_off_is_cancelled(asks):
    b = Backend(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc')
    asks.ask(b.url())
    types = []
    while not types or 'more' in p:
        p = asks.take()
        types.append(H.text(p.get('type', b'data')))
    assert types[0] == 'data' and types[-1] == 'cancel'
    # In req mode nothing has been said yet.
    assert req_error(asks, uri=b.url()) == 'undefined-condition'


def test_requests_that_cannot_be_made(asks):
    many = [['A', 'b']] * 64
    for packet in ({'uri': 'http://'}, {'uri': '/p'}, {'uri': 'ftp://h/'}, {'uri': 'http://h/', 'method': ''},
                   {'uri': 'http://h/', 'headers': many}):
        asks.ask(**packet)
        assert asks.error() == 'bad-request', packet
        assert req_error(asks, **packet) == 'bad-request', packet
    assert req_error(asks, uri='ws://h/') == 'bad-request'
    assert req_error(asks, uri='http://h/', type='cancel') == 'bad-request'
    assert req_error(asks, uri='http://h/', body=b'x' * 100_001) == 'undefined-condition'


def test_names_that_are_none(asks):
    for host in ('x' * 64 + '.test', 'a..b'):
        asks.ask('http://%s/' % host)
        assert asks.error() == 'undefined-condition', host


def test_time_is_over():
    r = Requester('--stream-timeout=1', '--req-timeout=1')
    try:
        b = Backend(OK, waits=True)
        r.ask(b.url())
        assert r.error() == 'connection-timeout'
        assert req_error(r, uri=b.url()) == 'connection-timeout'
    finally:
        r.stop()


def test_redirect(asks):
    b = Backend(OK)
    r = Backend(b'HTTP/1.1 302 F\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n' % b.url().encode())
    asks.ask(r.url(), follow_redirects=True, headers=[['Authorization', 'x'], ['X-One', '1']])
    assert asks.whole()[1] == b'hello'
    assert b'X-One' in b.got and b'Authorization' not in b.got
    loop = Backend(b'HTTP/1.1 302 F\r\nContent-Length: 0\r\nLocation: /p?q=1\r\nConnection: close\r\n\r\n')
    asks.ask(loop.url(), follow_redirects=True)
    assert asks.error() == 'too-many-redirects'
    assert loop.asked == 9


def test_connect_host(asks):
    b = Backend(OK)
    asks.ask('http://backend.invalid/x', connect_host='127.0.0.1', connect_port=b.port)
    assert asks.whole()[1] == b'hello'
    assert b'\r\nHost: backend.invalid\r\n' in b.got
    # Without a port there is none to connect to.
    asks.ask(b.url(), connect_host='127.0.0.1')
    assert asks.error() in ('remote-connection-failed', 'undefined-condition')
    asks.ask('http://backend.invalid/')
    assert asks.error() == 'undefined-condition'


# ------------------------------------------------------------------------- TLS

def test_tls_certificate_is_checked(asks, tmp_path):
    b = Backend(OK, tls=Authority(tmp_path).server('localhost'))
    # IPv6 of the name, where nobody listens, must not hide what was wrong.
    asks.ask(b.url('https', 'localhost'))
    assert asks.error() == 'tls-error'
    asks.ask(b.url('https', 'localhost'), ignore_tls_errors=True)
    assert asks.whole()[1] == b'hello'


def test_tls_name_is_checked(asks, authority):
    b = Backend(OK, tls=authority.server('front.example'))
    asks.ask(b.url('https', 'localhost'))
    assert asks.error() == 'tls-error'
    here = {'connect_host': '127.0.0.1', 'connect_port': b.port}
    asks.ask('https://front.example/', **here)
    assert asks.whole()[1] == b'hello'
    asks.ask('https://other.example/', **here)
    assert asks.error() == 'tls-error'


def test_connect_host_is_trusted(asks, authority):
    b = Backend(OK, tls=authority.server('localhost'))
    here = {'connect_host': 'localhost', 'connect_port': b.port}
    asks.ask('https://other.example/', **here)
    assert asks.error() == 'tls-error'
    asks.ask('https://other.example/', trust_connect_host=True, **here)
    assert asks.whole()[1] == b'hello'
    assert b'\r\nHost: other.example\r\n' in b.got


def test_client_certificate(asks, authority, tmp_path):
    b = Backend(OK, tls=authority.server('localhost', clients=authority))
    asks.ask(b.url('https', 'localhost'))
    assert asks.error() == 'tls-error'
    stranger = Authority(tmp_path, 'stranger').client('somebody')
    asks.ask(b.url('https', 'localhost'), **stranger)
    assert asks.error() == 'tls-error'
    assert b.got == b''
    asks.ask(b.url('https', 'localhost'), **authority.client('somebody'))
    assert asks.whole()[1] == b'hello'
    asks.ask(b.url('https', 'localhost'), client_cert=b'no certificate', client_key=b'no key')
    assert asks.error() == 'tls-error'


# ------------------------------------------------------------------ WebSockets

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


def test_websocket_rejected(asks):
    b = Backend(b'HTTP/1.1 403 No\r\nContent-Length: 3\r\nX-A: b\r\n\r\nwhy')
    asks.ask(b.url('ws'), method='')
    p = asks.take()
    assert (H.text(p['type']), H.text(p['condition'])) == ('error', 'rejected')
    assert (p['code'], p['reason'], p['body']) == (403, b'No', b'why')
    assert [b'X-A', b'b'] in p['headers']
    assert b'\r\nUpgrade: websocket\r\n' in b.got
    big = Backend(b'HTTP/1.1 403 No\r\nContent-Length: 9000\r\n\r\n' + b'x' * 9000)
    asks.ask(big.url('ws'), method='')
    assert asks.error() == 'rejection-too-large'


def test_websocket_redirected(asks):
    b = Backend(b'HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nwhy')
    r = Backend(b'HTTP/1.1 302 F\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n' % b.url().encode())
    asks.ask(r.url('ws'), method='', follow_redirects=True)
    assert asks.take()['body'] == b'why' and b.asked == 1


# -------------------------------------------------------------------- req mode

def test_req_mode(asks):
    b = Backend(OK)
    asks.req.send(b'T' + H.tnet_dumps({'id': b'x', 'method': 'GET', 'uri': b.url(), 'headers': []}))
    p = H.tnet_loads(asks.req.recv()[1:])
    assert (p['id'], p['code'], p['body']) == (b'x', 200, b'hello')
    asks.req.send(b'T' + H.tnet_dumps({'id': b'y', 'method': 'GET', 'uri': 'x:', 'headers': []}))
    assert H.text(H.tnet_loads(asks.req.recv()[1:])['condition']) == 'bad-request'
