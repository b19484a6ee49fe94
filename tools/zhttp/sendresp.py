#!/usr/bin/env python3
"""Answers a request that printreq.py has printed."""

import argparse
import time

from zkit import pack, tnet, zmq


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('body')
    args.add_argument('addr', help='the first word that printreq.py printed')
    args.add_argument('id', help='the second')
    args.add_argument('--base', default='ipc://client', help='spec base (--zclient-stream)')
    args = args.parse_args()
    pub = tnet.socket(zmq.PUB)
    pub.connect(args.base + '-in')
    # A PUB socket drops what it sends before it knows the subscription.
    time.sleep(0.1)
    reply = {'from': 'sendresp', 'id': args.id, 'code': 200, 'reason': 'OK',
             'headers': [['Content-Type', 'text/plain']], 'body': args.body + '\n'}
    pub.send(args.addr.encode() + b' ' + pack(reply))
    return 0


if __name__ == '__main__':
    tnet.run(main)
