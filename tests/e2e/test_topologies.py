"""The everyday uses, in every way the work can be spread over workers and processes."""

import time

import pytest

import kit
from kit import H

FIRST = b'data: stream open\n\n'
CLIENTS = 120    # enough that every worker and process gets some


@pytest.fixture(scope='module', params=list(kit.TOPOLOGIES))
def srv(request, tmp_path_factory):
    backend = kit.Backend(str(tmp_path_factory.mktemp('backend')))
    fast = ''.join('*,path_beg=/%s 127.0.0.1:%d\n' % (x, backend.port) for x in ('stream', 'poll', 'plain'))
    conf = kit.merge(kit.topology_conf(request.param), {'runner': {'client_maxconn': '2000'},
                                                       'handler': {'stats_report_interval': '2'}})
    s = kit.Server(routes=fast + '* {o}\n', conf=conf, http_ports=2)
    yield s
    s.stop()
    backend.stop()


@pytest.fixture
def crowd(started):
    c = kit.Crowd()
    started.append(c)
    return c


def test_hold_and_publish(srv, crowd):
    channel = H.unique()
    crowd.open_many(CLIENTS, lambda i: srv.http_ports[i % 2], '/stream?topic=' + channel, until=FIRST)
    for n in range(5):
        srv.publish(H.stream_item(channel, 'message %d\n' % n))
    crowd.wait_text(b'message 4\n')
    for c in crowd.clients:
        seen = bytes(c.data)
        places = [seen.find(b'message %d\n' % n) for n in range(5)]
        assert places == sorted(places) and -1 not in places, seen
        assert seen.count(b'message ') == 5


def test_many_channels(srv, crowd):
    """Each message reaches the clients of its channel and nobody else."""
    name = H.unique()
    crowd.open_many(CLIENTS, srv.http_port, lambda i: '/stream?topic=%s-%d' % (name, i % 40), until=FIRST)
    srv.publish(*[H.stream_item('%s-%d' % (name, i), 'for %d.\n' % i) for i in range(40)])
    crowd.wait(lambda c: c.has(b'for %d.\n' % (c.number % 40)), 15, 'its own message')
    assert crowd.quiet(0.3)
    for c in crowd.clients:
        assert bytes(c.data).count(b'for ') == 1


def test_publish_by_zmq(srv, crowd):
    channel = H.unique()
    crowd.open_many(30, srv.http_port, '/stream?topic=' + channel, until=FIRST)
    srv.push({'channel': channel, 'formats': {'http-stream': {'content': 'pushed\n'}}})
    crowd.wait_text(b'pushed\n')
    s = srv.xpub()
    srv.xpub_wait(b'\x01' + channel.encode())
    item = {'formats': {'http-stream': {'content': 'by subscription\n'}}}
    s.send_multipart([channel.encode(), H.tnet_dumps(item)])
    crowd.wait_text(b'by subscription\n')


def test_keep_alive(srv, crowd):
    channel = H.unique()
    crowd.open_many(CLIENTS, srv.http_port, '/stream?ka=1&topic=' + channel, until=FIRST)
    crowd.mark()
    crowd.wait_text(b':\n\n', 10)
    crowd.mark()
    crowd.wait_text(b':\n\n', 10)


def test_long_poll(srv, crowd):
    channel = H.unique()
    clients = [crowd.add(srv.http_port, '/poll?topic=' + channel) for _ in range(CLIENTS)]
    deadline = time.monotonic() + 15
    # A long-poll shows nothing before its answer: publish until all have one.
    while True:
        srv.publish(H.resp_item(channel, 'polled\n'))
        try:
            crowd.wait_text(b'polled\n', 1, clients)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise


def test_long_poll_times_out(srv, crowd):
    c = crowd.add(srv.http_port, '/poll?ka=1&topic=' + H.unique())
    crowd.wait_text(b'nothing\n', 10)
    assert c.data.startswith(b'HTTP/1.1 200 ')


def test_plain_requests_while_held(srv, crowd):
    crowd.open_many(CLIENTS, lambda i: srv.http_ports[i % 2], '/stream?topic=' + H.unique(), until=FIRST)
    for i in range(60):
        r = H.http(srv, 'GET', '/plain', port=srv.http_ports[i % 2])
        assert (r.status, r.body) == (200, b'hello world\n')
    body = bytes(range(256)) * 800
    ep = srv.origin.endpoint(lambda q: H.R(q.body, chunked=True))
    for _ in range(8):
        assert H.http(srv, 'POST', ep.path, body=body, timeout=15).body == body


def test_persistent_connection(srv):
    ep = srv.origin.endpoint(H.R('ok'))
    with H.Http(srv.http_port) as c:
        for _ in range(20):
            c.request('GET', ep.path)
            assert c.response().body == b'ok'


def test_clients_that_leave_are_forgotten(srv, crowd):
    channel = H.unique()
    st = srv.stats((b'sub ',))
    time.sleep(0.1)
    crowd.open_many(30, srv.http_port, '/stream?topic=' + channel, until=FIRST)
    st.wait(lambda t, v: v['channel'] == channel and not v.get('unavailable'))
    for c in crowd.clients:
        c.drop()
    st.wait(lambda t, v: v['channel'] == channel and v.get('unavailable'), 15)
    st.close()


def test_the_stats_count_all(srv, crowd):
    """One report speaks for all workers and processes."""
    st = srv.stats((b'report ',))
    time.sleep(0.1)
    crowd.open_many(CLIENTS, srv.http_port, '/stream?topic=' + H.unique(), until=FIRST)
    report = st.wait(lambda t, v: v['connections'] >= CLIENTS, 25)
    assert report['connections'] < CLIENTS * 2
    st.close()


# ---------------------------------------------------------------- the limit

@pytest.mark.parametrize('conf', [{'connmgr_workers': 1}, {'connmgr_workers': 2}, {'connmgr_workers': 4},
                                  {'connmgr_processes': 3}],
                         ids=['one worker', 'two workers', 'four workers', 'three processes'])
def test_exactly_client_maxconn_are_served(conf, started, tmp_path):
    """One limit for all, no quota per worker or process: all that fit are served, the next one
    waits until one of them leaves."""
    limit = 203
    backend = kit.Backend(str(tmp_path))
    started.append(backend)
    srv = kit.Server(routes='*,path_beg=/stream 127.0.0.1:%d\n* {o}\n' % backend.port,
                   conf={'runner': dict(conf, client_maxconn=limit)})
    started.append(srv)
    crowd = kit.Crowd()
    started.append(crowd)
    # The last connection of the start may still be closing.
    clients = crowd.open_many(limit, srv.http_port, '/stream?topic=full', until=FIRST, timeout=30)
    extra = crowd.add(srv.http_port, '/stream?topic=full')
    assert crowd.quiet(1.0), 'a client above the limit was served: %r' % bytes(extra.data)
    srv.publish(H.stream_item('full', 'to all\n'))
    crowd.wait_text(b'to all\n', 10, clients)
    clients[100].drop()
    crowd.wait_text(FIRST, 10, [extra])
