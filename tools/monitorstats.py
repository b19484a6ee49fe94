#!/usr/bin/env python3
"""Prints the messages of the stats socket: their type and their fields, one a line."""

import argparse
import json
import sys

import tnet
from tnet import zmq


def parse(message):
    """Type and fields of a stats message."""
    kind, _, rest = message.partition(b' ')
    if rest[:1] == b'T':
        return kind.decode(), tnet.text(tnet.loads(rest[1:]))
    if rest[:1] == b'J':
        return kind.decode(), json.loads(rest[1:])
    raise ValueError('neither T nor J behind the type')


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('spec', help='stats_spec of the handler, such as ipc:///var/run/pushpin/pushpin-stats')
    args.add_argument('types', nargs='?', default='',
                      help='types to show, separated by commas, such as report,conn (default: all)')
    args = args.parse_args()

    sock = tnet.socket(zmq.SUB)
    types = [kind.strip() for kind in args.types.split(',') if kind.strip()]
    for topic in [kind + ' ' for kind in types] or ['']:
        sock.setsockopt(zmq.SUBSCRIBE, topic.encode())
    sock.connect(args.spec)

    while True:
        message = sock.recv()
        try:
            kind, fields = parse(message)
        except (ValueError, KeyError) as error:
            print('not understood (%s): %r' % (error, message[:200]), file=sys.stderr)
            continue
        print(kind, fields, flush=True)


if __name__ == '__main__':
    tnet.run(main)
