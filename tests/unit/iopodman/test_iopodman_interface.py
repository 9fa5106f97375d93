"""JSON becomes typed values and back by the rules of a 1.6 service; errors carry what the wire needs."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from idl_generator import ROOT, generate_types

from pyengine.errors import InvalidValue, PyengineError
from pyengine.iopodman import errors, interface, types
from pyengine.iopodman.interface import Field, IoPodmanError, Method
from pyengine.iopodman.types import METHODS

INTERFACE = generate_types.parse((ROOT / "idl" / "io.podman.varlink").read_text())
TYPES = {member.name: member for member in INTERFACE.of("type")}
ZERO = {"bool": False, "int": 0, "float": 0.0, "string": "", "[]": [], "[string]": {}, "?": None}
VALUES = {
    "bool": st.booleans(),
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "string": st.text(max_size=4),
}


def zero(kind: Any) -> Any:
    """The JSON of a type's zero value, from the IDL and not from the generated code."""
    if kind.name in ZERO:
        return copy.copy(ZERO[kind.name])
    return {field.name: zero(field.type) for field in TYPES[kind.name].fields}


def documents(kind: Any) -> st.SearchStrategy[Any]:
    """Complete JSON documents of a type."""
    if kind.name == "?":
        return st.none() | documents(kind.element)
    if kind.name == "[]":
        return st.lists(documents(kind.element), max_size=2)
    if kind.name == "[string]":
        return st.dictionaries(st.text(max_size=3), documents(kind.element), max_size=2)
    if kind.name in VALUES:
        return VALUES[kind.name]
    return st.fixed_dictionaries({field.name: documents(field.type) for field in TYPES[kind.name].fields})


def thinned(kind: Any, document: Any, data: st.DataObject) -> tuple[Any, Any]:
    """``document`` with fields left out or null and foreign ones added, and what it must mean."""
    if isinstance(document, dict) and kind.name in TYPES:
        sent, meant = {"unknown": [1, None]}, {}
        for field in TYPES[kind.name].fields:
            fate = data.draw(st.sampled_from(["keep", "keep", "null", "missing"]))
            if fate == "keep":
                sent[field.name], meant[field.name] = thinned(field.type, document[field.name], data)
            else:
                meant[field.name] = zero(field.type)
                if fate == "null":
                    sent[field.name] = None
        return sent, meant
    return document, document


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))  # Create has 95 fields
@given(data=st.data())
def test_missing_and_null_fields_of_a_struct_have_their_zero_value(name: str, data: st.DataObject) -> None:
    kind = generate_types.Type(name)
    sent, meant = thinned(kind, data.draw(documents(kind)), data)
    struct = getattr(types, name)
    fields = (Field("value", name, struct),)
    method = Method("M", fields, fields, False, False, True, "1.6", "")
    value = method.decode({"value": json.loads(json.dumps(sent))})["value"]
    assert type(value) is struct
    reply = method.encode({"value": value})
    assert reply == {"value": meant}
    assert list(reply["value"]) == [field.name for field in TYPES[name].fields]
    assert msgspec.json.decode(msgspec.json.encode(reply)) == reply


@pytest.mark.parametrize("name", TYPES)
def test_an_empty_struct_is_the_zero_value_and_shares_nothing(name: str) -> None:
    struct = getattr(types, name)
    assert msgspec.to_builtins(struct()) == zero(generate_types.Type(name))
    for field in TYPES[name].fields:
        if field.type.name in ("[]", "[string]"):
            assert getattr(struct(), field.name) is not getattr(struct(), field.name)


def test_structs_are_frozen_and_take_keywords_only() -> None:
    with pytest.raises(AttributeError, match="immutable type: 'Volume'"):
        types.Volume(name="x").name = "y"  # type: ignore[misc]
    with pytest.raises(TypeError, match="Extra positional arguments provided"):
        types.Volume("x")  # type: ignore[misc]


def test_the_table_has_every_method_of_the_idl_in_its_order() -> None:
    expected = [
        (m.name, [(f.name, f.type.text) for f in m.fields], [(f.name, f.type.text) for f in m.out])
        for m in INTERFACE.of("method")
    ]
    assert [
        (m.name, [(f.name, f.type) for f in m.inputs], [(f.name, f.type) for f in m.outputs]) for m in METHODS.values()
    ] == expected
    assert list(METHODS) == [m.name for m in METHODS.values()]


def test_the_table_says_what_streams_upgrades_is_missing_and_is_new() -> None:
    assert [m.name for m in METHODS.values() if m.upgrades] == ["Attach", "ExecContainer", "SendFile", "ReceiveFile"]
    assert [m.name for m in METHODS.values() if not m.implemented] == ["AttachControl", "CreateFromCC"]
    assert len([m for m in METHODS.values() if m.streams]) == 9
    assert len([m for m in METHODS.values() if m.since == "1.9"]) == 7
    assert {m.since for m in METHODS.values()} == {"1.6", "1.9"}
    assert METHODS["PullImage"].doc.startswith("Fetches an image unless it is there already;")


@pytest.mark.parametrize(
    ("name", "python_name"),
    [
        ("Ps", "ps"),
        ("GetContainersByContext", "get_containers_by_context"),
        ("CreateFromCC", "create_from_cc"),
        ("GetLayersMapWithImageInfo", "get_layers_map_with_image_info"),
    ],
)
def test_python_names_are_snake_case(name: str, python_name: str) -> None:
    assert METHODS[name].python_name == python_name


def test_python_names_are_distinct_identifiers() -> None:
    names = [m.python_name for m in METHODS.values()]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda m: m.name)
def test_every_method_decodes_an_empty_object_to_zero_values(method: Method) -> None:
    member = next(m for m in INTERFACE.of("method") if m.name == method.name)
    decoded = method.decode({})
    assert msgspec.to_builtins(decoded) == {f.name: zero(f.type) for f in member.fields}
    assert msgspec.to_builtins(method.decode({f.name: None for f in member.fields} | {"unknown": 1})) == (
        msgspec.to_builtins(decoded)
    )


def test_null_inside_lists_and_maps_is_the_empty_value_of_what_belongs_there() -> None:
    hints = [
        (list[list[str]], [["a"], None], [["a"], []]),
        (dict[str, dict[str, str]], {"a": None}, {"a": {}}),
        (list[types.DiffInfo], [None], [{"path": "", "changeType": ""}]),
        (dict[str, str], {"a": None}, {"a": ""}),
    ]
    for hint, sent, meant in hints:
        method = Method("M", (Field("x", "", hint),), (), False, False, True, "1.6", "")
        assert msgspec.to_builtins(method.decode({"x": sent})["x"]) == meant


def test_what_clients_of_both_versions_send_for_systemd_is_accepted() -> None:
    def systemd(value: object) -> object:
        return METHODS["CreateContainer"].decode({"create": {"systemd": value}})["create"].systemd

    accepted = [True, False, None, "always", "false"]
    assert [systemd(value) for value in accepted] == accepted
    with pytest.raises(InvalidValue, match=r"create: Expected `bool \| str \| null`, got `int` - at `\$\.systemd`"):
        systemd(1)


def test_a_whole_number_is_a_float_where_a_float_is_declared() -> None:
    cpus = METHODS["CreateContainer"].decode({"create": {"cpus": 2}})["create"].cpus
    assert (type(cpus), cpus) == (float, 2.0)


@pytest.mark.parametrize(
    ("method", "parameters", "text"),
    [
        ("StopContainer", None, "io.podman.StopContainer: parameters: expected an object, got NoneType"),
        ("StopContainer", ["x"], "io.podman.StopContainer: parameters: expected an object, got list"),
        ("StopContainer", {"name": 3}, "io.podman.StopContainer: name: Expected `str`, got `int`"),
        ("StopContainer", {"timeout": True}, "io.podman.StopContainer: timeout: Expected `int`, got `bool`"),
        ("StopContainer", {"timeout": "1"}, "io.podman.StopContainer: timeout: Expected `int`, got `str`"),
        ("StopContainer", {"timeout": 1.5}, "io.podman.StopContainer: timeout: Expected `int`, got `float`"),
        (
            "StopContainer",
            {"timeout": 2**63},
            "io.podman.StopContainer: timeout: Expected `int` <= 9223372036854775807",
        ),
        ("VolumesPrune", {"x": 1}, None),
        ("VolumesPrune", None, None),
        (
            "VolumeCreate",
            {"options": {"labels": ["a"]}},
            "io.podman.VolumeCreate: options: Expected `object`, got `array` - at `$.labels`",
        ),
        ("VolumeCreate", {"options": []}, "io.podman.VolumeCreate: options: Expected `object`, got `array`"),
        (
            "GetVolumes",
            {"args": ["a", 1]},
            "io.podman.GetVolumes: args: Expected `str`, got `int` - at `$[1]`",
        ),
    ],
)
def test_a_wrong_type_is_refused_by_name(method: str, parameters: object, text: str | None) -> None:
    if text is None:
        assert METHODS[method].decode(parameters) == {}
        return
    with pytest.raises(InvalidValue) as caught:
        METHODS[method].decode(parameters)
    assert str(caught.value) == text


def test_a_reply_has_every_field_and_never_a_null_that_the_python_client_chokes_on() -> None:
    volumes = METHODS["GetVolumes"]
    assert volumes.encode({"volumes": [types.Volume(name="v")]}) == {
        "volumes": [{"name": "v", "labels": {}, "mountPoint": "", "driver": "", "options": {}}]
    }
    assert METHODS["Reset"].encode({}) == {}
    null = r"io\.podman\.GetVolumes: volumes: Expected `(array|str|object)`, got `null`"
    for wrong in (None, [types.Volume(name=None)], [None]):  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match=null):
            volumes.encode({"volumes": wrong})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"raw", "Expected `str`, got `bytes`"),
        (memoryview(b"raw"), "Expected `str`, got `bytes`"),
        (3, "Expected `str`, got `int`"),
        (object(), "Encoding objects of type object is unsupported"),
    ],
)
def test_a_reply_with_a_value_of_another_type_is_refused(value: object, text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        METHODS["InspectImage"].encode({"image": value})
    assert str(caught.value) == f"io.podman.InspectImage: image: {text}"


@pytest.mark.parametrize("outputs", [{}, {"containers": []}, {"containers": [], "containerS": []}])
def test_a_reply_with_other_fields_than_declared_is_refused(outputs: dict[str, object]) -> None:
    with pytest.raises(InvalidValue) as caught:
        METHODS["GetContainersByStatus"].encode(outputs)
    assert str(caught.value) == (
        f"io.podman.GetContainersByStatus: the reply must have ['containerS'], got {sorted(outputs)}"
    )


def test_each_error_of_the_idl_is_a_class_with_its_parameters() -> None:
    declared = {f"io.podman.{m.name}": tuple(f.name for f in m.fields) for m in INTERFACE.of("error")}
    assert {name: error.fields for name, error in errors.ERRORS.items()} == declared
    for name, error in errors.ERRORS.items():
        assert error.error_name == name
        assert issubclass(error, IoPodmanError)
        assert issubclass(error, PyengineError)
        assert getattr(errors, name.removeprefix("io.podman.")) is error


@pytest.mark.parametrize(
    ("error", "text", "parameters"),
    [
        (
            errors.ContainerNotFound("x", "no container x: no such container"),
            "no container x: no such container",
            {"id": "x", "reason": "no container x: no such container"},
        ),
        (errors.PodNotFound(name="p", reason="no such pod"), "no such pod", {"name": "p", "reason": "no such pod"}),
        (errors.NoContainerRunning(), "No container is running", {}),
        (errors.NoContainersInPod("p"), "The pod has no containers: p", {"name": "p"}),
        (errors.ErrCtrStopped("abc"), "The container is stopped already: abc", {"id": "abc"}),
        (errors.ErrorOccurred(""), "Any failure that has no error of its own", {"reason": ""}),
        (
            errors.PodContainerError("p", [types.PodContainerErrorData(containerid="c", reason="bad")] * 2),
            "An operation on a pod failed for some of its containers: p: c: bad, c: bad",
            {"podname": "p", "errors": [{"containerid": "c", "reason": "bad"}] * 2},
        ),
    ],
)
def test_an_error_speaks_to_people_and_to_the_wire(error: IoPodmanError, text: str, parameters: dict[str, Any]) -> None:
    assert (str(error), error.parameters) == (text, parameters)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.parameters) == (type(error), parameters)


def test_the_served_text_is_the_idl() -> None:
    assert interface.description() == (ROOT / "idl" / "io.podman.varlink").read_text()


def test_importing_pyengine_does_not_import_the_types() -> None:
    program = "import sys, pyengine; print([m for m in sys.modules if m.startswith('pyengine.iopodman')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
