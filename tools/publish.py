#!/usr/bin/env python3
"""Publishes an item over ZeroMQ PUSH, in all three formats.

pushpin-publish does the same and more; this script shows what goes over the wire.
"""

import argparse
import sys

import tnet
from tnet import zmq


def pair(separator, what):
    """A parser of NAME<separator>VALUE."""
    def parse(argument):
        name, found, value = argument.partition(separator)
        if not found:
            raise argparse.ArgumentTypeError('%s must be NAME%sVALUE' % (what, separator))
        return name.strip(), value.strip()
    return parse


def options():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('channel')
    args.add_argument('content', nargs='?', help='text')
    args.add_argument('--code', type=int, help='status of HTTP responses (default: 200)')
    args.add_argument('-H', '--header', action='append', default=[], type=pair(':', 'a header'),
                      help='"Name: value", of HTTP responses; repeatable')
    args.add_argument('-M', '--meta', action='append', default=[], type=pair('=', 'meta'),
                      help='name=value, for filters; repeatable')
    args.add_argument('--id', help='id of the item')
    args.add_argument('--prev-id', help='id of the item before it')
    args.add_argument('--sender', help='meta value sender')
    args.add_argument('--hint', action='store_true', help='no content: clients ask their backend')
    args.add_argument('--close', action='store_true', help='end streams and WebSockets')
    args.add_argument('--no-eol', action='store_true', help='add no newline to HTTP content')
    args.add_argument('--spec', default='tcp://localhost:5560', help='push_in_spec of the handler')
    return args.parse_args()


def formats(args):
    """The formats of the item."""
    if args.hint:
        hint = {'action': 'hint'}
        return {'http-response': hint, 'http-stream': hint, 'ws-message': hint}
    if args.close:
        close = {'action': 'close'}
        return {'http-stream': close, 'ws-message': close}
    if args.content is None:
        sys.exit('must specify content')
    line = args.content if args.no_eol else args.content + '\n'
    response = {'body': line}
    if args.code is not None:
        response['code'] = args.code
    if args.header:
        response['headers'] = [list(header) for header in args.header]
    return {'http-response': response, 'http-stream': {'content': line},
            'ws-message': {'content': args.content}}


def main():
    args = options()
    item = {'channel': args.channel, 'formats': formats(args)}
    meta = dict(args.meta)
    if args.sender:
        meta['sender'] = args.sender
    for name, value in ('id', args.id), ('prev-id', args.prev_id), ('meta', meta):
        if value:
            item[name] = value
    sock = tnet.socket(zmq.PUSH)
    sock.connect(args.spec)
    sock.send(tnet.dumps(item))
    sock.close()
    zmq.Context.instance().term()
    print('Published')
    return 0


if __name__ == '__main__':
    tnet.run(main)
