"""The GRIP libraries of npm and PyPI end to end: applications under Express (serve-grip) and Django
(django-grip, gripcontrol) behind the server, which hold, publish and talk over WebSockets."""

import os
import threading

import gripcontrol
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websocket

import kit
from kit import H

KEY = 'a-key-that-server-and-application-share'
APPS = ['express.mjs', 'django_app.py']


@pytest.fixture(scope='module', params=APPS)
def srv(request, tmp_path_factory):
    """The server with an application behind it, which needs the server's port for publishing."""
    with kit.Server(conf={'proxy': {'sig_key': KEY}}) as s:
        app = kit.App(str(tmp_path_factory.mktemp('app')), request.param, s.ctl_port, KEY)
        addr = '%s:%d' % (H.HOST, app.port)
        s.write_routes('*,proto=ws %s,over_http\n* %s\n' % (addr, addr))
        s.app = app
        H.eventually(lambda: H.http(s, 'GET', '/plain').status == 200, 10, 0.1)
        yield s
        app.stop()


@pytest.fixture
def channel():
    return H.unique('lib')


def publish(srv, channel, text):
    """Through the server to the application, which publishes with its library."""
    r = H.http(srv, 'POST', '/publish/' + channel, [('Content-Type', 'text/plain')], body=text)
    assert (r.status, r.body) == (200, b'published\n'), open(srv.app.log_file).read()


def test_the_library_knows_the_proxy(srv):
    assert H.http(srv, 'GET', '/plain').json() == {'proxied': True, 'signed': True}
    # Neither without the server, nor with a signature by somebody else.
    for headers in ([], [('Grip-Sig', 'forged')]):
        r = H.http(srv, 'GET', '/plain', headers, port=srv.app.port)
        assert r.json()['signed'] is False


def test_stream(srv, channel):
    with H.Http(srv.http_port) as c:
        c.request('GET', '/stream/' + channel)
        r = c.read_head()
        assert r.status == 200 and not [n for n in r.headers.names() if n.lower().startswith('grip-')]
        assert c.stream(b'open\n') == b'open\n'
        srv.wait_sub(channel)
        publish(srv, channel, 'first\n')
        assert b'first\n' in c.stream(b'first\n')
        publish(srv, channel, 'second\n')
        assert b'second\n' in c.stream(b'second\n')


def test_keep_alive_of_the_library(srv, channel):
    with H.Http(srv.http_port) as c:
        c.request('GET', '/stream/' + channel)
        c.read_head()
        assert c.stream(b'ping\n', timeout=10) == b'open\nping\n'


def test_many_streams_one_publish(srv, channel):
    with kit.Crowd() as crowd:
        held = crowd.open_many(200, srv.http_port, '/stream/' + channel, until=b'open\n', pending=16)
        srv.wait_sub(channel)
        publish(srv, channel, 'to all\n')
        crowd.wait_text(b'to all\n', 15, held)


def test_long_poll(srv, channel):
    with H.Http(srv.http_port) as c:
        for text in ('one', 'two'):
            c.request('GET', '/poll/' + channel)
            srv.wait_sub(channel, 'response', timeout=0.5)
            # The subscription lingers after the first answer, so its stats say nothing of the second.
            H.eventually(lambda: published_and_answered(srv, c, channel, text), 10, 0)


def published_and_answered(srv, c, channel, text):
    publish(srv, channel, text)
    try:
        return c.response(timeout=1).body == text.encode()
    except TimeoutError:
        return False


def test_long_poll_times_out(srv, channel):
    with H.Http(srv.http_port) as c:
        c.request('GET', '/poll/%s?timeout=1' % channel)
        r = c.response(timeout=10)
        assert (r.status, r.body) == (200, b'nothing\n')


def test_websocket_over_http(srv, channel):
    with websocket('ws://%s:%d/ws/%s' % (H.HOST, srv.http_port, channel)) as ws:
        for n in range(1, 4):
            ws.send('message %d' % n)
            assert ws.recv(10) == '%d: message %d' % (n, n)
        srv.wait_sub(channel, 'ws')
        publish(srv, channel, 'to the socket')
        assert ws.recv(10) == 'to the socket'
    # The libraries answer a close without a code.
    assert ws.close_code in (1000, 1005)


def test_websocket_that_the_application_closes(srv, channel):
    with websocket('ws://%s:%d/ws/%s' % (H.HOST, srv.http_port, channel)) as ws:
        ws.send('bye')
        with pytest.raises(ConnectionClosed):
            ws.recv(10)
        assert ws.close_code == 4001


def test_many_websockets_at_once(srv, channel):
    failed = []

    def one(n):
        try:
            with websocket('ws://%s:%d/ws/%s' % (H.HOST, srv.http_port, channel), open_timeout=30) as ws:
                ws.send('hello')
                assert ws.recv(30) == '1: hello'
        except Exception as cause:
            failed.append((n, cause))
    threads = [threading.Thread(target=one, args=(n,)) for n in range(40)]
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert not failed


def test_body_and_chunks(srv):
    body = os.urandom(3_000_000)
    r = H.http(srv, 'POST', '/echo', [('Content-Type', 'application/octet-stream')], body=body, timeout=30)
    assert r.status == 200 and r.body == body
    r = H.http(srv, 'GET', '/chunks', timeout=10)
    assert r.body == b''.join(b'piece %d\n' % n for n in range(5))


@pytest.mark.parametrize('srv', ['express.mjs'], indirect=True)
def test_a_backend_that_cuts_off(srv):
    """The client must see that the answer is not whole."""
    with H.Http(srv.http_port) as c:
        c.request('GET', '/cut')
        with pytest.raises((H.Closed, OSError)):
            r = c.response(timeout=10)
            raise AssertionError('a whole answer: %r' % r)


def test_publisher_of_gripcontrol(srv, channel):
    """As a program of its own would use it, beside the application."""
    pub = gripcontrol.GripPubControl({'control_uri': 'http://127.0.0.1:%d' % srv.ctl_port})
    with H.Http(srv.http_port) as c:
        c.request('GET', '/stream/' + channel)
        c.read_head()
        c.stream(b'open\n')
        srv.wait_sub(channel)
        done = []
        pub.publish_http_stream(channel, 'queued\n', callback=lambda ok, why: done.append((ok, why)))
        assert b'queued\n' in c.stream(b'queued\n')
        pub.finish()
        assert done and done[0][0] is True
        pub.publish_http_stream(channel, gripcontrol.HttpStreamFormat(close=True), blocking=True)
        assert c.stream_ended(5)
