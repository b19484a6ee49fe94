"""What a handler asks the proxy for, by the sockets between them: links and filters (spec/proxy.md §8)."""

import time

import pytest
import zmq

import kit
from kit import H

ROUTES = 'aco.test,id=aco,aco,debug {o}\ndown.test,id=down,debug 127.0.0.1:9\n* {o}\n'


class Asker:
    """The handler's side of the sockets."""

    def __init__(self, srv):
        self.context = zmq.Context()
        self.push, self.sub = self.context.socket(zmq.PUSH), self.context.socket(zmq.SUB)
        self.push.connect(srv.ipc('intreq-in'))
        self.sub.connect(srv.ipc('intreq-out'))
        self.sub.setsockopt(zmq.SUBSCRIBE, b'me ')
        self.count = 0

    def ask(self, uri, route, timeout=5, **fields):
        """The packets of a response; none if no answer came in time."""
        self.count += 1
        id = b'%d' % self.count
        passthrough = {'route': route.encode(), 'prefer-internal': True, 'trusted': True}
        request = {'from': b'me', 'id': id, 'seq': 0, 'method': 'GET', 'uri': uri, 'stream': True, 'credits': 100000,
                   'headers': [['Origin', 'http://o']], 'passthrough': passthrough}
        self.push.send(b'T' + H.tnet_dumps({**request, **fields}))
        seen, until = [], time.monotonic() + timeout
        while time.monotonic() < until:
            if self.sub.poll(100):
                packet = H.tnet_loads(self.sub.recv().partition(b' T')[2])
                if packet['id'] == id:
                    seen.append(packet)
                    if 'type' not in packet and not packet.get('more'):
                        break
        return seen

    def stop(self):
        self.push.close(0)
        self.sub.close(0)
        self.context.term()


@pytest.fixture(scope='module')
def srv():
    conf = {'proxy': {'debug': 'true', 'auto_cross_origin': 'true'}}
    with kit.Server(routes=ROUTES, conf=conf) as s:
        yield s


@pytest.fixture(scope='module')
def asker(srv):
    a = Asker(srv)
    ep = srv.origin.endpoint(H.R(b'known'))
    # Until the sockets know each other, answers are lost.
    H.eventually(lambda: a.ask('http://any.test' + ep.path, '*,*,*,*', 0.3), 10)
    yield a
    a.stop()


@pytest.mark.parametrize('host, route, cors', [('aco.test', 'aco', b'http://o'), ('any.test', '*,*,*,*', None)])
def test_options_are_those_of_the_route(srv, asker, host, route, cors):
    ep = srv.origin.endpoint(H.R(b'hi'))
    packet = asker.ask('http://%s%s' % (host, ep.path), route)[-1]
    assert (packet['code'], packet['body']) == (200, b'hi')
    assert dict((bytes(k), v) for k, v in packet['headers']).get(b'Access-Control-Allow-Origin') == cors


def test_debug_texts(asker):
    assert asker.ask('http://down.test/', 'down')[-1]['body'] == b'Unable to connect to any targets. Tried: 127.0.0.1:9\n'
    packet = asker.ask('http://127.0.0.1:9/', 'down', passthrough={'route': b'down', 'trusted': True})[-1]
    assert (packet['code'], packet['body']) == (502, b'Error while proxying to origin.\n')


def test_user_data_comes_back(srv, asker):
    ep = srv.origin.endpoint(H.R(b'hi'))
    packets = asker.ask('http://any.test' + ep.path, '*,*,*,*', **{'user-data': b'mine'})
    assert packets and all(packet['user-data'] == b'mine' for packet in packets)
