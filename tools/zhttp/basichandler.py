#!/usr/bin/env python3
"""Answers requests of a connection manager in stream mode with one packet each, the simple way:
no sequence numbers, no further packets."""

import argparse

from zkit import pack, tnet, unpack, zmq


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('base', nargs='?', default='ipc://client', help='spec base (--zclient-stream)')
    args = args.parse_args()
    pull = tnet.socket(zmq.PULL)
    pull.connect(args.base + '-out')
    pub = tnet.socket(zmq.PUB)
    pub.connect(args.base + '-in')
    while True:
        request = unpack(pull.recv())
        print('IN', tnet.text(request), flush=True)
        reply = {'from': 'basichandler', 'id': request['id'], 'code': 200, 'reason': 'OK',
                 'headers': [['Content-Type', 'text/plain']], 'body': 'hello there\n'}
        pub.send(request['from'] + b' ' + pack(reply))


if __name__ == '__main__':
    tnet.run(main)
