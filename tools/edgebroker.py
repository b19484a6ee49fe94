#!/usr/bin/env python3
"""Stands between a handler and several sources: subscriptions go up to all sources, and what they
publish comes down."""

import argparse

import tnet
from tnet import zmq


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('pub_spec', help='push_in_sub_specs of the handler, such as tcp://localhost:5562')
    args.add_argument('sub_spec', nargs='+', help='addresses of the sources')
    args = args.parse_args()
    down = tnet.socket(zmq.XPUB)
    down.connect(args.pub_spec)
    up = tnet.socket(zmq.XSUB)
    for spec in args.sub_spec:
        up.connect(spec)
    zmq.proxy(down, up)
    return 0


if __name__ == '__main__':
    tnet.run(main)
