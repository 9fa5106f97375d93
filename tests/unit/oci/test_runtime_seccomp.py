"""Seccomp profiles: which rules hold for which container, and what the default one lets through."""

from __future__ import annotations

import json

import pytest

from pyengine.errors import ArchiveTooLarge, InvalidValue, UnsupportedField
from pyengine.oci.runtime import Seccomp, SeccompRule
from pyengine.oci.seccomp import PROFILE_LIMIT, decode_profile, default_profile, resolve

FEW = ("CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE")


def verdict(filter: Seccomp, name: str) -> list[tuple[str, int | None, bool]]:
    """(action, errno, whether it depends on arguments) of every rule for a system call."""
    return [(rule.action, rule.errno_ret, bool(rule.args)) for rule in filter.syscalls if name in rule.names]


def default(*capabilities: str, machine: str = "x86_64") -> Seccomp:
    return resolve(default_profile(), capabilities=capabilities, machine=machine)


@pytest.mark.parametrize("name", ["fsconfig", "unshare", "add_key", "keyctl", "mount", "bpf", "setns", "io_uring_setup",
                                  "open_by_handle_at", "kexec_load", "perf_event_open", "userfaultfd"])  # fmt: skip
def test_the_kernel_reach_of_a_container_is_refused(name: str) -> None:
    assert verdict(default(*FEW), name) == [("SCMP_ACT_ERRNO", 1, False)]


def test_unshare_and_mount_come_with_sys_admin() -> None:
    for name in ("unshare", "mount", "fsconfig", "setns", "clone", "clone3"):
        assert verdict(default(*FEW, "CAP_SYS_ADMIN"), name) == [("SCMP_ACT_ALLOW", None, False)]


def test_keyrings_and_io_uring_do_not() -> None:
    for name in ("add_key", "io_uring_enter"):
        assert verdict(default("CAP_SYS_ADMIN"), name) == [("SCMP_ACT_ERRNO", 1, False)]


def test_clone_is_allowed_without_new_namespaces() -> None:
    (rule,) = [rule for rule in default(*FEW).syscalls if "clone" in rule.names]
    (argument,) = rule.args
    assert (rule.action, argument.index, argument.op) == ("SCMP_ACT_ALLOW", 0, "SCMP_CMP_MASKED_EQ")
    assert (argument.value, argument.value_two) == (0x7E020000, 0)
    (rule,) = [rule for rule in default(*FEW, machine="s390x").syscalls if "clone" in rule.names]
    assert rule.args[0].index == 1  # the flags come second there


def test_clone3_answers_that_it_does_not_exist() -> None:
    # Its flags cannot be looked at, and libraries fall back to clone for ENOSYS only.
    assert verdict(default(*FEW), "clone3") == [("SCMP_ACT_ERRNO", 38, False)]


def test_what_is_not_known_answers_that_it_does_not_exist() -> None:
    filter = default(*FEW)
    assert (filter.default_action, filter.default_errno_ret) == ("SCMP_ACT_ERRNO", 38)


def test_no_rule_contradicts_another() -> None:
    for capabilities in ((), FEW, ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYSLOG", "CAP_AUDIT_WRITE")):
        filter = default(*capabilities)
        names = {name for rule in filter.syscalls for name in rule.names}
        for name in names:
            unconditional = [found for found in verdict(filter, name) if not found[2]]
            assert len(unconditional) <= 1, name


def test_what_programs_need_is_allowed() -> None:
    allowed = {name for rule in default().syscalls if rule.action == "SCMP_ACT_ALLOW" for name in rule.names}
    assert {"read", "execve", "futex", "openat2", "statx", "rseq", "wait4", "capset", "setresuid", "prctl", "sendmsg",
            "getdents64", "membarrier", "copy_file_range", "landlock_create_ruleset"} <= allowed  # fmt: skip


def test_architectures_follow_the_machine() -> None:
    assert default().architectures == ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
    assert default(machine="aarch64").architectures == ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")
    assert default(machine="riscv64").architectures == ("SCMP_ARCH_RISCV64",)
    assert default(machine="alpha").architectures == ()  # libseccomp's own


def test_rules_depend_on_capabilities_and_machine() -> None:
    profile = decode_profile(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [
                    {"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_X", "CAP_Y"]}},
                    {"names": ["b"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_X", "CAP_Z"]}},
                    {"names": ["c"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
                    {"names": ["d"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64"]}},
                    {"name": "e", "action": "SCMP_ACT_ERRNO", "errno": "EACCES", "errnoRet": 1},
                ],
            }
        ).encode(),
        "p",
    )

    def names(machine: str, *capabilities: str) -> str:
        rules = resolve(profile, capabilities=capabilities, machine=machine).syscalls
        return "".join(name for rule in rules for name in rule.names)

    assert names("x86_64") == "bde"
    assert names("x86_64", "CAP_X") == "de"
    assert names("aarch64", "CAP_X", "CAP_Y") == "ace"
    filter = resolve(profile, capabilities=(), machine="x86_64")
    assert filter.default_errno_ret == 1  # EPERM where a profile names none
    assert filter.syscalls[-1] == SeccompRule(names=("e",), action="SCMP_ACT_ERRNO", errno_ret=13)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{", "seccomp profile f is not valid"),
        (b"{}", "missing required field `defaultAction`"),
        (b'{"defaultAction":"x","unheard":1}', "contains unknown field `unheard`"),
        (
            b'{"defaultAction":"x","architectures":["a"],"archMap":[{"architecture":"b"}]}',
            "both archMap and architectures",
        ),
    ],
)
def test_a_malformed_profile_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        decode_profile(data, "f")


def test_a_profile_is_bounded() -> None:
    with pytest.raises(ArchiveTooLarge, match="seccomp profile f has"):
        decode_profile(b" " * (PROFILE_LIMIT + 1), "f")


def test_a_condition_that_cannot_be_judged_is_refused() -> None:
    rule = {"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}}
    profile = decode_profile(json.dumps({"defaultAction": "x", "syscalls": [rule]}).encode(), "f")
    with pytest.raises(UnsupportedField, match="minKernel"):
        resolve(profile, capabilities=(), machine="x86_64")
    profile = decode_profile(b'{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"EHUH"}', "f")
    with pytest.raises(UnsupportedField, match="'EHUH' is not an error"):
        resolve(profile, capabilities=(), machine="x86_64")
