"""The text that is written to the files of a cgroup, exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue
from pyengine.linux.resources import (
    UNLIMITED,
    DeviceRate,
    RdmaLimit,
    Resources,
    controllers,
    cpu_weight,
    io_weight,
    plan_writes,
)


@pytest.mark.parametrize(
    ("resources", "writes"),
    [
        (Resources(), []),
        (Resources(memory_limit=64 << 20), [("memory.max", "67108864")]),
        (
            Resources(memory_limit=64 << 20, memory_swap=128 << 20),
            [("memory.max", "67108864"), ("memory.swap.max", "67108864")],
        ),
        (Resources(memory_limit=1 << 20, memory_swap=1 << 20), [("memory.max", "1048576"), ("memory.swap.max", "0")]),
        (Resources(memory_limit=4096, memory_swap=UNLIMITED), [("memory.max", "4096"), ("memory.swap.max", "max")]),
        (Resources(memory_limit=UNLIMITED), [("memory.max", "max"), ("memory.swap.max", "max")]),
        (Resources(memory_swap=UNLIMITED), [("memory.swap.max", "max")]),
        (Resources(memory_limit=0, memory_swap=0), []),
        (
            Resources(memory_reservation=4096, memory_high=8192, memory_limit=16384, oom_group=True),
            [("memory.low", "4096"), ("memory.high", "8192"), ("memory.max", "16384"), ("memory.oom.group", "1")],
        ),
        (Resources(oom_group=False), [("memory.oom.group", "0")]),
        (Resources(cpu_shares=1024), [("cpu.weight", "39")]),
        (Resources(cpu_shares=0), []),
        (Resources(cpu_quota=50000), [("cpu.max", "50000 100000")]),
        (Resources(cpu_quota=50000, cpu_period=20000), [("cpu.max", "50000 20000")]),
        (Resources(cpu_period=20000), [("cpu.max", "max 20000")]),
        (Resources(cpu_quota=UNLIMITED), [("cpu.max", "max 100000")]),
        (Resources(cpu_burst=1000, cpu_idle=True), [("cpu.idle", "1"), ("cpu.max.burst", "1000")]),
        (Resources(cpuset_cpus="0-1,3", cpuset_mems="0"), [("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0")]),
        (Resources(cpuset_cpus=""), []),
        (Resources(pids_limit=100), [("pids.max", "100")]),
        (Resources(pids_limit=0), [("pids.max", "max")]),
        (Resources(pids_limit=UNLIMITED), [("pids.max", "max")]),
        (
            Resources(blkio_weight=500, blkio_weight_device=(DeviceRate(8, 0, 10),)),
            [("io.weight", "default 4950"), ("io.weight", "8:0 1")],
        ),
        (
            Resources(
                read_bps=(DeviceRate(8, 0, 1000), DeviceRate(8, 16, 5)),
                write_bps=(DeviceRate(8, 0, 2000),),
                read_iops=(DeviceRate(8, 0, 0),),
                write_iops=(DeviceRate(8, 16, 7),),
            ),
            [("io.max", "8:0 rbps=1000 wbps=2000 riops=max"), ("io.max", "8:16 rbps=5 wiops=7")],
        ),
        (
            Resources(hugepages={"2MB": 4 << 20, "1GB": UNLIMITED}),
            [("hugetlb.2MB.max", "4194304"), ("hugetlb.1GB.max", "max")],
        ),
        (
            Resources(rdma=(RdmaLimit("mlx5_0", 2, UNLIMITED), RdmaLimit("mlx5_1"))),
            [("rdma.max", "mlx5_0 hca_handle=2 hca_object=max")],
        ),
        (
            Resources(memory_limit=4096, unified={"memory.high": "2048", "cgroup.max.depth": "3"}),
            [("memory.max", "4096"), ("memory.high", "2048"), ("cgroup.max.depth", "3")],
        ),
    ],
)
def test_each_limit_is_written_as_the_kernel_wants_it(resources: Resources, writes: list[tuple[str, str]]) -> None:
    assert plan_writes(resources) == writes


def test_bfq_takes_the_weight_as_it_is() -> None:
    resources = Resources(blkio_weight=500, blkio_weight_device=(DeviceRate(8, 0, 10),))
    assert plan_writes(resources, bfq=True) == [("io.bfq.weight", "default 500"), ("io.bfq.weight", "8:0 10")]


def test_controllers_are_those_of_the_files() -> None:
    writes = plan_writes(
        Resources(memory_limit=1, pids_limit=1, oom_group=True, hugepages={"2MB": 0}, unified={"cgroup.max.depth": "1"})
    )
    assert controllers(writes) == ["memory", "pids", "hugetlb"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"memory_limit": -2}, "memory_limit: expected bytes"),
        ({"memory_swap": 4096}, "memory_swap: expected a memory_limit beside it"),
        ({"memory_limit": 8192, "memory_swap": 4096}, "memory_swap: expected at least memory_limit (8192), got 4096"),
        ({"memory_limit": -1, "memory_swap": 4096}, "memory_swap: expected -1 since memory_limit is unlimited"),
        ({"memory_limit": 4096, "memory_reservation": 8192}, "memory_reservation: expected at most memory_limit"),
        ({"cpu_shares": -1}, "cpu_shares: expected 2 to 262144"),
        ({"cpu_quota": 999}, "cpu_quota: expected at least 1000"),
        ({"cpu_period": 2_000_000}, "cpu_period: expected 1000 to 1000000"),
        ({"cpuset_cpus": "0-1;rm"}, "cpuset_cpus: expected a list such as 0-3,7"),
        ({"cpuset_mems": "0\n"}, "cpuset_mems: expected a list"),
        ({"pids_limit": -2}, "pids_limit: expected a number"),
        ({"blkio_weight": 5}, "blkio_weight: expected 10 to 1000"),
        ({"blkio_weight_device": (DeviceRate(8, 0, 1001),)}, "blkio_weight_device: expected 10 to 1000"),
        ({"read_bps": (DeviceRate(8, 0, -1),)}, "read_bps: expected not negative"),
        ({"hugepages": {"../x": 1}}, "hugepages: expected a page size such as 2MB"),
        ({"rdma": (RdmaLimit("a b", 1),)}, "rdma: expected a device name"),
        ({"unified": {"../../x": "1"}}, "unified: expected the name of a file of cgroup v2"),
        ({"unified": {"cgroup.procs": "1"}}, "unified: expected a limit, got 'cgroup.procs'"),
        ({"unified": {"memory.high": "1\0"}}, "unified: expected text without NUL"),
    ],
)
def test_what_cannot_mean_anything_is_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Resources(**arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(text)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_weights_keep_their_order_and_range(first: int, second: int) -> None:
    low, high = sorted((first, second))
    assert 1 <= cpu_weight(low) <= cpu_weight(high) <= 10000


def test_weights_reach_the_ends_of_the_range() -> None:
    assert [cpu_weight(2), cpu_weight(262144), io_weight(10), io_weight(1000)] == [1, 10000, 1, 10000]
