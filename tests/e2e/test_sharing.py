"""share_all: requests that are alike are one for the backend."""

import threading

import pytest

import kit
from kit import H

COUNT = 20


@pytest.fixture(scope='module')
def srv():
    s = kit.Server(routes='* {o}\n', conf={'handler': {'share_all': 'true'}})
    s.watch()
    yield s
    s.stop()


class Slow:
    """A handler of the origin that answers when it is told to."""

    def __init__(self, answer):
        self.answer, self.go = answer, threading.Event()

    def __call__(self, request):
        assert self.go.wait(20)
        return self.answer


def ask(srv, ep, count=COUNT):
    """So many clients, each with the request on its way."""
    clients = [H.Http(srv.http_port, 20) for _ in range(count)]
    for c in clients:
        c.request('GET', ep.path + '?q')
    ep.wait(1)
    return clients


def test_one_answer_for_all(srv):
    ep = srv.origin.endpoint()
    ep.handler = Slow(H.R(b'x' * 300000))
    clients = ask(srv, ep)
    ep.handler.go.set()
    for c in clients:
        assert c.response().body == b'x' * 300000
        c.close()
    assert len(ep.requests) < COUNT / 2


def test_one_hold_for_all(srv):
    ep = srv.origin.endpoint()
    ep.handler = Slow(H.hold_stream(ep.channel))
    clients = ask(srv, ep)
    ep.handler.go.set()
    for c in clients:
        assert c.read_head().status == 200
        assert c.stream(b'open\n') == b'open\n'
    srv.publish(H.stream_item(ep.channel, 'to all\n'))
    for c in clients:
        assert c.stream(b'to all\n') == b'to all\n'
        c.close()
    assert len(ep.requests) < COUNT / 2


def test_other_requests_are_their_own(srv):
    first, second = srv.origin.endpoint(), srv.origin.endpoint()
    first.handler, second.handler = H.R('first'), H.R('second')
    assert H.http(srv, 'GET', first.path).body == b'first'
    assert H.http(srv, 'GET', second.path).body == b'second'
    assert H.http(srv, 'HEAD', first.path).status == 200
    assert [q.method for q in first.requests] == ['GET', 'HEAD']
