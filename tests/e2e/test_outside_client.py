"""`[proxy] origin=zhttp`: the proxy's requests go through the client side of the connection manager."""

import concurrent.futures
import os

import pytest

import kit
from kit import H

ROUTES = ('down.test,debug 127.0.0.1:1\nnext.test 127.0.0.1:1 {o}\nwoh.test {o},over_http\n'
          'inner.test,debug {o},untrusted\n* {o}\n')


@pytest.fixture(scope='module', params=['plain', 'workers'])
def srv(request):
    s = kit.Server(routes=ROUTES, conf=kit.merge({'proxy': {'origin': 'zhttp'}}, kit.topology_conf(request.param)))
    s.watch()
    yield s
    s.stop()


def test_the_client_side_is_there(srv):
    """Or the other tests would say nothing."""
    assert any('--zserver-stream=' in line for _, _, line in srv.children())


def test_requests_both_ways(srv):
    ep = srv.origin.endpoint(lambda q: H.R(q.body + b'!', headers=[('X-O', 'o')]))
    for size in (0, 10, 150000, 3000000):
        body = os.urandom(size)
        r = H.http(srv, 'POST', ep.path, [('X-I', 'i')], body, timeout=30)
        assert (r.status, r.headers.get('X-O')) == (200, 'o')
        assert r.body == body + b'!'
        assert ep.last.get('X-I') == 'i' and ep.last.get('Host') == 'any.test'


def test_many_at_once(srv):
    ep = srv.origin.endpoint(lambda q: H.R(q.target))
    def one(n):
        path = '%s?%d' % (ep.path, n)
        assert H.http(srv, 'GET', path).body == path.encode()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(100)))


def test_holds(srv):
    ep = srv.origin.endpoint()
    ep.handler = H.hold_stream(ep.channel)
    with H.Http(srv.http_port) as c:
        c.request('GET', ep.path)
        assert c.read_head().status == 200
        assert c.stream(b'open\n') == b'open\n'
        srv.wait_sub(ep.channel)
        srv.publish(H.stream_item(ep.channel, 'news\n'))
        assert c.stream(b'news\n') == b'news\n'


def test_targets_that_do_not_answer(srv):
    r = H.http(srv, 'GET', '/', host='down.test', timeout=10)
    assert (r.status, r.body) == (502, b'Unable to connect to any targets. Tried: 127.0.0.1:1\n')
    ep = srv.origin.endpoint(H.R('second'))
    assert H.http(srv, 'GET', ep.path, host='next.test', timeout=10).body == b'second'


def test_targets_that_are_not_trusted_are_outside(srv):
    r = H.http(srv, 'GET', '/', host='inner.test', timeout=10)
    assert (r.status, r.body) == (502, b'Error: Origin host/IP blocked.\n')


def test_websockets(srv):
    def echo(q):
        q.conn.accept_ws(q)
        while True:
            frame = q.conn.recv_frame(10)
            q.conn.send_frame(frame.opcode, frame.payload, frame.fin)
            if frame.opcode == H.CLOSE:
                return H.TAKEN

    ep = srv.origin.endpoint(echo)
    with H.ws_connect(srv, ep.path) as c:
        for text in ('one', 'x' * 50000):
            c.send_text(text)
            assert c.recv_msg(10)[1] == text.encode()
        c.send_close(4001, b'')
        assert c.recv_frame(10).payload[:2] == b'\x0f\xa1'


def test_websockets_over_http(srv):
    ep = srv.origin.endpoint(lambda q: H.R(q.body, headers=[('Content-Type', 'application/websocket-events')]))
    with H.ws_connect(srv, ep.path, host='woh.test') as c:
        c.send_text('echo')
        assert c.recv_text() == 'echo'
