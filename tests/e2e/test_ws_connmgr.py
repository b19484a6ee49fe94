"""WebSockets of the connection manager: a client library and raw sockets against the program,
with a ZHTTP responder behind it."""

import contextlib
import os
import random
import socket

import pytest
import websockets.exceptions
from websockets.sync.client import connect

import kit
import wspeer
from kit import H

WORKERS = ['--workers=1', '--workers=3']


@pytest.fixture(params=WORKERS)
def echo(request, started):
    e = wspeer.Echo(request.param)
    started.append(e)
    return e


@pytest.fixture(params=[(), ('--compression-takeover',)], ids=['', 'takeover'])
def squeeze(request, started):
    e = wspeer.Echo('--workers=1', '--compression', *request.param)
    started.append(e)
    return e


def talk(c):
    rng = random.Random(7)
    for size in (0, 1, 125, 126, 8192, 65535, 65536, 300_000):
        text = ''.join(rng.choice('abcé') for _ in range(size))
        c.send(text)
        assert c.recv(timeout=20) == text
        noise = rng.randbytes(size)
        c.send(noise)
        assert c.recv(timeout=20) == noise
    c.send(['frag', 'mented', '', ' té', 'xt'])
    assert c.recv(timeout=5) == 'fragmented téxt'
    c.send(iter([b'', b'a' * 5000, b'b' * 5000]))
    assert c.recv(timeout=5) == b'a' * 5000 + b'b' * 5000
    assert c.ping(b'hello').wait(5)


def test_messages_of_any_size(echo):
    with connect(echo.url(), compression=None, max_size=None) as c:
        talk(c)


def test_compressed_messages_of_any_size(squeeze):
    with connect(squeeze.url(), max_size=None) as c:
        assert 'server_no_context_takeover' in c.response.headers['Sec-WebSocket-Extensions']
        talk(c)
        for _ in range(20):
            c.send('the same text again and again, ' * 30)
            assert c.recv(timeout=5) == 'the same text again and again, ' * 30
        c.send('pieces 5 1000')
        assert c.recv(timeout=5) == b'p' * 5000


def test_pings_of_the_peer(echo):
    with connect(echo.url(), compression=None) as c:
        c.send('ping x')
        c.send('done')
        assert c.recv(timeout=5) == 'done'
        H.eventually(lambda: echo.kinds('pong'))


@pytest.mark.parametrize('code,reason', [(1000, ''), (1001, 'bye'), (3000, 'é'), (4999, 'x' * 100)])
def test_close_codes_both_ways(started, code, reason):
    echo = wspeer.Echo('--workers=1')
    started.append(echo)
    with connect(echo.url(), compression=None) as c:
        c.close(code, reason)
        assert (c.close_code, c.close_reason) == (code, reason)
    with connect(echo.url(), compression=None) as c:
        c.send('close %d %s' % (code, reason))
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            c.recv(timeout=5)
        assert (c.close_code, c.close_reason) == (code, reason)
    assert not echo.kinds('cancel')


def test_cancel_of_the_peer_closes(echo):
    with connect(echo.url(), compression=None) as c:
        c.send('cancel')
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            c.recv(timeout=5)
        assert c.close_code == 1006


def test_refusal(echo):
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        connect(echo.url('/refuse'), compression=None)
    response = refused.value.response
    assert (response.status_code, response.headers['X-Why'], response.body) == (403, 'because', b'not you')


def raw(echo, frames, deflate=False):
    """Opens a WebSocket by hand, sends these bytes, and gives what comes until the end."""
    c = H.Ws(echo.port)
    c.open('/ws')
    c.send(frames)
    out = b''
    c.sock.settimeout(5)
    try:
        while True:
            got = c.sock.recv(65536)
            if not got:
                break
            out += got
    except (socket.timeout, ConnectionResetError):
        out += b' (not closed)'
    c.close()
    return out


@pytest.mark.parametrize('frames,code', [
    (b'\x81\x02hi', 1002), (b'\x83\x80abcd', 1002), (b'\xc1\x80abcd', 1002), (b'\x80\x80abcd', 1002),
    (b'\x89\xfe\x00\x7eabcd', 1002), (b'\x81\x81\0\0\0\0\xff', 1007), (b'\x88\x81\0\0\0\0x', 1002),
    (b'\x82\xff' + b'\xff' * 8 + b'abcd', 1002)],
    ids=['unmasked', 'opcode', 'rsv1', 'continuation', 'long-ping', 'utf8', 'close', 'length'])
def test_broken_rules_get_a_close_frame(started, frames, code):
    echo = wspeer.Echo('--workers=1')
    started.append(echo)
    assert raw(echo, frames) == b'\x88\x02' + code.to_bytes(2, 'big')
    H.eventually(lambda: echo.kinds('cancel'))


def test_a_large_message_is_refused_if_asked_for(started):
    echo = wspeer.Echo('--workers=1', '--compression', '--message-size-max=10000')
    started.append(echo)
    for compression in (None, 'deflate'):
        with connect(echo.url(), compression=compression) as c:
            c.send('x' * 10_000)
            assert c.recv(timeout=5) == 'x' * 10_000
            with pytest.raises(websockets.exceptions.ConnectionClosed):
                c.send('x' * 10_001)
                while True:
                    c.recv(timeout=5)
            assert c.close_code == 1009


def test_a_flood_of_empty_messages_comes_through(started):
    echo = wspeer.Echo('--workers=1')
    started.append(echo)
    c = H.Ws(echo.port)
    c.open('/ws')
    c.send(b'\x81\x80abcd' * 20_000)
    out = b''
    c.sock.settimeout(20)
    while len(out) < 40_000:
        out += c.sock.recv(65536)
    assert out == b'\x81\x00' * 20_000
    c.close()


def test_one_packet_for_many_sockets(started):
    echo = wspeer.Echo('--workers=3', '--compression')
    started.append(echo)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(echo.url(), compression='deflate' if n % 2 else None))
                   for n in range(40)]
        ids = list(echo.sessions)
        assert len(ids) == 40
        echo.send_many(ids, echo.sessions[ids[0]]['from'], body='to all of you, ' * 50)
        assert {c.recv(timeout=5) for c in clients} == {'to all of you, ' * 50}


def test_the_end_of_the_process_says_good_bye(echo):
    with connect(echo.url(), compression=None) as c:
        c.send('hi')
        assert c.recv(timeout=5) == 'hi'
        echo.proc.terminate()
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            c.recv(timeout=5)
        assert c.close_code == 1001
    H.eventually(lambda: echo.kinds('cancel'))


def test_idle_sockets_are_small(started):
    """At most 1 KB each with compression negotiated, also after they were used."""
    n = int(os.environ.get('IDLE_SOCKETS', '2000'))
    echo = wspeer.Echo('--workers=1', '--compression', '--stream-maxconn=%d' % (n + 200))
    started.append(echo)
    offer = [('Sec-WebSocket-Extensions', 'permessage-deflate')]

    def use(count):
        out = []
        for _ in range(count):
            c = H.Ws(echo.port)
            c.open('/ws', headers=offer)
            c.send_text('hello')
            assert c.recv_text() == 'hello'
            out.append(c)
        return out

    clients = use(100)
    before = echo.rss_kb()
    clients += use(n)
    grown = (echo.rss_kb() - before) * 1024
    print('%d bytes for each of %d sockets' % (grown / n, n))
    for c in clients:
        c.close()
    assert grown / n <= 1024
