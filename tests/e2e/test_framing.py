"""The table of requests that readers could read differently, through the real programs: each
answer as the table says, and the backend sees exactly the requests that it names."""

import os
import re

import pytest

import kit
from kit import H

TABLE = os.path.join(kit.ROOT, 'tests', 'framing', 'cases.txt')
AFTER = b'GET /after HTTP/1.1\r\nHost: h\r\n\r\n'
ESCAPE = re.compile(rb'\\(?:x([0-9a-f]{2})|\*(\d+)\((.*?)\)|([rnt\\]))')


class Case:
    def __init__(self, name):
        self.name, self.data, self.answers, self.seen = name, b'', [], []


def unescaped(text):
    def one(m):
        if m.group(1):
            return bytes([int(m.group(1), 16)])
        if m.group(2):
            return unescaped(m.group(3)) * int(m.group(2))
        return {b'r': b'\r', b'n': b'\n', b't': b'\t', b'\\': b'\\'}[m.group(4)]
    return ESCAPE.sub(one, text)


def cases():
    out = []
    with open(TABLE, 'rb') as f:
        lines = f.read().split(b'\n')
    for line in lines:
        if not line or line.startswith(b'#'):
            continue
        kind, text = line[:1], line[2:]
        if kind == b'[':
            out.append(Case(line[1:-1].decode()))
        elif kind == b'>':
            out[-1].data += unescaped(text) + b'\r\n'
        elif kind == b'|':
            out[-1].data += unescaped(text)
        elif kind == b'<':
            out[-1].answers.append(text.decode())
        elif kind == b'=':
            out[-1].seen.append(unescaped(text))
    return out


@pytest.fixture(scope='module')
def origin():
    origin = H.Origin()
    yield origin
    origin.stop()


@pytest.fixture(scope='module')
def backend(origin):
    return origin.endpoint(H.R('ok'), path='')  # also of the target `*`


@pytest.fixture(scope='module')
def srv(origin, backend):
    with kit.Server(routes='* %s\n' % origin.addr, origin=origin) as server:
        yield server


def line_of(q):
    line = ('%s %s %s' % (q.method, q.get('Host'), q.target)).encode('latin-1')
    return line + b' ' + q.body if q.body else line


def told(r, body):
    """A response as the table says it."""
    if r.status == 200:
        return '200'
    return '%d %s' % (r.status, body.decode().strip().replace('Failed to parse request: ', ''))


def read_answer(c, method):
    r = c.response(method)
    while r.status == 100:
        r = c.response(method)
    return told(r, r.body)


def play(srv, case):
    methods = [s.split(b' ')[0].decode() for s in case.seen]
    wanted = list(case.answers)
    with H.Http(srv.http_port) as c:
        c.send(case.data)
        got = [read_answer(c, methods[i] if i < len(methods) else 'GET') for i in range(len(wanted) - 1)]
        last = wanted[-1]
        seen = list(case.seen)
        if last in ('nothing', 'cut'):
            c.sock.shutdown(1)
            rest = c.read_eof()
            assert not rest or (last == 'cut' and rest.startswith(b'HTTP/1.1 500 ')), rest
            got.append(last)
        else:
            got.append(read_answer(c, methods[-1] if len(methods) == len(wanted) else 'GET'))
            if last == '200':
                c.send(AFTER)
                assert read_answer(c, 'GET') == '200', 'the connection does not go on'
                seen.append(b'GET h /after')
            else:
                assert c.read_eof() == b''
        wanted[-1] = last.replace(' close', '')
        assert got == wanted
    return seen


def test_table(srv, backend):
    table = cases()
    assert len(table) >= 250
    faults = []
    for case in table:
        backend.requests.clear()
        try:
            seen = play(srv, case)
            got = [line_of(q) for q in backend.requests]
            assert got == seen, 'the backend saw %r, not %r' % (got, seen)
        except (AssertionError, OSError, H.Closed) as e:
            faults.append('[%s] %s: %s' % (case.name, type(e).__name__, str(e)[:300]))
    assert not faults, '%d of %d\n%s' % (len(faults), len(table), '\n'.join(faults))
