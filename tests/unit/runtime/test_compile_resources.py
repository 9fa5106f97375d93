"""Limits of a spec in the terms of cgroup v2."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux.resources import DeviceRate, RdmaLimit, Resources
from pyengine.oci import runtime as oci
from pyengine.runtime.compile_resources import resources_of


def found(resources: dict[str, Any]) -> Resources:
    document = {"ociVersion": "1.0.2", "linux": {"resources": resources}}
    return resources_of(oci.decode(json.dumps(document).encode()))


def test_every_limit_arrives() -> None:
    rate = [{"major": 8, "minor": 0, "rate": 7}]
    assert found(
        {
            "memory": {
                "limit": 1000,
                "swap": 2000,
                "reservation": 500,
                "useHierarchy": True,
                "disableOOMKiller": False,
            },
            "cpu": {"shares": 2, "quota": 5000, "period": 6000, "burst": 1, "idle": 1, "cpus": "0", "mems": "0-1"},
            "pids": {"limit": 9},
            "blockIO": {
                "weight": 10,
                "weightDevice": [{"major": 8, "minor": 1, "weight": 20}],
                "throttleReadBpsDevice": rate,
                "throttleWriteBpsDevice": rate,
                "throttleReadIOPSDevice": rate,
                "throttleWriteIOPSDevice": rate,
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
            "rdma": {"mlx5": {"hcaHandles": 3}},
            "unified": {"memory.high": "9"},
            "devices": [{"allow": False}],
        }
    ) == Resources(
        memory_limit=1000,
        memory_swap=2000,
        memory_reservation=500,
        cpu_shares=2,
        cpu_quota=5000,
        cpu_period=6000,
        cpu_burst=1,
        cpu_idle=True,
        cpuset_cpus="0",
        cpuset_mems="0-1",
        pids_limit=9,
        blkio_weight=10,
        blkio_weight_device=(DeviceRate(8, 1, 20),),
        read_bps=(DeviceRate(8, 0, 7),),
        write_bps=(DeviceRate(8, 0, 7),),
        read_iops=(DeviceRate(8, 0, 7),),
        write_iops=(DeviceRate(8, 0, 7),),
        hugepages={"2MB": 5},
        rdma=(RdmaLimit("mlx5", 3, None),),
        unified={"memory.high": "9"},
    )


def test_no_limits_are_no_limits() -> None:
    assert found({}) == Resources()
    assert resources_of(oci.RuntimeSpec(oci_version="1.0.2")) == Resources()


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        ({"memory": {"kernel": 0}}, "memory.kernel"),
        ({"memory": {"kernelTCP": 5}}, "memory.kernelTCP"),
        ({"memory": {"swappiness": 0}}, "memory.swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller"),
        ({"memory": {"useHierarchy": False}}, "memory.useHierarchy"),
        ({"memory": {"checkBeforeUpdate": True}}, "memory.checkBeforeUpdate"),
        ({"cpu": {"realtimeRuntime": 5}}, "cpu.realtimeRuntime"),
        ({"cpu": {"realtimePeriod": 5}}, "cpu.realtimePeriod"),
        ({"blockIO": {"leafWeight": 5}}, "blockIO.leafWeight"),
        ({"blockIO": {"weightDevice": [{"major": 1, "minor": 2, "leafWeight": 5}]}}, "blockIO.weightDevice"),
        ({"network": {"classID": 1}}, "network"),
    ],
)
def test_what_version_2_lacks_is_named(resources: dict[str, Any], field: str) -> None:
    with pytest.raises(UnsupportedField, match=r"cgroup v2|kernel") as caught:
        found(resources)
    assert caught.value.field == f"linux.resources.{field}"


def test_a_limit_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidValue, match="cpu_period: expected 1000 to 1000000"):
        found({"cpu": {"period": 1}})
