"""The system tests run in a test host of their own (``tests/host``): pytest starts itself again in there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HOST = Path(__file__).parent.parent / "host"
MARK = "PYENGINE_TEST_HOST"


def pytest_configure(config: pytest.Config) -> None:
    if MARK in os.environ or config.option.collectonly:
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)  # the new pytest needs the real descriptors
    os.execv(sys.executable, [sys.executable, str(HOST), "--", sys.executable, "-m", "pytest", *sys.argv[1:]])
