"""JSON-P on streams: the client loads one script, whose call is complete when the stream ends."""

import json
import re

import pytest

import kit
from kit import H

ROUTES = 'ext.test,aco {o}\nbasic.test,aco,jsonp_mode=basic {o}\n* {o}\n'


@pytest.fixture(scope='module', params=['plain', 'workers'])
def srv(request):
    s = kit.Server(routes=ROUTES, conf=kit.topology_conf(request.param))
    s.watch()
    yield s
    s.stop()


def whole_stream(srv, ep, host, *messages):
    """The script of a stream that gets these messages and is closed then."""
    with H.Http(srv.http_port, 10) as c:
        c.request('GET', ep.path + '?callback=app.take', host=host)
        r = c.read_head()
        assert (r.status, r.headers.get('Content-Type')) == (200, 'application/javascript')
        script = c.stream(b'/**/app.take(')
        srv.wait_sub(ep.channel)
        for message in messages:
            srv.publish(H.stream_item(ep.channel, message))
        srv.publish({'channel': ep.channel, 'formats': {'http-stream': {'action': 'close'}}})
        return (script + c.stream(b');\n')).decode(), c.stream_ended()


def test_extended(srv):
    ep = srv.origin.endpoint()
    ep.handler = H.hold_stream(ep.channel, body='open "it"\n', extra=[('X-A', '1'), ('Cache-Control', 'no-cache')])
    script, ended = whole_stream(srv, ep, 'ext.test', 'line\u2028\n', 'last </script>\n')
    said = json.loads(re.fullmatch(r'/\*\*/app\.take\((.*)\);\n', script, re.DOTALL).group(1))
    assert (said['code'], said['reason'], said['headers']['X-A']) == (200, 'OK', '1')
    assert said['body'] == 'open "it"\nline\u2028\nlast </script>\n'
    assert '\u2028' not in script and ended


def test_basic(srv):
    ep = srv.origin.endpoint()
    ep.handler = H.hold_stream(ep.channel, body='[1,\n')
    script, ended = whole_stream(srv, ep, 'basic.test', '2,\n', '3]\n')
    assert (script, ended) == ('/**/app.take([1,\n2,\n3]);\n', True)


def test_a_start_that_is_sent_before_the_hold(srv):
    ep = srv.origin.endpoint()
    ep.handler = H.hold_stream(ep.channel, body='x' * 150000 + '\n')
    script, ended = whole_stream(srv, ep, 'ext.test', 'more\n')
    said = json.loads(script[len('/**/app.take('):-len(');\n')])
    assert said['body'] == 'x' * 150000 + '\nmore\n' and ended
