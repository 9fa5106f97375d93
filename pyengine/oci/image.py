"""The documents that make an image: manifest, index and configuration, of OCI and of Docker (schema 2).

Source: OCI image-spec 1.1 (manifest.md, image-index.md, config.md) and Docker's "Image Manifest Version 2, Schema 2";
Docker's configuration is OCI's with ``Healthcheck``, ``Shell`` and ``OnBuild`` in addition.

A digest names bytes, never a document that was parsed and written again: whoever parses one of these keeps the bytes.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from pyengine.errors import ArchiveError, ArchiveTooLarge
from pyengine.oci.digest import Digest

DOCUMENT_LIMIT = 4 << 20
"""Bytes that a document may have. Registries allow 4 MiB for a manifest; configurations are smaller."""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})

LAYER_TYPES: dict[str, str] = {
    OCI_LAYER: "",
    OCI_LAYER + "+gzip": "gzip",
    OCI_LAYER + "+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    DOCKER_LAYER: "",
    DOCKER_LAYER + ".gzip": "gzip",
    DOCKER_LAYER + ".zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}
"""Media types of layers that are file systems, and the compression that each promises."""


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """For which machines an entry of an index is."""

    architecture: str
    os: str
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Names a blob: its type, its digest and its size in bytes."""

    media_type: str
    digest: str
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str | None = None

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size is negative")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One image: its configuration and its layers, bottom first."""

    schema_version: int
    media_type: str = ""
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Several manifests, one for each platform, or the table of contents of an image layout."""

    schema_version: int
    media_type: str = ""
    manifests: list[Descriptor]
    annotations: dict[str, str] | None = None


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """How to ask a container for its health. Times are in nanoseconds; zero means the default."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """What a container of the image gets if nothing else is asked for."""

    user: str = ""
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None
    stop_timeout: int | None = None
    args_escaped: bool = False


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The layers by their diff ids (digests of the uncompressed tar streams), bottom first."""

    type: str
    diff_ids: list[str]


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a layer, or a change of the configuration without one, came about."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image's configuration. The digest of its bytes is the image ID."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    config: ContainerConfig | None = None
    rootfs: RootFS
    history: list[History] | None = None

    @property
    def diff_ids(self) -> list[Digest]:
        """The layers' diff ids as values; :class:`~pyengine.errors.InvalidDigest` if one is malformed."""
        return [Digest.parse(text) for text in self.rootfs.diff_ids]


class _Shape(msgspec.Struct, rename="camel"):
    """The members by which a manifest and an index can be told apart, and confused."""

    media_type: str = ""
    config: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()
    manifests: msgspec.Raw = msgspec.Raw()
    fs_layers: msgspec.Raw = msgspec.Raw()

    def has(self, member: str) -> bool:
        """Whether the member is there and is not null."""
        return bytes(getattr(self, member)) not in (b"", b"null")


_T = TypeVar("_T")


def _decode(data: bytes, type: type[_T], what: str) -> _T:
    if len(data) > DOCUMENT_LIMIT:
        raise ArchiveTooLarge(f"{what} has {len(data)} bytes: at most {DOCUMENT_LIMIT} are accepted")
    try:
        return msgspec.json.decode(data, type=type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArchiveError(f"{what} is not valid: {error}") from error


def decode_document(data: bytes, media_type: str | None = None) -> Manifest | Index:
    """A manifest or an index, whichever ``data`` is.

    ``media_type`` is what named it (a descriptor, a Content-Type), if anything did. A document that could be read as
    both, or as something else than what named it, is refused: two readers could otherwise take different images
    from the same digest (CVE-2021-41190).
    """
    shape = _decode(data, _Shape, "manifest")
    if shape.has("fs_layers"):
        raise ArchiveError("manifest is of Docker's schema 1, which is not supported")
    is_index = shape.has("manifests")
    if is_index and (shape.has("layers") or shape.has("config")):
        raise ArchiveError("manifest is ambiguous: it has the members of an image and of an index")
    if not is_index and not (shape.has("layers") and shape.has("config")):
        raise ArchiveError("manifest is not valid: it has neither config and layers nor manifests")
    types = INDEX_TYPES if is_index else MANIFEST_TYPES
    for claimed, by in ((media_type, "it is named as"), (shape.media_type, "its mediaType is")):
        if claimed and claimed not in types:
            raise ArchiveError(f"manifest contradicts its type: {by} {claimed[:100]!r}, which it is not")
    if media_type and shape.media_type and media_type != shape.media_type:
        raise ArchiveError(
            f"manifest contradicts its type: named as {media_type[:100]!r}, mediaType is {shape.media_type!r}"
        )
    document: Manifest | Index
    document = _decode(data, Index, "index") if is_index else _decode(data, Manifest, "manifest")
    if document.schema_version != 2:
        raise ArchiveError(f"manifest has schemaVersion {document.schema_version}: only 2 is supported")
    return document


def decode_manifest(data: bytes, media_type: str | None = None) -> Manifest:
    """``data`` as the manifest of one image; :class:`ArchiveError` if it is an index or anything else."""
    document = decode_document(data, media_type)
    if isinstance(document, Index):
        raise ArchiveError("an index was found where the manifest of one image is needed")
    return document


def decode_index(data: bytes, media_type: str | None = None) -> Index:
    """``data`` as an index; :class:`ArchiveError` if it is a manifest or anything else."""
    document = decode_document(data, media_type)
    if isinstance(document, Manifest):
        raise ArchiveError("the manifest of one image was found where an index is needed")
    return document


def decode_config(data: bytes) -> ImageConfig:
    """``data`` as the configuration of an image that has a file system."""
    config = _decode(data, ImageConfig, "image configuration")
    if config.rootfs.type != "layers":
        raise ArchiveError(f"image configuration has a rootfs of type {config.rootfs.type[:100]!r}, not 'layers'")
    return config


def encode(document: msgspec.Struct) -> bytes:
    """A document as JSON, members in their fixed order, so that equal documents have equal digests."""
    return msgspec.json.encode(document)


def effective_media_type(document: Manifest | Index, named: str | None = None) -> str:
    """The media type of a document that may leave it out, which OCI permits."""
    if document.media_type:
        return document.media_type
    if named:
        return named
    return OCI_MANIFEST if isinstance(document, Manifest) else OCI_INDEX
