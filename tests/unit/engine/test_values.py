"""The textual forms of scalar values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.engine import values
from pyengine.engine.values import (
    IdRange,
    maps,
    parse_cpu_list,
    parse_duration,
    parse_env,
    parse_env_file,
    parse_integer,
    parse_labels,
    parse_pairs,
    parse_size,
)
from pyengine.errors import InvalidValue


@pytest.mark.parametrize(
    ("text", "binary", "decimal"),
    [
        ("0", 0, 0),
        ("32", 32, 32),
        ("32b", 32, 32),
        ("1k", 1024, 1000),
        ("1 KiB", 1024, 1000),
        ("65536k", 65536 << 10, 65_536_000),
        ("1.5g", 3 << 29, 1_500_000_000),
        ("1M", 1 << 20, 10**6),
        ("2tB", 2 << 40, 2 * 10**12),
        ("1p", 1 << 50, 10**15),
    ],
)
def test_sizes(text: str, binary: int, decimal: int) -> None:
    assert parse_size(text) == binary
    assert parse_size(text, decimal=True) == decimal


@pytest.mark.parametrize("text", ["", "k", "-1", "1.2.3", "1 k b", "1x", "1ib2", "٣", "1e3", " 1", "1\n"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected a number and a unit"):
        parse_size(text)


def test_a_size_fits_into_the_kernel() -> None:
    assert parse_size(str((1 << 63) - 1)) == (1 << 63) - 1
    with pytest.raises(InvalidValue, match="does not fit into 63 bits"):
        parse_size("9000000p")


@given(st.integers(0, (1 << 63) - 1))
def test_every_number_of_bytes_is_a_size(number: int) -> None:
    assert parse_size(str(number)) == parse_size(f"{number}B") == number


@given(st.text(max_size=20))
def test_a_size_is_a_number_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_size(text) < 1 << 63
    except InvalidValue as error:
        assert str(error).startswith("size ")  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1ns", 1),
        ("1.5us", 1500),
        ("2µs", 2000),
        ("300ms", 300_000_000),
        ("-1.5s", -1_500_000_000),
        ("+1m30s", 90 * 10**9),
        (".5h", 1800 * 10**9),
        ("1h0m1.s", 3601 * 10**9),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "-", "1", "s", "1 s", "1s2", "1d", "--1s", "1s ", "1..5s", "a1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"duration .*: expected numbers with units"):
        parse_duration(text)


def test_a_duration_is_bounded() -> None:
    with pytest.raises(InvalidValue, match="longer than 292 years"):
        parse_duration("9999999999h")


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59))
def test_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == ((hours * 60 + minutes) * 60 + seconds) * 10**9


def test_integers_have_bounds() -> None:
    assert parse_integer("-5", "x", -5, 5) == -5
    for text in ("6", "", "5.0", "0x1", "1_0", "٣", "9" * 30):
        with pytest.raises(InvalidValue, match=r"x .*: expected an integer from -5 to 5"):
            parse_integer(text, "x", -5, 5)


def test_cpu_lists() -> None:
    assert parse_cpu_list("0-3,7", "cpus") == "0-3,7"
    for text in ("", "a", "1,", "1-", "-1", "0-3;4"):
        with pytest.raises(InvalidValue, match="expected a list such as"):
            parse_cpu_list(text, "cpus")
    with pytest.raises(InvalidValue, match="the range 3-1 ends before it begins"):
        parse_cpu_list("0,3-1", "cpus")


def test_pairs_and_labels() -> None:
    assert parse_pairs(["a=b=c", "d=", "a=x"], "annotation") == {"a": "x", "d": ""}
    for item in ("a", "=b", ""):
        with pytest.raises(InvalidValue, match=r"annotation .*: expected KEY=VALUE"):
            parse_pairs([item], "annotation")
    assert parse_labels(["a", "b=c"]) == {"a": "", "b": "c"}


def test_variables_take_what_they_lack_from_the_environment() -> None:
    environment = {"HOME": "/h", "LC_ALL": "C", "LC_TIME": "de", "X": ""}
    assert parse_env(["A=1", "HOME", "GONE", "X", "A=2"], environment) == {"A": "2", "HOME": "/h", "X": ""}
    assert parse_env(["LC_*"], environment) == {"LC_ALL": "C", "LC_TIME": "de"}
    assert parse_env(["A==", "B=a b"], {}) == {"A": "=", "B": "a b"}


@pytest.mark.parametrize("item", ["=x", "", "a b=c", " a=b", "a\t=b"])
def test_a_variable_needs_a_name(item: str) -> None:
    with pytest.raises(InvalidValue, match=r"env .*: expected NAME=VALUE or NAME"):
        parse_env([item], {})


def test_a_variable_cannot_hold_nul() -> None:
    with pytest.raises(InvalidValue, match="contains a NUL byte"):
        parse_env(["a=\0"], {})


def test_environment_files_have_comments_and_empty_lines() -> None:
    assert parse_env_file("# c\n\nA=1\n  B=2 # no comment\nHOME\n", {"HOME": "/"}) == {
        "A": "1",
        "B": "2 # no comment",
        "HOME": "/",
    }


def test_id_ranges() -> None:
    assert IdRange.parse("0:1000:10") == IdRange(0, 1000, 10)
    with pytest.raises(InvalidValue, match="expected CONTAINER:HOST:SIZE"):
        IdRange.parse("0")
    ranges = (IdRange(0, 1000, 1), IdRange(5, 2000, 2))
    assert [id for id in range(9) if maps(ranges, id)] == [0, 5, 6]


def test_the_largest_id_has_a_sign_to_spare() -> None:
    assert values.LARGEST_ID == 2**31 - 1


@given(
    st.lists(st.text(alphabet="AB=* #\n\0", max_size=6), max_size=4),
    st.dictionaries(st.sampled_from(["A", "AB"]), st.just("v")),
)
def test_variables_have_names_or_are_refused(items: list[str], environment: dict[str, str]) -> None:
    for parse in (lambda: parse_env(items, environment), lambda: parse_env_file("\n".join(items), environment)):
        try:
            found = parse()
        except InvalidValue:
            continue
        assert all(name and "=" not in name and not set(name) & set(" \t\n") for name in found)
