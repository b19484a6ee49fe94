#!/usr/bin/env python3
"""Takes requests in stream mode and prints where an answer has to go (see sendresp.py)."""

import argparse

from zkit import tnet, unpack, zmq


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('base', nargs='?', default='ipc://client', help='spec base (--zclient-stream)')
    args = args.parse_args()
    pull = tnet.socket(zmq.PULL)
    pull.connect(args.base + '-out')
    while True:
        request = unpack(pull.recv())
        print(tnet.text(request['from']), tnet.text(request['id']), flush=True)


if __name__ == '__main__':
    tnet.run(main)
