"""The small IDL parser loses nothing and says where it stumbles; the generated files are current."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from idl_generator import ROOT, generate_types

Field, IdlError, Interface, Member, Type = (
    generate_types.Field,
    generate_types.IdlError,
    generate_types.Interface,
    generate_types.Member,
    generate_types.Type,
)
format_interface, parse = generate_types.format_interface, generate_types.parse

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

identifiers = st.from_regex(r"[A-Za-z](_?[A-Za-z0-9]){0,6}", fullmatch=True)
member_names = st.from_regex(r"[A-Z][A-Za-z0-9]{0,6}", fullmatch=True)
interface_names = st.from_regex(r"[a-z]{1,4}(\.[a-z][a-z0-9]{0,3}(-[a-z0-9]{1,2})?){1,2}", fullmatch=True)
comments = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12), max_size=2).map(
    tuple
)


def types(names: list[str]) -> st.SearchStrategy[Type]:
    plain = st.sampled_from([*generate_types.BASIC, *names]).map(Type)
    whole = st.recursive(plain, lambda inner: st.builds(Type, st.sampled_from(["[]", "[string]"]), inner), max_leaves=3)
    return whole | st.builds(Type, st.just("?"), whole)


@st.composite
def interfaces(draw: st.DrawFn) -> Interface:
    names = draw(st.lists(member_names, max_size=5, unique=True))
    kinds = [draw(st.sampled_from(["type", "method", "error"])) for _ in names]
    declared = [name for name, kind in zip(names, kinds, strict=True) if kind == "type"]
    fields = st.lists(
        st.builds(Field, identifiers, types(declared), comments), max_size=4, unique_by=lambda field: field.name
    ).map(tuple)
    members = [
        Member(kind, name, draw(fields), draw(fields) if kind == "method" else (), draw(comments))
        for name, kind in zip(names, kinds, strict=True)
    ]
    return Interface(draw(interface_names), tuple(members), draw(comments))


@relaxed
@given(interfaces())
def test_what_is_written_is_read_back_as_it_was(interface: Interface) -> None:
    assert parse(format_interface(interface)) == interface


@relaxed
@given(interfaces(), st.data())
def test_damaged_text_is_refused_with_a_place_or_still_an_interface(interface: Interface, data: st.DataObject) -> None:
    text = format_interface(interface)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 4)))
    damaged = text[:start] + data.draw(st.text(alphabet="()[]?:,->#aZ_. \nstring", max_size=4)) + text[end:]
    reason = ""
    try:
        assert parse(format_interface(other := parse(damaged))) == other
    except IdlError as error:
        reason = str(error)
    assert re.match(r"line \d+, column \d+: .|\w+\.\w+: there is no type \w+$|$", reason)


def test_layout_does_not_matter() -> None:
    dense = "interface a.b type T(x:?[]string,y:[string]T)method M(a:int)->()error E()"
    loose = "\n interface  a.b\n\n\ttype  T\n( x : ? [] string\r\n, y : [string] T ) "
    loose += " method  M ( a : int ) \n->\n( ) error E ( )\n"
    assert parse(dense) == parse(loose)
    assert [member.name for member in parse(dense).members] == ["T", "M", "E"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1, column 1: expected 'interface', found the end"),
        ("interface podman", "line 1, column 11: expected the name of the interface, found 'podman'"),
        ("interface a.b\ntype t ()", "line 2, column 6: expected a name that begins with a capital, found 't'"),
        ("interface a.b\nenum T ()", "line 2, column 1: expected type, method or error, found 'enum'"),
        ("interface a.b\ntype T (a: string", "line 2, column 18: expected ')', found the end"),
        ("interface a.b\ntype T (a: string,)", "line 2, column 19: expected the name of a field after ','"),
        ("interface a.b\ntype T (a__b: int)", "line 2, column 9: expected the name of a field, found 'a__b'"),
        ("interface a.b\ntype T (a string)", "line 2, column 11: expected ':', found 'string'"),
        ("interface a.b\ntype T (a: ??int)", "line 2, column 13: a type cannot be nullable twice"),
        ("interface a.b\ntype T (a: (b: int))", "line 2, column 12: expected a type, found '('"),
        ("interface a.b\ntype T (a: int, a: int)", "line 2, column 17: the field a is declared twice"),
        ("interface a.b\ntype T ()\nerror T ()", "line 3, column 7: T is declared twice"),
        ("interface a.b\nmethod M() ()", "line 2, column 12: expected '->', found '('"),
        ("interface a.b\ntype T (a: $)", "line 2, column 12: unexpected '$'"),
        ("interface a.b\ntype T (a: U)", "T.a: there is no type U"),
        ("interface a.b\ntype T (a: []?[string]U)", "T.a: there is no type U"),
        ("interface a.b\ntype T (a: int # lost\n)", "line 3, column 1: a comment must stand before the interface"),
        ("interface a.b\ntype T ()\n# lost\n", "line 4, column 1: a comment must stand before the interface"),
    ],
)
def test_an_error_says_where_and_why(text: str, reason: str) -> None:
    with pytest.raises(IdlError) as caught:
        parse(text)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("interface a.b type T (in: int)", "T.in: not usable as an attribute in Python"),
        ("interface a.b type T (str: int)", "T.str: not usable as an attribute in Python"),
        ("interface a.b type Int ()", "Int means something else in the generated module"),
    ],
)
def test_a_name_that_python_cannot_use_is_refused(text: str, reason: str) -> None:
    with pytest.raises(IdlError, match=reason):
        generate_types.generate_types(parse(text))


@pytest.mark.parametrize("name", ["fields", "args", "parameters", "error_name", "class"])
def test_an_error_parameter_that_would_hide_an_attribute_of_the_exception_is_refused(name: str) -> None:
    with pytest.raises(IdlError, match=f"E.{name}: not usable as an attribute of an exception"):
        generate_types.generate_errors(parse(f"interface a.b error E ({name}: int)"))


def test_a_method_that_does_not_fit_a_line_breaks_its_inputs_first() -> None:
    inputs = ", ".join(f"quite_a_long_name_{letter}: string" for letter in "abcde")
    text = format_interface(parse(f"interface a.b method M({inputs}) -> (x: int)"))
    broken = inputs.replace(", ", ",\n  ")
    assert text == f"interface a.b\n\nmethod M(\n  {broken}\n) -> (x: int)\n"


def test_comments_become_docstrings_that_cannot_break_out_of_them() -> None:
    text = 'interface a.b\n# ends with a """ and a \\\n# quote "\ntype T (a: int)\n# \\ and "\nmethod M() -> ()'
    module = generate_types.generate_types(parse(text))
    names: dict[str, object] = {"__name__": "pyengine.iopodman.types"}
    exec(compile(module, "generated", "exec"), names)
    assert inspect.cleandoc(names["T"].__doc__) == 'ends with a """ and a \\\nquote " '
    assert names["METHODS"]["M"].doc == '\\ and "\n'


def test_generated_files_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "generate_types.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A repository of its own for the tool: only an IDL in it."""
    idl, package = tmp_path / "idl" / "io.podman.varlink", tmp_path / "pyengine" / "iopodman"
    idl.parent.mkdir()
    package.mkdir(parents=True)
    idl.write_text("interface io.podman\n\n# Says hello.\nmethod Hello(name: string) -> (text: string)\n")
    monkeypatch.setattr(generate_types, "ROOT", tmp_path)
    monkeypatch.setattr(generate_types, "IDL", idl)
    outputs = {package / path.name: generate for path, generate in generate_types.OUTPUTS.items()}
    monkeypatch.setattr(generate_types, "OUTPUTS", outputs)
    return tmp_path


def test_check_names_each_stale_file_and_writes_none(copy, capsys) -> None:
    assert generate_types.main([]) == 0
    assert generate_types.main(["--check"]) == 0
    stale = copy / "pyengine" / "iopodman" / "types.py"
    stale.write_text(stale.read_text() + "# by hand\n")
    (copy / "pyengine" / "iopodman" / "errors.py").unlink()
    capsys.readouterr()
    assert generate_types.main(["--check"]) == 1
    assert capsys.readouterr().err == (
        "pyengine/iopodman/types.py is out of date: run python tools/generate_types.py\n"
        "pyengine/iopodman/errors.py is out of date: run python tools/generate_types.py\n"
    )
    assert stale.read_text().endswith("# by hand\n")


def test_an_idl_in_another_layout_is_refused_until_it_is_formatted(copy, capsys) -> None:
    idl = copy / "idl" / "io.podman.varlink"
    canonical = idl.read_text()
    idl.write_text(canonical.replace("name: string", "name:string"))
    assert generate_types.main([]) == 1
    assert capsys.readouterr().err == "idl/io.podman.varlink: not in canonical layout: run with --format\n"
    assert generate_types.main(["--check"]) == 1
    assert generate_types.main(["--format"]) == 0
    assert idl.read_text() == canonical == (copy / "pyengine" / "iopodman" / "io.podman.varlink").read_text()


def test_an_idl_with_an_error_is_reported_by_file_line_and_column(copy, capsys) -> None:
    (copy / "idl" / "io.podman.varlink").write_text("interface io.podman\nmethod hello() -> ()\n")
    assert generate_types.main(["--check"]) == 1
    assert capsys.readouterr().err == (
        "idl/io.podman.varlink: line 2, column 8: expected a name that begins with a capital, found 'hello'\n"
    )
