"""The examples of docs/publishing.md, run as they stand there, but for the port numbers."""

import json
import os
import re
import subprocess
import sys

import pytest

import kit
from kit import H

PAGE = open(os.path.join(kit.ROOT, 'docs', 'publishing.md')).read()
EXAMPLES = {name: (kind, text) for kind, name, text in
            re.findall(r'```(sh|python|json) publish: (\w+)\n(.*?)```', PAGE, re.S)}

# What each example brings to a stream, a long poll and a WebSocket; None: nothing is asked of it.
HELLO = (b'hello\n', b'hello\n', 'hello')
BRINGS = {
    'command': (b'hello there\n', b'hello there\n', 'hello there'),
    'events': (b'event: message\ndata: hello\n\n',) * 2 + ('event: message\ndata: hello\n\n',),
    'curl': HELLO, 'socket': HELLO, 'push': HELLO, 'pub': HELLO, 'library': HELLO,
    'stream': (b'tick\n', None, None),
    'response': (None, b'made\n', None),
    'patch': (None, b'{"items":["first"]}', None),
    'close': (None, None, (1001, b'bye')),
    'sequence': (b'one\ntwo\nthree\n', None, None),
}


@pytest.fixture(scope='module')
def srv():
    with kit.Server(routes='*,proto=ws {o},over_http\n* {o}\n') as server:
        yield server


def run(srv, name):
    """The example, with the ports of this server in place of those of the sample configuration."""
    kind, text = EXAMPLES[name]
    ports = {'5560': srv.pull_port, '5561': srv.ctl_port, '5562': srv.sub_port, '5563': srv.cmd_port}
    text = re.sub(r'localhost:(\d+)', lambda m: '127.0.0.1:%d' % ports[m[1]], text)
    if kind == 'json':
        return srv.publish(*json.loads(text)['items'])
    command = ['bash', '-euc'] if kind == 'sh' else [sys.executable, '-c']
    env = dict(os.environ, PATH=':'.join([kit.PROGRAMS, os.path.dirname(sys.executable), os.environ['PATH']]),
               GRIP_URL='http://127.0.0.1:%d' % srv.ctl_port)
    done = subprocess.run([*command, text], env=env, cwd=kit.ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    if kind == 'sh':
        assert done.stdout == ('success: None\n' if name == 'socket' else 'Published\n')


def test_every_example_is_run():
    assert EXAMPLES.keys() == BRINGS.keys()


@pytest.mark.parametrize('name', [n for n, b in BRINGS.items() if b[0] is not None])
def test_stream(srv, name):
    ep = srv.origin.endpoint()
    ep.handler = H.hold_stream('news')
    with H.Http(srv.http_port) as client:
        client.request('GET', ep.path)
        client.read_head()
        client.stream(b'open\n')
        srv.wait_sub('news', 'stream')
        if name == 'sequence':
            srv.publish(dict(H.stream_item('news', 'one\n'), id='1'))
        run(srv, name)
        wanted = BRINGS[name][0]
        assert client.stream(wanted[-5:]) == wanted


@pytest.mark.parametrize('name', [n for n, b in BRINGS.items() if b[1] is not None])
def test_long_poll(srv, name):
    ep = srv.origin.endpoint()
    ep.handler = H.hold_response('news', body='{"items":[]}', ctype='application/json')
    with H.Http(srv.http_port) as client:
        client.request('GET', ep.path)
        srv.wait_sub('news', 'response')
        run(srv, name)
        answer = client.response()
        assert answer.body.replace(b' ', b'') == BRINGS[name][1].replace(b' ', b'')
        if name == 'response':
            assert answer.status == 201 and answer.headers.get('X-From') == 'publish'


@pytest.mark.parametrize('name', [n for n, b in BRINGS.items() if b[2] is not None])
def test_websocket(srv, name):
    ep = srv.origin.endpoint()
    subscribe = b'c:{"type": "subscribe", "channel": "news"}'

    def handler(req):
        body = b''
        if req.body.startswith(b'OPEN'):
            body = b'OPEN\r\nTEXT %x\r\n%s\r\n' % (len(subscribe), subscribe)
        return H.R(body, headers=[('Content-Type', 'application/websocket-events'),
                                  ('Sec-WebSocket-Extensions', 'grip')])
    ep.handler = handler
    with H.ws_connect(srv, ep.path) as client:
        srv.wait_sub('news', 'ws')
        run(srv, name)
        wanted = BRINGS[name][2]
        if isinstance(wanted, tuple):
            frame = client.recv_frame()
            assert (frame.code, frame.reason) == wanted
        else:
            assert client.recv_text() == wanted
