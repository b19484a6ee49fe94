"""Asks a connection manager that denies internal addresses for a page outside, which redirects to
one inside. To be run in a network namespace of its own, where an address of documentation
(RFC 5737) on the loopback interface is what is outside; prints what became of the request."""

import fcntl
import json
import socket
import struct

from kit import H
from requester import OK, Backend, Requester

OUTSIDE = '203.0.113.1'
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 1


def add_address(address):
    """What `ip link set lo up` and `ip address add ADDRESS dev lo` do."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack('16sh14x', b'lo', IFF_UP))
        place = struct.pack('HH4s8x', socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(s, SIOCSIFADDR, struct.pack('16s16s', b'lo:1', place))
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack('16sh14x', b'lo:1', IFF_UP))


def redirect(to):
    return Backend(b'HTTP/1.1 302 F\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n' % to.encode(), host=OUTSIDE)


def main():
    add_address(OUTSIDE)
    inside, outside = Backend(OK), Backend(OK, host=OUTSIDE)
    r = Requester('--deny-out-internal')
    try:
        out = {'errors': []}
        for host in ('127.0.0.1', 'localhost', '2130706433', '[::ffff:127.0.0.1]'):
            first = redirect(inside.url(host=host))
            r.ask(first.url(host=OUTSIDE), follow_redirects=True)
            out['errors'].append(r.error())
            assert first.asked == 1
        out['asked_inside'] = inside.asked
        r.ask(redirect(outside.url(host=OUTSIDE)).url(host=OUTSIDE), follow_redirects=True)
        out['outside'] = H.text(r.whole()[1])
        r.ask(redirect(inside.url()).url(host=OUTSIDE), follow_redirects=True, ignore_policies=True)
        out['policies_ignored'] = H.text(r.whole()[1])
    finally:
        r.stop()
    print(json.dumps(out))


if __name__ == '__main__':
    main()
