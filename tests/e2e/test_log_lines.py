"""What the logs say, word by word where tools read them; and `log_level` of a route, which shows its access lines
or hides them, whatever the level of the process."""

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


def at_level(level, routes=ROUTES):
    return kit.Server(routes=routes, conf={'runner': {'log_level': level}})


def until_closed(q):
    """A backend that takes a WebSocket and says nothing."""
    q.conn.accept_ws(q)
    q.conn.recv_frame(30)
    return H.TAKEN


@pytest.mark.parametrize('level, shown', [('1', ['loud']), ('2', ['loud', 'plain'])])
def test_lines_of_the_handler(level, shown):
    """Subscriptions of streams and WebSockets, and requests of links, of which only an id that was given is named."""
    routes = 'loud.test,log_level=2,id=first {o},sub=room\nquiet.test,log_level=0 {o},sub=room\n* {o},sub=room\n'
    s = at_level(level, routes)
    try:
        held = s.origin.endpoint(H.hold_stream('named', body='held\n'))
        first = s.origin.endpoint(H.R('begin\n', headers=[('Grip-Link', '<%s>; rel=next' % held.path)]))
        socket = s.origin.endpoint(until_closed)
        # They stay: one that has left again is not subscribed.
        clients = []
        for host in ('quiet.test', 'plain.test', 'loud.test'):
            clients.append(H.Http(s.http_port))
            clients[-1].request('GET', first.path, host=host)
            clients[-1].read_head()
            assert clients[-1].stream(b'held\n') == b'begin\nheld\n'
            clients.append(H.ws_connect(s, socket.path, host=host))
        lines = {host: ['GET http://%s.test%s%s code=200 5' % (host, held.path, ' route=first' if host == 'loud' else ''),
                        'subscribe http://%s.test%s channel=named' % (host, first.path),
                        'subscribe ws://%s.test%s channel=room' % (host, socket.path)]
                 for host in ('quiet', 'plain', 'loud')}
        H.eventually(lambda: all(line in kit.log_of(s, 'handler') for host in shown for line in lines[host]))
        log = kit.log_of(s, 'handler')
        seen = {host: [line in log for line in of_host] for host, of_host in lines.items()}
        assert seen == {host: [host in shown] * 3 for host in lines}
        for client in clients:
            client.close()
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


def test_lines_of_inputs():
    """What came in, at debug level; the words are those of 1.36."""
    s = at_level('3')
    try:
        s.command('conncheck', {'ids': [b'a', b'b\x01\xff"\'']})
        s.command('get-zmq-uris')
        s.push(b'J{"channel":"c","http-stream":{"content":"x"}}')
        s.publish(H.stream_item('c', 'x'))
        H.eventually(lambda: 'control: POST /publish/ code=200 10 items=1' in kit.log_of(s, 'handler'))
        H.eventually(lambda: 'IN pull: ' in kit.log_of(s, 'handler'))
        log = kit.log_of(s, 'handler')
        at = -1
        for line in ('inspect server: ipc://', 'accept server: ipc://', 'control server: tcp://127.0.0.1:', 'in pull: tcp://127.0.0.1:',
                     'in sub: tcp://127.0.0.1:', 'stats: ipc://', 'proxy control client: ipc://', 'http control server: 127.0.0.1:',
                     ' started\n'):
            assert log.find(line, at + 1) > at, line
            at = log.find(line, at + 1)
        for line in (r'IN command: conncheck args={ "ids": [ "a", "b\x01\xff\"'+"'"+'" ] }', 'IN command: get-zmq-uris args={ }',
                     'httpserver: IN POST /publish/', 'IN pull: {"channel":"c","http-stream":{"content":"x"}}'):
            assert line + '\n' in log, line
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
