"""Which image a name means: podman's order of look-up, as a pure function.

Source: the reference, images.md §2.1 and §2.3. The steps are numbered as there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pyengine.errors import ImageNotFound, InvalidReference
from pyengine.oci.reference import DEFAULT_TAG, Reference, is_qualified, split_registry

_HEX = re.compile(r"[0-9a-f]+")
_TRANSPORTS = ("docker", "docker-archive", "oci-archive", "oci", "dir", "containers-storage", "docker-daemon")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What look-up needs to know of a stored image: 64 hex digits, the manifest's digest, the full names."""

    id: str
    digest: str
    names: tuple[str, ...]


def lookup(text: str, images: Sequence[Candidate]) -> Candidate:
    """The one image that ``text`` means.

    :raises ImageNotFound: nothing matches, several do, or the name is blank; ``reason`` is podman's text
    :raises InvalidReference: the name cannot be one
    """
    if not text.strip():
        raise ImageNotFound(text, "input name is blank")
    wanted = _without_transport(text)
    if wanted.startswith("sha256:") and len(wanted) > 7:
        wanted = wanted[7:]
    found = _stored(wanted, images)
    if found is not None:
        return found
    if is_qualified(wanted):
        _check(wanted)
        raise ImageNotFound(text, f"unable to find '{text}' in local storage: no such image")
    _check(wanted)
    found = _stored(f"localhost/{wanted}", images)
    if found is not None:
        return found
    return _by_suffix(text, wanted, images)


def _check(text: str) -> None:
    if len(text) != 64 or _HEX.fullmatch(text) is None:  # an ID of no image is not found, rather than malformed
        Reference.parse(text)


def _without_transport(text: str) -> str:
    """Step 2: ``docker://foo`` and ``docker-archive:/path:foo`` name what they would bring."""
    transport, colon, rest = text.partition(":")
    if not colon or transport not in _TRANSPORTS:
        return text
    if transport == "docker" and rest.startswith("//"):
        return str(Reference.parse(rest[2:]))
    if transport == "docker-archive":
        _, colon, name = rest.partition(":")
        if colon:
            return str(Reference.parse(name))
    return text


def _stored(text: str, images: Sequence[Candidate]) -> Candidate | None:
    """Step 4, the look-up of the storage itself."""
    if text.startswith("[") and "]" in text:
        text = text[text.index("]") + 1 :]
    before, at, after = text.rpartition("@")
    if at:
        found = _by_id_part(before, after, images)
        if found is not None:
            return found
    elif len(text) >= 3 and ":" not in text:
        found = _by_prefix(text, images)
        if found is not None:
            return found
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        reference = None
    if reference is not None:
        full = str(reference)
        for image in images:
            if full in image.names:
                return image
        if reference.digest is not None:
            for image in images:
                if image.digest == str(reference.digest) and _in_repository(image, reference.name):
                    return image
    for image in images:
        if text in image.names:
            return image
    return _by_prefix(text, images)


def _by_prefix(prefix: str, images: Sequence[Candidate]) -> Candidate | None:
    if _HEX.fullmatch(prefix) is None:
        return None
    matches = [image for image in images if image.id.startswith(prefix)]
    return matches[0] if len(matches) == 1 else None


def _by_id_part(name: str, id: str, images: Sequence[Candidate]) -> Candidate | None:
    """Step 4b: ``name@id``."""
    if len(id) < 3 or _HEX.fullmatch(id) is None:
        return None
    image = _by_prefix(id, images)
    if image is None or not name:
        return image
    try:
        repository = Reference.parse(name).name
    except InvalidReference:
        return None
    return image if _in_repository(image, repository) else None


def _in_repository(image: Candidate, repository: str) -> bool:
    return any(_parsed(name).name == repository for name in image.names)


def _parsed(name: str) -> Reference:
    return Reference.parse(name, default_tag=None)


def _by_suffix(text: str, wanted: str, images: Sequence[Candidate]) -> Candidate:
    """Step 7: any name whose repository ends like this one, if it is the only one."""
    name, tag = _name_and_tag(wanted)
    matches: list[Candidate] = []
    for image in images:
        for stored in image.names:
            stored_name, stored_tag = _name_and_tag(stored)
            if stored_tag == tag and split_registry(stored_name)[1].endswith(name):
                matches.append(image)
    if len(matches) == 1:
        return matches[0]
    if matches:
        reason = f"found multiple name and tag matches for {name} in repotags: no such image"
    else:
        reason = f"unable to find a name and tag match for {name} in repotags: no such image"
    raise ImageNotFound(text, reason)


def _name_and_tag(text: str) -> tuple[str, str]:
    name, at, _ = text.partition("@")
    if at:
        return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name, "none"
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    return head + slash + last, tag if colon else DEFAULT_TAG
