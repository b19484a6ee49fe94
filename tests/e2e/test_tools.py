"""The operators' tools under their old names: ours, and those of Debian's package of 1.36 that run on
Python 3, against our programs (spec/programs.md §8)."""

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import kit
from kit import H

OURS = os.path.join(kit.ROOT, 'tools')
DEBIANS = os.path.dirname(os.environ.get(
    'MONITORSTATS', '/usr/share/doc/pushpin/examples/tools/monitorstats.py'))
BOTH = pytest.mark.parametrize('tools', [OURS, DEBIANS], ids=['ours', 'debian'])


class Tool:
    """A tool that runs on; its lines as they come."""

    def __init__(self, tools, name, *args):
        self.proc = subprocess.Popen([sys.executable, '-u', os.path.join(tools, name), *args],
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines, self.seen = queue.Queue(), []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.proc.stdout:
            self.lines.put(line.rstrip('\n'))

    def wait(self, *words, timeout=15):
        """The first new line with all these words."""
        end = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError('no line with %r in %r' % (words, self.seen)) from None
            self.seen.append(line)
            if all(word in line for word in words):
                return line

    def stop(self):
        self.proc.kill()
        self.proc.wait(5)
        self.proc.stdout.close()


def once(tools, name, *args):
    """What a tool prints that ends by itself."""
    done = subprocess.run([sys.executable, os.path.join(tools, name), *args], capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture(scope='module')
def srv():
    s = kit.Server(conf={'handler': {'subscription_linger': '1'}})
    yield s
    s.stop()


@pytest.fixture
def ep(srv):
    return srv.origin.endpoint()


def held(srv, ep, client):
    ep.handler = H.hold_stream(ep.channel)
    client.request('GET', ep.path)
    assert client.read_head().status == 200
    client.read_until(b'open\n')


@BOTH
def test_monitorstats(srv, ep, started, tools):
    tool = Tool(tools, 'monitorstats.py', srv.ipc('stats'), 'sub,message')
    started.append(tool)
    with H.Http(srv.http_port, 10) as client:
        held(srv, ep, client)
        H.eventually(lambda: srv.publish(H.stream_item(ep.channel, 'x\n')) and
                     any(line.startswith('message ') for line in tool.seen + list(tool.lines.queue)), 10)
        tool.wait("message {", "'channel': '%s'" % ep.channel, "'count': 1")
    tool.wait("sub {", "'unavailable': True", ep.channel)
    assert {line.split(' ')[0] for line in tool.seen} == {'sub', 'message'}


def test_monitorsubs(srv, ep, started):
    tool = Tool(OURS, 'monitorsubs.py', srv.ipc('stats'))
    started.append(tool)
    ready = srv.origin.endpoint(H.hold_stream('ready'))

    def listens():
        with H.Http(srv.http_port, 10) as client:
            client.request('GET', ready.path)
            client.read_until(b'open\n')
        return tool.lines.qsize()
    H.eventually(listens, 10)
    with H.Http(srv.http_port, 10) as client:
        held(srv, ep, client)
        tool.wait('SUB mode=stream channel=' + ep.channel)
    tool.wait('UNSUB mode=stream channel=' + ep.channel)


@BOTH
def test_monitorsubsock(srv, ep, started, tools):
    tool = Tool(tools, 'monitorsubsock.py', 'tcp://127.0.0.1:%d' % srv.sub_port)
    started.append(tool)
    with H.Http(srv.http_port, 10) as client:
        held(srv, ep, client)
        tool.wait('SUB ' + ep.channel)
    tool.wait('UNSUB ' + ep.channel)


@BOTH
def test_command(srv, tools):
    spec = 'tcp://127.0.0.1:%d' % srv.cmd_port
    out = once(tools, 'command.py', spec, 'get-zmq-uris')
    assert 'success: ' in out and 'tcp://127.0.0.1:%d' % srv.pull_port in out
    assert 'success: []' in once(tools, 'command.py', spec, 'conncheck', '{"ids": ["none:0"]}')


def test_recover(srv):
    assert once(OURS, 'recover.py', 'tcp://127.0.0.1:%d' % srv.cmd_port) == 'success\n'


def test_getzmquris(srv):
    out = once(OURS, 'getzmquris.py', 'tcp://127.0.0.1:%d' % srv.cmd_port)
    for line in ('command: tcp://127.0.0.1:%d' % srv.cmd_port, 'publish-pull: tcp://127.0.0.1:%d' % srv.pull_port,
                 'publish-sub: tcp://127.0.0.1:%d' % srv.sub_port):
        assert line in out.splitlines()


def test_brokers(srv, ep, started):
    """A source that the handler connects to, and one that a broker at the edge connects to."""
    pub, pull = H.free_port(), H.free_port()
    pub_spec, pull_spec = 'tcp://127.0.0.1:%d' % pub, 'tcp://127.0.0.1:%d' % pull
    started.append(Tool(OURS, 'sourcebroker.py', pub_spec, pull_spec))
    started.append(Tool(OURS, 'edgebroker.py', 'tcp://127.0.0.1:%d' % srv.sub_port, pub_spec))
    direct = kit.Server(conf={'handler': {'push_in_sub_connect': 'true', 'push_in_sub_specs': pub_spec}})
    started.append(direct)
    other = direct.origin.endpoint()
    other.handler = H.hold_stream(ep.channel)
    with H.Http(srv.http_port, 10) as near, H.Http(direct.http_port, 10) as far:
        held(srv, ep, near)
        far.request('GET', other.path)
        far.read_until(b'open\n')

        def arrives(client):
            # Until the subscription has come through, what is published goes to nobody.
            once(OURS, 'publish.py', '--spec=' + pull_spec, ep.channel, 'by broker')
            try:
                return client.read_until(b'by broker\n', 0.5)
            except TimeoutError:
                return None
        H.eventually(lambda: arrives(near), 15)
        H.eventually(lambda: arrives(far), 15)


# ------------------------------------------------- ZHTTP, with a connection manager alone

class Connmgr:
    """A connection manager with all its modes."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix='zhttp-')
        self.port, self.req_port = H.free_port(), H.free_port()
        spec = lambda name: 'ipc://%s/%s' % (self.dir, name)  # noqa: E731
        self.client, self.client_req = spec('client'), spec('client-req')
        self.server, self.server_req = spec('server'), spec('server-req')
        self.log = open(os.path.join(self.dir, 'log'), 'wb')
        self.proc = subprocess.Popen(
            [kit.program('pushpin-connmgr'), '--listen=127.0.0.1:%d,stream' % self.port,
             '--listen=127.0.0.1:%d,req' % self.req_port, '--zclient-stream=' + self.client,
             '--zclient-req=' + self.client_req, '--zserver-req=' + self.server_req,
             '--zserver-stream=' + self.server], stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        H.eventually(lambda: kit.listens(self.port) and kit.listens(self.req_port), 10)

    def stop(self):
        self.proc.terminate()
        self.proc.wait(10)
        self.log.close()


@pytest.fixture
def connmgr(started):
    c = Connmgr()
    started.append(c)
    return c


def zhttp(started, name, *args):
    tool = Tool(os.path.join(OURS, 'zhttp'), name, *args)
    started.append(tool)
    return tool


def get(port, path='/x'):
    with H.Http(port, 2) as client:
        client.request('GET', path)
        return client.response('GET')


def test_reqhandler(connmgr, started):
    zhttp(started, 'reqhandler.py', connmgr.client_req)
    assert get(connmgr.req_port).status == 200


def patiently(attempt):
    """What is published before the sockets have met is lost, as with any PUB: until it is not."""
    def once_more():
        try:
            return attempt()
        except (AssertionError, TimeoutError, H.Closed):
            return None
    return H.eventually(once_more, 30)


def test_basichandler(connmgr, started):
    zhttp(started, 'basichandler.py', connmgr.client)
    patiently(lambda: get(connmgr.port).status == 200)


def test_streamhandler(connmgr, started):
    zhttp(started, 'streamhandler.py', connmgr.client)
    assert patiently(lambda: get(connmgr.port).body) == b'hello there\n'

    def talk():
        ws = H.ws_connect(None, '/', port=connmgr.port, timeout=2)
        said, end = ws.recv_text(), ws.recv_frame().opcode
        ws.close()
        return said and end == H.CLOSE
    assert patiently(talk)


def test_holdhandler(connmgr, started):
    zhttp(started, 'holdhandler.py', connmgr.client, '--interval=1')

    def held_both():
        with H.Http(connmgr.port, 3) as one, H.Http(connmgr.port, 3) as two:
            for client in one, two:
                client.request('GET', '/')
                assert client.read_head().status == 200
            return one.stream() and two.stream()
    assert patiently(held_both)


def test_printreq_and_sendresp(connmgr, started):
    tool = zhttp(started, 'printreq.py', connmgr.client)
    with H.Http(connmgr.port, 15) as client:
        client.request('GET', '/')
        addr, name = tool.wait(' ').split(' ')
        once(os.path.join(OURS, 'zhttp'), 'sendresp.py', '--base=' + connmgr.client, 'by hand', addr, name)
        assert b'by hand' in client.response('GET').body


def test_get_and_getstream(srv, ep, connmgr):
    ep.handler = H.R(b'fetched' * 4000)
    url = 'http://127.0.0.1:%d%s' % (srv.http_port, ep.path)
    tools = os.path.join(OURS, 'zhttp')
    assert 'fetched' * 4000 in once(tools, 'get.py', '--spec=' + connmgr.server_req, url)
    assert 'fetched' * 4000 in once(tools, 'getstream.py', '--base=' + connmgr.server, url)
