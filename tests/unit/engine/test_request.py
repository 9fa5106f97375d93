"""What a request may say, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.engine.options import Options, make_request, parse_entrypoint
from pyengine.engine.request import ContainerRequest, LogRequest, NamespaceRequest, RestartPolicy, check_user
from pyengine.engine.request_mounts import BindMount, TmpfsMount
from pyengine.engine.request_resources import DeviceLimit, DeviceRequest, DeviceRule, ResourceRequest, Ulimit
from pyengine.engine.values import IdRange
from pyengine.errors import InvalidValue

MI = 1 << 20


def test_the_plain_request_has_the_defaults_of_podman() -> None:
    request = make_request("img", ["sh"])
    assert request == ContainerRequest(image="img", command=("sh",))
    assert request.shm_size == 65_536_000
    assert request.read_only_tmpfs
    assert (request.stop_timeout, request.stop_signal, request.restart) == (10, None, RestartPolicy("no", 0))
    assert request.log == LogRequest("k8s-file", "", 0)
    assert request.entrypoint is None


def test_every_option_arrives() -> None:
    request = make_request(
        "img",
        ["a", "b"],
        annotation=["k=v"],
        blkio_weight="500",
        blkio_weight_device=["/dev/sda:100"],
        cap_add=["net_admin", "CAP_SYS_TIME"],
        cap_drop=["all"],
        cgroup_conf={"memory.high": "1g"},
        cgroup_parent="p",
        cgroupns="host",
        cpu_period=100000,
        cpu_quota=50000,
        cpu_shares=512,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        device=["/dev/fuse", "/dev/a:/dev/b:r"],
        device_cgroup_rule=["c 1:* rw"],
        device_read_bps=["/dev/sda:1m"],
        device_read_iops=["/dev/sda:7"],
        device_write_bps=["/dev/sda:2m"],
        device_write_iops=["/dev/sda:8"],
        die_with_parent=True,
        entrypoint='["/e", "-x"]',
        env=["A=1", "B"],
        environment={"B": "2"},
        gidmap=["0:1:2"],
        group_add=["wheel"],
        hostname="h",
        hugetlb={"2MB": "4m"},
        interactive=True,
        ipc="shareable",
        label=["l", "m=n"],
        log_driver="json-file",
        log_opt={"path": "/l", "max-size": "1m", "max-file": "3"},
        memory="64m",
        memory_reservation="32m",
        memory_swap="-1",
        mount=["type=bind,src=/a,dst=/b", TmpfsMount(target="/c")],
        name="n",
        network="host",
        oom_score_adj=5,
        pid="host",
        pids_limit=9,
        privileged=True,
        read_only=True,
        read_only_tmpfs=False,
        restart="on-failure:3",
        security_opt=["no-new-privileges", "seccomp=/p.json", "label=disable"],
        shm_size="1m",
        stop_signal="INT",
        stop_timeout=3,
        sysctl={"kernel.msgmax": "1"},
        tmpfs=["/t"],
        tty=True,
        uidmap=["0:5:6"],
        ulimit=["nofile=1:2"],
        umask="077",
        user="u:g",
        uts="private",
        volume=["/v:/w:ro"],
        workdir="/d",
    )
    assert request == ContainerRequest(
        image="img",
        command=("a", "b"),
        annotations={"k": "v"},
        cap_add=("CAP_NET_ADMIN", "CAP_SYS_TIME"),
        cap_drop=("ALL",),
        cgroup_parent="p",
        cgroup=NamespaceRequest("host"),
        devices=(DeviceRequest("/dev/fuse", "/dev/fuse"), DeviceRequest("/dev/a", "/dev/b", "r")),
        device_rules=(DeviceRule("c", 1, None, "rw"),),
        die_with_parent=True,
        entrypoint=("/e", "-x"),
        env={"A": "1", "B": "2"},
        uid_map=(IdRange(0, 5, 6),),
        gid_map=(IdRange(0, 1, 2),),
        user_namespace=NamespaceRequest("private"),
        group_add=("wheel",),
        hostname="h",
        interactive=True,
        ipc=NamespaceRequest("shareable"),
        labels={"l": "", "m": "n"},
        log=LogRequest("json-file", "/l", MI, 3),
        resources=ResourceRequest(
            memory=64 * MI,
            memory_reservation=32 * MI,
            memory_swap=-1,
            cpu_period=100000,
            cpu_quota=50000,
            cpu_shares=512,
            cpuset_cpus="0-1",
            cpuset_mems="0",
            pids_limit=9,
            blkio_weight=500,
            blkio_weight_device=(DeviceLimit("/dev/sda", 100),),
            device_read_bps=(DeviceLimit("/dev/sda", MI),),
            device_write_bps=(DeviceLimit("/dev/sda", 2 * MI),),
            device_read_iops=(DeviceLimit("/dev/sda", 7),),
            device_write_iops=(DeviceLimit("/dev/sda", 8),),
            hugetlb={"2MB": 4 * MI},
            unified={"memory.high": "1g"},
        ),
        mounts=(BindMount(source="/a", target="/b"), TmpfsMount(target="/c"),
                BindMount(source="/v", target="/w", ro=True), TmpfsMount(target="/t")),
        name="n",
        net=NamespaceRequest("host"),
        oom_score_adj=5,
        pid=NamespaceRequest("host"),
        privileged=True,
        read_only=True,
        read_only_tmpfs=False,
        restart=RestartPolicy("on-failure", 3),
        no_new_privileges=True,
        seccomp="/p.json",
        shm_size=1_000_000,
        stop_signal=2,
        stop_timeout=3,
        sysctls={"kernel.msgmax": "1"},
        tty=True,
        ulimits=(Ulimit("nofile", 1, 2),),
        umask=0o77,
        user="u:g",
        uts=NamespaceRequest("private"),
        workdir="/d",
    )  # fmt: skip


def test_every_option_of_the_table_is_in_the_test_above() -> None:
    import inspect

    source = inspect.getsource(test_every_option_arrives)
    missing = [name for name in Options.__annotations__ if f"        {name}=" not in source]
    assert missing == ["cpus", "rm", "rootfs", "userns"]  # they contradict others of it; tested below


def test_the_options_that_contradict_others() -> None:
    assert make_request("i", cpus="1.5").resources.cpus == 1.5
    assert make_request("i", rm=True).auto_remove
    assert make_request(rootfs="/r").rootfs == "/r"
    assert make_request("/r", rootfs=True) == make_request(rootfs="/r")
    assert make_request("i", userns="keep-id").user_namespace == NamespaceRequest("keep-id")
    assert make_request("i", userns="host").user_namespace is None


def test_one_map_stands_for_both() -> None:
    request = make_request("i", uidmap=["0:5:6"])
    assert request.uid_map == request.gid_map == (IdRange(0, 5, 6),)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"image": ""}, "needs an image or a root file system"),
    ({"rootfs": "/r"}, "and not both"),
    ({"memroy": "1"}, "there is no option 'memroy': did you mean 'memory'"),
    ({"init": True}, "init is not supported: there is no init program"),
    ({"memory_swappiness": 10}, "memory_swappiness is not supported: cgroup v2 has none"),
    ({"oom_kill_disable": True}, "oom_kill_disable is not supported: cgroup v2 cannot"),
    ({"publish": ["80:80"]}, "publish is not supported: networks"),
    ({"command": "sh -c x"}, "expected a sequence of words"),
    ({"cap_add": "ALL"}, "cap_add: expected a list"),
    ({"cap_add": ["nonsense"]}, "not a capability: 'nonsense'"),
    ({"cap_add": ["kill"], "cap_drop": ["CAP_KILL"]}, "both added and dropped: CAP_KILL"),
    ({"memory": "3m"}, "memory limit 3145728: expected at least 4 MiB"),
    ({"memory": "x"}, "memory: size 'x'"),
    ({"memory": 1.5}, "memory: expected a size, got 1.5"),
    ({"memory": "-1"}, "expected at least 4 MiB"),
    ({"memory_swap": "1g"}, "a swap limit needs a memory limit"),
    ({"memory": "1g", "memory_swap": "1m"}, "is below the memory limit"),
    ({"memory": "1g", "memory_reservation": "2g"}, "reservation is above"),
    ({"cpus": "many"}, "cpus 'many': expected a number"),
    ({"cpus": 1, "cpu_quota": 5000}, "contradict each other: cpus sets both"),
    ({"cpu_period": 999}, "cpu period 999: expected 1000 to 1000000"),
    ({"cpu_quota": 999}, "cpu quota 999"),
    ({"cpu_shares": 1}, "cpu shares 1"),
    ({"cpuset_cpus": "x"}, "cpuset_cpus 'x': expected a list"),
    ({"pids_limit": -2}, "pids limit -2"),
    ({"blkio_weight": 9}, "block i/o weight 9"),
    ({"blkio_weight": "9"}, "blkio_weight '9': expected an integer from 10 to 1000"),
    ({"blkio_weight_device": ["/dev/a:9"]}, "weight 9 of /dev/a"),
    ({"device_read_bps": ["sda:1"]}, "expected /dev/NAME:VALUE"),
    ({"device_read_iops": ["/dev/sda:1k"]}, "expected an integer"),
    ({"cgroup_conf": ["../x=1"]}, "expected a name such as memory.high"),
    ({"device": ["fuse"]}, "device path 'fuse' has to be absolute"),
    ({"device": ["/a:/b:rwx"]}, "device access 'rwx'"),
    ({"device": ["/a:/b:r:w"]}, "SOURCE"),
    ({"device_cgroup_rule": ["c 1:3"]}, "expected TYPE MAJOR:MINOR ACCESS"),
    ({"device_cgroup_rule": ["a 1:3 r"]}, "type a means all devices"),
    ({"ulimit": ["nofile"]}, "expected NAME=SOFT"),
    ({"ulimit": ["cats=9"]}, "ulimit 'cats': expected one of core"),
    ({"ulimit": ["nofile=5:4"]}, "the soft limit is above the hard limit"),
    ({"ulimit": ["nofile=-1:4"]}, "the soft limit is above the hard limit"),
    ({"ulimit": ["nofile=1", "nofile=2"]}, "ulimit nofile is given twice"),
    ({"ulimit": ["host", "nofile=2"]}, "contradict each other"),
    ({"sysctl": ["vm.overcommit_memory=1"]}, "belongs to the whole host"),
    ({"sysctl": ["net.ipv4.ip_forward=1"], "network": "host"}, "no network namespace of its own"),
    ({"sysctl": ["net.../x=1"]}, "not the name of a sysctl"),
    ({"pid": "x"}, "pid namespace 'x': expected private, host, container:NAME, ns:PATH"),
    ({"pid": "container:"}, "has to follow the colon"),
    ({"pid": "ns:x"}, "the path has to be absolute"),
    ({"ipc": "pod"}, "in no pod"),
    ({"network": "bridge"}, "networks need a bridge"),
    ({"network": "my-net"}, "networks need a bridge"),
    ({"hostname": "h", "uts": "host"}, "the host name cannot be set"),
    ({"hostname": "h" * 65}, "at most 64 characters"),
    ({"userns": "private"}, "needs id mappings"),
    ({"userns": "keep-id", "uidmap": ["0:1:1"]}, "contradict each other"),
    ({"uidmap": ["0:1:10", "5:100:10"]}, "overlap"),
    ({"security_opt": ["seccomp=x.json"]}, "absolute path of a profile"),
    ({"security_opt": ["label=type:x"]}, "does not do SELinux"),
    ({"security_opt": ["apparmor=p"]}, "does not do AppArmor"),
    ({"security_opt": ["magic"]}, "expected no-new-privileges"),
    ({"restart": "unless-stopped"}, "restart policy 'unless-stopped'"),
    ({"restart": "no:3"}, "restart policy 'no:3'"),
    ({"restart": "on-failure:"}, "restart policy 'on-failure:'"),
    ({"restart": "always", "rm": True}, "contradict each other"),
    ({"log_driver": "journald"}, "log driver 'journald': expected one of k8s-file"),
    ({"log_opt": ["tag=x"]}, "log option 'tag'"),
    ({"log_opt": ["path=x"]}, "log path 'x' has to be absolute"),
    ({"log_opt": ["max-file=0"]}, "max-file"),
    ({"stop_signal": "NOPE"}, "not a signal"),
    ({"stop_timeout": -1}, "stop timeout -1"),
    ({"oom_score_adj": 1001}, "oom score adjustment 1001"),
    ({"shm_size": "0"}, "shm size 0"),
    ({"umask": "1000"}, "umask 1000"),
    ({"user": "a:b:c"}, "expected NAME"),
    ({"user": "2147483648"}, "ids go from 0 to 2147483647"),
    ({"user": "-1"}, "ids go from 0"),
    ({"group_add": ["4294967296"]}, "is above 2147483647"),
    ({"name": "a b"}, "name 'a b'"),
    ({"workdir": "x"}, "working directory 'x' has to be an absolute path"),
    ({"env": ["=x"]}, "env '=x'"),
    ({"command": ["a\0b"]}, "contains a NUL byte"),
    ({"annotation": ["x"]}, "annotation 'x': expected KEY=VALUE"),
    ({"volume": ["/a:/b", "/c:/b/"]}, "mount destination '/b' is given twice"),
    ({"volume": ["/a:/b"], "tmpfs": ["/b"]}, "mount destination '/b' is given twice"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "text"), BAD, ids=[str(options)[:60] for options, _ in BAD])
def test_what_means_nothing_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        make_request(**({"image": "img"} | options))


def test_refused_options_may_be_given_as_off() -> None:
    off: dict[str, Any] = {"init": False, "publish": [], "memory_swappiness": -1, "oom_kill_disable": False, "pod": ""}
    assert make_request("i", **off) == make_request("i")


def test_entrypoints() -> None:
    assert parse_entrypoint(None) is None
    assert parse_entrypoint("") == ()
    assert parse_entrypoint("a b") == ("a b",)  # one word, as podman has it
    assert parse_entrypoint('["a", "b c"]') == ("a", "b c")
    assert parse_entrypoint("[a") == ("[a",)
    assert parse_entrypoint('["a", 1]') == ('["a", 1]',)
    assert parse_entrypoint(["x", "y"]) == ("x", "y")


@given(st.text(max_size=12))
def test_a_user_is_one_or_refused(user: str) -> None:
    try:
        check_user(user)
    except InvalidValue as error:
        assert "user" in str(error)  # noqa: PT017
    else:
        assert "\0" not in user
        assert user.count(":") <= 1


@given(st.sampled_from(["pid", "ipc", "uts", "net", "user", "cgroup"]), st.text(max_size=12))
def test_a_namespace_is_one_or_refused(kind: str, text: str) -> None:
    try:
        parsed = NamespaceRequest.parse(kind, text)
    except InvalidValue:
        return
    assert str(parsed) == text


@given(st.text(alphabet="nofilestack=:-0123456789unlimited", max_size=25))
def test_an_ulimit_is_one_or_refused(text: str) -> None:
    try:
        limit = Ulimit.parse(text)
    except InvalidValue:
        return
    assert Ulimit.parse(str(limit)) == limit


@given(st.text(alphabet="/devab:rwm", max_size=20))
def test_a_device_is_one_or_refused(text: str) -> None:
    try:
        device = DeviceRequest.parse(text)
    except InvalidValue:
        return
    assert DeviceRequest.parse(f"{device.source}:{device.target}:{device.access}") == device


@given(st.text(alphabet="onfailure-always:0123", max_size=14))
def test_a_restart_policy_is_one_or_refused(text: str) -> None:
    try:
        policy = RestartPolicy.parse(text)
    except InvalidValue:
        return
    assert text in ("", policy.name) or text.startswith(f"{policy.name}:")


_TEXT = st.text(alphabet='/:,=.-0123456789abckmnortx[]"\0 ', max_size=12)
_LISTS = ("annotation", "cap_add", "device", "device_cgroup_rule", "device_read_bps", "device_write_iops", "env",
          "gidmap", "group_add", "label", "log_opt", "mount", "security_opt", "sysctl", "tmpfs", "uidmap", "ulimit",
          "volume", "blkio_weight_device", "cgroup_conf")  # fmt: skip
_TEXTS = ("blkio_weight", "cgroupns", "cpus", "cpuset_cpus", "entrypoint", "hostname", "ipc", "log_driver", "memory",
          "memory_swap", "name", "network", "pid", "restart", "shm_size", "stop_signal", "umask", "user", "userns",
          "uts", "workdir")  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(_LISTS), st.lists(_TEXT, max_size=2), max_size=2),
    st.dictionaries(st.sampled_from(_TEXTS), _TEXT, max_size=2),
)
def test_any_text_is_a_request_or_refused(lists: dict[str, list[str]], texts: dict[str, str]) -> None:
    options: dict[str, Any] = lists | texts
    try:
        assert make_request("img", ["sh"], **options).image == "img"
    except InvalidValue as error:
        assert str(error)  # noqa: PT017
