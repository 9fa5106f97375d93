"""Flags are read as podman reads them."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pyengine.cli.arguments import COMMAS, Command, normalize, switch, value, words


def make_command(interspersed: bool) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, /, **values: Any) -> None:
        ctx.obj.update(values)

    return Command(
        "test",
        callback=callback,
        interspersed=interspersed,
        params=[
            switch("--tty", "-t"),
            switch("--interactive", "-i"),
            switch("--proxy", default=True),
            value("--name", "-n"),
            value("--env", "-e", multiple=True),
            value("--cap-add", type=COMMAS, multiple=True),
            value("--count", "-c", type=int),
            words("rest", metavar="REST"),
        ],
    )


def parse(*args: str, interspersed: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {}
    outcome = CliRunner().invoke(make_command(interspersed), list(args), obj=result, standalone_mode=False)
    if outcome.exception is not None:
        raise outcome.exception
    return result


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--tty"], {"tty": True}),
        (["--tty=true"], {"tty": True}),
        (["--tty=false"], {"tty": False}),
        (["--tty=0"], {"tty": False}),
        (["-t"], {"tty": True}),
        (["-t=false"], {"tty": False}),
        (["-it"], {"tty": True, "interactive": True}),
        (["-ti=false"], {"tty": True, "interactive": False}),
        (["--proxy=false"], {"proxy": False}),
        (["--tty", "false"], {"tty": True, "rest": ("false",)}),
        (["--name", "x"], {"name": "x"}),
        (["--name=x"], {"name": "x"}),
        (["--name="], {"name": ""}),
        (["-nx"], {"name": "x"}),
        (["-n=x"], {"name": "x"}),
        (["-n", "x"], {"name": "x"}),
        (["-itn", "x"], {"tty": True, "interactive": True, "name": "x"}),
        (["-itnx"], {"tty": True, "interactive": True, "name": "x"}),
        (["--name", "--tty"], {"name": "--tty", "tty": False}),
        (["-n", "-t"], {"name": "-t", "tty": False}),
        (["-c", "-1"], {"count": -1}),
        (["-e", "A=B=C", "--env=D=--tty"], {"env": ("A=B=C", "D=--tty")}),
        (["--cap-add", "a,b", "--cap-add=c"], {"cap_add": (["a", "b"], ["c"])}),
        (["--cap-add", '"a,b",c'], {"cap_add": (["a,b", "c"],)}),
        (["--cap-add", ""], {"cap_add": ([],)}),
        (["img", "--tty", "-x", "--", "y"], {"rest": ("img", "--tty", "-x", "--", "y"), "tty": False}),
        (["--", "--tty", "--"], {"rest": ("--tty", "--"), "tty": False}),
        (["-t", "--", "img"], {"rest": ("img",), "tty": True}),
        (["-"], {"rest": ("-",)}),
        ([], {"rest": (), "tty": False, "proxy": True}),
    ],
)
def test_flags_have_podmans_forms(args: list[str], expected: dict[str, Any]) -> None:
    assert {key: parse(*args)[key] for key in expected} == expected


def test_flags_may_follow_names_where_the_rest_belongs_to_no_other_program() -> None:
    result = parse("one", "--tty", "two", "-n", "x", "--", "--three", interspersed=True)
    assert result["rest"] == ("one", "two", "--three")
    assert (result["tty"], result["name"]) == (True, "x")


@pytest.mark.parametrize(
    ("args", "kind", "text"),
    [
        (["--nam=x"], click.NoSuchOption, "No such option '--nam'"),
        (["-x"], click.NoSuchOption, "No such option '-x'"),
        (["-tx"], click.NoSuchOption, "No such option '-x'"),
        (["--name"], click.BadOptionUsage, "--name needs a value"),
        (["-tn"], click.BadOptionUsage, "-n needs a value"),
        (["--tty=maybe"], click.BadParameter, "'maybe' is not a valid boolean"),
        (["--count=x"], click.BadParameter, "'x' is not a valid integer"),
        (["--cap-add", '"a'], click.BadParameter, "unexpected end of data"),
        (["--help=x"], click.BadOptionUsage, "--help takes no value"),
    ],
)
def test_wrong_flags_are_named(args: list[str], kind: type[click.UsageError], text: str) -> None:
    with pytest.raises(kind) as caught:
        parse(*args)
    assert text in caught.value.format_message()


def test_a_flag_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(click.NoSuchOption) as caught:
        parse("--nane", "x")
    assert "--name" in caught.value.format_message()


@given(st.lists(st.text(max_size=8)))
def test_what_follows_the_first_word_comes_through_untouched(rest: list[str]) -> None:
    command = make_command(False)
    ctx = click.Context(command)
    assert normalize(command, ctx, ["-t", "img", *rest], interspersed=False) == ["--tty=true", "--", "img", *rest]


@given(st.text(), st.sampled_from(["--name {}", "--name={}", "-n {}", "-n={}"]))
def test_a_value_comes_through_whatever_it_is(text: str, form: str) -> None:
    command = make_command(False)
    flag, _, template = form.partition(" ")
    args = [flag, text] if template else [form.format(text)]
    assert normalize(command, click.Context(command), args, interspersed=False) == [f"--name={text}", "--"]


@given(st.lists(st.text(alphabet="-=tinexc1 ", max_size=6), max_size=6), st.booleans())
def test_any_words_are_a_command_line_or_a_usage_error(args: list[str], interspersed: bool) -> None:
    try:
        result = parse(*args, interspersed=interspersed)
    except click.UsageError as error:
        assert error.format_message()  # noqa: PT017
    else:
        assert set(result) >= {"tty", "rest"}
