"""What the end-to-end tests share: where the programs are, instances, crowds of clients.

Builds on the harness of the conformance suite (servers, origin, raw HTTP, publishing).
"""

import os
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(os.environ.get('CARGO_TARGET_DIR', os.path.join(ROOT, 'target')), 'release')

# The harness reads these when it starts a server.
if 'TARGET' not in os.environ:
    os.environ['TARGET'] = os.path.join(BUILD, 'pushpin')
    os.environ.setdefault('TARGET_BIN', BUILD)

sys.path.insert(0, os.path.join(ROOT, 'tests', 'conformance'))

import harness as H  # noqa: E402

HOST = H.HOST
PROGRAMS = os.path.dirname(os.path.realpath(H.target_path()))


def program(name):
    """Path of one of our programs, next to the one under test."""
    return os.path.join(PROGRAMS, name)


def raise_files():
    """Soft file limit up to the hard one; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


# ---------------------------------------------------------------- topologies

# Every way the work can be spread; the tests of everyday use run in each of them.
TOPOLOGIES = {
    'plain': {},
    'workers': {'connmgr_workers': 4, 'proxy_workers': 4, 'handler_workers': 4},
    'processes': {'connmgr_processes': 3},
    'both': {'connmgr_workers': 2, 'proxy_workers': 2, 'handler_workers': 2, 'connmgr_processes': 3},
}


def topology_conf(name):
    """Configuration keys of a topology."""
    t = TOPOLOGIES[name]
    conf = {'runner': {}, 'proxy': {}, 'handler': {}}
    for key in ('connmgr_workers', 'connmgr_processes'):
        if key in t:
            conf['runner'][key] = t[key]
    for section in ('proxy', 'handler'):
        if section + '_workers' in t:
            conf[section]['workers'] = t[section + '_workers']
    return conf


def merge(*confs):
    out = {}
    for c in confs:
        for section, kv in (c or {}).items():
            out.setdefault(section, {}).update(kv)
    return out


# ----------------------------------------------------------------- instances

class Server(H.Server):
    """Under the supervisor, without the harness's limits on deliveries per second."""

    def __init__(self, conf=None, **kw):
        free = {'handler': {'message_rate': None, 'message_hwm': None}}
        super().__init__(conf=merge(free, conf), **kw)


class Parts(Server):
    """The processes started one by one, without the supervisor. `parts` maps a name
    (connmgr or connmgr-0.., proxy, handler) to its process."""

    def __init__(self, connmgrs=1, base='connmgr', maxconn=3000, conf=None, trace=False, only=None, **kw):
        self.connmgrs, self.base, self.maxconn = connmgrs, base, maxconn
        self.level = 4 if trace else 2
        self.only = only
        self.parts = {}
        more = {'runner': {'client_maxconn': maxconn}}
        if connmgrs > 1:
            more['runner']['connmgr_processes'] = connmgrs
        super().__init__(conf=merge(more, conf), http_ports=max(connmgrs, 1), **kw)

    def names(self):
        if self.only:
            return list(self.only)
        front = ['connmgr'] if self.connmgrs == 1 else ['connmgr-%d' % i for i in range(self.connmgrs)]
        return front + ['proxy', 'handler']

    def command_of(self, name):
        if name.startswith('connmgr'):
            i = int(name.partition('-')[2] or 0)
            base = self.base if self.connmgrs == 1 else '%s-%d' % (self.base, i)
            return [program('pushpin-connmgr'), '--log-level=%d' % self.level, '--buffer-size=4096',
                    '--stream-maxconn=%d' % self.maxconn, '--id=' + name, '--workers=1',
                    '--listen=%s:%d,stream' % (HOST, self.http_ports[i]),
                    '--zclient-stream=' + self.ipc(base)]
        return [program('pushpin-' + name), '--config=' + self.conf_file,
                '--ipc-prefix=' + self.prefix, '--loglevel=%d' % self.level]

    def start(self):
        for name in self.names():
            self.start_part(name)
        self.proc = self.parts[self.names()[0]]
        if self.ready_wanted:
            self.wait_ready()

    def start_part(self, name):
        with open(os.path.join(self.logdir, name + '.log'), 'ab') as out:
            self.parts[name] = subprocess.Popen(self.command_of(name), stdout=out, stderr=subprocess.STDOUT,
                                                cwd=self.dir, start_new_session=True)
        if self.proc is not None and name == self.names()[0]:
            self.proc = self.parts[name]
        return self.parts[name]

    def kill_part(self, name):
        """kill -9; the time it was done."""
        p = self.parts.pop(name)
        at = time.monotonic()
        p.send_signal(signal.SIGKILL)
        p.wait(5)
        return at

    def halt(self):
        for name in list(self.parts):
            p = self.parts.pop(name)
            p.terminate()
            try:
                p.wait(6)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait(5)
        self.proc = None
        if os.path.isdir(self.dir) and not os.path.exists(os.path.join(self.dir, 'stdout')):
            open(os.path.join(self.dir, 'stdout'), 'w').close()
        super().halt()

    def logs(self):
        path = os.path.join(self.dir, 'stdout')
        if not os.path.exists(path):
            open(path, 'w').close()
        return super().logs()

    def all_logs(self):
        path = os.path.join(self.dir, 'stdout')
        if not os.path.exists(path):
            open(path, 'w').close()
        return super().all_logs()


def log_of(srv, name):
    """What a part (or a child of the supervisor) has logged."""
    out = ''
    for f in sorted(os.listdir(srv.logdir)):
        if name in f:
            with open(os.path.join(srv.logdir, f), errors='replace') as fh:
                out += fh.read()
    return out


def child(srv, program_name):
    """Process id of a child of the supervisor, by its program name."""
    for pid, _, cmdline in srv.children():
        if os.path.basename(cmdline.split(' ')[0]) == program_name:
            return pid
    raise AssertionError('no %s among %r' % (program_name, srv.children()))


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        with open('/proc/%d/stat' % pid) as f:
            text = f.read()
        return text[text.rindex(')') + 2] != 'Z'
    except OSError:
        return False


class Php:
    """The PHP backend of the scenario."""

    def __init__(self, dir):
        self.port = H.free_port()
        shutil.copy(os.path.join(ROOT, 'tests', 'e2e', 'stream.php'), dir)
        self.log = open(os.path.join(dir, 'php.log'), 'wb')
        self.proc = subprocess.Popen(['php', '-S', '%s:%d' % (HOST, self.port)], cwd=dir,
                                     stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        H.eventually(lambda: listens(self.port), 10)

    def stop(self):
        self.proc.terminate()
        self.proc.wait(5)
        self.log.close()
        H.release_port(self.port)


class Silent:
    """A backend that reads requests and never answers; one thread for all of them."""

    def __init__(self):
        self.count = 0
        self.sock = socket.create_server((HOST, 0), backlog=4096)
        self.port = self.sock.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.sock, selectors.EVENT_READ, None)
        self.stopping = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping:
            for key, _ in self.selector.select(0.1):
                if key.data is None:
                    conn, _ = self.sock.accept()
                    self.selector.register(conn, selectors.EVENT_READ, bytearray())
                else:
                    self.read(key.fileobj, key.data)

    def read(self, conn, seen):
        try:
            piece = conn.recv(65536)
        except OSError:
            piece = b''
        seen += piece
        if not piece:
            self.selector.unregister(conn)
            conn.close()
        elif b'\r\n\r\n' in seen:
            self.count += 1
            seen.clear()

    def requests(self):
        """Requests that came."""
        return self.count

    def stop(self):
        self.stopping = True
        self.thread.join(5)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


NODE_MODULES = os.path.join(os.path.dirname(BUILD), 'node', 'node_modules')


class App:
    """A backend of tests/e2e/apps, under Node with npm's packages or under Python. It gets its
    port, then `args`."""

    def __init__(self, dir, name, *args):
        self.port = H.free_port()
        path = os.path.join(ROOT, 'tests', 'e2e', 'apps', name)
        command = [sys.executable, path]
        if name.endswith('.mjs'):
            assert os.path.isdir(NODE_MODULES), '%s is missing: tests/run installs it' % NODE_MODULES
            # Node looks for packages beside the script.
            os.symlink(NODE_MODULES, os.path.join(dir, 'node_modules'))
            command = ['node', shutil.copy(path, dir)]
        self.log_file = os.path.join(dir, name + '.log')
        with open(self.log_file, 'wb') as log:
            self.proc = subprocess.Popen([*command, str(self.port), *map(str, args)], cwd=dir,
                                         stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        H.eventually(lambda: self.proc.poll() is not None or listens(self.port), 20)
        assert self.proc.poll() is None, open(self.log_file).read()

    def stop(self):
        self.proc.terminate()
        self.proc.wait(5)
        H.release_port(self.port)


def listens(port, host=HOST):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False


# -------------------------------------------------------------------- crowds

class Client:
    """One connection of a crowd and what came over it."""

    def __init__(self, crowd, number, port, request):
        self.crowd, self.number, self.request = crowd, number, request
        self.data = bytearray()
        self.mark = 0
        self.started = time.monotonic()
        self.closed_at = None
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sent = False
        self.sock.connect_ex((HOST, port))
        crowd.selector.register(self.sock, selectors.EVENT_WRITE, self)

    def has(self, what):
        """Whether it came since the last mark."""
        return self.data.find(what, self.mark) >= 0

    def drop(self, seen=False):
        """Close it from our side, or note that the other side did."""
        if self.sock is not None:
            self.crowd.selector.unregister(self.sock)
            self.sock.close()
            self.sock = None
            if seen:
                self.closed_at = time.monotonic()

    @property
    def open(self):
        return self.sock is not None

    def turn(self):
        try:
            if not self.sent:
                self.sock.sendall(self.request)
                self.sent = True
                self.crowd.selector.modify(self.sock, selectors.EVENT_READ, self)
                return
            piece = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            piece = b''
        if piece:
            self.data += piece
        else:
            self.drop(seen=True)


class Crowd:
    """Many clients in one thread. Nothing is checked while they are only held: call
    one of the wait functions, which read until it is so or time is over."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.clients = []

    def add(self, port, path='/', host='any.test', extra=''):
        head = 'GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n' % (path, host, extra)
        c = Client(self, len(self.clients), port, head.encode())
        self.clients.append(c)
        return c

    def pump(self, timeout=0.05):
        for key, _ in self.selector.select(timeout):
            if key.data.sock is not None:
                key.data.turn()

    def wait(self, done, timeout, what, clients=None):
        """Until done(client) held once for each of the clients; those for which it did not."""
        left = list(self.clients if clients is None else clients)
        deadline = time.monotonic() + timeout * H.FACTOR
        while left:
            left = [c for c in left if not done(c)]
            if not left or time.monotonic() > deadline:
                break
            self.pump()
        if left:
            c = left[0]
            raise AssertionError('%s: not for %d of %d clients in %.0f s; client %d: %s, %r' % (
                what, len(left), len(self.clients if clients is None else clients), timeout, c.number,
                'open' if c.open else 'closed', bytes(c.data[-300:])))

    def wait_text(self, text, timeout=20.0, clients=None):
        self.wait(lambda c: c.has(text), timeout, 'text %r' % text, clients)

    def wait_closed(self, timeout=20.0, clients=None):
        self.wait(lambda c: not c.open, timeout, 'closed by the server', clients)

    def open_many(self, n, port, path, until, pending=64, timeout=60.0, host='any.test'):
        """n clients, at most `pending` waiting for `until`; path and port may be functions
        of the number."""
        deadline = time.monotonic() + timeout * H.FACTOR
        made, waiting = [], []
        while len(made) < n or waiting:
            while len(made) < n and len(waiting) < pending:
                i = len(made)
                c = self.add(port(i) if callable(port) else port, path(i) if callable(path) else path, host)
                made.append(c)
                waiting.append(c)
            self.pump(0.01)
            for c in waiting:
                if not c.open:
                    raise AssertionError('client %d was closed: %r' % (c.number, bytes(c.data[:300])))
            waiting = [c for c in waiting if not c.has(until)]
            if time.monotonic() > deadline:
                raise AssertionError('%d of %d clients opened in %.0f s; the first waiting has %r' % (
                    len(made) - len(waiting), n, timeout, bytes(waiting[0].data[:300]) if waiting else None))
        return made

    def mark(self):
        """Forget what came so far."""
        for c in self.clients:
            c.mark = len(c.data)

    def lost(self):
        return [c for c in self.clients if not c.open]

    def quiet(self, seconds):
        """Read for a while; True if nothing came on any connection."""
        before = sum(len(c.data) for c in self.clients), len(self.lost())
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.pump()
        return before == (sum(len(c.data) for c in self.clients), len(self.lost()))

    def close(self):
        for c in self.clients:
            c.drop()
        self.selector.close()

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.close()


# ------------------------------------------------------------- a fast origin

class Backend:
    """`loadgen backend`: holds under /stream?topic=X, /poll?topic=X; answers at /plain."""

    def __init__(self, dir):
        self.port = H.free_port()
        self.log = open(os.path.join(dir, 'backend.log'), 'wb')
        exe = os.environ.get('LOADGEN') or os.path.join(BUILD, 'loadgen')
        self.proc = subprocess.Popen([exe, 'backend', '--listen', '%s:%d' % (HOST, self.port)],
                                     stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        H.eventually(lambda: listens(self.port), 10)

    def stop(self):
        self.proc.terminate()
        self.proc.wait(5)
        self.log.close()
        H.release_port(self.port)
