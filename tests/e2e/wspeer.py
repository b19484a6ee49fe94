"""A connection manager by itself, and behind it a ZHTTP responder that echoes WebSocket messages
and does what their text says (spec/zhttp.md §9.3)."""

import os
import shutil
import subprocess
import tempfile
import threading
import time

import zmq

import kit
from kit import H

CREDITS = 200_000


class Echo:
    """The programs and sockets of one test. Text messages that are commands:
    `close CODE REASON`, `cancel`, `ping X`, `pieces N SIZE`, `silent`; everything else is echoed."""

    def __init__(self, *options):
        self.dir = tempfile.mkdtemp(prefix='wspeer-')
        self.port = H.free_port()
        base = 'ipc://%s/c' % self.dir
        self.log = os.path.join(self.dir, 'log')
        with open(self.log, 'wb') as log:
            self.proc = subprocess.Popen(
                [kit.program('pushpin-connmgr'), '--listen=%s:%d,stream' % (kit.HOST, self.port),
                 '--zclient-stream=' + base, *options], stdout=log, stderr=subprocess.STDOUT, cwd=self.dir)
        self.context = zmq.Context()
        self.pull = self.socket(zmq.PULL, base + '-out')
        self.router = self.socket(zmq.ROUTER, base + '-out-stream', b'peer')
        self.sessions = {}
        self.first = {}
        self.packets = []
        self.running = True
        H.eventually(lambda: kit.listens(self.port), 10)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def socket(self, kind, spec, identity=None):
        s = self.context.socket(kind)
        s.linger = 0
        if identity:
            s.identity = identity
            s.router_mandatory = 1
        s.connect(spec)
        return s

    def run(self):
        poller = zmq.Poller()
        poller.register(self.pull, zmq.POLLIN)
        poller.register(self.router, zmq.POLLIN)
        while self.running:
            for s, _ in poller.poll(100):
                parts = s.recv_multipart()
                packet = parts[-1][1:]
                while packet:
                    p, packet = H.tnet_parse(packet)
                    packet = packet[1:]
                    ids = p['id'] if isinstance(p['id'], list) else [p]
                    for one in ids:
                        self.take(one['id'], p)

    def take(self, id_, p):
        kind = H.text(p.get('type'))
        self.packets.append((id_, kind, p))
        if 'uri' in p:
            self.first[id_] = p
            self.sessions[id_] = {'from': p['from'], 'seq': 0, 'message': b'', 'queue': [], 'credits': p['credits']}
            if b'/refuse' in p['uri']:
                return self.send(id_, type='error', condition='rejected', code=403, reason='No',
                                 headers=[['X-Why', 'because']], body='not you')
            return self.send(id_, code=101, reason='Switching Protocols', headers=[], credits=CREDITS)
        s = self.sessions.get(id_)
        if s is None:
            return
        if 'uri' not in p:
            s['credits'] += p.get('credits', 0)
            self.flush(id_)
        if kind is None:
            self.data(id_, s, p)
        elif kind == 'close':
            back = {k: p[k] for k in ('code', 'body') if k in p}
            self.send(id_, type='close', **back)
            del self.sessions[id_]
        elif kind == 'ping':
            self.queue(id_, type='pong', body=p.get('body', b''))
        elif kind in ('cancel', 'error'):
            del self.sessions[id_]

    def data(self, id_, s, p):
        body = p.get('body', b'')
        s['message'] += body
        if p.get('more'):
            self.send(id_, type='credit', credits=len(body))
            return
        message, s['message'] = s['message'], b''
        word, _, rest = message.partition(b' ')
        if word == b'close':
            code, _, reason = rest.partition(b' ')
            self.queue(id_, type='close', code=int(code), reason=reason)
        elif word == b'cancel':
            self.send(id_, type='cancel')
        elif word == b'ping':
            self.queue(id_, type='ping', body=rest)
        elif word == b'pieces':
            n, size = map(int, rest.split())
            for k in range(n):
                self.queue(id_, body=b'p' * size, more=k + 1 < n, **{'content-type': 'binary'})
        else:
            kind = p.get('content-type', b'text')
            pieces = [message[k:k + 2000] for k in range(0, len(message), 2000)] or [b'']
            for k, piece in enumerate(pieces):
                self.queue(id_, body=piece, more=k + 1 < len(pieces), **{'content-type': kind})
        if body:
            self.send(id_, type='credit', credits=len(body))

    def queue(self, id_, **kw):
        """Sends when there are credits for the body."""
        self.sessions[id_]['queue'].append(kw)
        self.flush(id_)

    def flush(self, id_):
        s = self.sessions[id_]
        while s['queue'] and len(s['queue'][0].get('body', b'')) <= s['credits']:
            kw = s['queue'].pop(0)
            s['credits'] -= len(kw.get('body', b''))
            # The reason of a close costs no credits.
            reason = {'body': kw.pop('reason')} if 'reason' in kw else {}
            self.send(id_, **kw, **reason)

    def send(self, id_, **kw):
        s = self.sessions[id_]
        self.send_many([id_], s['from'], **kw)

    def send_many(self, ids, to, **kw):
        """One packet for all of these sessions."""
        entries = []
        for id_ in ids:
            entries.append({'id': id_, 'seq': self.sessions[id_]['seq']})
            self.sessions[id_]['seq'] += 1
        p = {'from': b'peer', 'ext': {'multi': True}}
        p.update(entries[0] if len(ids) == 1 else {'id': entries})
        p.update({k: v for k, v in kw.items() if v is not False})
        # At the start the router may not have shaken hands yet.
        H.eventually(lambda: self.put([to, b'', b'T' + H.tnet_dumps(p)]))

    def put(self, parts):
        try:
            self.router.send_multipart(parts)
            return True
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False

    def url(self, path='/ws'):
        return 'ws://%s:%d%s' % (kit.HOST, self.port, path)

    def kinds(self, wanted):
        """Whether a packet of that type has come."""
        return any(kind == wanted for _, kind, _ in self.packets)

    def rss_kb(self):
        """Private memory of the connection manager."""
        with open('/proc/%d/smaps_rollup' % self.proc.pid) as f:
            lines = [line.split() for line in f if line.startswith('Private_')]
        return sum(int(line[1]) for line in lines)

    def stop(self):
        self.running = False
        if self.proc.poll() is None:
            self.proc.terminate()
            self.proc.wait(10)
        self.thread.join(5)
        self.context.destroy(linger=0)
        shutil.rmtree(self.dir, ignore_errors=True)


def closed_in(seconds, sock):
    """Whether the other side closes within this time."""
    sock.settimeout(seconds)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if not sock.recv(65536):
                return True
    except ConnectionResetError:
        return True
    except OSError:
        pass
    return False
