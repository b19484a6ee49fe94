"""Publishing through the real programs: the control port with connections that stay, client
libraries, and the handler's limits."""

import json
import os
import signal
import socket
import threading

import pytest
import requests
import kit
from kit import H

ROUTES = '* {o}\n'


@pytest.fixture(scope='module')
def srv():
    with H.Server(routes=ROUTES) as server:
        yield server


@pytest.fixture
def ep(srv):
    return srv.origin.endpoint()


def publish_bytes(channel, text):
    body = json.dumps({'items': [H.stream_item(channel, text)]})
    return ('POST /publish/ HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n'
            'Content-Length: %d\r\n\r\n%s' % (len(body), body)).encode()


def test_one_connection_serves_many_publishes(srv, ep):
    ep.handler = H.hold_stream(ep.channel)
    with H.Http(srv.http_port) as client:
        client.request('GET', ep.path)
        client.read_head()
        srv.wait_sub(ep.channel)
        with requests.Session() as session:
            for n in range(50):
                body = {'items': [H.stream_item(ep.channel, '%d;' % n)]}
                reply = session.post('http://127.0.0.1:%d/publish/' % srv.ctl_port, json=body)
                assert reply.status_code == 200 and reply.headers['Connection'] == 'keep-alive'
        got = b''
        while b'49;' not in got:
            got += client.read_chunk()
        assert got == b'open\n' + b''.join(b'%d;' % n for n in range(50))


def test_requests_one_behind_the_other_are_answered_in_order(srv, ep):
    with socket.create_connection(('127.0.0.1', srv.ctl_port), 10) as client:
        client.sendall(publish_bytes(ep.channel, 'x') * 100)
        got = b''
        while got.count(b'Published\n') < 100:
            part = client.recv(65536)
            assert part, got[-200:]
            got += part


def test_more_requests_than_fit_into_one_buffer(srv, ep):
    """A megabyte and a half behind each other, answers left in the socket meanwhile."""
    count = 300
    with socket.create_connection(('127.0.0.1', srv.ctl_port), 20) as client:
        sender = threading.Thread(target=client.sendall, args=(publish_bytes(ep.channel, 'x' * 5000) * count,))
        sender.start()
        got = b''
        while got.count(b'Published\n') < count:
            part = client.recv(65536)
            assert part, got[-200:]
            got += part
        sender.join(20)


def test_a_client_that_never_ends_holds_up_nobody(srv):
    """It goes on after its request was refused."""
    over = threading.Event()

    def flood():
        try:
            with socket.create_connection(('127.0.0.1', srv.ctl_port), 20) as client:
                while not over.is_set():
                    client.sendall(b'x' * 1_000_000)
        except OSError:
            pass

    floods = [threading.Thread(target=flood) for _ in range(2)]
    for thread in floods:
        thread.start()
    try:
        for _ in range(20):
            assert srv.control(body={'items': []}).status == 200
    finally:
        over.set()
        for thread in floods:
            thread.join(20)


def test_a_hundred_publishers_at_once(srv, ep):
    failures = []

    def run():
        try:
            with socket.create_connection(('127.0.0.1', srv.ctl_port), 20) as client:
                for n in range(10):
                    client.sendall(publish_bytes(ep.channel, str(n)))
                    got = b''
                    while b'Published\n' not in got:
                        part = client.recv(4096)
                        assert part
                        got += part
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_idle_connections_make_room_for_new_ones(srv):
    idle = []
    try:
        for _ in range(128):
            client = socket.create_connection(('127.0.0.1', srv.ctl_port), 10)
            idle.append(client)
            client.sendall(b'GET / HTTP/1.1\r\nConnection: keep-alive\r\n'
                           b'\r\n')
            assert b'Pushpin API' in client.recv(4096)
        right = srv.control(body={'items': []})
        assert right.status == 200
    finally:
        for client in idle:
            client.close()


@pytest.mark.parametrize('way', ['push', 'pub'])
@pytest.mark.parametrize('fmt', ['tnet', 'J'])
def test_several_items_in_one_message(srv, ep, way, fmt):
    ep.handler = H.hold_stream(ep.channel)
    with H.Http(srv.http_port) as client:
        client.request('GET', ep.path)
        client.read_head()
        client.stream(b'open\n')
        items = [H.stream_item(ep.channel, '%d;' % n) for n in range(20)]
        if way == 'push':
            srv.wait_sub(ep.channel)
            srv.push({'items': items}, fmt)
        else:
            for item in items:
                del item['channel']
            message = {'items': items}
            payload = b'J' + json.dumps(message).encode() if fmt == 'J' else H.tnet_dumps(message)
            srv.xpub_wait(b'\x01' + ep.channel.encode())
            srv.xpub().send_multipart([ep.channel.encode(), payload])
        assert client.stream(b'19;') == b''.join(b'%d;' % n for n in range(20))


def keep_alive_timers(port):
    """Of the TCP connections to a local port: whether the kernel is to ask after a silent peer."""
    with open('/proc/net/tcp') as f:
        lines = [line.split() for line in f][1:]
    return [x[5].startswith('02:') for x in lines if x[2].endswith(':%04X' % port) and x[3] == '01']


def test_a_vanished_publisher_is_noticed():
    """A SUB input that connects has keep-alives of TCP."""
    with kit.H.zmq.Context() as context, context.socket(kit.H.zmq.XPUB) as publisher:
        port = publisher.bind_to_random_port('tcp://127.0.0.1')
        conf = {'push_in_sub_connect': 'true', 'push_in_sub_specs': 'tcp://127.0.0.1:%d' % port}
        with H.Server(routes=ROUTES, conf={'handler': conf}):
            assert H.eventually(lambda: any(keep_alive_timers(port)), 10)


def test_a_stop_ends_streams_with_their_last_chunk():
    with H.Server(routes=ROUTES, conf={'handler': {'drain_time': 1}}) as server:
        ep = server.origin.endpoint()
        ep.handler = H.hold_stream(ep.channel)
        with H.Http(server.http_port) as client:
            client.request('GET', ep.path)
            client.read_head()
            assert client.read_chunk() == b'open\n'
            server.wait_sub(ep.channel)
            os.kill(kit.child(server, 'pushpin-handler'), signal.SIGTERM)
            assert client.read_chunk() == b''
