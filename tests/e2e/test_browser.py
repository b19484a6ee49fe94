"""A real browser before the server: event streams, streamed answers and WebSockets."""

import threading

import pytest

import kit
from browser import Browser
from kit import H

# Both ends of a WebSocket are looked at: what the browser got, and what the backend sent.
LONG = 'all work and no play ' * 500


@pytest.fixture(scope='module')
def srv():
    s = kit.Server(conf={'runner': {'allow_compression': 'true'}})
    yield s
    s.stop()


@pytest.fixture(scope='module')
def browser(srv):
    ep = srv.origin.endpoint(H.R('<!doctype html><title>test</title>', headers=[('Content-Type', 'text/html')]))
    b = Browser()
    b.open('http://localhost:%d%s' % (srv.http_port, ep.path))
    yield b
    b.close()


@pytest.fixture
def ep(srv):
    return srv.origin.endpoint()


def test_event_source(srv, browser, ep):
    """An EventSource sees the first event, keep-alives do not disturb it, and each publish comes once."""
    ep.handler = H.hold_stream(ep.channel, 'data: welcome\n\n', ctype='text/event-stream',
                               extra=[('Grip-Keep-Alive', ':\\n\\n; format=cstring; timeout=1')])
    browser.run('''new Promise((done, fail) => {
        window.got = [];
        window.source = new EventSource("%s");
        source.onmessage = e => { got.push(e.data); if (got.length == 1) done(); };
        source.onerror = () => fail(new Error("the stream broke"));
    })''' % ep.path)
    srv.wait_sub(ep.channel)
    for n in range(3):
        srv.publish(H.stream_item(ep.channel, 'data: message %d\n\n' % n))
    got = browser.run('''new Promise(done => {
        const look = () => got.length >= 4 ? done(got) : setTimeout(look, 20); look(); })''')
    assert got == ['welcome', 'message 0', 'message 1', 'message 2']
    # Over two keep-alives nothing more comes, and the stream is still open.
    assert browser.run('''new Promise(done => setTimeout(() => done([got.length, source.readyState]), 2500))''') == [4, 1]
    browser.run('source.close()')


def test_event_source_comes_back(srv, browser, ep):
    """After the publisher ended the stream the browser asks again, with the last id it saw."""
    ep.handler = H.hold_stream(ep.channel, 'retry: 50\nid: 7\ndata: first\n\n', ctype='text/event-stream')
    browser.run('''new Promise(done => {
        window.opened = 0;
        window.source = new EventSource("%s");
        source.onmessage = () => { opened += 1; if (opened == 1) done(); };
    })''' % ep.path)
    srv.wait_sub(ep.channel)
    srv.publish({'channel': ep.channel, 'formats': {'http-stream': {'action': 'close'}}})
    again = ep.wait(2)[1]
    assert again.get('Last-Event-ID') == '7'
    browser.run('source.close()')


def test_fetch_reads_a_stream_piece_by_piece(srv, browser, ep):
    """Each piece that the backend sends is there before it sends the next."""
    seen = [threading.Event() for _ in range(4)]

    def handler(q):
        q.conn.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        for n, event in enumerate(seen):
            q.conn.chunk(b'piece %d\n' % n)
            assert event.wait(20)
        q.conn.end_chunks()
        return H.KEEP

    ep.handler = handler
    browser.run('''fetch("%s").then(r => { window.reader = r.body.getReader(); window.text = "";
        window.upTo = mark => reader.read().then(({done, value}) => {
            text += done ? "(end)" : new TextDecoder().decode(value);
            return text.includes(mark) ? text : upTo(mark); }); })''' % ep.path)
    for n, event in enumerate(seen):
        assert browser.run('upTo("piece %d\\n")' % n) == ''.join('piece %d\n' % i for i in range(n + 1))
        event.set()
    assert browser.run('upTo("(end)")').endswith('piece 3\n(end)')
    assert not ep.errors


def test_fetch_posts_a_large_body(browser, ep):
    ep.handler = lambda q: H.R('%d %s' % (len(q.body), q.body[-3:].decode()))
    assert browser.run('''fetch("%s", {method: "POST", body: "x".repeat(3000000) + "end"})
        .then(r => r.text())''' % ep.path) == '3000003 end'


def echo(q):
    q.conn.accept_ws(q)
    while True:
        f = q.conn.recv_frame(30)
        q.conn.send_frame(f.opcode, f.payload, f.fin)
        if f.opcode == H.CLOSE:
            return H.TAKEN


def socket_script(srv, path, messages):
    return '''new Promise((done, fail) => {
        const got = [], socket = new WebSocket("ws://localhost:%d%s");
        socket.binaryType = "arraybuffer";
        socket.onopen = () => { %s };
        socket.onmessage = e => {
            got.push(typeof e.data == "string" ? e.data : Array.from(new Uint8Array(e.data)));
            if (got.length == %d) socket.close(4001, "enough");
        };
        socket.onclose = e => done([got, e.code, e.reason, e.wasClean, socket.extensions]);
        socket.onerror = () => fail(new Error("the socket broke"));
    })''' % (srv.http_port, path, ' '.join('socket.send(%s);' % m for m in messages), len(messages))


def test_web_socket_with_compression(srv, browser, ep):
    """The browser offers compression by itself; every byte comes back, and the close is clean."""
    ep.handler = echo
    messages = ['"short"', '"%s"' % LONG, '"\\u00e4\\u20ac\\ud83d\\ude00"', 'new Uint8Array([0, 1, 254, 255])', '""']
    got, code, reason, clean, extensions = browser.run(socket_script(srv, ep.path, messages))
    assert got == ['short', LONG, '\u00e4\u20ac\U0001f600', [0, 1, 254, 255], '']
    assert (code, reason, clean) == (4001, 'enough', True)
    assert 'permessage-deflate' in extensions
    # Compression is between browser and server only.
    assert 'deflate' not in (ep.last.get('Sec-WebSocket-Extensions') or '')


def test_web_socket_that_the_backend_refuses(srv, browser, ep):
    ep.handler = H.R('no', 403)
    assert browser.run('''new Promise(done => {
        const socket = new WebSocket("ws://localhost:%d%s");
        socket.onopen = () => done("open");
        socket.onclose = e => done([e.code, e.wasClean]);
    })''' % (srv.http_port, ep.path)) == [1006, False]
