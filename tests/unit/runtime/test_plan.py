"""The plan as data: its encoding, byte for byte, its checks, its words."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidValue
from pyengine.runtime.plan import (
    MAGIC,
    Bind,
    Chdir,
    Exec,
    JoinNamespace,
    MakeDirectory,
    Mount,
    OpenSources,
    Plan,
    Settings,
    encode_value,
    namespace_names,
    step_kinds,
)

ROOT = Path(__file__).parent.parent.parent.parent
END = Exec(("true",), (), 0)


def decode(types: list[str], data: bytes) -> tuple[list[object], bytes]:
    """An independent reader of the format, as its documentation says it."""

    def integer() -> int:
        nonlocal data
        value = struct.unpack("<q", data[:8])[0]
        data = data[8:]
        return int(value)

    def blob() -> bytes:
        nonlocal data
        length = integer()
        padded = length + 8 - length % 8
        assert data[length:padded] == b"\0" * (padded - length)
        value, data = data[:length], data[padded:]
        return value

    values: list[object] = []
    for kind in types:
        if kind in ("int", "bool"):
            values.append(integer())
        elif kind == "str":
            values.append(blob().decode("utf-8", "surrogateescape"))
        elif kind == "bytes":
            values.append(blob())
        elif kind == "tuple[int, ...]":
            values.append(tuple(integer() for _ in range(integer())))
        else:
            assert kind == "tuple[str, ...]"
            values.append(tuple(blob().decode("utf-8", "surrogateescape") for _ in range(integer())))
    return values, data


text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
integer = st.integers(-(1 << 63), (1 << 63) - 1)
of_type = {
    "int": integer,
    "bool": st.booleans(),
    "str": text,
    "bytes": st.binary(),
    "tuple[int, ...]": st.lists(integer).map(tuple),
    "tuple[str, ...]": st.lists(text).map(tuple),
}
steps = st.one_of(
    *(st.builds(kind, **{field.name: of_type[str(field.type)] for field in fields(kind)}) for kind in step_kinds())
)


@given(steps)
def test_every_step_survives_its_encoding(step: object) -> None:
    data = step.encode()
    kind, length = struct.unpack("<qq", data[:16])
    assert kind == type(step).KIND
    assert length == len(data) - 16
    values, rest = decode([str(field.type) for field in fields(step)], data[16:])
    assert rest == b""
    assert values == [getattr(step, field.name) for field in fields(step)]


@given(steps)
def test_every_step_describes_itself_in_one_line(step: object) -> None:
    try:
        described = step.describe()
    except IndexError:
        assert isinstance(step, Exec)  # of nothing: which the monitor refuses
        assert not step.argv
        return
    assert described
    assert described[0].islower() or not described[0].isalpha()


def test_a_whole_plan_is_exactly_these_bytes() -> None:
    plan = Plan(Settings("id", namespaces=5, uid_map=(0, 1, 2)), (MakeDirectory("/a", 0o755), END), ("cgroup",))

    def number(value: int) -> bytes:
        return value.to_bytes(8, "little", signed=True)

    settings = b"".join(
        (
            number(2),
            b"id\0\0\0\0\0\0",
            number(5),
            number(3),
            number(0),
            number(1),
            number(2),
            number(0),
            number(0) * 6,
            number(0),
            b"\0" * 8,
            number(0),
            b"\0" * 8,
            number(0),
            number(1),
            number(0),
            number(0),
            number(0),
            number(0),
        )
    )
    body = b"".join(
        (
            number(100),
            number(len(settings)),
            settings,
            number(1),
            number(6),
            b"cgroup\0\0",
            number(2),
            number(14),
            number(24),
            number(2),
            b"/a\0\0\0\0\0\0",
            number(0o755),
            number(44),
            number(40),
            number(1),
            number(4),
            b"true\0\0\0\0",
            number(0),
            number(0),
        )
    )
    assert plan.encode() == MAGIC + number(len(body)) + body


def test_bytes_that_are_not_utf8_come_through() -> None:
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert encode_value(name) == struct.pack("<q", 2) + b"\xff\xfe\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\0b", "'a\\x00b' contains a NUL byte, which no path, argument or variable can carry"),
        (1 << 63, "9223372036854775808 does not fit into 64 bits"),
    ],
)
def test_what_the_format_cannot_carry(value: object, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        encode_value(value)
    assert str(caught.value) == message


def test_other_types_are_a_mistake_of_the_programmer() -> None:
    with pytest.raises(TypeError, match="a plan cannot carry list"):
        encode_value([])


@pytest.mark.parametrize(
    ("plan_steps", "message"),
    [
        ((), "a plan ends with Exec"),
        ((MakeDirectory("/", 0),), "a plan ends with Exec"),
        ((END, END), "a plan has one Exec"),
        ((Chdir("/"), JoinNamespace(1, "x", ""), END), "namespaces are joined before anything else"),
        ((JoinNamespace(1, "x", ""), OpenSources("", ""), END), "namespaces are joined before anything else"),
        ((OpenSources("", ""), OpenSources("", ""), END), "namespaces are joined before anything else"),
        (
            (OpenSources("x", "/s"), END),
            "open the sources of mounts outside of the user namespace, files of /s with its ids: the plan has no "
            "descriptor 'x'",
        ),
        ((JoinNamespace(0x20000, "x", "y"), END), "join the mount namespace of y: the plan has no descriptor 'x'"),
        (
            (Bind("/a", "/b", False, 0, 0, 0, 0, 0, False, "users"), END),
            "bind /a on /b: the plan has no descriptor 'users'",
        ),
        ((Exec(("x",), (), 2),), "execute x: the plan has no descriptor '3'"),
    ],
)
def test_plans_that_make_no_sense(plan_steps: tuple, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Plan(Settings("x"), plan_steps)
    assert str(caught.value) == message


def test_a_plan_describes_itself_as_errors_count() -> None:
    plan = Plan(Settings("x"), (Mount("proc", "proc", "/proc", 0, (), 0, False), END))
    assert list(plan.describe()) == ["  1 mount proc on /proc", "  2 execute true"]


def test_namespaces_have_names() -> None:
    assert namespace_names(0x20000000 | 0x40000000) == "pid, network"


def test_kinds_are_unique_and_complete() -> None:
    numbers = [kind.KIND for kind in step_kinds()]
    assert len(set(numbers)) == len(numbers) == 31
    assert Settings.KIND not in numbers


def test_the_header_of_the_monitor_is_current() -> None:
    program = [sys.executable, str(ROOT / "tools" / "generate_plan_header.py"), "--check"]
    assert subprocess.run(program, check=False).returncode == 0, "run tools/generate_plan_header.py"
