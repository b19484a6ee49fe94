#!/usr/bin/env python3
"""Fetches a URL through a connection manager's client side in req mode (--zserver-req)."""

import argparse
import sys

from zkit import pack, tnet, unpack, zmq


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('url')
    args.add_argument('--spec', default='ipc://server')
    args = args.parse_args()
    sock = tnet.socket(zmq.REQ, linger_ms=0)
    sock.connect(args.spec)
    sock.send(pack({'method': 'GET', 'uri': args.url}))
    reply = tnet.text(unpack(sock.recv()))
    if reply.get('type') == 'error':
        sys.exit('error: %s' % reply.get('condition'))
    print(reply['code'], reply.get('reason', ''))
    for name, value in reply.get('headers', []):
        print('%s: %s' % (name, value))
    print()
    print(reply.get('body', ''))
    return 0


if __name__ == '__main__':
    tnet.run(main)
