#!/usr/bin/env python3
"""Prints the topics that the handler subscribes to on its SUB socket, as a publisher sees them."""

import argparse

import tnet
from tnet import zmq


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('spec', help='push_in_sub_specs of the handler, such as tcp://localhost:5562')
    args = args.parse_args()
    sock = tnet.socket(zmq.XPUB)
    sock.connect(args.spec)
    while True:
        message = sock.recv()
        verb = 'SUB' if message[:1] == b'\x01' else 'UNSUB'
        print(verb, message[1:].decode('utf-8', 'replace'), flush=True)


if __name__ == '__main__':
    tnet.run(main)
