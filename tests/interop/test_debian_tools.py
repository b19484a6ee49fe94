"""The tools of Debian's pushpin package that are for Python 3, unchanged, against our server. Those for
Python 2 run in tests/package/scenario-debian-tools; monitorstats.py in tests/e2e/test_scenario.py."""

import json
import os
import subprocess
import sys

import pytest

import kit
from kit import H

TOOLS = os.path.dirname(os.environ.get(
    'MONITORSTATS', '/usr/share/doc/pushpin/examples/tools/monitorstats.py'))


@pytest.fixture(scope='module')
def srv():
    with kit.Server() as server:
        yield server


def command(srv, *args):
    done = subprocess.run([sys.executable, os.path.join(TOOLS, 'command.py'), 'tcp://127.0.0.1:%d' % srv.cmd_port,
                           *args], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, '')
    called, answer = done.stdout.splitlines()
    assert called.startswith('calling %s: args=' % args[0])
    return answer


def test_command_publishes_finds_and_recovers(srv):
    ep = srv.origin.endpoint()
    ep.handler = H.hold_stream(ep.channel)
    with H.Http(srv.http_port) as client:
        client.request('GET', ep.path)
        client.read_head()
        client.stream(b'open\n')
        srv.wait_sub(ep.channel)
        items = json.dumps({'items': [H.stream_item(ep.channel, 'by command\n')]})
        assert command(srv, 'publish', items) == 'success: None'
        assert client.stream(b'by command\n') == b'by command\n'
    assert command(srv, 'recover') == 'success: None'
    assert command(srv, 'refresh', json.dumps({'channel': 'nobody'})) == 'success: None'
    assert command(srv, 'conncheck', json.dumps({'ids': ['a:b']})) == 'success: []'
    uris = command(srv, 'get-zmq-uris')
    for key, port in (('command', srv.cmd_port), ('publish-pull', srv.pull_port), ('publish-sub', srv.sub_port)):
        assert "b'%s': b'tcp://127.0.0.1:%d'" % (key, port) in uris


def test_command_shows_refusals(srv):
    assert command(srv, 'nothing') == 'error: method-not-found None'
    assert command(srv, 'refresh') == 'error: bad-request None'
    assert command(srv, 'refresh', json.dumps({'cid': 'a:b'})).startswith('error: item-not-found')
    assert command(srv, 'publish', json.dumps({'items': 1})) == \
        "error: bad-request b\"Invalid format: object contains 'items' with wrong type\""


def test_monitorsubsock_shows_channels_that_come_and_go(srv):
    ep = srv.origin.endpoint()
    ep.handler = H.hold_stream(ep.channel)
    tool = subprocess.Popen([sys.executable, '-u', os.path.join(TOOLS, 'monitorsubsock.py'),
                             'tcp://127.0.0.1:%d' % srv.sub_port], stdout=subprocess.PIPE, text=True)
    try:
        with H.Http(srv.http_port) as client:
            client.request('GET', ep.path)
            client.read_head()
            client.stream(b'open\n')
            lines = iter(tool.stdout.readline, '')
            assert 'SUB %s\n' % ep.channel in lines
        assert 'UNSUB %s\n' % ep.channel in lines
    finally:
        tool.terminate()
        tool.wait(5)
        tool.stdout.close()
