"""A large body up and a large one down through the real programs: all of it arrives, and no process
holds more than a little of it, also when the reader is slow at first. FLOW_MB=1024 makes it a
gigabyte each way."""

import os
import signal
import socket
import threading
import time

import kit
from kit import H

SIZE = int(os.environ.get('FLOW_MB', '96')) << 20
PIECE = b'x' * (1 << 20)
MORE_MAX = 16 << 20     # bytes of memory that a process may get in addition


class Bulk:
    """A backend that counts what it gets, or sends as much."""

    def __init__(self):
        self.port = H.free_port()
        self.sock = socket.create_server((H.HOST, self.port))
        self.got = 0
        self.pause = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                s, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        with s:
            data = b''
            while b'\r\n\r\n' not in data:
                data += s.recv(65536)
            head, _, rest = data.partition(b'\r\n\r\n')
            if head.startswith(b'POST /up '):
                self.got = len(rest)
                time.sleep(self.pause)
                while self.got < SIZE:
                    n = len(s.recv(1 << 20))
                    if not n:
                        return
                    self.got += n
                s.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok')
            elif head.startswith(b'GET /down '):
                s.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % SIZE)
                for _ in range(SIZE // len(PIECE)):
                    s.sendall(PIECE)
            else:
                s.sendall(b'HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')

    def stop(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        H.release_port(self.port)


def peak(pid):
    """Most bytes of memory that a process has had."""
    with open('/proc/%d/status' % pid) as f:
        return next(int(x.split()[1]) << 10 for x in f if x.startswith('VmHWM'))


def peaks(srv):
    return {name: peak(kit.child(srv, name)) for name in ('pushpin-connmgr', 'pushpin-proxy')}


def check_memory(srv, before):
    for name, now in peaks(srv).items():
        print('%s: %d KB more' % (name, (now - before[name]) >> 10))
        assert now - before[name] < MORE_MAX, '%s: %d MB more' % (name, (now - before[name]) >> 20)


def test_large_bodies_each_way(started):
    bulk = Bulk()
    started.append(bulk)
    srv = kit.Server(routes='*,path_beg=/up {b}\n*,path_beg=/down {b}\n* {{o}}\n'.format(
        b='%s:%d' % (H.HOST, bulk.port)))
    started.append(srv)
    before = peaks(srv)

    bulk.pause = 1
    with H.Http(srv.http_port, timeout=60) as c:
        c.send(b'POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n' % SIZE)
        c.sock.settimeout(60)
        for _ in range(SIZE // len(PIECE)):
            c.sock.sendall(PIECE)
        assert c.response('POST', 60).status == 200
    assert bulk.got == SIZE
    check_memory(srv, before)

    with H.Http(srv.http_port, timeout=60) as c:
        c.send(b'GET /down HTTP/1.1\r\nHost: h\r\n\r\n')
        assert c.read_head(60).status == 200
        got = len(c.buf)
        time.sleep(1)
        c.sock.settimeout(60)
        while got < SIZE:
            n = len(c.sock.recv(1 << 20))
            assert n, 'ended behind %d bytes' % got
            got += n
    assert got == SIZE
    check_memory(srv, before)


def test_an_upload_waits_for_the_handler(started):
    """While the handler is asked about a request, its client can send only what is kept; then all of it
    goes on."""
    srv = kit.Server(routes='*,session {o}\n')
    started.append(srv)
    ep = srv.origin.endpoint()
    before = peaks(srv)
    body = os.urandom(48 << 20)
    handler = kit.child(srv, 'pushpin-handler')
    os.kill(handler, signal.SIGSTOP)
    try:
        with H.Http(srv.http_port, timeout=60) as c:
            c.send(b'POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n' % (ep.path.encode(), len(body)))
            c.sock.settimeout(60)
            c.sock.sendall(body[:50_000])
            rest = threading.Thread(target=c.sock.sendall, args=(body[50_000:],), daemon=True)
            rest.start()
            assert ep.stays(0, 1)
            assert rest.is_alive()
            os.kill(handler, signal.SIGCONT)
            assert c.response('POST', 60).status == 200
    finally:
        os.kill(handler, signal.SIGCONT)
    assert ep.one().body == body
    check_memory(srv, before)
