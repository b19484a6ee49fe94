"""Counts the real ZeroMQ messages between two processes.

A tap is a unix socket in front of another one: it passes every byte on as it is and
reads along (ZMTP 3: greeting, then frames), so each side talks to the other as if it
were not there. Commands of the transport (hand-shake, heartbeats) are not messages.
"""

import os
import selectors
import socket
import threading

from kit import H

GREETING = 64
MORE, LONG, COMMAND = 1, 2, 4


class Reader:
    """One direction of one connection: bytes in, whole messages out."""

    def __init__(self):
        self.buf = b''
        self.greeted = False
        self.parts = []

    def feed(self, data):
        self.buf += data
        out = []
        while True:
            if not self.greeted:
                if len(self.buf) < GREETING:
                    return out
                self.buf = self.buf[GREETING:]
                self.greeted = True
            frame = self.frame()
            if frame is None:
                return out
            flags, body = frame
            if flags & COMMAND:
                continue
            self.parts.append(body)
            if not flags & MORE:
                out.append(self.parts)
                self.parts = []

    def frame(self):
        head = 9 if self.buf[:1] and self.buf[0] & LONG else 2
        if len(self.buf) < head:
            return None
        size = int.from_bytes(self.buf[1:head], 'big')
        if len(self.buf) < head + size:
            return None
        flags, body = self.buf[0], self.buf[head:head + size]
        self.buf = self.buf[head + size:]
        return flags, body


class Tap:
    """Listens at `front`, passes on to `back`. `messages`: (True if towards `back`, frames)."""

    def __init__(self, front, back):
        self.front, self.back = front, back
        self.messages = []
        self.lock = threading.Lock()
        self.stopping = False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(front)
        self.listener.listen(16)
        self.listener.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping:
            for key, _ in self.selector.select(0.1):
                if key.data is None:
                    self.accept()
                else:
                    self.turn(key.fileobj, *key.data)

    def accept(self):
        a, _ = self.listener.accept()
        b = socket.socket(socket.AF_UNIX)
        try:
            b.connect(self.back)
        except OSError:      # not there yet: the caller tries again by itself
            a.close()
            b.close()
            return
        self.selector.register(a, selectors.EVENT_READ, (b, True, Reader()))
        self.selector.register(b, selectors.EVENT_READ, (a, False, Reader()))

    def turn(self, source, dest, towards_back, reader):
        try:
            data = source.recv(1 << 20)
        except OSError:
            data = b''
        try:
            if data:
                dest.sendall(data)
        except OSError:
            data = b''
        if not data:
            for s in (source, dest):
                try:
                    self.selector.unregister(s)
                except KeyError:
                    pass
                s.close()
            return
        found = reader.feed(data)
        if found:
            with self.lock:
                self.messages += [(towards_back, m) for m in found]

    def take(self):
        """The messages since the last call."""
        with self.lock:
            out, self.messages = self.messages, []
        return out

    def stop(self):
        self.stopping = True
        self.thread.join(5)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()
        if os.path.exists(self.front):
            os.unlink(self.front)


def packets(frames):
    """The ZHTTP packets or RPC maps of one message: one, or several of a batch."""
    body = frames[-1]
    at = body.find(b'T') + 1 if b' T' in body[:80] or body[:1] == b'T' else 0
    out = []
    while body[at:]:
        value, rest = H.tnet_parse(body[at:])
        out.append(value)
        at = len(body) - len(rest) + (1 if rest[:1] == b'T' else 0)
    return out


def ids(packet):
    """Session ids of a packet."""
    i = packet.get('id')
    return [x['id'] for x in i] if isinstance(i, list) else [i]


def is_data(packet):
    return isinstance(packet, dict) and not packet.get('type')
