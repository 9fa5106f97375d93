"""IDs and names."""

from __future__ import annotations

import os
import random

import pytest

from pyengine.engine import names
from pyengine.errors import InvalidValue


def test_an_id_is_64_hexadecimal_digits_and_never_the_same() -> None:
    ids = {names.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(id) == 64 and set(id) <= set("0123456789abcdef") for id in ids)


def test_the_short_id_is_never_all_decimal(monkeypatch: pytest.MonkeyPatch) -> None:
    # A number where an ID may stand is read as something else by YAML and by people.
    drawn = iter(["0" * 12 + "a" * 52, "1" * 11 + "a" + "1" * 52])
    monkeypatch.setattr(os, "urandom", lambda size: bytes.fromhex(next(drawn)))
    assert names.new_id() == "1" * 11 + "a" + "1" * 52


def test_names_are_many_and_valid() -> None:
    assert len(set(names._ADJECTIVES)) == len(names._ADJECTIVES) >= 80
    assert len(set(names._SURNAMES)) == len(names._SURNAMES) >= 120
    source = random.Random(1)
    drawn = {names.random_name(source) for _ in range(500)}
    assert len(drawn) > 450
    for name in drawn:
        assert names.check_name(name) == name == name.lower()
        assert name.count("_") == 1


def test_steve_is_not_boring() -> None:
    class Rigged(random.Random):
        draws = iter(("boring", "wozniak", "sad", "wozniak"))

        def choice(self, seq: object) -> str:  # type: ignore[override]
            return next(self.draws)

    assert names.random_name(Rigged()) == "sad_wozniak"


@pytest.mark.parametrize("name", ["a", "0", "A.b-c_d", "x" * 255])
def test_good_names(name: str) -> None:
    assert names.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "_a", "a b", "a/b", "ä", "a\n", "x" * 256])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidValue, match=r"name .*: expected letters, digits"):
        names.check_name(name)
