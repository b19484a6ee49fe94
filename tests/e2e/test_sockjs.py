"""SockJS through the whole server: the client library under node and in a browser, sessions in several workers."""

import concurrent.futures
import json
import os
import subprocess

import pytest

import kit
from browser import Browser
from kit import H

LIBRARIES = ('sockjs-client-1.0', 'sockjs-client')     # the first of its protocol, and the last
ROUTES = ('over.test,sockjs=/sj,sockjs_as_path=/app {o},over_http\n'
          'ws.test,sockjs=/sj,sockjs_as_path=/app {o}\n'
          'localhost,path_beg=/sj,sockjs=/sj,sockjs_as_path=/app {o}\n'
          'localhost {o}\n'
          '* {o}\n')


def over_http(q):
    out = []
    for kind, data in q.events():
        if kind == 'OPEN':
            out.append((kind, None))
        elif kind == 'TEXT':
            out.append(('CLOSE', b'\x0f\xa1over') if data == b'close' else (kind, b'm:echo ' + data))
        elif kind == 'CLOSE':
            out.append((kind, data))
    return H.R(H.woh_encode(out), headers=[('Content-Type', 'application/websocket-events'),
                                           ('Sec-WebSocket-Extensions', 'grip')])


def echo(q):
    q.conn.accept_ws(q)
    message = b''
    while True:
        f = q.conn.recv_frame(60)
        if f.opcode == H.PING:
            q.conn.send_frame(H.PONG, f.payload)
        elif f.opcode == H.CLOSE:
            q.conn.send_frame(H.CLOSE, f.payload)
            return H.TAKEN
        else:
            message += f.payload
            if f.fin and message == b'close':
                q.conn.send_close(4001, b'over')
            elif f.fin:
                q.conn.send_text(b'echo ' + message)
            if f.fin:
                message = b''


def app(q):
    return over_http(q) if q.method == 'POST' else echo(q)


@pytest.fixture(scope='module', params=['plain', 'workers'])
def srv(request):
    conf = {'proxy': {'sockjs_url': '/sockjs.min.js'}}
    s = kit.Server(routes=ROUTES, conf=kit.merge(kit.topology_conf(request.param), conf))
    s.origin.endpoint(app, path='/app')
    yield s
    s.stop()


def node(srv, library, host, transport, ask_close=False):
    """What the client library tells; `host` names the route, by a name that means this machine."""
    script = os.path.join(os.path.dirname(__file__), 'sockjs_client.js')
    url = 'http://%s:%d/sj' % (host, srv.http_port)
    env = dict(os.environ, **({'ASK_CLOSE': '1'} if ask_close else {}))
    done = subprocess.run(['node', script, os.path.join(kit.NODE_MODULES, library), url, transport], env=env, capture_output=True, text=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()] or done.stderr


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('transport', ['websocket', 'xhr-polling'])
def test_library_under_node(srv, library, transport):
    said = node(srv, library, 'localhost', transport)
    assert said == [['open', transport]] + [['message', True]] * 5 + [['close', 3001, 'enough']]
    said = node(srv, library, 'localhost', transport, ask_close=True)
    assert said[-1] == ['close', 4001, 'over'], said


def http(srv, method, path, body=None, headers=(), host='over.test'):
    with H.Http(srv.http_port, 40) as c:
        c.request(method, path, list(headers), body, host=host)
        return c.response()


@pytest.mark.parametrize('host', ['over.test', 'ws.test'])
def test_many_sessions_on_many_connections(srv, host):
    """Every request comes over a connection of its own, so to whichever worker."""
    def session(n):
        path = '/sj/0/' + H.unique('s')
        assert http(srv, 'POST', path + '/xhr', host=host).body == b'o\n'
        for m in range(3):
            sent = http(srv, 'POST', path + '/xhr_send', json.dumps(['%d %d' % (n, m)]), host=host)
            assert (sent.status, sent.body) == (200, b'ok')
            assert http(srv, 'POST', path + '/xhr', host=host).body == b'a["echo %d %d"]\n' % (n, m)
        http(srv, 'POST', path + '/xhr_send', '["close"]', host=host)
        ends = {http(srv, 'POST', path + '/xhr', host=host).body for _ in range(2)}
        assert ends == {b'c[4001,"over"]\n'}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(session, range(40)))


def test_published_messages_reach_a_poll(srv):
    channel = H.unique('ch')

    def subscriber(q):
        out = [(kind, None) for kind, _ in q.events() if kind == 'OPEN']
        out += [('TEXT', b'c:' + json.dumps({'type': 'subscribe', 'channel': channel}).encode())]
        return H.R(H.woh_encode(out), headers=[('Content-Type', 'application/websocket-events'),
                                               ('Sec-WebSocket-Extensions', 'grip')])
    path = '/sj/0/' + H.unique('s')
    srv.origin.endpoint(subscriber, path='/app')
    try:
        assert http(srv, 'POST', path + '/xhr').body == b'o\n'
    finally:
        srv.origin.endpoint(app, path='/app')
    srv.wait_sub(channel)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        poll = pool.submit(http, srv, 'POST', path + '/xhr')
        srv.publish(H.ws_item(channel, 'new\u20ac'))
        assert poll.result().body == 'a["new\u20ac"]\n'.encode()


@pytest.mark.parametrize('transport', ['websocket', 'xhr-polling', 'jsonp-polling', 'iframe-xhr-polling'])
def test_library_in_a_browser(srv, transport):
    with open(os.path.join(kit.NODE_MODULES, 'sockjs-client', 'dist', 'sockjs.min.js'), 'rb') as f:
        script = f.read()
    srv.origin.endpoint(H.R(script, headers=[('Content-Type', 'application/javascript')]), path='/sockjs.min.js')
    page = srv.origin.endpoint(H.R('<!doctype html><title>test</title><script src="/sockjs.min.js"></script>',
                                   headers=[('Content-Type', 'text/html')]))
    b = Browser()
    try:
        b.open('http://127.0.0.1:%d%s' % (srv.http_port, page.path))
        got = b.run('''new Promise((done, fail) => {
            const got = [], socket = new SockJS('http://localhost:%d/sj', null, {transports: ['%s'], timeout: 20000});
            const texts = ['a b+c', '\\u00e4\\u2028"', 'end'];
            socket.onopen = () => { got.push(socket.transport); socket.send(texts[0]); };
            socket.onmessage = e => {
                got.push(e.data == 'echo ' + texts[got.length - 1]);
                if (got.length > texts.length) socket.close(); else socket.send(texts[got.length - 1]);
            };
            socket.onclose = e => { got.push(e.code); done(got); };
        })''' % (srv.http_port, transport))
    finally:
        b.close()
    assert got == [transport, True, True, True, 1000]
