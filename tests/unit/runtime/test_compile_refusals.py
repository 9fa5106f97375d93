"""What a plan cannot do is refused by name, and nothing else ever comes out of the compiler."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyengine.engine.options import make_request
from pyengine.engine.spec import make_spec
from pyengine.engine.spec_facts import EnvironmentFacts
from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux.capabilities import NAMES
from pyengine.oci import runtime as oci
from pyengine.runtime.compile import Facts, OverlayRoot, UserRequest, compile_container, descriptors_to_open, idmap_of
from pyengine.runtime.compile_exec import ExecCommand, compile_exec
from pyengine.runtime.compile_resources import resources_of
from pyengine.runtime.plan import Plan, Settings

FILTER = b"\x06\0\0\0\0\0\xff\x7f"
ROOT = OverlayRoot("/l", ("1",), "/u", "/w", "/t")
BASE: dict[str, Any] = json.loads(
    oci.encode(
        make_spec(
            make_request("i", ["sh"], tty=True, memory="64m", volume=["/a:/b"], sysctl=["net.ipv4.ip_forward=1"]),
            None,
            EnvironmentFacts(capabilities=NAMES),
            id="a" * 64,
            root="rootfs",
        )
    )
)
BASE["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}


def merged(base: Any, change: Any) -> Any:
    """``base`` with the members of ``change``, nested ones too."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


def compile_(document: Any, *, filter: bytes = FILTER) -> Plan:
    spec = oci.decode(json.dumps(document).encode())
    return compile_container(spec, ROOT, Facts(), Settings("id"), seccomp_filter=filter)


def process(**change: Any) -> dict[str, Any]:
    return {"process": change}


def linux(**change: Any) -> dict[str, Any]:
    return {"linux": change}


def one_mount(**change: Any) -> dict[str, Any]:
    return {"mounts": [{"destination": "/m", "type": "bind", "source": "/s", "options": ["bind"]} | change]}


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"hooks": {"poststop": [{"path": "/x"}]}}, "hooks.poststop"),
    (process(apparmorProfile="p"), "process.apparmorProfile"),
    (process(selinuxLabel="l"), "process.selinuxLabel"),
    (process(scheduler={"policy": "SCHED_FIFO"}), "process.scheduler"),
    (process(ioPriority={"class": "IOPRIO_CLASS_RT"}), "process.ioPriority"),
    (process(execCPUAffinity={"initial": "1"}), "process.execCPUAffinity"),
    (process(user={"uid": 0, "gid": 0, "username": "x"}), "process.user.username"),
    (process(rlimits=[{"type": "RLIMIT_CATS", "hard": 1, "soft": 1}]), "process.rlimits[0].type"),
    (process(capabilities={"bounding": ["CAP_MAGIC"]}), "process.capabilities.bounding"),
    (process(capabilities={"permitted": ["chown"]}), "process.capabilities.permitted"),
    (linux(mountLabel="l"), "linux.mountLabel"),
    (linux(intelRdt={"closID": "x"}), "linux.intelRdt"),
    (linux(personality={"domain": "LINUX32"}), "linux.personality"),
    (linux(timeOffsets={"boottime": {"secs": 1}}), "linux.timeOffsets"),
    (linux(namespaces=[{"type": "mount"}, {"type": "time"}]), "linux.namespaces[1]"),
    (linux(namespaces=[{"type": "mount"}, {"type": "thing"}]), "linux.namespaces[1].type"),
    (linux(namespaces=[{"type": "mount", "path": "/x"}]), "linux.namespaces[0].path"),
    (linux(namespaces=[{"type": "pid"}]), "linux.namespaces"),
    (linux(seccomp={"defaultAction": "a", "listenerPath": "/s"}), "linux.seccomp.listenerPath"),
    (linux(seccomp={"defaultAction": "a", "flags": ["SECCOMP_FILTER_FLAG_NEW"]}), "linux.seccomp.flags"),
    (linux(sysctl={"vm.swappiness": "1"}), "linux.sysctl.vm.swappiness"),
    (linux(sysctl={"kernel/../vm/x": "1"}), "linux.sysctl.kernel/../vm/x"),
    (linux(namespaces=[{"type": "mount"}, {"type": "uts"}]), "linux.sysctl.net.ipv4.ip_forward"),
    (linux(devices=[{"path": "/dev/x", "type": "q"}]), "linux.devices[0].type"),
    (one_mount(options=["bind", "size=1"]), "mounts[0].options"),
    (one_mount(options=["bind", "tmpcopyup"]), "mounts[0].options"),
    (one_mount(options=["rbind", "rshared"]), "mounts[0].options"),
    (one_mount(options=["remount", "bind"]), "mounts[0].options"),
    (one_mount(type="proc", options=["tmpcopyup"]), "mounts[0].options"),
    (one_mount(type="tmpfs", options=["idmap"], uidMappings=[{"containerID": 0, "hostID": 1, "size": 1}],
               gidMappings=[{"containerID": 0, "hostID": 1, "size": 1}]), "mounts[0].uidMappings"),
    (one_mount(destination="/dev", type="tmpfs", options=["ro"]), "mounts[0].options"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "field"), UNSUPPORTED, ids=[field for _, field in UNSUPPORTED])
def test_what_cannot_be_done_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(UnsupportedField) as caught:
        compile_(merged(BASE, change))
    assert caught.value.field == field
    assert len(caught.value.reason) > 10


@pytest.mark.parametrize("part", ["process", "linux"])
def test_a_part_that_a_container_needs(part: str) -> None:
    with pytest.raises(UnsupportedField) as caught:
        compile_({key: value for key, value in BASE.items() if key != part})
    assert caught.value.field == part


INVALID: list[tuple[dict[str, Any], str]] = [
    (process(args=[]), "process.args: there is nothing to execute"),
    (process(args=[""]), "the command is an empty word"),
    (process(args=["a\0b"]), "contains a NUL byte"),
    (process(cwd="x"), "process.cwd: 'x' is not absolute"),
    (process(env=["x"]), "process.env: 'x': expected NAME=VALUE"),
    (process(env=["=x"]), "process.env: '=x': expected NAME=VALUE"),
    (process(user={"uid": 2**31, "gid": 0}), "process.user: id 2147483648"),
    (process(user={"uid": -1, "gid": 0}), "process.user: id -1"),  # would mean: as looked up
    (process(user={"uid": 0, "gid": 0, "additionalGids": [2**32]}), "process.user: id 4294967296"),
    (process(user={"uid": 0, "gid": 0, "umask": 512}), "process.user.umask: 512"),
    (process(oomScoreAdj=2000), "process.oomScoreAdj: 2000"),
    (process(rlimits=[{"type": "RLIMIT_CPU", "hard": 1, "soft": 2}]), "expected 0 <= soft <= hard"),
    (process(rlimits=[{"type": "RLIMIT_CPU", "hard": 2**64, "soft": 2}]), "expected 0 <= soft <= hard"),
    (process(rlimits=[{"type": "RLIMIT_CPU", "hard": 1, "soft": 1}] * 2), "RLIMIT_CPU is there twice"),
    (process(consoleSize={"height": -1, "width": 1}), "process.consoleSize: -1 by 1"),
    (process(capabilities={"effective": ["CAP_KILL"], "permitted": [], "bounding": []}), "effective: holds what"),
    (linux(namespaces=[{"type": "mount"}, {"type": "mount"}]), "mount is there twice"),
    (linux(namespaces=[{"type": "mount"}, {"type": "pid", "path": "x"}]), "'x' is not absolute"),
    (linux(namespaces=[{"type": "mount"}, {"type": "user"}]), "linux.uidMappings: a new user namespace needs one"),
    (linux(uidMappings=[{"containerID": 0, "hostID": 0, "size": 1}]), "linux.uidMappings: there is no new user"),
    (linux(rootfsPropagation="often"), "linux.rootfsPropagation: 'often' is none"),
    (linux(devices=[{"path": "dev", "type": "c"}]), "linux.devices[0].path: 'dev'"),
    (linux(devices=[{"path": "/..", "type": "c"}]), "linux.devices[0].path: '/..'"),
    (linux(devices=[{"path": "/d", "type": "c", "major": 4096}]), "4096:0 is not a device number"),
    (linux(devices=[{"path": "/d", "type": "c", "uid": 2**31}]), "owner 2147483648:0 is out of range"),
    (linux(devices=[{"path": "/d", "type": "c", "fileMode": -1}]), "linux.devices[0].fileMode: -1"),
    ({"hostname": "x" * 65}, "hostname: "),
    (linux(namespaces=[{"type": "mount"}, {"type": "network"}]), "hostname: it would be the host's"),
    (one_mount(destination="/"), "mounts[0].destination: '/' is not a place below the root"),
    (one_mount(destination=""), "mounts[0].destination: ''"),
    (one_mount(source=""), "mounts[0].source: a bind needs one"),
    (one_mount(type="", options=[]), "mounts[0].type: neither"),
    (one_mount(options=["bind", "ro", "rw"]), "mount options contradict each other"),
    (one_mount(options=["bind", "idmap"]), "an id-mapped mount needs uidMappings"),
    (one_mount(uidMappings=[{"containerID": 0, "hostID": 2**32, "size": 1}]), "mounts[0].uidMappings"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), INVALID, ids=[text[:50] for _, text in INVALID])
def test_what_means_nothing_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        compile_(merged(BASE, change)).encode()
    assert text in str(caught.value)


def test_a_filter_is_not_left_out() -> None:
    with pytest.raises(InvalidValue, match="its compiled form is missing"):
        compile_(BASE, filter=b"")


def test_the_base_of_these_tests_compiles() -> None:
    assert compile_(BASE).encode()


# --- any document -------------------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    ["", "/", "/x", "x", "..", "/dev", "/proc/../..", "bind", "rbind", "ro", "idmap", "rshared", "tmpcopyup", "tmpfs",
     "c", "p", "user", "mount", "network", "time", "CAP_KILL", "CAP_NOPE", "RLIMIT_CPU", "net.a.b", "kernel/sem", "A=b",
     "=", "rslave", "a\0b", "\ud800", "ü" * 40, "x" * 300, "1:2", "SCMP_ACT_ERRNO", "idmap-9", "0-3"]
)  # fmt: skip
_NUMBERS = st.sampled_from([0, 1, -1, 5, 255, 2**16, 2**31, 2**32, 2**63, 2**64 - 1, 2**64, 2**70, -(2**63) - 1])
_KEYS = st.sampled_from(
    ["type", "path", "source", "destination", "options", "uid", "gid", "containerID", "hostID", "size", "limit",
     "major", "minor", "soft", "hard", "bounding", "ambient", "uidMappings", "gidMappings", "height", "width",
     "kernel", "weight"]
)  # fmt: skip
_VALUES = st.recursive(
    _WORDS | _NUMBERS | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    places = [place] if place else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        places += _places(item, (*place, key))
    return places


_PLACES = _places(BASE)
_OPTIONAL = [
    ("hooks",), ("domainname",), ("process", "oomScoreAdj"), ("process", "consoleSize"), ("linux", "devices"),
    ("linux", "uidMappings"), ("linux", "gidMappings"), ("linux", "rootfsPropagation"), ("linux", "timeOffsets"),
    ("linux", "resources", "blockIO"), ("linux", "resources", "cpu"), ("linux", "resources", "unified"),
    ("linux", "resources", "hugepageLimits"), ("linux", "resources", "rdma"), ("linux", "resources", "network"),
]  # fmt: skip


def _put(document: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        try:
            document = document[key]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(document, dict) or (isinstance(document, list) and place[-1] in range(len(document))):
        document[place[-1]] = value


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_PLACES + _OPTIONAL), _VALUES), min_size=1, max_size=3))
def test_any_document_becomes_a_plan_or_a_refusal(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document = json.loads(json.dumps(BASE))
    for place, value in changes:
        _put(document, place, value)
    try:
        spec = oci.decode(json.dumps(document).encode())
    except InvalidValue:
        return
    for attempt in (_container, _command, resources_of):
        try:
            attempt(spec)
        except InvalidValue as error:
            assert str(error)  # noqa: PT017


def _container(spec: oci.RuntimeSpec) -> None:
    user = UserRequest("www", ("audio",), "/p", "/w")
    for facts in (Facts(), Facts(make_devices=False, set_groups=False)):
        plan = compile_container(spec, ROOT, facts, Settings("id"), user=user, seccomp_filter=FILTER, make_workdir=True)
        assert plan.encode()
        assert all(plan.describe())
    for name, path in descriptors_to_open(spec).items():
        assert name in plan.descriptors
        assert path or idmap_of(spec, name)


def _command(spec: oci.RuntimeSpec) -> None:
    command = ExecCommand(args=("x",), terminal=True)
    assert compile_exec(spec, command, Facts(), Settings("id"), origin="c", seccomp_filter=FILTER).encode()
