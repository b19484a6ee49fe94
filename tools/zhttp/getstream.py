#!/usr/bin/env python3
"""Fetches a URL through a connection manager's client side in stream mode (--zserver-stream), and
prints the body as it comes."""

import argparse
import sys
import time
import uuid

from zkit import pack, tnet, unpack, zmq

CREDITS = 8192


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('url')
    args.add_argument('--base', default='ipc://server', help='spec base')
    args = args.parse_args()
    me = b'getstream-%d' % time.time_ns()
    push = tnet.socket(zmq.PUSH)
    push.connect(args.base + '-in')
    router = tnet.socket(zmq.ROUTER, identity=me)
    router.connect(args.base + '-in-stream')
    sub = tnet.socket(zmq.SUB, subscribe=me + b' ')
    sub.connect(args.base + '-out')
    time.sleep(0.5)  # until the subscription is known

    sid = str(uuid.uuid4())
    push.send(pack({'from': me, 'id': sid, 'seq': 0, 'method': 'GET', 'uri': args.url,
                    'stream': True, 'credits': CREDITS}))
    in_seq, out_seq = 0, 1
    while True:
        packet = unpack(sub.recv().partition(b' ')[2])
        if packet['seq'] != in_seq:
            sys.exit('sequence number %d instead of %d' % (packet['seq'], in_seq))
        in_seq += 1
        kind = packet.get('type')
        if kind in (b'error', b'cancel'):
            sys.exit('error: %s' % tnet.text(packet.get('condition', kind)))
        if kind is not None:
            continue
        if 'code' in packet:
            print(packet['code'], tnet.text(packet.get('reason', b'')), file=sys.stderr)
        body = packet.get('body', b'')
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        if not packet.get('more'):
            return 0
        if body:
            credit = {'from': me, 'id': sid, 'seq': out_seq, 'type': 'credit', 'credits': len(body)}
            router.send_multipart([packet['from'], b'', pack(credit)])
            out_seq += 1


if __name__ == '__main__':
    tnet.run(main)
