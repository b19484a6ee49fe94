#!/usr/bin/env python3
"""Takes items by PULL and publishes them to the handlers that subscribe to their channels.

Handlers connect to it with push_in_sub_specs=PUB_SPEC and push_in_sub_connect=true.
"""

import argparse
import sys

import tnet
from tnet import zmq


def forward(pull, pub):
    """Publishes one item under its channel."""
    try:
        item = tnet.loads(pull.recv())
        channel = item.pop('channel')
    except (ValueError, KeyError, AttributeError) as error:
        print('item dropped: %s' % error, file=sys.stderr)
        return
    pub.send_multipart([channel, tnet.dumps(item)])


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('pub_spec', help='where handlers subscribe, such as tcp://*:5570')
    args.add_argument('pull_spec', help='where items come in, such as tcp://127.0.0.1:5571')
    args = args.parse_args()
    pub = tnet.socket(zmq.XPUB)
    pub.bind(args.pub_spec)
    pull = tnet.socket(zmq.PULL)
    pull.bind(args.pull_spec)
    poller = zmq.Poller()
    poller.register(pub, zmq.POLLIN)
    poller.register(pull, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if pub in ready:
            # Subscriptions are read so that they do not pile up; the socket has noted them.
            pub.recv()
        if pull in ready:
            forward(pull, pub)


if __name__ == '__main__':
    tnet.run(main)
