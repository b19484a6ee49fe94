"""What operators have: metrics and health of all processes, the dashboard over them, reload, the service
manager's notifications, one server at a time, and what docs/operating.md says to type."""

import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

import kit
from kit import H
from test_bad_input import attempt, fails  # noqa: F401
from test_tls import make_cert

OPERATING = os.path.join(kit.ROOT, 'docs', 'operating.md')
DASHBOARD = os.path.join(kit.ROOT, 'tools', 'grafana', 'pushpin.json')


def get(port, path):
    try:
        with urllib.request.urlopen('http://%s:%d%s' % (kit.HOST, port, path), timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def families(page):
    """Names of the metrics on a page, with those of a histogram's parts."""
    names = set(re.findall(r'^# TYPE (\S+) ', page, re.M))
    return names | {n for n in re.findall(r'^([a-z_]+)[{ ]', page, re.M)}


def value(page, name, **labels):
    """Sum of a metric's samples that have these labels."""
    total, found = 0.0, False
    for labels_of, number in re.findall(r'^%s(\{.*?\})? (\S+)$' % name, page, re.M):
        if all('%s="%s"' % kv in labels_of for kv in labels.items()):
            total, found = total + float(number), True
    assert found, '%s %r is missing in\n%s' % (name, labels, page)
    return total


class Watched(kit.Server):
    """With the supervisor's listener."""

    def __init__(self, conf=None, **kw):
        self.metrics_port = H.free_port()
        own = {'runner': {'prometheus_port': '%s:%d' % (kit.HOST, self.metrics_port)}}
        super().__init__(conf=kit.merge(own, conf), **kw)

    def get(self, path):
        return get(self.metrics_port, path)

    def page(self):
        code, text = self.get('/metrics')
        assert code == 200
        return text

    def stop(self):
        super().stop()
        H.release_port(self.metrics_port)


@pytest.mark.parametrize('topology', ['plain', 'both'])
def test_one_page_for_all_processes(started, topology):
    conf = kit.merge(kit.topology_conf(topology), {'runner': {'prometheus_prefix': 'pp_'}})
    srv = Watched(conf=conf)
    started.append(srv)
    H.eventually(lambda: srv.get('/healthz/ready') == (200, 'ready\n'), 15)
    assert srv.get('/healthz/live') == (200, 'live\n')
    ep = srv.origin.endpoint(H.hold_stream('watched'))
    with kit.Crowd() as crowd:
        crowd.open_many(3, srv.http_port, ep.path, until=b'open\n')
        srv.publish(H.stream_item('watched', 'seen\n'))
        crowd.wait_text(b'seen\n', 10, crowd.clients)

        def settled():
            page = srv.page()
            held = value(page, 'pp_handler_sessions', process='handler', kind='stream')
            return held >= 3 and value(page, 'pp_message_sent', process='handler') >= 3 and page
        page = H.eventually(settled, 10)
    processes = set(re.findall(r'process="([^"]+)"', page))
    assert processes == {n for n, _ in names_of(srv)}
    for name in processes:
        assert value(page, 'pp_process_up', process=name) == 1
        assert value(page, 'pp_process_resident_memory_bytes', process=name) > 1 << 20
    assert value(page, 'pp_connmgr_requests_total') >= 3
    assert page.count('# TYPE pp_request_received ') == 1
    # Every line is a comment or a sample.
    odd = [x for x in page.splitlines() if not re.match(r'# (HELP|TYPE) \S+ .|\S+(\{.*\})? \S+$', x)]
    assert not odd


def names_of(srv):
    """Children with their names in logs and metrics."""
    out = []
    for pid, _, cmdline in srv.children():
        name = os.path.basename(cmdline.split(' ')[0]).replace('pushpin-', '')
        found = re.search(r'--id=(\S+)', cmdline)
        out.append((found.group(1) if found else name, pid))
    return out


def test_health_follows_the_processes(started):
    srv = Watched()
    started.append(srv)
    H.eventually(lambda: srv.get('/healthz/ready')[0] == 200, 15)
    # One that is stuck is left out of the page, and nothing else is.
    pid = kit.child(srv, 'pushpin-proxy')
    os.kill(pid, signal.SIGSTOP)
    try:
        with socket.create_connection((kit.HOST, srv.metrics_port)) as waiting:
            waiting.sendall(b'GET /metrics HTTP/1.0\r\n\r\n')
            assert srv.get('/healthz/ready') == (200, 'ready\n')
            # The page waits two seconds for the one that is stuck; health did not wait for the page.
            waiting.setblocking(False)
            with pytest.raises(BlockingIOError):
                waiting.recv(1)
        page = srv.page()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert value(page, 'process_up', process='proxy') == 0
    assert value(page, 'process_up', process='handler') == 1
    assert H.eventually(lambda: value(srv.page(), 'process_up', process='proxy') == 1, 10)


def test_every_metric_of_the_dashboard_exists(started):
    srv = Watched()
    started.append(srv)
    H.eventually(lambda: srv.get('/healthz/ready')[0] == 200, 15)
    with open(DASHBOARD) as f:
        dashboard = json.load(f)
    known = families(srv.page())
    used = set()
    for panel in dashboard['panels']:
        for target in panel['targets']:
            found = re.findall(r'([a-z_]+)\{job', target['expr'])
            assert found, target['expr']
            used |= set(found)
    assert len(used) > 15
    assert used <= known, 'no such metrics: %r' % (used - known)


def test_metrics_that_the_page_on_operating_names_exist(started):
    srv = Watched()
    started.append(srv)
    H.eventually(lambda: srv.get('/healthz/ready')[0] == 200, 15)
    known = families(srv.page())
    with open(OPERATING) as f:
        text = f.read()
    named = set(re.findall(r'`((?:connmgr|proxy|handler|process)_[a-z_]+)`', text))
    assert len(named) > 5
    # Keys of the configuration look the same.
    assert named - known <= {'connmgr_workers', 'connmgr_processes'}, named - known


def test_commands_of_the_page_on_operating(started):
    """The ones for metrics and health, with the port of this server."""
    srv = Watched()
    started.append(srv)
    H.eventually(lambda: srv.get('/healthz/ready')[0] == 200, 15)
    with open(OPERATING) as f:
        blocks = re.findall(r'```sh\n(.*?)```', f.read(), re.S)
    commands = [c for b in blocks for c in b.splitlines()]
    assert commands
    for command in commands:
        command = command.replace('127.0.0.1:9100', '%s:%d' % (kit.HOST, srv.metrics_port))
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=15)
        assert done.returncode == 0 and done.stdout, (command, done)


def test_an_occupied_port_of_the_listener(attempt):  # noqa: F811
    with socket.create_server((kit.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        attempt.conf(runner='prometheus_port=%s:%d' % (kit.HOST, port))
        fails(attempt, 'prometheus_port', str(port))


# ----------------------------------------------------------------- reload

def change(srv, *pairs):
    """Rewrites keys of the file."""
    text = srv.conf
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    srv.write_conf(text)


@pytest.mark.parametrize('topology', ['plain', 'workers'])
def test_reload_takes_over_what_is_not_structural(started, topology):
    conf = kit.merge(kit.topology_conf(topology), {
        'runner': {'client_maxconn': '500'}, 'handler': {'connection_subscription_max': '20'}})
    srv = Watched(conf=conf)
    started.append(srv)
    H.eventually(lambda: srv.get('/healthz/ready')[0] == 200, 15)
    ep = srv.origin.endpoint(H.hold_stream('kept'))
    with kit.Crowd() as crowd:
        crowd.open_many(2, srv.http_port, ep.path, until=b'open\n')
        assert '[DEBUG]' not in srv.all_logs()
        change(srv, ('log_level=2', 'log_level=1,handler:3,connmgr:3'),
               ('client_maxconn=500', 'client_maxconn=3'),
               ('accept_x_forwarded_protocol=false', 'accept_x_forwarded_protocol=false\ncdn_loop=reloaded'),
               ('id_cache_ttl=60', 'id_cache_ttl=60\nauth_token=secret'),
               ('client_buffer_size=8192', 'client_buffer_size=4096'))
        srv.signal(signal.SIGHUP)
        logs = H.eventually(lambda: 'client_buffer_size in [runner] has changed' in srv.all_logs()
                            and srv.all_logs(), 10)
        assert re.search(r'WARN.*client_buffer_size', logs)
        # Publishing wants the token now.
        body = {'items': [H.stream_item('kept', 'still\n')]}
        H.eventually(lambda: srv.control(body={'items': []}).status in (401, 403), 10)
        accepted = srv.control(body=body, headers=[('Authorization', 'Bearer secret')])
        assert accepted.status == 200, accepted
        # Those who were there are there; one more is served, the next waits.
        crowd.wait_text(b'still\n', 10, crowd.clients)
        crowd.open_many(1, srv.http_port, ep.path, until=b'open\n')
        assert ep.last.get('CDN-Loop') == 'reloaded'
        late = crowd.add(srv.http_port, ep.path)
        crowd.quiet(1.0)
        assert not late.data
        change(srv, ('client_maxconn=3', 'client_maxconn=500'))
        srv.signal(signal.SIGHUP)
        crowd.wait_text(b'open\n', 10, crowd.clients)
    H.eventually(lambda: '[DEBUG]' in kit.log_of(srv, 'pushpin-handler'), 10)
    H.eventually(lambda: value(srv.page(), 'supervisor_reloads_total') == 2, 10)
    assert srv.alive()


def test_reload_takes_over_what_the_stats_are_like(started):
    srv = kit.Server(conf={'global': {'stats_connection_send': 'true'},
                           'proxy': {'stats_report_interval': 600}, 'handler': {'stats_report_interval': 600}})
    started.append(srv)
    ep = srv.origin.endpoint(H.R('short'))
    st = srv.stats()
    for kind in 'conn', 'activity':
        H.eventually(lambda: H.http(srv, 'GET', ep.path) and st.pump(0.2) and
                     kind in {t for t, _, _ in st.seen}, 10)
    assert {letter for _, letter, _ in st.seen} == {'T'}
    change(srv, ('stats_report_interval=600', 'stats_report_interval=1'),
           ('stats_format=tnetstring', 'stats_format=json'),
           ('stats_connection_send=true', 'stats_connection_send=false'))
    srv.signal(signal.SIGHUP)

    def minutes():
        """A report with the request's minute: it came by a report of the proxy and one of the handler."""
        H.http(srv, 'GET', ep.path)
        st.pump(0.2)
        return [v for t, letter, v in st.seen if t == 'report' and letter == 'J' and v['minutes']]
    H.eventually(minutes, 15)
    st.seen.clear()
    H.eventually(minutes, 15)
    assert 'conn' not in {t for t, _, _ in st.seen}
    assert 'has changed, which takes effect' not in srv.all_logs()
    st.close()


def test_a_broken_file_changes_nothing(started):
    srv = Watched()
    started.append(srv)
    H.eventually(lambda: srv.get('/healthz/ready')[0] == 200, 15)
    good = srv.conf
    srv.write_conf(good + '\n[proxy\ndebug=true\n')
    srv.signal(signal.SIGHUP)
    H.eventually(lambda: 'the settings stay as they are' in srv.all_logs(), 10)
    ep = srv.origin.endpoint(H.R('fine'))
    assert H.http(srv, 'GET', ep.path).body == b'fine'
    assert srv.alive()


# ------------------------------------------------------------ start and end

def test_the_service_manager_is_told(started, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = str(tmp_path / 'notify')
        manager.bind(path)
        manager.settimeout(15 * H.FACTOR)
        env = dict(os.environ, NOTIFY_SOCKET=path)
        srv = kit.Server(env=env)
        started.append(srv)

        def said():
            return manager.recv(4096).decode().splitlines()
        assert 'READY=1' in said()
        srv.signal(signal.SIGHUP)
        first = said()
        assert 'RELOADING=1' in first and any(x.startswith('MONOTONIC_USEC=') for x in first)
        assert 'READY=1' in said()
        srv.signal(signal.SIGTERM)
        assert 'STOPPING=1' in said()
        assert srv.wait_exit() == 0


def test_a_second_server_in_the_same_place(started, attempt):  # noqa: F811
    first = kit.Server()
    started.append(first)
    attempt.conf(rundir=first.rundir)
    with open(attempt.path('pushpin.conf')) as f:
        text = f.read().replace('ipc_prefix=bad-', 'ipc_prefix=' + first.prefix)
    attempt.write('pushpin.conf', text)
    before = set(os.listdir(first.rundir))
    fails(attempt, 'a server runs already', first.rundir)
    assert set(os.listdir(first.rundir)) == before
    ep = first.origin.endpoint(H.R('untouched'))
    assert H.http(first, 'GET', ep.path).body == b'untouched'
    # Another prefix is another server.
    attempt.write('pushpin.conf', text.replace('ipc_prefix=' + first.prefix, 'ipc_prefix=other-'))
    p = subprocess.Popen([H.target_path(), '--config=' + attempt.path('pushpin.conf'), '--merge-output'],
                         cwd=attempt.dir, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        H.eventually(lambda: kit.listens(attempt.ports[0]), 15)
    finally:
        p.terminate()
        assert p.wait(15) == 0


def test_a_killed_server_leaves_nothing_in_the_way(started):
    srv = kit.Server()
    started.append(srv)
    pids = [pid for _, pid in names_of(srv)]
    os.kill(srv.proc.pid, signal.SIGKILL)
    srv.proc.wait(10)
    H.eventually(lambda: not any(kit.alive(p) for p in pids), 10)
    srv.start()
    ep = srv.origin.endpoint(H.R('again'))
    assert H.http(srv, 'GET', ep.path).body == b'again'


def test_missing_certificate(attempt):  # noqa: F811
    attempt.conf(runner='https_ports=%s:%d' % (kit.HOST, attempt.ports[0] + 0))
    with open(attempt.path('pushpin.conf')) as f:
        text = re.sub(r'http_port=\S+\n', 'http_port=\n', f.read(), count=1)
    attempt.write('pushpin.conf', text)
    fails(attempt, attempt.path('runner/certs'), 'https_ports')
    os.makedirs(attempt.path('runner/certs'))
    fails(attempt, attempt.path('runner/certs'), 'https_ports')


def test_certificate_without_a_key_in_it(attempt):  # noqa: F811
    attempt.conf(runner='https_ports=%s:%d' % (kit.HOST, attempt.ports[0]))
    with open(attempt.path('pushpin.conf')) as f:
        text = re.sub(r'http_port=\S+\n', 'http_port=\n', f.read(), count=1)
    attempt.write('pushpin.conf', text)
    name = 'runner/certs/default_%d' % attempt.ports[0]
    os.makedirs(attempt.path('runner/certs'))
    for kind in 'crt', 'key':
        attempt.write('%s.%s' % (name, kind), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    fails(attempt, 'port %d of https_ports' % attempt.ports[0], attempt.path(name + '.key'))


def test_key_of_another_certificate(attempt):  # noqa: F811
    port = attempt.ports[0]
    attempt.conf(runner='https_ports=%s:%d' % (kit.HOST, port))
    with open(attempt.path('pushpin.conf')) as f:
        text = re.sub(r'http_port=\S+\n', 'http_port=\n', f.read(), count=1)
    attempt.write('pushpin.conf', text)
    for name in 'default_%d' % port, 'other':
        make_cert(attempt.path('runner/certs'), name)
    pair = [attempt.path('runner/certs/default_%d.%s' % (port, kind)) for kind in ('key', 'crt')]
    os.rename(attempt.path('runner/certs/other.key'), pair[0])
    fails(attempt, 'port %d of https_ports' % port, 'the key %s does not belong to the certificate %s' % tuple(pair))


def test_key_file_that_is_not_there(attempt):  # noqa: F811
    attempt.conf(proxy='sig_key=file:gone.key')
    fails(attempt, 'pushpin.conf:', 'sig_key', attempt.path('gone.key'))


def test_log_file_that_cannot_be_opened(attempt):  # noqa: F811
    attempt.conf()
    os.mkdir(attempt.path('log/pushpin-handler.log'))
    p = subprocess.run([H.target_path(), '--config=' + attempt.path('pushpin.conf')], cwd=attempt.dir,
                       capture_output=True, text=True, timeout=15)
    out = p.stdout + p.stderr
    assert p.returncode == 1 and 'failed to open log file ' + attempt.path('log/pushpin-handler.log') in out, out
    assert 'starting connmgr' not in out


def test_unknown_keys_and_the_environment(started):
    env = dict(os.environ, PUSHPIN_PROXY_CDN_LOOP='from-env', PUSHPIN_PROXY_CDN_LOP='x')
    srv = kit.Server(env=env, conf={'runner': {'htpp_port': '1'}, 'global': {'message_wait': '3'}})
    started.append(srv)
    logs = srv.all_logs()
    for text in ('htpp_port in [runner]: there is no such key; did you mean http_port?',
                 'did you mean message_wait in [handler]?', 'did you mean PUSHPIN_PROXY_CDN_LOOP?'):
        assert logs.count(text) == 1, (text, logs)
    ep = srv.origin.endpoint(H.R('x'))
    H.http(srv, 'GET', ep.path)
    assert ep.last.get('CDN-Loop') == 'from-env'


def test_streams_end_in_order_over_the_drain_time(started):
    """The others carry the handler's last words, for longer than they would have taken to stop."""
    srv = kit.Server(conf={'handler': {'drain_time': 2}})
    started.append(srv)
    ep = srv.origin.endpoint(H.hold_stream('drained'))
    with kit.Crowd() as crowd:
        crowd.open_many(50, srv.http_port, ep.path, until=b'open\n')
        srv.signal(signal.SIGTERM)
        crowd.wait_text(b'\r\n0\r\n\r\n', 10, crowd.clients)
    assert srv.wait_exit() == 0
