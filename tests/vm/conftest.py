"""The tests in here need a machine of their own: vm/run -- .venv/bin/pytest tests/vm -m "…", or all by vm/suites.

Which tests a machine can run is chosen by markers and never by skipping:

    vm_any            any engine: the default, every test without needs_emulation has it
    needs_emulation   not in User Mode Linux, which lacks cpuset, hugetlb, NAT, time namespaces, CRIU, CPUs
    as_root, as_user  only as root, only as the unprivileged user; without either, as both
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from boxes import import_image, left_over, sh
from cgroup import Cgroup, own_parent

from pyengine import Engine

ENGINE = os.environ.get("PYENGINE_VM")


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "vm_any: the test runs in any disposable VM (given to every test without needs_emulation)",
        "needs_emulation: the test needs what User Mode Linux lacks; emulation and KVM have it",
        "as_root: the test runs only as root in the VM",
        "as_user: the test runs only as the unprivileged user of the VM",
    ):
        config.addinivalue_line("markers", line)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("needs_emulation") is None:
            item.add_marker("vm_any")


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if ENGINE is None:
        raise pytest.UsageError(
            "tests/vm runs only in a disposable VM: vm/run -- .venv/bin/pytest tests/vm -m '…', or vm/suites"
        )
    is_root = os.getuid() == 0
    for marker, wrong, where in (
        ("needs_emulation", ENGINE == "uml", "User Mode Linux"),
        ("as_root", not is_root, "a VM as user"),
        ("as_user", is_root, "a VM as root"),
    ):
        chosen = [item.nodeid for item in session.items if item.get_closest_marker(marker)]
        if wrong and chosen:
            raise pytest.UsageError(f"{chosen[0]} is marked {marker} and would run in {where}: choose with -m")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure here: {report.longrepr}"
    return report


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    """An empty cgroup of the test's own, with every controller that there is; killed and removed afterwards."""
    with Cgroup.make(own_parent()) as made:
        yield made


@pytest.fixture
def python() -> str:
    """The interpreter that runs the tests."""
    return sys.executable


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a store that has the image of tests/system/engines.py."""
    directory = tmp_path_factory.mktemp("shared")
    with Engine(root=f"{directory}/root", run_root=f"{directory}/run") as made:
        import_image(made)
        assert sh(made, "exit 0").exit_code == 0
    yield directory
    with Engine(root=f"{directory}/root", run_root=f"{directory}/run") as made:
        made.reset()


@pytest.fixture
def engine(shared_store: Path) -> Iterator[Engine]:
    """An engine that has the image. Its containers are removed at the end, and nothing of them may be left."""
    with Engine(root=f"{shared_store}/root", run_root=f"{shared_store}/run") as made:
        yield made
        for container in made.containers.list(all=True):
            container.remove(force=True)
        assert left_over(made) == []
