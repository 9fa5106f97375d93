"""Mounts, devices and limits of a spec."""

from __future__ import annotations

from dataclasses import replace

import pytest
from spec_samples import ROOT, SINGLE, USER, linux_of, mounts_of, spec_of

from pyengine.engine.spec_facts import HostDevice
from pyengine.errors import CannotEnforce, InvalidValue
from pyengine.oci import runtime as oci

# --- mounts -------------------------------------------------------------------------------------------------


def test_a_user_mount_replaces_a_default() -> None:
    mounts = mounts_of(volume=["/s:/dev/shm"], tmpfs=["/run:size=1m"])
    assert mounts["/dev/shm"].source == "/s"
    assert mounts["/run"] == oci.Mount(
        destination="/run",
        type="tmpfs",
        source="tmpfs",
        options=("rw", "rprivate", "noexec", "nosuid", "nodev", "tmpcopyup", "size=1048576"),
    )
    assert set(mounts_of(volume=["/dev:/dev"])) == {"/proc", "/dev", "/sys", "/sys/fs/cgroup"}


def test_mounts_come_from_the_top_down() -> None:
    order = list(mounts_of(volume=["/a:/x/y/z", "/b:/x"]))
    assert order.index("/x") < order.index("/x/y/z")
    assert order.index("/dev") < order.index("/dev/pts")


def test_binds() -> None:
    def options(text: str) -> tuple[str, ...]:
        return mounts_of(volume=[text])["/b"].options

    assert options("/a:/b") == ("rw", "rprivate", "rbind")
    assert options("/a:/b:ro,rslave,noexec,dev") == ("ro", "rro", "rslave", "noexec", "dev", "rbind")
    assert options("/a:/b:ro,bind") == ("ro", "rprivate", "bind")


def test_propagation_of_a_bind_reaches_the_root() -> None:
    assert linux_of().rootfs_propagation == ""
    assert linux_of(volume=["/a:/b:rslave"]).rootfs_propagation == "rslave"


def test_a_read_only_root_has_places_to_write() -> None:
    mounts = mounts_of(read_only=True)
    assert spec_of(read_only=True).root == oci.Root(path="rootfs", readonly=True)
    assert set(mounts) - set(mounts_of()) == {"/run", "/tmp", "/var/tmp"}
    assert "noexec" in mounts["/run"].options
    assert "exec" in mounts["/tmp"].options
    assert set(mounts_of(read_only=True, read_only_tmpfs=False)) == set(mounts_of())
    assert mounts_of(read_only=True, volume=["/a:/tmp"])["/tmp"].source == "/a"


def test_shared_memory() -> None:
    assert "size=1000000" in mounts_of(shm_size="1m")["/dev/shm"].options
    assert mounts_of(ipc="host")["/dev/shm"].type == "bind"
    assert "/dev/shm" not in mounts_of(ipc="none")


def test_the_terminal_group_is_left_out_where_it_is_not_mapped() -> None:
    assert "gid=5" in mounts_of(USER)["/dev/pts"].options
    assert "gid=5" not in mounts_of(SINGLE)["/dev/pts"].options
    assert "gid=5" not in mounts_of(USER, uidmap=["0:1000:5"])["/dev/pts"].options


@pytest.mark.parametrize(
    ("option", "destination"),
    [("network", "/sys"), ("pid", "/proc"), ("ipc", "/dev/mqueue"), ("cgroupns", "/sys/fs/cgroup")],
)
def test_a_user_namespace_binds_what_belongs_to_the_host(option: str, destination: str) -> None:
    options = {option: "host"}
    assert mounts_of(ROOT, **options)[destination].type != "bind"
    bound = mounts_of(replace(USER, mqueue=True), **options)[destination]
    assert (bound.type, bound.source) == ("bind", destination)
    assert {"rbind", "rslave", "nosuid", "noexec", "nodev"} <= set(bound.options)
    assert ("ro" in bound.options) == destination.startswith("/sys")


@pytest.mark.parametrize("mode", ["container:x", "ns:/n"])
def test_joined_namespaces_do_not_show_the_hosts_files(mode: str) -> None:
    """Found on a real kernel: a container with the processes of another one saw all those of the host."""
    mounts = mounts_of(USER, pid=mode, ipc=mode, network=mode, cgroupns=mode)
    assert {mounts[path].type for path in ("/proc", "/sys", "/dev/mqueue", "/sys/fs/cgroup")} == {
        "proc", "sysfs", "mqueue", "cgroup",
    }  # fmt: skip


def test_a_host_without_message_queues_has_none_to_share() -> None:
    assert "/dev/mqueue" not in mounts_of(USER, ipc="host")
    assert "/dev/mqueue" in mounts_of(ROOT, ipc="host")  # root can mount them


# --- devices and limits -------------------------------------------------------------------------------------


FUSE = {"/dev/fuse": (HostDevice("/dev/fuse", "c", 10, 229, 0o666),)}


def test_devices_are_made_and_allowed() -> None:
    linux = linux_of(replace(ROOT, devices=FUSE), device=["/dev/fuse:/dev/x:rw"], device_cgroup_rule=["c 1:* r"])
    assert linux.devices == (oci.Device(path="/dev/x", type="c", major=10, minor=229, file_mode=0o666, uid=0, gid=0),)
    assert linux.resources is not None
    assert linux.resources.devices == (
        oci.DeviceRule(allow=False, access="rwm"),
        oci.DeviceRule(allow=True, type="c", major=10, minor=229, access="rw"),
        oci.DeviceRule(allow=True, type="c", major=1, access="r"),
    )


def test_devices_are_bound_in_a_user_namespace() -> None:
    facts = replace(USER, devices=FUSE)
    assert linux_of(facts, device=["/dev/fuse:/dev/x"]).devices == ()
    bound = mounts_of(facts, device=["/dev/fuse:/dev/x"])["/dev/x"]
    assert (bound.type, bound.source) == ("bind", "/dev/fuse")
    with pytest.raises(CannotEnforce, match="only root can load"):
        spec_of(USER, device_cgroup_rule=["c 1:* r"])


def test_a_directory_of_devices() -> None:
    nodes = (HostDevice("/dev/snd/a", "c", 116, 1), HostDevice("/dev/snd/b/c", "c", 116, 2))
    linux = linux_of(replace(ROOT, devices={"/dev/snd": nodes}), device=["/dev/snd:/dev/sound"])
    assert [device.path for device in linux.devices] == ["/dev/sound/a", "/dev/sound/b/c"]


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidValue, match="device /dev/gone: there is no device on the host"):
        spec_of(device=["/dev/gone"])


def test_limits_of_the_group() -> None:
    facts = replace(ROOT, block_devices={"/dev/sda": (8, 0)})
    resources = linux_of(
        facts,
        memory="64m",
        cpus=1.5,
        cpuset_cpus="0-1",
        pids_limit=10,
        blkio_weight=100,
        device_read_bps=["/dev/sda:1m"],
        hugetlb={"2MB": "4m"},
        cgroup_conf=["memory.high=1"],
    ).resources
    assert resources == oci.Resources(
        devices=(oci.DeviceRule(allow=False, access="rwm"),),
        memory=oci.Memory(limit=64 << 20, swap=128 << 20),
        cpu=oci.Cpu(quota=150000, period=100000, cpus="0-1"),
        pids=oci.Pids(limit=10),
        block_io=oci.BlockIo(
            weight=100, throttle_read_bps_device=(oci.ThrottleDevice(major=8, minor=0, rate=1 << 20),)
        ),
        hugepage_limits=(oci.HugepageLimit(page_size="2MB", limit=4 << 20),),
        unified={"memory.high": "1"},
    )
    assert linux_of(pids_limit=0).resources == linux_of().resources
    with pytest.raises(InvalidValue, match="/dev/sdz is not a block device"):
        spec_of(device_read_iops=["/dev/sdz:1"])
