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
