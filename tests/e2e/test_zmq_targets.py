"""Targets that are ZHTTP workers, written with pyzmq: requests and WebSockets, with one and with several workers of the proxy."""

import concurrent.futures
import threading

import pytest
import zmq

import kit
from kit import H


class Worker(threading.Thread):
    """A ZHTTP worker: answers requests, echoes on WebSockets. Responses leave by PUB."""

    def __init__(self, base):
        super().__init__(daemon=True)
        self.context = zmq.Context()
        self.pull, self.publish = self.context.socket(zmq.PULL), self.context.socket(zmq.PUB)
        self.router = self.context.socket(zmq.ROUTER)
        self.router.identity = b'worker'
        self.req = self.context.socket(zmq.REP)
        self.pull.connect(base + '-out')
        self.router.connect(base + '-out-stream')
        self.publish.connect(base + '-in')
        self.req.connect(base + '-req')
        self.seqs = {}
        self.over = threading.Event()
        self.start()

    def run(self):
        poller = zmq.Poller()
        for socket in (self.pull, self.router, self.req):
            poller.register(socket, zmq.POLLIN)
        while not self.over.is_set():
            for socket, _ in poller.poll(100):
                packet = H.tnet_loads(socket.recv_multipart()[-1][1:])
                if socket is self.req:
                    body = packet['method'] + b' ' + packet.get('body', b'')
                    socket.send(b'T' + H.tnet_dumps({b'id': packet['id'], b'code': 200, b'reason': b'OK', b'body': body}))
                else:
                    self.one(packet)
        for socket in (self.pull, self.router, self.publish, self.req):
            socket.close(0)
        self.context.term()

    def one(self, packet):
        ids = packet['id'] if isinstance(packet['id'], list) else [{'id': packet['id'], 'seq': packet['seq']}]
        for one in ids:
            self.take(packet, one['id'], one['seq'])

    def take(self, packet, id, seq):
        kind = packet.get('type', b'data')
        if seq == 0:
            self.seqs[id] = 0
            if packet['uri'].startswith(b'ws'):
                self.say(packet, id, {b'code': 101, b'reason': b'Switching Protocols', b'headers': [], b'credits': 200000})
            else:
                self.say(packet, id, {b'code': 200, b'reason': b'OK', b'headers': [[b'X-From', b'worker']],
                                      b'body': packet['uri'][-200:]})
        elif kind == b'data':
            self.say(packet, id, {b'content-type': packet['content-type'], b'body': b'echo ' + packet.get('body', b''),
                                  b'credits': len(packet.get('body', b''))})
        elif kind == b'close':
            self.say(packet, id, {b'type': b'close', b'code': packet['code']})

    def say(self, packet, id, fields):
        head = {b'from': b'worker', b'id': id, b'seq': self.seqs[id]}
        self.seqs[id] += 1
        self.publish.send(packet['from'] + b' T' + H.tnet_dumps({**head, **fields}))

    def stop(self):
        self.over.set()
        self.join(5)


@pytest.fixture(scope='module', params=['plain', 'workers'])
def srv(request, tmp_path_factory):
    base = 'ipc://%s/app' % tmp_path_factory.mktemp('zhttp')
    routes = 'z.test zhttp/%s\nr.test zhttpreq/%s-req\n* {o}\n' % (base, base)
    s = kit.Server(routes=routes, conf=kit.topology_conf(request.param))
    worker = Worker(base)
    # Until the proxy's SUB socket knows the worker's PUB socket, answers are lost.
    H.eventually(lambda: answers(s), 30)
    yield s
    worker.stop()
    s.stop()


def ask(srv, path, host='z.test', method='GET', body=None):
    with H.Http(srv.http_port, 10) as c:
        c.request(method, path, [], body, host=host)
        return c.response()


def answers(srv):
    try:
        with H.Http(srv.http_port, 1) as c:
            c.request('GET', '/first', host='z.test')
            return c.response().status == 200
    except (TimeoutError, H.Closed):
        return False


def test_requests(srv):
    """Each of them over a connection of its own, so by whichever worker of the proxy."""
    def one(n):
        r = ask(srv, '/path/%d?q' % n)
        assert (r.status, r.body) == (200, b'http://z.test/path/%d?q' % n)
        r = ask(srv, '/', 'r.test', 'POST', 'body %d' % n)
        assert (r.status, r.body) == (200, b'POST body %d' % n)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(60)))


def test_websockets(srv):
    def one(n):
        with H.ws_connect(srv, '/ws/%d' % n, host='z.test') as c:
            for m in range(5):
                c.send_text('%d %d' % (n, m))
                assert c.recv_text() == 'echo %d %d' % (n, m)
            c.send_close(4000, b'')
            f = c.recv_frame(10)
            assert (f.opcode, f.payload[:2]) == (H.CLOSE, b'\x0f\xa0')
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(40)))


def test_nobody_is_there(tmp_path):
    s = kit.Server(routes='z.test,debug zhttp/ipc://%s/none\n* {o}\n' % tmp_path)
    try:
        r = ask(s, '/')
        assert (r.status, r.body) == (502, b'Error: zhttp service for route is unreachable.\n')
    finally:
        s.stop()
