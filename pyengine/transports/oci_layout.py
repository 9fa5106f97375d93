"""Reading an OCI image layout, in a directory or in a tar (oci-archive).

Source: OCI image-spec, image-layout.md.
"""

from __future__ import annotations

import platform
from functools import partial

from pyengine.errors import ArchiveError, ArchiveTooLarge, DigestMismatch, InvalidReference
from pyengine.oci.digest import Digest
from pyengine.oci.image import (
    CONFIG_TYPES,
    INDEX_TYPES,
    LAYER_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    decode_config,
    decode_document,
    decode_index,
    decode_manifest,
    effective_media_type,
)
from pyengine.oci.reference import Reference
from pyengine.store.blobs import REF_NAME
from pyengine.store.limits import Limits
from pyengine.transports.files import Files, read
from pyengine.transports.source import SourceImage, SourceLayer

_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "386",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
_NESTING = 3


def host_architecture() -> str:
    """This machine's architecture by the name that images use."""
    machine = platform.machine()
    return _MACHINES.get(machine, machine)


def read_images(files: Files, path: str | None, name: str | None, limits: Limits) -> list[SourceImage]:
    """The images of the layout, or the one whose reference name is ``name``.

    ``path`` is where a directory is: an image without a reference name is named after it, as podman does.
    """
    index = decode_index(read(files, "index.json", limits.document))
    chosen = [one for one in index.manifests if name is None or (one.annotations or {}).get(REF_NAME) == name]
    if not chosen:
        raise ArchiveError(f"the OCI layout has no image named {name!r}" if name else "the OCI layout has no image")
    # An image with several names is listed once for each of them.
    names: dict[str, list[str]] = {}
    descriptors: dict[str, Descriptor] = {}
    for descriptor in for_this_machine(chosen):
        descriptors.setdefault(descriptor.digest, descriptor)
        ref_name = (descriptor.annotations or {}).get(REF_NAME)
        full = full_name(ref_name) if ref_name else None
        if full:
            names.setdefault(descriptor.digest, []).append(full)
    if path is not None and len(descriptors) == 1 and not names:
        full = full_name(path.strip("/"))
        if full:
            names[next(iter(descriptors))] = [full]
    return [_image(files, descriptor, names.get(digest, []), limits) for digest, descriptor in descriptors.items()]


def full_name(name: str) -> str | None:
    """A reference name as an image name; the layout allows much that is not one, which then stays without."""
    try:
        return str(Reference.local(name))
    except InvalidReference:
        return None


def for_this_machine(descriptors: list[Descriptor]) -> list[Descriptor]:
    """The entries of an index that this machine can run: those without a platform, and those with ours."""
    ours = [
        one
        for one in descriptors
        if one.platform is None or (one.platform.os == "linux" and one.platform.architecture == host_architecture())
    ]
    # What only exists for other machines may still be stored, if it is clear which one is meant.
    return ours or (descriptors if len(descriptors) == 1 else [])


def read_document(files: Files, descriptor: Descriptor, limits: Limits) -> bytes:
    """A blob that is a JSON document, verified."""
    digest = Digest.parse(descriptor.digest)
    if descriptor.size > limits.document:
        raise ArchiveTooLarge(f"blob {digest} has {descriptor.size} bytes: at most {limits.document} are accepted")
    data = read(files, blob_name(digest), limits.document)
    if len(data) != descriptor.size:
        raise DigestMismatch(f"blob {digest}: size", str(descriptor.size), str(len(data)))
    actual = Digest.of(data, digest.algorithm)
    if actual != digest:
        raise DigestMismatch("blob: digest", str(digest), str(actual))
    return data


def blob_name(digest: Digest) -> str:
    """The path of a blob in a layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _image(files: Files, descriptor: Descriptor, names: list[str], limits: Limits) -> SourceImage:
    for _ in range(_NESTING):
        if descriptor.media_type not in MANIFEST_TYPES | INDEX_TYPES:
            raise ArchiveError(f"the OCI layout names {descriptor.media_type[:100]!r}, which is not an image")
        data = read_document(files, descriptor, limits)
        document = decode_document(data, descriptor.media_type)
        if isinstance(document, Manifest):
            return image_of(files, data, descriptor.media_type, names, limits)
        descriptor = one_of(document)
    raise ArchiveError("the OCI layout has indexes inside of indexes, too deep to follow")


def one_of(index: Index) -> Descriptor:
    """The first entry of an index for this machine."""
    ours = for_this_machine(index.manifests)
    if not ours:
        raise ArchiveError(f"the index has no image for linux/{host_architecture()}")
    return ours[0]


def image_of(files: Files, data: bytes, media_type: str, names: list[str], limits: Limits) -> SourceImage:
    """The image that a manifest in a layout describes."""
    manifest = decode_manifest(data, media_type)
    check_types(manifest)
    config = read_document(files, manifest.config, limits)
    decode_config(config)
    layers = []
    for layer in manifest.layers:
        digest = Digest.parse(layer.digest)
        files.size(blob_name(digest))
        layers.append(SourceLayer(f"layer {digest}", partial(files.chunks, blob_name(digest)), digest, layer.size))
    return SourceImage(config, tuple(layers), tuple(names), data, effective_media_type(manifest, media_type))


def check_types(manifest: Manifest) -> None:
    """:class:`ArchiveError` if the manifest is of something else than a container image (an artifact, a helm chart)."""
    if manifest.config.media_type not in CONFIG_TYPES:
        raise ArchiveError(f"the manifest has a configuration of type {manifest.config.media_type[:80]!r}: no image")
    for layer in manifest.layers:
        if layer.media_type not in LAYER_TYPES:
            raise ArchiveError(f"the manifest has a layer of type {layer.media_type[:100]!r}, which is not supported")
