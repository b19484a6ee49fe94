"""The connection manager's program as it is started by hand (`spec/connmgr.md §1`, §2): its options
and their defaults, what it says of wrong ones, every form of a listener, and signals."""

import grp
import os
import pwd
import re
import signal
import socket
import ssl
import stat
import subprocess

import pytest
import zmq

import kit
from kit import H, HOST
from requester import Authority
from test_connmgr_options import ask, start  # noqa: F401

LINE = r'\[(ERR|WARN|INFO)\] \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} '

# Each option with its default; none: a flag, or nothing unless it is given.
OPTIONS = {
    'id': 'connmgr', 'log-level': '2', 'workers': '2', 'req-maxconn': '100', 'stream-maxconn': '10000',
    'buffer-size': '8192', 'body-buffer-size': '100000', 'blocks-max': '2 x stream-maxconn',
    'connection-blocks-max': '2', 'messages-max': '100', 'req-timeout': '30', 'stream-timeout': '1800',
    'listen': '0.0.0.0:8000,stream', 'zclient-req': 'ipc://client', 'zclient-stream': 'ipc://client',
    'zclient-connect': None, 'zserver-req': None, 'zserver-stream': None, 'zserver-connect': None,
    'ipc-file-mode': '0', 'tls-identities-dir': '.', 'compression': None, 'deny-out-internal': None,
    'debug-socket': None, 'prometheus': None, 'sizes': None, 'message-size-max': '0', 'tcp-keepalive': '0',
    'tcp-user-timeout': '0', 'compression-takeover': None, 'help': None, 'version': None,
}

NUMBERS = ['log-level', 'workers', 'req-maxconn', 'stream-maxconn', 'buffer-size', 'body-buffer-size', 'blocks-max',
           'connection-blocks-max', 'messages-max', 'req-timeout', 'stream-timeout']


def run(*args):
    return subprocess.run([kit.program('pushpin-connmgr'), *args], capture_output=True, text=True, timeout=10)


def refused(*args):
    """The one line that it ends with, without its time."""
    r = run(*args)
    assert r.returncode == 1 and r.stderr == '', r
    m = re.fullmatch(LINE + r'(.*)\n', r.stdout)
    assert m and m.group(1) == 'ERR', r.stdout
    return m.group(2)


# ---------------------------------------------------------------------- options

def test_help_has_every_option_and_default():
    short, long = run('-h'), run('--help')
    assert (short.returncode, short.stdout, short.stderr) == (0, long.stdout, '')
    assert long.stdout.startswith('HTTP/WebSocket connection manager\n')
    said = {}
    for line in long.stdout.splitlines():
        m = re.match(r' +(?:-\w, )?--([-a-z]+)', line)
        if m:
            default = re.search(r'\[default: (.*)\]$', line)
            said[m.group(1)] = default and default.group(1)
    assert said == OPTIONS


def test_version():
    short, long = run('-V'), run('--version')
    assert short.returncode == long.returncode == 0 and short.stdout == long.stdout
    assert re.fullmatch(r'pushpin-connmgr \d+\.\d+\.\d+\S*\n', short.stdout)


@pytest.mark.parametrize('args', [
    ['--nonsense'], ['-x'], ['word'], ['--workers'], ['--compression=yes'], ['--id=a', '--id=b'],
])
def test_wrong_usage_is_status_2(args):
    r = run(*args)
    assert r.returncode == 2 and r.stdout == ''
    assert r.stderr.startswith('error: ') and '--help' in r.stderr


def test_a_value_may_follow_as_a_word():
    assert refused('--workers', '0') == refused('--workers=0') == 'failed to parse workers: value must be at least 1'


@pytest.mark.parametrize('name', NUMBERS)
def test_numbers(name):
    for value, reason in [('x', 'invalid digit found in string'), ('', 'cannot parse integer from empty string'),
                          ('-1', 'invalid digit found in string'), ('1.5', 'invalid digit found in string')]:
        assert refused('--%s=%s' % (name, value)) == 'failed to parse %s: %s' % (name, reason)


@pytest.mark.parametrize('args,text', [
    (['--id='], 'failed to parse id: value cannot be empty or contain a space'),
    (['--id=a b'], 'failed to parse id: value cannot be empty or contain a space'),
    (['--workers=1025'], 'failed to parse workers: value too large'),
    (['--req-maxconn=1', '--stream-maxconn=10000000'], 'total maxconn is too large'),
    (['--stream-maxconn=100', '--blocks-max=199'], 'blocks-max is too small'),
    (['--connection-blocks-max=1'], 'connection-blocks-max is too small'),
    (['--workers=3', '--req-maxconn=2'], 'req maxconn must be >= workers'),
    (['--workers=3', '--stream-maxconn=2'], 'stream maxconn must be >= workers'),
    (['--ipc-file-mode=8'], 'failed to parse ipc-file-mode: invalid digit found in string'),
    (['--debug-socket=x,y'], 'failed to parse debug-socket: invalid param: y'),
    (['--prometheus=h:80'], 'failed to parse prometheus: invalid TCP address or port: h:80'),
    (['--listen=80', '--listen=h:80'], 'failed to parse listen: invalid TCP address or port: h:80'),
    (['--listen='], 'failed to parse listen: invalid TCP address or port: '),
    (['--listen=80,http'], 'failed to parse listen: invalid param: http'),
    (['--listen=80,mode=600'], 'failed to parse listen: invalid param: mode=600'),
    (['--listen=80,user=root'], 'failed to parse listen: invalid param: user=root'),
    (['--listen=x,local,tls'], 'failed to parse listen: invalid param: tls'),
    (['--listen=x,local,default-cert=y'], 'failed to parse listen: invalid param: default-cert=y'),
    (['--listen=x,local,mode=z'], 'failed to parse listen: failed to parse mode: invalid digit found in string'),
])
def test_wrong_values_are_one_line_and_status_1(args, text):
    assert refused(*args) == text


def test_a_base_must_be_ipc_or_tcp(tmp_path):
    listen = '--listen=%s/x,local' % tmp_path
    for option in ('--zclient-stream', '--zserver-stream'):
        for base in ('inproc://x', 'x', 'tcp://127.0.0.1'):
            r = run(listen, '--zclient-stream=ipc://%s/c' % tmp_path, option + '=' + base)
            said = [line for line in r.stdout.splitlines() if '[ERR]' in line]
            assert r.returncode == 1 and len(said) == 1 and 'base spec must be ipc or tcp' in said[0], r.stdout


# -------------------------------------------------------------------- listeners

@pytest.fixture
def serve(start):  # noqa: F811
    """Starts one with these listeners that nobody answers to."""
    def make(*listen, args=()):
        c = start('--workers=1', '--log-level=3', '--zclient-stream=ipc://%s/c' % start.dir,
                  '--zclient-req=ipc://%s/r' % start.dir, *['--listen=' + spec for spec in listen], *args)
        return c.wait('started')
    make.start, make.port, make.dir = start, start.port, start.dir
    return make


def refusal(conn):
    """What a client gets for something that is no request: somebody is there."""
    conn.settimeout(10)
    conn.sendall(b'? / HTTP/9\r\n\r\n')
    return conn.makefile('rb').readline()


def upgrade(port):
    """Status and text of a WebSocket's handshake that is wrong in stream mode, and refused in req mode."""
    return ask(port, headers={'Upgrade': 'websocket'})[1]


def test_tcp_forms(serve):
    one, two, three = serve.port(), serve.port(), serve.port()
    c = serve('%d' % one, '127.0.0.1:%d,stream' % two, '[::1]:%d' % three)
    for shown in ('0.0.0.0:%d' % one, '127.0.0.1:%d' % two, '[::1]:%d' % three):
        assert re.search(LINE + 'listening on ' + re.escape(shown) + '$', c.text(), re.M), c.text()
    for host, port in (('127.0.0.1', one), ('127.0.0.1', two), ('::1', three)):
        with socket.create_connection((host, port), 10) as conn:
            assert refusal(conn) == b'HTTP/1.0 400 Bad Request\r\n'


def test_modes(serve):
    stream, req, both = serve.port(), serve.port(), serve.port()
    serve('%s:%d,stream' % (HOST, stream), '%s:%d,req' % (HOST, req), '%s:%d,req,stream' % (HOST, both))
    assert upgrade(req) == b'WebSockets not supported on req mode interface.\n'
    assert upgrade(stream) == upgrade(both) != upgrade(req), 'stream wins'


def test_only_the_sockets_of_modes_with_a_listener(serve):
    serve('%s:%d,req' % (HOST, serve.port()))
    assert os.path.exists(serve.dir / 'r') and not os.path.exists(serve.dir / 'c-out')
    serve('%s:%d' % (HOST, serve.port()))
    assert all(os.path.exists(serve.dir / name) for name in ('c-out', 'c-out-stream', 'c-in'))


def test_local_with_owner_and_mode(serve):
    path = str(serve.dir / 'sock')
    user = pwd.getpwuid(os.getuid()).pw_name if os.getuid() else 'nobody'
    group = grp.getgrgid(os.getgid()).gr_name if os.getuid() else 'daemon'
    # What an earlier process left is removed; the parameters stand in any order.
    old = socket.socket(socket.AF_UNIX)
    old.bind(path)
    old.close()
    c = serve('%s,mode=640,local,user=%s,group=%s,stream' % (path, user, group))
    assert 'listening on ' + path in c.text()
    info = os.stat(path)
    assert stat.S_ISSOCK(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o640
    assert (pwd.getpwuid(info.st_uid).pw_name, grp.getgrgid(info.st_gid).gr_name) == (user, group)
    with socket.socket(socket.AF_UNIX) as conn:
        conn.connect(path)
        assert refusal(conn) == b'HTTP/1.0 400 Bad Request\r\n'


def test_local_that_cannot_be(serve):
    path = str(serve.dir / 'file')
    with open(path, 'w') as f:
        f.write('mine')
    for spec, reason in [(path + ',local', 'there is a file of that name that is no socket'),
                         ('/nonexistent/x,local', 'No such file or directory'),
                         ('%s/y,local,user=nobody-of-that-name' % serve.dir, 'nobody-of-that-name'),
                         ('%s/z,local,group=none-of-that-name' % serve.dir, 'none-of-that-name')]:
        said = refused('--listen=' + spec)
        assert said.startswith('failed to bind %s: ' % spec.split(',')[0]) and reason in said, said
    with open(path) as f:
        assert f.read() == 'mine'


def test_tls_with_a_default_certificate(serve):
    authority, port = Authority(serve.dir), serve.port()
    certificate, key = authority.issue('any.test')
    os.rename(certificate, serve.dir / 'fallback.crt')
    os.rename(key, serve.dir / 'fallback.key')
    serve('%s:%d,tls,default-cert=fallback' % (HOST, port), args=['--tls-identities-dir=%s' % serve.dir])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((HOST, port), 10) as conn, context.wrap_socket(conn, server_hostname='x.test') as tls:
        assert tls.version() in ('TLSv1.2', 'TLSv1.3')
        assert refusal(tls) == b'HTTP/1.0 400 Bad Request\r\n'


def test_a_port_of_several_processes(serve):
    port = serve.port()
    spec = '--listen=%s:%d,reuseport' % (HOST, port)
    for n in range(2):
        serve.start('--workers=1', '--zclient-stream=ipc://%s/c%d' % (serve.dir, n), spec).wait('started')
    assert refused('--listen=%s:%d' % (HOST, port)).startswith('failed to bind %s:%d: ' % (HOST, port))


def test_mode_of_ipc_files(serve):
    serve('%s:%d' % (HOST, serve.port()), args=['--ipc-file-mode=606', '--zserver-req=ipc://%s/s' % serve.dir])
    for name in ('c-out', 'c-out-stream', 'c-in', 's'):
        assert stat.S_IMODE(os.stat(serve.dir / name).st_mode) == 0o606, name


def test_without_a_listener_there_is_none(start):  # noqa: F811
    c = start('--zserver-stream=ipc://%s/s' % start.dir).wait('started')
    assert 'listening on' not in c.text()
    assert all(os.path.exists(start.dir / name) for name in ('s-in', 's-in-stream', 's-out'))


# -------------------------------------------------------------- signals, the log

def test_each_signal_that_ends_it(serve):
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        path = str(serve.dir / sig.name)
        c = serve(path + ',local')
        c.proc.send_signal(sig)
        assert c.proc.wait(10) == 0
        assert re.search(LINE + 'stopping...\n', c.text())
        assert not os.path.exists(path), 'what was made is removed'


def test_hup_and_usr1_do_not_end_it(serve):
    port = serve.port()
    c = serve('%s:%d' % (HOST, port))
    c.proc.send_signal(signal.SIGHUP)
    c.proc.send_signal(signal.SIGUSR1)
    c.wait('dump: end')
    with socket.create_connection((HOST, port), 10) as conn:
        assert refusal(conn) == b'HTTP/1.0 400 Bad Request\r\n'
    assert c.stop() == 0


def test_the_end_is_told_to_peers_and_not_waited_for_by_clients(serve):
    port = serve.port()
    c = serve('%s:%d' % (HOST, port))
    context = zmq.Context()
    try:
        pull, router = context.socket(zmq.PULL), context.socket(zmq.ROUTER)
        router.identity, router.router_mandatory = b'px', 1
        pull.rcvtimeo = router.rcvtimeo = 10_000
        pull.connect('ipc://%s/c-out' % serve.dir)
        router.connect('ipc://%s/c-out-stream' % serve.dir)
        with socket.create_connection((HOST, port), 10) as conn:
            conn.sendall(b'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
            id = H.tnet_loads(pull.recv()[1:])['id']
            packet = b'T' + H.tnet_dumps({'from': b'px', 'id': id, 'seq': 0, 'type': b'keep-alive'})

            def sent():
                try:
                    return router.send_multipart([b'connmgr', b'', packet]) or True
                except zmq.ZMQError:
                    return False
            H.eventually(sent, 10)
            c.wait('handle packet: keep-alive')
            c.proc.send_signal(signal.SIGTERM)
            last = H.tnet_loads(router.recv_multipart()[-1][1:])
            assert (H.text(last['type']), last['id'], last['seq']) == ('cancel', id, 1)
            # No answer: the response has not begun and nothing is drained.
            assert conn.recv(1) == b''
        assert c.proc.wait(10) == 0
    finally:
        context.destroy(0)


def test_the_second_signal_ends_it_at_once(serve):
    c = serve('%s:%d' % (HOST, serve.port()))
    # Both are there when it goes on.
    c.proc.send_signal(signal.SIGSTOP)
    c.proc.send_signal(signal.SIGTERM)
    c.proc.send_signal(signal.SIGINT)
    c.proc.send_signal(signal.SIGCONT)
    assert c.proc.wait(10) == 1


@pytest.mark.parametrize('level,words', [(0, set()), (1, set()), (2, {'INFO'}), (3, {'INFO', 'DEBUG'}),
                                         (4, {'INFO', 'DEBUG', 'TRACE'}), (9, {'INFO', 'DEBUG', 'TRACE'})])
def test_levels_of_the_log(start, level, words):  # noqa: F811
    port = start.port()
    c = start('--log-level=%d' % level, '--listen=%s:%d' % (HOST, port), '--zclient-stream=ipc://%s/c' % start.dir)
    H.eventually(lambda: kit.listens(port), 10)
    pull = zmq.Context.instance().socket(zmq.PULL)
    pull.connect('ipc://%s/c-out' % start.dir)
    with socket.create_connection((HOST, port), 10) as conn:
        conn.sendall(b'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
        assert pull.poll(10_000)
    pull.close(0)
    assert c.stop() == 0
    lines = c.text().splitlines()
    assert {re.match(r'\[(\w+)\]', line).group(1) for line in lines} == words
    for line in lines:
        # Where it comes from is said of what is for developers.
        module = '' if re.match(LINE, line) else r'\[[\w:]+\] '
        assert re.match(r'\[\w+\] [-\d]{10} [:.\d]{12} ' + module + r'\S', line), line
