#!/usr/bin/env python3
"""Prints each subscription as it comes and goes, from the stats socket."""

import argparse
import json
import time

import tnet
from tnet import zmq


def parse(message):
    """Fields of a `sub` message."""
    rest = message.partition(b' ')[2]
    return json.loads(rest[1:]) if rest[:1] == b'J' else tnet.text(tnet.loads(rest[1:]))


def expire(subs, now):
    """Drops what was not announced again in time."""
    for key in [key for key, until in subs.items() if until <= now]:
        del subs[key]
        print('UNSUB mode=%s channel=%s' % key, flush=True)


def take(subs, fields, now):
    """One message."""
    key = fields['mode'], fields['channel']
    if fields.get('unavailable'):
        if subs.pop(key, None) is not None:
            print('UNSUB mode=%s channel=%s' % key, flush=True)
        return
    if key not in subs:
        print('SUB mode=%s channel=%s' % key, flush=True)
    subs[key] = now + fields['ttl']


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('spec', help='stats_spec of the handler')
    args = args.parse_args()
    sock = tnet.socket(zmq.SUB, subscribe=b'sub ')
    sock.connect(args.spec)
    subs = {}
    while True:
        if sock.poll(1000):
            take(subs, parse(sock.recv()), time.monotonic())
        expire(subs, time.monotonic())


if __name__ == '__main__':
    tnet.run(main)
