"""The documents of ``inspect`` (containers.md §6.3, images.md §6.1): keys, order, JSON types, and their rules."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pyengine.engine.config import ContainerConfig
from pyengine.engine.inspect import NEVER, Surroundings, container_document, image_document
from pyengine.engine.request import ContainerRequest, NamespaceRequest
from pyengine.engine.request_mounts import BindMount, TmpfsMount
from pyengine.engine.request_resources import DeviceLimit, DeviceRequest, ResourceRequest, Ulimit
from pyengine.engine.spec import make_spec
from pyengine.engine.spec_facts import EnvironmentFacts, HostDevice
from pyengine.engine.spec_process import DEFAULT_CAPABILITIES
from pyengine.engine.states import ContainerState
from pyengine.engine.usage import allocated_bytes
from pyengine.engine.values import IdRange
from pyengine.errors import KernelError
from pyengine.oci.digest import Digest
from pyengine.store.images import Image
from pyengine.store.layers import Layer

ID = "ab" * 32
OTHER = "cd" * 32
RUNNING = ContainerState(status="running", pid=77, monitor_pid=70, started_ns=1_000_000_000)

# Every key of the tables, in their order, with the type that a client decodes it as.
TOP = {
    "Id": str, "Created": str, "Path": str, "Args": list, "State": dict, "Image": str, "ImageName": str,
    "Rootfs": str, "Pod": str, "ResolvConfPath": str, "HostnamePath": str, "HostsPath": str, "StaticDir": str,
    "OCIConfigPath": str, "OCIRuntime": str, "LogPath": str, "ConmonPidFile": str, "Name": str, "RestartCount": int,
    "Driver": str, "MountLabel": str, "ProcessLabel": str, "AppArmorProfile": str, "EffectiveCaps": list,
    "BoundingCaps": list, "ExecIDs": list, "GraphDriver": dict, "SizeRw": int, "SizeRootFs": int, "Mounts": list,
    "Dependencies": list, "NetworkSettings": dict, "ExitCommand": list, "Namespace": str, "IsInfra": bool,
    "Config": dict, "HostConfig": dict,
}  # fmt: skip
STATE = {
    "OciVersion": str, "Status": str, "Running": bool, "Paused": bool, "Restarting": bool, "OOMKilled": bool,
    "Dead": bool, "Pid": int, "ConmonPid": int, "ExitCode": int, "Error": str, "StartedAt": str, "FinishedAt": str,
    "Healthcheck": dict,
}  # fmt: skip
NETWORK = {
    "Bridge": str, "SandboxID": str, "LinkLocalIPv6Address": str, "SandboxKey": str, "EndpointID": str,
    "Gateway": str, "GlobalIPv6Address": str, "IPAddress": str, "IPv6Gateway": str, "MacAddress": str,
    "HairpinMode": bool, "LinkLocalIPv6PrefixLen": int, "GlobalIPv6PrefixLen": int, "IPPrefixLen": int,
    "SecondaryIPAddresses": type(None), "SecondaryIPv6Addresses": type(None), "Ports": list,
}  # fmt: skip
CONFIG = {
    "Hostname": str, "Domainname": str, "Image": str, "User": str, "WorkingDir": str, "AttachStdin": bool,
    "AttachStdout": bool, "AttachStderr": bool, "StdinOnce": bool, "Tty": bool, "OpenStdin": bool, "Env": list,
    "Cmd": list, "Volumes": type(None), "OnBuild": type(None), "Entrypoint": str, "Labels": dict,
    "Annotations": dict, "StopSignal": int,
}  # fmt: skip
HOST = {
    "Binds": list, "ContainerIDFile": str, "LogConfig": dict, "NetworkMode": str, "PortBindings": dict,
    "RestartPolicy": dict, "AutoRemove": bool, "Privileged": bool, "ReadonlyRootfs": bool, "OomKillDisable": bool,
    "PublishAllPorts": bool, "VolumesFrom": type(None), "VolumeDriver": str, "Cgroup": str, "Isolation": str,
    "Links": type(None), "CapAdd": list, "CapDrop": list, "Dns": list, "DnsOptions": list, "DnsSearch": list,
    "ExtraHosts": list, "GroupAdd": list, "IpcMode": str, "PidMode": str, "UTSMode": str, "UsernsMode": str,
    "Cgroups": str, "OomScoreAdj": int, "SecurityOpt": list, "Tmpfs": dict, "ShmSize": int, "Runtime": str,
    "ConsoleSize": list, "CpuShares": int, "CpuPeriod": int, "CpuRealtimePeriod": int, "CpuQuota": int,
    "CpuRealtimeRuntime": int, "NanoCpus": int, "CpusetCpus": str, "CpusetMems": str, "Memory": int,
    "KernelMemory": int, "MemoryReservation": int, "MemorySwap": int, "MemorySwappiness": int, "CgroupParent": str,
    "BlkioWeight": int, "BlkioWeightDevice": type(None), "BlkioDeviceReadBps": type(None),
    "BlkioDeviceWriteBps": type(None), "BlkioDeviceReadIOps": type(None), "BlkioDeviceWriteIOps": type(None),
    "Devices": list, "PidsLimit": int, "Ulimits": list, "DiskQuota": int, "CpuCount": int, "CpuPercent": int,
    "IOMaximumIOps": int, "IOMaximumBandwidth": int,
}  # fmt: skip


def facts(**changes: Any) -> EnvironmentFacts:
    return EnvironmentFacts(capabilities=(*DEFAULT_CAPABILITIES, "CAP_NET_ADMIN"), hostname="host", **changes)


def document(
    request: ContainerRequest | None = None,
    state: ContainerState = RUNNING,
    *,
    machine: EnvironmentFacts | None = None,
    around: Surroundings | None = None,
    **fields: Any,
) -> dict[str, Any]:
    request = request or ContainerRequest(image="base", command=("sleep", "1"))
    spec = make_spec(request, None, machine or facts(), id=ID, root="root", cgroup=f"/pyengine/{ID}")
    config = ContainerConfig(
        id=ID,
        name="box",
        created_ns=1_500_000_000_500_000_000,
        **{
            "layers": (2, 1),
            "user_volumes": tuple(mount.target for mount in request.mounts),
            "network": str(request.net),
            "hostname": spec.hostname,
            **fields,
        },
    )
    around = around or Surroundings(directory=f"/root/containers/{ID}", lower=("/layers/2/diff", "/layers/1/diff"))
    found = container_document(config, spec, state, around)
    assert json.loads(json.dumps(found)) == found  # nothing but JSON in it
    return found


def types(value: dict[str, Any]) -> dict[str, type]:
    return {key: type(each) for key, each in value.items()}


# --- shape


def test_every_key_is_there_in_order_and_of_its_type() -> None:
    found = document(around=Surroundings(directory="/x", size_rw=1, size_rootfs=2), command=("a",), labels={"a": "b"})
    assert list(found) == list(TOP)
    assert types(found) == TOP
    assert list(found["State"]) == list(STATE)
    assert types(found["State"]) == STATE
    assert types(found["NetworkSettings"]) == NETWORK
    assert list(found["Config"]) == list(CONFIG)
    assert types(found["Config"]) == CONFIG
    assert list(found["HostConfig"]) == list(HOST)
    assert types(found["HostConfig"]) == HOST


def test_what_is_never_there_when_nothing_is_known() -> None:
    found = document(state=ContainerState())
    assert "SizeRw" not in found
    assert "SizeRootFs" not in found
    assert "ConmonPid" not in found["State"]
    assert found["State"]["StartedAt"] == found["State"]["FinishedAt"] == NEVER
    assert found["ResolvConfPath"] == found["HostnamePath"] == found["HostsPath"] == ""
    assert found["Config"]["Cmd"] is None
    assert found["Config"]["Labels"] is None
    assert "MergedDir" not in found["GraphDriver"]["Data"]


# --- the container


def test_path_and_args_are_the_command_line() -> None:
    found = document()
    assert (found["Path"], found["Args"]) == ("sleep", ["1"])
    lone = document(ContainerRequest(image="base", command=("true",)))
    assert (lone["Path"], lone["Args"]) == ("true", ["true"])


@pytest.mark.parametrize(
    ("status", "running", "paused"),
    [("configured", False, False), ("created", False, False), ("running", True, False), ("paused", False, True)],
)
def test_the_state_has_podmans_words(status: str, running: bool, paused: bool) -> None:
    state = document(state=ContainerState(status=status))["State"]
    assert (state["Status"], state["Running"], state["Paused"]) == (status, running, paused)


def test_an_ended_container_says_how_and_when() -> None:
    ended = ContainerState(status="exited", exit_code=137, started_ns=1, finished_ns=2_000_000_000, oom_killed=True)
    state = document(state=ended)["State"]
    assert (state["ExitCode"], state["OOMKilled"], state["Pid"]) == (137, True, 0)
    assert state["StartedAt"] == "1970-01-01T00:00:00.000000001Z"
    assert state["FinishedAt"] == "1970-01-01T00:00:02Z"


def test_the_overlay_is_seen_through_the_process_while_it_runs() -> None:
    assert document()["GraphDriver"] == {
        "Name": "overlay",
        "Data": {
            "LowerDir": "/layers/2/diff:/layers/1/diff",
            "UpperDir": f"/root/containers/{ID}/upper",
            "WorkDir": f"/root/containers/{ID}/work",
            "MergedDir": "/proc/77/root",
        },
    }
    assert document(rootfs="/srv/root")["GraphDriver"] == {"Name": "overlay", "Data": None}


def test_files_that_a_start_made_are_named() -> None:
    files = {"/etc/hosts": "/run/x/hosts", "/etc/resolv.conf": "/run/x/resolv.conf", "/etc/hostname": "/run/x/hostname"}
    found = document(around=Surroundings(directory="/x", files=files))
    assert found["HostsPath"] == "/run/x/hosts"
    assert found["ResolvConfPath"] == "/run/x/resolv.conf"
    assert found["HostnamePath"] == "/run/x/hostname"


def test_mounts_are_those_that_were_asked_for_without_tmpfs() -> None:
    request = ContainerRequest(
        image="base",
        command=("x",),
        mounts=(
            BindMount(source="/srv/data", target="/data/", ro=True, noexec=True),
            BindMount(source="/srv/log", target="/log", propagation="rslave", recursive=False),
            TmpfsMount(target="/scratch", size=4096),
        ),
    )
    found = document(request)
    assert found["Mounts"] == [
        {
            "Type": "bind", "Name": "", "Source": "/srv/data", "Destination": "/data", "Driver": "", "Mode": "",
            "Options": ["rro", "noexec", "rbind"], "RW": False, "Propagation": "rprivate",
        },
        {
            "Type": "bind", "Name": "", "Source": "/srv/log", "Destination": "/log", "Driver": "", "Mode": "",
            "Options": ["bind"], "RW": True, "Propagation": "rslave",
        },
    ]  # fmt: skip
    assert found["HostConfig"]["Binds"] == [
        "/srv/data:/data:ro,rro,rprivate,noexec,rbind",
        "/srv/log:/log:rw,rslave,bind",
    ]
    assert list(found["HostConfig"]["Tmpfs"]) == ["/scratch"]
    assert "size=4096" in found["HostConfig"]["Tmpfs"]["/scratch"].split(",")
    assert found["HostConfig"]["Devices"] == []


def test_namespaces_are_named_as_podman_names_them() -> None:
    request = ContainerRequest(
        image="base",
        command=("x",),
        pid=NamespaceRequest("host"),
        ipc=NamespaceRequest("container", "other"),
        uts=NamespaceRequest("path", "/run/ns/uts"),
        net=NamespaceRequest("container", "other"),
    )
    found = document(request, joined={"ipc": OTHER, "network": OTHER})
    host = found["HostConfig"]
    assert (host["PidMode"], host["IpcMode"], host["UTSMode"]) == ("host", f"container:{OTHER}", "ns:/run/ns/uts")
    assert (host["NetworkMode"], host["UsernsMode"]) == (f"container:{OTHER}", "")
    assert found["Dependencies"] == [OTHER]
    assert found["NetworkSettings"]["SandboxKey"] == ""


def test_a_user_namespace_of_its_own_is_private() -> None:
    maps = (IdRange(0, 1, 1000),)
    request = ContainerRequest(image="base", command=("x",), uid_map=maps, gid_map=maps)
    assert document(request, machine=facts(rootless=True))["HostConfig"]["UsernsMode"] == "private"


@pytest.mark.parametrize(
    ("request_mode", "mode", "sandbox"),
    [
        ("none", "none", "/proc/77/ns/net"),
        ("private", "default", "/proc/77/ns/net"),
        ("host", "host", ""),
        ("ns:/run/netns/x", "ns:/run/netns/x", "/run/netns/x"),
    ],
)
def test_the_network_mode_and_where_its_namespace_is(request_mode: str, mode: str, sandbox: str) -> None:
    net = NamespaceRequest.parse("net", request_mode)
    found = document(ContainerRequest(image="base", command=("x",), net=net))
    assert found["HostConfig"]["NetworkMode"] == mode
    assert found["NetworkSettings"]["SandboxKey"] == sandbox


def test_capabilities_are_compared_with_the_default() -> None:
    request = ContainerRequest(image="base", command=("x",), cap_add=("CAP_NET_ADMIN",), cap_drop=("CAP_CHOWN",))
    found = document(request)
    assert (found["HostConfig"]["CapAdd"], found["HostConfig"]["CapDrop"]) == (["CAP_NET_ADMIN"], ["CAP_CHOWN"])
    assert "CAP_NET_ADMIN" in found["EffectiveCaps"]
    assert "CAP_CHOWN" not in found["BoundingCaps"]
    plain = document()["HostConfig"]
    assert (plain["CapAdd"], plain["CapDrop"]) == ([], [])


def test_limits_are_those_of_the_spec() -> None:
    request = ContainerRequest(
        image="base",
        command=("x",),
        resources=ResourceRequest(
            memory=64 << 20,
            cpus=1.5,
            pids_limit=20,
            cpuset_cpus="0-1",
            blkio_weight=100,
            device_read_bps=(DeviceLimit("/dev/sda", 1000),),
        ),
        ulimits=(Ulimit("nofile", 10, -1),),
        oom_score_adj=300,
        shm_size=1 << 20,
    )
    around = Surroundings(directory="/x", device_path=lambda kind, major, minor: f"/dev/{kind}-{major}-{minor}")
    host = document(request, machine=facts(block_devices={"/dev/sda": (8, 0)}), around=around)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["MemorySwappiness"]) == (64 << 20, 128 << 20, -1)
    assert (host["CpuQuota"], host["CpuPeriod"], host["NanoCpus"]) == (150_000, 100_000, 1_500_000_000)
    assert (host["PidsLimit"], host["CpusetCpus"], host["BlkioWeight"]) == (20, "0-1", 100)
    assert host["BlkioDeviceReadBps"] == [{"Path": "/dev/b-8-0", "Rate": 1000}]
    assert {"Name": "RLIMIT_NOFILE", "Soft": 10, "Hard": (1 << 64) - 1} in host["Ulimits"]
    assert (host["OomScoreAdj"], host["ShmSize"]) == (300, 1 << 20)


def test_devices_are_those_that_are_made_or_in_a_user_namespace_bound() -> None:
    request = ContainerRequest(image="base", command=("x",), devices=(DeviceRequest.parse("/dev/fuse:/dev/f"),))
    node = {"/dev/fuse": (HostDevice("/dev/fuse", "c", 10, 229),)}
    around = Surroundings(directory="/x", device_path=lambda *_: "/dev/fuse")
    expected = [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/f", "CgroupPermissions": ""}]
    assert document(request, machine=facts(devices=node), around=around)["HostConfig"]["Devices"] == expected
    rootless = facts(devices=node, rootless=True)
    assert document(request, machine=rootless)["HostConfig"]["Devices"] == expected


def test_a_container_without_a_cgroup_says_so() -> None:
    request = ContainerRequest(image="base", command=("x",))
    spec = make_spec(request, None, facts(), id=ID, root="root", cgroup="")
    config = ContainerConfig(id=ID, name="box", created_ns=1)
    found = container_document(config, spec, RUNNING, Surroundings(directory="/x"))
    assert found["HostConfig"]["Cgroups"] == "disabled"
    assert document()["HostConfig"]["Cgroups"] == "default"


# --- sizes


def test_allocated_bytes_count_every_file_once_and_follow_no_link(tmp_path: Path) -> None:
    root = tmp_path / "upper"
    outside = tmp_path / "outside"
    root.mkdir()
    outside.write_bytes(b"x" * (1 << 20))
    empty = allocated_bytes(root)
    (root / "file").write_bytes(b"x" * 100_000)
    os.link(root / "file", root / "again")
    os.symlink(outside, root / "link")
    os.symlink(tmp_path, root / "directory")
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 30)
    counted = allocated_bytes(root)
    assert 100_000 <= counted - empty < 200_000
    assert counted % 512 == 0


def test_allocated_bytes_take_directories_deeper_than_any_path(tmp_path: Path) -> None:
    depth, name = 2000, "deep"
    current = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=current)
        below = os.open(name, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    with open(os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=current), "wb") as file:
        file.write(b"x" * 50_000)
    try:
        assert allocated_bytes(tmp_path) >= 50_000
    finally:
        for _ in range(depth):  # shutil.rmtree recurses
            for entry in ("bottom",):
                if entry in os.listdir(current):
                    os.unlink(entry, dir_fd=current)
            above = os.open("..", os.O_RDONLY, dir_fd=current)
            os.rmdir(name, dir_fd=above)
            os.close(current)
            current = above
        os.close(current)


def test_a_directory_that_is_gone_is_a_kernel_error(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"open .*/nothing: No such file or directory"):
        allocated_bytes(tmp_path / "nothing")


# --- images

IMAGE_KEYS = [
    "Id", "Digest", "RepoTags", "RepoDigests", "Parent", "Comment", "Created", "Config", "Version", "Author",
    "Architecture", "Os", "Size", "VirtualSize", "GraphDriver", "RootFS", "Labels", "Annotations", "ManifestType",
    "User", "History",
]  # fmt: skip
DIGEST = "sha256:" + "11" * 32


def image(config: dict[str, Any], *, docker: bool = False, names: tuple[str, ...] = (), layers: int = 2) -> Image:
    diff_ids = [f"sha256:{n:064x}" for n in range(1, layers + 1)]
    body = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        **config,
    }
    kind = (
        "application/vnd.docker.distribution.manifest.v2+json"
        if docker
        else "application/vnd.oci.image.manifest.v1+json"
    )
    descriptor = {"mediaType": "application/x", "digest": DIGEST, "size": 1}
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": descriptor,
        "layers": [],
        "annotations": {"org.example": "yes"},
    }
    return Image(
        "22" * 32,
        Digest.parse(DIGEST),
        kind,
        json.dumps(manifest).encode(),
        json.dumps(body).encode(),
        1234,
        0,
        names,
        tuple(
            Layer(n, Digest.parse(text), Digest.parse(text), None, 10, f"/layers/{n}/diff")
            for n, text in enumerate(diff_ids, 1)
        ),
    )


def test_an_image_has_every_key_in_order() -> None:
    found = image_document(image({}))
    assert list(found) == IMAGE_KEYS
    assert (found["RepoTags"], found["RepoDigests"], found["Labels"]) == (None, None, None)
    assert (found["Size"], found["VirtualSize"], found["Created"]) == (1234, 1234, NEVER)
    assert found["Config"] == {}
    assert json.loads(json.dumps(found)) == found


def test_names_give_a_digest_a_repository() -> None:
    found = image_document(image({}, names=("localhost/a:1", "localhost/a:2", "docker.io/library/b:1")))
    assert found["RepoTags"] == ["localhost/a:1", "localhost/a:2", "docker.io/library/b:1"]
    assert found["RepoDigests"] == [f"localhost/a@{DIGEST}", f"docker.io/library/b@{DIGEST}"]


def test_the_image_config_leaves_out_what_is_empty() -> None:
    config = {
        "User": "ann",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["A=b"],
        "Entrypoint": [],
        "Cmd": ["sh"],
        "Volumes": {"/v": {}},
        "WorkingDir": "/w",
        "Labels": {"l": "m"},
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD", "true"], "Retries": 3},
    }
    found = image_document(image({"config": config}))
    assert found["Config"] == {key: value for key, value in config.items() if key not in ("Entrypoint", "Healthcheck")}
    assert (found["User"], found["Labels"]) == ("ann", {"l": "m"})
    assert found["Healthcheck"] == {"Test": ["CMD", "true"], "Retries": 3}


def test_the_layers_of_an_image_are_directories_top_first() -> None:
    assert image_document(image({}))["GraphDriver"] == {
        "Name": "overlay",
        "Data": {"LowerDir": "/layers/1/diff", "UpperDir": "/layers/2/diff"},
    }
    assert image_document(image({}, layers=0))["GraphDriver"]["Data"] == {}
    assert image_document(image({}))["RootFS"] == {
        "Type": "layers",
        "Layers": [f"sha256:{1:064x}", f"sha256:{2:064x}"],
    }


def test_a_docker_image_has_its_own_comment_and_no_annotations() -> None:
    config = {"comment": "from the config", "history": [{"comment": "from the history"}]}
    found = image_document(image(config, docker=True))
    assert (found["Comment"], found["Annotations"]) == ("from the config", {})
    found = image_document(image(config))
    assert (found["Comment"], found["Annotations"]) == ("from the history", {"org.example": "yes"})


def test_times_of_the_history_that_nobody_can_parse_are_left_out() -> None:
    history = [
        {"created": "2020-01-02T03:04:05.5+01:00", "created_by": "one", "empty_layer": True},
        {"created": "yesterday", "author": "two"},
        {},
    ]
    assert image_document(image({"history": history}))["History"] == [
        {"created": "2020-01-02T02:04:05.5Z", "created_by": "one", "empty_layer": True},
        {"author": "two"},
        {},
    ]
