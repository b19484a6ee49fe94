"""The first minutes of a stranger: the server from the source tree, without a word of configuration."""

import os
import signal
import subprocess
import time

import pytest

import kit
from kit import H

PORTS = (7999, 5560, 5561, 5562, 5563)
FIRST_EVENT = 'event: message\ndata: hello world\n\n'


@pytest.fixture
def running(tmp_path):
    """`pushpin` without arguments in the source tree."""
    taken = [p for p in PORTS if kit.listens(p)]
    if taken:
        pytest.skip('the standard ports are in use here: %r' % taken)
    with open(tmp_path / 'out', 'w') as out:
        p = subprocess.Popen([H.target_path()], cwd=kit.ROOT, stdout=out, stderr=subprocess.STDOUT,
                             start_new_session=True)
    try:
        H.eventually(lambda: p.poll() is not None or kit.listens(7999) and kit.listens(5561), 15)
        assert p.poll() is None, (tmp_path / 'out').read_text()
        yield p
    finally:
        if p.poll() is None:
            p.terminate()
        p.wait(10)


def test_no_arguments(running):
    """It finds its configuration, and the sample route answers."""
    def answered():
        r = subprocess.run(['curl', '-s', '-m', '5', 'http://localhost:7999/'], capture_output=True, text=True)
        return r.stdout
    assert 'Hello' in H.eventually(answered, 10)
    r = subprocess.run([H.publish_tool(), 'test', 'hello'], capture_output=True, text=True, timeout=10)
    assert (r.returncode, r.stdout) == (0, 'Published\n'), r
    running.send_signal(signal.SIGINT)
    assert running.wait(10) == 0


def test_a_first_stream(started, tmp_path):
    """Port and route on the command line, nothing in files; a stream and a publish."""
    backend = kit.Backend(str(tmp_path))
    started.append(backend)
    srv = kit.Server(routes='* test\n', ready=False, args=['--merge-output'])
    started.append(srv)
    srv.halt()
    port = H.free_port()
    srv.args = ['--merge-output', '--port=127.0.0.1:%d' % port, '--route=* 127.0.0.1:%d' % backend.port]
    srv.start()
    H.eventually(lambda: kit.listens(port) and kit.listens(srv.ctl_port), 15)
    curl = subprocess.Popen(['curl', '-sN', '-m', '20', 'http://localhost:%d/stream?topic=test' % port],
                            stdout=subprocess.PIPE)
    try:
        first = os.read(curl.stdout.fileno(), 65536)
        assert first == b'event: message\ndata: stream open\n\n'
        time.sleep(0.2)
        env = dict(os.environ, GRIP_URL='http://localhost:%d' % srv.ctl_port)
        subprocess.run([H.publish_tool(), '--no-eol', 'test', FIRST_EVENT], env=env, check=True, timeout=10)
        assert os.read(curl.stdout.fileno(), 65536) == FIRST_EVENT.encode()
    finally:
        curl.kill()
        curl.wait()
        curl.stdout.close()
    H.release_port(port)
    # Started with the option, so nothing is in log files: all lines are here, with their names.
    with open(os.path.join(srv.dir, 'stdout')) as f:
        text = f.read()
    assert '[handler] ' in text and '[proxy] ' in text and '[connmgr] ' in text
