import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'e2e'))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'conformance', 'interop'))

import kit  # noqa: E402  (sets where the programs are, and the path of the harness)
import pytest  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    rep = (yield).get_result()
    if rep.when == 'call' and rep.failed:
        for s in item.funcargs.values():
            if isinstance(s, kit.H.Server):
                rep.sections.append(('logs of the processes', s.logs()[-6000:]))
