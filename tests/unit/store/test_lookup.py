"""The order in which podman looks for an image (reference, images.md §2.1, §2.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyengine.errors import ImageNotFound, InvalidReference
from pyengine.store.lookup import Candidate, lookup

DIGEST = "sha256:" + "d" * 64


def image(id: str, *names: str, digest: str = DIGEST) -> Candidate:
    return Candidate(id.ljust(64, "0"), digest, names)


HUB = image("a1", "docker.io/library/foo:latest")
LOCAL = image("b2", "localhost/foo:latest", "localhost/zzz:9", digest="sha256:" + "e" * 64)
OTHER = image("c3", "example.com/a/b:latest")
HEX = image("c4d", "localhost/abc:latest")
ABC = image("abc")
ALL = [HUB, LOCAL, OTHER, HEX, ABC]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("foo", HUB),
        ("foo:latest", HUB),
        ("docker.io/foo", HUB),
        ("docker.io/library/foo:latest", HUB),
        ("docker://foo", HUB),
        ("docker-archive:/x.tar:foo:latest", HUB),
        ("localhost/foo", LOCAL),
        ("zzz:9", LOCAL),
        ("zz:9", LOCAL),
        ("b", LOCAL),
        ("b2", LOCAL),
        ("a/b", OTHER),
        ("abc", ABC),
        ("abc:latest", HEX),
        (ABC.id, ABC),
        ("sha256:" + ABC.id, ABC),
        ("sha256:abc", ABC),
        ("@abc", ABC),
        ("foo@a10", HUB),
        ("[overlay@/var/lib]foo", HUB),
        (f"foo@{DIGEST}", HUB),
        (f"docker.io/library/foo@{DIGEST}", HUB),
        ("a1", HUB),
    ],
)
def test_the_first_rule_that_finds_something_wins(text: str, found: Candidate) -> None:
    assert lookup(text, ALL) == found


def test_without_the_better_match_the_next_is_taken() -> None:
    assert lookup("foo", [LOCAL]) == LOCAL
    suffix = image("e5", "quay.io/x/foo:latest")
    assert lookup("foo", [suffix]) == suffix
    assert lookup("b", [OTHER]) == OTHER


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "input name is blank"),
        ("  ", "input name is blank"),
        ("nothing", "unable to find a name and tag match for nothing in repotags: no such image"),
        ("foo:2", "unable to find a name and tag match for foo in repotags: no such image"),
        ("quay.io/foo", "unable to find 'quay.io/foo' in local storage: no such image"),
        ("localhost/none:1", "unable to find 'localhost/none:1' in local storage: no such image"),
        (DIGEST, "unable to find a name and tag match for dddd"),
    ],
)
def test_what_is_not_found_says_so_in_podmans_words(text: str, reason: str) -> None:
    with pytest.raises(ImageNotFound) as caught:
        lookup(text, ALL)
    assert caught.value.reason.startswith(reason)
    assert caught.value.id == text


def test_several_names_that_match_are_ambiguous_even_of_one_image() -> None:
    twice = image("f6", "quay.io/x/foo:1", "quay.io/y/foo:1")
    with pytest.raises(ImageNotFound, match="found multiple name and tag matches for foo in repotags"):
        lookup("foo:1", [twice])


def test_an_id_prefix_of_several_images_is_no_match() -> None:
    with pytest.raises(ImageNotFound, match="no such image"):
        lookup("abc", [image("abc1"), image("abc2")])


def test_what_cannot_be_a_name_is_malformed() -> None:
    with pytest.raises(InvalidReference, match="repository name must be lowercase"):
        lookup("Foo", ALL)
    with pytest.raises(InvalidReference, match="invalid reference format"):
        lookup("foo::", ALL)
    with pytest.raises(InvalidReference, match="invalid reference format"):
        lookup("other@abc", ALL)


@given(st.text(alphabet="abfoz0129.:/@-_[]Ss h", max_size=20))
def test_any_text_finds_an_image_or_says_why_not(text: str) -> None:
    try:
        assert lookup(text, ALL) in ALL
    except (ImageNotFound, InvalidReference):
        pass
