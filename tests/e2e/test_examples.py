"""The example backends of the package (tools/examples), served by PHP as an operator would."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

import kit
from kit import H

EXAMPLES = os.path.join(kit.ROOT, 'tools', 'examples')


def answers(srv):
    try:
        return H.http(srv, 'GET', '/testwebsocket.php', timeout=2).status == 400
    except (OSError, H.Closed, TimeoutError):
        return False


@pytest.fixture(scope='module')
def srv():
    folder = tempfile.mkdtemp(prefix='examples-')
    for name in os.listdir(EXAMPLES):
        shutil.copy(os.path.join(EXAMPLES, name), folder)
    php = kit.Php(folder)
    s = kit.Server(routes='* localhost:%d,over_http' % php.port, own_lines=False, ready=False)
    H.eventually(lambda: answers(s), 20)
    yield s
    s.stop()
    php.stop()
    shutil.rmtree(folder)


@pytest.fixture
def st(srv):
    stats = srv.stats()
    # Nothing is heard from before the sockets have met.
    H.eventually(lambda: answers(srv) and stats.pump(0.2), 20)
    yield stats
    stats.close()


def subscribed(st, channel, mode):
    st.wait(lambda t, v: t == 'sub' and v.get('channel') == channel and v.get('mode') == mode and
            v.get('subscribers'), 10)


def publish(srv, content):
    done = subprocess.run([H.publish_tool(), 'test', content], capture_output=True, text=True, timeout=20,
                          env=dict(os.environ, GRIP_URL='http://localhost:%d' % srv.ctl_port))
    assert done.returncode == 0, done


@pytest.mark.parametrize('page', ['testgripresponse.php', 'testgripresponse_json.php'])
def test_long_poll(srv, st, page):
    with H.Http(srv.http_port, 10) as client:
        st.seen.clear()
        client.request('GET', '/' + page)
        subscribed(st, 'test', 'response')
        publish(srv, 'hello')
        answer = client.response('GET')
        assert (answer.status, answer.body) == (200, b'hello\n')
        assert answer.headers.get('Content-Type').startswith('text/plain')


def test_stream(srv, st):
    with H.Http(srv.http_port, 10) as client:
        st.seen.clear()
        client.request('GET', '/testgripstream.php')
        assert client.read_head().status == 200
        client.read_until(b'open\n')
        subscribed(st, 'test', 'stream')
        publish(srv, 'hello')
        client.read_until(b'hello\n')


def test_websocket_echo(srv):
    ws = H.ws_connect(srv, '/testwebsocket.php', timeout=10)
    ws.send_text('grüße')
    assert ws.recv_text() == 'grüße'
    ws.send_frame(H.BIN, b'\0\r\n\xff' * 50)
    assert ws.recv_msg() == (H.BIN, b'\0\r\n\xff' * 50)
    ws.send_close(1000)
    assert ws.recv_frame().code == 1000
    ws.close()


def test_websocket_with_a_channel(srv, st):
    st.seen.clear()
    ws = H.ws_connect(srv, '/testgripwebsocket.php', timeout=10)
    subscribed(st, 'test', 'ws')
    publish(srv, 'hello')
    assert ws.recv_text() == 'hello'
    ws.send_text('and you')
    assert ws.recv_text() == 'and you'
    ws.close()


def test_a_websocket_example_asked_plainly_says_what_it_is(srv):
    answer = H.http(srv, 'GET', '/testwebsocket.php')
    assert answer.status == 400 and b'over_http' in answer.body


def test_radio(srv, st):
    sound = bytes(range(256)) * 8
    with tempfile.NamedTemporaryFile() as file, H.Http(srv.http_port, 10) as client:
        file.write(sound)
        file.flush()
        st.seen.clear()
        client.request('GET', '/mp3stream.php')
        assert client.read_head().headers.get('Content-Type') == 'audio/mpeg'
        subscribed(st, 'audio', 'stream')
        subprocess.run([sys.executable, os.path.join(EXAMPLES, 'mp3stream_publisher.py'), file.name,
                        '--bitrate=512', '--piece=0.01', '--url=http://localhost:%d' % srv.ctl_port],
                       check=True, timeout=30)
        heard = b''
        while len(heard) < len(sound):
            heard += client.stream()
        assert heard == sound
