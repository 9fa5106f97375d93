"""Groups of processes on the kernel at hand. Limits need controllers, which are tested in the VM."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator

import pytest

from pyengine.errors import CannotEnforce, InvalidValue, KernelError
from pyengine.linux import cgroups, device_filter, process
from pyengine.linux.cgroups import Hierarchy
from pyengine.linux.device_filter import DEFAULT_RULES, DeviceRule
from pyengine.linux.group import Cgroup
from pyengine.linux.resources import Resources
from pyengine.linux.spawn import Spawned, run, spawn


@pytest.fixture
def hierarchy() -> Hierarchy:
    return cgroups.find()


@pytest.fixture
def group(hierarchy: Hierarchy) -> Iterator[Cgroup]:
    made = hierarchy.create(f"test-{os.getpid()}/inner")
    top = hierarchy.locate(f"test-{os.getpid()}")
    yield made
    top.kill()
    top.remove()
    assert not top.exists()


@pytest.fixture
def sleeper(group: Cgroup) -> Iterator[Spawned]:
    started = spawn(["sleep", "60"], executable="/bin/sleep")
    with started.pidfd:
        group.add(started.pid)
        yield started
        process.send_signal(started.pidfd, signal.SIGKILL)
        assert process.wait_ended(started.pidfd, 20)


def test_a_group_of_root_is_at_the_top(hierarchy: Hierarchy, group: Cgroup) -> None:
    assert hierarchy.base == hierarchy.top
    assert group.path == f"{hierarchy.top}/pyengine/test-{os.getpid()}/inner"
    assert hierarchy.locate("/other/x").path == f"{hierarchy.top}/other/x"


@pytest.mark.parametrize("path", ["", "/", "../x", "a/../../x", "cgroup.procs", "a b", "a\n", ".", "x" * 256])
def test_a_name_cannot_reach_elsewhere(hierarchy: Hierarchy, path: str) -> None:
    with pytest.raises(InvalidValue, match="not the name of a cgroup"):
        hierarchy.locate(path)


def test_processes_are_counted_with_those_below(group: Cgroup, sleeper: Spawned) -> None:
    parent = Cgroup(os.path.dirname(group.path), group.top)
    assert parent.processes() == group.processes() == [sleeper.pid]
    assert parent.processes(nested=False) == []


def test_a_frozen_process_stands_still(group: Cgroup, sleeper: Spawned) -> None:
    group.freeze()
    events = group.events()
    assert events is not None
    assert (events.frozen, events.populated) == (True, True)
    group.thaw()
    events = group.events()
    assert events is not None
    assert events.frozen is False


def test_a_busy_process_uses_no_time_while_frozen(group: Cgroup) -> None:
    started = spawn(["sh", "-c", "while :; do :; done"], executable="/bin/sh")
    with started.pidfd:
        group.add(started.pid)
        group.freeze()
        before = process.read_stat(started.pid)
        assert not process.wait_ended(started.pidfd, 0.1)
        after = process.read_stat(started.pid)
        assert before is not None
        assert after is not None
        assert (before.utime, before.stime) == (after.utime, after.stime)
        group.kill()
        assert process.wait_ended(started.pidfd, 20)


def test_what_is_frozen_can_be_killed(group: Cgroup, sleeper: Spawned) -> None:
    group.freeze()
    group.kill()
    assert process.wait_ended(sleeper.pidfd, 20)
    assert group.wait_empty(20)


def test_kill_takes_what_forks_all_the_time(group: Cgroup) -> None:
    script = "while :; do (while :; do (sleep 60 &) ; sleep 0.01; done) & sleep 0.01; done"
    started = spawn(["sh", "-c", f"echo 0 > {group.path}/cgroup.procs; {script}"], executable="/bin/sh")
    with started.pidfd:
        while len(group.processes()) < 20:
            assert not process.wait_ended(started.pidfd, 0.01)
        group.kill()
        assert group.wait_empty(20)
        assert process.wait_ended(started.pidfd, 20)
    assert group.processes() == []


def test_a_group_in_use_is_not_removed(group: Cgroup, sleeper: Spawned) -> None:
    with pytest.raises(KernelError) as caught:
        group.remove(timeout=0.1)
    assert caught.value.errno == errno.EBUSY
    assert str(caught.value) == f"rmdir {group.path}: Device or resource busy (processes or groups are left in it)"


def test_a_group_that_is_gone_is_no_error(hierarchy: Hierarchy) -> None:
    gone = hierarchy.locate("never-made")
    gone.remove()
    gone.kill()
    assert gone.events() is None
    assert gone.stats() is None
    assert gone.processes() == []
    assert gone.wait_empty(0)


def test_counters_that_need_no_controller_are_there(group: Cgroup, sleeper: Spawned) -> None:
    stats = group.stats()
    assert stats is not None
    assert stats.cpu_usage is not None
    controllers = (group.read("cgroup.controllers") or "").split()
    assert (stats.memory is None) == ("memory" not in controllers)
    assert (stats.pids is None) == ("pids" not in controllers)


def test_a_limit_whose_controller_is_missing_is_an_error(group: Cgroup) -> None:
    """This build machine gives its controllers to cgroup v1; where it does not, `rdma` is hardly ever built in."""
    top = Cgroup(group.top, group.top)
    missing = next(
        name
        for name in ("memory", "rdma", "misc", "dmem")
        if name not in (top.read("cgroup.controllers") or "").split()
    )
    with pytest.raises(CannotEnforce) as caught:
        group.apply(Resources(unified={f"{missing}.max": "1"}))
    assert str(caught.value).startswith(f"the cgroup controller {missing} is not in {group.top}/cgroup.controllers")
    assert group.read(f"{missing}.max") is None


def test_the_device_filter_allows_what_the_rules_allow(group: Cgroup) -> None:
    assert device_filter.can_filter_devices()
    rules = [DeviceRule(False), *DEFAULT_RULES, DeviceRule(False, "c", 1, 7, "w")]
    with group.open() as directory:
        device_filter.attach(directory, rules)
    script = f"""
        echo 0 > {group.path}/cgroup.procs
        head -c 1 /dev/zero > /dev/null && echo zero
        head -c 1 /dev/full > /dev/null && echo read full
        (: > /dev/full) 2> /dev/null || echo no write to full
        (: < /dev/kmsg) 2> /dev/null || echo no kmsg
    """
    ended = run(["sh", "-c", script], executable="/bin/sh", timeout=20)
    assert ended.stdout.decode().splitlines() == ["zero", "read full", "no write to full", "no kmsg"]


def test_the_largest_filter_that_is_likely_is_accepted(group: Cgroup) -> None:
    rules = [DeviceRule(minor % 2 == 0, "c", 200, minor, "rw") for minor in range(500)]
    with group.open() as directory:
        device_filter.attach(directory, rules)
