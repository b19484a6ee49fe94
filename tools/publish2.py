#!/usr/bin/env python3
"""Publishes an item to the handler's SUB socket, once it has subscribed to the channel."""

import argparse
import time

import tnet
from tnet import zmq

WAIT_S = 0.5


def subscribed(sock, channel):
    """Waits for the subscription; false if it does not come."""
    end = time.monotonic() + WAIT_S
    while True:
        left = end - time.monotonic()
        if left <= 0 or not sock.poll(left * 1000):
            return False
        if sock.recv() in (b'\x01' + channel, b'\x01'):
            return True


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('channel')
    args.add_argument('content')
    args.add_argument('--spec', default='tcp://localhost:5562', help='push_in_sub_specs of the handler')
    args = args.parse_args()
    channel = args.channel.encode()
    line = args.content + '\n'
    item = {'formats': {'http-response': {'body': line}, 'http-stream': {'content': line},
                        'ws-message': {'content': args.content}}}
    sock = tnet.socket(zmq.XPUB)
    sock.connect(args.spec)
    if not subscribed(sock, channel):
        print('nobody listens to %s' % args.channel)
        return 1
    sock.send_multipart([channel, tnet.dumps(item)])
    sock.close()
    zmq.Context.instance().term()
    print('Published')
    return 0


if __name__ == '__main__':
    tnet.run(main)
