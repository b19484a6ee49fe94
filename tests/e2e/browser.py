"""A headless Chromium, driven over its DevTools protocol with the `websockets` package alone."""

import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

from websockets.sync.client import connect

FLAGS = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--disable-dev-shm-usage', '--remote-debugging-port=0')


class Browser:
    """One browser with one page. `run` evaluates scripts in it."""

    def __init__(self, *flags):
        exe = shutil.which('chromium')
        assert exe, 'the Debian package chromium is not installed'
        self.dir = tempfile.mkdtemp(prefix='browser-')
        self.log = os.path.join(self.dir, 'log')
        with open(self.log, 'wb') as out:
            self.proc = subprocess.Popen([exe, *FLAGS, *flags, '--user-data-dir=' + os.path.join(self.dir, 'data'),
                                          'about:blank'], stdin=subprocess.DEVNULL, stdout=out,
                                         stderr=subprocess.STDOUT, start_new_session=True)
        self.ids = itertools.count(1)
        self.manager = connect(self.address(), max_size=None, compression=None, proxy=None)
        self.socket = self.manager.__enter__()
        page = self.ask('Target.createTarget', url='about:blank')['targetId']
        self.session = self.ask('Target.attachToTarget', targetId=page, flatten=True)['sessionId']

    def address(self):
        """Where the browser says that it listens."""
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            with open(self.log, errors='replace') as f:
                found = re.search(r'DevTools listening on (ws://\S+)', f.read())
            if found:
                return found[1]
            assert self.proc.poll() is None, open(self.log, errors='replace').read()[-2000:]
            time.sleep(0.05)
        raise TimeoutError('the browser did not start: ' + open(self.log, errors='replace').read()[-2000:])

    def ask(self, method, timeout=40, **params):
        """One command and its result; events in between are passed over."""
        n = next(self.ids)
        message = {'id': n, 'method': method, 'params': params}
        if hasattr(self, 'session'):
            message['sessionId'] = self.session
        self.socket.send(json.dumps(message))
        deadline = time.monotonic() + timeout
        while True:
            answer = json.loads(self.socket.recv(max(deadline - time.monotonic(), 0.01)))
            if answer.get('id') == n:
                assert 'error' not in answer, answer
                return answer['result']

    def open(self, url):
        """Load a page, so that scripts run in its origin."""
        self.ask('Page.navigate', url=url)
        assert self.run('new Promise(done => { const look = () => document.readyState == "complete" && '
                        'location.href != "about:blank" ? done(true) : setTimeout(look, 20); look(); })')

    def run(self, script, timeout=40):
        """The value of an expression; of a promise, what it resolves to."""
        result = self.ask('Runtime.evaluate', timeout, expression=script, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def close(self):
        self.manager.__exit__(None, None, None)
        self.proc.terminate()
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait(5)
        shutil.rmtree(self.dir, ignore_errors=True)
