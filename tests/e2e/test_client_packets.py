"""The connection manager's client mode on its ZeroMQ sockets: ways, workers, order, limits, and
what is logged (`spec/zhttp.md §8`, §12)."""

import re
import signal
import time

import pytest
import zmq

from kit import H
from test_connmgr_options import scrape
from requester import OK, Backend, Requester, parse, three_ports


@pytest.fixture(params=[1, 4], ids=['one-worker', 'four-workers'])
def asks(request):
    r = Requester(workers=request.param)
    yield r
    r.stop()


def check(r, n=20):
    """Many requests at the same time."""
    b = Backend(OK)
    got = r.collect([r.ask(b.url()) for _ in range(n)])
    assert set(got.values()) == {(200, b'hello')} and b.asked == n


# ------------------------------------------------------------------------ ways

@pytest.mark.parametrize('binds', [False, True], ids=['connects', 'binds'])
@pytest.mark.parametrize('scheme', ['ipc', 'tcp'])
@pytest.mark.parametrize('router', [True, False], ids=['router', 'pub'])
def test_addresses(scheme, binds, router, tmp_path):
    base = 'ipc://%s/base' % tmp_path if scheme == 'ipc' else 'tcp://127.0.0.1:%d' % three_ports()
    r = Requester(base=base, binds=binds, router=router)
    try:
        check(r)
        r.req.send(b'T' + H.tnet_dumps({'id': b'x', 'method': 'GET', 'uri': Backend(OK).url(), 'headers': []}))
        assert parse(r.req.recv())['body'] == b'hello'
    finally:
        r.stop()


def test_both_sides_in_one_process():
    """A client's request, held by the test, is an answer that the test asked for."""
    port = H.free_port()
    r = Requester('--listen=127.0.0.1:%d' % port, '--zclient-stream=ipc://server', workers=2)
    try:
        pull = r.socket(zmq.PULL, 'ipc://%s/server-out' % r.dir)
        further = r.socket(zmq.ROUTER, 'ipc://%s/server-out-stream' % r.dir, b'responder')
        r.ask('http://127.0.0.1:%d/loop' % port)
        p = parse(pull.recv())
        assert p['uri'] == b'http://127.0.0.1:%d/loop' % port
        answer = {'from': b'responder', 'id': p['id'], 'seq': 0, 'code': 200, 'reason': b'OK',
                  'headers': [], 'body': b'round'}
        further.send_multipart([b'connmgr', b'', b'T' + H.tnet_dumps(answer)])
        assert r.whole()[1] == b'round'
    finally:
        r.stop()


def test_further_parts_and_odd_envelopes_do_no_harm(asks):
    b = Backend(OK)
    asks.new_session()
    first = asks.packet({'uri': b.url(), 'method': 'GET', 'stream': True, 'credits': 100, 'router-resp': True})
    asks.push.send_multipart([first, b'more'])
    assert asks.whole()[1] == b'hello'
    asks.next.send_multipart([b'connmgr', b'no delimiter'])
    asks.next.send_multipart([b'connmgr', b'', b'T', b'too many'])
    check(asks, 5)


def test_req_mode_keeps_the_envelope(asks):
    b = Backend(OK)
    s = asks.socket(zmq.DEALER, 'ipc://%s/req' % asks.dir)
    packet = b'T' + H.tnet_dumps({'id': b'x', 'method': 'GET', 'uri': b.url(), 'headers': []})
    s.send_multipart([b'one', b'two', b'', packet])
    frames = s.recv_multipart()
    assert frames[:3] == [b'one', b'two', b''] and parse(frames[3])['code'] == 200
    # An id is not needed.
    s.send_multipart([b'', b'T' + H.tnet_dumps({'method': 'GET', 'uri': b.url(), 'headers': []})])
    p = parse(s.recv_multipart()[-1])
    assert p['code'] == 200 and 'id' not in p
    s.send_multipart([b'%d' % n for n in range(12)] + [b'', packet])
    s.send_multipart([b'', packet])
    assert parse(s.recv_multipart()[-1])['code'] == 200


# ---------------------------------------------------------------- order, limits

def test_packets_that_overtake_the_first(asks):
    b = Backend(OK, until=b'0\r\n\r\n')
    asks.new_session()
    first = asks.packet({'uri': b.url(), 'method': 'POST', 'stream': True, 'router-resp': True,
                         'more': True, 'body': b'body'})
    asks.send(type='credit', credits=5)
    # The end of the body needs no credits.
    asks.send()
    time.sleep(0.2)
    asks.push.send(first)
    assert asks.whole()[1] == b'hello'
    assert b.got.endswith(b'4\r\nbody\r\n0\r\n\r\n')


def test_one_packet_for_sessions_of_all_workers(asks):
    b = Backend(OK, waits=True)
    ids = [asks.ask(b.url()) for _ in range(40)]
    H.eventually(lambda: b.asked == 40, 8)
    ended, rest = ids[:20], ids[20:]
    asks.forward(asks.packet({'type': 'cancel'}, id=[{'id': id, 'seq': 1} for id in ended], seq=0))
    assert b.left.wait(8)
    b.go.set()
    assert set(asks.collect(rest).values()) == {(200, b'hello')}


def test_requests_beyond_the_limit_wait():
    r = Requester('--stream-maxconn=4', '--req-maxconn=4', workers=4)
    try:
        b = Backend(OK, waits=True)
        ids = [r.ask(b.url()) for _ in range(7)]
        H.eventually(lambda: b.asked == 4, 8)
        time.sleep(0.3)
        assert b.asked == 4
        b.go.set()
        assert set(r.collect(ids).values()) == {(200, b'hello')}
        assert b.asked == 7
    finally:
        r.stop()


# ---------------------------------------------------------------------- the end

def test_requester_that_left(asks):
    b = Backend(OK, waits=True)
    asks.ask(b.url())
    H.eventually(lambda: b.asked == 1, 8)
    asks.next.close()
    assert b.left.wait(8)


def test_sessions_are_cancelled_at_the_end(asks):
    b = Backend(OK, waits=True)
    ids = [asks.ask(b.url()) for _ in range(20)]
    H.eventually(lambda: b.asked == 20, 8)
    asks.proc.terminate()
    told = set()
    while len(told) < 20:
        p = asks.take()
        assert H.text(p['type']) == 'cancel', p
        told |= {p['id']} if isinstance(p['id'], bytes) else {e['id'] for e in p['id']}
    assert told == set(ids) and asks.proc.wait(8) == 0


# ------------------------------------------------------------------------- logs

def test_what_is_wrong_is_logged():
    r = Requester()
    try:
        good = {'uri': 'http://127.0.0.1:1/', 'method': 'GET', 'from': b'me', 'id': b'x', 'seq': 0}

        def first(lack=None, **kw):
            p = dict(good, **kw)
            p.pop(lack, None)
            r.push.send(b'T' + H.tnet_dumps(p))
        headers = [['A', 'b']] * 65
        ids = [{'id': b'i%d' % n, 'seq': 0} for n in range(129)]
        for send, line in [
            (lambda: first(id=ids[:2]), 'packet did not contain exactly one id, skipping'),
            (lambda: first(lack='id'), 'packet did not contain exactly one id, skipping'),
            (lambda: first(seq=1), 'received message with seq != 0 as first message, skipping'),
            (lambda: first(type='credit'), 'received non-data message as first message, skipping'),
            (lambda: first(**{'from': b'x' * 65}), 'from address too long, skipping'),
            (lambda: first(id=b'x' * 65), 'request id too long, skipping'),
            (lambda: first(lack='from'), 'unable to determine packet address'),
            (lambda: first(id=ids), 'zhttp parse error: too many ids'),
            (lambda: first(headers=headers), 'zhttp parse error: too many headers'),
            (lambda: first(headers=[['A']]), 'zhttp parse error: header item must have size 2'),
            (lambda: first(id=7), 'zhttp parse error: id must be of type map or string'),
            (lambda: first(seq=-1), 'zhttp parse error: seq must not be negative'),
            (lambda: first(credits=b'x'), 'zhttp parse error: credits must be of type int'),
            (lambda: first(uri=b'\xff'), 'zhttp parse error: uri must be a utf-8 string'),
            (lambda: r.push.send(b'J{}'), 'zhttp parse error: unrecognized data format'),
            (lambda: r.push.send(b'T1:x,'), 'zhttp parse error: wrong type string, expected map'),
            (lambda: r.push.send(b'T100:'), 'zhttp parse error: unexpected eof'),
            (lambda: r.push.send(b'Tx:'), 'zhttp parse error: invalid data'),
        ]:
            before = r.logged()
            send()
            H.eventually(lambda: '[WARN]' in r.logged()[len(before):], 5)
            said = r.logged()[len(before):].splitlines()[0]
            assert said.endswith('client-worker 0: ' + line), said
        r.req.send(b'T' + H.tnet_dumps(dict(good, id=ids[:2])))
        H.eventually(lambda: 'client-worker 0: request contained more than one id, skipping' in r.logged(), 5)
        r.next.send_multipart([b'connmgr', b'x', b'T'])
        H.eventually(lambda: r.logged().count('unable to determine packet address') == 2, 5)
    finally:
        r.stop()


def test_a_gap_is_logged_with_the_session(asks):
    b = Backend(OK, waits=True)
    asks.ask(b.url())
    H.eventually(lambda: b.asked == 1, 8)
    asks.seq = 5
    asks.send(type='credit', credits=1)
    assert b.left.wait(8)
    line = r'\[WARN\] .* client-conn \d+-\d+-[0-9a-f]+: bad seq \(expected 1, got 5\), skipping'
    H.eventually(lambda: re.search(line, asks.logged()), 5)


def test_packets_are_traced():
    r = Requester(level=4)
    try:
        b = Backend(OK, waits=True)
        r.ask(b.url(), 'POST', body=b'sent')
        r.send(type='credit', credits=5)
        b.go.set()
        r.whole()
        r.req.send(b'T' + H.tnet_dumps({'id': b'x', 'method': 'GET', 'uri': b.url(), 'headers': []}))
        r.req.recv()
        for line in (r'IN server stream \{.*"method": "POST".*\} 4 "sent"', r'IN server stream next \{.*"credit"',
                     r'OUT server stream to=me \{.*"keep-alive"', r'OUT server stream to=me \{.*\} 5 "hello"',
                     r'OUT server stream \{', r'IN server req \{', r'OUT server req \{'):
            H.eventually(lambda: re.search(line, r.logged()), 5)
    finally:
        r.stop()


# ---------------------------------------------------------------------- counters

@pytest.mark.parametrize('workers', [1, 4])
def test_drops_are_counted_by_cause(workers):
    port = H.free_port()
    r = Requester('--prometheus=127.0.0.1:%d' % port, workers=workers)
    try:
        before = scrape(port)
        b = Backend(OK, waits=True)
        r.push.send(b'J{}')
        r.next.send_multipart([b'connmgr', b'x', b'T'])
        r.new_session()
        r.push.send(r.packet({'type': 'credit', 'credits': 1}))
        r.send(type='credit', credits=1)
        gap = r.ask(b.url())
        H.eventually(lambda: b.asked == 1, 8)
        r.forward(r.packet({'type': 'credit', 'credits': 1}, id=gap, seq=7))
        over = r.ask(b.url(), 'POST', more=True)
        H.eventually(lambda: b.asked == 2, 8)
        r.forward(r.packet({'body': b'x' * 1_000_000, 'more': True}, id=over, seq=1))
        r.ask(b.url())
        H.eventually(lambda: b.asked == 3, 8)

        def grew():
            now = scrape(port)
            return {name: int(now[name]) - int(before[name]) for name in now if name.startswith('connmgr_client_')}
        drop = 'connmgr_client_drops_total{cause="%s"}'
        want = {'malformed_packet': 2, 'bad_first_packet': 1, 'bad_seq': 1, 'too_many_bytes': 1}
        H.eventually(lambda: all(grew()[drop % cause] == n for cause, n in want.items()), 8)
        got = grew()
        assert got['connmgr_client_requests_total'] == 3
        assert got['connmgr_client_connects_total'] == 3
        assert scrape(port)['connmgr_client_connections{state="busy"}'] == '1'
        assert got['connmgr_client_responses_total{outcome="failed"}'] == 1
        assert got['connmgr_client_sessions{mode="stream"}'] == 1
        r.proc.send_signal(signal.SIGUSR1)
        H.eventually(lambda: 'dump: end' in r.logged(), 8)
        assert re.search(r'client-worker \d: sessions: stream=1 req=0$', r.logged(), re.M), r.logged()
        assert re.search(r'client-worker \d: ClientCounters \{.* bad_seq: 1,', r.logged())
        r.next.close()
        H.eventually(lambda: grew()[drop % 'peer_gone'] == 1, 8)
    finally:
        r.stop()
        H.release_port(port)
