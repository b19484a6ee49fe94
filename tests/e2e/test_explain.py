"""`pushpin --check` and `pushpin --explain`, with the routes of docs/routes.md."""

import os
import re
import subprocess

import pytest

import kit
from kit import H

ROUTES = re.search(r'```\n(# everything.*?)```', open(os.path.join(kit.ROOT, 'docs', 'routes.md')).read(), re.S).group(1)
CONF = '''[global]
include={libdir}/internal.conf
rundir=run
[runner]
services=%(services)s
http_port=7999
[proxy]
routesfile=%(routesfile)s
%(proxy)s
[handler]
push_in_http_addr=127.0.0.1
push_in_http_port=5561
'''


@pytest.fixture
def pushpin(tmp_path):
    def run(*args, routes=ROUTES, **conf):
        (tmp_path / 'routes').write_text(routes)
        (tmp_path / 'pushpin.conf').write_text(CONF % {'services': 'connmgr,proxy,handler', 'routesfile': 'routes', 'proxy': '', **conf})
        p = subprocess.run([H.target_path(), '--config=%s' % (tmp_path / 'pushpin.conf'), *args],
                           cwd=tmp_path, capture_output=True, text=True, timeout=20)
        return p.returncode, p.stdout, p.stderr
    return run


def test_good(pushpin):
    assert pushpin('--check') == (0, 'no problems found\n', '')


def test_problems_have_their_place(pushpin):
    code, out, _ = pushpin('--check', routes='* localhost:80\nbad\nx,sig_key=file:none y:1\nz y:0\n',
                           proxy='upstream_key=file:nokey')
    assert code == 1
    assert 'routes:2: must specify condition and at least one target' in out
    assert 'routes:3: sig_key cannot be used' in out
    assert 'routes:4: target invalid port' in out
    assert '[proxy] upstream_key: cannot be used' in out


def test_no_routes_file(pushpin, tmp_path):
    code, out, _ = pushpin('--check', routesfile='elsewhere')
    assert code == 1 and 'unable to open routes file' in out
    code, out, _ = pushpin('--check', routesfile='')
    assert code == 1 and 'unable to open routes file: set routesfile in [proxy]\n' in out
    # Without a proxy nobody wants one.
    assert pushpin('--check', routesfile='', services='connmgr')[:2] == (0, 'no problems found\n')


def test_a_key_twice(pushpin):
    code, out, _ = pushpin('--check', proxy='debug=true\ndebug=false')
    assert code == 1 and 'pushpin.conf:10: debug in [proxy]: is in line 9 too; the last one counts\n' in out


def test_an_unknown_owner(pushpin):
    code, out, _ = pushpin('--check', proxy='[runner]\nlocal_ports=run/s?user=nobody-of-that-name')
    assert code == 1 and 'pushpin.conf:10: local_ports in [runner]: unknown user: nobody-of-that-name\n' in out


@pytest.mark.parametrize('method, url, wanted', [
    ('GET', 'http://static.example.com/v1/logo.png',
     ['id static.example.com,*,*,/v1/', 'target: files:80 by http', 'GET /logo.png HTTP/1.1',
      'Host: static.example.com', 'Grip-Feature: ']),
    ('POST', 'https://api.example.com/x?y', ['(id api)', 'target: backend1:443 by https, Host backend.internal',
                                            'else: backend2:443', 'POST /x?y HTTP/1.1']),
    ('GET', 'ws://app.example.com/chat', ['app:80 by WebSocket-over-HTTP by http', 'POST /chat']),
    ('GET', 'http://z.example.com/', ['target: zhttp/ipc:///tmp/app']),
])
def test_explain(pushpin, method, url, wanted):
    code, out, err = pushpin('--explain', method, url)
    assert code == 0, err
    for text in wanted:
        assert text in out, out


def test_explain_nothing(pushpin):
    code, _, err = pushpin('--explain', 'GET', 'http://nowhere.test/', routes='a.test b:1\n')
    assert code == 1 and 'no route for http://nowhere.test/' in err
    assert pushpin('--explain', 'GET', '/path')[0] == 1
