"""Limits of containers: the text in the files of their cgroups, and that the kernel holds them to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import IMAGE, Box, engines_group, groups, left_over, scratch_disk, sh
from cgroup import ROOT, read, until, write

from pyengine import Engine
from pyengine.errors import CannotEnforce, ExecTimeout, InvalidValue, KernelError, RequiresCgroupsV2

MIB = 1 << 20
REFUSAL = CannotEnforce if os.geteuid() == 0 else RequiresCgroupsV2
DISK, DISK_NUMBER = scratch_disk()


# --- what is written


WRITTEN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "memory": (
        {"memory": "64m", "memory_reservation": "32m"},
        {"memory.max": "67108864", "memory.low": "33554432", "memory.swap.max": "67108864"},
    ),
    "memory and swap": (
        {"memory": "64m", "memory_swap": "96m"},
        {"memory.max": "67108864", "memory.swap.max": "33554432"},
    ),
    "no swap": ({"memory": "64m", "memory_swap": "64m"}, {"memory.max": "67108864", "memory.swap.max": "0"}),
    "all swap": ({"memory": "64m", "memory_swap": -1}, {"memory.max": "67108864", "memory.swap.max": "max"}),
    "cpus": ({"cpus": 1.5}, {"cpu.max": "150000 100000"}),
    "cpu quota": ({"cpu_period": 50000, "cpu_quota": 20000}, {"cpu.max": "20000 50000"}),
    "cpu period": ({"cpu_period": 50000}, {"cpu.max": "max 50000"}),
    "cpu shares": ({"cpu_shares": 512}, {"cpu.weight": "20"}),
    "pids": ({"pids_limit": 7}, {"pids.max": "7"}),
    "no limit of pids": ({"pids_limit": -1}, {"pids.max": "max"}),
    "throttles": (
        {
            "device_read_bps": [f"{DISK}:1mb"],
            "device_write_bps": [f"{DISK}:2mb"],
            "device_read_iops": [f"{DISK}:300"],
            "device_write_iops": [f"{DISK}:400"],
        },
        {"io.max": f"{DISK_NUMBER} rbps=1048576 wbps=2097152 riops=300 wiops=400"},
    ),
    "files of cgroup v2": (
        {"cgroup_conf": {"memory.high": str(48 * MIB), "cgroup.max.descendants": "9", "memory.oom.group": "1"}},
        {"memory.high": str(48 * MIB), "cgroup.max.descendants": "9", "memory.oom.group": "1"},
    ),
}
WRITTEN_EMULATED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "cpuset": (
        {"cpuset_cpus": "1", "cpuset_mems": "0"},
        {"cpuset.cpus": "1", "cpuset.cpus.effective": "1", "cpuset.mems": "0"},
    ),
    "i/o weight": ({"blkio_weight": 500}, {"io.weight": "default 4950"}),
    "huge pages": ({"hugetlb": {"2MB": "4m"}}, {"hugetlb.2MB.max": "4194304"}),
}


def check_written(engine: Engine, options: dict[str, Any], files: dict[str, str]) -> None:
    explained = dict(engine.explain(IMAGE, ["true"], **options).cgroup["writes"])
    assert set(explained) <= set(files)
    box = Box(engine, **options)
    assert box.group.startswith(engines_group() + "/")
    assert {name: box.get(name) for name in files} == files
    inside = sh(engine, " && ".join(f"cat /sys/fs/cgroup/{name}" for name in files), **options)
    assert inside.stdout.decode().splitlines() == list(files.values())


@pytest.mark.parametrize("what", WRITTEN)
def test_a_limit_is_written_as_it_is(engine: Engine, what: str) -> None:
    check_written(engine, *WRITTEN[what])


@pytest.mark.needs_emulation
@pytest.mark.parametrize("what", WRITTEN_EMULATED)
def test_a_limit_of_the_rarer_controllers_is_written_as_it_is(engine: Engine, what: str) -> None:
    check_written(engine, *WRITTEN_EMULATED[what])


def test_a_container_without_limits_has_none(engine: Engine) -> None:
    box = Box(engine)
    limits = {name: box.get(name) for name in os.listdir(box.group) if name.endswith((".max", ".high"))}
    assert {value for name, value in limits.items() if name not in ("cpu.max", "io.max")} <= {"max"}


def test_the_group_is_where_it_was_asked_for_and_goes_with_the_container(engine: Engine) -> None:
    box = Box(engine, cgroup_parent="team/a", memory="64m")
    assert box.group == f"{engines_group()}/team/a/{box.container.id}"
    assert box.get("memory.max") == "67108864"
    box.container.remove(force=True)
    assert groups() == [f"{engines_group()}/team", f"{engines_group()}/team/a"]
    os.rmdir(f"{engines_group()}/team/a")
    os.rmdir(f"{engines_group()}/team")


def test_the_limits_are_there_again_in_each_run(engine: Engine) -> None:
    box = Box(engine, memory="64m", pids_limit=7)
    for _ in range(2):
        box.container.restart(timeout=0)
        assert (box.get("memory.max"), box.get("pids.max")) == ("67108864", "7")


# --- what is held


def test_memory_kills_and_is_told(engine: Engine) -> None:
    box = Box(engine, "tail", "/dev/zero", memory="24m", memory_swap="24m")
    assert box.container.wait(60) == 137
    state = box.container.state()
    assert (state.status, state.exit_code, state.oom_killed) == ("exited", 137, True)
    assert box.container.inspect()["State"]["OOMKilled"] is True


def test_who_is_killed_by_somebody_else_had_enough_memory(engine: Engine) -> None:
    box = Box(engine, memory="24m")
    box.container.kill("KILL")
    assert box.container.wait(20) == 137
    assert box.container.state().oom_killed is False


def test_a_restart_policy_is_for_who_had_too_little_memory_too(engine: Engine) -> None:
    box = Box(engine, "tail", "/dev/zero", memory="24m", memory_swap="24m", restart="on-failure:2")
    until(lambda: box.container.status == "exited", "the end of the third run", 60)
    state = box.container.state()
    assert (state.exit_code, state.restarts, state.oom_killed) == (137, 2, True)


def test_a_fork_bomb_ends_at_the_limit_of_pids(engine: Engine) -> None:
    box = Box(engine, pids_limit=8)
    code, text = box.run("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done")
    assert code != 0
    assert "can't fork" in text
    assert box.facts("pids.events")["max"] > 0
    assert int(box.get("pids.current")) <= 8
    assert box.container.status == "running"


def test_a_quota_throttles(engine: Engine) -> None:
    box = Box(engine, "sh", "-c", "while :; do :; done", cpus=0.2)
    until(lambda: box.facts("cpu.stat")["nr_throttled"] >= 3, "throttled")
    before, start = box.facts("cpu.stat")["usage_usec"], time.monotonic()
    time.sleep(0.5)
    used = (box.facts("cpu.stat")["usage_usec"] - before) / 1e6
    assert used < 0.5 * (time.monotonic() - start)


@pytest.mark.needs_emulation
def test_a_set_of_processors_is_all_that_is_seen(engine: Engine) -> None:
    assert sh(engine, "nproc; grep Cpus_allowed_list /proc/self/status", cpuset_cpus="1").stdout.split() == [
        b"1",
        b"Cpus_allowed_list:",
        b"1",
    ]


def test_a_throttle_of_the_disk_slows_what_goes_through_the_page_cache_too(engine: Engine) -> None:
    box = Box(engine, device_write_bps=[f"{DISK}:1mb"])
    start = time.monotonic()
    code, text = box.run("dd if=/dev/zero of=/x bs=256k count=8 conv=fsync")
    assert code == 0, text
    assert time.monotonic() - start > 1.2


def test_a_paused_container_stands_still(engine: Engine) -> None:
    box = Box(engine, "sh", "-c", "while :; do echo x; usleep 5000; done")
    log = box.container.config.log_path
    until(lambda: os.path.getsize(log) > 0, "output")
    box.container.pause()
    assert (box.container.status, box.get("cgroup.freeze")) == ("paused", "1")
    until(lambda: "frozen 1" in box.get("cgroup.events"), "frozen")
    time.sleep(0.1)  # what was in the pipe
    size = os.path.getsize(log)
    time.sleep(0.2)
    assert os.path.getsize(log) == size
    box.container.unpause()
    assert box.container.status == "running"
    until(lambda: os.path.getsize(log) > size, "more output")


def test_a_paused_container_can_be_removed_by_force(engine: Engine) -> None:
    box = Box(engine)
    box.container.pause()
    box.container.remove(force=True)
    assert not os.path.exists(box.group)


@pytest.mark.parametrize("who", ["by the engine", "by somebody else"])
def test_nothing_outlives_the_first_process(engine: Engine, who: str) -> None:
    script = "sleep 1001 & (setsid sleep 1002 &) ; while :; do (usleep 1000 &); usleep 1000; done"
    box = Box(engine, "sh", "-c", script)
    until(lambda: len(box.pids()) >= 3, "children")
    pids = box.pids()
    if who == "by the engine":
        box.container.kill("KILL")
    else:
        os.kill(box.pid, signal.SIGKILL) if os.geteuid() == 0 else box.container.kill("KILL")
    assert box.container.wait(20) == 137
    until(lambda: not os.path.exists(box.group), "the group is gone")
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


# --- seen from inside


def test_inside_the_own_group_is_the_root_and_cannot_be_written(engine: Engine) -> None:
    box = Box(engine, memory="64m")
    assert box.run("cat /proc/1/cgroup /sys/fs/cgroup/memory.max") == (0, "0::/\n67108864\n")
    for script in (
        "echo max > /sys/fs/cgroup/memory.max",
        "mkdir /sys/fs/cgroup/mine",
        "echo 1 > /sys/fs/cgroup/cgroup.procs",
    ):
        code, text = box.run(script)
        assert code != 0
        assert "Read-only file system" in text
    assert box.get("memory.max") == "67108864"


def test_with_the_host_s_namespace_the_group_has_its_whole_name(engine: Engine) -> None:
    result = sh(engine, "cat /proc/self/cgroup", cgroupns="host")
    assert f"/pyengine/{result.container_id}" in result.stdout.decode()


# --- exec sessions


def test_a_session_is_below_its_container_and_bounded_by_it(engine: Engine) -> None:
    box = Box(engine, memory="32m", memory_swap="32m", pids_limit=20)
    with box.container.open_exec(["sleep", "1001"]) as session:
        group = read(f"/proc/{session.pid}/cgroup").removeprefix("0::")  # type: ignore[attr-defined]
        assert os.path.dirname(ROOT + group) == box.group
        assert os.path.basename(group).startswith("exec-")
    assert box.run("cat /proc/self/cgroup")[1].startswith("0::/exec-")
    assert box.container.exec(["tail", "/dev/zero"]).exit_code == 137
    assert box.facts("memory.events")["oom_kill"] == 1
    assert box.container.status == "running"


def test_a_session_s_group_goes_with_it(engine: Engine) -> None:
    box = Box(engine)
    for _ in range(3):
        assert box.run("true") == (0, "")
    until(lambda: [name for name in os.listdir(box.group) if name.startswith("exec-")] == [], "no group of a session")


def test_a_timeout_ends_exactly_the_session(engine: Engine) -> None:
    box = Box(engine)
    with box.container.open_exec(["sleep", "1001"]) as other:
        before = sorted(box.pids())
        with pytest.raises(ExecTimeout, match=r"ran longer than 1(\.0)? seconds and was killed"):
            box.run("sleep 1002 & (setsid sleep 1003 &); while :; do (usleep 1000 &); usleep 1000; done", timeout=1.0)
        until(lambda: sorted(box.pids()) == before, "only the container's and the other session's processes")
        assert other.pid in before  # type: ignore[attr-defined]
    assert box.container.status == "running"


# --- devices


FUSE = "c 10 229"
OPEN = f"mknod /fuse {FUSE} && : < /fuse"


@pytest.mark.as_root
def test_only_the_devices_of_every_container_can_be_opened(engine: Engine) -> None:
    result = sh(engine, ": > /dev/null; head -c 1 /dev/zero > /dev/full; head -c 1 /dev/urandom | wc -c; : < /dev/tty")
    assert b"Operation not permitted" not in result.stderr
    refused = sh(engine, OPEN)
    assert refused.exit_code != 0
    assert b"/fuse: Operation not permitted" in refused.stderr


@pytest.mark.as_root
@pytest.mark.parametrize(
    "options", [{"device": ["/dev/fuse"]}, {"device_cgroup_rule": [f"{FUSE.replace(' 229', ':229')} r"]}]
)
def test_a_device_that_was_asked_for_can_be_opened(engine: Engine, options: dict[str, Any]) -> None:
    assert sh(engine, OPEN, **options).exit_code == 0
    other = sh(engine, "mknod /kmsg c 1 11 && : < /kmsg", **options)
    assert b"/kmsg: Operation not permitted" in other.stderr


@pytest.mark.as_root
def test_a_device_is_opened_only_as_it_was_asked_for(engine: Engine) -> None:
    options = {"device": ["/dev/fuse:/dev/x:r"]}
    assert sh(engine, ": < /dev/x", **options).exit_code == 0
    written = sh(engine, ": > /dev/x", **options)
    assert b"/dev/x: Operation not permitted" in written.stderr


@pytest.mark.as_root
def test_disks_are_out_of_reach(engine: Engine) -> None:
    number = DISK_NUMBER.replace(":", " ")
    script = f"mknod /disk b {number} && head -c 1 /disk | wc -c"
    refused = sh(engine, script)
    assert b"/disk: Operation not permitted" in refused.stderr
    assert sh(engine, script, privileged=True).stdout.strip() == b"1"
    assert sh(engine, script, device_cgroup_rule=[f"b {DISK_NUMBER} r"]).stdout.strip() == b"1"


@pytest.mark.as_root
def test_privileged_opens_everything(engine: Engine) -> None:
    assert sh(engine, f": < /dev/fuse && : < /dev/kmsg && {OPEN}", privileged=True).exit_code == 0


@pytest.mark.as_root
def test_a_session_has_the_same_devices(engine: Engine) -> None:
    box = Box(engine)
    code, text = box.run(OPEN)
    assert code != 0
    assert "Operation not permitted" in text


@pytest.mark.as_user
def test_a_user_gets_devices_that_are_theirs_and_no_rules(engine: Engine) -> None:
    assert sh(engine, ": < /dev/fuse", device=["/dev/fuse"]).exit_code == 0
    assert sh(engine, OPEN).exit_code != 0
    with pytest.raises(CannotEnforce, match="device rules need a device filter, which only root can load"):
        sh(engine, "true", device_cgroup_rule=["c 10:229 r"])


# --- what cannot be held


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"cgroup_conf": {"nosuch.max": "1"}}, REFUSAL, r"the cgroup controller nosuch is not in /sys/fs/cgroup/cgr"),
        ({"cgroup_conf": {"memory.nosuch": "1"}}, REFUSAL, r"the limit '1' cannot be written to .*/memory\.nosuch"),
        ({"cgroup_conf": {"memory.max": "much"}}, KernelError, r"write 'much' to .*/memory\.max: Invalid argument"),
        (
            {"device_read_bps": ["/dev/null:1mb"]},
            InvalidValue,
            r"device /dev/null: not a block device, so its input and",
        ),
    ],
)
def test_a_limit_that_cannot_be_set_is_refused_and_leaves_nothing(
    engine: Engine, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    before = groups()
    with pytest.raises(error, match=text):
        sh(engine, "true", **options)
    assert (groups(), engine.containers.list(all=True), left_over(engine)) == (before, [], [])


@pytest.mark.needs_emulation
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"hugetlb": {"3MB": 1}}, REFUSAL, r"hugetlb\.3MB\.max.*no huge pages of this size: see /sys/kernel/mm/hugep"),
        ({"cpuset_cpus": "7"}, KernelError, r"cpuset\.cpus.*the group can have what is in cpuset\.cpus\.effective"),
    ],
)
def test_a_limit_of_what_the_machine_lacks_is_refused(
    engine: Engine, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    before = groups()
    with pytest.raises(error, match=text):
        sh(engine, "true", **options)
    assert (groups(), left_over(engine)) == (before, [])


UNDELEGATED = """
import os, sys
sys.path[:0] = {path!r}
from boxes import IMAGE, import_image
from pyengine import Engine
from pyengine.errors import PyengineError
with Engine(root="{place}/root", run_root="{place}/run") as engine:
    import_image(engine)
    print(engine.containers.run(IMAGE, ["echo", "runs"]).stdout.decode().strip())
    for options in ({{"memory": "64m"}}, {{"pids_limit": 5}}):
        try:
            engine.containers.run(IMAGE, ["true"], **options)
        except PyengineError as error:
            print(f"{{type(error).__name__}}: {{error}}")
    with engine.containers.create(IMAGE, ["sleep", "100"]) as box:
        box.start()
        try:
            box.pause()
            print("paused", box.status)
        except PyengineError as error:
            print(f"{{type(error).__name__}}: {{error}}")
    print(len(engine.containers.list(all=True)), "left")
    engine.reset()
"""


SUBORDINATE = "login:300000:65536\n"


def let_anybody_reach(path: str) -> None:
    """The machine is disposable."""
    while path != "/":
        path = os.path.dirname(path)
        os.chmod(path, os.stat(path).st_mode | 0o005)


@contextlib.contextmanager
def login_group(owner: int | None) -> Iterator[str]:
    """A group without controllers, and one below it for a shell: of root's, or delegated to a user."""
    made = [f"{ROOT}/login", f"{ROOT}/login/user", f"{ROOT}/login/user/shell"]
    for directory in made:
        os.mkdir(directory)
    for directory in made[1:] if owner is not None else ():
        for name in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
            os.chown(directory + name, owner or 0, owner or 0)
    try:
        yield made[-1]
    finally:
        write(f"{made[0]}/cgroup.kill", 1)
        until(lambda: "populated 0" in read(f"{made[0]}/cgroup.events"), "nobody is left")
        for place, _, _ in os.walk(made[0], topdown=False):
            os.rmdir(place)


@pytest.mark.as_root
@pytest.mark.parametrize("delegated", [False, True])
def test_a_user_without_delegated_controllers_is_told_so(tmp_path: Path, delegated: bool) -> None:
    """As after a login by ssh without systemd: in a group of root's, or in one of the user's without controllers."""
    uid = 5000
    place = tmp_path / "store"
    place.mkdir()
    os.chown(place, uid, uid)
    here = os.path.dirname(os.path.realpath(__file__))
    for path in (str(place), sys.executable, os.path.realpath(sys.executable), f"{here}/x"):
        let_anybody_reach(path)
    for file, line in (
        ("passwd", f"login:x:{uid}:{uid}::/:/bin/sh\n"),
        ("subuid", SUBORDINATE),
        ("subgid", SUBORDINATE),
    ):
        with open(f"/etc/{file}", "a") as table:
            table.write(line)
    program = UNDELEGATED.format(path=[path for path in (here, os.environ.get("PYTHONPATH")) if path], place=place)
    with login_group(uid if delegated else None) as group:
        done = subprocess.run(
            ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", sys.executable, "-c", program],
            preexec_fn=lambda: write(f"{group}/cgroup.procs", os.getpid()),
            env={"PATH": os.environ["PATH"], "HOME": str(place)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert done.returncode == 0, done.stdout
    runs, memory, pids, pause, left = done.stdout.splitlines()
    assert (runs, left) == ("runs", "0 left")
    if delegated:
        for line, controller in ((memory, "memory"), (pids, "pids")):
            assert line == (
                f"RequiresCgroupsV2: the cgroup controller {controller} cannot be enabled in {ROOT}/login/cgroup."
                f"subtree_control: it is not delegated: let the administrator enable it, e.g. Delegate={controller} in "
                "a drop-in for user@.service"
            )
        assert pause == "paused paused"
    else:
        reason = f": the cgroup /login/user/shell of this process is not delegated to uid {uid}: start the program with"
        for line, what in ((memory, "limit container"), (pids, "limit container"), (pause, "pause")):
            assert line.startswith(f"RequiresCgroupsV2: cannot {what}")
            assert reason in line
