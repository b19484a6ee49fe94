"""What the connection manager's server side writes of packets at trace level, and how it counts
those that it drops (`spec/zhttp.md §12`)."""

import re

import pytest
import zmq

from kit import H, HOST
from test_connmgr_options import Responder, frame, scrape, start  # noqa: F401

ANSWER = {'code': 200, 'reason': b'OK', 'headers': [[b'Content-Length', b'5']], 'body': b'hello'}


class Peer:
    """A process that takes requests of stream mode, on the three sockets for it."""

    def __init__(self, base):
        self.context = zmq.Context()
        self.pull = self.socket(zmq.PULL, base + '-out')
        self.router = self.socket(zmq.ROUTER, base + '-out-stream', b'px')
        self.publish = self.socket(zmq.PUB, base + '-in')

    def socket(self, kind, spec, identity=None):
        s = self.context.socket(kind)
        s.linger, s.rcvtimeo = 0, 8000
        if identity:
            s.identity = identity
            s.router_mandatory = 1
        s.connect(spec)
        return s

    def route(self, packet):
        """By the ROUTER, as soon as it knows the connection manager."""
        def sent():
            try:
                self.router.send_multipart([b'connmgr', b'', packet])
                return True
            except zmq.ZMQError:
                return False
        H.eventually(sent, 8)

    def taken(self):
        """The id of the next request."""
        return H.tnet_parse(self.pull.recv()[1:])[0]['id']

    def stop(self):
        for s in (self.pull, self.router, self.publish):
            s.close()
        self.context.term()


@pytest.fixture(params=[1, 2], ids=['one-worker', 'two-workers'])
def front(request, start):  # noqa: F811
    """A connection manager with a stream port, and its peer."""
    base, port, metrics = 'ipc://%s/c' % start.dir, start.port(), start.port()
    c = start('--log-level=4', '--workers=%d' % request.param, '--listen=%s:%d,stream' % (HOST, port),
              '--zclient-stream=' + base, '--prometheus=%s:%d' % (HOST, metrics)).wait('started')
    c.port, c.metrics, c.peer = port, metrics, Peer(base)
    yield c
    c.peer.stop()


def answer(id_, seq=0, **fields):
    return b'T' + frame(dict({'from': b'px', 'id': id_, 'seq': seq}, **fields))


def test_stream_mode(front):
    client = H.Http(front.port)
    client.send(b'POST /traced HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nsent')
    id_ = front.peer.taken()
    # The body waits for a sign of the process that took the request.
    front.peer.route(answer(id_, type=b'credit', credits=100))
    assert b'4:sent,' in front.peer.router.recv_multipart()[-1]
    front.peer.route(answer(id_, 1, **ANSWER))
    assert client.response().body == b'hello'
    client.send(b'GET /held HTTP/1.1\r\nHost: h\r\n\r\n')
    id_ = front.peer.taken()
    front.peer.route(answer(id_, type=b'keep-alive'))
    front.wait('IN stream (router) { "from": "px", "id": "%s", "seq": 0, "type": "keep-alive" }\n' % id_.decode())
    front.peer.publish.send(b'connmgr ' + answer(id_, 1, **ANSWER))
    assert client.response().body == b'hello'
    client.send(b'GET /left HTTP/1.1\r\nHost: h\r\n\r\n')
    id_ = front.peer.taken()
    front.peer.route(answer(id_, type=b'keep-alive'))
    client.close()
    assert b'cancel' in front.peer.router.recv_multipart()[-1]
    for line in (r'OUT stream \{.*"method": "POST".* \}', r'OUT stream to=px \{ .*\} 4 "sent"', r'IN stream \(router\) \{.*"code": 200.* \} 5 "hello"',
                 r'IN stream \{.*"code": 200.* \} 5 "hello"', r'OUT stream to=px \{.*"type": "cancel".* \}'):
        H.eventually(lambda: re.search(r'^\[TRACE\] .*\] ' + line, front.text(), re.M), 5)


def test_req_mode(start):  # noqa: F811
    spec, port = 'ipc://%s/req' % start.dir, start.port()
    c = start('--log-level=4', '--listen=%s:%d,req' % (HOST, port), '--zclient-req=' + spec).wait('started')
    big = dict(ANSWER, headers=[], body=b'x' * 1500)
    r = Responder(spec, lambda p: [b'T' + frame(dict(big, id=H.tnet_parse(p[1:])[0]['id']))])
    try:
        client = H.Http(port)
        client.send(b'GET /traced HTTP/1.1\r\nHost: h\r\n\r\n')
        assert len(client.response().body) == 1500
        client.close()
    finally:
        r.stop()
    for line in (r'OUT req \{.*"uri": "http://h/traced".* \}', r'IN req \{.*"code": 200.* \} 1500 "x{999}$'):
        H.eventually(lambda: re.search(r'^\[TRACE\] .*\] ' + line, c.text(), re.M), 5)


def test_what_is_dropped_is_counted(front):
    front.peer.route(b'T1:x,')
    front.peer.route(b'J{}')
    front.peer.router.send_multipart([b'connmgr', b'no delimiter'])
    front.peer.route(answer(b'0-7-beef', type=b'keep-alive'))
    front.peer.route(answer(b'nobody', type=b'keep-alive'))
    front.wait('wrong type string, expected map').wait('unrecognized data format')
    drops = 'connmgr_drops_total{cause="%s"}'
    H.eventually(lambda: scrape(front.metrics)[drops % 'malformed_packet'] == '3', 8)
    H.eventually(lambda: scrape(front.metrics)[drops % 'unknown_session'] == '2', 8)
