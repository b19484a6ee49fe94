#!/usr/bin/env python3
"""Prints the addresses for publishing and commands, as the handler has them."""

import argparse
from urllib.parse import urlparse

import tnet


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('spec', help='command_spec of the handler, such as tcp://localhost:5563')
    args = args.parse_args()
    reply = tnet.request(args.spec, 'get-zmq-uris')
    if not reply.get('success'):
        print('error:', reply.get('condition'))
        return 1
    host = urlparse(args.spec).hostname or 'localhost'
    for name, uri in sorted(reply['value'].items()):
        print('%s: %s' % (name, uri.replace('*', host)))
    return 0


if __name__ == '__main__':
    tnet.run(main)
