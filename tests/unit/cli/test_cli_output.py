"""Tables, JSON and errors, and that nothing an image says can drive a terminal."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.cli import output

HOSTILE = "\x1b]0;title\x07\x9b31m\r\n\u202eabc"


def test_control_characters_are_made_visible() -> None:
    assert output.visible(HOSTILE) == r"\x1b]0;title\x07\x9b31m\r\n\u202eabc"


def test_newlines_and_tabs_stay_where_lines_are_wanted() -> None:
    assert output.visible("a\tb\nc\r\x1b", lines=True) == "a\tb\nc\\r\\x1b"


@given(st.text())
def test_nothing_visible_is_a_control_character(text: str) -> None:
    assert not [c for c in output.visible(text) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert output.visible(text) == text


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_json_reads_back_and_holds_no_control_character(document: dict[str, Any]) -> None:
    text = output.to_json(document)
    assert json.loads(text) == document
    assert output.visible(text) == text


def test_json_keeps_the_letters_of_all_languages() -> None:
    assert output.to_json({"name": "Zoë 中"}) == '{"name":"Zoë 中"}'


def test_columns_begin_at_the_same_place() -> None:
    assert output.align([["ID", "NAME", "X"], ["abc", "", "1"], ["a", "longer", ""]]) == [
        "ID   NAME    X",
        "abc          1",
        "a    longer",
    ]


@given(st.lists(st.lists(st.text(alphabet="ab ", max_size=5), min_size=3, max_size=3), max_size=5))
def test_a_table_has_a_line_a_row(rows: list[list[str]]) -> None:
    lines = output.align(rows)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert line.replace(" ", "") == "".join(row).replace(" ", "")


def test_a_table_is_plain_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["A", "B"], [["1", "\x1b[31m"]])
    assert capsys.readouterr().out == "A  B\n1  \\x1b[31m\n"


def test_a_table_can_go_without_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["A", "B"], [["1", "2"]], heading=False)
    assert capsys.readouterr().out == "1  2\n"


def test_records_are_shown_as_the_format_says(capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"Id": "1", "Name": "x"}, {"Id": "22", "Name": "y\x07"}]
    output.print_records(records, "{{.Id}}:{{.Name}}", headings={})
    assert capsys.readouterr().out == "1:x\n22:y\\x07\n"
    output.print_records(records, r"table {{.Id}}\t{{.Name}}", headings={"Id": "THE ID"})
    assert capsys.readouterr().out == "THE ID  NAME\n1       x\n22      y\\x07\n"
    output.print_records([{"Id": "a\tb\nc"}], r"table {{.Id}}\t{{.Id}}", headings={}, heading=False)
    assert capsys.readouterr().out == "a\\tb\\nc  a\\tb\\nc\n"
    output.print_records(records, "json", headings={})
    assert json.loads(capsys.readouterr().out) == records
    output.print_records(records, "json", documents=[{"a": 1}], headings={})
    assert json.loads(capsys.readouterr().out) == [{"a": 1}]


def test_an_error_is_one_prefixed_text_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.report("image \x1b[2J is gone")
    assert capsys.readouterr().err == "Error: image \\x1b[2J is gone\n"
