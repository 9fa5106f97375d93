"""Commands in a running container."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux.capabilities import NAMES, mask
from pyengine.oci import runtime as oci
from pyengine.runtime import plan as p
from pyengine.runtime.compile import Facts, UserRequest
from pyengine.runtime.compile_exec import CONTAINER, ExecCommand, compile_exec

FILTER = b"\x06\0\0\0\0\0\xff\x7f"
GRANTED = ("CAP_CHOWN", "CAP_KILL", "CAP_SYS_TIME")
OWN = 0x20000000 | 0x40000000 | 0x4000000 | 0x20000 | 0x2000000


def spec_of(linux: dict[str, Any] | None = None, **process: Any) -> oci.RuntimeSpec:
    document = {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["init"],
            "env": ["PATH=/bin", "A=1"],
            "cwd": "/srv",
            "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
            "capabilities": {"bounding": GRANTED},
            "rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 2}],
        }
        | process,
        "hostname": "h",
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "uts", "mount", "cgroup")],
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
            "maskedPaths": ["/proc/kcore"],
        }
        | (linux or {}),
    }
    return oci.decode(json.dumps(document).encode())


def compile_(spec: oci.RuntimeSpec, command: ExecCommand, facts: Facts | None = None, **rest: Any) -> p.Plan:
    settings = p.Settings("id", stdin=True, namespaces=1)
    return compile_exec(spec, command, facts or Facts(), settings, origin="container c", seccomp_filter=FILTER, **rest)


def capabilities(user: str, command: ExecCommand, **process: Any) -> p.Capabilities:
    plan = compile_(spec_of(**process), command, user=UserRequest(user))
    return next(step for step in plan.steps if isinstance(step, p.Capabilities))


def test_the_plan_of_a_command() -> None:
    plan = compile_(spec_of(), ExecCommand(args=("ls",), env=("A=2", "B=3")), descriptors=("cgroup",))
    assert list(plan.steps) == [
        p.JoinNamespace(OWN, CONTAINER, "container c"),
        p.Rlimit(0, 1, 2, "RLIMIT_CPU"),
        p.NewSession(),
        p.Chdir("/srv"),
        p.User(5, 6, (7,), 0o22),
        p.Seccomp(FILTER, 0),
        p.Capabilities(mask(GRANTED), 0, 0, 0, 0),
        p.Exec(("ls",), ("PATH=/bin", "A=2", "B=3"), 0),
    ]
    assert plan.descriptors == ("cgroup", "container")
    assert plan.settings == p.Settings("id", stdin=True, session=True)
    assert plan.encode()


def test_nothing_of_the_container_is_changed_by_a_command() -> None:
    kinds = {type(step) for step in compile_(spec_of(), ExecCommand(args=("ls",), terminal=True)).steps}
    allowed = {p.JoinNamespace, p.Rlimit, p.NewSession, p.Terminal, p.Chdir, p.User, p.Seccomp, p.Capabilities, p.Exec}
    assert kinds == allowed


def test_a_user_namespace_around_it_comes_first() -> None:
    join = p.JoinNamespace(0x10000000, "user", "the user's containers")
    plan = compile_(spec_of(), ExecCommand(args=("ls",)), Facts(set_groups=False), joins=[join])
    assert plan.steps[:2] == (join, p.JoinNamespace(OWN, CONTAINER, "container c"))
    assert plan.descriptors == ("user", "container")
    assert plan.settings.deny_setgroups


def test_namespaces_of_the_host_are_not_joined() -> None:
    spec = spec_of({"namespaces": [{"type": "mount"}, {"type": "pid", "path": "/p"}]})
    assert compile_(spec, ExecCommand(args=("ls",))).steps[0] == p.JoinNamespace(
        0x20000 | 0x20000000, CONTAINER, "container c"
    )


def test_the_stored_spec_will_do_for_a_namespace_of_another_container() -> None:
    # Its path is known at a start only, and it has no maps of its own.
    spec = spec_of({"namespaces": [{"type": "mount"}, {"type": "user"}]})
    assert compile_(spec, ExecCommand(args=("ls",))).steps[0] == p.JoinNamespace(
        0x20000 | 0x10000000, CONTAINER, "container c"
    )


def test_a_terminal_is_not_the_console() -> None:
    plan = compile_(spec_of(), ExecCommand(args=("ls",), terminal=True, rows=3, columns=4))
    assert p.Terminal(3, 4, False) in plan.steps
    assert plan.settings.terminal
    # The container's own terminal does not make one for the command.
    assert not compile_(spec_of(terminal=True), ExecCommand(args=("ls",))).settings.terminal
    with pytest.raises(InvalidValue, match="terminal: -1 by 0 is not a size"):
        compile_(spec_of(), ExecCommand(args=("ls",), terminal=True, rows=-1))


def test_a_user_is_looked_up_and_no_passwd_file_made() -> None:
    plan = compile_(spec_of(), ExecCommand(args=("ls",), workdir="/tmp"), user=UserRequest("www", ("a",), "/run/p"))
    assert p.LookupUser("www", ("a",), "", "/") in plan.steps
    assert p.User(p.AS_LOOKED_UP, p.AS_LOOKED_UP, (), 0o22) in plan.steps
    assert p.Chdir("/tmp") in plan.steps


@pytest.mark.parametrize("user", ["", "0", "root", "0:7"])
def test_root_has_what_the_container_has(user: str) -> None:
    bits = mask(GRANTED)
    assert capabilities(user, ExecCommand(args=("ls",))) == p.Capabilities(bits, bits, bits, 0, 0)


def test_another_user_has_what_was_added() -> None:
    # CVE-2022-24769 and its kin: capabilities that reach a user by way of the inheritable set.
    bits, time = mask(GRANTED), mask(["CAP_SYS_TIME"])
    assert capabilities("www", ExecCommand(args=("ls",))) == p.Capabilities(bits, 0, 0, 0, 0)
    added = ExecCommand(args=("ls",), cap_add=("CAP_SYS_TIME", "CAP_NET_ADMIN"))
    assert capabilities("www", added) == p.Capabilities(bits, time, time, time, time)
    ambient = {name: ["CAP_KILL"] for name in ("bounding", "permitted", "inheritable", "ambient")}
    kill = mask(["CAP_KILL"])
    assert capabilities("www", ExecCommand(args=("ls",)), capabilities=ambient) == p.Capabilities(*[kill] * 5)


def test_a_privileged_command() -> None:
    everything = mask(NAMES)
    command = ExecCommand(args=("ls",), privileged=NAMES)
    assert capabilities("", command) == p.Capabilities(everything, everything, everything, 0, 0)
    assert capabilities("www", command) == p.Capabilities(*[everything] * 5)


def test_new_privileges_stay_given_up() -> None:
    kinds = [type(step) for step in compile_(spec_of(noNewPrivileges=True), ExecCommand(args=("ls",))).steps]
    assert kinds[-4:] == [p.Capabilities, p.NoNewPrivileges, p.Seccomp, p.Exec]


def test_refusals() -> None:
    with pytest.raises(InvalidValue, match="there is nothing to execute"):
        compile_(spec_of(), ExecCommand(args=()))
    with pytest.raises(InvalidValue, match="'tmp' is not absolute"):
        compile_(spec_of(), ExecCommand(args=("ls",), workdir="tmp"))
    with pytest.raises(UnsupportedField, match=r"process\.selinuxLabel"):
        compile_(spec_of(selinuxLabel="x"), ExecCommand(args=("ls",)))
    with pytest.raises(InvalidValue, match="compiled form is missing"):
        compile_exec(spec_of(), ExecCommand(args=("ls",)), Facts(), p.Settings("id"), origin="c")
