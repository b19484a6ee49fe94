#!/usr/bin/env python3
"""Calls a method of the command socket and prints the result.

Methods: conncheck, get-zmq-uris, publish, recover, refresh. Example:
  command.py tcp://localhost:5563 refresh '{"channel": "room-7"}'
"""

import argparse
import json
import sys
import uuid

import tnet


def main():
    args = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument('spec', help='command_spec of the handler, such as tcp://localhost:5563')
    args.add_argument('method')
    args.add_argument('args', nargs='?', default='{}', help='arguments, a JSON object')
    args = args.parse_args()
    try:
        values = json.loads(args.args)
    except ValueError as error:
        sys.exit('args is no JSON: %s' % error)
    reply = tnet.request(args.spec, args.method, values, str(uuid.uuid4()))
    if reply.get('success'):
        print('success:', reply.get('value'))
        return 0
    print('error:', reply.get('condition'), reply.get('value'))
    return 1


if __name__ == '__main__':
    tnet.run(main)
