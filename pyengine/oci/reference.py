"""Image names: ``[registry/]repository[:tag][@digest]``.

Source: the grammar of the distribution project (``reference.go``) and the rules by which Docker completes short
names (``normalize.go``); what podman does differently is in the reference, images.md §2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pyengine.errors import InvalidDigest, InvalidReference
from pyengine.oci.digest import Digest
from pyengine.typing import override

DOCKER_REGISTRY = "docker.io"
LOCAL_REGISTRY = "localhost"
DEFAULT_TAG = "latest"

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_HEX_ID = re.compile(r"[a-f0-9]{64}", re.ASCII)
_NAME_LIMIT = 255


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A full image name. ``registry`` is a host, with its port if it has one; ``repository`` is the path behind it.

    :raises InvalidReference: if a part does not match its grammar, so that every instance can be written down
        with ``str()`` and parsed again to the same value
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if _REGISTRY.fullmatch(self.registry) is None:
            raise InvalidReference(f"invalid reference format: registry {self.registry[:260]!r}")
        if _REPOSITORY.fullmatch(self.repository) is None:
            if _REPOSITORY.fullmatch(self.repository.lower()) is not None:
                raise InvalidReference(
                    f"invalid reference format: repository name must be lowercase: {self.repository[:260]!r}"
                )
            raise InvalidReference(f"invalid reference format: repository {self.repository[:260]!r}")
        if len(self.name) > _NAME_LIMIT:
            raise InvalidReference(
                f"invalid reference format: repository name must not be more than {_NAME_LIMIT} characters"
            )
        if self.tag is not None and _TAG.fullmatch(self.tag) is None:
            raise InvalidReference(f"invalid reference format: tag {self.tag[:130]!r}")

    @classmethod
    def parse(cls, text: str, *, registry: str = DOCKER_REGISTRY, default_tag: str | None = DEFAULT_TAG) -> Reference:
        """Parse ``text`` and complete it.

        A name without a registry gets ``registry``; on docker.io a repository of one component gets ``library/``
        in front. A name with neither tag nor digest gets ``default_tag``, or stays without one if that is None.
        """
        host, path = split_registry(text)
        path, at, digest_text = path.partition("@")
        digest: Digest | None = None
        if at:
            try:
                digest = Digest.parse(digest_text)
            except InvalidDigest as error:
                raise InvalidReference(f"invalid reference format: {error}") from error
        path, colon, tag_text = path.partition(":")
        tag = tag_text if colon else None
        if tag is None and digest is None:
            tag = default_tag
        if not host:
            if not at and not colon and _HEX_ID.fullmatch(path):
                # It would be taken for an image ID wherever both are accepted.
                raise InvalidReference(
                    f"invalid repository name {path!r}: 64 hexadecimal digits mean an image ID, not a name"
                )
            host = registry
        if host == "index.docker.io":
            host = DOCKER_REGISTRY
        if host == DOCKER_REGISTRY and path and "/" not in path:
            path = f"library/{path}"
        return cls(host, path, tag, digest)

    @classmethod
    def local(cls, text: str) -> Reference:
        """Like :meth:`parse`, for names that are given to images here: without a registry it is ``localhost/``."""
        return cls.parse(text, registry=LOCAL_REGISTRY)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    def with_tag(self, tag: str) -> Reference:
        """The same repository with another tag and no digest."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository with a digest and no tag."""
        return replace(self, tag=None, digest=digest)

    @override
    def __str__(self) -> str:
        text = self.name
        if self.tag is not None:
            text += f":{self.tag}"
        if self.digest is not None:
            text += f"@{self.digest}"
        return text


def split_registry(text: str) -> tuple[str, str]:
    """The registry in front of a name, or an empty string, and the rest.

    The first of several components is a registry if it has a dot, a colon or an upper-case letter, or is
    ``localhost``.
    """
    first, slash, rest = text.partition("/")
    if slash and (any(c in first for c in ".:[") or first == LOCAL_REGISTRY or first != first.lower()):
        return first, rest
    return "", text


def is_qualified(text: str) -> bool:
    """Whether ``text`` names its registry in podman's sense: an upper-case letter alone does not make one."""
    first, slash, _ = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == LOCAL_REGISTRY)
