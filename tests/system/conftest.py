"""The system tests run in a test host of their own (``tests/host``): pytest starts itself again in there.

Before and after each test everything is counted that an engine could leave behind (``leaks.py``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyengine import Engine

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


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a store that has the image of `engines.py`: the tests share it, each with its own engine."""
    from engines import import_image, sh

    from pyengine import Engine

    directory = tmp_path_factory.mktemp("shared")
    places = f"{directory}/root", f"{directory}/run"
    with Engine(*places) as engine:
        import_image(engine)
        assert sh(engine, "exit 0").exit_code == 0  # what is made at the first need is there from here on
    yield directory
    with Engine(*places) as engine:
        engine.reset()


@pytest.fixture
def image() -> str:
    """The name of the image that the store of `engine` has: busybox, see `engines.py`."""
    from engines import IMAGE

    return IMAGE


@pytest.fixture
def engine(shared_store: Path) -> Iterator[Engine]:
    """An engine that has `image`. Its containers are removed at the end, and nothing of them may be left."""
    from engines import left_over

    from pyengine import Engine

    with Engine(root=f"{shared_store}/root", run_root=f"{shared_store}/run") as engine:
        yield engine
        for container in engine.containers.list(all=True):
            container.remove(force=True)
        assert left_over(engine) == []


@pytest.fixture
def own_engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine with a store of its own, without an image, below `tmp_path`."""
    from engines import new_engine

    with new_engine(tmp_path) as engine:
        yield engine
