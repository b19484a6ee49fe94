#!/usr/bin/env python3
"""Answers in stream mode: HTTP requests with a head and then a body, WebSockets with a message and
then a close."""

import argparse

from zkit import Responder, tnet


def http(request):
    """The packets for an HTTP request, without `from`, `id` and `seq`."""
    yield {'code': 200, 'reason': 'OK', 'headers': [['Content-Type', 'text/plain']], 'more': True}
    yield {'body': 'hello there\n'}


def websocket(request):
    """The packets for a WebSocket."""
    yield {'code': 101, 'reason': 'Switching Protocols', 'credits': 1024}
    yield {'body': 'hello there', 'content-type': 'text'}
    yield {'type': 'close'}


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('base', nargs='?', default='ipc://client', help='spec base (--zclient-stream)')
    args = args.parse_args()
    responder = Responder(args.base, b'streamhandler')
    while True:
        request, first = responder.receive()
        print('IN', tnet.text(request), flush=True)
        if not first:
            continue
        answer = websocket if request['uri'].startswith(b'ws') else http
        for seq, packet in enumerate(answer(request)):
            responder.send(request['from'], dict(packet, id=request['id'], seq=seq))


if __name__ == '__main__':
    tnet.run(main)
