#!/usr/bin/env python3
"""Answers requests of a connection manager in req mode (--zclient-req)."""

import argparse

from zkit import pack, tnet, unpack, zmq


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('spec', nargs='?', default='ipc://client')
    args = args.parse_args()
    sock = tnet.socket(zmq.REP)
    sock.connect(args.spec)
    while True:
        request = unpack(sock.recv())
        print('IN', tnet.text(request), flush=True)
        sock.send(pack({'id': request['id'], 'code': 200, 'reason': 'OK',
                        'headers': [['Content-Type', 'text/plain']], 'body': 'hello there\n'}))


if __name__ == '__main__':
    tnet.run(main)
