"""The spec of a container: defaults word for word, what a request changes, what a machine does not allow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from spec_samples import ROOT, SINGLE, USER, document, linux_of, mounts_of, process_of, spec_of

from pyengine.engine.options import make_request
from pyengine.engine.spec import complete_spec
from pyengine.engine.spec_facts import EnvironmentFacts, HostDevice
from pyengine.engine.spec_linux import keep_id
from pyengine.engine.spec_process import DEFAULT_CAPABILITIES, merge
from pyengine.engine.values import IdRange
from pyengine.errors import CannotEnforce, InvalidValue
from pyengine.linux.capabilities import NAMES
from pyengine.oci import runtime as oci
from pyengine.oci.image import ContainerConfig as Image
from pyengine.oci.seccomp import decode_profile

CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
]  # fmt: skip


def test_the_default_container_of_root() -> None:
    assert document() == {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
                "HOSTNAME=0123456789ab",
                "container=podman",
            ],
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": 1048576, "soft": 1048576},
                {"type": "RLIMIT_NPROC", "hard": 1048576, "soft": 1048576},
            ],
        },
        "root": {"path": "rootfs"},
        "hostname": "0123456789ab",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536000"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["rprivate", "nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "annotations": {
            "io.kubernetes.cri-o.ContainerType": "sandbox",
            "io.kubernetes.cri-o.TTY": "false",
            "io.podman.annotations.autoremove": "FALSE",
            "io.podman.annotations.init": "FALSE",
            "io.podman.annotations.privileged": "FALSE",
            "io.podman.annotations.publish-all": "FALSE",
        },
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "cgroupsPath": "/pyengine/c",
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/fs/selinux",
            ],
            "readonlyPaths": [
                "/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    }  # fmt: skip


def test_rootless_differs_in_limits_and_devices_only() -> None:
    root, user = document(), document(USER)
    del root["process"]["rlimits"]
    del root["linux"]["resources"]
    assert user == root


def test_the_capabilities_are_those_of_the_reference() -> None:
    from pyengine.linux.capabilities import mask

    assert list(DEFAULT_CAPABILITIES) == CAPABILITIES
    assert mask(DEFAULT_CAPABILITIES) == 0xA80425FB


# --- merging with the image ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "argv"),
    [
        ({"command": []}, ("/e", "-x", "c", "d")),
        ({"command": ["u"]}, ("/e", "-x", "u")),
        ({"command": [], "entrypoint": "/f"}, ("/f",)),  # the image's command goes with its entrypoint
        ({"command": ["u"], "entrypoint": ""}, ("u",)),
    ],
)
def test_command_lines(options: dict[str, Any], argv: tuple[str, ...]) -> None:
    image = Image(entrypoint=["/e", "-x"], cmd=["c", "d"])
    assert process_of(image=image, facts=ROOT, **options).args == argv


def test_a_container_needs_a_command() -> None:
    with pytest.raises(InvalidValue, match="no command"):
        spec_of(ROOT, Image(), command=[])
    with pytest.raises(InvalidValue, match="no command"):
        spec_of(ROOT, Image(cmd=["x"]), command=[], entrypoint="")


def test_variables_of_request_over_image_over_defaults() -> None:
    image = Image(env=["PATH=/img", "A=1", "B=1", "NOTHING"])
    assert process_of(ROOT, image, env=["B=2", "C=3"]).env == (
        "PATH=/img", "TERM=xterm", "A=1", "B=2", "C=3", "HOSTNAME=0123456789ab", "container=podman",
    )  # fmt: skip
    assert "HOSTNAME=me" in process_of(ROOT, env=["HOSTNAME=me"]).env
    with pytest.raises(InvalidValue, match="the image's environment has '=x'"):
        spec_of(ROOT, Image(env=["=x"]))


def test_variables_of_one_container_do_not_reach_the_next() -> None:
    # podman 1.6 kept its defaults in one map for all: CVE-2020-14370.
    spec_of(env=["SECRET=1"])
    assert not [item for item in process_of().env if item.startswith("SECRET")]


def test_the_rest_of_the_image() -> None:
    image = Image(user="www:web", working_dir="srv", labels={"a": "1", "b": "1"}, stop_signal="SIGQUIT")
    merged = merge(make_request("i", ["sh"], label=["b=2"]), image, ROOT)
    assert (merged.user, merged.workdir, merged.labels, merged.stop_signal) == (
        "www:web", "/srv", {"a": "1", "b": "2"}, 3,
    )  # fmt: skip
    merged = merge(make_request("i", ["sh"], user="5:6", workdir="/w", stop_signal=9), image, ROOT)
    assert (merged.user, merged.workdir, merged.stop_signal) == ("5:6", "/w", 9)
    assert merge(make_request(rootfs="/r", command=["sh"]), None, ROOT).user == "0"
    assert merge(make_request("i", ["sh"], userns="keep-id"), image, USER).user == "1000:1000"


def test_a_working_directory_is_in_its_shortest_form() -> None:
    # It is made when it is missing, and what is made has to be what is entered.
    assert process_of(workdir="/a/../b//c/.").cwd == "/b/c"
    assert process_of(ROOT, Image(working_dir="../x")).cwd == "/x"


def test_numeric_users_are_in_the_document() -> None:
    assert process_of(user="5:6").user == oci.User(uid=5, gid=6)
    assert process_of(user="www").user == oci.User(uid=0, gid=0)
    assert process_of(umask="077").user.umask == 0o77


# --- rights -------------------------------------------------------------------------------------------------


def capabilities(*args: Any, **options: Any) -> oci.Capabilities:
    found = process_of(*args, **options).capabilities
    assert found is not None
    return found


@pytest.mark.parametrize("user", ["", "root", "0", "0:5", "root:wheel"])
def test_root_has_nothing_inheritable(user: str) -> None:
    # CVE-2022-24769: an inheritable set that is not empty gives programs with file capabilities more than they say.
    found = capabilities(user=user, cap_add=["SYS_TIME"])
    assert found.inheritable == found.ambient == ()
    assert found.bounding == found.effective == found.permitted == (*CAPABILITIES, "CAP_SYS_TIME")


@pytest.mark.parametrize("user", ["www", "1000", "1:0"])
def test_another_user_has_what_was_added(user: str) -> None:
    found = capabilities(user=user, cap_add=["SYS_TIME", "CHOWN"])
    assert set(found.bounding) == {*CAPABILITIES, "CAP_SYS_TIME"}
    assert found.effective == found.permitted == found.inheritable == found.ambient == ("CAP_CHOWN", "CAP_SYS_TIME")
    assert capabilities(user=user).effective == ()


def test_added_and_dropped() -> None:
    assert capabilities(cap_drop=["ALL"]).bounding == ()
    assert capabilities(cap_drop=["ALL"], cap_add=["KILL"]).bounding == ("CAP_KILL",)
    assert capabilities(cap_add=["ALL"]).bounding == NAMES
    assert set(NAMES) - set(capabilities(cap_add=["ALL"], cap_drop=["KILL"]).bounding) == {"CAP_KILL"}
    assert "CAP_KILL" not in capabilities(cap_drop=["KILL"]).effective


def test_what_this_process_lacks_cannot_be_given() -> None:
    poor = replace(ROOT, capabilities=("CAP_CHOWN", "CAP_KILL"))
    assert capabilities(poor).bounding == ("CAP_CHOWN", "CAP_KILL")
    assert capabilities(poor, privileged=True).bounding == ("CAP_CHOWN", "CAP_KILL")
    with pytest.raises(InvalidValue, match="capability CAP_SYS_TIME: the kernel does not have it"):
        spec_of(poor, cap_add=["SYS_TIME"])


def test_privileged() -> None:
    devices = (HostDevice("/dev/fuse", "c", 10, 229), HostDevice("/dev/sda", "b", 8, 0, 0o660, 0, 6))
    facts = replace(ROOT, host_devices=devices)
    found = linux_of(facts, privileged=True)
    assert found.masked_paths == found.readonly_paths == ()
    assert found.seccomp is None
    assert found.resources == oci.Resources(devices=(oci.DeviceRule(allow=True, access="rwm"),))
    assert found.devices[1] == oci.Device(path="/dev/sda", type="b", major=8, minor=0, file_mode=0o660, uid=0, gid=6)
    assert capabilities(privileged=True).effective == NAMES
    assert capabilities(privileged=True, user="www").ambient == NAMES
    mounts = mounts_of(facts, privileged=True)
    assert "ro" not in mounts["/sys"].options
    assert "ro" not in mounts["/sys/fs/cgroup"].options


def test_a_privileged_container_has_terminals_of_its_own() -> None:
    devices = tuple(HostDevice(path, "c", 5, 1) for path in ("/dev/console", "/dev/ptmx", "/dev/kmsg"))
    assert [device.path for device in linux_of(replace(ROOT, host_devices=devices), privileged=True).devices] == [
        "/dev/kmsg"
    ]


def test_seccomp() -> None:
    assert linux_of(security_opt=["seccomp=unconfined"]).seccomp is None
    default = linux_of().seccomp
    assert default is not None
    assert default.default_errno_ret == 38
    profile = decode_profile(b'{"defaultAction":"SCMP_ACT_LOG"}', "/p")
    custom = linux_of(replace(ROOT, seccomp_profile=profile), security_opt=["seccomp=/p"])
    assert custom.seccomp is not None
    assert custom.seccomp.default_action == "SCMP_ACT_LOG"
    with pytest.raises(InvalidValue, match="seccomp profile /p: its content is missing"):
        spec_of(security_opt=["seccomp=/p"])


def test_the_filter_follows_the_capabilities() -> None:
    def allows(filter: oci.Seccomp | None, name: str) -> bool:
        assert filter is not None
        return any(rule.action == "SCMP_ACT_ALLOW" and name in rule.names for rule in filter.syscalls)

    assert not allows(linux_of().seccomp, "mount")
    assert allows(linux_of(cap_add=["SYS_ADMIN"]).seccomp, "mount")


def test_limits_are_raised_as_far_as_they_can_be() -> None:
    def limits(facts: EnvironmentFacts, **options: Any) -> dict[str, tuple[int, int]]:
        return {limit.type: (limit.soft, limit.hard) for limit in process_of(facts, **options).rlimits}

    low = {"nofile": (1024, 4096), "nproc": (100, -1)}
    assert limits(replace(ROOT, rlimits=low))["RLIMIT_NOFILE"] == (1048576, 1048576)
    assert limits(replace(ROOT, max_files=5000))["RLIMIT_NOFILE"] == (5000, 5000)
    capped = replace(ROOT, rlimits=low, raise_limits=False)
    assert limits(capped) == {"RLIMIT_NOFILE": (4096, 4096), "RLIMIT_NPROC": (1048576, 1048576)}
    assert limits(ROOT, ulimit=["core=0", "nofile=5:6", "memlock=-1"]) == {
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_MEMLOCK": (2**64 - 1, 2**64 - 1),
        "RLIMIT_NOFILE": (5, 6),
        "RLIMIT_NPROC": (1048576, 1048576),
    }
    assert limits(ROOT, ulimit=["host"]) == limits(ROOT)
    assert limits(capped, ulimit=["nofile=4096"])["RLIMIT_NOFILE"] == (4096, 4096)
    for text in ("nofile=4097", "nofile=1:-1"):
        with pytest.raises(CannotEnforce, match=r"ulimit nofile: .* above the hard limit 4096"):
            limits(capped, ulimit=[text])


def test_the_oom_score_of_a_spared_service_is_not_inherited() -> None:
    assert process_of().oom_score_adj is None
    assert process_of(replace(ROOT, oom_score_adj=-900)).oom_score_adj == 0
    assert process_of(oom_score_adj=-5).oom_score_adj == -5
    with pytest.raises(CannotEnforce, match="oom score adjustment -5 is below that of this process"):
        spec_of(replace(ROOT, raise_limits=False), oom_score_adj=-5)


# --- namespaces ---------------------------------------------------------------------------------------------


def kinds(**options: Any) -> list[tuple[str, str]]:
    return [(namespace.type, namespace.path) for namespace in linux_of(**options).namespaces]


def test_host_namespaces_are_not_listed() -> None:
    assert kinds(pid="host", ipc="host", uts="host", network="host", cgroupns="host") == [("mount", "")]
    assert kinds(pid="ns:/p", network="none")[:2] == [("pid", "/p"), ("network", "")]
    assert ("user", "") in kinds(facts=USER, uidmap=["0:1000:10"])
    assert ("user", "/u") in kinds(facts=USER, userns="ns:/u")


def test_hostnames() -> None:
    assert spec_of().hostname == "0123456789ab"
    assert spec_of(hostname="me").hostname == "me"
    assert spec_of(network="host").hostname == "host"
    shared = spec_of(uts="host")
    assert shared.hostname == ""
    assert shared.process is not None
    assert "HOSTNAME=host" in shared.process.env


def test_maps() -> None:
    linux = linux_of(USER, uidmap=["0:1000:10"], gidmap=["0:2000:20"])
    assert linux.uid_mappings == (oci.IdMapping(container_id=0, host_id=1000, size=10),)
    assert linux.gid_mappings == (oci.IdMapping(container_id=0, host_id=2000, size=20),)


def test_keep_id_gives_the_caller_its_number_back() -> None:
    outer = (IdRange(0, 1000, 1), IdRange(1, 100000, 65536))
    assert keep_id(1000, outer) == (IdRange(0, 1, 1000), IdRange(1000, 0, 1), IdRange(1001, 1001, 64536))
    assert keep_id(5, (IdRange(0, 5, 1),)) == (IdRange(5, 0, 1),)
    assert keep_id(70000, outer) == (IdRange(0, 1, 65536), IdRange(70000, 0, 1))
    assert keep_id(0, outer) == (IdRange(0, 0, 1), IdRange(1, 1, 65536))
    with pytest.raises(InvalidValue, match="root has no id to keep"):
        spec_of(userns="keep-id")


@pytest.mark.parametrize("options", [{"uidmap": ["0:1000:10"]}, {"userns": "ns:/u"}, {"userns": "container:x"}])
def test_a_container_of_root_has_what_a_user_namespace_allows(options: dict[str, Any]) -> None:
    fuse = HostDevice("/dev/fuse", "c", 10, 229)
    spec = spec_of(replace(ROOT, devices={"/dev/fuse": (fuse,)}), device=["/dev/fuse"], **options)
    assert spec.linux is not None
    assert "user" in [namespace.type for namespace in spec.linux.namespaces]
    assert not spec.linux.devices  # bound, not made
    assert "/dev/fuse" in [mount.source for mount in spec.mounts]
    terminals = next(mount for mount in spec.mounts if mount.destination == "/dev/pts")
    assert ("gid=5" in terminals.options) == ("uidmap" in options)  # what another one maps is not known


@pytest.mark.parametrize("options", [{"uidmap": ["1:1000:10"]}, {"uidmap": ["0:1:1"], "gidmap": ["5:1:1"]}])
@pytest.mark.parametrize("facts", [ROOT, USER])
def test_root_of_a_user_namespace_has_to_be_somebody(facts: EnvironmentFacts, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=r"[ug]id map: id 0 has to be mapped"):
        spec_of(facts, **options)


def test_a_user_namespace_of_root_is_entered_by_a_second_process() -> None:
    with pytest.raises(CannotEnforce, match=r"pids limit 1: .* has to be 2 at least"):
        spec_of(uidmap=["0:1000:10"], pids_limit=1)
    assert spec_of(uidmap=["0:1000:10"], pids_limit=2)
    assert spec_of(USER, uidmap=["0:1000:10"], pids_limit=1)
    assert spec_of(pids_limit=1)


def test_every_id_of_the_outer_map_is_kept_once() -> None:
    outer = (IdRange(0, 1000, 1), IdRange(1, 100000, 65536))
    for id in (0, 1, 1000, 65536, 65537, 2**31 - 1):
        ranges = keep_id(id, outer)
        assert sum(item.size for item in ranges) == 65537
        assert sorted(n for item in ranges for n in (item.host, item.host + item.size))[-1] == 65537


# --- a start ------------------------------------------------------------------------------------------------


def test_a_start_adds_files_and_namespaces_of_others() -> None:
    spec = complete_spec(
        spec_of(network="container:x", volume=["/mine:/etc/hosts"]),
        namespaces={"network": "/proc/7/ns/net"},
        files={"/etc/hosts": "/run/c/hosts", "/etc/hostname": "/run/c/hostname"},
    )
    assert spec.linux is not None
    assert oci.Namespace(type="network", path="/proc/7/ns/net") in spec.linux.namespaces
    assert spec.mounts[-1] == oci.Mount(
        destination="/etc/hostname", type="bind", source="/run/c/hostname", options=("bind", "rprivate")
    )
    assert [mount.source for mount in spec.mounts if mount.destination == "/etc/hosts"] == ["/mine"]
    assert spec.annotations["io.container.manager"] == "libpod"


def test_a_start_cannot_replace_the_hosts_namespace() -> None:
    with pytest.raises(InvalidValue, match="no namespace of its own of type pid"):
        complete_spec(spec_of(pid="host"), namespaces={"pid": "/proc/7/ns/pid"})


def test_annotations() -> None:
    spec = spec_of(tty=True, rm=True, privileged=True, annotation=["a=b"], security_opt=["seccomp=unconfined"])
    assert spec.annotations["io.kubernetes.cri-o.TTY"] == "true"
    assert spec.annotations["io.podman.annotations.autoremove"] == "TRUE"
    assert spec.annotations["io.podman.annotations.privileged"] == "TRUE"
    assert spec.annotations["io.podman.annotations.seccomp"] == "unconfined"
    assert spec.annotations["a"] == "b"


def test_the_document_reads_back() -> None:
    for facts in (ROOT, USER, SINGLE):
        spec = spec_of(facts, tty=True, memory="64m", volume=["/a:/b"])
        assert oci.decode(oci.encode(spec)) == spec
