#!/usr/bin/env python3
"""A backend for a route target zhttpreq/SPEC: answers each request with a greeting.

Route: `* zhttpreq/ipc:///tmp/zhttpreqhandler`; the proxy binds, this script connects.
"""

import argparse

import tnet
from tnet import zmq


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('spec', nargs='?', default='ipc:///tmp/zhttpreqhandler')
    args = args.parse_args()
    sock = tnet.socket(zmq.REP)
    sock.connect(args.spec)
    while True:
        request = tnet.loads(sock.recv()[1:])
        print(tnet.text(request.get('method')), tnet.text(request.get('uri')), flush=True)
        reply = {'id': request['id'], 'code': 200, 'reason': 'OK',
                 'headers': [['Content-Type', 'text/plain']], 'body': 'hello there\n'}
        sock.send(b'T' + tnet.dumps(reply))


if __name__ == '__main__':
    tnet.run(main)
