"""What the ZHTTP examples share: finds tnet.py, and the three sockets of a stream-mode responder."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

import tnet  # noqa: E402
from tnet import zmq  # noqa: E402


def pack(packet):
    """A packet as it goes over the wire."""
    return b'T' + tnet.dumps(packet)


def unpack(frame):
    """The packet in a frame."""
    if frame[:1] != b'T':
        raise ValueError('packet does not begin with T')
    return tnet.loads(frame[1:])


class Responder:
    """PULL for first packets, ROUTER for further ones, PUB for answers, all connected."""

    def __init__(self, base, instance):
        self.instance = instance
        self.pull = tnet.socket(zmq.PULL)
        self.pull.connect(base + '-out')
        self.router = tnet.socket(zmq.ROUTER, identity=instance)
        self.router.connect(base + '-out-stream')
        self.pub = tnet.socket(zmq.PUB)
        self.pub.connect(base + '-in')
        self.poller = zmq.Poller()
        self.poller.register(self.pull, zmq.POLLIN)
        self.poller.register(self.router, zmq.POLLIN)

    def receive(self, timeout_ms=None):
        """The next packet, and whether it is a first one; (None, False) after the timeout."""
        ready = dict(self.poller.poll(timeout_ms))
        if self.pull in ready:
            return unpack(self.pull.recv()), True
        if self.router in ready:
            return unpack(self.router.recv_multipart()[2]), False
        return None, False

    def send(self, to, packet):
        """Sends a packet to the connection manager `to`."""
        self.pub.send(to + b' ' + pack(dict(packet, **{'from': self.instance})))
