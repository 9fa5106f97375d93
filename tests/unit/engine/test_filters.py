"""The filters of ``ps`` (containers.md §4), against containers that are plain values."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.engine import launch
from pyengine.engine.config import ContainerConfig
from pyengine.engine.filters import FILTERS, compile_filters
from pyengine.engine.states import ContainerState
from pyengine.errors import ContainerNotFound, InvalidValue
from pyengine.oci import runtime as oci


class Box:
    """A container that counts how often its state is asked for."""

    def __init__(self, engine: Any, config: ContainerConfig, state: ContainerState) -> None:
        self.engine = engine
        self.config = config
        self.asked = 0
        self._state = state

    id = property(lambda self: self.config.id)
    name = property(lambda self: self.config.name)
    image_id = property(lambda self: self.config.image_id)
    image_name = property(lambda self: self.config.image_name)
    created_ns = property(lambda self: self.config.created_ns)

    def state(self) -> ContainerState:
        self.asked += 1
        return self._state


class Containers:
    def __init__(self) -> None:
        self.boxes: list[Box] = []

    def get(self, name: str) -> Box:
        for box in self.boxes:
            if name in (box.name, box.id):
                return box
        raise ContainerNotFound(name, "no such container")


@pytest.fixture
def engine() -> Any:
    return SimpleNamespace(containers=Containers())


Make = Callable[..., Box]
CONFIGURED = ContainerState()


@pytest.fixture
def make(engine: Any) -> Make:
    def make(name: str, state: ContainerState = CONFIGURED, **fields: Any) -> Box:
        number = len(engine.containers.boxes) + 1
        fields = {"id": f"{number:x}" * 64, "created_ns": number * 1000, **fields}
        box = Box(engine, ContainerConfig(name=name, **fields), state)
        engine.containers.boxes.append(box)
        return box

    return make


def names(engine: Any, **filters: str | list[str]) -> list[str]:
    wanted = {key: [value] if isinstance(value, str) else value for key, value in filters.items()}
    matches = compile_filters(engine, wanted)
    return [box.name for box in engine.containers.boxes if matches(box)]


def test_no_filter_matches_everything(engine: Any, make: Make) -> None:
    make("one")
    assert names(engine) == ["one"]


def test_id_is_a_part_of_the_id_anywhere(engine: Any, make: Make) -> None:
    make("one", id="ab" * 32)
    make("two", id="cd" * 32)
    assert names(engine, id="dcd") == ["two"]


def test_name_is_a_regular_expression_that_may_match_anywhere(engine: Any, make: Make) -> None:
    make("sad_golick")
    make("gladiator")
    assert names(engine, name="gl|go") == ["sad_golick", "gladiator"]
    assert names(engine, name="^gl") == ["gladiator"]


def test_a_name_that_is_no_regular_expression_is_refused(engine: Any) -> None:
    with pytest.raises(InvalidValue, match=r"filter name='\(' is not a regular expression"):
        compile_filters(engine, {"name": ["("]})


def test_label_matches_a_key_or_a_key_with_exactly_this_value(engine: Any, make: Make) -> None:
    make("one", labels={"a": "1", "empty": ""})
    make("two", labels={"a": "12"})
    assert names(engine, label="a") == ["one", "two"]
    assert names(engine, label="a=1") == ["one"]
    assert names(engine, label="empty=") == ["one"]
    assert names(engine, label="b") == []


@pytest.mark.parametrize(
    ("word", "states"),
    [
        ("created", ["configured", "created"]),
        ("running", ["running"]),
        ("paused", ["paused"]),
        ("stopped", ["stopped", "exited"]),
        ("exited", ["stopped", "exited"]),
        ("unknown", []),
    ],
)
def test_status_words_stand_for_states(engine: Any, make: Make, word: str, states: list[str]) -> None:
    for status in ("configured", "created", "running", "paused", "stopped", "exited"):
        make(status, ContainerState(status=status))
    assert names(engine, status=word) == states


def test_an_unknown_status_is_refused_with_the_words_that_are_known(engine: Any) -> None:
    with pytest.raises(InvalidValue, match="filter status='dead': expected one of created, running, paused"):
        compile_filters(engine, {"status": ["dead"]})


def test_exited_wants_the_exit_code_of_a_container_that_ended(engine: Any, make: Make) -> None:
    make("never", ContainerState(status="configured"))
    make("fine", ContainerState(status="exited"))
    make("failed", ContainerState(status="exited", exit_code=3))
    make("again", ContainerState(status="running", exit_code=3))
    assert names(engine, exited="0") == ["fine"]
    assert names(engine, exited="3") == ["failed"]


@pytest.mark.parametrize("text", ["", "x", "1.5", "256", "-2"])
def test_an_exit_code_that_is_none_is_refused(engine: Any, text: str) -> None:
    with pytest.raises(InvalidValue, match=r"filter exited: .* expected an integer from -1 to 255"):
        compile_filters(engine, {"exited": [text]})


def test_ancestor_is_a_part_of_the_image_id_or_name(engine: Any, make: Make) -> None:
    make("one", image_id="11" * 32, image_name="docker.io/library/alpine:3.20")
    make("two", image_id="22" * 32, image_name="localhost/base:1")
    assert names(engine, ancestor="alpine") == ["one"]
    assert names(engine, ancestor="2222") == ["two"]


def test_before_and_since_compare_with_the_creation_of_a_container(engine: Any, make: Make) -> None:
    for name in ("first", "second", "third"):
        make(name)
    assert names(engine, before="second") == ["first"]
    assert names(engine, since="second") == ["third"]


def test_before_an_unknown_container_is_an_error(engine: Any) -> None:
    with pytest.raises(ContainerNotFound, match="no such container"):
        compile_filters(engine, {"before": ["nobody"]})


def test_volume_matches_the_source_and_the_destination_of_a_mount(
    engine: Any, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, gone = make("one"), make("two"), make("gone")
    mounts = {one.id: oci.Mount(destination="/in", source="/data"), two.id: oci.Mount(destination="/x", source="/data")}

    def read_spec(_: Any, id: str) -> oci.RuntimeSpec:
        if id == gone.id:
            raise FileNotFoundError(id)
        return oci.RuntimeSpec(oci_version="1.0.2", mounts=(mounts[id],))

    monkeypatch.setattr(launch, "read_spec", read_spec)
    assert names(engine, volume="/data") == ["one", "two"]
    assert names(engine, volume="/data:/in") == ["one"]
    assert names(engine, volume="/other") == []


def test_every_value_of_every_filter_has_to_match(engine: Any, make: Make) -> None:
    make("one", labels={"a": "1", "b": "2"})
    make("two", labels={"a": "1"})
    assert names(engine, label=["a", "b"]) == ["one"]
    assert names(engine, label=["a", "b"], name="two") == []


def test_the_state_is_read_only_for_filters_about_it_and_once(engine: Any, make: Make) -> None:
    running = make("one", ContainerState(status="running"))
    other = make("two", ContainerState(status="running"))
    assert names(engine, name="one") == ["one"]
    assert running.asked == 0
    assert names(engine, name="one", status="running", exited="0") == []
    assert (running.asked, other.asked) == (1, 0)


def test_an_unknown_filter_is_refused_with_the_names_that_are_known(engine: Any) -> None:
    with pytest.raises(InvalidValue, match="filter 'colour': expected one of ancestor, before, exited, id,"):
        compile_filters(engine, {"colour": ["red"]})


def test_health_is_refused_as_long_as_there_are_no_health_checks(engine: Any) -> None:
    with pytest.raises(InvalidValue, match="filter 'health': this version has no health checks yet"):
        compile_filters(engine, {"health": ["healthy"]})


@given(st.dictionaries(st.sampled_from((*FILTERS, "health", "x")), st.lists(st.text(max_size=20), max_size=3)))
def test_any_filters_give_a_function_or_an_error_of_ours(filters: dict[str, list[str]]) -> None:
    engine = SimpleNamespace(containers=Containers())
    known = {"before": ContainerNotFound, "since": ContainerNotFound}
    refusals = tuple({known.get(name, InvalidValue) for name, values in filters.items() if values})
    try:
        matches = compile_filters(engine, filters)  # type: ignore[arg-type]
    except refusals:
        return
    assert callable(matches)
    assert not ({"health", "x"} & {name for name, values in filters.items() if values})
