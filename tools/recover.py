#!/usr/bin/env python3
"""Lets the handler ask the backends again for all connections that can be recovered."""

import argparse

import tnet


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('spec', help='command_spec of the handler, such as tcp://localhost:5563')
    args = args.parse_args()
    reply = tnet.request(args.spec, 'recover')
    if reply.get('success'):
        print('success')
        return 0
    print('error:', reply.get('condition'))
    return 1


if __name__ == '__main__':
    tnet.run(main)
