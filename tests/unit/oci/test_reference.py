from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import InvalidReference
from pyengine.oci.reference import Reference, is_qualified

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("foo", "docker.io/library/foo:latest"),
        ("a/b", "docker.io/a/b:latest"),
        ("foo:1", "docker.io/library/foo:1"),
        ("localhost/foo", "localhost/foo:latest"),
        ("docker.io/foo", "docker.io/library/foo:latest"),
        ("index.docker.io/foo", "docker.io/library/foo:latest"),
        ("quay.io/x/y:v1.2_3-4", "quay.io/x/y:v1.2_3-4"),
        ("host:5000/a", "host:5000/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("HOST/a", "HOST/a:latest"),
        (f"foo@{SHA}", f"docker.io/library/foo@{SHA}"),
        (f"foo:1@{SHA}", f"docker.io/library/foo:1@{SHA}"),
        ("a__b/c-d/e.f", "docker.io/a__b/c-d/e.f:latest"),
        ("0123456789abcdef" * 4 + ":1", "docker.io/library/" + "0123456789abcdef" * 4 + ":1"),
    ],
)
def test_a_name_is_completed_as_docker_does(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("/", "invalid reference format"),
        ("Foo", "repository name must be lowercase"),
        ("quay.io/Foo/bar", "repository name must be lowercase"),
        ("foo:", "invalid reference format: tag"),
        ("foo:-x", "invalid reference format: tag"),
        ("foo:" + "x" * 129, "invalid reference format: tag"),
        ("foo//bar", "invalid reference format"),
        ("foo/", "invalid reference format"),
        ("foo@sha256:123", "invalid reference format: digest"),
        ("foo@md5:" + "0" * 32, "invalid reference format: digest"),
        ("-foo", "invalid reference format"),
        ("foo_", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("foo\n", "invalid reference format"),
        ("\u017foo", "invalid reference format"),
        ("../etc/passwd", "invalid reference format"),
        ("host:port/a", "invalid reference format: registry"),
        ("x" * 256, "must not be more than 255"),
        ("0123456789abcdef" * 4, "image ID"),
    ],
)
def test_what_is_no_name_says_why(text: str, message: str) -> None:
    with pytest.raises(InvalidReference, match=message):
        Reference.parse(text)


def test_a_local_target_is_on_localhost() -> None:
    assert str(Reference.local("foo")) == "localhost/foo:latest"
    assert str(Reference.local("a/b:1")) == "localhost/a/b:1"
    assert str(Reference.local("quay.io/b:1")) == "quay.io/b:1"


def test_a_tag_replaces_a_digest_and_the_other_way_round() -> None:
    reference = Reference.parse(f"foo:1@{SHA}")
    assert reference.digest is not None
    assert str(reference.with_tag("2")) == "docker.io/library/foo:2"
    assert str(reference.with_digest(reference.digest)) == f"docker.io/library/foo@{SHA}"


def test_without_a_default_a_name_stays_without_a_tag() -> None:
    assert str(Reference.parse("foo", default_tag=None)) == "docker.io/library/foo"


def test_only_a_dot_a_colon_or_localhost_make_a_qualified_name() -> None:
    assert [is_qualified(text) for text in ("a/b", "a.b/c", "a:1/c", "localhost/c", "a:1", "A/b")] == [
        False, True, True, True, False, False,
    ]  # fmt: skip


component = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,2})[a-z0-9]{1,3}){0,2}", fullmatch=True)
host = st.from_regex(r"[a-zA-Z0-9]{1,5}(\.[a-zA-Z0-9]{1,5}){1,2}(:[0-9]{1,5})?", fullmatch=True)
tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(host, st.lists(component, min_size=2, max_size=4), tag, st.booleans())
def test_every_name_of_the_grammar_is_itself_again(
    registry: str, parts: list[str], tag: str, with_digest: bool
) -> None:
    text = f"{registry}/{'/'.join(parts)}:{tag}" + (f"@{SHA}" if with_digest else "")
    if registry == "index.docker.io":
        return
    reference = Reference.parse(text)
    assert str(reference) == text
    assert Reference.parse(str(reference)) == reference


@given(st.text(alphabet=st.sampled_from("aAzZ09._-:/@[]\n \u00e9"), max_size=30))
def test_any_text_is_an_error_or_a_name_that_is_stable(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
