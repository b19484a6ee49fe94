"""The message budget, counted on the wire between the real processes: at most five ZHTTP and
RPC messages for an opened stream, two for a plain request, one data packet for 128 streams."""

import time

import pytest

import kit
import tap
from kit import H

FIRST = b'data: stream open\n\n'
OPENS = 100
# Bound by the first, connected to by the others: what is counted.
FRONT = ('connmgr-out', 'connmgr-out-stream', 'connmgr-in')
RPC = {'accept': ('handler_accept_spec', 'proxy_accept_specs'),
       'inspect': ('handler_inspect_spec', 'proxy_inspect_specs'),
       'retry': ('handler_retry_in_spec', 'proxy_retry_out_specs')}


class Tapped(kit.Parts):
    """The processes with a tap in each of their connections."""

    def __init__(self, **kw):
        self.taps = {}
        ipc = 'ipc://{rundir}/{ipc_prefix}'
        conf = {'proxy': {keys[0]: ipc + 'real-' + name for name, keys in RPC.items()},
                'handler': {keys[1]: ipc + name for name, keys in RPC.items()}}
        super().__init__(base='real-connmgr', conf=conf, **kw)

    def start(self):
        for name in list(FRONT) + list(RPC):
            path = self.ipc(name)[len('ipc://'):]
            self.taps[name] = tap.Tap(path, self.ipc('real-' + name)[len('ipc://'):])
        super().start()

    def halt(self):
        super().halt()
        for t in self.taps.values():
            t.stop()
        self.taps = {}

    def take(self, limit=4.0):
        """{tap: [(towards the binding side, frames)]} since the last call, when all is quiet.
        Session keep-alives are left out: they come with time, whatever was asked."""
        out = {name: [] for name in self.taps}
        deadline = time.monotonic() + limit
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
            got = {name: [m for m in t.take() if not is_keep_alive(m)] for name, t in self.taps.items()}
            quiet = 0 if any(got.values()) else quiet + 1
            for name, m in got.items():
                out[name] += m
        return out

    def take_all(self):
        return {name: t.take() for name, t in self.taps.items()}


def is_keep_alive(message):
    return all(isinstance(p, dict) and p.get('type') == b'keep-alive' for p in tap.packets(message[1]))


def describe(taken):
    lines = []
    for name, messages in taken.items():
        for back, frames in messages[:6]:
            lines.append('%s %s %r' % (name, '->' if back else '<-', [bytes(f[:240]) for f in frames]))
    return '\n'.join(lines[:40])


@pytest.fixture(scope='module')
def srv(tmp_path_factory):
    backend = kit.Backend(str(tmp_path_factory.mktemp('backend')))
    fast = ''.join('*,path_beg=/%s 127.0.0.1:%d\n' % (x, backend.port) for x in ('stream', 'poll', 'plain'))
    s = Tapped(routes=fast + '* {o}\n')
    yield s
    s.stop()
    backend.stop()


@pytest.fixture
def crowd(started):
    c = kit.Crowd()
    started.append(c)
    return c


def total(taken):
    return sum(len(m) for m in taken.values())


def test_the_tap_sees_what_passes(srv):
    """The counter counts: a request shows up, with its packets."""
    srv.take()
    H.http(srv, 'GET', '/plain', host='seen.test')
    taken = srv.take()
    asked = [p for back, m in taken['connmgr-out'] for p in tap.packets(m)]
    assert [H.text(p['uri']) for p in asked] == ['http://seen.test/plain']
    answers = [p for name in FRONT[1:] for _, m in taken[name] for p in tap.packets(m) if p.get('code')]
    assert [p['code'] for p in answers] == [200]


def test_messages_of_an_open(srv, crowd):
    """One after the other, so that nothing can share a message."""
    srv.take()
    for i in range(OPENS):
        crowd.open_many(1, srv.http_port, '/stream?topic=open%d' % i, until=FIRST)
    taken = srv.take()
    assert total(taken) >= OPENS, 'the tap does not see the messages'
    assert total(taken) <= 5 * OPENS, '%.2f messages an open\n%s' % (total(taken) / OPENS, describe(taken))
    assert not taken['inspect'] and not taken['retry'], describe(taken)


def test_messages_of_a_burst_of_opens(srv, crowd):
    srv.take()
    crowd.open_many(OPENS, srv.http_port, '/stream?topic=burst', until=FIRST, pending=OPENS)
    taken = srv.take()
    assert total(taken) <= 5 * OPENS, describe(taken)


def test_messages_of_a_plain_request(srv):
    srv.take()
    with H.Http(srv.http_port) as c:
        for _ in range(OPENS):
            c.request('GET', '/plain')
            assert c.response().status == 200
    taken = srv.take()
    assert total(taken) >= OPENS, 'the tap does not see the messages'
    assert total(taken) <= 2 * OPENS, '%.2f messages a request\n%s' % (total(taken) / OPENS, describe(taken))


def test_messages_of_plain_requests_side_by_side(srv, crowd):
    srv.take()
    for _ in range(OPENS):
        crowd.add(srv.http_port, '/plain')
    crowd.wait_text(b'hello world\n')
    assert total(srv.take()) <= 2 * OPENS


@pytest.mark.parametrize('n', [1, 128, 129, 1000])
def test_packets_of_a_publish(srv, crowd, n):
    """ceil(N / 128) data packets, each for up to 128 streams, and each stream in one of them."""
    channel = H.unique('pub')
    crowd.open_many(n, srv.http_port, '/stream?topic=' + channel, until=FIRST)
    srv.take()
    srv.publish(H.stream_item(channel, 'counted\n'))
    crowd.wait_text(b'counted\n')
    taken = srv.take()
    data = [p for name in FRONT[1:] for _, m in taken[name] for p in tap.packets(m)
            if tap.is_data(p) and p.get('body') == b'counted\n']
    assert len(data) == -(-n // 128), describe(taken)
    reached = [i for p in data for i in tap.ids(p)]
    assert len(reached) == len(set(reached)) == n


def test_session_keep_alives_go_in_groups(srv, crowd):
    """Idle streams cost few messages: what is due at about the same time shares a packet, so
    that their number follows the clock (about ten a second to a peer) and not the streams."""
    crowd.open_many(1500, srv.http_port, '/stream?topic=idle', until=FIRST)
    srv.take()
    srv.take_all()
    seconds = 8
    crowd.quiet(seconds)
    alive = [m for messages in srv.take_all().values() for m in messages if is_keep_alive(m)]
    reached = sum(len(tap.ids(p)) for m in alive for p in tap.packets(m[1]))
    assert reached >= 100, 'too few keep-alives: %d' % reached
    assert len(alive) <= 2 * 12 * seconds, '%d keep-alives in %d messages' % (reached, len(alive))


def test_credits_go_in_groups(srv, crowd):
    """After a publish to many the connection manager gives its credits back together."""
    crowd.open_many(1000, srv.http_port, '/stream?topic=credits', until=FIRST)
    srv.take()
    for n in range(20):
        srv.publish(H.stream_item('credits', 'x' * 90 + ' %d.\n' % n))
    crowd.wait_text(b' 19.\n')
    back = [m for m in srv.take()['connmgr-out-stream'] if not m[0]]
    credits = [p for m in back for p in tap.packets(m[1]) if p.get('type') == b'credit']
    assert len(back) <= 400, '%d messages with %d credit packets for 20 publishes to 1,000' % (len(back), len(credits))
