"""The program agrees with the rules, by an interpreter of the few instructions that it is made of."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue
from pyengine.linux import device_filter as d
from pyengine.linux.device_filter import DEFAULT_RULES, DeviceRule


def run(program: bytes, type: int, access: int, major: int, minor: int) -> bool:
    context = struct.pack("=III", access << 16 | type, major, minor)
    instructions = list(struct.iter_unpack("=BBhi", program))
    registers = [0] * 11
    position = 0
    for _ in range(len(instructions)):
        code, register, offset, immediate = instructions[position]
        to, source = register & 15, register >> 4
        position += 1
        if code == d.LOAD:
            registers[to] = struct.unpack_from("=I", context, offset)[0]
        elif code == d.COPY:
            registers[to] = registers[source]
        elif code == d.MOVE:
            registers[to] = immediate
        elif code == d.AND:
            registers[to] &= immediate
        elif code == d.SHIFT:
            registers[to] >>= immediate
        elif code == d.JUMP:
            position += offset
        elif code == d.JUMP_NOT_EQUAL:
            position += offset if registers[to] != immediate else 0
        elif code == d.JUMP_SET:
            position += offset if registers[to] & immediate else 0
        elif code == d.EXIT:
            return bool(registers[0])
        else:
            raise AssertionError(f"unknown instruction {code:#x}")
    raise AssertionError("no end")


def allowed(rules: list[DeviceRule], type: int, access: int, major: int, minor: int) -> bool:
    """The meaning: for each kind of access the last rule that matches decides."""
    for bit in (d.MKNOD, d.READ, d.WRITE):
        if not access & bit:
            continue
        verdict = False
        for rule in rules:
            types = {"a": (1, 2), "b": (1,), "c": (2,), "u": (2,)}[rule.type]
            if type in types and rule.major in (None, major) and rule.minor in (None, minor) and rule.bits & bit:
                verdict = rule.allow
        if not verdict:
            return False
    return True


small = st.integers(0, 3)
rules = st.lists(
    st.builds(
        DeviceRule,
        st.booleans(),
        st.sampled_from(["a", "b", "c", "u"]),
        st.none() | small,
        st.none() | small,
        st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"]),
    ),
    max_size=8,
)


@given(rules, st.sampled_from([1, 2]), st.integers(1, 7), small, small)
def test_the_program_means_what_the_rules_mean(
    rules: list[DeviceRule], type: int, access: int, major: int, minor: int
) -> None:
    assert run(d.assemble(rules), type, access, major, minor) == allowed(rules, type, access, major, minor)


@pytest.mark.parametrize(
    ("type", "access", "major", "minor", "expected"),
    [
        (2, d.READ | d.WRITE, 1, 3, True),
        (2, d.READ, 136, 77, True),
        (2, d.MKNOD, 10, 229, True),
        (1, d.MKNOD, 8, 0, True),
        (1, d.READ, 8, 0, False),
        (2, d.READ, 1, 1, False),
        (2, d.READ, 1, 11, False),
    ],
)
def test_the_default_is_the_devices_of_a_containers_dev(
    type: int, access: int, major: int, minor: int, expected: bool
) -> None:
    assert run(d.assemble([DeviceRule(False), *DEFAULT_RULES]), type, access, major, minor) is expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("p",), "the type is a, b, c or u, not 'p'"),
        (("c", 1, 3, ""), "the access is made of r, w and m, not ''"),
        (("c", 1, 3, "rx"), "the access is made of r, w and m"),
        (("c", -1), "major is from 0 to 2147483647"),
        (("c", 0, 1 << 31), "minor is from 0 to 2147483647"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        DeviceRule(True, *arguments)  # type: ignore[arg-type]
    assert text in str(caught.value)
