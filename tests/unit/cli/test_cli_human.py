"""Times and sizes in podman's words, and times as people write them."""

from __future__ import annotations

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.cli.human import (
    describe_age,
    describe_duration,
    describe_moment,
    describe_size,
    format_rfc3339,
    parse_moment,
)
from pyengine.errors import InvalidValue

S = 10**9
M, H = 60 * S, 3600 * S
D = 24 * H
NOW = 1_700_000_000 * S
LARGEST = (1 << 63) - 1


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (-5 * S, "Less than a second"),
        (0, "Less than a second"),
        (S - 1, "Less than a second"),
        (S, "1 second"),
        (2 * S - 1, "1 second"),
        (59 * S, "59 seconds"),
        (M, "About a minute"),
        (2 * M - 1, "About a minute"),
        (2 * M, "2 minutes"),
        (H - 1, "59 minutes"),
        (H, "About an hour"),
        (H + 29 * M, "About an hour"),
        (H + 30 * M, "2 hours"),
        (47 * H, "47 hours"),
        (47 * H + 30 * M, "2 days"),
        (48 * H, "2 days"),
        (14 * D - 1 * H, "13 days"),
        (14 * D, "2 weeks"),
        (60 * D - 1 * H, "8 weeks"),
        (60 * D, "2 months"),
        (2 * 365 * D - 1 * H, "24 months"),
        (2 * 365 * D, "2 years"),
        (10 * 365 * D, "10 years"),
    ],
)
def test_durations_have_podmans_words(duration: int, words: str) -> None:
    assert describe_duration(duration) == words


@given(st.integers(0, LARGEST), st.integers(0, LARGEST))
def test_what_is_longer_never_reads_as_shorter(one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    assert _seconds(describe_duration(shorter)) <= _seconds(describe_duration(longer))


def _seconds(words: str) -> float:
    fixed = {"Less than a second": 0, "About a minute": 60, "About an hour": 3600}
    if words in fixed:
        return fixed[words]
    number, unit = words.split()
    sizes = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400, "month": 30 * 86400}
    return int(number) * {**sizes, "year": 365 * 86400}[unit.removesuffix("s")]


def test_an_age_says_ago() -> None:
    assert describe_age(NOW - 3 * M, NOW) == "3 minutes ago"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1500, "1.5 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (5_860_000, "5.86 MB"),
        (170_123_456, "170 MB"),
        (1_234_567_890, "1.23 GB"),
        (LARGEST, "9.22 EB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_sizes_are_decimal_with_three_digits(size: int, text: str) -> None:
    assert describe_size(size) == text


@given(st.integers(0, LARGEST))
def test_a_size_is_right_to_half_a_percent_and_never_in_powers(size: int) -> None:
    text = describe_size(size)
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,2})?) (B|kB|MB|GB|TB|PB|EB)", text)
    assert match is not None
    shown = float(match[1]) * 1000 ** ["B", "kB", "MB", "GB", "TB", "PB", "EB"].index(match[2])
    assert abs(shown - size) <= size * 0.0051


def test_moments_are_written_in_utc() -> None:
    assert format_rfc3339(NOW) == "2023-11-14T22:13:20Z"
    assert format_rfc3339(NOW + 500_000_000) == "2023-11-14T22:13:20.5Z"
    assert describe_moment(NOW + 1) == "2023-11-14 22:13:20.000000001 +0000 UTC"


@given(st.integers(0, 253402300799 * S))
def test_a_moment_that_is_written_reads_back_as_itself(moment: int) -> None:
    assert parse_moment(format_rfc3339(moment), NOW) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1700000000", NOW),
        ("1700000000.5", NOW + S // 2),
        ("1700000000.000000001", NOW + 1),
        ("10m", NOW - 10 * M),
        ("1h30m", NOW - 90 * M),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T23:13:20+01:00", NOW),
        ("2023-11-14 22:13:20.25Z", NOW + S // 4),
    ],
)
def test_moments_can_be_written_in_many_ways(text: str, moment: int) -> None:
    assert parse_moment(text, NOW) == moment


def test_a_date_without_a_zone_is_local_time() -> None:
    local = datetime.datetime(2023, 11, 14)
    assert parse_moment("2023-11-14", NOW) == int(local.timestamp()) * S
    assert parse_moment("2023-11-14T00:01", NOW) == int(local.timestamp()) * S + M


@pytest.mark.parametrize("text", ["", "yesterday", "2023-13-01", "2023-11-14T25:00:00Z", "10 parsecs", "12:00", "-"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"^time "):
        parse_moment(text, NOW)


@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_an_invalid_value(text: str) -> None:
    try:
        moment = parse_moment(text, NOW)
    except InvalidValue as error:
        assert str(error).startswith("time ")  # noqa: PT017
    else:
        assert isinstance(moment, int)
