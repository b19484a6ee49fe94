import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import kit  # noqa: E402


def pytest_report_header(config):
    return 'target: %s, file limit %d' % (kit.H.target_path(), kit.raise_files())


@pytest.fixture
def started():
    """Appends to this list are stopped at the end of the test, last first; a server's logs
    are shown when the test failed."""
    things = []
    yield things
    for t in reversed(things):
        (t.stop if hasattr(t, 'stop') else t.close)()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    rep = (yield).get_result()
    if rep.when == 'call' and rep.failed:
        for name, value in item.funcargs.items():
            for s in value if isinstance(value, list) else [value]:
                if isinstance(s, kit.H.Server):
                    rep.sections.append(('logs of the server', s.logs()[-6000:]))
