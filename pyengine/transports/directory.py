"""Reading the ``dir`` format: one flat directory with ``manifest.json``, ``version`` and a file for each blob."""

from __future__ import annotations

from functools import partial

from pyengine.errors import ArchiveError, DigestMismatch
from pyengine.oci.digest import Digest
from pyengine.oci.image import decode_config, decode_manifest, effective_media_type
from pyengine.oci.reference import Reference
from pyengine.store.limits import Limits
from pyengine.transports.files import Files, read
from pyengine.transports.oci_layout import check_types, full_name
from pyengine.transports.source import SourceImage, SourceLayer

_VERSION = b"Directory Transport Version: 1."


def read_image(files: Files, path: str, name: str | None, limits: Limits) -> SourceImage:
    """The image in the directory, named ``name`` or, as podman does, after the directory's path."""
    version = read(files, "version", 1024)
    if not version.startswith(_VERSION):
        raise ArchiveError(f"{path}/version is {version[:60]!r}: only version 1 of the format is supported")
    data = read(files, "manifest.json", limits.document)
    manifest = decode_manifest(data)
    check_types(manifest)
    digest = Digest.parse(manifest.config.digest)
    config = read(files, digest.hex, limits.document)
    actual = Digest.of(config, digest.algorithm)
    if actual != digest:
        raise DigestMismatch("configuration: digest", str(digest), str(actual))
    decode_config(config)
    layers = []
    for layer in manifest.layers:
        blob = Digest.parse(layer.digest)
        files.size(blob.hex)
        layers.append(SourceLayer(f"layer {blob}", partial(files.chunks, blob.hex), blob, layer.size))
    full = str(Reference.local(name)) if name else full_name(path.strip("/"))
    return SourceImage(config, tuple(layers), (full,) if full else (), data, effective_media_type(manifest))
