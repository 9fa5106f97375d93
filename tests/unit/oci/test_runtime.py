"""config.json: what is read, what is refused by name, what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import ArchiveTooLarge, InvalidValue, PyengineError, UnsupportedField
from pyengine.oci import runtime as oci

# The example of config.md, shortened to one of each kind.
FULL: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 1, "umask": 63, "additionalGids": [5, 6]},
        "args": ["sh"],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_CORE", "hard": 18446744073709551615, "soft": 1024}],
        "noNewPrivileges": True,
        "apparmorProfile": "p",
        "oomScoreAdj": 100,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 1},
        "selinuxLabel": "l",
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 4},
        "execCPUAffinity": {"initial": "7", "final": "0-3"},
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "slartibartfast",
    "domainname": "example.org",
    "mounts": [
        {
            "destination": "/data",
            "type": "none",
            "source": "/volumes",
            "options": ["rbind", "rw"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        }
    ],
    "hooks": {"prestart": [{"path": "/bin/true", "args": ["true"], "env": ["a=b"], "timeout": 5}]},
    "annotations": {"com.example.key1": "value1"},
    "linux": {
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 32000}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 32000}],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229}],
            "memory": {"limit": 1, "kernelTCP": -1, "disableOOMKiller": False, "checkBeforeUpdate": True},
            "cpu": {"shares": 1024, "realtimeRuntime": 1, "cpus": "2-3", "idle": 0},
            "pids": {"limit": 32771},
            "blockIO": {
                "weight": 10,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 9223372036854771712}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
            "unified": {"memory.high": "1"},
        },
        "cgroupsPath": "/myRuntime/myContainer",
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/var/run/netns/x"}],
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 2114060288, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
        "rootfsPropagation": "slave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "m",
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}},
        "intelRdt": {"closID": "g", "l3CacheSchema": "L3:0=7f0", "enableCMT": True},
        "personality": {"domain": "LINUX"},
    },
}


def test_every_field_survives_reading_and_writing() -> None:
    written = json.loads(oci.encode(oci.decode(json.dumps(FULL).encode())))
    assert written == FULL  # zero and false included, where absence means something else


def test_what_is_empty_is_left_out() -> None:
    spec = oci.RuntimeSpec(oci_version="1.0.2", process=oci.Process(cwd="/", args=("x",)), linux=oci.Linux())
    assert json.loads(oci.encode(spec)) == {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["x"], "cwd": "/"},
        "linux": {},
    }


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"windows": {}}, "windows"),
        ({"vm": {"kernel": {}}}, "vm"),
        ({"process": {"cwd": "/", "commandLine": "x"}}, "process.commandLine"),
        ({"linux": {"memoryPolicy": {}}}, "linux.memoryPolicy"),
        ({"linux": {"resources": {"devices": [{"allow": True}, {"allow": True, "x": 1}]}}},
         "linux.resources.devices[1].x"),
        ({"linux": {"resources": {"rdma": {"mlx": {"y": 1}}}}}, "linux.resources.rdma.mlx.y"),
    ],
)  # fmt: skip
def test_an_unknown_field_is_named_by_its_path(document: dict[str, Any], field: str) -> None:
    with pytest.raises(UnsupportedField, match="does not know this field") as caught:
        oci.decode(json.dumps({"ociVersion": "1.0.2"} | document).encode())
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "config.json is not valid"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `ociVersion`"),
        (b'{"ociVersion":"1.0","process":{"cwd":1}}', r"Expected `str`, got `int` - at `\$.process.cwd`"),
        (b'{"ociVersion":"1.0","hostname":null}', r"Expected `str`, got `null` - at `\$.hostname`"),
        (b'{"ociVersion":"1.0","hostname":"\xff"}', "config.json is not valid"),
        (b'{"ociVersion":' + b"[" * 100000, "config.json is not valid"),
        (b'{"ociVersion":"2.0"}', "'2.0' is not a version 1"),
    ],
)
def test_a_malformed_document_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        oci.decode(data)


def test_a_document_is_bounded() -> None:
    with pytest.raises(ArchiveTooLarge, match=f"at most {oci.DOCUMENT_LIMIT}"):
        oci.decode(b" " * (oci.DOCUMENT_LIMIT + 1))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), 1 << 64) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*sorted(FULL), "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(_JSON)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        spec = oci.decode(json.dumps(value).encode())
    except PyengineError:
        return
    assert oci.decode(oci.encode(spec)) == spec
