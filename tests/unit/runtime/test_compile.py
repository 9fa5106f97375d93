"""Whole plans, step by step, and the order that keeps a container safe."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux.capabilities import NAMES, mask
from pyengine.oci import runtime as oci
from pyengine.runtime import plan as p
from pyengine.runtime.compile import (
    DirectoryRoot,
    Facts,
    OverlayRoot,
    UserRequest,
    compile_container,
    descriptors_to_open,
    idmap_of,
)

FILTER = b"\x06\0\0\0\0\0\xff\x7f"
OVERLAY = OverlayRoot("/l", ("2/diff", "1/diff"), "/c/upper", "/c/work", "/c/root")
ROOTLESS = Facts(make_devices=False)
CHOWN = ("CAP_CHOWN", "CAP_KILL")
NEW = {"mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
       "pid": 0x20000000, "network": 0x40000000}  # fmt: skip

RDONLY, NOSUID, NODEV, NOEXEC, NOATIME, STRICTATIME, ATIME = 1, 2, 4, 8, 0x10, 0x20, 0x70
PRIVATE, SLAVE, REC = 1 << 18, 1 << 19, 0x4000


def spec_of(linux: dict[str, Any] | None = None, process: dict[str, Any] | None = None, **rest: Any) -> oci.RuntimeSpec:
    """A container like the default one of the engine, written as a document."""
    document: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["sh"],
            "env": ["PATH=/bin"],
            "cwd": "/srv",
            "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
            "capabilities": {"bounding": CHOWN, "effective": CHOWN, "permitted": CHOWN},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 18446744073709551615}],
            "oomScoreAdj": 3,
        }
        | (process or {}),
        "root": {"path": "rootfs"},
        "hostname": "h",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "gid=5"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rprivate", "ro"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "/run/hosts", "options": ["bind", "rprivate"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        }
        | (linux or {}),
    } | rest  # fmt: skip
    return oci.decode(json.dumps(document).encode())


def compile_(spec: oci.RuntimeSpec, root: Any = OVERLAY, facts: Facts = Facts(), **rest: Any) -> p.Plan:  # noqa: B008
    if spec.linux is not None and spec.linux.seccomp is not None:
        rest.setdefault("seccomp_filter", FILTER)
    plan = compile_container(spec, root, facts, p.Settings("id"), **rest)
    assert plan.encode()
    return plan


def steps(*args: Any, **rest: Any) -> list[p.Step]:
    return list(compile_(*args, **rest).steps)


def position(found: Iterable[p.Step], *kinds: type[p.Step]) -> list[int]:
    """Where the first step of each kind is."""
    order = [type(step) for step in found]
    return [order.index(kind) for kind in kinds]


DEVICES = [
    p.Device("/dev/null", 0o20666, 1, 3, 0, 0),
    p.Device("/dev/zero", 0o20666, 1, 5, 0, 0),
    p.Device("/dev/full", 0o20666, 1, 7, 0, 0),
    p.Device("/dev/random", 0o20666, 1, 8, 0, 0),
    p.Device("/dev/urandom", 0o20666, 1, 9, 0, 0),
    p.Device("/dev/tty", 0o20666, 5, 0, 0, 0),
]
LINKS = [
    p.Symlink("pts/ptmx", "/dev/ptmx"),
    p.Symlink("/proc/self/fd", "/dev/fd"),
    p.Symlink("/proc/self/fd/0", "/dev/stdin"),
    p.Symlink("/proc/self/fd/1", "/dev/stdout"),
    p.Symlink("/proc/self/fd/2", "/dev/stderr"),
]
MOUNTS: list[p.Step] = [
    p.Mount("proc", "proc", "/proc", NOSUID | NOEXEC | NODEV, (), 0, False),
    p.Mount("tmpfs", "tmpfs", "/dev", NOSUID | STRICTATIME, ("mode=755", "size=65536k"), 0, False),
    p.Mount("devpts", "devpts", "/dev/pts", 0, ("newinstance", "gid=5"), 0, False),
    p.Mount("cgroup2", "cgroup", "/sys/fs/cgroup", RDONLY, (), PRIVATE, False),
    p.Bind("/run/hosts", "/etc/hosts", False, 0, 0, 0, 0, PRIVATE, True, ""),
]


def test_the_plan_of_a_container_of_root() -> None:
    plan = compile_(spec_of(), descriptors=("cgroup",))
    bits = mask(CHOWN)
    assert list(plan.steps) == [
        p.UnshareCgroup(),
        p.Loopback(),
        p.SetHostname("h"),
        p.Propagation(SLAVE, "slave"),
        p.Overlay("/l", ("2/diff", "1/diff"), "/c/upper", "/c/work", "", "/c/root"),
        *MOUNTS,
        *DEVICES,
        *LINKS,
        p.Sysctl("net/ipv4/ip_forward", "1"),
        p.MaskPath("/proc/kcore"),
        p.ReadonlyPath("/proc/sys"),
        p.PivotRoot(0),
        p.Rlimit(7, 10, -1, "RLIMIT_NOFILE"),
        p.OomScore(3),
        p.NewSession(),
        p.Chdir("/srv"),
        p.User(5, 6, (7,), 0o22),
        p.Seccomp(FILTER, 0),
        p.Capabilities(bits, bits, bits, 0, 0),
        p.AwaitStart(),
        p.Exec(("sh",), ("PATH=/bin",), 0),
    ]
    namespaces = NEW["pid"] | NEW["network"] | NEW["ipc"] | NEW["uts"] | NEW["mount"]
    assert plan.settings == p.Settings("id", namespaces=namespaces)
    assert plan.descriptors == ("cgroup",)


def test_rootless_joins_first_and_binds_devices() -> None:
    join = p.JoinNamespace(NEW["user"], "user", "the user's containers")
    plan = compile_(spec_of(), facts=ROOTLESS, joins=[join], descriptors=("cgroup",))
    root = compile_(spec_of())
    binds = [p.Bind(d.path, d.path, False, 0, 0, 0, 0, 0, False, "") for d in DEVICES]
    expected = [binds[DEVICES.index(step)] if step in DEVICES else step for step in root.steps]
    assert list(plan.steps) == [join, *expected]
    assert plan.settings == root.settings
    assert plan.descriptors == ("cgroup", "user")


def test_a_single_id_has_no_groups_to_set() -> None:
    assert compile_(spec_of(), facts=Facts(make_devices=False, set_groups=False)).settings.deny_setgroups


def test_an_engine_has_the_user_looked_up() -> None:
    request = UserRequest("www:web", ("audio",), "/run/passwd", "/srv")
    found = steps(spec_of(), user=request, make_workdir=True)
    assert p.LookupUser("www:web", ("audio",), "/run/passwd", "/srv") in found
    assert p.User(p.AS_LOOKED_UP, p.AS_LOOKED_UP, (), 0o22) in found
    assert p.MakeDirectory("/srv", 0o755) in found
    # The passwd file is on the host, and the user is needed after the pivot.
    order = position(found, p.Overlay, p.LookupUser, p.PivotRoot, p.User)
    assert order == sorted(order)


def test_a_bundle_has_its_working_directory_or_fails() -> None:
    assert not [step for step in steps(spec_of()) if isinstance(step, p.MakeDirectory)]
    assert not [
        step for step in steps(spec_of(process={"cwd": "/"}), make_workdir=True) if isinstance(step, p.MakeDirectory)
    ]


def test_a_working_directory_is_made_below_the_root() -> None:
    found = steps(spec_of(process={"cwd": "/../../a/./b"}), make_workdir=True)
    assert p.MakeDirectory("/a/b", 0o755) in found


def test_a_terminal() -> None:
    plan = compile_(spec_of(process={"terminal": True, "consoleSize": {"height": 24, "width": 80}}))
    assert plan.settings.terminal
    assert p.Terminal(24, 80, True) in plan.steps
    order = position(plan.steps, p.PivotRoot, p.NewSession, p.Terminal, p.User)
    assert order == sorted(order)  # a session first: a terminal can only control one


def test_host_namespaces_leave_their_steps_out() -> None:
    linux = {"namespaces": [{"type": "mount"}], "sysctl": {}}
    found = [type(step) for step in steps(spec_of(linux, hostname=""))]
    assert not {p.UnshareCgroup, p.Loopback, p.SetHostname, p.Sysctl, p.JoinNamespace} & set(found)
    assert compile_(spec_of(linux, hostname="")).settings.namespaces == NEW["mount"]


def test_namespaces_of_others_are_joined_the_user_namespace_first() -> None:
    linux = {
        "namespaces": [
            {"type": "network", "path": "/n"},
            {"type": "uts", "path": "/u"},
            {"type": "mount"},
            {"type": "user", "path": "/x"},
        ]
    }
    plan = compile_(spec_of(linux), DirectoryRoot("/b", "/t"))
    joins = [step for step in plan.steps if isinstance(step, p.JoinNamespace)]
    assert joins[0] == p.JoinNamespace(NEW["user"], "namespace-user", "/x")
    assert {join.descriptor for join in joins} == set(plan.descriptors)
    assert descriptors_to_open(spec_of(linux)) == {
        "namespace-network": "/n", "namespace-uts": "/u", "namespace-user": "/x",
    }  # fmt: skip
    assert p.Loopback() not in plan.steps  # it is not ours to set up
    assert p.SetHostname("h") in plan.steps
    assert not [step for step in plan.steps if isinstance(step, p.Device)]  # no rights over nodes in there


def test_a_user_namespace_of_its_own() -> None:
    maps = [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 5000, "size": 1}]
    linux = {"namespaces": [{"type": "user"}, {"type": "mount"}, {"type": "network"}],
             "uidMappings": maps, "gidMappings": maps[:1]}  # fmt: skip
    plan = compile_(spec_of(linux, hostname=""), DirectoryRoot("/b", "/t"))
    assert p.BindRoot("/b", "/b", True) in plan.steps
    assert plan.settings.uid_map == (0, 1000, 10, 10, 5000, 1)
    assert plan.settings.gid_map == (0, 1000, 10)
    assert plan.settings.namespaces & NEW["user"]
    assert not [step for step in plan.steps if isinstance(step, p.Device)]


def test_the_owner_of_layers_has_to_be_somebody_inside() -> None:
    """Found on a real kernel: the overlay of an image was mounted in a namespace where its files were nobody's."""
    maps = [{"containerID": 0, "hostID": 1, "size": 1000}, {"containerID": 1000, "hostID": 0, "size": 1}]
    linux = {"namespaces": [{"type": "user"}, {"type": "mount"}, {"type": "network"}, {"type": "uts"}],
             "uidMappings": maps, "gidMappings": maps}  # fmt: skip
    root = replace(OVERLAY, options="userxattr")
    assert compile_(spec_of(linux), root).settings.uid_map == (0, 1, 1000, 1000, 0, 1)  # keep-id
    linux["gidMappings"] = maps[:1]
    with pytest.raises(UnsupportedField, match="layers cannot be shown with other ids") as caught:
        compile_(spec_of(linux), root)
    assert caught.value.field == "linux.gidMappings"


HOST = Facts(host_rights=True)


def test_with_the_rights_of_the_host_layers_get_the_ids_of_the_container() -> None:
    maps = [{"containerID": 0, "hostID": 1000, "size": 10}]
    linux = {"namespaces": [{"type": "user"}, {"type": "mount"}, {"type": "network", "path": "/n"}, {"type": "uts"}],
             "uidMappings": maps, "gidMappings": maps}  # fmt: skip
    spec, root = spec_of(linux), replace(OVERLAY, store="/store")
    plan = compile_(spec, root, HOST, descriptors=("cgroup",))
    # Made by the engine, so that there are mounts with its ids before anybody is in it: joined, not made.
    assert plan.steps[:3] == (
        p.OpenSources("namespace-user", "/store"),
        p.JoinNamespace(NEW["user"], "namespace-user", "the container"),
        p.JoinNamespace(NEW["network"], "namespace-network", "/n"),
    )
    assert (plan.settings.uid_map, plan.settings.gid_map) == ((), ())
    assert plan.settings.namespaces == NEW["mount"] | NEW["uts"]
    assert p.Overlay("/l", ("2/diff", "1/diff"), "/c/upper", "/c/work", "", "/c/root") in plan.steps
    assert not [step for step in plan.steps if isinstance(step, p.Device)]
    assert plan.descriptors == ("cgroup", "namespace-user", "namespace-network")
    assert descriptors_to_open(spec, host_rights=True) == {"namespace-user": "", "namespace-network": "/n"}
    assert idmap_of(spec, "namespace-user") == ((0, 1000, 10), (0, 1000, 10))
    assert plan.steps[0].describe() == (
        "open the sources of mounts outside of the user namespace, files of /store with its ids"
    )


def test_with_the_rights_of_the_host_a_user_namespace_is_joined() -> None:
    linux = {"namespaces": [{"type": "user", "path": "/u"}, {"type": "mount"}, {"type": "network"}, {"type": "uts"}]}
    plan = compile_(spec_of(linux), replace(OVERLAY, store="/store"), HOST)
    assert plan.steps[:2] == (
        p.OpenSources("namespace-user", "/store"), p.JoinNamespace(NEW["user"], "namespace-user", "/u"),
    )  # fmt: skip
    assert descriptors_to_open(spec_of(linux), host_rights=True) == {"namespace-user": "/u"}


def test_a_directory_is_opened_with_the_rights_of_the_host_and_not_mapped() -> None:
    linux = {"namespaces": [{"type": "user", "path": "/u"}, {"type": "mount"}, {"type": "network"}, {"type": "uts"}]}
    plan = compile_(spec_of(linux), DirectoryRoot("/b", "/t"), HOST)
    assert plan.steps[0] == p.OpenSources("", "")
    assert p.BindRoot("/b", "/b", True) in plan.steps


def test_without_a_user_namespace_nothing_is_opened_before() -> None:
    assert compile_(spec_of(), replace(OVERLAY, store="/store"), HOST) == compile_(spec_of())


@pytest.mark.parametrize("field", ["uidMappings", "gidMappings"])
def test_who_sets_a_container_up_has_to_be_somebody_inside(field: str) -> None:
    maps = [{"containerID": 0, "hostID": 1000, "size": 10}]
    linux = {"namespaces": [{"type": "user"}, {"type": "mount"}, {"type": "network"}, {"type": "uts"}],
             "uidMappings": maps, "gidMappings": maps}  # fmt: skip
    linux[field] = [{"containerID": 1, "hostID": 1000, "size": 10}]
    with pytest.raises(UnsupportedField, match="id 0 has to be mapped") as caught:
        compile_(spec_of(linux), replace(OVERLAY, store="/store"), HOST)
    assert caught.value.field == f"linux.{field}"


@pytest.mark.parametrize("user", [{"type": "user"}, {"type": "user", "path": "/u"}])
def test_layers_of_root_are_not_mounted_where_deletions_cannot_be_read(user: dict[str, str]) -> None:
    maps = [] if "path" in user else [{"containerID": 0, "hostID": 0, "size": 9}]
    linux = {"namespaces": [user, {"type": "mount"}, {"type": "network"}, {"type": "uts"}],
             "uidMappings": maps, "gidMappings": maps}  # fmt: skip
    assert compile_(spec_of(linux), replace(OVERLAY, options="index=off,userxattr"))
    with pytest.raises(UnsupportedField, match="layers of a store of root") as caught:
        compile_(spec_of(linux))
    assert caught.value.field == "linux.namespaces"


def test_privileged() -> None:
    linux = {"maskedPaths": [], "readonlyPaths": [], "seccomp": None}
    document = json.loads(oci.encode(spec_of()))
    document["linux"] = {key: value for key, value in (document["linux"] | linux).items() if value}
    document["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), NAMES)
    plan = compile_(oci.decode(json.dumps(document).encode()))
    kinds = {type(step) for step in plan.steps}
    assert not {p.MaskPath, p.ReadonlyPath, p.Seccomp} & kinds
    everything = (1 << 41) - 1
    assert p.Capabilities(everything, everything, everything, 0, 0) in plan.steps


# --- order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [None, UserRequest("www", (), "/run/passwd")])
@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("facts", [Facts(), ROOTLESS])
def test_the_order_that_keeps_a_container_safe(facts: Facts, no_new_privileges: bool, user: UserRequest | None) -> None:
    spec = spec_of(
        process={"noNewPrivileges": no_new_privileges, "terminal": True}, root={"path": "r", "readonly": True}
    )
    found = steps(spec, facts=facts, user=user, make_workdir=True)
    kinds = [type(step) for step in found]
    last = {kind: index for index, kind in enumerate(kinds)}
    first = {kind: kinds.index(kind) for kind in kinds}

    def before(*order: type[p.Step]) -> None:
        for earlier, later in itertools.pairwise(order):
            assert last[earlier] < first[later], f"{earlier.__name__} comes before {later.__name__}"

    # The host's mount table is cut off before anything is mounted.
    before(p.Propagation, p.Overlay, p.Mount)
    before(p.Propagation, p.Overlay, p.Bind)
    # Everything that is made in the root is made before it is read-only, everything masked before it is entered.
    before(p.Mount, p.Symlink, p.MakeDirectory, p.MaskPath, p.ReadonlyPath, p.ReadonlyRoot, p.PivotRoot)
    # /proc/sys is written before it is read-only, and while a whole procfs is visible.
    before(p.Sysctl, p.MaskPath)
    # What takes privileges comes before they are dropped.
    before(p.PivotRoot, p.Rlimit, p.OomScore, p.NewSession, p.Terminal, p.Chdir, p.User, p.Capabilities)
    # A created container can only fail to execute.
    assert kinds[-2:] == [p.AwaitStart, p.Exec]
    if no_new_privileges:
        before(p.Capabilities, p.NoNewPrivileges, p.Seccomp, p.AwaitStart)
    else:
        assert p.NoNewPrivileges not in kinds
        before(p.User, p.Seccomp, p.Capabilities)  # loading takes CAP_SYS_ADMIN
    if user is not None:
        before(p.Mount, p.LookupUser, p.PivotRoot)


# --- roots and mounts ---------------------------------------------------------------------------------------


def test_a_directory_as_root() -> None:
    assert p.BindRoot("/b/rootfs", "/c/root", True) in steps(spec_of(), DirectoryRoot("/b/rootfs", "/c/root"))


def test_an_overlay_that_is_read_only() -> None:
    root = OverlayRoot("/l", ("1",), "", "", "/t", options="userxattr")
    assert p.Overlay("/l", ("1",), "", "", "userxattr", "/t") in steps(spec_of(), root)


@pytest.mark.parametrize(
    ("word", "flag"),
    [("private", PRIVATE), ("rslave", SLAVE | REC), ("shared", 1 << 20), ("runbindable", 1 << 17 | REC)],
)
def test_propagation_of_the_root(word: str, flag: int) -> None:
    assert p.PivotRoot(flag) in steps(spec_of({"rootfsPropagation": word}))


def mount(*options: str, bundle: str = "", **rest: Any) -> Any:
    document = {"destination": "/m", "type": "tmpfs", "source": "s", "options": options} | rest
    found = steps(spec_of(mounts=[document]), bundle=bundle)
    return next(step for step in found if getattr(step, "target", "") in ("/m", "/n"))


def test_options_of_a_new_mount() -> None:
    assert mount("ro", "nosuid", "noatime", "size=1k", "sync", "rnoexec", "defaults") == p.Mount(
        "tmpfs", "s", "/m", RDONLY | NOSUID | NOATIME | NOEXEC, ("sync", "size=1k"), 0, False
    )
    assert mount("tmpcopyup", "rslave").copy_up
    assert mount("rslave").propagation == SLAVE
    assert mount(source="").source == "tmpfs"
    assert mount(destination="x/../n").target == "/n"  # relative ones are below the root


def test_options_of_a_bind() -> None:
    assert mount("rbind", "rro", "nosuid", "exec", "rslave", type="none", source="/s") == p.Bind(
        "/s", "/m", True, NOSUID, NOEXEC, RDONLY, 0, SLAVE, True, ""
    )
    assert mount("relatime", type="bind", source="/s") == p.Bind("/s", "/m", False, 0, ATIME, 0, 0, 0, False, "")
    bound = mount("bind", "noatime", "ro", source="/s")
    assert (bound.set, bound.clear) == (NOATIME | RDONLY, ATIME)  # the field is cleared before it is set
    assert mount("bind", "strictatime", source="/s").set == STRICTATIME


def test_a_relative_source_is_in_the_bundle() -> None:
    assert mount("bind", source="data", bundle="/bundle").source == "/bundle/data"
    with pytest.raises(InvalidValue, match=r"mounts\[0\].source: 'data' is relative"):
        mount("bind", source="data")


def test_id_mapped_binds_name_their_namespace() -> None:
    maps = [{"containerID": 0, "hostID": 7, "size": 2}]
    document = {"destination": "/m", "type": "bind", "source": "/s", "options": ["rbind", "idmap"],
                "uidMappings": maps, "gidMappings": maps}  # fmt: skip
    spec = spec_of(mounts=[document])
    plan = compile_(spec)
    assert [step.idmap for step in plan.steps if isinstance(step, p.Bind)] == ["idmap-0"]
    assert plan.descriptors == ("idmap-0",)
    assert descriptors_to_open(spec) == {"idmap-0": ""}
    assert idmap_of(spec, "idmap-0") == ((0, 7, 2), (0, 7, 2))


# --- devices ------------------------------------------------------------------------------------------------


def test_devices_of_the_spec() -> None:
    devices = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 1, "gid": 2},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600},
        {"path": "/dev/f", "type": "p"},
    ]
    found = [step for step in steps(spec_of({"devices": devices})) if isinstance(step, p.Device)]
    assert p.Device("/dev/fuse", 0o20640, 10, 229, 1, 2) in found
    assert p.Device("/dev/f", 0o10666, 0, 0, 0, 0) in found
    assert [step.mode for step in found if step.path == "/dev/null"] == [0o20600]  # in place of the default one


def test_a_device_directory_from_elsewhere_is_left_alone() -> None:
    mounts = [{"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}]
    found = steps(spec_of(mounts=mounts))
    assert not [step for step in found if isinstance(step, p.Device | p.Symlink)]


def test_a_mount_takes_the_place_of_a_default_device() -> None:
    mounts = [{"destination": "/dev/random", "type": "bind", "source": "/dev/zero", "options": ["bind"]},
              {"destination": "/dev/stdin", "type": "bind", "source": "/dev/zero", "options": ["bind"]}]  # fmt: skip
    found = steps(spec_of(mounts=mounts))
    assert not [step for step in found if getattr(step, "path", "") in ("/dev/random", "/dev/stdin")]


# --- the process --------------------------------------------------------------------------------------------


def test_a_spec_without_capabilities_has_none() -> None:
    spec = spec_of()
    assert spec.process is not None
    bare = msgspec.structs.replace(spec, process=msgspec.structs.replace(spec.process, capabilities=None))
    assert p.Capabilities(0, 0, 0, 0, 0) in steps(bare)


def test_ambient_capabilities_are_those_that_the_kernel_can_hold() -> None:
    # The document that `runc spec` writes has ambient capabilities, and none that are inheritable.
    sets = {"bounding": CHOWN, "permitted": CHOWN, "ambient": CHOWN, "inheritable": ["CAP_KILL"]}
    bits, kill = mask(CHOWN), mask(["CAP_KILL"])
    assert p.Capabilities(bits, 0, bits, kill, kill) in steps(spec_of(process={"capabilities": sets}))


def test_a_umask() -> None:
    assert p.User(5, 6, (), 0o77) in steps(spec_of(process={"user": {"uid": 5, "gid": 6, "umask": 63}}))


def test_flags_of_a_filter() -> None:
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}
    assert p.Seccomp(FILTER, 2) in steps(spec_of({"seccomp": seccomp}))


def test_sysctls_in_either_form() -> None:
    linux = {"sysctl": {"net/ipv4/conf/eth0.1/forwarding": "1", "kernel.shmmax": "2", "fs.mqueue.msg_max": "3"}}
    found = [step for step in steps(spec_of(linux)) if isinstance(step, p.Sysctl)]
    assert {step.path for step in found} == {
        "net/ipv4/conf/eth0.1/forwarding", "kernel/shmmax", "fs/mqueue/msg_max",
    }  # fmt: skip
