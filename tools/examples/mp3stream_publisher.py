#!/usr/bin/env python3
"""Publishes a file piece by piece, as fast as it is to be heard: radio for the clients of
mp3stream.php. Over and over with --loop."""

import argparse
import base64
import json
import time
import urllib.request


def options():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('file')
    args.add_argument('--bitrate', type=int, default=128, help='kilobits a second (default: 128)')
    args.add_argument('--piece', type=float, default=0.5, help='seconds in a piece (default: 0.5)')
    args.add_argument('--channel', default='audio')
    args.add_argument('--url', default='http://localhost:5561', help='push_in_http_port of the handler')
    args.add_argument('--loop', action='store_true', help='begin again at the end of the file')
    return args.parse_args()


def publish(args, data):
    content = {'content-bin': base64.b64encode(data).decode()}
    item = {'channel': args.channel, 'formats': {'http-stream': content}}
    body = json.dumps({'items': [item]}).encode()
    request = urllib.request.Request(args.url + '/publish/', body, {'Content-Type': 'application/json'})
    urllib.request.urlopen(request, timeout=10).close()


def pieces(args):
    size = max(1, int(args.bitrate * 1000 / 8 * args.piece))
    while True:
        with open(args.file, 'rb') as f:
            yield from iter(lambda: f.read(size), b'')
        if not args.loop:
            return


def main():
    args = options()
    due = time.monotonic()
    for piece in pieces(args):
        publish(args, piece)
        due += args.piece
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == '__main__':
    main()
