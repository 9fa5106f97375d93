"""The IDL is the reference: every name, type, nullability and order, with the listed additions of 1.9 and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from idl_generator import ROOT, generate_types
from varlink import scanner

REFERENCE = json.loads((ROOT.parent / "shared" / "reference" / "io.podman.json").read_text())
TEXT = (ROOT / "idl" / "io.podman.varlink").read_text(encoding="utf-8")
INTERFACE = generate_types.parse(TEXT)

Fields = list[tuple[str, str]]

# What is taken from 1.9, spelt out: the reference says that it exists, this list says that it is ours.
NEW_TYPES = ["RemoveImageResponse", "AuthConfig"]
NEW_METHODS = [
    "Reset",
    "EvictContainer",
    "ListImagesWithFilters",
    "UntagImage",
    "RemoveImageWithResponse",
    "ImageTree",
    "InspectVolume",
]
NEW_FIELDS: dict[str, Fields] = {
    "Image": [("digests", "[]string"), ("history", "[]string")],
    "Create": [("overrideArch", "?string"), ("overrideOS", "?string")],
    "BuildInfo": [
        ("architecture", "string"),
        ("addCapabilities", "[]string"),
        ("devices", "[]string"),
        ("dropCapabilities", "[]string"),
        ("os", "string"),
        ("signBy", "string"),
        ("target", "string"),
        ("transientMounts", "[]string"),
    ],
}
NEW_INPUTS: dict[str, Fields] = {"PullImage": [("creds", "AuthConfig")], "ImagesPrune": [("filter", "[]string")]}

# What is not taken, because a client of 1.6 would break.
LEFT_OUT_TYPES = ["InfoRegistry"]
LEFT_OUT_CHANGES: dict[str, dict[str, Any]] = {
    "Create": {"removed": ["net"], "changed": [{"name": "systemd", "type": "string", "nullable": True}]},
    "PodmanInfo": {
        "removed": ["insecure_registries"],
        "changed": [{"name": "registries", "type": "InfoRegistry", "nullable": False}],
    },
}

STREAMS = {
    "GetContainerLogs",
    "GetContainersLogs",
    "BuildImage",
    "PushImage",
    "Commit",
    "PullImage",
    "ImageSave",
    "LoadImage",
    "GetEvents",
}
UPGRADES = {"Attach", "ExecContainer", "SendFile", "ReceiveFile"}
NOT_IMPLEMENTED = {"AttachControl", "CreateFromCC"}


def of_reference(fields: list[dict[str, Any]]) -> Fields:
    return [(field["name"], "?" * field["nullable"] + field["type"]) for field in fields]


def of_idl(fields: tuple[Any, ...]) -> Fields:
    return [(field.name, field.type.text) for field in fields]


def in_1_6(kind: str) -> dict[str, Any]:
    return {name: entry for name, entry in REFERENCE[kind].items() if entry.get("since_1_9") is not True}


def in_1_9_only(kind: str) -> list[str]:
    return [name for name, entry in REFERENCE[kind].items() if entry.get("since_1_9") is True]


def test_the_reference_has_the_counts_that_the_header_claims() -> None:
    assert (len(in_1_6("types")), len(in_1_6("methods")), len(in_1_6("errors"))) == (39, 90, 13)
    assert "(39 types, 90 methods, 13 errors" in " ".join(INTERFACE.comment)


def test_types_are_those_of_1_6_with_the_listed_fields_of_1_9_at_their_end() -> None:
    expected = [
        (name, of_reference(entry["fields"]) + NEW_FIELDS.get(name, [])) for name, entry in in_1_6("types").items()
    ]
    expected += [(name, of_reference(REFERENCE["types"][name]["fields"])) for name in NEW_TYPES]
    assert [(member.name, of_idl(member.fields)) for member in INTERFACE.of("type")] == expected


def test_methods_are_those_of_1_6_and_then_those_of_1_9() -> None:
    methods = {**in_1_6("methods"), **{name: REFERENCE["methods"][name] for name in NEW_METHODS}}
    expected = [
        (name, of_reference(entry["in"]) + NEW_INPUTS.get(name, []), of_reference(entry["out"]))
        for name, entry in methods.items()
    ]
    assert [(m.name, of_idl(m.fields), of_idl(m.out)) for m in INTERFACE.of("method")] == expected
    assert len(expected) == REFERENCE["counts_1_9"]["methods"] == 97


def test_errors_are_those_of_1_6() -> None:
    expected = [(name, of_reference(entry["parameters"])) for name, entry in REFERENCE["errors"].items()]
    assert [(member.name, of_idl(member.fields)) for member in INTERFACE.of("error")] == expected


def test_types_come_before_methods_before_errors() -> None:
    kinds = [member.kind for member in INTERFACE.members]
    assert kinds == sorted(kinds, key=["type", "method", "error"].index)


def test_everything_that_1_9_added_is_either_taken_or_listed_as_left_out() -> None:
    assert in_1_9_only("types") == NEW_TYPES + LEFT_OUT_TYPES
    assert in_1_9_only("methods") == NEW_METHODS
    assert in_1_9_only("errors") == []
    added, other = {}, {}
    for name, entry in in_1_6("types").items():
        changes = dict(entry.get("since_1_9", {}))
        if "added" in changes:
            added[name] = of_reference(changes.pop("added"))
        if changes:
            other[name] = changes
    assert added == NEW_FIELDS
    assert other == LEFT_OUT_CHANGES
    inputs = {name: entry["since_1_9"] for name, entry in in_1_6("methods").items() if "since_1_9" in entry}
    assert inputs.keys() == NEW_INPUTS.keys()
    for name, changes in inputs.items():
        assert changes.keys() == {"in"}
        assert changes["in"].keys() == {"added"}
        assert of_reference(changes["in"]["added"]) == NEW_INPUTS[name]


def test_the_header_names_what_was_taken_and_what_not() -> None:
    header = " ".join(INTERFACE.comment)
    taken, left_out = header.split("Not taken from 1.9")
    names = [*NEW_TYPES, *NEW_METHODS, *NEW_INPUTS, "Image.digests", "Create.overrideArch", "overrideOS", "BuildInfo"]
    assert [name for name in names if name not in taken] == []
    names = ["Create.net", "Create.systemd", "PodmanInfo.registries", "insecure_registries", *LEFT_OUT_TYPES]
    assert [name for name in names if name not in left_out] == []


@pytest.mark.parametrize(
    ("tag", "methods"),
    [
        ("Streams:", STREAMS),
        ("Upgrades:", UPGRADES),
        ("Not implemented", NOT_IMPLEMENTED),
        ("Since 1.9", set(NEW_METHODS)),
    ],
)
def test_comments_carry_the_facts_that_the_generator_reads(tag: str, methods: set[str]) -> None:
    tagged = {m.name for m in INTERFACE.of("method") if any(line.startswith(tag) for line in m.comment)}
    assert tagged == methods


def test_every_member_has_a_comment_that_old_scanners_can_read() -> None:
    assert [member.name for member in INTERFACE.members if not member.comment] == []
    assert TEXT.isascii()  # the scanner of old clients does not agree with itself about encodings
    comments = [line for line in TEXT.splitlines() if "#" in line]
    assert [line for line in comments if not line.lstrip().startswith("#")] == []
    assert [line for line in comments if line.count("#") > 1] == []  # that scanner keeps what follows the last one
    assert [line for line in TEXT.splitlines() if len(line) > generate_types.WIDTH] == []


def varlink_text(kind: Any) -> str:
    """A type of the varlink package's tree, spelt as in an IDL."""
    for constructor, prefix in ((scanner._Maybe, "?"), (scanner._Array, "[]"), (scanner._Dict, "[string]")):
        if isinstance(kind, constructor):
            return prefix + varlink_text(kind.element_type)
    if isinstance(kind, scanner._CustomType):
        return str(kind.name)
    return {str: "string", int: "int", float: "float", bool: "bool"}[type(kind)]


def test_the_varlink_package_reads_the_same_interface() -> None:
    theirs = scanner.Interface(TEXT)

    def fields(struct: Any) -> Fields:
        return [(name, varlink_text(kind)) for name, kind in struct.fields.items()]

    assert theirs.name == "io.podman"
    assert list(theirs.members) == [member.name for member in INTERFACE.members]
    for member in INTERFACE.members:
        other = theirs.members[member.name]
        if member.kind == "method":
            assert fields(other.in_type) == of_idl(member.fields)
            assert fields(other.out_type) == of_idl(member.out)
            assert other.signature.startswith(member.name + "(")
        else:
            assert fields(other.type) == of_idl(member.fields)


def test_a_client_of_1_6_that_leaves_out_trailing_inputs_still_gets_through_its_own_filter() -> None:
    theirs = scanner.Interface(TEXT)

    def sent(method: str, *args: object) -> object:
        return theirs.filter_params("client.call", theirs.get_method(method).in_type, False, args, {})

    assert sent("PullImage", "alpine") == {"name": "alpine"}
    assert sent("ImagesPrune", True) == {"all": True}
    assert sent("WaitContainer", "x") == {"name": "x"}
    assert sent("BuildImage", {"dockerfile": "x"}) == {"build": {}}
