#!/usr/bin/env python3
"""Holds requests open as streams and sends a line to all of them every few seconds, each line as
one packet for up to 128 sessions."""

import argparse
import time

from zkit import Responder, tnet

IDS_MAX = 128


class Holds:
    """Held sessions: (connection manager, id) to the next sequence number."""

    def __init__(self, responder):
        self.responder = responder
        self.seqs = {}

    def open(self, request):
        key = request['from'], request['id']
        self.responder.send(key[0], {'id': key[1], 'seq': 0, 'code': 200, 'reason': 'OK', 'more': True,
                                     'headers': [['Content-Type', 'text/plain']], 'body': 'hello there\n'})
        self.seqs[key] = 1

    def close(self, packet):
        ids = packet['id'] if isinstance(packet['id'], list) else [{'id': packet['id']}]
        for entry in ids:
            self.seqs.pop((packet['from'], entry['id']), None)

    def tell(self, packet):
        """Sends a packet to all, as few times as it goes."""
        for peer in {key[0] for key in self.seqs}:
            keys = [key for key in self.seqs if key[0] == peer]
            for start in range(0, len(keys), IDS_MAX):
                part = keys[start:start + IDS_MAX]
                ids = [{'id': key[1], 'seq': self.seqs[key]} for key in part]
                self.responder.send(peer, dict(packet, id=ids))
                for key in part:
                    self.seqs[key] += 1


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('base', nargs='?', default='ipc://client', help='spec base (--zclient-stream)')
    args.add_argument('--interval', type=float, default=20, help='seconds between two lines')
    args = args.parse_args()
    holds = Holds(Responder(args.base, b'holdhandler'))
    due = time.monotonic() + args.interval
    while True:
        packet, first = holds.responder.receive(max(0, int(1000 * (due - time.monotonic()))))
        if packet is None:
            holds.tell({'body': 'still here\n', 'more': True})
            due = time.monotonic() + args.interval
            continue
        print('IN', tnet.text(packet), flush=True)
        if first:
            holds.open(packet)
        elif packet.get('type') in (b'cancel', b'error'):
            holds.close(packet)


if __name__ == '__main__':
    tnet.run(main)
