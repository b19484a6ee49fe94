"""The examples of docs/backends.md, run as they stand there."""

import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import kit
from kit import H

TEXT = open(os.path.join(kit.ROOT, 'docs', 'backends.md')).read()
EXAMPLES = dict(re.findall(r'```python backend: (\w+)\n(.*?)```', TEXT, re.S))
PUBLISH = json.loads(re.search(r'```json publish\n(.*?)```', TEXT, re.S).group(1))


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        names = {'request_body': body}
        exec(EXAMPLES[self.path.strip('/')], {}, names)
        code, reason = names['status'].split(' ', 1)
        self.send_response(int(code), reason)
        for name, value in names['headers']:
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(names['body'])))
        self.end_headers()
        self.wfile.write(names['body'])

    do_GET = do_POST = answer

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def srv():
    backend = ThreadingHTTPServer((H.HOST, 0), Handler)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    port = backend.server_address[1]
    with kit.Server(routes='*,proto=ws 127.0.0.1:%d,over_http\n* 127.0.0.1:%d\n' % (port, port)) as s:
        yield s
    backend.shutdown()
    backend.server_close()


def test_stream(srv):
    with H.Http(srv.http_port) as c:
        c.request('GET', '/stream')
        assert c.read_head().status == 200
        assert c.stream(b'hello\n') == b'hello\n'
        srv.wait_sub('news')
        srv.publish(*PUBLISH['items'])
        assert c.stream(b'happened\n') == b'something happened\n'


def test_poll(srv):
    with H.Http(srv.http_port) as c:
        c.request('GET', '/poll')
        srv.wait_sub('news', 'response')
        srv.publish(*PUBLISH['items'])
        assert c.response().body == b'[1]\n'


def test_websocket(srv):
    with H.ws_connect(srv, '/websocket') as c:
        c.send_text('hi')
        assert c.recv_text() == 'heard'
        srv.wait_sub('news', 'ws')
        srv.publish(*PUBLISH['items'])
        assert c.recv_text() == 'something happened'
        c.send_close(1000)
        assert c.recv_frame().code == 1000
