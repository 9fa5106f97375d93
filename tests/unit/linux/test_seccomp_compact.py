"""The shorter filter decides as libseccomp's does: for every number, architecture and argument that could tell."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyengine.linux import seccomp
from pyengine.linux.seccomp_compact import (
    AND,
    IF_ANY,
    IF_EQUAL,
    IF_GREATER,
    IF_GREATER_OR_EQUAL,
    JUMP,
    LOAD,
    RETURN,
    Instruction,
    compact,
    decode,
)
from pyengine.oci.seccomp import default_profile, resolve

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
PODMAN = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
]  # fmt: skip


def verdict(program: list[Instruction], number: int, architecture: int, arguments: tuple[int, ...]) -> int:
    """What the kernel's interpreter would return (Documentation/networking/filter.rst)."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments)
    place, accumulator = 0, 0
    tests = {
        IF_EQUAL: lambda a, k: a == k,
        IF_GREATER: lambda a, k: a > k,
        IF_GREATER_OR_EQUAL: lambda a, k: a >= k,
        IF_ANY: lambda a, k: bool(a & k),
    }
    for _ in range(len(program)):
        code, true, false, constant = program[place]
        if code == RETURN:
            return constant
        if code == LOAD:
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif code == AND:
            accumulator &= constant
        elif code == JUMP:
            place += constant
        else:
            place += true if tests[code](accumulator, constant) else false
        place += 1
    raise AssertionError("the program does not end")


def whole(profile: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What libseccomp makes of a profile."""
    with monkeypatch.context() as patch:
        patch.setattr(seccomp, "compact", lambda program: program)
        return seccomp.compile_profile(profile).program


def assert_same(long: bytes, short: bytes, arguments: list[tuple[int, ...]], numbers: list[int]) -> None:
    first, second = decode(long), decode(short)
    for architecture in (X86_64, I386, AARCH64, 0):
        for number in numbers:
            for given_arguments in arguments:
                assert verdict(first, number, architecture, given_arguments) == verdict(
                    second, number, architecture, given_arguments
                ), (hex(architecture), hex(number), given_arguments)


def interesting(program: bytes) -> list[int]:
    """Every constant of a program and its neighbours: between them nothing can change."""
    constants = {item.constant for item in decode(program)}
    return sorted({n & 0xFFFFFFFF for k in constants for n in (k - 1, k, k + 1)})


def test_the_default_profile_becomes_much_shorter_and_decides_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = [f"CAP_{name}" for name in PODMAN]
    profile = msgspec.to_builtins(resolve(default_profile(), capabilities=capabilities, machine="x86_64"))
    long = whole(profile, monkeypatch)
    short = compact(long)
    assert len(short) * 3 < len(long)
    arguments = [
        (0,) * 6,
        (0xFFFFFFFF, 8, 0x20000, 0x20008, 40, 1),
        *((value,) * 6 for value in (8, 16, 40, 0x7E020000, 0x10000000, 0x20000, 0x20008, (1 << 32) + 8, 1 << 63)),
    ]
    assert_same(long, short, arguments, interesting(long))


operators = st.sampled_from([
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
])  # fmt: skip
values = st.one_of(st.integers(0, 9), st.integers(0, (1 << 64) - 1), st.sampled_from([1 << 31, 1 << 32, (1 << 32) + 1]))
conditions = st.builds(
    lambda index, op, value, other: {"index": index, "op": op, "value": value, "valueTwo": other},
    st.integers(0, 5), operators, values, values,
)  # fmt: skip
names = st.sampled_from([
    "read", "write", "open", "close", "stat", "mmap", "ioctl", "socket", "clone", "personality", "keyctl", "unshare",
    "bpf", "openat2", "clone3", "socketcall", "ipc",
])  # fmt: skip
rules = st.builds(
    lambda names, action, args: {"names": sorted(names), "action": action, "args": args},
    st.sets(names, min_size=1, max_size=5),
    st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"]),
    st.lists(conditions, max_size=2, unique_by=lambda item: item["index"]),
)
profiles = st.builds(
    lambda default, architectures, rules: {
        "defaultAction": default, "architectures": sorted(architectures), "syscalls": rules
    },
    st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_TRAP"]),
    st.sets(st.sampled_from(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])),
    st.lists(rules, max_size=6),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(profiles, st.lists(st.tuples(*[values] * 6), max_size=3))
def test_any_profile_decides_the_same(profile: dict[str, Any], arguments: list[tuple[int, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        try:
            long = whole(profile, patch)
        except (ValueError, OSError):
            return  # libseccomp refuses rules that contradict each other
    short = compact(long)
    assert len(short) <= len(long)
    used = sorted({c[key] for rule in profile["syscalls"] for c in rule["args"] for key in ("value", "valueTwo")})
    assert_same(long, short, [(0,) * 6, *arguments, *((value,) * 6 for value in used)], interesting(long)[:400])


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_a_program_that_cannot_be_followed_stays_as_it_is(items: list[tuple[int, int, int, int]]) -> None:
    program = b"".join(struct.pack("=HBBI", *item) for item in [*items, (RETURN, 0, 0, 7)])
    made = compact(program)
    assert made == program or len(made) < len(program)
