"""GRIP sessions through the real programs, kept by tools/gripstate.py; and what the answer to a
publish tells of its receivers."""

import os
import subprocess
import sys

import pytest
import kit
from kit import H

ROUTES = '*,session {o}\nplain.test {o}\n'
CONF = {'handler': {'state_spec': 'ipc://{rundir}/state', 'publish_receivers': 'true'}}


@pytest.fixture(scope='module', params=[1, 3], ids=['one-worker', 'three-workers'])
def srv(request):
    conf = kit.merge(CONF, {'handler': {'workers': request.param}})
    with H.Server(routes=ROUTES, conf=conf) as server:
        yield server


@pytest.fixture(scope='module')
def state(srv):
    tool = os.path.join(kit.ROOT, 'tools', 'gripstate.py')
    spec = 'ipc://%s/state' % srv.rundir
    with open(os.path.join(srv.dir, 'state.log'), 'wb') as log:
        proc = subprocess.Popen([sys.executable, tool, spec], stdout=log, stderr=subprocess.STDOUT)
    yield proc
    proc.terminate()
    proc.wait(5)


@pytest.fixture
def ep(srv):
    return srv.origin.endpoint()


def named(ep, sid, last_ids=()):
    """Headers of a response that begins a session."""
    return [('Grip-Session-Id', sid),
            ('Grip-Session-Detect', 'path-prefix=%s; sid-ptr="/session/id"' % ep.path)] + [
            ('Grip-Last', '%s; last-id=%s' % pair) for pair in last_ids]


def asked(srv, ep, sid, host='any.test'):
    """What the backend is told of a request that shows its session."""
    ep.handler = H.R(b'ok')
    H.http(srv, 'POST', ep.path, body=b'{"session":{"id":"%s"}}' % sid.encode(), host=host)
    return ep.last.get('Grip-Session-Id'), ep.last.get('Grip-Last')



def test_a_session_is_found_with_what_its_client_has_seen(srv, state, ep):
    sid = 's-' + ep.channel
    ep.handler = H.R(b'hello', headers=named(ep, sid, [(ep.channel, 'a')]))

    def begin():
        ep.handler = H.R(b'hello', headers=named(ep, sid, [(ep.channel, 'a')]))
        reply = H.http(srv, 'GET', ep.path)
        assert reply.body == b'hello' and 'Grip-Session-Id' not in reply.headers
        return asked(srv, ep, sid) == (sid, '%s; last-id=a' % ep.channel)

    H.eventually(begin, 10)
    assert asked(srv, ep, 'another') == (None, None)
    assert asked(srv, ep, sid, host='plain.test') == (None, None)


def test_what_a_stream_receives_is_seen_by_its_session(srv, state, ep):
    sid = 's-' + ep.channel
    with H.Http(srv.http_port) as client:
        ep.handler = H.hold_stream(ep.channel, extra=named(ep, sid))
        client.request('GET', ep.path)
        client.read_head()
        client.stream(b'open\n')
        srv.wait_sub(ep.channel)
        reply = srv.control(body={'items': [H.stream_item(ep.channel, 'x\n', id='7')]})
        assert reply.body == b'Published receivers=1\n'
        assert client.stream(b'x\n') == b'x\n'
        H.eventually(lambda: asked(srv, ep, sid) == (sid, '%s; last-id=7' % ep.channel), 8)


def test_a_publish_tells_whom_it_reaches(srv, ep):
    items = [H.stream_item(ep.channel, 'x')]
    assert srv.control(body={'items': items}).body == b'Published receivers=0\n'
    ep.handler = H.hold_stream(ep.channel)
    clients = [H.Http(srv.http_port) for _ in range(5)]
    try:
        for client in clients:
            client.request('GET', ep.path)
            client.read_head()
            client.stream(b'open\n')
        reply = srv.control(body={'items': items * 2}, headers=[('Accept', 'application/json')])
        assert reply.body == b'{"message":"Published","receivers":10}\n'
        for client in clients:
            assert client.stream(b'xx') == b'xx'
    finally:
        for client in clients:
            client.close()


def test_requests_go_on_without_the_service():
    with H.Server(routes=ROUTES, conf=CONF) as server:
        ep = server.origin.endpoint()
        assert asked(server, ep, 's') == (None, None)
