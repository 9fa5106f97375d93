"""The system tests run in a test host of their own (``tests/host``): pytest starts itself again in there.

Before and after each test everything is counted that an engine could leave behind (``leaks.py``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MARK = "PYENGINE_TEST_HOST"
sys.path.insert(0, str(HERE))


def pytest_configure(config: pytest.Config) -> None:
    if MARK in os.environ or config.option.collectonly:
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)  # the new pytest needs the real descriptors
    host = str(HERE.parent / "host")
    os.execv(sys.executable, [sys.executable, host, "--", sys.executable, "-m", "pytest", *sys.argv[1:]])


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Mounts, cgroups, processes, descriptors, threads, interfaces: the same after each test."""
    import leaks

    before = leaks.state()
    yield
    assert leaks.differences(before) == []
