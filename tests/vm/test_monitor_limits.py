"""The monitor where controllers enforce: the OOM killer is told from other deaths, a fork bomb is bounded."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cgroup import Cgroup, write

sys.path.insert(0, str(Path(__file__).parent.parent / "system"))

from plan_box import Box, build_helper, new_box, until_gone

from pyengine.runtime.monitor import Ended

pytestmark = pytest.mark.as_root


@pytest.fixture
def box() -> Iterator[Box]:
    with new_box(build_helper()) as box:
        yield box


def run_in(box: Box, cgroup: Cgroup, *argv: str) -> tuple[Ended, bool]:
    """How it ended, and what the state file says of the OOM killer."""
    fd = os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY)
    settings = {"descriptors": ("cgroup",), "log_path": f"{box.base}/log"}
    session, run = box.launch(box.plan(*argv, **settings), {"cgroup": fd})
    os.close(fd)
    ended = session.wait_exit(60)
    assert ended is not None
    return ended, until_gone(run).oom_killed


def test_the_oom_killer_is_reported(box: Box, cgroup: Cgroup) -> None:
    write(f"{cgroup.path}/memory.max", 16 << 20)
    write(f"{cgroup.path}/memory.swap.max", 0)
    ended, in_state = run_in(box, cgroup, "helper", "allocate", str(64 << 20))
    assert (ended.exit_code, ended.oom_killed, in_state) == (137, True, True)


def test_another_death_is_none_of_it(box: Box, cgroup: Cgroup) -> None:
    write(f"{cgroup.path}/memory.max", 64 << 20)
    ended, in_state = run_in(box, cgroup, "helper", "allocate", str(8 << 20), "--", "exit", "137")
    assert (ended.exit_code, ended.oom_killed, in_state) == (137, False, False)


def test_a_fork_bomb_is_bounded(box: Box, cgroup: Cgroup) -> None:
    write(f"{cgroup.path}/pids.max", 20)
    ended, _ = run_in(box, cgroup, "helper", "forks", "500", "--", "exit", "3")
    assert ended.exit_code == 3
    assert (box.base / "log").read_text().split(" F ")[1] == "19 Resource temporarily unavailable\n"
