"""Wrong configuration ends with one clear line, exit 1 and nothing left behind; wrong packets
and requests are refused and touch nothing else; a bad backend never hangs a client."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time

import pytest
import zmq

import kit
from kit import H

FIRST = b'data: stream open\n\n'


# --------------------------------------------------------------- at the start

class Attempt:
    """A server that is not expected to start: files as given, its output, its children."""

    def __init__(self, tmp_path):
        self.dir = str(tmp_path)
        for d in ('run', 'log'):
            os.makedirs(os.path.join(self.dir, d), exist_ok=True)
        self.ports = [H.free_port() for _ in range(5)]

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        with open(self.path(name), 'w') as f:
            f.write(text)

    def conf(self, runner='', proxy='', handler='', glob='', rundir=None):
        http, ctl, pull, sub, cmd = self.ports
        self.write('pushpin.conf', (
            '[global]\ninclude={libdir}/internal.conf\nrundir=%s\nipc_prefix=bad-\n%s\n'
            '[runner]\nservices=connmgr,proxy,handler\nhttp_port=127.0.0.1:%d\nlogdir=%s\n%s\n'
            '[proxy]\nroutesfile=routes\n%s\n'
            '[handler]\npush_in_spec=tcp://127.0.0.1:%d\npush_in_sub_specs=tcp://127.0.0.1:%d\n'
            'push_in_http_addr=127.0.0.1\npush_in_http_port=%d\ncommand_spec=tcp://127.0.0.1:%d\n'
            'stats_spec=ipc://{rundir}/{ipc_prefix}stats\n%s\n') % (
                rundir or self.path('run'), glob, http, self.path('log'), runner, proxy, pull, sub, ctl, cmd,
                handler))
        if not os.path.exists(self.path('routes')):
            self.write('routes', '* test\n')

    def run(self, *args, preexec=None, timeout=15):
        """Output of everything, exit code. No process may be left."""
        p = subprocess.Popen([H.target_path(), '--config=' + self.path('pushpin.conf'), '--merge-output', *args],
                             cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             start_new_session=True, preexec_fn=preexec)
        try:
            out, _ = p.communicate(timeout=timeout * H.FACTOR)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            out, _ = p.communicate()
            raise AssertionError('did not end:\n' + out) from None
        left = session_members(p.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, 'processes left behind\n' + out
        return out, p.returncode

    def close(self):
        for p in self.ports:
            H.release_port(p)


def session_members(sid):
    out = []
    for d in os.listdir('/proc'):
        if d.isdigit():
            try:
                with open('/proc/%s/stat' % d) as f:
                    fields = f.read().rpartition(')')[2].split()
            except OSError:
                continue
            if int(fields[3]) == sid and fields[0] != 'Z':
                out.append(int(d))
    return out


@pytest.fixture
def attempt(tmp_path):
    a = Attempt(tmp_path)
    yield a
    a.close()


def fails(attempt, *words, args=()):
    """Exit 1, and one line with all these words."""
    out, code = attempt.run(*args)
    assert code == 1, 'exit code %s\n%s' % (code, out)
    lines = [x for x in out.splitlines() if all(w in x for w in words)]
    assert lines, 'no line with %r in:\n%s' % (words, out)
    assert 'panicked' not in out, out
    return lines[0]


def test_no_such_config(attempt):
    fails(attempt, attempt.path('pushpin.conf'))


def test_config_is_a_folder(attempt):
    os.mkdir(attempt.path('pushpin.conf'))
    fails(attempt, attempt.path('pushpin.conf'))


def test_config_that_cannot_be_read(attempt):
    if os.geteuid() == 0:
        pytest.skip('root reads every file')
    attempt.conf()
    os.chmod(attempt.path('pushpin.conf'), 0)
    fails(attempt, attempt.path('pushpin.conf'))


@pytest.mark.parametrize('line,words', [
    ('http_port=80x0', ('http_port', '80x0')),
    ('http_port=127.0.0.1:0', ('http_port', '0')),
    ('http_port=70000', ('http_port', '70000')),
    ('http_port=', ('port',)),
    ('log_level=2,handler:-1', ('log', 'level')),
])
def test_wrong_value_in_runner(attempt, line, words):
    attempt.conf(runner=line)
    fails(attempt, *words)


@pytest.mark.parametrize('section,line', [
    ('handler', 'push_in_http_addr=localhost'),
    ('handler', 'push_in_spec=nonsense'),
    ('handler', 'prometheus_port=abc'),
    ('proxy', 'prometheus_port=abc'),
    ('runner', 'tcp_keepalive=99999'),
    ('runner', 'client_maxconn=20000000'),
    ('runner', 'client_buffer_size=10'),
])
def test_what_a_process_would_refuse(attempt, section, line):
    """Said with its place, before any process is started."""
    attempt.conf(**{section: line})
    key = line.partition('=')[0]
    fails(attempt, 'pushpin.conf:', ' %s in [%s]: ' % (key, section))
    assert os.listdir(attempt.path('run')) == []


def test_line_of_the_config_that_is_binary(attempt):
    """Any bytes: an error or a warning, never a crash."""
    attempt.conf()
    with open(attempt.path('pushpin.conf'), 'ab') as f:
        f.write(b'\n[\x00\xff\xfe\n=\x80\n"unbalanced\n')
    with open(attempt.path('pushpin.conf'), 'ab') as f:
        f.write(b'\n[runner]\nhttp_port=nonsense\n')
    out, code = attempt.run()
    assert code == 1 and 'panicked' not in out, out


def test_bad_lines_of_the_routes_file_are_named_and_skipped(started, tmp_path):
    srv = kit.Server(routes='*,nonsense=1 {o}\nbroken.test,path_beg {o}\n*\ngood.test {o}\n', ready=True)
    started.append(srv)
    ep = srv.origin.endpoint(H.R('good'))
    assert H.http(srv, 'GET', ep.path, host='good.test').body == b'good'
    logs = srv.all_logs()
    named = re.findall(r'WARN.*routes:(\d+): \S', logs)
    # Two lines of the harness come first; an unknown option is at the third.
    assert '5' in named, logs


def test_no_routes_file_is_a_warning(started):
    srv = kit.Server(ready=False, conf={'proxy': {'routesfile': 'gone'}})
    started.append(srv)

    def answered():
        try:
            return H.http(srv, 'GET', '/', timeout=2).status
        except (OSError, H.Closed, TimeoutError):
            return None
    assert H.eventually(answered, 15) == 502
    assert re.search(r'WARN.*gone', srv.all_logs()), srv.logs()


def occupy(port):
    s = socket.socket()
    s.bind((kit.HOST, port))
    s.listen(1)
    return s


@pytest.mark.parametrize('workers', [1, 2])
def test_occupied_client_port(attempt, workers):
    attempt.conf(runner='connmgr_workers=%d' % workers)
    with occupy(attempt.ports[0]):
        fails(attempt, str(attempt.ports[0]))


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('which,key', [
    (1, 'push_in_http_port'), (2, 'push_in_spec'), (3, 'push_in_sub_specs'), (4, 'command_spec')])
def test_occupied_port_of_the_handler(attempt, which, key, workers):
    attempt.conf(handler='workers=%d' % workers)
    with occupy(attempt.ports[which]):
        fails(attempt, ' bind ', ':%d: Address already in use' % attempt.ports[which], 'pushpin.conf:',
              ': %s in [handler])' % key)


def test_ipc_path_that_cannot_be_bound(attempt):
    """A folder stands where the socket should be."""
    attempt.conf()
    os.mkdir(attempt.path('run/bad-stats'))
    open(attempt.path('run/bad-stats/x'), 'w').close()
    fails(attempt, 'unable to bind to ', 'bad-stats: ', ': stats_spec in [handler])')


@pytest.mark.parametrize('spec,cause', [
    ('ipc:///nonexistent-folder/x', 'No such file or directory'),
    ('tcp://127.0.0.1', 'this is no ZeroMQ address'),
])
@pytest.mark.parametrize('key', ['state_spec', 'command_spec', 'push_in_spec', 'push_in_sub_specs', 'stats_spec'])
def test_address_that_the_handler_cannot_bind(attempt, key, spec, cause):
    attempt.conf(handler='%s=%s' % (key, spec))
    fails(attempt, 'unable to bind to %s: %s' % (spec, cause), 'pushpin.conf:', ': %s in [handler])' % key)


def test_ipc_path_that_is_too_long(attempt):
    deep = attempt.path('run/' + 'x' * 120)
    attempt.conf(rundir=deep)
    fails(attempt, 'x' * 20)


def test_rundir_that_cannot_be_made(attempt):
    attempt.conf(rundir=attempt.path('file/run'))
    attempt.write('file', '')
    fails(attempt, attempt.path('file/run'))


def test_logdir_that_cannot_be_made(attempt):
    attempt.write('file', '')
    attempt.conf(runner='logdir=' + attempt.path('file/log'))
    p = subprocess.run([H.target_path(), '--config=' + attempt.path('pushpin.conf')], cwd=attempt.dir,
                       capture_output=True, text=True, timeout=15)
    assert p.returncode == 1
    assert attempt.path('file/log') in p.stdout + p.stderr


def test_file_limit_below_the_connections(started, monkeypatch):
    """Raised as far as allowed, then a warning with both numbers and what fits; it serves."""
    hard = 600
    raise_back = resource.getrlimit(resource.RLIMIT_NOFILE)

    class Small(kit.Server):
        def start(self):
            plain = subprocess.Popen

            def limited(*a, **kw):
                return plain(*a, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)), **kw)
            monkeypatch.setattr(H.subprocess, 'Popen', limited)
            try:
                super().start()
            finally:
                monkeypatch.setattr(H.subprocess, 'Popen', plain)
    srv = Small(routes='* {o}\n', conf={'runner': {'client_maxconn': '5000'}})
    started.append(srv)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == raise_back
    logs = srv.all_logs()
    line = next((x for x in logs.splitlines() if 'WARN' in x and '5000' in x), None)
    assert line, srv.logs()
    assert str(hard) in line, line
    # More than the soft limit of 256 are served at once, so it was raised; and the rest waits.
    ep = srv.origin.endpoint(H.hold_stream('many'))
    with kit.Crowd() as crowd:
        crowd.open_many(350, srv.http_port, ep.path, until=b'open\n')
        for _ in range(400):
            crowd.add(srv.http_port, ep.path)
        crowd.quiet(1.0)
        srv.publish(H.stream_item('many', 'to all\n'))
        crowd.wait_text(b'to all\n', 10, crowd.clients[:350])
    assert srv.alive()
    H.eventually(lambda: H.http(srv, 'GET', srv.origin.endpoint(H.R('ok')).path).body == b'ok', 10)


# ------------------------------------------------------------ bad requests

@pytest.fixture(scope='module')
def srv(tmp_path_factory):
    backend = kit.Backend(str(tmp_path_factory.mktemp('backend')))
    s = kit.Server(routes='*,path_beg=/stream 127.0.0.1:%d\n* {o}\n' % backend.port)
    yield s
    s.stop()
    backend.stop()


@pytest.fixture
def held(srv):
    """A stream that must live through whatever the test does."""
    channel = H.unique('held')
    with H.Http(srv.http_port) as c:
        c.request('GET', '/stream?topic=' + channel)
        c.read_head()
        c.stream(FIRST)
        srv.wait_sub(channel, timeout=0.5)
        yield
        srv.publish(H.stream_item(channel, 'lived\n'))
        assert c.stream(b'lived\n') == b'lived\n'
    assert srv.alive()


BAD_REQUESTS = {
    'no version': b'GET /\r\n\r\n',
    'no target': b'GET\r\n\r\n',
    'binary': b'\x00\x01\x02\xff\r\n\r\n',
    'tls hello': b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(60) + b'\r\n\r\n',
    'http 2 preface': b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'space in a header name': b'GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n',
    'header without a colon': b'GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n',
    'nul in a value': b'GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n',
    'bare cr': b'GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n',
    'length that is no number': b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n',
    'negative length': b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n',
    'signed length': b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello',
    'two different lengths': b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello',
    'length and chunked': b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n'
                          b'0\r\n\r\n',
    'unknown coding': b'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: zebra\r\n\r\n',
    'head too large': b'GET / HTTP/1.1\r\nHost: a\r\nX: ' + b'x' * 100000 + b'\r\n\r\n',
    'too many headers': b'GET / HTTP/1.1\r\nHost: a\r\n' + b''.join(b'X%d: 1\r\n' % i for i in range(300)) + b'\r\n',
}


@pytest.mark.parametrize('name', list(BAD_REQUESTS))
def test_malformed_request(srv, held, name):
    """400 (or the code for a head that is too large) with a body, then the connection ends."""
    with H.Http(srv.http_port) as c:
        try:
            c.send(BAD_REQUESTS[name])
        except OSError:
            pass
        r = c.response(timeout=5)
        assert r.status in ((400, 431) if 'too' in name else (400,)), r
        assert r.body.strip()
        c.read_eof(3)


def test_malformed_chunk(srv, held):
    """The head was good and is on its way: the answer is an error or a close, in time."""
    ep = srv.origin.endpoint(lambda q: H.R('got %d' % len(q.body)))
    for chunk in (b'zz\r\nhello\r\n0\r\n\r\n', b'5\r\nhelloXX0\r\n\r\n', b'-1\r\n', b'fffffffffffffffff\r\n'):
        with H.Http(srv.http_port) as c:
            c.request('POST', ep.path, [('Transfer-Encoding', 'chunked')])
            c.send(chunk)
            try:
                assert c.response(timeout=8).status >= 400
            except H.Closed:
                pass


def test_every_prefix_of_a_request(srv, held):
    """A client that stops in the middle and leaves."""
    whole = b'POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell'
    for n in range(1, len(whole)):
        with H.Http(srv.http_port) as c:
            c.send(whole[:n])


# ------------------------------------------------------------ bad publishing

BAD_JSON = {
    'not json': (b'{"items": [', None),
    'no items': ({'x': 1}, 'items'),
    'items no list': ({'items': 5}, 'items'),
    'item no object': ({'items': [5]}, 'object'),
    'no channel': ({'items': [{'formats': {'http-stream': {'content': 'x'}}}]}, 'channel'),
    'channel no text': ({'items': [{'channel': 5, 'formats': {'http-stream': {'content': 'x'}}}]}, 'channel'),
    'no formats': ({'items': [{'channel': 'a'}]}, 'formats'),
    'formats no object': ({'items': [{'channel': 'a', 'formats': 5}]}, 'formats'),
    'no content': ({'items': [{'channel': 'a', 'formats': {'http-stream': {}}}]}, 'content'),
    'content no text': ({'items': [{'channel': 'a', 'formats': {'http-stream': {'content': 5}}}]}, 'content'),
    'base64': ({'items': [{'channel': 'a', 'formats': {'http-stream': {'content-bin': 5}}}]}, 'content-bin'),
    'code out of range': ({'items': [{'channel': 'a', 'formats': {'http-response': {'code': 1000, 'body': 'y'}}}]},
                          'code'),
    'headers': ({'items': [{'channel': 'a', 'formats': {'http-response': {'headers': 5, 'body': 'y'}}}]}, 'headers'),
}


@pytest.mark.parametrize('name', list(BAD_JSON))
def test_bad_publish_json(srv, held, name):
    body, word = BAD_JSON[name]
    r = srv.control(body=body)
    assert r.status == 400, r
    assert r.body.strip()
    if word:
        assert word.encode() in r.body, r.body


def test_one_bad_item_rejects_all(srv, held):
    channel = H.unique()
    with H.Http(srv.http_port) as c:
        c.request('GET', '/stream?topic=' + channel)
        c.read_head()
        c.stream(FIRST)
        srv.wait_sub(channel, timeout=0.5)
        r = srv.control(body={'items': [H.stream_item(channel, 'no\n'), {'channel': 'x'}]})
        assert r.status == 400
        assert c.stream_quiet(0.3)


def test_publish_that_is_too_large(srv, held):
    r = srv.control(body=json.dumps({'items': [H.stream_item('a', 'x' * 1_100_000)]}))
    assert 400 <= r.status < 500, r


@pytest.mark.parametrize('request_', [b'\x00\x01\r\n\r\n', b'POST /publish/ HTTP/1.1\r\nContent-Length: x\r\n\r\n',
                                      b'GET / HTTP/1.1\r\nX: ' + b'y' * 50000 + b'\r\n\r\n'],
                         ids=['binary', 'length', 'head too large'])
def test_bad_request_at_the_control_port(srv, held, request_):
    with H.Http(srv.ctl_port) as c:
        try:
            c.send(request_)
        except OSError:
            pass
        try:
            assert c.response(timeout=5).status >= 400
        except H.Closed:
            pass


BAD_PACKETS = {
    'empty': b'',
    'text': b'hello',
    'cut tnetstring': b'20:7:channel,1:a,}',
    'wrong type': b'3:abc}',
    'huge length': b'99999999999999999999:x,',
    'deep': b'',
    'json cut': b'J{"channel": ',
    'no channel': H.tnet_dumps({'formats': {'http-stream': {'content': 'x'}}}),
    'channel is a map': H.tnet_dumps({'channel': {'a': 1}, 'formats': {'http-stream': {'content': 'x'}}}),
    'formats is a text': H.tnet_dumps({'channel': 'a', 'formats': 'x'}),
    'binary': bytes(range(256)),
}


def deep(n=2000):
    """Lists in lists: a reader that recurses would run out of stack."""
    d = b'0:]'
    for _ in range(n):
        d = b'%d:%s]' % (len(d), d)
    return d


BAD_PACKETS['deep'] = deep()


@pytest.mark.parametrize('name', list(BAD_PACKETS))
def test_bad_packet_at_the_pull_socket(srv, held, name):
    before = srv.all_logs().count('WARN')
    for prefix in (b'', b'T'):
        srv.push(prefix + BAD_PACKETS[name])
    H.eventually(lambda: srv.all_logs().count('WARN') > before, 5)


def test_bad_packets_at_the_sub_socket(srv, held):
    channel = H.unique()
    with H.Http(srv.http_port) as c:
        c.request('GET', '/stream?topic=' + channel)
        c.read_head()
        c.stream(FIRST)
        s = srv.xpub()
        srv.xpub_wait(b'\x01' + channel.encode())
        for name, bad in BAD_PACKETS.items():
            if 'channel' not in name:      # here the topic names the channel
                s.send_multipart([channel.encode(), bad])
        s.send_multipart([channel.encode()])
        s.send_multipart([channel.encode(), b'a', b'b', b'c'])
        s.send_multipart([channel.encode(), H.tnet_dumps({'formats': {'http-stream': {'content': 'good\n'}}})])
        assert c.stream(b'good\n') == b'good\n'


def test_bad_packets_at_the_command_socket(srv, held):
    for bad in BAD_PACKETS.values():
        s = srv.ctx.socket(zmq.DEALER)
        s.setsockopt(zmq.LINGER, 0)
        s.connect('tcp://127.0.0.1:%d' % srv.cmd_port)
        s.send_multipart([b'', bad])
        s.send_multipart([bad])
        time.sleep(0.02)
        s.close()
    assert srv.command('conncheck', {'ids': []})['success'] is True


# ----------------------------------------------------- bad packets inside

BAD_ZHTTP = [b'', b'T', b'Thello', b'J{}', b'T5:hello,', b'T20:4:from,1:a,}', b'T' + deep(), bytes(range(256)),
             b'T' + H.tnet_dumps({'from': b'x', 'id': 5, 'type': b'data'}),
             b'T' + H.tnet_dumps({'from': b'x', 'id': b'nobody', 'seq': -1}),
             b'T' + H.tnet_dumps({'from': b'x', 'id': [{'id': b'a'}] * 200}),
             b'T' + H.tnet_dumps({'from': b'x', 'id': b'y', 'seq': 0, 'headers': 7, 'code': b'x'}),
             b'T' + H.tnet_dumps({'from': b'x', 'id': b'y', 'seq': 0, 'code': 200, 'headers': [[b'only one']]}),
             b'T' + H.tnet_dumps({'from': b'x', 'id': b'y', 'seq': 1 << 62, 'body': 5})]


def test_bad_zhttp_packets_at_the_connection_manager(srv, held):
    """By both ways in: the SUB and the ROUTER socket."""
    ctx = zmq.Context.instance()
    pub, router = ctx.socket(zmq.PUB), ctx.socket(zmq.DEALER)
    for s in (pub, router):
        s.setsockopt(zmq.LINGER, 200)
    pub.connect(srv.ipc('connmgr-in'))
    router.setsockopt(zmq.IDENTITY, b'stranger')
    router.connect(srv.ipc('connmgr-out-stream'))
    time.sleep(0.4)
    before = srv.all_logs().count('WARN')
    for bad in BAD_ZHTTP:
        pub.send(b'connmgr ' + bad)
        router.send_multipart([b'', bad])
        router.send(bad)
    H.eventually(lambda: srv.all_logs().count('WARN') > before, 5)
    pub.close()
    router.close()


class FakeFront:
    """Plays the connection manager towards our proxy and handler."""

    def __init__(self, srv):
        ctx = zmq.Context.instance()
        self.out, self.stream, self.inp = ctx.socket(zmq.PUSH), ctx.socket(zmq.ROUTER), ctx.socket(zmq.SUB)
        self.stream.setsockopt(zmq.IDENTITY, b'connmgr')
        self.inp.setsockopt(zmq.SUBSCRIBE, b'connmgr ')
        for s, name in ((self.out, 'connmgr-out'), (self.stream, 'connmgr-out-stream'), (self.inp, 'connmgr-in')):
            s.setsockopt(zmq.LINGER, 0)
            s.bind(srv.ipc(name))

    def request(self, id_, uri, **kw):
        p = {'from': b'connmgr', 'id': id_, 'seq': 0, 'method': 'GET', 'uri': uri, 'credits': 50000,
             'headers': [['Host', 'any.test']], 'stream': True, 'peer-address': '127.0.0.1', 'peer-port': 1234}
        p.update(kw)
        self.out.send(b'T' + H.tnet_dumps(p))

    def answer(self, id_, timeout=2000):
        """The first packet with a code for this id, or None."""
        poller = zmq.Poller()
        poller.register(self.stream, zmq.POLLIN)
        poller.register(self.inp, zmq.POLLIN)
        until = time.monotonic() + timeout / 1000
        while time.monotonic() < until:
            for s, _ in poller.poll(100):
                m = s.recv_multipart()[-1]
                m = m[m.index(b'T') + 1:]
                p, _ = H.tnet_parse(m)
                ids = [x['id'] for x in p['id']] if isinstance(p['id'], list) else [p['id']]
                if id_ in ids and 'code' in p:
                    return p
        return None

    def close(self):
        for s in (self.out, self.stream, self.inp):
            s.close()


@pytest.fixture
def back(started):
    srv = kit.Parts(only=['proxy', 'handler'], ready=False, routes='* {o}\n')
    started.append(srv)
    front = FakeFront(srv)
    started.append(front)
    return srv, front


def get(srv, front, tries=6):
    """A good request and its answer."""
    ep = srv.origin.endpoint(H.R('fine'))
    for n in range(tries):
        id_ = b'good-%d-%d' % (n, srv.http_port)
        front.request(id_, 'http://any.test' + ep.path)
        p = front.answer(id_)
        if p:
            return p
    raise AssertionError('no answer\n' + srv.logs())


def test_bad_zhttp_packets_at_the_proxy(back):
    srv, front = back
    assert get(srv, front)['code'] == 200
    before = kit.log_of(srv, 'proxy').count('WARN')
    for bad in BAD_ZHTTP:
        front.out.send(bad)
    front.request(b'no-uri', '::not a uri::')
    front.request(b'no-method', 'http://any.test/', method=b'')
    front.request(b'bad-header', 'http://any.test/', headers=[['Bad Name\r\nX', 'y\r\nz']])
    H.eventually(lambda: kit.log_of(srv, 'proxy').count('WARN') > before, 5)
    assert get(srv, front)['code'] == 200
    assert all(p.poll() is None for p in srv.parts.values())


def test_bad_packets_to_proxy_and_handler_streams(back):
    """By the ROUTER sockets, to whoever is connected there."""
    srv, front = back
    assert get(srv, front)['code'] == 200
    for name in ('proxy', 'handler'):
        pid = srv.parts[name].pid
        for bad in BAD_ZHTTP:
            for identity in (b'%s_%d' % (name.encode(), pid), b'%s_%d-0' % (name.encode(), pid)):
                front.stream.send_multipart([identity, b'', bad])
                front.stream.send_multipart([identity, bad])
    time.sleep(0.5)
    assert get(srv, front)['code'] == 200
    assert all(p.poll() is None for p in srv.parts.values())


# --------------------------------------------------------------- bad backends

def backend_of(behaviour):
    """A raw server on its own port; the function gets each accepted socket."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((kit.HOST, 0))
    listener.listen(64)

    def run():
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(s,), daemon=True).start()

    def serve(s):
        try:
            behaviour(s)
        except OSError:
            pass
        s.close()
    threading.Thread(target=run, daemon=True).start()
    return listener


def read_head(s):
    data = b''
    while b'\r\n\r\n' not in data:
        piece = s.recv(65536)
        if not piece:
            return
        data += piece


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\x01\x00\x00\x00\x00\x00\x00\x00')


def closes_at_once(s):
    pass


def resets_at_once(s):
    read_head(s)
    reset(s)


def speaks_nonsense(s):
    read_head(s)
    s.sendall(b'\x00\x01nonsense\r\n\r\n')


def cut_in_the_head(s):
    read_head(s)
    s.sendall(b'HTTP/1.1 200 OK\r\nContent-Le')


def cut_in_the_body(s):
    read_head(s)
    s.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf')


def cut_in_a_chunk(s):
    read_head(s)
    s.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf')


def bad_chunk_size(s):
    read_head(s)
    s.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n')


def hold_cut_in_the_body(s):
    read_head(s)
    s.sendall(b'HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: x\r\nContent-Length: 100\r\n\r\nhalf')


BAD_BACKENDS = {
    closes_at_once: 502, resets_at_once: 502, speaks_nonsense: 502, cut_in_the_head: 502,
    cut_in_the_body: None, cut_in_a_chunk: None, bad_chunk_size: None, hold_cut_in_the_body: None,
}


@pytest.mark.parametrize('behaviour', list(BAD_BACKENDS), ids=lambda f: f.__name__)
def test_bad_backend(started, behaviour):
    """502 where nothing was sent on yet; else an end that cannot be taken for a whole answer."""
    listener = backend_of(behaviour)
    started.append(listener)
    srv = kit.Server(routes='bad.test 127.0.0.1:%d\n* {o}\n' % listener.getsockname()[1])
    started.append(srv)
    with H.Http(srv.http_port) as c:
        c.request('GET', '/', host='bad.test')
        at = time.monotonic()
        try:
            r = c.response(timeout=10)
            assert r.status == 502, r
        except H.Closed:
            assert BAD_BACKENDS[behaviour] is None, 'closed without an answer'
        assert time.monotonic() - at < 8
    ep = srv.origin.endpoint(H.R('other'))
    assert H.http(srv, 'GET', ep.path).body == b'other'


def test_backend_that_is_down(started):
    port = H.free_port()
    srv = kit.Server(routes='down.test 127.0.0.1:%d\n* {o}\n' % port)
    started.append(srv)
    assert H.http(srv, 'GET', '/', host='down.test', timeout=10).status == 502
    H.release_port(port)


def test_backend_that_does_not_exist(started):
    srv = kit.Server(routes='gone.test no-such-host.invalid:80\n* {o}\n')
    started.append(srv)
    with H.Http(srv.http_port) as other:
        with H.Http(srv.http_port) as c:
            c.request('GET', '/', host='gone.test')
            # The look-up of a name holds up nobody.
            ep = srv.origin.endpoint(H.R('meanwhile'))
            other.request('GET', ep.path)
            assert other.response(timeout=3).body == b'meanwhile'
            assert c.response(timeout=30).status == 502


def test_backend_that_is_slow(started):
    """Nothing for a while, then byte by byte; others are served at the same time."""
    go = threading.Event()

    def slow(s):
        read_head(s)
        go.wait(30)
        for b in b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello':
            s.sendall(bytes([b]))
            time.sleep(0.005)
    listener = backend_of(slow)
    started.append(listener)
    srv = kit.Server(routes='slow.test 127.0.0.1:%d\n* {o}\n' % listener.getsockname()[1])
    started.append(srv)
    with H.Http(srv.http_port) as c:
        c.request('GET', '/', host='slow.test')
        ep = srv.origin.endpoint(H.R('quick'))
        for _ in range(20):
            assert H.http(srv, 'GET', ep.path).body == b'quick'
        go.set()
        assert c.response(timeout=10).body == b'hello'


def test_client_that_leaves_while_the_backend_answers(started):
    """The backend's connection is let go of; nothing piles up."""
    gone = threading.Semaphore(0)

    def endless(s):
        read_head(s)
        s.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        try:
            while True:
                s.sendall(b'400\r\n' + b'x' * 1024 + b'\r\n')
                time.sleep(0.005)
        finally:
            gone.release()
    listener = backend_of(endless)
    started.append(listener)
    srv = kit.Server(routes='endless.test 127.0.0.1:%d\n* {o}\n' % listener.getsockname()[1])
    started.append(srv)
    for _ in range(5):
        with H.Http(srv.http_port) as c:
            c.request('GET', '/', host='endless.test')
            c.read_head()
            c.read_chunk()
    for _ in range(5):
        assert gone.acquire(timeout=15), 'the proxy still reads for a client that is gone'
