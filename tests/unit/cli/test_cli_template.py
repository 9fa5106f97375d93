"""``--format``: the part of Go's templates that is supported, and clear words for the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.cli.template import MAX_LENGTH, parse_template, show
from pyengine.errors import InvalidValue

RECORD: dict[str, Any] = {
    "Id": "abc",
    "Names": ["one", "two"],
    "State": {"Pid": 7, "Running": True, "Health": None},
    "Labels": {"b": "2", "a": "1", "with.dot": "x"},
    "Name": "box",
    "n": 1.5,
}


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("{{.Id}}", "abc"),
        ("{{ .Id }}", "abc"),
        ("plain", "plain"),
        (r"{{.Id}}\t{{.Name}}\n", "abc\tbox\n"),
        (r"C:\\x", "C:\\x"),
        ("{{.State.Pid}}", "7"),
        ("{{.State.Running}}", "true"),
        ("{{.State.Health}}", "<nil>"),
        ("{{.Names}}", "[one two]"),
        ("{{.Labels}}", "map[a:1 b:2 with.dot:x]"),
        ("{{.n}}", "1.5"),
        ("{{json .Names}}", '["one","two"]'),
        ("{{json .State.Health}}", "null"),
        ("{{len .Names}}", "2"),
        ("{{len .Labels}}", "3"),
        ("{{len .State.Health}}", "0"),
        ('{{index .Labels "with.dot"}}', "x"),
        ("{{index .Labels `a`}}", "1"),
        ('{{index .Labels "none"}}', ""),
        ("{{index .Names 1}}", "two"),
        ('{{join .Names ", "}}', "one, two"),
        (r'{{join .Names "\n"}}', "one\ntwo"),
        ("{{upper .Name}}/{{lower .Id}}", "BOX/abc"),
        ("{{.ID}}", "abc"),
        ("a {{- .Id -}}  b", "aabcb"),
        ("{{.State.Alias}}", "7"),
    ],
)
def test_values_are_shown_as_go_shows_them(format: str, text: str) -> None:
    assert parse_template(format, {"ID": "Id", "State.Alias": "Pid"}).render(RECORD) == text


def test_the_whole_record_is_json() -> None:
    assert json.loads(parse_template("{{json .}}").render(RECORD)) == RECORD
    assert parse_template("{{.}}").render({"a": 1}) == "map[a:1]"


@pytest.mark.parametrize(
    ("format", "reason"),
    [
        ("{{range .Names}}x{{end}}", "'range' is not supported"),
        ("{{if .Id}}", "'if' is not supported"),
        ("{{.Id | upper}}", "'|' is not supported"),
        ("{{frobnicate .Id}}", "'frobnicate' is not known"),
        ("{{}}", "a field: 0 arguments"),
        ("{{.Id .Name}}", "a field: 2 arguments"),
        ("{{json}}", "json: 0 arguments"),
        ("{{index .Labels}}", "index: 1 arguments"),
        ("{{.Id", "a {{ is never closed"),
        ('{{index .Labels "x}}', "is not supported"),
        ("x" * (MAX_LENGTH + 1), "longer than"),
    ],
)
def test_what_is_not_supported_is_said(format: str, reason: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_template(format)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("format", "reason"),
    [
        ("{{.Nope}}", "no field .Nope: there are Id, Names"),
        ("{{.State.Nope}}", "no field .State.Nope: there are Pid, Running, Health"),
        ("{{.Id.Nope}}", "what is before Nope has no fields"),
        ("{{len .n}}", "len of '1.5'"),
        ('{{join .Id ","}}', "join of 'abc'"),
        ("{{index .Names 2}}", "index 2 is not in"),
        ("{{index .Id 0}}", ""),
    ],
)
def test_a_record_that_does_not_fit_is_an_error_that_names_the_field(format: str, reason: str) -> None:
    template = parse_template(format)
    if not reason:
        assert template.render(RECORD) == "a"
        return
    with pytest.raises(InvalidValue) as caught:
        template.render(RECORD)
    assert reason in str(caught.value)


def test_headings_are_named_or_made_of_the_field() -> None:
    template = parse_template(r"{{.ID}}\t{{.RunningFor}}\t{{json .State.ExitCode}}\t{{.}}")
    assert template.headings({"ID": "CONTAINER ID"}) == "CONTAINER ID\tRUNNING FOR\tEXIT CODE\t"


@given(st.text(max_size=60))
def test_any_text_is_a_template_or_an_invalid_value(text: str) -> None:
    try:
        template = parse_template(text)
    except InvalidValue as error:
        assert str(error).startswith("format")  # noqa: PT017
    else:
        if "{{" not in text and "\\" not in text:
            assert template.render({}) == text


@given(st.lists(st.sampled_from(["{{", "}}", ".Id", ".", " ", "json ", '"', "`", "-", "\\", "range", "1", "index "])))
def test_any_arrangement_of_the_pieces_is_a_template_or_an_invalid_value(pieces: list[str]) -> None:
    try:
        text = parse_template("".join(pieces)).render(RECORD)
    except InvalidValue as error:
        assert str(error).startswith("format")  # noqa: PT017
    else:
        assert isinstance(text, str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_every_value_of_json_can_be_shown(value: Any) -> None:
    assert isinstance(show(value), str)
