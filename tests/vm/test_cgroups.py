"""The guest gives cgroups v2 whose controllers enforce, to root and to the user in the cgroup that is theirs."""

from __future__ import annotations

import mmap
import os
import signal
import time

import pytest
from cgroup import ROOT, Cgroup, controllers, in_child, own_parent, read, until, write
from kernel import clone_into, deny_devices

MIB = 1 << 20
EVERYWHERE = {"cpu", "io", "memory", "pids"}


def test_cgroups_are_v2_only() -> None:
    kinds = {line.split()[2] for line in read("/proc/self/mounts").splitlines()}
    assert "cgroup2" in kinds
    assert "cgroup" not in kinds


def test_every_engine_gives_the_common_controllers() -> None:
    assert set(controllers(own_parent())) >= EVERYWHERE


@pytest.mark.needs_emulation
def test_emulation_gives_all_controllers() -> None:
    assert set(controllers(own_parent())) >= EVERYWHERE | {"cpuset", "hugetlb", "misc", "rdma"}


def test_controllers_reach_a_new_cgroup(cgroup: Cgroup) -> None:
    assert set(controllers(cgroup.path)) == set(controllers(os.path.dirname(cgroup.path)))


@pytest.mark.as_user
def test_the_user_owns_the_cgroup_above_their_own_and_no_other() -> None:
    assert own_parent().endswith("/user.slice/user-4242.slice/user@4242.service")
    for name in ("", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"):
        assert os.stat(own_parent() + name).st_uid == os.getuid()
    assert os.stat(own_parent() + "/memory.max").st_uid == 0
    with pytest.raises(PermissionError, match=r"cgroup\.procs"):
        write(f"{ROOT}/user.slice/cgroup.procs", os.getpid())


def test_memory_max_kills_and_reports(cgroup: Cgroup) -> None:
    cgroup.set("memory.max", 20 * MIB)
    assert cgroup.run(lambda: bytearray(60 * MIB)) == -signal.SIGKILL
    events = cgroup.facts("memory.events")
    assert (events["oom_kill"], events["max"] > 0) == (1, True)


def test_memory_high_and_low_and_reclaim_are_there(cgroup: Cgroup) -> None:
    for name in ("memory.high", "memory.low", "memory.min"):
        cgroup.set(name, 8 * MIB)
        assert cgroup.get(name) == str(8 * MIB)
    assert int(cgroup.get("memory.peak")) >= 0


def test_oom_group_kills_the_whole_cgroup(cgroup: Cgroup) -> None:
    cgroup.set("memory.max", 20 * MIB)
    cgroup.set("memory.oom.group", 1)

    def two() -> None:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        bytearray(60 * MIB)

    assert cgroup.run(two) == -signal.SIGKILL
    until(lambda: "populated 0" in cgroup.get("cgroup.events"), "both are gone")


def test_pids_max_refuses_the_next_fork(cgroup: Cgroup) -> None:
    cgroup.set("pids.max", 2)

    def fork_twice() -> None:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        with pytest.raises(BlockingIOError):
            os.fork()

    assert cgroup.run(fork_twice) == 0
    assert cgroup.facts("pids.events")["max"] == 1


def test_cpu_max_throttles(cgroup: Cgroup) -> None:
    cgroup.set("cpu.max", "20000 100000")

    def burn() -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass

    assert cgroup.run(burn) == 0
    stat = cgroup.facts("cpu.stat")
    assert stat["nr_throttled"] > 0
    assert stat["usage_usec"] < 600_000


def test_cpu_weight_is_kept(cgroup: Cgroup) -> None:
    cgroup.set("cpu.weight", 50)
    assert cgroup.get("cpu.weight") == "50"


def scratch_device() -> str:
    device = os.stat("/scratch").st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def test_io_max_throttles_the_scratch_disk(cgroup: Cgroup) -> None:
    cgroup.set("io.max", f"{scratch_device()} wbps={MIB}")
    path = f"/tmp/io-{os.getpid()}"

    def write_two_mebibytes() -> None:
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
        with mmap.mmap(-1, MIB // 4) as block:
            for _ in range(8):
                os.write(file, block)

    start = time.monotonic()
    assert cgroup.run(write_two_mebibytes) == 0
    assert time.monotonic() - start > 1.2
    os.unlink(path)
    assert f"{scratch_device()} " in cgroup.get("io.stat")


def test_freeze_stops_and_thaws(cgroup: Cgroup) -> None:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        while True:
            os.write(theirs, b".")
            time.sleep(0.01)
    os.close(theirs)
    cgroup.set("cgroup.procs", pid)
    os.read(ours, 1)
    cgroup.set("cgroup.freeze", 1)
    until(lambda: "frozen 1" in cgroup.get("cgroup.events"), "frozen")
    os.set_blocking(ours, False)
    while True:
        try:
            os.read(ours, 4096)
        except BlockingIOError:
            break
    time.sleep(0.1)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    cgroup.set("cgroup.freeze", 0)
    os.set_blocking(ours, True)
    assert os.read(ours, 1) == b"."
    os.close(ours)
    cgroup.set("cgroup.kill", 1)
    os.waitpid(pid, 0)


def test_kill_ends_everything_in_it(cgroup: Cgroup) -> None:
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
            os._exit(0)
        cgroup.set("cgroup.procs", pid)
        children.append(pid)
    cgroup.set("cgroup.kill", 1)
    for pid in children:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_process_can_be_cloned_into_a_cgroup(cgroup: Cgroup) -> None:
    directory = os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY)
    pid, pidfd = clone_into(directory)
    if pid == 0:
        os._exit(0 if read("/proc/self/cgroup").endswith(os.path.basename(cgroup.path)) else 1)
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    os.close(directory)
    assert result is not None
    assert (result.si_code, result.si_status) == (os.CLD_EXITED, 0)


@pytest.mark.as_root
def test_a_device_program_refuses_devices(cgroup: Cgroup) -> None:
    directory = os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY)
    deny_devices(directory)
    os.close(directory)

    def open_zero() -> None:
        with pytest.raises(PermissionError):
            os.open("/dev/zero", os.O_RDONLY)

    assert in_child(lambda: os.open("/dev/zero", os.O_RDONLY)) == 0
    assert cgroup.run(open_zero) == 0


@pytest.mark.needs_emulation
def test_cpuset_confines(cgroup: Cgroup) -> None:
    assert os.cpu_count() == 2
    cgroup.set("cpuset.cpus", "1")

    def confined() -> None:
        assert os.sched_getaffinity(0) == {1}

    assert cgroup.run(confined) == 0


@pytest.mark.needs_emulation
@pytest.mark.as_root
def test_hugetlb_limits(cgroup: Cgroup) -> None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000  # MAP_HUGETLB
    write("/proc/sys/vm/nr_hugepages", 4)
    try:
        cgroup.set("hugetlb.2MB.rsvd.max", 2 * MIB)

        def map_two() -> None:
            first = mmap.mmap(-1, 2 * MIB, flags=flags)
            first[0] = 1
            with pytest.raises(OSError, match="Cannot allocate memory"):
                mmap.mmap(-1, 2 * MIB, flags=flags)

        assert cgroup.run(map_two) == 0
    finally:
        write("/proc/sys/vm/nr_hugepages", 0)
