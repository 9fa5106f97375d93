"""``pyengine images --filter``. Rules: images.md §4.21. Pure functions over images."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pyengine.errors import InvalidValue

if TYPE_CHECKING:
    from pyengine.engine.images import Image

Test = Callable[["Image"], bool]


def make_filter(filters: Sequence[str], find: Callable[[str], Image]) -> Test:
    """A test that says whether an image passes all of the ``KEY=VALUE`` filters. ``find`` looks up an image by name."""
    tests = [_make_test(text, find) for text in filters]
    return lambda image: all(test(image) for test in tests)


def _make_test(text: str, find: Callable[[str], Image]) -> Test:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidValue(f"filter {text[:100]!r}: expected KEY=VALUE")
    if key in ("before", "since", "after"):
        moment = find(value).created_ns
        if key == "before":
            return lambda image: image.created_ns < moment
        return lambda image: image.created_ns > moment
    if key == "dangling":
        wanted = _boolean(value, text)
        return lambda image: (not image.names) == wanted
    if key == "label":
        name, has_value, label = value.partition("=")
        if has_value:
            return lambda image: image.labels.get(name) == label
        return lambda image: bool(image.labels.get(name))
    if key == "reference":
        pattern = f"*{value}*"
        return lambda image: any(fnmatch.fnmatchcase(each, pattern) for each in image.names)
    if key == "id":
        return lambda image: image.id == value.removeprefix("sha256:")
    raise InvalidValue(f"filter {text[:100]!r}: expected one of before, since, after, dangling, label, reference, id")


def _boolean(value: str, text: str) -> bool:
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise InvalidValue(f"filter {text[:100]!r}: expected true or false")


def split_name(name: str) -> tuple[str, str]:
    """Repository and tag of a full image name; a name by digest has no tag (``<none>``)."""
    if "@" in name:
        return name.partition("@")[0], "<none>"
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "<none>")
