"""kill -9 of each process under held streams: no client is left waiting, nothing left behind
stops the next start, and no byte reaches a client that it was not meant for."""

import itertools
import os
import signal
import threading
import time

import pytest

import kit
from kit import H

HELD = 1000
BOUND_S = 2.0   # an answer or a close within this, whatever died
FIRST = b'data: stream open\n\n'


class Slow:
    """Requests that the backend has got and not answered yet."""

    def __init__(self, srv):
        self.release = threading.Event()
        self.ep = srv.origin.endpoint(self.answer)

    def answer(self, q):
        self.release.wait(60)
        return H.R('late\n')


def routes(backend):
    fast = ''.join('*,path_beg=/%s 127.0.0.1:%d\n' % (x, backend.port) for x in ('stream', 'poll', 'plain'))
    return fast + '* {o}\n'


def hold(crowd, srv, n=HELD, ports=None):
    ports = ports or srv.http_ports
    return crowd.open_many(n, lambda i: ports[i % len(ports)], lambda i: '/stream?topic=c%d' % (i % 10), until=FIRST)


def in_flight(crowd, srv, slow, n=20):
    """Plain requests that wait at the backend."""
    made = [crowd.add(srv.http_ports[i % len(srv.http_ports)], slow.ep.path) for i in range(n)]
    before = time.monotonic() + 10
    while len(slow.ep.requests) < n:
        assert time.monotonic() < before, 'the backend got %d of %d requests' % (len(slow.ep.requests), n)
        crowd.pump()
    return made


def half_answered(crowd, srv, n=20):
    """Requests whose answer has begun and does not end."""
    def begin(q):
        q.conn.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n')
        try:
            q.conn.read_eof(60)
        except (OSError, TimeoutError):
            pass
        return H.TAKEN
    ep = srv.origin.endpoint(begin)
    made = [crowd.add(srv.http_ports[i % len(srv.http_ports)], ep.path) for i in range(n)]
    crowd.wait_text(b'begun', 10, made)
    return made


def settled(client):
    """An answer or a close: what a client without a reply is owed."""
    return not client.open or client.data.startswith(b'HTTP/1.1 ')


def check_in_time(crowd, clients, at, done, what):
    """Waits generously, then holds the bound itself."""
    times = {}

    def seen(c):
        if done(c) and c.number not in times:
            times[c.number] = (c.closed_at or time.monotonic()) - at
        return done(c)
    crowd.wait(seen, 15, what, clients)
    worst = max(times.values())
    assert worst <= BOUND_S, '%s: the last after %.2f s' % (what, worst)


def works(srv, crowd, port=None):
    """A new hold, its publish, and a plain request."""
    port = port or srv.http_port
    channel = H.unique('again')
    c = crowd.add(port, '/stream?topic=' + channel)

    def answered():
        crowd.pump()
        return c.has(FIRST)
    H.eventually(answered, 10, 0)

    def delivered():
        srv.publish(H.stream_item(channel, 'after\n'))
        for _ in range(10):
            crowd.pump()
        return c.has(b'after\n')
    H.eventually(delivered, 10, 0)
    ep = srv.origin.endpoint(H.R('fine\n'))
    assert H.http(srv, 'GET', ep.path, port=port).body == b'fine\n'


def works_again(srv, crowd, port=None):
    """As above; while the processes find each other again a request may be refused."""
    deadline = time.monotonic() + 15
    while True:
        try:
            return works(srv, crowd, port)
        except (AssertionError, OSError, H.Closed, TimeoutError):
            if time.monotonic() > deadline:
                raise


@pytest.fixture
def parts(started, tmp_path):
    backend = kit.Backend(str(tmp_path))
    started.append(backend)
    srv = kit.Parts(routes=routes(backend))
    started.append(srv)
    return srv


@pytest.fixture
def crowd(started):
    c = kit.Crowd()
    started.append(c)
    return c


def test_kill_the_proxy_alone(parts, crowd):
    """Held streams belong to the handler: not one is lost, and they still get a publish.
    Requests at the backend are answered or closed."""
    slow = Slow(parts)
    held = hold(crowd, parts)
    waiting = in_flight(crowd, parts, slow)
    begun = half_answered(crowd, parts)
    at = parts.kill_part('proxy')
    check_in_time(crowd, waiting + begun, at, lambda c: not c.open or c in waiting and settled(c),
                  'requests at the backend')
    slow.release.set()
    crowd.mark()
    parts.publish(*[H.stream_item('c%d' % i, 'still here\n') for i in range(10)])
    crowd.wait_text(b'still here\n', 15, held)
    assert not [c for c in held if not c.open]
    parts.start_part('proxy')
    works_again(parts, crowd)
    crowd.mark()
    parts.publish(*[H.stream_item('c%d' % i, 'and now\n') for i in range(10)])
    crowd.wait_text(b'and now\n', 15, held)


@pytest.mark.parametrize('supervised', [False, True], ids=['alone', 'supervised'])
def test_kill_the_proxy_with_1000_requests_in_flight(supervised, started, tmp_path, crowd):
    """Each of them is answered or closed in time. Alone the proxy takes nothing with it: held
    streams stay and get their publish. Under the supervisor all end with it, as for any child."""
    backend = kit.Backend(str(tmp_path))
    started.append(backend)
    slow = kit.Silent()
    started.append(slow)
    lines = '*,path_beg=/late %s:%d\n' % (H.HOST, slow.port) + routes(backend)
    conf = {'runner': {'client_maxconn': 3000}}
    srv = kit.Server(routes=lines, conf=conf) if supervised else kit.Parts(routes=lines)
    started.append(srv)
    held = hold(crowd, srv, 500)
    waiting = [crowd.add(srv.http_port, '/late/%d' % n) for n in range(1000)]
    H.eventually(lambda: [crowd.pump(), slow.requests() >= 1000][1], 30, 0)
    if supervised:
        at = time.monotonic()
        os.kill(kit.child(srv, 'pushpin-proxy'), signal.SIGKILL)
    else:
        at = srv.kill_part('proxy')
    check_in_time(crowd, waiting, at, settled, '1,000 requests in flight')
    if supervised:
        check_in_time(crowd, held, at, lambda c: not c.open, 'held streams')
        return
    crowd.mark()
    srv.publish(*[H.stream_item('c%d' % i, 'still here\n') for i in range(10)])
    crowd.wait_text(b'still here\n', 15, held)
    assert all(c.open for c in held)
    srv.start_part('proxy')
    works_again(srv, crowd)


def test_requests_while_there_is_no_proxy(parts, crowd):
    parts.kill_part('proxy')
    at = time.monotonic()
    waiting = [crowd.add(parts.http_port, '/plain') for _ in range(20)]
    check_in_time(crowd, waiting, at, settled, 'requests without a proxy')
    parts.start_part('proxy')
    works_again(parts, crowd)


def test_kill_the_handler_alone(parts, crowd):
    """Its streams end; a request at the backend is not touched."""
    slow = Slow(parts)
    held = hold(crowd, parts)
    polls = [crowd.add(parts.http_port, '/poll?topic=p%d' % i) for i in range(20)]
    parts.wait_sub('p19')
    waiting = in_flight(crowd, parts, slow)
    at = parts.kill_part('handler')
    check_in_time(crowd, held, at, lambda c: not c.open, 'held streams')
    check_in_time(crowd, polls, at, settled, 'held responses')
    slow.release.set()
    crowd.wait_text(b'late\n', 10, waiting)
    parts.start_part('handler')
    works_again(parts, crowd)


def test_holds_while_there_is_no_handler(parts, crowd):
    parts.kill_part('handler')
    at = time.monotonic()
    waiting = [crowd.add(parts.http_port, '/stream?topic=x') for _ in range(20)]
    # The backend's own answer comes first where it was already sent on; then the end.
    check_in_time(crowd, waiting, at, settled, 'holds without a handler')
    parts.start_part('handler')
    works_again(parts, crowd)


def test_kill_the_connection_manager_alone(parts, crowd):
    held = hold(crowd, parts)
    at = parts.kill_part('connmgr')
    check_in_time(crowd, held, at, lambda c: not c.open, 'held streams')
    parts.start_part('connmgr')
    H.eventually(lambda: kit.listens(parts.http_port), 10)
    works_again(parts, crowd)
    hold(crowd, parts, 200)


def test_kill_all_and_start_again(parts, crowd):
    """Socket files of the dead are in the way of nobody."""
    hold(crowd, parts, 200)
    for name in parts.names():
        parts.kill_part(name)
    for name in parts.names():
        parts.start_part(name)
    H.eventually(lambda: kit.listens(parts.http_port), 10)
    works_again(parts, crowd)


@pytest.mark.parametrize('victim', ['pushpin-connmgr', 'pushpin-proxy', 'pushpin-handler', 'pushpin'])
def test_kill_one_under_the_supervisor(victim, started, tmp_path, crowd):
    """A dead child ends the server with a clear line; every client gets an answer or a close;
    the same folder and ports serve the next start."""
    backend = kit.Backend(str(tmp_path))
    started.append(backend)
    srv = kit.Server(routes=routes(backend), conf={'runner': {'client_maxconn': '3000'}})
    started.append(srv)
    slow = Slow(srv)
    held = hold(crowd, srv)
    waiting = in_flight(crowd, srv, slow)
    pid = srv.proc.pid if victim == 'pushpin' else kit.child(srv, victim)
    children = [p for p, _, _ in srv.children()]
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    check_in_time(crowd, held, at, lambda c: not c.open, 'held streams')
    check_in_time(crowd, waiting, at, settled, 'requests at the backend')
    slow.release.set()
    code = srv.wait_exit(10)
    if victim != 'pushpin':
        assert code == 1
        name = victim.partition('-')[2]
        assert '%s: Exited unexpectedly' % name in srv.all_logs(), srv.logs()
    H.eventually(lambda: not [p for p in children if kit.alive(p)], 10)
    srv.start()
    works_again(srv, crowd)


def test_a_restarted_connection_manager_sends_nothing_of_the_old(started, tmp_path):
    """One of three is killed and started again under publish load. Its new clients hold channels
    that nobody publishes to before the end: whatever else comes was meant for an earlier client."""
    backend = kit.Backend(str(tmp_path))
    started.append(backend)
    srv = kit.Parts(connmgrs=3, routes=routes(backend))
    started.append(srv)
    stop = threading.Event()
    published = itertools.count()

    def load():
        while not stop.is_set():
            n = next(published)
            srv.push({'channel': 'old%d' % (n % 10),
                      'formats': {'http-stream': {'content': 'for the old %d\n' % n}}})
            if n % 20 == 0:
                time.sleep(0.002)
    old = kit.Crowd()
    started.append(old)
    old.open_many(600, lambda i: srv.http_ports[i % 3], lambda i: '/stream?topic=old%d' % (i % 10), until=FIRST)
    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    try:
        for turn in range(5):
            srv.kill_part('connmgr-0')
            srv.start_part('connmgr-0')
            H.eventually(lambda: kit.listens(srv.http_ports[0]), 10, 0.01)
            with kit.Crowd() as new:
                # Idle connections and plain answers are in the place of the old ones as well.
                idle = [new.add(srv.http_ports[0], '/plain', host='idle%d' % i) for i in range(50)]
                held = reopen(new, srv, turn)
                until = time.monotonic() + 1.0
                while time.monotonic() < until:
                    new.pump()
                for c in new.clients:
                    assert b'for the old' not in c.data, bytes(c.data[-300:])
                new.mark()
                srv.publish(H.stream_item('new%d' % turn, 'for the new\n'))
                new.wait_text(b'for the new\n', 10, held)
                for c in idle + held:
                    assert b'for the old' not in c.data, bytes(c.data[-300:])
            for _ in range(5):
                old.pump(0)
            others = [c for c in old.clients if c.number % 3]
            assert not [c for c in others if not c.open], 'streams of the other two were lost'
    finally:
        stop.set()
        thread.join(10)
    # The other two still serve what was held all the time.
    others = [c for c in old.clients if c.number % 3]
    old.mark()
    srv.publish(*[H.stream_item('old%d' % i, 'the last\n') for i in range(10)])
    old.wait_text(b'the last\n', 20, others)


def reopen(crowd, srv, turn, n=150):
    """Streams at the restarted process; it may need a moment to find the others."""
    deadline = time.monotonic() + 15
    while True:
        try:
            return crowd.open_many(n, srv.http_ports[0], '/stream?topic=new%d' % turn, until=FIRST, timeout=10)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
