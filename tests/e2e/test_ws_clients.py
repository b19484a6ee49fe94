"""A WebSocket client library before the whole server, with and without compression."""

import os
import threading

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import kit
from kit import H

LONG = 'the same words again and again, ' * 4000       # more than any buffer or window of credits


@pytest.fixture(scope='module', params=['compression', 'plain'])
def srv(request):
    """The client offers compression either way; only one of the servers allows it."""
    s = kit.Server(conf={'runner': {'allow_compression': str(request.param == 'compression').lower()}})
    s.compresses = request.param == 'compression'
    yield s
    s.stop()


def echo(q):
    q.conn.accept_ws(q)
    while True:
        f = q.conn.recv_frame(30)
        if f.opcode == H.PING:
            q.conn.send_frame(H.PONG, f.payload)
            continue
        q.conn.send_frame(f.opcode, f.payload, f.fin)
        if f.opcode == H.CLOSE:
            return H.TAKEN


@pytest.fixture
def ws(srv):
    ep = srv.origin.endpoint(echo)
    with connect('ws://127.0.0.1:%d%s' % (srv.http_port, ep.path), max_size=None, proxy=None) as c:
        yield c


def extensions(c):
    return [e.name for e in c.protocol.extensions]


def test_compression_is_agreed_on_where_it_is_allowed(srv, ws):
    assert extensions(ws) == (['permessage-deflate'] if srv.compresses else [])


def test_messages_come_back(ws):
    for m in ('hello', '', 'a' * 125, 'a' * 126, '\u00e4\u20ac\U0001f600', b'', bytes(range(256)), LONG,
              os.urandom(200_000)):
        ws.send(m)
        assert ws.recv(20) == m


def test_fragments_come_back_as_one_message(ws):
    ws.send(iter(['first ', 'second ', '', LONG, 'last']))
    assert ws.recv(20) == 'first second ' + LONG + 'last'


def test_many_messages_keep_their_order(ws):
    """A writer that does not wait for the answers, and a reader that takes them all."""
    count = 2000
    writer = threading.Thread(target=lambda: [ws.send('message %d' % n) for n in range(count)])
    writer.start()
    try:
        for n in range(count):
            assert ws.recv(20) == 'message %d' % n
    finally:
        writer.join(20)


def test_ping(ws):
    pong = ws.ping(b'are you there')
    assert pong.wait(20)


def test_client_closes(ws):
    ws.close(4002, 'done')
    assert (ws.protocol.close_code, ws.protocol.close_reason) == (4002, 'done')


def test_backend_closes(srv):
    def handler(q):
        q.conn.accept_ws(q)
        q.conn.send_text('bye')
        q.conn.send_close(4003, b'over')
        q.conn.recv_frame(20)
        return H.TAKEN
    ep = srv.origin.endpoint(handler)
    with connect('ws://127.0.0.1:%d%s' % (srv.http_port, ep.path), proxy=None) as c:
        assert c.recv(20) == 'bye'
        with pytest.raises(ConnectionClosed) as e:
            c.recv(20)
        assert (e.value.rcvd.code, e.value.rcvd.reason) == (4003, 'over')


def test_refused(srv):
    ep = srv.origin.endpoint(H.R('not you', 403))
    with pytest.raises(InvalidStatus) as e:
        with connect('ws://127.0.0.1:%d%s' % (srv.http_port, ep.path), proxy=None):
            pass
    assert e.value.response.status_code == 403
    assert e.value.response.body == b'not you'
