"""`log_level` of a route shows its access lines, or hides them, whatever the level of the process."""

import pytest

import kit
from kit import H

ROUTES = 'loud.test,log_level=2 {o}\nquiet.test,log_level=0 {o}\n* {o}\n'


@pytest.mark.parametrize('level, shown', [('1', ['loud']), ('2', ['loud', 'plain'])])
def test_lines_of_routes(level, shown):
    s = kit.Server(routes=ROUTES, conf={'runner': {'log_level': level}})
    try:
        ep = s.origin.endpoint(H.R('x'))
        for host in ('quiet', 'plain', 'loud'):
            assert H.http(s, 'GET', ep.path, host=host + '.test').status == 200
        line = ep.path + ' -> '
        H.eventually(lambda: 'http://loud.test' + line in kit.log_of(s, 'proxy'))
        log = kit.log_of(s, 'proxy')
        assert [h for h in ('quiet', 'plain', 'loud') if 'http://%s.test%s' % (h, line) in log] == sorted(shown, reverse=True)
    finally:
        s.stop()


def test_lines_of_links():
    """What the handler asks for is logged by the level of the stream's route, with the id that it was given."""
    routes = 'named.test,id=named {o}\nquiet.test,id=quiet,log_level=0 {o}\n* {o}\n'
    s = kit.Server(routes=routes)
    try:
        end = s.origin.endpoint(H.R('the end'))
        ep = s.origin.endpoint(H.R('start', headers=[('Grip-Link', '<%s>; rel=next' % end.path)]))
        for host in ('quiet', 'named', 'plain'):
            assert H.http(s, 'GET', ep.path, host=host + '.test').body == b'startthe end'
        lines = ['GET http://named.test%s route=named code=200 7' % end.path,
                 'GET http://plain.test%s code=200 7' % end.path]
        H.eventually(lambda: lines[1] in kit.log_of(s, 'handler'))
        log = kit.log_of(s, 'handler')
        assert lines[0] in log and 'http://quiet.test%s' % end.path not in log
    finally:
        s.stop()


@pytest.mark.parametrize('believed', [True, False])
def test_lines_of_clients_behind_tls(believed):
    conf = {'proxy': {'accept_x_forwarded_protocol': believed}}
    s = kit.Server(routes='* test\n', conf=conf)
    try:
        says = [('X-Forwarded-Proto', 'https')]
        assert H.http(s, 'GET', '/', says, host='a.test').status == 200
        with H.ws_connect(s, '/ws', host='a.test', headers=says):
            pass
        s_ = 's' if believed else ''
        for line in ('GET http%s://a.test/ -> test code=200 37' % s_, 'GET ws%s://a.test/ws -> test code=101 0' % s_):
            H.eventually(lambda: line in kit.log_of(s, 'proxy'))
    finally:
        s.stop()
