"""Limits on a machine whose controllers are not there: refused with the remedy, and nothing is left behind.

What the limits do is proven in the VM, which has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import leaks
import pytest
from engines import IMAGE, ROOTLESS, left_over, sh

from pyengine import Engine
from pyengine.errors import CannotEnforce, InvalidValue, RequiresCgroupsV2

pytestmark = pytest.mark.rootless

LIMITS = {
    "memory": {"memory": "64m"},
    "pids": {"pids_limit": 10},
    "cpu": {"cpus": 0.5},
    "cpuset": {"cpuset_cpus": "0"},
    "io": {"blkio_weight": 100},
}


CALLS: dict[str, Callable[[Engine, Any], object]] = {
    "run": lambda engine, limit: sh(engine, "true", **limit),
    "start": lambda engine, limit: engine.containers.create(IMAGE, ["true"], name="box", **limit).start(),
    "init": lambda engine, limit: engine.containers.create(IMAGE, ["true"], name="box", **limit).init(),
}


def controllers() -> list[str]:
    with open("/sys/fs/cgroup/cgroup.controllers") as file:
        return file.read().split()


@pytest.mark.parametrize("controller", LIMITS)
@pytest.mark.parametrize("call", CALLS)
def test_a_limit_without_its_controller_is_refused(engine: Engine, controller: str, call: str) -> None:
    assert controller not in controllers(), "this machine has controllers: the VM's tests are the ones for it"
    groups = leaks.cgroups()
    with pytest.raises(CannotEnforce) as caught:
        CALLS[call](engine, LIMITS[controller])
    assert type(caught.value) is (RequiresCgroupsV2 if ROOTLESS else CannotEnforce)
    assert f"controller {controller} " in str(caught.value)
    assert leaks.cgroups() == groups
    if call != "run" and engine.containers.exists("box"):
        assert engine.containers.get("box").status == "configured"
        engine.containers.get("box").remove()
    assert engine.containers.list(all=True) == []
    assert left_over(engine) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"memory": "1m"}, "expected at least 4 MiB"),
        ({"memory": "64m", "memory_swap": "32m"}, "is below the memory limit"),
        ({"cpus": 1, "cpu_quota": 5000}, "contradict each other"),
        ({"blkio_weight": 5}, "expected 10 to 1000"),
        ({"memory": "much"}, "memory"),
        ({"device_read_bps": ["/dev/null:1m"]}, "not a block device"),
        ({"memory_swappiness": 10}, "memory_swappiness is not supported: cgroup v2 has none for a group"),
    ],
)
def test_limits_that_cannot_be(engine: Engine, options: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        engine.containers.create(IMAGE, ["true"], **options)
    assert left_over(engine) == []
