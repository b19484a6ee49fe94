"""A process that asks a connection manager's client side for requests: the ZHTTP requester, and
backends that it may ask."""

import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

import zmq

import kit
from kit import H


def three_ports():
    """The first of three free ports in a row."""
    while True:
        first = H.free_port()
        try:
            for port in (first + 1, first + 2):
                socket.create_server((H.HOST, port)).close()
            return first
        except OSError:
            continue


class Requester:
    """A connection manager in client mode, and the sockets of a process that uses it.

    `base` is the spec of its stream sockets; `binds` says that this end binds them. `env` is
    added to the environment, `files` limits the files that the program may open."""

    def __init__(self, *args, base=None, binds=False, workers=1, env=None, router=True, level=2):
        self.dir = tempfile.mkdtemp(prefix='pcl')
        self.log = os.path.join(self.dir, 'log')
        self.base = base or 'ipc://%s/c' % self.dir
        self.binds, self.router = binds, router
        self.context = zmq.Context()
        if binds:
            self.open_sockets()
        args = list(args) + (['--zserver-connect'] if binds else [])
        with open(self.log, 'wb') as out:
            self.proc = subprocess.Popen(
                [kit.program('pushpin-connmgr'), '--log-level=%d' % level, '--workers=%d' % workers,
                 '--zserver-stream=' + self.base, '--zserver-req=ipc://%s/req' % self.dir, *args],
                stdout=out, stderr=subprocess.STDOUT, env=dict(os.environ, **(env or {})), cwd=self.dir)
        if not binds:
            self.open_sockets()
        self.count = 0
        H.eventually(self.is_known, 10)

    def open_sockets(self):
        if self.base.startswith('ipc:'):
            first, further, out = self.base + '-in', self.base + '-in-stream', self.base + '-out'
        else:
            host, _, port = self.base.rpartition(':')
            first, further, out = ['%s:%d' % (host, int(port) + n) for n in range(3)]
        self.push = self.socket(zmq.PUSH, first)
        self.next = self.socket(zmq.ROUTER, further, b'me')
        self.sub = self.socket(zmq.SUB, out)
        self.req = self.socket(zmq.REQ, 'ipc://%s/req' % self.dir)

    def socket(self, kind, spec, identity=None):
        s = self.context.socket(kind)
        s.setsockopt(zmq.LINGER, 0)
        s.setsockopt(zmq.RCVTIMEO, 8000)
        if identity:
            s.setsockopt(zmq.IDENTITY, identity)
        if kind == zmq.SUB:
            s.setsockopt(zmq.SUBSCRIBE, b'me ')
        (s.bind if self.binds else s.connect)(spec)
        return s

    def is_known(self):
        """Whether an answer comes by each of the ways that are used: all ends are up."""
        for router in (True, False):
            self.new_session()
            p = {'uri': 'x:', 'method': 'GET', 'stream': True, 'router-resp': router}
            self.push.send(self.packet(p))
            s = self.next if router else self.sub
            if not s.poll(300):
                return False
            packets = [parse(s.recv_multipart()[-1]) for _ in range(2)]
            if [p['id'] for p in packets] != [self.id] * 2:
                return False
        return True

    def new_session(self):
        self.count += 1
        self.id, self.seq = b'r%d' % self.count, 0
        return self.id

    def ask(self, uri, method='GET', **kw):
        """Sends a first packet."""
        self.new_session()
        p = {'uri': uri, 'method': method, 'headers': [], 'stream': True, 'credits': 100000,
             'router-resp': self.router}
        p.update({k.replace('_', '-'): v for k, v in kw.items()})
        self.push.send(self.packet(p))
        return self.id

    def packet(self, p, id=None, seq=None):
        p = dict({'from': b'me', 'id': self.id if id is None else id, 'seq': self.seq if seq is None else seq}, **p)
        if seq is None:
            self.seq += 1
        return b'T' + H.tnet_dumps(p)

    def send(self, **kw):
        """Sends a further packet."""
        self.forward(self.packet({k.replace('_', '-'): v for k, v in kw.items()}))

    def forward(self, packet, instance=b'connmgr'):
        self.next.send_multipart([instance, b'', packet])

    def receive(self):
        """The next packet, whichever it is."""
        if self.router:
            frames = self.next.recv_multipart()
            assert len(frames) == 3 and frames[:2] == [b'connmgr', b''], frames
        else:
            frames = self.sub.recv_multipart()
            assert len(frames) == 1 and frames[0].startswith(b'me T'), frames
        return parse(frames[-1])

    def take(self):
        """The next packet that is not about the flow alone."""
        while True:
            p = self.receive()
            if H.text(p.get('type')) not in ('keep-alive', 'credit'):
                return p

    def is_quiet(self, ms):
        return not (self.next if self.router else self.sub).poll(ms)

    def error(self):
        p = self.take()
        assert H.text(p.get('type')) == 'error', p
        return H.text(p['condition'])

    def whole(self):
        head = p = self.take()
        body = p.get('body', b'')
        while p.get('more'):
            p = self.take()
            body += p.get('body', b'')
        return head, body

    def collect(self, ids):
        """The answers of these sessions, which may come in any order, as id to (code, body)."""
        got, open_ids = {id: (None, b'') for id in ids}, set(ids)
        while open_ids:
            p = self.take()
            assert 'type' not in p, p
            code, body = got[p['id']]
            got[p['id']] = (p.get('code', code), body + p.get('body', b''))
            if not p.get('more'):
                open_ids.remove(p['id'])
        return got

    def logged(self):
        with open(self.log, errors='replace') as f:
            return f.read()

    def stop(self):
        self.context.destroy(0)
        self.proc.terminate()
        code = self.proc.wait(8)
        shutil.rmtree(self.dir)
        assert code == 0


def parse(message):
    """A packet, perhaps behind the name of who it is for."""
    return H.tnet_loads(message[message.index(b'T') + 1:])


class Backend:
    """Answers each connection with the same bytes once the request holds `until`, and `go` is set."""

    def __init__(self, answer, until=b'\r\n\r\n', tls=None, waits=False, host='127.0.0.1'):
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        self.answer, self.until, self.tls, self.got, self.asked = answer, until, tls, b'', 0
        self.go, self.left = threading.Event(), threading.Event()
        if not waits:
            self.go.set()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        try:
            c.settimeout(8)
            c = self.tls.wrap_socket(c, server_side=True) if self.tls else c
            got = b''
            while self.until not in got:
                data = c.recv(65536)
                if not data:
                    return
                got += data
            self.got = got
            self.asked += 1
            while not self.go.wait(0.05):
                if self.is_gone(c):
                    self.left.set()
                    return
            c.sendall(self.answer)
        except OSError:
            pass
        finally:
            c.close()

    @staticmethod
    def is_gone(c):
        c.setblocking(False)
        try:
            return c.recv(1) == b''
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            c.settimeout(8)

    def url(self, scheme='http', host='127.0.0.1'):
        return '%s://%s:%d/p?q=1' % (scheme, host, self.port)


OK = b'HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello'


class Authority:
    """Issues certificates; `ca` is the file of its own."""

    def __init__(self, dir, name='ca'):
        self.dir, self.name = str(dir), name
        self.ca = self.path(name + '.crt')
        self.openssl('req', '-x509', *self.new_key(name), '-out', self.ca, '-subj', '/CN=Test CA ' + name)

    def path(self, name):
        return os.path.join(self.dir, name)

    def openssl(self, *args):
        subprocess.run(['openssl', *args], check=True, capture_output=True)

    def new_key(self, name):
        return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
                '-keyout', self.path(name + '.key')]

    def issue(self, host):
        """Certificate and key files for a host or a client of this name."""
        cert, key, ext = [self.path(host + e) for e in ('.crt', '.key', '.ext')]
        with open(ext, 'w') as f:
            f.write('subjectAltName=DNS:%s\nbasicConstraints=CA:FALSE\n' % host)
        self.openssl('req', *self.new_key(host), '-out', self.path('csr'), '-subj', '/CN=' + host)
        self.openssl('x509', '-req', '-in', self.path('csr'), '-CA', self.ca, '-CAkey', self.path(self.name + '.key'),
                     '-CAcreateserial', '-out', cert, '-extfile', ext)
        return cert, key

    def server(self, host, clients=None):
        """TLS for a backend of this name; `clients`: the authority whose clients it takes alone."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*self.issue(host))
        if clients:
            tls.verify_mode = ssl.CERT_REQUIRED
            tls.load_verify_locations(clients.ca)
        return tls

    def client(self, name):
        """Certificate and key of a client, as packets carry them."""
        texts = []
        for path in self.issue(name):
            with open(path, 'rb') as f:
                texts.append(f.read())
        return {'client_cert': texts[0], 'client_key': texts[1]}
