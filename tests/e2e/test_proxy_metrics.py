"""The metrics listener of the proxy: old names first, sums over all workers, what backends did."""

import re
import subprocess
import urllib.request

import pytest
from websockets.sync.client import connect as websocket

import kit
from kit import H

ROUTES = ('dead.test 127.0.0.1:1\n' '*,proto=ws test\n' '* {o}\n')


def scrape(address):
    """{name and labels: value} of a page."""
    with urllib.request.urlopen('http://%s/any/path' % address, timeout=5) as r:
        assert r.headers['Content-Type'] == 'text/plain'
        text = r.read().decode()
    return {m[1]: float(m[2]) for m in re.finditer(r'^([a-z_]+(?:\{[^}]*\})?) ([0-9.]+)$', text, re.M)}


def wait_for(address, **wanted):
    """Until the page has these values; keys: names, or name__label."""
    def seen():
        page = scrape(address)
        return all(page.get(key) == value for key, value in wanted.items())
    try:
        H.eventually(seen, 8, 0.1)
    except AssertionError:
        raise AssertionError('wanted %r, the page has %r' % (wanted, scrape(address))) from None


def at_rest(address):
    """The page once all that the harness did at the start is in it."""
    pages = [scrape(address)]

    def same():
        pages.append(scrape(address))
        started = [pages[-1]['pp_proxy_requests_total{outcome="%s"}' % o] for o in ('2xx', 'held')]
        return min(started) >= 1 and pages[-1] == pages[-2]
    H.eventually(same, 10, 0.6)
    return pages[-1]


@pytest.mark.parametrize('workers', [1, 3])
def test_what_the_proxy_counts(workers, started):
    port = H.free_port()
    address = '%s:%d' % (H.HOST, port)
    conf = {'proxy': {'workers': workers, 'prometheus_port': address, 'prometheus_prefix': 'pp_'}}
    srv = kit.Server(routes=ROUTES, conf=conf)
    started.append(srv)
    before = at_rest(address)
    ep = srv.origin.endpoint([H.R('fine\n'), H.R('gone\n', 404), H.R('oh\n', 500)])
    for status in (200, 404, 500):
        assert H.http(srv, 'GET', ep.path).status == status
    assert H.http(srv, 'GET', '/', host='dead.test').status == 502
    held = srv.origin.endpoint(None)
    held.handler = H.hold_stream(held.channel)
    with H.Http(srv.http_port) as c, websocket('ws://%s:%d/ws' % (H.HOST, srv.http_port)) as ws:
        c.request('GET', held.path)
        assert c.read_head().status == 200
        ws.send('hello')
        assert ws.recv(5) == 'hello'
        more = {'pp_request_received': 6, 'pp_connection_minute': 6,
                'pp_proxy_requests_total{outcome="1xx"}': 1, 'pp_proxy_requests_total{outcome="2xx"}': 1,
                'pp_proxy_requests_total{outcome="4xx"}': 1, 'pp_proxy_requests_total{outcome="5xx"}': 2,
                'pp_proxy_requests_total{outcome="held"}': 1,
                'pp_proxy_backend_failures_total{cause="refused"}': 1}
        wait_for(address, **{name: before[name] + n for name, n in more.items()},
                 **{'pp_connection_connected': 1, 'pp_proxy_sessions{kind="ws"}': 1,
                    'pp_proxy_sessions{kind="http"}': 0, 'pp_message_sent': 0})
    wait_for(address, **{'pp_connection_connected': 0, 'pp_proxy_sessions{kind="ws"}': 0})
    page = scrape(address)
    got = [page['pp_proxy_backend_requests_total{connection="%s"}' % kind] for kind in ('new', 'kept')]
    assert sum(got) >= 5 and got[1] >= 1
    assert list(page)[:5] == ['pp_' + name for name in (
        'request_received', 'connection_connected', 'connection_minute', 'message_received', 'message_sent')]


def test_a_unix_socket(started, tmp_path):
    path = str(tmp_path / 'metrics')
    srv = kit.Server(conf={'proxy': {'prometheus_port': 'ipc://' + path}})
    started.append(srv)
    out = subprocess.run(['curl', '-sS', '--unix-socket', path, 'http://localhost/'], check=True,
                         capture_output=True, text=True).stdout
    assert '\nrequest_received ' in out and out.startswith('# HELP request_received ')


def test_a_port_that_is_taken(started):
    holder = H.Origin()
    started.append(holder)
    with pytest.raises(RuntimeError, match=r'failed to bind %s: .*:\d+: prometheus_port in \[proxy\]\)' % holder.addr):
        kit.Server(conf={'proxy': {'prometheus_port': holder.addr}}).stop()
