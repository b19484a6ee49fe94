"""Our processes among those of Debian 12 (pushpin 1.36, condure 1.9, zurl 1.11), started one by
one as the old supervisor does, joined by an ipc prefix of their own."""

import time

import pytest

import kit
import launcher as L
from kit import H

# Ours where the old ones are not: the old connection manager before our proxy and handler
# (our proxy asks the backend itself, or lets zurl), and our connection manager before the old ones
# with zurl.
# The old handler behind our proxy can hold and be published to, but not give a session back:
# see docs/architecture.md.
PAIRS = {
    'debian-front': {'server': 'real', 'client': None, 'proxy': 'target', 'handler': 'target'},
    'debian-client': {'server': 'target', 'client': 'real', 'proxy': 'target', 'handler': 'target'},
    'debian-handler': {'server': 'target', 'client': None, 'proxy': 'target', 'handler': 'real'},
    'debian-back': {'server': 'target', 'client': 'real', 'proxy': 'real', 'handler': 'real'},
}
OWN_CLIENT = {'proxy': {'zurl_out_specs': None, 'zurl_out_stream_specs': None, 'zurl_in_specs': None}}


def pairs(*without):
    """One worker to a pair, where pytest has several."""
    return [pytest.param(p, marks=pytest.mark.xdist_group(p)) for p in PAIRS if p not in without]


# A first long poll on a channel is given back to the proxy a second later.
gives_back = pytest.mark.parametrize('mix', pairs('debian-handler'), indirect=True)


@pytest.fixture(scope='module', params=pairs())
def mix(request):
    for name in ('condure', 'zurl', 'pushpin-proxy', 'pushpin-handler'):
        assert L.real(name), 'the Debian package with %s is not installed' % name
    who = PAIRS[request.param]
    for slot, w in who.items():
        assert w != 'target' or L.target(slot), 'no program of ours for the slot ' + slot
    s = L.Mix(who, conf=OWN_CLIENT if who['client'] is None else None)
    s.watch()
    yield s
    s.stop()


@pytest.fixture
def ep(mix):
    return mix.origin.endpoint()


def publish_until(mix, item, seen, timeout=8):
    """The old programs may lose the first message of a new hold (PUB sockets that have not met)."""
    deadline = time.monotonic() + timeout
    while True:
        mix.publish(item)
        try:
            return seen()
        except TimeoutError:
            if time.monotonic() > deadline:
                raise


def test_plain(mix, ep):
    ep.handler = lambda q: H.R(q.body or b'plain', headers=[('X-A', '1')])
    r = H.http(mix, 'GET', ep.path)
    assert (r.status, r.body, r.headers.get('X-A')) == (200, b'plain', '1')
    assert H.http(mix, 'POST', ep.path, body=b'x' * 50000, timeout=15).body == b'x' * 50000


def test_hold_and_publish(mix, ep):
    ep.handler = H.hold_stream(ep.channel)
    with H.Http(mix.http_port) as c:
        c.request('GET', ep.path)
        r = c.read_head()
        assert r.status == 200 and r.headers.get('Content-Type') == 'text/plain'
        assert not r.headers.has('Grip-Hold')
        assert c.stream(b'open\n') == b'open\n'
        mix.wait_sub(ep.channel)
        for n in range(5):
            mix.publish(H.stream_item(ep.channel, 'message %d\n' % n))
        assert c.stream(b'message 4\n') == b''.join(b'message %d\n' % n for n in range(5))


def test_many_holds_one_publish(mix, ep):
    """More streams than fit in one packet."""
    ep.handler = H.hold_stream(ep.channel)
    with kit.Crowd() as crowd:
        crowd.open_many(300, mix.http_port, ep.path, until=b'open\n', pending=8)
        mix.wait_sub(ep.channel)
        for n in range(3):
            mix.publish(H.stream_item(ep.channel, 'to all %d\n' % n))
        crowd.wait_text(b'to all 2\n', 20)
        for c in crowd.clients:
            assert [bytes(c.data).count(b'to all %d\n' % n) for n in range(3)] == [1, 1, 1], bytes(c.data)


def test_keep_alive(mix, ep):
    ep.handler = H.hold_stream(ep.channel, extra=[('Grip-Keep-Alive', ':\\n\\n; format=cstring; timeout=1')])
    with H.Http(mix.http_port) as c:
        c.request('GET', ep.path)
        c.read_head()
        assert c.stream(b'open\n') == b'open\n'
        assert c.stream(b':\n\n', timeout=8) == b':\n\n'
        assert c.stream(b':\n\n', timeout=8) == b':\n\n'


def test_session_outlives_the_expiry_of_a_silent_peer(mix, ep):
    """A held stream without any traffic lives on session keep-alives alone: without them either
    side would give it up after a minute."""
    ep.handler = H.hold_stream(ep.channel)
    with H.Http(mix.http_port) as c:
        c.request('GET', ep.path)
        c.read_head()
        c.stream(b'open\n')
        mix.wait_sub(ep.channel)
        assert c.stream_quiet(65)
        mix.publish(H.stream_item(ep.channel, 'still\n'))
        assert c.stream(b'still\n') == b'still\n'


def test_client_that_leaves(mix, ep):
    st = mix.stats()
    time.sleep(0.2)
    ep.handler = H.hold_stream(ep.channel)
    c = H.Http(mix.http_port)
    c.request('GET', ep.path)
    c.read_head()
    st.wait(lambda t, v: t == 'sub' and v['channel'] == ep.channel and not v.get('unavailable'))
    c.close()
    st.wait(lambda t, v: t == 'sub' and v['channel'] == ep.channel and v.get('unavailable'), 15)
    st.close()


def test_long_poll(mix, ep):
    ep.handler = H.hold_response(ep.channel)
    with H.Http(mix.http_port) as c:
        for n in range(3):
            c.request('GET', ep.path)
            mix.wait_sub(ep.channel, timeout=0.5)
            r = publish_until(mix, H.resp_item(ep.channel, 'polled %d' % n, code=201, headers={'X-P': 'y'}),
                              lambda: c.response(timeout=2))
            assert (r.status, r.body, r.headers.get('X-P')) == (201, b'polled %d' % n, 'y')


@gives_back
def test_long_poll_times_out(mix, ep):
    ep.handler = H.hold_response(ep.channel, body='nothing\n', timeout=1)
    with H.Http(mix.http_port) as c:
        c.request('GET', ep.path)
        r = c.response(timeout=8)
        assert (r.status, r.body) == (200, b'nothing\n')


def test_stream_that_the_publisher_ends(mix, ep):
    ep.handler = H.hold_stream(ep.channel)
    with H.Http(mix.http_port) as c:
        c.request('GET', ep.path)
        c.read_head()
        c.stream(b'open\n')
        mix.wait_sub(ep.channel)
        mix.publish({'channel': ep.channel, 'formats': {'http-stream': {'action': 'close'}}})
        assert c.stream_ended()
