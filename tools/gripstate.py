#!/usr/bin/env python3
"""The session state service: keeps, in memory, which session has seen which ids of which channel.

Connects to the handler's state_spec. Without arguments beside the address it runs until stopped.
"""

import argparse

import tnet
from tnet import zmq

SESSIONS_MAX = 100000


class Failure(Exception):
    """A call that cannot be served; the text is its condition."""


class State:
    """Rules by domain, sessions by id."""

    def __init__(self):
        self.rules = {}
        self.sessions = {}

    def rules_set(self, args):
        for rule in args['rules']:
            rules = self.rules.setdefault(rule['domain'], {})
            rules[rule['path-prefix']] = rule

    def rules_get(self, args):
        rules = self.rules.get(args['domain'], {})
        matching = [rule for prefix, rule in rules.items() if args['path'].startswith(prefix)]
        return sorted(matching, key=lambda rule: -len(rule['path-prefix']))

    def create_or_update(self, args):
        sid = args['sid']
        # The oldest go first: a session that is used comes to the end again.
        ids = self.sessions.pop(sid, {})
        while len(self.sessions) >= SESSIONS_MAX:
            del self.sessions[next(iter(self.sessions))]
        ids.update(args['last-ids'])
        self.sessions[sid] = ids

    def update_many(self, args):
        for sid, ids in args['sid-last-ids'].items():
            if sid in self.sessions:
                self.sessions[sid].update(ids)

    def get_last_ids(self, args):
        if args['sid'] not in self.sessions:
            raise Failure('item-not-found')
        return self.sessions[args['sid']]

    def call(self, method, args):
        methods = {
            'session-detect-rules-set': self.rules_set,
            'session-detect-rules-get': self.rules_get,
            'session-create-or-update': self.create_or_update,
            'session-update-many': self.update_many,
            'session-get-last-ids': self.get_last_ids,
        }
        if method not in methods:
            raise Failure('method-not-found')
        try:
            return methods[method](args)
        except (KeyError, TypeError, AttributeError):
            raise Failure('bad-request') from None


def answer(state, call):
    """The reply to a call."""
    reply = {'id': call['id'], 'success': True}
    try:
        reply['value'] = state.call(tnet.text(call['method']), tnet.text(call['args']))
    except Failure as failure:
        reply.update(success=False, condition=str(failure))
    return reply


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('spec', help='state_spec of the handler, such as ipc:///var/run/pushpin/pushpin-state')
    args.add_argument('-q', '--quiet', action='store_true', help='print no calls')
    args = args.parse_args()
    sock = tnet.socket(zmq.REP)
    sock.connect(args.spec)
    state = State()
    while True:
        call = tnet.loads(sock.recv())
        reply = answer(state, call)
        if not args.quiet:
            print(tnet.text(call['method']), tnet.text(call['args']), '->', reply, flush=True)
        sock.send(tnet.dumps(reply))


if __name__ == '__main__':
    tnet.run(main)
